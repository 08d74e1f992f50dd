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

// Dimensions of rows on Hopper: narrower ones go to dense.cu (see dense_wgmma.cu, Numerics), wider ones and
// those of other forms than tied_spherical to dense_wide_wgmma.cu.
constexpr int narrowest_row_of_warpgroups = 16, widest_narrow_row = 128;

/// Shapes of the dense tier, functions of the form, K, d and the path alone. A block's rows are cut into
/// pieces, and a chunk is as many pieces as are worked on at once.
struct DenseShape {
    /// hopper: dense_wgmma.cu, or dense_wide_wgmma.cu where wide(); else dense.cu.
    CollectPath path = CollectPath::portable;
    Covariance form = Covariance::tied_spherical; ///< or spherical, or diagonal
    int padded_K = 0;                             ///< a multiple of 128
    int padded_width = 0; ///< portable: of 32; hopper: 64, 96 or 128, wide: a multiple of 64
    int row_width = 0;    ///< numbers that a row takes in memory
    int squares = 0;      ///< diagonal: the column in which y^2 begins
    int piece_rows = 0;
    int chunk_rows = 0; ///< of piece_rows
    bool wide() const {
        return path == CollectPath::hopper &&
               (form != Covariance::tied_spherical || row_width > widest_narrow_row);
    }
    int pieces() const {
        return chunk_rows / piece_rows;
    }
    /// Of |y| max|w|, diagonal: and of sum_j max|w_j'| y_j^2: what a score may be off by.
    float rounding = 0;
    /// Of (hp_k - h) |y|^2: the same; spherical.
    float square_rounding = 0;
};
/// `covariance`: not full; tied is as tied_spherical.
DenseShape dense_shape(CollectPath path, Covariance covariance, int K, int d);

/// Device memory of the dense tier. hopper: halves lie as tiles, [tiles of 128, high and low,
/// row_width / 64, 128, 64].
struct DenseBuffers {
    float* scale = nullptr; ///< [dense_scale_count()], see dense.cu
    // Of a pass, in memory that it keeps; halves as bits.
    uint16_t* means_high = nullptr; ///< [padded_K, row_width]; hopper: tiles
    uint16_t* means_low = nullptr;  ///< hopper: none
    float* base = nullptr; ///< [padded_K] s of y = 0; in the padding so low that no share is left
    float* constant =
            nullptr; ///< [padded_K] constant_k - constant_f, f the first component that takes part
    float* excess = nullptr;      ///< [padded_K] hp_k - h; zeros but for spherical
    float* partial = nullptr;     ///< [pieces, padded_K, padded_width], of a chunk
    double* mass = nullptr;       ///< [pieces, padded_K], of a chunk
    double* square_sum = nullptr; ///< [pieces, padded_K] sums of r |y|^2; spherical
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
    scale_rows,         ///< F
    scale_means,        ///< E
    scale_squares,      ///< F'
    scale_mean_squares, ///< E'
    scale_reach,        ///< largest |y_j| that fits
    // Factors in the bound of s, as shares of what is tolerable:
    scale_error,        ///< of |y|
    scale_square_error, ///< of |y|^2
    scale_axis_error,   ///< of sum_j (deviation_j y_j^2), diagonal
    scale_largest_square,
    scale_largest_weight,
    scale_largest_base,
    scale_first,  ///< the first component that takes part, an int; K or more: there is none
    scale_thin,   ///< above 0: some components are thin
    scale_living, ///< components of a weight above 0, an int
    dense_scales
};
/// Behind them, while they are being found the largest and the smallest precisions; diagonal: a_j [d] and
/// deviation_j [d], at least |hp_kj / a_j^2 - 1/2|; spherical: h and at least |hp_k - h|. Behind those the sums
/// of the precisions' logarithms, and bytes [K] that say which components are thin.
size_t dense_scale_count(Covariance covariance, int K, int d);

/// What classify_left_rows() and the rest need of a model: `scale` [dense_scale_count()].
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

/// Rows without a list: count becomes dense_row where the dense tier's bound covers the row and no thin
/// component is within 40 nats of its provisional home, 0 (the exact tier) otherwise. `scale` null: 0 for all.
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
    double* moment = nullptr; ///< sum_k r |x - mu_k|^2; tied_spherical
    unsigned long long* shared_rows = nullptr;
};

/// Adds the rows to the sums, block by block, piece by piece, and writes what is known of each.
void sum_densely(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream);

// What is behind the above.
/// Hopper's: all but form, squares and square_rounding. `width`: numbers of a row.
void shape_for_warpgroups(int K, int d, DenseShape& shape);
void shape_for_wide_warpgroups(int K, int width, DenseShape& shape);
/// The chunk's first pieces into the sums, in order, fp64.
void add_pieces(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        int pieces,
        const PassSums& sums,
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
