// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "faiss_gmm/runs/block.h"
#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {
namespace {

std::vector<float> normal_rows(size_t n, size_t d, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d);
    for (float& v : x) {
        v = normal(random);
    }
    return x;
}

/// Sum of squared distances of rows to the means of their runs.
double scatter_within_runs(
        size_t n, size_t d, const std::vector<float>& x, const std::vector<uint32_t>& order) {
    double sum = 0;
    for (size_t first = 0; first < n; first += run_size) {
        const size_t end = std::min(n, first + run_size);
        for (size_t t = 0; t < d; t++) {
            double mean = 0;
            for (size_t i = first; i < end; i++) {
                mean += x[order[i] * d + t];
            }
            mean /= static_cast<double>(end - first);
            for (size_t i = first; i < end; i++) {
                const double r = x[order[i] * d + t] - mean;
                sum += r * r;
            }
        }
    }
    return sum;
}

TEST(Split, IsAPermutationOfAnySize) {
    for (const size_t n : {0, 1, 31, 32, 33, 64, 65, 100, 1000, 4097}) {
        for (const size_t d : {1, 3, 17}) {
            const auto x = normal_rows(n, d, 7);
            std::vector<uint32_t> order;
            balanced_split(n, d, x.data(), order);
            ASSERT_EQ(order.size(), n);
            std::vector<uint8_t> seen(n, 0);
            for (const uint32_t i : order) {
                ASSERT_LT(i, n);
                ASSERT_EQ(seen[i]++, 0);
            }
        }
    }
}

TEST(Split, SeparatesGroupsOf32) {
    // 16 groups of 32 equal rows each, in mixed order: each run must be one group.
    constexpr size_t groups = 16, d = 8;
    const auto centres = normal_rows(groups, d, 3);
    std::vector<uint32_t> group_of(groups * run_size);
    for (size_t i = 0; i < group_of.size(); i++) {
        group_of[i] = static_cast<uint32_t>(i % groups);
    }
    std::shuffle(group_of.begin(), group_of.end(), std::mt19937(5));
    std::vector<float> x(group_of.size() * d);
    for (size_t i = 0; i < group_of.size(); i++) {
        std::copy_n(centres.data() + group_of[i] * d, d, x.data() + i * d);
    }
    std::vector<uint32_t> order;
    balanced_split(group_of.size(), d, x.data(), order);
    for (size_t run = 0; run < groups; run++) {
        for (size_t i = 1; i < run_size; i++) {
            EXPECT_EQ(group_of[order[run * run_size + i]], group_of[order[run * run_size]]);
        }
    }
}

TEST(Split, RunsAreMuchTighterThanChance) {
    const size_t n = 2000, d = 4;
    const auto x = normal_rows(n, d, 11);
    std::vector<uint32_t> order, as_given(n);
    for (size_t i = 0; i < n; i++) {
        as_given[i] = static_cast<uint32_t>(i);
    }
    balanced_split(n, d, x.data(), order);
    // 63 runs in four dimensions: about a fifth of the scatter remains.
    EXPECT_LT(scatter_within_runs(n, d, x, order), 0.3 * scatter_within_runs(n, d, x, as_given));
}

TEST(Split, TakesEqualRowsAndHugeValues) {
    std::vector<float> x(1000 * 3, 5.0f);
    std::vector<uint32_t> order;
    balanced_split(1000, 3, x.data(), order);
    EXPECT_EQ(order.size(), 1000u);
    for (size_t i = 0; i < x.size(); i++) {
        x[i] = (i % 2 == 0 ? 1e30f : -1e30f);
    }
    balanced_split(1000, 3, x.data(), order); // overflows inside: must still be a permutation
    std::sort(order.begin(), order.end());
    for (uint32_t i = 0; i < 1000; i++) {
        ASSERT_EQ(order[i], i);
    }
}

TEST(VectorOps, EqualPlainLoopsForEveryLength) {
    std::mt19937 random(2);
    for (size_t d = 0; d < 70; d++) {
        std::vector<float> a(d), b(d), y(d);
        for (size_t i = 0; i < d; i++) { // small integers: exact in any order
            a[i] = static_cast<float>(random() % 16) - 8;
            b[i] = static_cast<float>(random() % 16) - 8;
            y[i] = static_cast<float>(random() % 16);
        }
        float product = 0, distance = 0;
        std::vector<float> sum = y;
        for (size_t i = 0; i < d; i++) {
            product += a[i] * b[i];
            distance += (a[i] - b[i]) * (a[i] - b[i]);
            sum[i] += 3 * a[i];
        }
        EXPECT_EQ(dot(d, a.data(), b.data()), product);
        EXPECT_EQ(squared_distance(d, a.data(), b.data()), distance);
        add_scaled(d, 3, a.data(), y.data());
        EXPECT_EQ(y, sum);
    }
}

} // namespace
} // namespace faiss_gmm
