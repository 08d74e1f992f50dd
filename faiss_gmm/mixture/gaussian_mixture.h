// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faiss_gmm {

/// Shape of the covariances; the last four mean what scikit-learn's GaussianMixture means.
enum class Covariance {
    tied_spherical, ///< one variance for all components and dimensions: covariances [1]
    spherical,      ///< one variance a component: covariances [K]
    diagonal,       ///< one variance a component and dimension: covariances [K, d]
    tied,           ///< one full matrix for all components: covariances [d, d]
    full,           ///< one full matrix a component: covariances [K, d, d]
};

/// How the weights of the components are found.
enum class Mixing {
    uniform,  ///< always 1 / K (default of an index: home is then the nearest mean)
    free,     ///< N_k / n, the EM estimate
    balanced, ///< log-weights lowered while a component's mass is above its share: lists even out
};

/// A Gaussian mixture: parameters, density, sampling, criteria. Knows nothing of training.
///
/// Symbols: d dimensions, K components, mu_k mean, S_k covariance, pi_k weight,
/// r_ik = pi_k N(x_i | mu_k, S_k) / sum_j pi_j N(x_i | mu_j, S_j).
/// All log-densities are natural logarithms, computed in double precision from (x - mu_k) directly
/// (the reference form: no cancellation, O(n K d); engines in train/ are the quick way).
struct GaussianMixture {
    size_t d = 0;
    size_t K = 0;
    Covariance covariance = Covariance::tied_spherical;
    Mixing mixing = Mixing::uniform;
    std::vector<float> means;        ///< [K, d]
    std::vector<double> log_weights; ///< [K], log pi_k; sums to one in probability
    std::vector<double> covariances; ///< shape as Covariance says; positive (definite)

    /// Number of covariance entries for a shape, e.g. K * d for diagonal.
    static size_t covariance_size(Covariance covariance, size_t K, size_t d);

    /// Throws Error unless the shapes fit, all numbers are finite and the covariances are positive.
    void check() const;

    /// log pi_k + log N(x_i | mu_k, S_k) for n rows x [n, d] into out [n, K].
    void log_joint(size_t n, const float* x, double* out) const;
    /// log r_ik for n rows x [n, d] into out [n, K].
    void log_responsibilities(size_t n, const float* x, double* out) const;
    /// log p(x_i), nats, for n rows x [n, d] into out [n].
    void score_samples(size_t n, const float* x, double* out) const;
    /// Mean of score_samples, nats a row.
    double score(size_t n, const float* x) const;
    /// Component of largest responsibility (the lower one of equals) for n rows x [n, d] into out [n].
    void predict(size_t n, const float* x, int64_t* out) const;
    /// Number of free parameters, as scikit-learn counts them.
    size_t parameter_count() const;
    /// Akaike's and the Bayesian information criterion on n rows x [n, d]; lower is better.
    double aic(size_t n, const float* x) const;
    double bic(size_t n, const float* x) const;
    /// Draws n rows into x [n, d] and, where labels is not null, their components into labels [n].
    void sample(size_t n, uint64_t seed, float* x, int64_t* labels = nullptr) const;
};

} // namespace faiss_gmm
