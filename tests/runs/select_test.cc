// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// (tests/arm runs this on machines that are emulated.)
#include "faiss_gmm/runs/select.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/seed.h"

namespace faiss_gmm {
namespace {

TEST(SelectScores, HoldsTheSmallestAndAnEighthMoreAtMostUnlessEqual) {
    std::mt19937_64 random(test_seed());
    for (const size_t n : {0, 1, 5, 31, 32, 33, 64, 1000, 2016}) {
        for (const unsigned range : {1u, 3u, 500u, 65536u}) { // many equals, few
            std::vector<uint16_t> scores(n);
            for (uint16_t& score : scores) {
                score = static_cast<uint16_t>(65535 - random() % range);
            }
            std::vector<uint16_t> there;
            std::copy_if(scores.begin(), scores.end(), std::back_inserter(there), [](uint16_t s) {
                return s != 65535;
            });
            std::sort(there.begin(), there.end());
            for (const size_t want : {size_t{1}, size_t{7}, n / 2 + 1, n, 2 * n + 5}) {
                std::vector<uint64_t> keys(n + 1, 99);
                const size_t found = select_scores(scores.data(), n, want, keys.data());
                EXPECT_EQ(keys[n], 99u);
                keys.resize(found);
                ASSERT_GE(found, std::min(want, there.size()));
                EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end(), [](uint64_t a, uint64_t b) {
                    return static_cast<uint32_t>(a) < static_cast<uint32_t>(b);
                }));
                uint64_t most = 0;
                for (const uint64_t key : keys) {
                    EXPECT_EQ(key >> 32, scores[static_cast<uint32_t>(key)]);
                    most = std::max(most, key >> 32);
                }
                // All up to the largest taken, and no more than an eighth beyond but for equals.
                EXPECT_EQ(
                        found,
                        static_cast<size_t>(
                                std::count_if(there.begin(), there.end(), [&](uint16_t v) {
                                    return v <= most;
                                })));
                if (found > 0) {
                    EXPECT_LE(most, there[std::min(there.size(), want + want / 8) - 1]);
                }
            }
        }
    }
}

TEST(SelectValues, HoldsTheSmallestAndAnEighthMoreAtMostUnlessEqual) {
    std::mt19937_64 random(test_seed());
    std::normal_distribution<float> normal;
    for (const size_t n : {1, 2, 15, 16, 17, 100, 1024, 5000}) {
        for (const int kind : {0, 1, 2, 3}) {
            std::vector<float> values(n);
            for (float& v : values) {
                v = kind == 0   ? normal(random)
                    : kind == 1 ? static_cast<float>(random() % 3)
                    : kind == 2 ? 1.0f
                                // over many orders of magnitude, all finite
                                : std::exp(std::min(88.0f, 20 * normal(random)));
            }
            if (kind == 0) {
                values[n / 2] = -1e38f;
                values[n - 1] = 1e38f;
            }
            std::vector<float> sorted = values;
            std::sort(sorted.begin(), sorted.end());
            for (const size_t want : {size_t{1}, n / 10 + 1, n}) {
                std::vector<int32_t> positions(n);
                const size_t found = select_values(values.data(), n, want, positions.data());
                positions.resize(found);
                ASSERT_GE(found, want) << n << ", kind " << kind;
                EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
                EXPECT_EQ(std::set<int32_t>(positions.begin(), positions.end()).size(), found);
                float most = -INFINITY;
                for (const int32_t p : positions) {
                    most = std::max(most, values[p]);
                }
                // All up to the largest taken, and no more than an eighth beyond but for equals.
                EXPECT_EQ(
                        found,
                        static_cast<size_t>(std::count_if(
                                values.begin(), values.end(), [&](float v) { return v <= most; })));
                EXPECT_LE(most, sorted[std::min(n, want + want / 8) - 1]);
            }
        }
    }
}

} // namespace
} // namespace faiss_gmm
