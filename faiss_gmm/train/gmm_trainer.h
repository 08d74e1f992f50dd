// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/engine.h"
#include "faiss_gmm/train/estep_engine.h"
#include "faiss_gmm/train/vector_source.h"

namespace faiss_gmm {

/// What a progress callback is told after each iteration.
struct TrainingProgress {
    size_t run = 0;       ///< 0 .. n_init - 1
    size_t iteration = 0; ///< 1 .. max_iter
    /// Nats a row, of the parameters the iteration began with. max_iter = 0: of the nearest
    /// component alone under variance 1, that is -(|x - mu|^2 + d log 2 pi) / 2 - log K.
    double mean_log_likelihood = 0;
    double change = 0; ///< against the iteration before
    double smallest_N_k = 0;
    double imbalance = 1;          ///< K * sum (N_k / n)^2, 1 when even (FAISS's imbalance factor)
    double shared_fraction = 0;    ///< share of rows with r > 1 / K in a second component
    size_t reseeded = 0;           ///< components started anew in this iteration
    double seconds = 0;            ///< of this iteration
    double warm_start_seconds = 0; ///< that the run took before iteration 1
};

struct TrainingParameters {
    Covariance covariance = Covariance::tied_spherical;
    Mixing mixing = Mixing::uniform;
    /// EM iterations; 0: ten Lloyd steps on the whole sample, no EM, and the covariances of their
    /// last hard assignment. 6 after 8 cheap warm-up steps cost less than ten Lloyd steps.
    size_t max_iter = 6;
    double tol = 1e-3; ///< stop when the mean log-likelihood gains less, nats a row
    size_t n_init = 1; ///< runs from different seeds; the best likelihood is kept
    uint64_t seed = 1234;
    /// Of the CPU engine, where train(K, n, d, x) makes one. automatic is quicker from 4,096 components on
    /// and not exact there: see EStep, and bench/results/large-nlist.md for what it costs and saves.
    EStep estep = EStep::automatic;
    /// Of train(K, n, d, x), as EngineParameters says; never stored in a file.
    EngineKind engine = EngineKind::automatic;
    int device = 0;        ///< number of the GPU
    size_t gpu_memory = 0; ///< MiB of it that training may take beside the rows; 0: what is free
    /// MiB of it for rows that stay there between iterations; automatic_cache: what is free. The rest
    /// streams; 0: all does.
    size_t gpu_cache = automatic_cache;
    double reg_covar = 1e-6;               ///< added to variances, in squared units of the data
    size_t min_points_per_component = 39;  ///< fewer: a warning, FAISS's wording
    size_t max_points_per_component = 256; ///< more: a random subset is used; 0: all rows
    size_t warm_start_iterations = 8; ///< Lloyd steps on 64 rows a component before EM; at least 1
    /// Inner product: means are brought to unit length after each M-step, and the mixture is one of
    /// directions: EM takes rows brought to unit length (a row of zeros stays). Lloyd steps take them as
    /// they are, as stock does. The source must hand out host memory.
    bool unit_means = false;
    std::vector<float> means_init; ///< [K, d] or empty: start here instead of k-means
    bool keep_means = false; ///< with means_init: estimate weights and covariances around them only
    /// Called after each iteration, from the calling thread; false stops and keeps the last good
    /// parameters. Empty: none.
    std::function<bool(const TrainingProgress&)> progress;
    /// Called within passes over the rows, from the calling thread, every 65,536 rows of host memory or fewer, every
    /// 2^21 of a device's. What it throws ends training there; nothing is left of it. Empty: none.
    std::function<void()> interrupt;
    /// Told what deserves attention, e.g. too few points. Empty: dropped.
    std::function<void(const std::string&)> warning;
};

/// Of these parameters, what names the engine.
EngineParameters engine_parameters(const TrainingParameters& parameters);

struct TrainingResult {
    GaussianMixture mixture;
    std::vector<TrainingProgress> history; ///< of the run that was kept
    bool converged = false;
    bool stopped = false; ///< by the callback
    std::vector<float>
            data_mean; ///< [d], of the training sample, as the first pass over it takes it
};

/// The EM loop: sampling, warm start, iterations, re-seeding, balancing, stopping.
class GMMTrainer {
public:
    explicit GMMTrainer(TrainingParameters parameters);
    /// Trains K components on x [n, d] with the engine that the parameters name. With `automatic` a GPU
    /// that proves too small is a note, and the CPU takes over.
    TrainingResult train(size_t K, size_t n, size_t d, const float* x) const;
    /// Trains K components on the source's rows (all of them) with the given engine. A source in device memory needs
    /// means_init, and its first step takes all rows, where other sources' takes 64 a component.
    TrainingResult train(size_t K, VectorSource& source, EStepEngine& engine) const;

    /// The engine that train(K, n, d, x) makes.
    std::unique_ptr<EStepEngine> make_engine(size_t K, size_t d) const;

    const TrainingParameters& parameters() const {
        return parameters_;
    }

private:
    TrainingResult train(size_t K, size_t n, size_t d, const float* x, EStepEngine& engine) const;

    TrainingParameters parameters_;
};

} // namespace faiss_gmm
