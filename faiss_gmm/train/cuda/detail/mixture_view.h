// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstdint>

#include "faiss_gmm/mixture/gaussian_mixture.h"

namespace faiss_gmm::cuda {

/// The parameters of a pass; all arrays in device memory.
/// log-joint of x and k, in nats: constant[k] - sum_j half_precision (x_j - mu_kj)^2; full: constant[k] -
/// |W_k (x - mu_k)|^2 / 2. A tied mixture is seen as the tied_spherical one that it is for whitened rows.
struct MixtureView {
    Covariance covariance = Covariance::tied_spherical; ///< not tied
    int K = 0, d = 0;
    const float* means = nullptr;     ///< [K, d]
    const float* means_low = nullptr; ///< [K, d] or null: see Rows::low
    const double* inverse = nullptr;  ///< full: W_k = L_k^-1 [K, d, d], zeros above the diagonal
    const double* constant = nullptr; ///< [K] log pi_k - (d log 2 pi + log |S_k|) / 2
    const double* half_precision = nullptr;  ///< [1], [K] or [K, d]: 1 / (2 s2)
    const float* half_precision32 = nullptr; ///< the same, rounded
};

/// What is decided about a row's components, beside the mixture.
struct PairRule {
    bool hard = false;   ///< whole rows to the best component
    float margin = 0;    ///< nats below the best within which a component enters the normaliser
    float threshold = 0; ///< responsibility from which a component gets its share; less goes home
    /// Nats below the best from which quick scores do for a component's part in the normaliser.
    float significant = 0;
};

} // namespace faiss_gmm::cuda
