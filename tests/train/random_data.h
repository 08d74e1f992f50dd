// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/mixture/random.h"
#include "tests/seed.h"

namespace faiss_gmm::testing {

constexpr Covariance all_covariances[] = {
        Covariance::tied_spherical,
        Covariance::spherical,
        Covariance::diagonal,
        Covariance::tied,
        Covariance::full};

inline const char* name_of(Covariance covariance) {
    constexpr const char* names[] = {"tied_spherical", "spherical", "diagonal", "tied", "full"};
    return names[static_cast<int>(covariance)];
}

/// Seed of the property tests: FAISS_GMM_TEST_SEED, or a fixed one.
inline uint64_t test_seed() {
    return seed_or(20260101);
}

/// A mixture whose means spread `spread` around `offset` and whose variances lie near 1.
inline GaussianMixture random_mixture(
        Covariance covariance, size_t K, size_t d, double spread, double offset, uint64_t seed) {
    Random random(seed);
    GaussianMixture mixture;
    mixture.K = K;
    mixture.d = d;
    mixture.covariance = covariance;
    mixture.mixing = Mixing::free;
    for (size_t i = 0; i < K * d; ++i) {
        mixture.means.push_back(static_cast<float>(offset + spread * random.normal()));
    }
    double total = 0;
    for (size_t k = 0; k < K; ++k) {
        mixture.log_weights.push_back(0.5 + random.uniform());
        total += mixture.log_weights[k];
    }
    for (double& weight : mixture.log_weights) {
        weight = std::log(weight / total);
    }
    const size_t size = GaussianMixture::covariance_size(covariance, K, d);
    if (covariance == Covariance::tied || covariance == Covariance::full) {
        // A A^T / d + 0.3 I
        mixture.covariances.assign(size, 0.0);
        std::vector<double> a(d * d);
        for (size_t first = 0; first < size; first += d * d) {
            for (double& value : a) {
                value = random.normal();
            }
            for (size_t i = 0; i < d; ++i) {
                for (size_t j = 0; j < d; ++j) {
                    double sum = i == j ? 0.3 : 0.0;
                    for (size_t l = 0; l < d; ++l) {
                        sum += a[i * d + l] * a[j * d + l] / d;
                    }
                    mixture.covariances[first + i * d + j] = sum;
                }
            }
        }
    } else {
        for (size_t i = 0; i < size; ++i) {
            mixture.covariances.push_back(0.5 + random.uniform());
        }
    }
    return mixture;
}

inline std::vector<float> draw(const GaussianMixture& mixture, size_t n, uint64_t seed) {
    std::vector<float> x(n * mixture.d);
    mixture.sample(n, seed, x.data());
    return x;
}

} // namespace faiss_gmm::testing
