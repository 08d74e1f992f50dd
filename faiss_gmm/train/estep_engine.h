// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/vector_source.h"

namespace faiss_gmm {

/// How a pass hands a row to the components.
enum class Assignment {
    soft, ///< by its responsibilities: EM
    hard, ///< whole, to the component of largest log-joint (the lower one of equals): Lloyd steps
};

/// Which components the CPU engine compares a row with.
enum class EStep {
    /// nearest_cells for tied_spherical mixtures of 4,096 components and more, exact for all others:
    /// where variances differ too much is missed to do it unasked. (Warm-up by Lloyd steps goes by
    /// distance, and looks in cells whatever the covariance.)
    automatic,
    exact, ///< all of them
    /// Those in the cells of means nearest to the row, the others get responsibility 0: truncated EM
    /// (Luecke & Forster 2019). A pass costs n sqrt(K) instead of n K. Not within the tolerances of
    /// exact EM: a component in a cell that a row does not look into is missed, the more so where
    /// variances differ, for cells go by distance alone. Likelihoods are lower bounds, and one
    /// iteration's may be below the last one's. How much: bench/results/large-nlist.md. The bits are
    /// the same for any number of threads. `tied` and `full` have no near means: exact there.
    nearest_cells,
};

/// What policy looks at of a pass over the data.
struct PassSummary {
    size_t rows = 0;
    size_t shared_rows = 0;        ///< rows with r > 1 / K in a second component
    double sum_log_likelihood = 0; ///< nats, over all rows (hard: of the largest joint alone)
    std::vector<double> N_k;       ///< [K] sum of responsibilities
};

/// What one pass leaves behind. Moments are around the means of the mixture that the pass began with,
/// so that no large number is subtracted from another.
struct SufficientStatistics : PassSummary {
    std::vector<double> first_moment; ///< [K, d] sum of r_ik (x_i - mu_k)
    /// sum of r_ik (x_i - mu_k)(x_i - mu_k)^T reduced to the shape of the covariance: spherical forms
    /// sum |x - mu_k|^2 over the dimensions too.
    std::vector<double> second_moment;
};

/// The m best components of each row.
struct TopResponsibilities {
    std::vector<int32_t> component; ///< [n, m], best first (the lower number of equals); -1 past K
    std::vector<float> log_responsibility; ///< [n, m], log r_ik; or empty
    std::vector<float> squared_distance;   ///< [n, m], |x_i - mu_k|^2
};

/// An engine has too little memory for its least buffers; fewer components or another engine may do.
class OutOfMemory : public Error {
public:
    using Error::Error;
};

/// The seam behind which a CPU or a GPU does the heavy part of EM.
///
/// One pass: begin(mixture), accumulate(chunk) for every chunk in order, finish(). The engine owns no
/// loop over iterations. Results are the same bits for any number of threads and any cut into chunks.
class EStepEngine {
public:
    virtual ~EStepEngine() = default;

    /// Takes the parameters of a pass; forgets what was accumulated.
    virtual void begin(const GaussianMixture& mixture, Assignment assignment) = 0;
    void begin(const GaussianMixture& mixture) {
        begin(mixture, Assignment::soft);
    }
    /// Whether it kept these rows (Chunk::source, first, n) in an earlier pass: then accumulate() takes
    /// the chunk next without its x.
    virtual bool holds(const Chunk& chunk);
    /// Adds a chunk of rows. Throws Error naming the first row that holds NaN or Inf.
    virtual void accumulate(const Chunk& chunk) = 0;
    /// The statistics of all chunks since begin().
    virtual SufficientStatistics finish() = 0;
    /// The standard M-step: new means, exact covariances around them (plus reg_covar on the
    /// diagonal) and weights as mixing says: uniform 1 / K, free N_k / n; balanced weights stay, for
    /// they are the trainer's policy. Components without mass keep their parameters.
    virtual GaussianMixture
    maximize(const SufficientStatistics& statistics, double reg_covar) const = 0;

    /// finish() and maximize() in one, whose result stays with the engine: what many components weigh
    /// need not go back and forth between a GPU and the host.
    virtual PassSummary advance(double reg_covar);
    /// begin() with the parameters of the last advance().
    virtual void begin_again(Assignment assignment);
    /// The parameters of the last advance().
    virtual GaussianMixture mixture();

    /// The m best components of each row of the chunk under the mixture of begin(); with nearest_cells
    /// of those that the row looks at, which may be fewer than m: then -1. Of a hard begin() components
    /// and distances alone (to fp32 of the row's largest), and log_responsibility is empty: where many
    /// components matter to a row, its normaliser is most of the work.
    virtual void top_responsibilities(const Chunk& chunk, size_t m, TopResponsibilities& out) = 0;

private:
    GaussianMixture advanced_;
};

/// The BLAS engine on the CPU; head cards in train/cpu/cpu_estep_engine.cc and, for nearest_cells,
/// train/cpu/component_cells.cc.
std::unique_ptr<EStepEngine> make_cpu_engine(EStep estep = EStep::exact);

} // namespace faiss_gmm
