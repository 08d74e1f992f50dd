// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/detail/mixture_view.h"
#include "faiss_gmm/train/cuda/detail/order.h"

namespace faiss_gmm::cuda {

/// Rows of a chunk that are added up in one piece; a chunk is a multiple of it.
constexpr int dense_split = 256;

/// Shapes of the dense tier, functions of K and d alone.
struct DenseShape {
    int padded_K = 0;     ///< a multiple of 128
    int padded_width = 0; ///< of 32
    int chunk_rows = 0;   ///< of dense_split
};
DenseShape dense_shape(int K, int d);

/// Device memory of the dense tier.
struct DenseBuffers {
    // Of a pass; halves as bits.
    uint16_t* means_high = nullptr; ///< [padded_K, padded_width]
    uint16_t* means_low = nullptr;
    float* base = nullptr;     ///< [padded_K] s of y = 0; -infinity in the padding
    float* constant = nullptr; ///< [padded_K] constant_k - constant_0
    float* scale = nullptr;    ///< [dense_scales], see dense.cu
    // Of a chunk.
    uint16_t* rows_high = nullptr; ///< [chunk, padded_width]
    uint16_t* rows_low = nullptr;
    float* square = nullptr;    ///< [chunk] |y|^2
    float* score = nullptr;     ///< [chunk, padded_K], then responsibilities
    uint16_t* r_high = nullptr; ///< [chunk, padded_K]
    uint16_t* r_low = nullptr;
    float* partial = nullptr; ///< [chunk / dense_split, padded_K, padded_width]
    double* mass = nullptr;   ///< [chunk / dense_split, padded_K]
};

constexpr int dense_scales = 6;

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

/// Adds rows `row` [count] of one block to the sums (tied_spherical), and writes their likelihoods and
/// sum_k r |x - mu_k|^2 into log_likelihood, moment [wave rows].
void sum_densely(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const Rows& x,
        const uint32_t* row,
        int count,
        const PassSums& sums,
        double* log_likelihood,
        double* moment,
        unsigned long long* shared_rows,
        cudaStream_t stream);

} // namespace faiss_gmm::cuda
