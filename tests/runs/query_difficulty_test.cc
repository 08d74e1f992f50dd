// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/query_difficulty.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "run_fixture.h"
#include "tests/seed.h"

namespace faiss_gmm {
namespace {

/// Squared distances of x [d] to means [K, d], ascending, in fp64.
std::vector<double> distances_to(const float* x, const std::vector<float>& means, size_t d) {
    std::vector<double> all;
    for (size_t k = 0; k < means.size() / d; k++) {
        double sum = 0;
        for (size_t t = 0; t < d; t++) {
            const double difference = double{x[t]} - means[k * d + t];
            sum += difference * difference;
        }
        all.push_back(sum);
    }
    std::sort(all.begin(), all.end());
    return all;
}

double share_of(const QueryDifficulty& difficulty, const std::vector<double>& distances, size_t P) {
    const auto end = distances.begin() + static_cast<std::ptrdiff_t>(P);
    const double sum = std::accumulate(distances.begin(), end, 0.0);
    return difficulty.share(distances[0], sum / static_cast<double>(P), P);
}

TEST(QueryDifficulty, SharesAreOneOnAverageOverQueriesLikeTheRows) {
    const uint64_t seed = seed_or(20261125);
    const size_t d = 12, K = 60, n = 5000, queries = 3000;
    const auto means = mixed_rows(K, d, seed), rows = mixed_rows(n, d, seed + 1),
               asked = mixed_rows(queries, d, seed + 2);
    QueryDifficulty difficulty;
    difficulty.learn(K, d, means.data(), n, rows.data());
    for (const size_t P : {1, 2, 7, 32, 60}) {
        double sum = 0;
        for (size_t i = 0; i < queries; i++) {
            const double share = share_of(difficulty, distances_to(&asked[i * d], means, d), P);
            ASSERT_GE(share, QueryDifficulty::least_share);
            ASSERT_LE(share, QueryDifficulty::largest_share);
            sum += share / double(queries);
        }
        EXPECT_NEAR(sum, 1, 0.05) << P << " lists";
    }
}

TEST(QueryDifficulty, GrowsAsTheNearestMeanStandsOutLess) {
    const size_t d = 12, K = 60, n = 3000;
    const auto means = mixed_rows(K, d, 1), rows = mixed_rows(n, d, 2);
    QueryDifficulty difficulty;
    difficulty.learn(K, d, means.data(), n, rows.data());
    double before = 0;
    for (double least = 0; least <= 1; least += 0.01) {
        const double share = difficulty.share(least, 1, 30);
        EXPECT_GE(share, before);
        before = share;
    }
    EXPECT_EQ(difficulty.share(0, 1, 30), QueryDifficulty::least_share);
    EXPECT_GT(before, 1);
}

TEST(QueryDifficulty, IsOneWhereNothingIsKnown) {
    QueryDifficulty difficulty;
    EXPECT_EQ(difficulty.share(1, 2, 3), 1);
    const size_t d = 4, K = 8;
    const auto means = mixed_rows(K, d, 1);
    difficulty.learn(K, d, means.data(), K, means.data()); // every row is a mean: least distances 0
    for (const size_t P : {size_t{0}, size_t{2}, K, K + 1}) {
        EXPECT_EQ(difficulty.share(1, 2, P), 1) << P << " lists";
    }
    EXPECT_EQ(difficulty.share(5, 5, 1), 1); // of one list nothing can stand out
    difficulty.learn(K, d, means.data(), 0, nullptr);
    EXPECT_EQ(difficulty.share(1, 2, 3), 1);
    const std::vector<float> same(K * d, 1.0f);
    difficulty.learn(K, d, same.data(), K, same.data());
    EXPECT_EQ(difficulty.share(0, 0, K), 1);
}

} // namespace
} // namespace faiss_gmm
