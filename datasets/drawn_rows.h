// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Rows drawn from a mixture, each number by itself from its place: the same on any number of threads and,
// but for the last bits of log and cos, on a GPU. For benchmarks and tests.
//   mu_k = spread N(0, I),  x_i = mu_c(i) + sigma N(0, I), c(i) uniform

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#ifdef __CUDACC__
#define FAISS_GMM_DRAWN_ON_BOTH __host__ __device__
#else
#define FAISS_GMM_DRAWN_ON_BOTH
#endif

namespace faiss_gmm {

/// A number in (0, 1) from a counter (splitmix64).
FAISS_GMM_DRAWN_ON_BOTH inline float uniform_at(uint64_t counter) {
    uint64_t z = counter * 0x9e3779b97f4a7c15ull + 0x7f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (static_cast<float>((z ^ (z >> 31)) >> 40) + 0.5f) * 0x1.0p-24f;
}

FAISS_GMM_DRAWN_ON_BOTH inline float normal_at(uint64_t counter) {
    return sqrtf(-2 * logf(uniform_at(2 * counter))) *
           cosf(6.2831853f * uniform_at(2 * counter + 1));
}

struct DrawnRows {
    size_t K = 1, d = 1;
    /// Of the true means; 0: all rows around the origin.
    float spread = 1;
    float sigma = 1;

    /// [K, d]
    FAISS_GMM_DRAWN_ON_BOTH float mean(size_t k, size_t j) const {
        return spread * normal_at((uint64_t{2} << 40) + k * d + j);
    }
    FAISS_GMM_DRAWN_ON_BOTH size_t component(size_t i) const {
        const auto k =
                static_cast<size_t>(uniform_at((uint64_t{2} << 40) + i) * static_cast<float>(K));
        return k < K ? k : K - 1;
    }
    /// [any number of rows, d]
    FAISS_GMM_DRAWN_ON_BOTH float number(size_t i, size_t j) const {
        const float centre = spread > 0 ? mean(component(i), j) : 0.0f;
        return centre + sigma * normal_at((uint64_t{3} << 40) + i * d + j);
    }

    std::vector<float> means() const {
        std::vector<float> all(K * d);
        for (size_t at = 0; at < all.size(); ++at) {
            all[at] = mean(at / d, at % d);
        }
        return all;
    }
    std::vector<float> rows(size_t n) const {
        std::vector<float> all(n * d);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
            for (size_t j = 0; j < d; ++j) {
                all[i * d + j] = number(i, j);
            }
        }
        return all;
    }
};

/// How many components a row is expected to have within `nats` of its own. At a distance r from its own mean, which
/// lies as sqrt(2) chi_d among means N(0, I), another one is (r / sigma)^2 / 2 + (r / sigma) N(0, 1) nats behind.
inline double components_within(double nats, double K, double d, double sigma) {
    // Over chi, whose density is chi^(d - 1) exp(-chi^2 / 2) but for a factor.
    double density = 0, within = 0;
    const double peak = std::sqrt(d);
    for (double chi = std::fmax(peak - 8, 1e-3); chi < peak + 8; chi += 1.0 / 64) {
        const double weight =
                std::exp((d - 1) * std::log(chi / peak) - (chi * chi - peak * peak) / 2);
        const double apart = std::sqrt(2.0) * chi / sigma;
        density += weight;
        within += weight * std::erfc((apart / 2 - nats / apart) / std::sqrt(2.0)) / 2;
    }
    return 1 + (K - 1) * within / density;
}

/// Deviation at which three components of one of n rows have a responsibility above 1e-5 under the mixture fitted to them,
/// where means spread by 1; K > 3. 3.35 are expected within ln 1e5 nats of its own, of which a row has drawn the mean to
/// itself: d K / n nats (of more than 10.5 this makes up for 10.5). The mean largest responsibility is .993 then; for .93
/// to .96 it would be 13 to 25 components.
inline double overlapping_sigma(double n, double K, double d) {
    const double nats = std::fmax(std::log(1e5) - d * K / n, 1.0);
    double low = 0.01, high = std::sqrt(d);
    for (int i = 0; i < 60; ++i) {
        const double sigma = (low + high) / 2;
        (components_within(nats, K, d, sigma) < 3.35 ? low : high) = sigma;
    }
    return low;
}

/// The benchmarks' n rows by name. separate: components some 90 nats apart (at d = 128); overlap: as
/// overlapping_sigma() says; isotropic: N(0, I), without structure.
inline DrawnRows drawn_rows(const std::string& name, size_t n, size_t K, size_t d) {
    DrawnRows rows;
    rows.K = K;
    rows.d = d;
    if (name == "isotropic") {
        rows.spread = 0;
    } else {
        rows.sigma = name == "separate" ? 1.2f
                                        : static_cast<float>(overlapping_sigma(
                                                  static_cast<double>(n),
                                                  static_cast<double>(K),
                                                  static_cast<double>(d)));
    }
    return rows;
}

} // namespace faiss_gmm
