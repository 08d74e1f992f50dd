// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// The oracle: one EM iteration as the formulas say it, in double precision, n x K at once.
// Variances are summed in a second pass around the new means, so nothing cancels. The same bits for any
// number of threads.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"

namespace faiss_gmm::naive {

struct Iteration {
    std::vector<double> log_likelihood;   // [n]
    std::vector<double> responsibilities; // [n, K]
    std::vector<double> N_k;              // [K]
    std::vector<double> means;            // [K, d], not rounded
    std::vector<double> covariances;      // in the mixture's shape
};

/// Adds one component's sum of shares (of row i: share[i K]) times the squares, or products, of x - mean in
/// the shape of its covariance. A share below 1e-25 is none: in fp64 it changes no component that has rows.
inline void add_squares(
        const GaussianMixture& mixture,
        size_t n,
        const float* x,
        const double* share,
        const double* mean,
        double* sums) {
    const size_t d = mixture.d;
    std::vector<double> e(d);
    for (size_t i = 0; i < n; ++i) {
        const double weight = share[i * mixture.K];
        if (weight < 1e-25) {
            continue;
        }
        double square = 0;
        for (size_t j = 0; j < d; ++j) {
            e[j] = x[i * d + j] - mean[j];
            square += e[j] * e[j];
        }
        switch (mixture.covariance) {
        case Covariance::tied_spherical:
        case Covariance::spherical:
            sums[0] += weight * square / d;
            break;
        case Covariance::diagonal:
            for (size_t j = 0; j < d; ++j) {
                sums[j] += weight * e[j] * e[j];
            }
            break;
        case Covariance::tied:
        case Covariance::full:
            for (size_t j = 0; j < d; ++j) {
                const double weighed = weight * e[j];
                for (size_t l = 0; l < d; ++l) {
                    sums[j * d + l] += weighed * e[l];
                }
            }
            break;
        }
    }
}

inline Iteration
iterate(const GaussianMixture& mixture,
        size_t n,
        const float* x,
        double reg_covar,
        bool hard = false) {
    const size_t K = mixture.K, d = mixture.d;
    Iteration result;
    std::vector<double>& r = result.responsibilities;
    r.resize(n * K);
    mixture.log_joint(n, x, r.data());
    result.N_k.assign(K, 0.0);
    result.means.assign(K * d, 0.0);
    result.log_likelihood.resize(n);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
        double* row = &r[i * K];
        const double top = *std::max_element(row, row + K);
        const size_t best = std::max_element(row, row + K) - row;
        double sum = 0;
        for (size_t k = 0; k < K; ++k) {
            sum += std::exp(row[k] - top);
        }
        const double norm = hard ? top : top + std::log(sum);
        result.log_likelihood[i] = norm;
        for (size_t k = 0; k < K; ++k) {
            row[k] = hard ? double(k == best) : std::exp(row[k] - norm);
        }
    }
    const bool tied = mixture.covariance == Covariance::tied_spherical ||
                      mixture.covariance == Covariance::tied;
    const size_t part = mixture.covariances.size() / (tied ? 1 : K); // of a component
    std::vector<double> of_components(K * part, 0.0);
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < static_cast<int64_t>(K); ++k) {
        double* mean = &result.means[k * d];
        double mass = 0;
        for (size_t i = 0; i < n; ++i) {
            const double share = r[i * K + k];
            mass += share;
            for (size_t j = 0; j < d; ++j) {
                // Relative to the first row: a common offset must not cost digits.
                mean[j] += share * (double(x[i * d + j]) - x[j]);
            }
        }
        for (size_t j = 0; j < d; ++j) {
            mean[j] = mass > 1e-12 ? x[j] + mean[j] / mass : mixture.means[k * d + j];
        }
        result.N_k[k] = mass;
        add_squares(mixture, n, x, &r[k], mean, &of_components[k * part]);
    }
    result.covariances.assign(mixture.covariances.size(), 0.0);
    for (size_t k = 0; k < K; ++k) {
        for (size_t p = 0; p < part && result.N_k[k] > 1e-12; ++p) {
            result.covariances[tied ? p : k * part + p] +=
                    of_components[k * part + p] / (tied ? double(n) : result.N_k[k]);
        }
    }
    const bool matrix =
            mixture.covariance == Covariance::tied || mixture.covariance == Covariance::full;
    for (size_t i = 0; i < result.covariances.size(); ++i) {
        if (!matrix || (i / d) % d == i % d) {
            const bool empty = !tied && result.N_k[i * K / result.covariances.size()] <= 1e-12;
            result.covariances[i] =
                    empty ? mixture.covariances[i] : result.covariances[i] + reg_covar;
        }
    }
    return result;
}

} // namespace faiss_gmm::naive
