// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Rows on their way into the product: element types, a row's scale, the start of its threshold.

#include <cfloat>
#include <cmath>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

#include "faiss_gmm/train/cuda/collect_bound.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"

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

template <class T> struct alignas(4 * sizeof(T)) Four { T value[4]; };

/// Dimensions at .. at + 3 of a row, zeros from d on; `aligned`: every such four is one load.
template <class T>
__device__ inline void load_four(const T* row, int at, int d, bool aligned, float (&out)[4]) {
    if (aligned) {
        Four<T> four{};
        if (at < d) {
            four = *reinterpret_cast<const Four<T>*>(row + at);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            out[i] = as_float(four.value[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[i] = at + i < d ? as_float(row[at + i]) : 0.0f;
    }
}

/// The rows of a call. Their type is looked up where they are loaded: it is the same for a whole grid, and
/// five times the kernels would cost more than the branch.
struct Rows {
    const void* data = nullptr;
    int64_t n = 0;
    int32_t d = 0;
    int32_t element_bytes = 4;
    ElementType type = ElementType::f32;
    bool aligned = false; ///< four elements from a multiple of four on are aligned to their size

    /// Calls load(elements) with the rows as what they are.
    template <class Load> __device__ void visit(const Load& load) const {
        switch (type) {
        case ElementType::f32:
            load(static_cast<const float*>(data));
            break;
        case ElementType::f16:
            load(static_cast<const __half*>(data));
            break;
        case ElementType::bf16:
            load(static_cast<const __nv_bfloat16*>(data));
            break;
        case ElementType::u8:
            load(static_cast<const uint8_t*>(data));
            break;
        case ElementType::i8:
            load(static_cast<const int8_t*>(data));
            break;
        }
    }
};

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

inline Rows rows_of(const CollectCall& call) {
    const ElementType type = call.input.type;
    Rows rows;
    rows.element_bytes = type == ElementType::f32                                ? 4
                         : type == ElementType::f16 || type == ElementType::bf16 ? 2
                                                                                 : 1;
    rows.data = call.input.rows;
    rows.n = call.input.n;
    rows.d = call.model.d;
    rows.type = call.input.type;
    rows.aligned = call.model.d % 4 == 0 &&
                   reinterpret_cast<uintptr_t>(call.input.rows) % (4 * rows.element_bytes) == 0;
    return rows;
}

} // namespace faiss_gmm::cuda
