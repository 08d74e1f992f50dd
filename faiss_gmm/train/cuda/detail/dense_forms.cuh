// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What the dense tier's kernels know of the forms of covariance; formulas in dense.cu.

#include "faiss_gmm/train/cuda/detail/dense.h"

namespace faiss_gmm::cuda::dense_tiles {

constexpr float r_scale = 32768.0f; ///< of responsibilities in halves
constexpr double log2_e = 1.4426950408889634;
/// A score whose exponential is 0; finite, so are differences.
constexpr float impossible = -1e30f;

constexpr int most_pieces = 64; ///< of a chunk

// Hopper's tiles of operands.
constexpr int tile = 128; // rows, or components
constexpr int slice = 64; // columns of a tile that lie together: 128 bytes a row
constexpr int slice_bytes = tile * slice * 2;

/// Where (row, column) of a part lies, in halves.
__device__ inline int place_in_part(int row, int column) {
    return column / slice * (slice_bytes / 2) + row * slice +
           (((column % slice / 8) ^ (row % 8)) * 8) + column % 8;
}

/// Columns of y^2, or of y where there are no squares, with the zeros behind them; no less than those of y.
__device__ inline int half_width(const DenseShape& shape) {
    return shape.row_width - shape.squares;
}

/// h: what every score of a row is raised by, times |y|^2.
__device__ inline double
common_precision(Covariance form, const double* half_precision, const float* scale) {
    return form == Covariance::diagonal    ? 0.5
           : form == Covariance::spherical ? scale[dense_scales]
                                           : half_precision[0];
}

/// a_j, which takes x_j - o_j to y_j.
__device__ inline float axis_scale(Covariance form, const float* scale, int j) {
    return form == Covariance::diagonal ? scale[dense_scales + j] : 1.0f;
}

/// Components whose precision in an axis is 2^6 times the typical one, the geometric mean, or more: they
/// are not among those of the products, whose bound they would spoil for all rows; see
/// classify_left_rows(). Components without weight are none.
struct ThinComponents {
    uint8_t* flag = nullptr; ///< [K]; null: tied_spherical, none

    __device__ bool is_thin(int k) const {
        return flag != nullptr && flag[k] != 0;
    }
};

/// Behind the scales.
__host__ __device__ inline ThinComponents
thin_components(Covariance form, int d, const float* scale) {
    ThinComponents thin;
    if (scale != nullptr && (form == Covariance::diagonal || form == Covariance::spherical)) {
        const int axes = form == Covariance::diagonal ? d : 1;
        thin.flag = reinterpret_cast<uint8_t*>(const_cast<float*>(scale) + dense_scales + 3 * axes);
    }
    return thin;
}

/// The first component that takes part, and its constant, which scores are relative to.
__device__ inline int first_component(const float* scale) {
    return __float_as_int(scale[scale_first]);
}
__device__ inline double reference_constant(const double* constant, const float* scale) {
    return constant[first_component(scale)];
}

/// hp_kj, in fp64.
__device__ inline double precision_of(const MixtureView& mixture, int k, int j) {
    return mixture.half_precision
            [mixture.covariance == Covariance::diagonal    ? static_cast<size_t>(k) * mixture.d + j
             : mixture.covariance == Covariance::spherical ? k
                                                           : 0];
}

} // namespace faiss_gmm::cuda::dense_tiles
