// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// The oracle: one EM iteration as the formulas say it, in double precision, n x K at once.
// Variances are summed in a second pass around the new means, so nothing cancels.

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
    for (size_t i = 0; i < n; ++i) {
        double* row = &r[i * K];
        const double top = *std::max_element(row, row + K);
        const size_t best = std::max_element(row, row + K) - row;
        double sum = 0;
        for (size_t k = 0; k < K; ++k) {
            sum += std::exp(row[k] - top);
        }
        const double norm = hard ? top : top + std::log(sum);
        result.log_likelihood.push_back(norm);
        for (size_t k = 0; k < K; ++k) {
            row[k] = hard ? double(k == best) : std::exp(row[k] - norm);
            result.N_k[k] += row[k];
            for (size_t j = 0; j < d; ++j) {
                // Relative to the first row: a common offset must not cost digits.
                result.means[k * d + j] += row[k] * (double(x[i * d + j]) - x[j]);
            }
        }
    }
    for (size_t k = 0; k < K; ++k) {
        for (size_t j = 0; j < d; ++j) {
            result.means[k * d + j] = result.N_k[k] > 1e-12
                                              ? x[j] + result.means[k * d + j] / result.N_k[k]
                                              : mixture.means[k * d + j];
        }
    }
    const bool tied = mixture.covariance == Covariance::tied_spherical ||
                      mixture.covariance == Covariance::tied;
    result.covariances.assign(mixture.covariances.size(), 0.0);
    std::vector<double> e(d);
    for (size_t i = 0; i < n; ++i) {
        for (size_t k = 0; k < K; ++k) {
            const double weight = r[i * K + k] / (tied ? double(n) : result.N_k[k]);
            if (weight == 0 || result.N_k[k] <= 1e-12) {
                continue;
            }
            for (size_t j = 0; j < d; ++j) {
                e[j] = x[i * d + j] - result.means[k * d + j];
            }
            for (size_t j = 0; j < d; ++j) {
                switch (mixture.covariance) {
                case Covariance::tied_spherical:
                    result.covariances[0] += weight * e[j] * e[j] / d;
                    break;
                case Covariance::spherical:
                    result.covariances[k] += weight * e[j] * e[j] / d;
                    break;
                case Covariance::diagonal:
                    result.covariances[k * d + j] += weight * e[j] * e[j];
                    break;
                case Covariance::tied:
                case Covariance::full: {
                    const size_t first = mixture.covariance == Covariance::full ? k * d * d : 0;
                    for (size_t l = 0; l < d; ++l) {
                        result.covariances[first + j * d + l] += weight * e[j] * e[l];
                    }
                    break;
                }
                }
            }
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
