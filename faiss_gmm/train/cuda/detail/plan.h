// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <optional>

#include "faiss_gmm/train/cuda/collect.h"
#include "faiss_gmm/train/cuda/cuda_estep_engine.h"
#include "faiss_gmm/train/cuda/detail/matrices.h"

namespace faiss_gmm::cuda {

// The sizes of everything that the engine takes of the device's memory; what is reserved follows them.

constexpr int pass_capacity = 32;   ///< candidates that a row's list holds
constexpr size_t planned_pairs = 3; ///< of a row, beside its home: what a wave has room for
/// Rows of a wave where they lie on the device and so many come at once: what ends a wave costs the more, the
/// fewer rows it has.
constexpr size_t most_wave_rows = size_t{1} << 21;
constexpr size_t usual_wave_rows = size_t{1} << 20; ///< of others
constexpr size_t most_working = size_t{256} << 20;  ///< bytes, CudaPlan::working() of every size
constexpr int most_wave_blocks = 64;                ///< at d = 2,048

/// Rows of a block: a function of d alone, a power of two.
size_t block_rows_for(size_t d);

/// Rows that the exact tier takes at once: a power of two, so that parts of blocks begin where they do.
size_t exact_rows_for(size_t K);

/// Sums of outer products: none where covariances are not matrices.
Scatter scatter_for(Covariance covariance, size_t K, size_t d);

CollectForm form_of(Covariance covariance);

/// The path asked for, or else the best, on a GPU of that compute capability's first number. Throws Error
/// where it cannot take that path.
CollectPath path_on(std::optional<CollectPath> asked, int major);

/// What the options and FAISS_GMM_CUDA_PATH ask for, or else the best, on the current device.
CollectPath path_for(const CudaOptions& options);

/// Of one segment of rows or pairs: what it leaves behind.
size_t segment_bytes(Covariance covariance, size_t d);

/// Scratch of sorting and scanning a wave's rows and pairs, and where their groups begin.
struct SortingBytes {
    size_t scratch = 0, groups = 0;
};
SortingBytes sorting_bytes(size_t rows, size_t groups, size_t pairs);

/// Rows of a source whose homes are kept for its next pass: what working memory leaves beside the longest wave, in
/// whole arrays of most_wave_rows. With the device current.
size_t most_homes(const CudaOptions& options, Covariance covariance, size_t K, size_t d);

/// The plan with so many blocks a wave, but for the rows that stay. n rows of a source. With the device
/// current.
CudaPlan plan_for(
        const CudaOptions& options,
        Covariance covariance,
        size_t n,
        size_t K,
        size_t d,
        size_t blocks);

/// Blocks of a wave, where `at_once` of the source's n rows come together, on the device: as many as
/// options.gpu_memory allows, at least one.
size_t wave_blocks_for(
        const CudaOptions& options,
        Covariance covariance,
        size_t n,
        size_t at_once,
        size_t K,
        size_t d);

} // namespace faiss_gmm::cuda
