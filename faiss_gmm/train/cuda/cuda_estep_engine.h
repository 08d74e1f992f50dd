// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm {

/// Which rows go through the product of low precision.
enum class CudaTier {
    /// All whose candidates a proven bound keeps to a short list; of the others, those whose products
    /// of split numbers are exact enough by theirs go densely, the rest in fp64.
    automatic,
    /// None: as the others of automatic (soft, not full), for tests and comparisons. Without a list a row is not
    /// known to be far from thin components but by component 0.
    dense,
    exact, ///< none: fp64 for all, for tests and comparisons
};

/// Which implementation of the product is used.
enum class CudaPath {
    automatic, ///< the best for the device; FAISS_GMM_CUDA_PATH=portable|hopper|plain overrides it
    portable,  ///< compute capability 8.0 and later
    hopper,    ///< 9.0
    plain,     ///< the slow reference
};

struct CudaOptions {
    int device = 0;
    /// Bytes of device memory that the engine may take beside rows that are there already or stay; 0: what is
    /// free. Any number gives the same bits (but for what CudaEStepEngine says of hints); less costs speed, and
    /// below what the least wave needs (CudaPlan::total()) that much is taken.
    size_t gpu_memory = 0;
    /// Bytes for rows of host memory that stay on the device between passes over one source; the rest
    /// streams. The default: what is free, but for an eighth of the device.
    size_t gpu_cache = std::numeric_limits<size_t>::max();
    CudaTier tier = CudaTier::automatic;
    CudaPath path = CudaPath::automatic;
    /// Responsibility from which a component gets its share of a row (the rest goes to the largest);
    /// 0: 1e-5 for tied_spherical and tied, min(1e-8, 1e-5 / K) otherwise, where what is far weighs in variances.
    double pair_threshold = 0;
    bool time_phases = false; ///< for phase_milliseconds() and CudaPassCounts::candidates
};

/// What the engine takes of the device's memory, in bytes.
struct CudaPlan {
    /// Rows summed together, and rows worked on at once.
    size_t block_rows = 0, wave_rows = 0;
    /// The mixture, operands, 5 sets of fp64 sums, sums of outer products.
    size_t parameters = 0;
    /// 2 waves of rows (on the device already: 2 blocks at most), tied: and whitened ones.
    size_t row_buffers = 0;
    size_t lists = 0; ///< candidates and pairs of a wave: 3 of a row, more take turns
    /// Of working memory: these share one workspace.
    size_t collecting = 0; ///< rows in the form of the product's operand, lists on their way
    size_t segments = 0;   ///< sums of rows and pairs on their way into fp64
    size_t dense = 0, exact = 0;
    size_t sorting = 0; ///< beside them
    /// In what they leave: 2 bytes a row of a source's first ones, 2^21 at a time, where its next pass looks first.
    size_t homes = 0;
    size_t cached_rows = 0; ///< of n that stay on the device

    size_t workspace() const; ///< the largest of those that share it
    size_t working() const;   ///< that, sorting and homes: at most 256 MiB
    /// All but the rows that stay: what CudaOptions::gpu_memory is compared with.
    size_t total() const;
    std::string text() const;
};

/// What a pass met, for benchmarks.
struct CudaPassCounts {
    size_t rows = 0;
    size_t pairs = 0;      ///< shares beside the one of each row's provisional home
    size_t candidates = 0; ///< of rows with a list; 0 without CudaOptions::time_phases
    size_t dense_rows = 0; ///< rows that the dense tier took
    size_t exact_rows = 0; ///< rows that the exact tier took
};

/// The engine on one GPU; head cards in train/cuda/*.cu. Chunks in host or in the device's memory.
/// Results are the same bits for any cut into chunks, amount of memory and residence of the rows. A pass
/// over a source that the last one was over too (Chunk::source) looks first where its rows were at home;
/// that finds the same candidates sooner, but where one of the two lets a list overflow the row takes
/// another tier, and of a row whose list overflows anyway the tier may hang on it too (spherical, diagonal).
/// Beside what the CPU engine promises: tied and full see rows to 2^-48 of themselves, which at 1e6 deviations
/// from a mean is 1e-2 nats of that row's log-likelihood; tied adds first moments in fp32, so the new matrix is right
/// to some 1e-7 d of the old one, and a reg_covar below that may leave one of fewer rows than dimensions indefinite.
class CudaEStepEngine : public EStepEngine {
public:
    using EStepEngine::begin;
    /// The standard M-step on the device, of all chunks since begin(): finish() and maximize() without
    /// their way through the host (but for tied and full), as advance() but without its summary, and so
    /// without waiting. begin_again() then starts the next pass.
    virtual void maximize_in_place(double reg_covar) = 0;
    /// Of the pass since begin().
    virtual CudaPassCounts counts() const = 0;
    /// top_responsibilities into device memory [chunk.n, m], for a chunk in device memory, in the order of
    /// its stream. Waits for all but the last step. Of a hard pass log_responsibility means nothing; a row
    /// with NaN or Inf has components of -1.
    virtual void rank_on_device(
            const Chunk& chunk,
            size_t m,
            int32_t* component,
            float* log_responsibility,
            float* squared_distance) = 0;
    /// Time of each phase in the pass before the last begin(), summed over its waves; empty without
    /// time_phases. Waits for the device.
    virtual std::vector<std::pair<std::string, double>> phase_milliseconds() = 0;
    /// The stream (a cudaStream_t) on which the engine works.
    virtual void* stream() const = 0;
};

/// Throws Error where there is no usable GPU, naming what was found.
std::unique_ptr<CudaEStepEngine> make_cuda_engine(const CudaOptions& options = {});

/// The plan for n rows in host memory, or that come at once on the device; asks the device what is free.
CudaPlan cuda_plan(
        const CudaOptions& options,
        Covariance covariance,
        size_t n,
        size_t K,
        size_t d,
        Chunk::Memory memory = Chunk::Memory::host);

/// Empty if the engine can do such a mixture, otherwise what of it it cannot; cuda_limits() says what
/// it can.
std::string cuda_refuses(Covariance covariance, size_t K, size_t d);
std::string cuda_limits();

/// Empty if make_cuda_engine would find a usable GPU, otherwise what stands against it; cuda_requirements() says what
/// is needed.
std::string cuda_obstacle(int device = 0);
std::string cuda_requirements(int device = 0);

} // namespace faiss_gmm
