// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the engine takes of the device's memory.
//   parameters   grow with K d (full: K d^2): the mixture, operands, fp64 sums
//   row buffers, lists   grow with the rows of a wave: a power of two of blocks, chosen by gpu_memory and by
//                whether many rows come at once on the device; pairs beyond those planned take turns
//   working      at most 256 MiB for any n, K and d: a workspace that the collecting pass, the segments' sums,
//                the dense and the exact tier share, the scratch of sorting, and in what is left the homes of the
//                source's first rows. Segments that do not fit come in pieces, in the same order.
// Test: tests/train/cuda/cuda_estep_engine_test.cc (the bound over all sizes; what is taken against it).
#include "faiss_gmm/train/cuda/detail/plan.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/detail/dense.h"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/order.h"

namespace faiss_gmm {
namespace cuda {
namespace {

constexpr size_t block_bytes = size_t{1} << 28; ///< rows of a block, at d above 256
constexpr size_t most_block_rows = size_t{1} << 18;
constexpr size_t exact_bytes = size_t{64} << 20;
constexpr size_t most_segment_bytes = size_t{160} << 20;

constexpr size_t list_bytes = 8 * pass_capacity + 56; ///< a row, all of its lists' parts
constexpr size_t pair_bytes = 24;

/// Bytes of a row that is made ready for scoring: whitened, for tied.
size_t white_bytes(Covariance covariance, size_t d) {
    return covariance == Covariance::tied ? 2 * sizeof(float) * d : 0;
}

/// The mixture and what follows from it, the pass's sums, the operands of collecting and dense.
size_t parameter_bytes(Covariance covariance, size_t K, size_t d, CollectPath path) {
    const bool tied = covariance == Covariance::tied, full = covariance == Covariance::full;
    const size_t numbers = covariance == Covariance::diagonal ? K * d : K;
    // means, their partial means, log-weights, constants; variances and half their inverses
    size_t bytes = K * d * 4 + (2 * (K * d / 64 + d) + K) * 8 + K * 16 + numbers * 20;
    const size_t vectors = covariance == Covariance::diagonal ? 2 : 1;
    constexpr size_t sets = 5; // of homes, of pairs, of both tiers beside them, and all of it
    bytes += sets * 8 * K * (vectors * d + 3);
    if (has_matrices(covariance)) { // the factors' inverses, and what is added up
        bytes += ((full ? K : 1) * d * d + scatter_for(covariance, K, d).numbers(d)) * 8;
    }
    if (tied) {
        bytes += K * d * 8; // whitened means
    }
    if (!full) {
        const CollectModelBytes operands = collect_model_bytes(collect_model_shape(
                form_of(covariance), static_cast<int64_t>(K), static_cast<int64_t>(d)));
        bytes += operands.operand + operands.columns + operands.scale;
        const DenseShape dense =
                dense_shape(path, covariance, static_cast<int>(K), static_cast<int>(d));
        bytes += dense_bytes(dense).pass +
                 dense_scale_count(covariance, static_cast<int>(K), static_cast<int>(d)) *
                         sizeof(float);
    }
    return bytes;
}

/// None: the best for the device.
std::optional<CollectPath> asked_path(CudaPath path) {
    switch (path) {
    case CudaPath::portable:
        return CollectPath::portable;
    case CudaPath::hopper:
        return CollectPath::hopper;
    case CudaPath::plain:
        return CollectPath::plain;
    default:
        break;
    }
    const char* asked = std::getenv("FAISS_GMM_CUDA_PATH");
    if (asked == nullptr || *asked == 0) {
        return std::nullopt;
    }
    const std::string name = asked;
    if (name == "portable") {
        return CollectPath::portable;
    }
    if (name == "hopper") {
        return CollectPath::hopper;
    }
    if (name == "plain") {
        return CollectPath::plain;
    }
    throw Error(
            {"choosing the CUDA engine's path",
             "FAISS_GMM_CUDA_PATH=" + name,
             "portable, hopper, plain",
             "unset it"});
}

} // namespace

size_t block_rows_for(size_t d) {
    size_t rows = most_block_rows;
    while (rows * d * sizeof(float) > block_bytes) {
        rows /= 2;
    }
    return rows;
}

size_t exact_rows_for(size_t K) {
    size_t rows = 32768;
    while (rows > 32 && rows * 2 * sizeof(double) * K > exact_bytes) {
        rows /= 2;
    }
    return rows;
}

Scatter scatter_for(Covariance covariance, size_t K, size_t d) {
    return covariance == Covariance::tied   ? scatter_shape(1, d, block_rows_for(d))
           : covariance == Covariance::full ? scatter_shape(K, d, exact_rows_for(K))
                                            : Scatter();
}

CollectForm form_of(Covariance covariance) {
    return covariance == Covariance::diagonal    ? CollectForm::squares
           : covariance == Covariance::spherical ? CollectForm::quadratic
                                                 : CollectForm::linear;
}

CollectPath path_on(std::optional<CollectPath> asked, int major) {
    const CollectPath best = best_collect_path(major);
    if (asked == CollectPath::hopper && best != CollectPath::hopper) {
        throw Error(
                {"choosing the CUDA engine's path",
                 fmt::format("hopper, on a GPU of compute capability {}", major),
                 "hopper on compute capability 9 alone; portable or plain on others",
                 "unset FAISS_GMM_CUDA_PATH and leave the path automatic, or choose portable"});
    }
    return asked.value_or(best);
}

CollectPath path_for(const CudaOptions& options) {
    return path_on(asked_path(options.path), compute_capability_major());
}

size_t segment_bytes(Covariance covariance, size_t d) {
    const size_t vectors = covariance == Covariance::diagonal ? 2 : 1;
    return vectors * d * sizeof(float) + 3 * sizeof(double);
}

SortingBytes sorting_bytes(size_t rows, size_t groups, size_t pairs) {
    const size_t items = std::max({rows, groups + 2, pairs});
    SortingBytes bytes;
    bytes.scratch = order_scratch_bytes(
            static_cast<int>(items), static_cast<int>(std::max(rows, groups) + 2));
    bytes.groups = (2 * groups + most_wave_blocks + 3) * sizeof(int);
    return bytes;
}

namespace {

/// The plan with so many blocks a wave, but for the rows and homes that stay.
CudaPlan
plan_of_wave(const CudaOptions& options, Covariance covariance, size_t K, size_t d, size_t blocks) {
    const CollectPath path = path_for(options);
    CudaPlan plan;
    plan.block_rows = block_rows_for(d);
    plan.wave_rows = blocks * plan.block_rows;
    const size_t rows = plan.wave_rows, pairs = planned_pairs * rows, groups = blocks * K;
    plan.parameters = parameter_bytes(covariance, K, d, path);
    plan.row_buffers = rows * (2 * d * sizeof(float) + white_bytes(covariance, d));
    plan.lists = rows * (list_bytes + planned_pairs * pair_bytes);
    const auto segments = [&](size_t items) { return most_segments(items, groups) + 64; };
    plan.segments = std::min(
            most_segment_bytes,
            std::max(segments(rows), segments(pairs)) * segment_bytes(covariance, d));
    plan.exact = exact_rows_for(K) * K * 2 * sizeof(double);
    if (covariance != Covariance::full) {
        const CollectModel shape = collect_model_shape(
                form_of(covariance), static_cast<int64_t>(K), static_cast<int64_t>(d));
        plan.collecting = collect_workspace_bytes(shape, path);
        const DenseShape dense =
                dense_shape(path, covariance, static_cast<int>(K), static_cast<int>(d));
        plan.dense = dense_bytes(dense).chunk;
    }
    const SortingBytes sorting = sorting_bytes(rows, groups, pairs);
    plan.sorting = sorting.scratch + sorting.groups;
    return plan;
}

/// Blocks of so many rows, or as many as working memory allows.
size_t
blocks_of(const CudaOptions& options, Covariance covariance, size_t K, size_t d, size_t rows) {
    size_t blocks = std::max<size_t>(1, rows / block_rows_for(d));
    while (blocks > 1 && plan_of_wave(options, covariance, K, d, blocks).working() > most_working) {
        blocks /= 2;
    }
    return blocks;
}

} // namespace

size_t most_homes(const CudaOptions& options, Covariance covariance, size_t K, size_t d) {
    const size_t longest = blocks_of(options, covariance, K, d, most_wave_rows);
    const size_t taken = plan_of_wave(options, covariance, K, d, longest).working();
    constexpr size_t array = most_wave_rows * sizeof(uint16_t);
    return (most_working - std::min(taken, most_working)) / array * most_wave_rows;
}

CudaPlan plan_for(
        const CudaOptions& options,
        Covariance covariance,
        size_t n,
        size_t K,
        size_t d,
        size_t blocks) {
    CudaPlan plan = plan_of_wave(options, covariance, K, d, blocks);
    const size_t rows = (n + most_wave_rows - 1) / most_wave_rows * most_wave_rows;
    plan.homes = std::min(rows, most_homes(options, covariance, K, d)) * sizeof(uint16_t);
    return plan;
}

size_t wave_blocks_for(
        const CudaOptions& options,
        Covariance covariance,
        size_t n,
        size_t at_once,
        size_t K,
        size_t d) {
    const size_t rows = at_once > usual_wave_rows ? most_wave_rows : usual_wave_rows;
    size_t blocks = blocks_of(options, covariance, K, d, rows);
    while (options.gpu_memory > 0 && blocks > 1 &&
           plan_for(options, covariance, n, K, d, blocks).total() > options.gpu_memory) {
        blocks /= 2;
    }
    return blocks;
}

} // namespace cuda

size_t CudaPlan::workspace() const {
    return std::max({collecting, segments, dense, exact});
}

size_t CudaPlan::working() const {
    return workspace() + sorting + homes;
}

size_t CudaPlan::total() const {
    return parameters + row_buffers + lists + working();
}

CudaPlan cuda_plan(
        const CudaOptions& options,
        Covariance covariance,
        size_t n,
        size_t K,
        size_t d,
        Chunk::Memory memory) {
    using namespace cuda;
    const DeviceGuard guard(options.device);
    const size_t at_once = memory == Chunk::Memory::device ? n : 0;
    CudaPlan plan = plan_for(
            options, covariance, n, K, d, wave_blocks_for(options, covariance, n, at_once, K, d));
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    const size_t taken = plan.total() + total / 8;
    const size_t room = std::min(free > taken ? free - taken : 0, options.gpu_cache);
    const size_t wave = plan.wave_rows * d * sizeof(float);
    plan.cached_rows = std::min(n, room / wave * plan.wave_rows);
    return plan;
}

std::string CudaPlan::text() const {
    const auto mib = [](size_t bytes) { return (bytes + (size_t{1} << 20) - 1) >> 20; };
    return fmt::format(
            "blocks of {} rows, {} rows at once; MiB: parameters and sums {}, rows on their way "
            "{}, "
            "candidates and pairs {}, working {} (in the same place: collecting {}, segments {}, "
            "dense tier {}, exact tier {}; sorting {}; homes {}); {} rows stay on the device",
            block_rows,
            wave_rows,
            mib(parameters),
            mib(row_buffers),
            mib(lists),
            mib(working()),
            mib(collecting),
            mib(segments),
            mib(dense),
            mib(exact),
            mib(sorting),
            mib(homes),
            cached_rows);
}

} // namespace faiss_gmm
