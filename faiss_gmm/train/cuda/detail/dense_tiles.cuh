// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What both forms of the dense tier on Hopper (dense_wgmma.cu, dense_wide_wgmma.cu) have in common: tiles of
// halves, pieces of rows, rings of stages, a row's normaliser.

#include <algorithm>
#include <cstdint>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/dense_forms.cuh"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/hopper.cuh"

namespace faiss_gmm::cuda::dense_tiles {

constexpr int threads = 384; // a warpgroup of which one thread copies, two that multiply
constexpr int producer_registers = 24, consumer_registers = 240;
constexpr int warps_a_group = 4, consuming_warps = 8;
constexpr int strip_bytes = 64 * slice * 2; // rows of one product

/// Rows of a chunk by piece; piece p's begin at tile p * piece_rows / tile of the chunk's memory.
struct Pieces {
    int count = 0;
    int first[most_pieces];            ///< place in the order
    int rows[most_pieces];             ///< at least 1
    int units_before[most_pieces + 1]; ///< of the pieces before: pairs of row tiles, or row tiles
    __host__ __device__ int tiles(int piece) const {
        return (rows[piece] + tile - 1) / tile;
    }
};

/// Of all kernels.
struct Arguments {
    DenseShape shape;
    DenseBuffers buffers;
    Pieces pieces;
    const uint32_t* order; ///< of the wave
    DenseOutput output;
    const double* half_precision;
    const double* constant;
    int K;
};

template <int stages> struct RingBarriers {
    uint64_t full[stages], empty[stages];
    __device__ void init(int consumers) {
        for (int i = 0; i < stages; ++i) {
            hopper::init_barrier(&full[i], 1);
            hopper::init_barrier(&empty[i], consumers);
        }
    }
    /// Brings bytes into the next stage, once it is empty.
    __device__ void
    bring(hopper::Ring<stages>& ring, void* target, const void* source, uint32_t bytes) {
        hopper::wait(&empty[ring.place], ring.parity ^ 1);
        hopper::arrive_expecting(&full[ring.place], bytes);
        hopper::copy_bytes(target, source, bytes, &full[ring.place]);
        ring.advance();
    }
    __device__ void wait_for(const hopper::Ring<stages>& ring) {
        hopper::wait(&full[ring.place], ring.parity);
    }
};

/// What a score in log 2 takes of a product of operands.
__device__ inline float score_factor(const DenseBuffers& buffers) {
    return static_cast<float>(
            log2_e / (static_cast<double>(buffers.scale[scale_rows]) * buffers.scale[scale_means]));
}

/// 2^x; 0 for what is far below.
__device__ inline float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// Pieces of a chunk, from unit to unit of so many rows.
template <int unit_rows> struct UnitPlace {
    int piece = 0;
    /// The first row of this unit in its piece, which is no piece before that of the last call.
    __device__ int row(const Pieces& pieces, int unit) {
        while (unit >= pieces.units_before[piece + 1]) {
            ++piece;
        }
        return (unit - pieces.units_before[piece]) * unit_rows;
    }
};

/// What a thread, then a row, knows of the scores so far; s in log 2.
struct Normaliser {
    float best = impossible, second = impossible;
    float sum = 0;      ///< of 2^(s - best)
    float distance = 0; ///< of 2^(s - best) (constant - s)

    __device__ void see(float s) {
        second = fmaxf(second, fminf(best, s));
        best = fmaxf(best, s);
    }
    __device__ void rescale(float before) {
        const float factor = power_of_two(before - best);
        sum *= factor;
        distance *= factor;
    }
    /// With so many neighbouring lanes; all get the same.
    template <int lanes> __device__ void merge() {
#pragma unroll
        for (int step = 1; step < lanes; step *= 2) {
            Normaliser other;
            other.best = __shfl_xor_sync(whole_warp, best, step);
            other.second = __shfl_xor_sync(whole_warp, second, step);
            other.sum = __shfl_xor_sync(whole_warp, sum, step);
            other.distance = __shfl_xor_sync(whole_warp, distance, step);
            const float mine = best, others = other.best;
            second = fmaxf(fminf(best, other.best), fmaxf(second, other.second));
            best = other.best = fmaxf(mine, others);
            rescale(mine);
            other.rescale(others);
            sum += other.sum;
            distance += other.distance;
        }
    }
};

// ---- host

template <class Shared>
void launch(
        void (*kernel)(Arguments), const Arguments& arguments, int blocks, cudaStream_t stream) {
    constexpr int bytes = sizeof(Shared);
    static_assert(bytes <= 227 * 1024, "a block's shared memory on compute capability 9.0");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "asking for shared memory");
    kernel<<<std::min(blocks, multiprocessors()), threads, bytes, stream>>>(arguments);
}

/// Cuts the blocks' rows into pieces and calls sum_chunk() for every chunk, with arguments.pieces set.
template <int unit_rows, class Sum>
void visit_chunks(Arguments& arguments, const DenseRows& rows, const Sum& sum_chunk) {
    const DenseShape& shape = arguments.shape;
    Pieces& pieces = arguments.pieces;
    pieces.count = 0;
    for (int b = 0; b < rows.blocks; ++b) {
        for (int first = rows.left[b]; first < rows.left[b + 1]; first += shape.piece_rows) {
            const int p = pieces.count++;
            pieces.first[p] = first;
            pieces.rows[p] = std::min(shape.piece_rows, rows.left[b + 1] - first);
            pieces.units_before[p + 1] =
                    pieces.units_before[p] + (pieces.rows[p] + unit_rows - 1) / unit_rows;
            if (pieces.count == shape.pieces()) {
                sum_chunk();
                pieces.count = 0;
            }
        }
    }
    if (pieces.count > 0) {
        sum_chunk();
    }
}

inline Arguments dense_arguments(
        const MixtureView& mixture,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const DenseOutput& output) {
    Arguments arguments{};
    arguments.shape = shape;
    arguments.buffers = buffers;
    arguments.order = rows.order;
    arguments.output = output;
    arguments.half_precision = mixture.half_precision;
    arguments.constant = mixture.constant;
    arguments.K = mixture.K;
    return arguments;
}

} // namespace faiss_gmm::cuda::dense_tiles
