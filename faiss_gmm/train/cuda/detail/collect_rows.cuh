// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// A row's numbers that the collecting products need beside its operand.

#include <cfloat>
#include <cmath>

#include <cuda_fp16.h>

#include "faiss_gmm/train/cuda/collect_bound.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"

namespace faiss_gmm::cuda {

/// The model's scales, once for all rows.
struct ModelScale {
    float operand, ratio, cap;

    __device__ explicit ModelScale(const float* __restrict__ scale)
            : operand(scale[scale_operand]), ratio(scale[scale_squares_ratio]),
              cap(scale[scale_row_cap]) {}
};

/// A row's numbers that the scores need; collect_bound.h.
struct RowScale {
    float F = 0;  ///< y^ = F y
    float F2 = 0; ///< for y^2
    float f = 0;  ///< nats to the unit of the product; 0: the row is of no use to the product
    float q = 0;  ///< f |y|^2
};

template <CollectForm form>
__device__ inline RowScale
row_scale(float sum_of_squares, float sum_of_fourths, const ModelScale& scale) {
    RowScale row;
    float F = fminf(collect_norm_aimed_at / sqrtf(sum_of_squares), scale.cap);
    if (form == CollectForm::squares) {
        F = fminf(F, collect_norm_aimed_at / (scale.ratio * sqrtf(sum_of_fourths)));
    }
    const float f = F * scale.operand;
    // NaN fails every comparison; an infinite sum gives F = 0.
    if (sum_of_squares < 3e38f && F > smallest_row_scale && f > smallest_row_scale && f < 1e30f) {
        row.F = F;
        row.F2 = form == CollectForm::squares ? F * scale.ratio : 0.0f;
        row.f = f;
        row.q = form == CollectForm::quadratic ? f * sum_of_squares : 0.0f;
    }
    return row;
}

/// Start of the product for component `place` of a tile: U without yh . wh.
template <CollectForm form>
__device__ inline float
start_value(const float* __restrict__ columns, int place, const RowScale& row) {
    float start = fmaf(
            columns[column_base + column_place(place)], row.f, columns[column_bound + place / 8]);
    if (form == CollectForm::quadratic) {
        start = fmaf(-columns[column_quadratic + column_place(place)], row.q, start);
    }
    return start;
}

/// How far a lower bound of the tile's components lies below the upper one, at most.
template <CollectForm form>
__device__ inline float bound_gap(const float* __restrict__ errors, float f, float q) {
    float gap = fmaf(errors[1], f, errors[0]);
    if (form == CollectForm::quadratic) {
        gap = fmaf(errors[2], q, gap);
    }
    return gap;
}

/// A row whose threshold is this collects nothing.
constexpr float closed = FLT_MAX;
constexpr float open = -FLT_MAX; // above the -infinity of padding

} // namespace faiss_gmm::cuda
