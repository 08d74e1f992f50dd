// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/collect.h"
#include "faiss_gmm/train/cuda/detail/mixture_view.h"
#include "faiss_gmm/train/cuda/detail/order.h"
#include "faiss_gmm/train/cuda/detail/rows.h"

namespace faiss_gmm::cuda {

// Dimensions of rows on Hopper: narrower ones go to dense.cu (see dense_wgmma.cu, Numerics), wider ones to
// dense_wide_wgmma.cu.
constexpr int narrowest_row_of_warpgroups = 16, widest_narrow_row = 128;

/// Shapes of the dense tier, functions of K, d and the path alone. A block's rows are cut into pieces,
/// and a chunk is as many pieces as are worked on at once.
struct DenseShape {
    /// hopper: dense_wgmma.cu, or dense_wide_wgmma.cu where wide(); else dense.cu.
    CollectPath path = CollectPath::portable;
    int padded_K = 0;     ///< a multiple of 128
    int padded_width = 0; ///< portable: of 32; hopper: 64, 96 or 128, wide: a multiple of 64
    int row_width = 0;    ///< numbers that a row takes in memory
    int piece_rows = 0;
    int chunk_rows = 0; ///< of piece_rows
    bool wide() const {
        return path == CollectPath::hopper && row_width > widest_narrow_row;
    }
    int pieces() const {
        return chunk_rows / piece_rows;
    }
    /// Of |y| max|c| 2 hp: what a score may be off by.
    float rounding = 0;
};
DenseShape dense_shape(CollectPath path, int K, int d);

/// Device memory of the dense tier. hopper: halves lie as tiles, [tiles of 128, high and low,
/// row_width / 64, 128, 64].
struct DenseBuffers {
    float* scale = nullptr; ///< [dense_scales], see dense.cu
    // Of a pass, in memory that it keeps; halves as bits.
    uint16_t* means_high = nullptr; ///< [padded_K, row_width]; hopper: tiles
    uint16_t* means_low = nullptr;  ///< hopper: none
    float* base = nullptr; ///< [padded_K] s of y = 0; in the padding so low that no share is left
    float* constant = nullptr; ///< [padded_K] constant_k - constant_0
    float* partial = nullptr;  ///< [pieces, padded_K, padded_width], of a chunk
    double* mass = nullptr;    ///< [pieces, padded_K], of a chunk
    // Of a chunk.
    uint16_t* rows_high = nullptr; ///< [chunk, row_width]; hopper: tiles
    uint16_t* rows_low = nullptr;  ///< hopper: none
    float* square = nullptr;       ///< [chunk] |y|^2
    float2* norm = nullptr;        ///< [chunk] hopper: largest score, 2^15 / sum; wide: none
    float* score = nullptr;        ///< [chunk, padded_K], then responsibilities; hopper: wide only
    uint16_t* r_high = nullptr;    ///< [chunk, padded_K]; hopper: none
    uint16_t* r_low = nullptr;
};
/// pass: grows with K d; chunk: at most 160 MiB.
struct DenseBytes {
    size_t pass = 0, chunk = 0;
};
DenseBytes dense_bytes(const DenseShape& shape);
/// Memory of dense_bytes(), on multiples of 256.
DenseBuffers
place_dense_buffers(const DenseShape& shape, void* of_pass, void* of_chunk, float* scale);

/// Places in DenseBuffers::scale.
enum DenseScale : int {
    scale_rows,  ///< F
    scale_means, ///< E
    scale_reach, ///< largest |y_j| that fits
    scale_error, ///< |y|'s factor in the bound of s
    scale_largest_square,
    scale_largest_base,
    dense_scales
};

/// What classify_left_rows() and the rest need of a tied_spherical model: `scale` [dense_scales].
void find_dense_scales(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        float* scale,
        cudaStream_t stream);

/// The model's operands, once there are rows for them.
void prepare_dense(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        cudaStream_t stream);

/// Rows without a list: count becomes dense_row where the dense tier's bound covers the row, 0 (the exact
/// tier) otherwise. `scale` null: 0 for all.
constexpr uint8_t dense_row = 255;
void classify_left_rows(
        const MixtureView& mixture,
        const float* origin,
        const float* scale,
        const RowLists& lists,
        cudaStream_t stream);

/// Rows of a wave for the dense tier.
struct DenseRows {
    Rows x;
    const uint32_t* order = nullptr; ///< numbers in x
    const int* left = nullptr; ///< [blocks + 1], host: where a block's rows begin in the order
    int blocks = 0;
};

/// What is known of single rows, [wave rows].
struct DenseOutput {
    double* log_likelihood = nullptr;
    double* moment = nullptr; ///< sum_k r |x - mu_k|^2
    unsigned long long* shared_rows = nullptr;
};

/// Adds the rows to the sums (tied_spherical), block by block, piece by piece, and writes what is known
/// of each.
void sum_densely(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream);

// The forms of dense_wgmma.cu and dense_wide_wgmma.cu behind the above.
DenseShape warpgroup_dense_shape(int K, int d);
DenseShape wide_warpgroup_dense_shape(int K, int d);
void split_means_into_tiles(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        cudaStream_t stream);
void sum_by_warpgroups(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream);
void sum_wide_by_warpgroups(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream);

} // namespace faiss_gmm::cuda
