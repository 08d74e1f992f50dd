// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Hard queries get more vectors, easy ones fewer, the same number on average.
//   (1) f = (d_1 / mean of d_1 .. d_P)^2, d the squared distances to the means of the P lists probed:
//       1 where no list is nearer than another, small where the nearest one stands out
//   (2) share = clamp(f / m_P, .3, 3.3), m_P such that its mean over the rows learnt from is 1
// Phases: 1 distances of some rows to their nearest means; 2 m_P for each P by m <- m * mean share,
// which converges from any start, since the mean share falls with m, no faster than 1 / m.
// Cost of learning: 2,048 rows, their 512 nearest means in fp64; of a query: a pass over P distances.
// Measured: bench/results/search-log.md, 5 to 9% less time at equal recall on two sets.
// Test: tests/runs/query_difficulty_test.cc.
#include "faiss_gmm/runs/query_difficulty.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm {
namespace {

constexpr size_t most_rows = 2048, most_lists = 512;
constexpr size_t steps = 30; ///< towards m_P

double clamped(double share) {
    return std::clamp(share, QueryDifficulty::least_share, QueryDifficulty::largest_share);
}

/// Of the nearest and the mean distance; 1 where all are zero.
double flatness(double least, double mean) {
    const double ratio = mean > 0 ? least / mean : 1;
    return ratio * ratio;
}

/// Squared distances [rows, m] to the m nearest means, ascending.
std::vector<float>
nearest_distances(size_t K, size_t d, const float* means, size_t m, const Chunk& rows) {
    GaussianMixture near;
    near.K = K;
    near.d = d;
    near.log_weights.assign(K, -std::log(static_cast<double>(K)));
    near.means.assign(means, means + K * d);
    near.covariances = {1.0};
    const auto engine = make_cpu_engine();
    engine->begin(near);
    TopResponsibilities top;
    engine->top_responsibilities(rows, m, top);
    return std::move(top.squared_distance);
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

void QueryDifficulty::learn(size_t K, size_t d, const float* means, size_t n, const float* x) {
    typical_.clear();
    const size_t rows = std::min(n, most_rows), m = std::min(K, most_lists);
    std::vector<float> queries(rows * d);
    for (size_t i = 0; i < rows; i++) {
        std::copy_n(x + i * n / rows * d, d, queries.begin() + static_cast<std::ptrdiff_t>(i * d));
    }
    if (rows == 0) {
        return;
    }
    const std::vector<float> distances =
            nearest_distances(K, d, means, m, Chunk{queries.data(), rows, 0});
    std::vector<double> sums(rows, 0.0), f(rows);
    for (size_t lists = 1; lists <= m; lists++) {
        for (size_t i = 0; i < rows; i++) {
            const float* of_row = distances.data() + i * m;
            sums[i] += of_row[lists - 1];
            f[i] = flatness(of_row[0], sums[i] / static_cast<double>(lists));
        }
        typical_.push_back(typical_of(f));
    }
}

double QueryDifficulty::share(double least, double mean, size_t lists) const {
    if (lists == 0 || lists > typical_.size() || !(typical_[lists - 1] > 0)) {
        return 1;
    }
    return clamped(flatness(least, mean) / typical_[lists - 1]);
}

} // namespace faiss_gmm
