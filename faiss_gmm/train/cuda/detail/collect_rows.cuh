// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Rows on their way into the product: element types, a row's scale, the start of its threshold.

#include <cmath>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "faiss_gmm/train/cuda/collect_bound.h"

namespace faiss_gmm::cuda {

constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline float as_float(float value) {
    return value;
}
__device__ inline float as_float(__half value) {
    return __half2float(value);
}
__device__ inline float as_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__device__ inline float as_float(uint8_t value) {
    return static_cast<float>(value);
}
__device__ inline float as_float(int8_t value) {
    return static_cast<float>(value);
}

/// A row's numbers that the scores need; collect_bound.h.
struct RowScale {
    float F = 0;  ///< y^ = F y
    float F2 = 0; ///< for y^2
    float f = 0;  ///< nats to the unit of the product; 0: the row is of no use to the product
    float q = 0;  ///< f |y|^2
};

template <CollectForm form>
__device__ inline RowScale
row_scale(float sum_of_squares, float sum_of_fourths, const float* __restrict__ scale) {
    RowScale row;
    const float cap = scale[scale_row_cap];
    float F = fminf(collect_norm_aimed_at / sqrtf(sum_of_squares), cap);
    if (form == CollectForm::squares) {
        F = fminf(F, collect_norm_aimed_at / (scale[scale_squares_ratio] * sqrtf(sum_of_fourths)));
    }
    const float f = F * scale[scale_operand];
    // NaN fails every comparison; an infinite sum gives F = 0.
    if (sum_of_squares < 3e38f && F > smallest_row_scale && f > smallest_row_scale && f < 1e30f) {
        row.F = F;
        row.F2 = form == CollectForm::squares ? F * scale[scale_squares_ratio] : 0.0f;
        row.f = f;
        row.q = form == CollectForm::quadratic ? f * sum_of_squares : 0.0f;
    }
    return row;
}

/// Start of the product for component `place` of a tile: U without yh . wh.
template <CollectForm form>
__device__ inline float
start_value(const float* __restrict__ columns, int place, const RowScale& row) {
    float start = fmaf(columns[column_base + place], row.f, columns[column_bound + place / 8]);
    if (form == CollectForm::quadratic) {
        start = fmaf(-columns[column_quadratic + place], row.q, start);
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

} // namespace faiss_gmm::cuda
