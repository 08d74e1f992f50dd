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

RunCodec codec_of(size_t K, size_t d, const std::vector<float>& means) {
    RunCodec codec;
    codec.set_means(d, K, means.data(), means.data(), false); // any point near the data
    return codec;
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
    difficulty.learn(codec_of(K, d, means), n, rows.data(), 0);
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

TEST(QueryDifficulty, AllowsForRowsThatTrainedTheMeans) {
    // Means of six rows each: the rows themselves lie nearer to them than other queries do. On average over sets:
    // of one, the mean share is from .9 to 1.05 where it is allowed for, from 1.4 to 1.7 where it is not.
    const size_t d = 12, K = 100, a_list = 6, n = K * a_list, queries = 1000, P = 20, sets = 12;
    double mean[2] = {0, 0};
    for (uint64_t set = 0; set < sets; set++) {
        const auto centres = mixed_rows(K, d, 2 * set),
                   noise = mixed_rows(n + queries, d, 2 * set + 1);
        std::vector<float> rows(n * d), means(K * d, 0.0f), asked(queries * d);
        for (size_t i = 0; i < n + queries; i++) {
            for (size_t t = 0; t < d; t++) {
                const float value = 4 * centres[i % K * d + t] + noise[i * d + t];
                (i < n ? rows[i * d + t] : asked[(i - n) * d + t]) = value;
                means[i % K * d + t] += i < n ? value / float(a_list) : 0;
            }
        }
        for (const bool allowing : {false, true}) {
            QueryDifficulty difficulty;
            difficulty.learn(codec_of(K, d, means), n, rows.data(), allowing ? double(a_list) : 0);
            for (size_t i = 0; i < queries; i++) {
                mean[allowing] += share_of(difficulty, distances_to(&asked[i * d], means, d), P) /
                                  double(queries * sets);
            }
        }
    }
    EXPECT_GT(mean[0], 1.15);
    EXPECT_NEAR(mean[1], 1, 0.1);
}

TEST(QueryDifficulty, GrowsAsTheNearestMeanStandsOutLess) {
    const size_t d = 12, K = 60, n = 3000;
    const auto means = mixed_rows(K, d, 1), rows = mixed_rows(n, d, 2);
    QueryDifficulty difficulty;
    difficulty.learn(codec_of(K, d, means), n, rows.data(), 0);
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
    difficulty.learn(
            codec_of(K, d, means), K, means.data(), 0); // every row is a mean: least distances 0
    for (const size_t P : {size_t{0}, size_t{2}, K, K + 1}) {
        EXPECT_EQ(difficulty.share(1, 2, P), 1) << P << " lists";
    }
    EXPECT_EQ(difficulty.share(5, 5, 1), 1); // of one list nothing can stand out
    difficulty.learn(codec_of(K, d, means), 0, nullptr, 0);
    EXPECT_EQ(difficulty.share(1, 2, 3), 1);
    const std::vector<float> same(K * d, 1.0f);
    difficulty.learn(codec_of(K, d, same), K, same.data(), 0);
    EXPECT_EQ(difficulty.share(0, 0, K), 1);
}

} // namespace
} // namespace faiss_gmm
