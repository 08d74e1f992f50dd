// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Few of many components are near a row: look for them in the nearest cells alone.
//   (1) cells      G = sqrt(c K) groups of means by Lloyd steps on the K means
//   (2) truncation r_ik = 0 outside the P cells whose centres are nearest to x_i; within them as in
//                  cpu_estep_engine.cc (1). EM with responsibilities cut to a set of components
//                  raises a lower bound of the likelihood in every step where the set does not get
//                  worse (Neal & Hinton 1998; Luecke & Forster, k-means as a variational EM
//                  approximation of Gaussian mixture models, 2019). FAISS's two-level clustering
//                  draws the same cells around rows, and never looks across their borders.
// Cost of a pass: 2 n d (G + P K / G) flops in place of 2 n d K, and 2 K G d for each of (1)'s steps.
// Determinism: run_to_run. The nearest cells are decided by exact distances, as components are.
// Test: tests/train/cpu/component_cells_test.cc; figures: bench/results/large-nlist.md.
#include "faiss_gmm/train/cpu/component_cells.h"

#include <algorithm>
#include <cmath>

namespace faiss_gmm::cpu {
namespace {

constexpr size_t lloyd_steps = 6;
constexpr double cells_factor = 4; ///< c of (1)
// Steps that only find means may miss a nearest one now and then.
constexpr size_t probed_hard = 8, probed_soft = 16; ///< P of (2)

/// Variance of a cell's centre, as a share of the variance within cells: so small that the margin
/// below the best, in which components are weighed exactly, holds none but near ties.
constexpr double sharpness = 1e-4;

GaussianMixture with_components(const GaussianMixture& mixture, const std::vector<uint32_t>& kept) {
    const size_t d = mixture.d;
    GaussianMixture result = mixture;
    result.K = kept.size();
    result.means.clear();
    result.log_weights.clear();
    const bool own = mixture.covariance == Covariance::spherical ||
                     mixture.covariance == Covariance::diagonal;
    const size_t block = own ? mixture.covariances.size() / mixture.K : 0;
    if (own) {
        result.covariances.clear();
    }
    for (const uint32_t k : kept) {
        const float* mu = &mixture.means[k * d];
        const double* covariance = mixture.covariances.data() + k * block;
        result.means.insert(result.means.end(), mu, mu + d);
        result.log_weights.push_back(mixture.log_weights[k]);
        result.covariances.insert(result.covariances.end(), covariance, covariance + block);
    }
    return result;
}

double length(const float* x, size_t d) {
    double square = 0;
    for (size_t j = 0; j < d; ++j) {
        square += static_cast<double>(x[j]) * x[j];
    }
    return std::sqrt(square);
}

/// The length that all means [n, d] have, as those of an index of inner products do; 0: none.
double common_length(size_t n, size_t d, const std::vector<float>& means) {
    const double first = length(means.data(), d);
    for (size_t k = 1; k < n; ++k) {
        if (std::abs(length(&means[k * d], d) - first) > 1e-4 * first) {
            return 0;
        }
    }
    return first;
}

/// Brings the centres to that length: which means are nearest then depends on a row's direction
/// alone, and so must which cells are. Centres inside the sphere would win all short rows.
void put_on_sphere(double radius, GaussianMixture& centres) {
    const size_t d = centres.d;
    for (size_t g = 0; g < centres.K; ++g) {
        float* centre = &centres.means[g * d];
        const double size = length(centre, d);
        for (size_t j = 0; j < d && size > 0; ++j) {
            centre[j] = static_cast<float>(centre[j] * radius / size);
        }
    }
}

/// Lloyd steps on means [n, d], from centres spread over them: G components of small variance.
GaussianMixture centres_of(size_t G, size_t n, size_t d, const std::vector<float>& means) {
    GaussianMixture centres;
    centres.K = G;
    centres.d = d;
    centres.log_weights.assign(G, -std::log(static_cast<double>(G)));
    for (size_t g = 0; g < G; ++g) {
        const float* mu = &means[g * n / G * d];
        centres.means.insert(centres.means.end(), mu, mu + d);
    }
    const std::unique_ptr<EStepEngine> engine = make_cpu_engine();
    double variance = 0;
    for (size_t step = 0; step < lloyd_steps; ++step) {
        centres.covariances = {1.0}; // hard passes need no more than distances
        engine->begin(centres, Assignment::hard);
        engine->accumulate({means.data(), n, 0});
        centres = engine->maximize(engine->finish(), 0);
        variance = centres.covariances[0];
    }
    centres.covariances = {variance > 0 ? sharpness * variance : 1.0};
    const double radius = common_length(n, d, means);
    if (radius > 0) {
        put_on_sphere(radius, centres);
    }
    return centres;
}

} // namespace

bool near_means_matter(Covariance covariance) {
    return covariance == Covariance::tied_spherical || covariance == Covariance::spherical ||
           covariance == Covariance::diagonal;
}

ComponentCells::ComponentCells(const GaussianMixture& mixture, Assignment assignment) {
    mixture.check();
    const size_t d = mixture.d;
    std::vector<uint32_t> weighty;
    for (size_t k = 0; k < mixture.K; ++k) {
        if (std::isfinite(mixture.log_weights[k])) {
            weighty.push_back(static_cast<uint32_t>(k));
        }
    }
    const std::vector<float> means = with_components(mixture, weighty).means;
    const size_t K = weighty.size();
    const size_t G = std::clamp<size_t>(std::lround(std::sqrt(cells_factor * K)), 1, K);
    GaussianMixture centres = centres_of(G, K, d, means);
    centres_ = make_cpu_engine();
    centres_->begin(centres);
    centres_->top_responsibilities({means.data(), K, 0}, 1, nearest_);
    const std::vector<int32_t> cell = nearest_.component;
    std::vector<uint32_t> filled; // cells of at least one component
    std::vector<std::vector<uint32_t>> members(G);
    for (size_t i = 0; i < K; ++i) {
        members[cell[i]].push_back(weighty[i]);
    }
    first_ = {0};
    for (size_t g = 0; g < G; ++g) {
        if (!members[g].empty()) {
            filled.push_back(static_cast<uint32_t>(g));
            components_.insert(components_.end(), members[g].begin(), members[g].end());
            first_.push_back(components_.size());
        }
    }
    centres = with_components(centres, filled);
    centres.log_weights.assign(filled.size(), -std::log(static_cast<double>(filled.size())));
    centres_->begin(centres);
    scores_ = std::make_unique<ScoreModel>(with_components(mixture, components_));
    probed_ = std::min(assignment == Assignment::soft ? probed_soft : probed_hard, filled.size());
}

const int32_t* ComponentCells::nearest(const Chunk& rows) {
    centres_->top_responsibilities(rows, probed_, nearest_);
    return nearest_.component.data();
}

} // namespace faiss_gmm::cpu
