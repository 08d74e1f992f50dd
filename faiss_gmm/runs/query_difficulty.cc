// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Hard queries get more vectors, easy ones fewer, the same number on average.
//   (1) f = (d_1 / mean of d_1 .. d_P)^2, d the squared distances to the means of the P lists probed:
//       1 where no list is nearer than another, small where the nearest one stands out
//   (2) share = clamp(f / m_P, .3, 3.3), m_P such that its mean over the rows learnt from is 1
// Rows that trained the means lie nearer to their own than other queries do: the mean of N rows is 1 - 1 / N of
// their variance away from each of them, 1 + 1 / N from others, so d_1 grows by (N + 1) / (N - 1).
// Phases: 1 distances of some rows to their nearest means, by one product; 2 m_P for each P by
// m <- m * mean share: the mean share falls with m, no faster than 1 / m.
// Cost of learning: 2 * 2,048 K d flops and 2,048 K log 512 comparisons; of a query: a pass over P distances.
// Inner product: what a query finds does not depend on its length, so neither does its share: all is of
// queries brought to length 1.
// Measured: bench/results/search-log.md, 2 to 8% less time at equal recall on two sets.
// Test: tests/runs/query_difficulty_test.cc.
#include "faiss_gmm/runs/query_difficulty.h"

#include <algorithm>
#include <cmath>

#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {
namespace {

constexpr size_t most_rows = 2048;
constexpr size_t block_numbers = size_t{1} << 21; ///< of products at once: 8 MiB
constexpr size_t steps = 30;                      ///< towards m_P
constexpr double least_typical = 1e-8;            ///< below it nearest distances are rounding alone

double clamped(double share) {
    return std::clamp(share, QueryDifficulty::least_share, QueryDifficulty::largest_share);
}

/// Of the nearest and the mean distance; 1 where all are zero.
double flatness(double least, double mean) {
    const double ratio = mean > 0 ? least / mean : 1;
    return ratio * ratio;
}

/// Rows i * n / rows of x as queries [rows, d]: centred, or for inner product of length 1.
std::vector<float> some_queries(const RunCodec& codec, size_t rows, size_t n, const float* x) {
    const size_t d = codec.d;
    std::vector<float> queries(rows * d);
    for (size_t i = 0; i < rows; i++) {
        const float* row = x + i * n / rows * d;
        float* query = queries.data() + i * d;
        const float norm = codec.inner_product ? std::sqrt(dot(d, row, row)) : 0;
        for (size_t t = 0; t < d; t++) {
            query[t] = row[t] - codec.data_mean[t];
            query[t] = norm > 0 ? query[t] / norm : query[t];
        }
    }
    return queries;
}

/// Squared distances [rows, m] to the m nearest means, ascending.
std::vector<float>
nearest_distances(const RunCodec& codec, const std::vector<float>& queries, size_t m) {
    const size_t d = codec.d, K = codec.nlist, rows = queries.size() / d;
    const size_t block = std::clamp<size_t>(block_numbers / K, 1, rows);
    std::vector<float> products(block * K), nearest(rows * m);
    for (size_t first = 0; first < rows; first += block) {
        const size_t n = std::min(block, rows - first);
        codec.multiply_means(n, queries.data() + first * d, -2.0f, products.data());
        for (size_t i = 0; i < n; i++) {
            const float* query = queries.data() + (first + i) * d;
            const float norm = dot(d, query, query);
            float* of_row = products.data() + i * K;
            for (size_t k = 0; k < K; k++) {
                of_row[k] = std::max(0.0f, of_row[k] + norm + codec.mean_norms[k]);
            }
            std::partial_sort_copy(
                    of_row,
                    of_row + K,
                    nearest.begin() + static_cast<std::ptrdiff_t>((first + i) * m),
                    nearest.begin() + static_cast<std::ptrdiff_t>((first + i + 1) * m));
        }
    }
    return nearest;
}

/// m such that the mean of clamped(f / m) is 1; 0 where all f are.
double typical_of(const std::vector<double>& f) {
    double m = 0;
    for (const double value : f) {
        m += value / static_cast<double>(f.size());
    }
    for (size_t step = 0; step < steps && m > 0; step++) {
        double mean = 0;
        for (const double value : f) {
            mean += clamped(value / m) / static_cast<double>(f.size());
        }
        m *= mean;
    }
    return m;
}

} // namespace

void QueryDifficulty::learn(const RunCodec& codec, size_t n, const float* x, double rows_a_list) {
    typical_.clear();
    const size_t rows = std::min(n, most_rows), m = std::min(codec.nlist, most_lists);
    if (rows == 0) {
        return;
    }
    const std::vector<float> distances =
            nearest_distances(codec, some_queries(codec, rows, n, x), m);
    const double pull = rows_a_list > 1 ? (rows_a_list + 1) / (rows_a_list - 1) : 1;
    std::vector<double> least(rows), sums(rows), f(rows);
    for (size_t i = 0; i < rows; i++) {
        least[i] = sums[i] = double{distances[i * m]} * pull;
    }
    for (size_t lists = 1; lists <= m; lists++) {
        for (size_t i = 0; i < rows; i++) {
            sums[i] += lists > 1 ? distances[i * m + lists - 1] : 0;
            f[i] = flatness(least[i], sums[i] / static_cast<double>(lists));
        }
        typical_.push_back(typical_of(f));
    }
}

double QueryDifficulty::share(double least, double mean, size_t lists) const {
    if (lists == 0 || lists > typical_.size() || !(typical_[lists - 1] > least_typical)) {
        return 1;
    }
    return clamped(flatness(least, mean) / typical_[lists - 1]);
}

} // namespace faiss_gmm
