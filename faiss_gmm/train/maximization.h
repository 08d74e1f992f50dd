// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm {

/// The standard M-step on the host: `before` are the parameters of the pass that left `statistics`.
/// Covariances are exact around the new means as they are stored (rounded to fp32); see the head
/// card of maximization.cc. A component without mass keeps its parameters.
GaussianMixture maximize_on_host(
        const GaussianMixture& before, const SufficientStatistics& statistics, double reg_covar);

/// Puts means [K, d] in place of those that an M-step found, keeping the covariances exact:
/// sum r (x - v)(x - v)^T = sum r (x - mu)(x - mu)^T + N (v - mu)(v - mu)^T. N_k [K] of that M-step.
void replace_means(
        GaussianMixture& mixture, const std::vector<double>& N_k, const std::vector<float>& means);

} // namespace faiss_gmm
