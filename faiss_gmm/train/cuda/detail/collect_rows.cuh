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

template <class T> struct alignas(4 * sizeof(T)) Four {
    T value[4];
};

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
            : operand(scale[scale_operand]),
              ratio(scale[scale_squares_ratio]),
              cap(scale[scale_row_cap]) {
    }
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

/// A threshold to start from: the lower bound of one component, by the row in fp32 (no further off
/// than the product of (3)), less the margin. Loaded before it is needed.
template <CollectForm form> struct HintedComponent {
    float base = 0, bound = 0, quadratic = 0, errors[3] = {0, 0, 0};

    __device__ void load(const float* __restrict__ columns, uint32_t k) {
        const float* tile = columns + k / collect_tile * collect_columns;
        const int place = k % collect_tile;
        base = tile[column_base + place];
        bound = tile[column_bound + place / 8];
        errors[0] = tile[column_error_bound];
        errors[1] = tile[column_error_base];
        if (form == CollectForm::quadratic) {
            quadratic = tile[column_quadratic + place];
            errors[2] = tile[column_error_quadratic];
        }
    }
    /// `product` is y . w and y^2 . w2 (E / E2).
    __device__ float threshold(float product, const RowScale& row, float margin) const {
        float upper = fmaf(base, row.f, bound);
        if (form == CollectForm::quadratic) {
            upper = fmaf(-quadratic, row.q, upper);
        }
        upper = fmaf(row.F, product, upper);
        return upper - fmaf(margin, row.f, bound_gap<form>(errors, row.f, row.q));
    }
};

__device__ inline void split_halves(const uint2& raw, float (&out)[4]) {
    const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&raw.x));
    const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&raw.y));
    out[0] = low.x;
    out[1] = low.y;
    out[2] = high.x;
    out[3] = high.y;
}

/// Four halves from an operand.
__device__ inline void load_four_halves(const __half* from, float (&out)[4]) {
    split_halves(*reinterpret_cast<const uint2*>(from), out);
}

__device__ inline uint2 four_halves(const float (&v)[4], float scale) {
    const __half2 low = __floats2half2_rn(v[0] * scale, v[1] * scale);
    const __half2 high = __floats2half2_rn(v[2] * scale, v[3] * scale);
    return make_uint2(
            *reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
}

__device__ inline float warp_sum_of(float value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(all_lanes, value, step);
    }
    return value;
}

/// Sums of eight numbers over a warp; lane l gets that of number l / 4.
__device__ inline float warp_sums(float (&value)[8]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 4; half > 0; half /= 2) {
        const bool upper = lane & (half * 4);
#pragma unroll
        for (int i = 0; i < half; ++i) {
            const float sent = upper ? value[i] : value[i + half];
            const float kept = upper ? value[i + half] : value[i];
            value[i] = kept + __shfl_xor_sync(all_lanes, sent, half * 4);
        }
    }
    value[0] += __shfl_xor_sync(all_lanes, value[0], 2);
    return value[0] + __shfl_xor_sync(all_lanes, value[0], 1);
}

/// The hint of row i; K: none.
__device__ inline uint32_t hint_of(const CollectCall& call, int64_t i) {
    const uint32_t none = static_cast<uint32_t>(call.model.K);
    if (call.input.hint == nullptr || call.input.rank != 1 || i >= call.input.n) {
        return none;
    }
    return min(static_cast<uint32_t>(call.input.hint[i]), none);
}

/// A row whose threshold is this collects nothing.
constexpr float closed = FLT_MAX;
constexpr float open = -FLT_MAX; // above the -infinity of padding

__device__ inline float start_of_threshold(const RowScale& scale, float from_hint) {
    return scale.f == 0 ? closed : fmaxf(open, from_hint); // a hint of weight zero gives -infinity
}

constexpr int row_chunks = 4; // of 128 dimensions, loaded together
constexpr int row_batch = 4;  // rows that a warp prepares together, at most

/// Dimensions at + 128 c .. of a row, zeros from d on.
template <class T>
__device__ inline void
load_chunks(const T* row, int at, int d, bool aligned, float (&y)[row_chunks][4]) {
#pragma unroll
    for (int c = 0; c < row_chunks; ++c) {
        load_four(row, at + 128 * c, d, aligned, y[c]);
    }
}

/// Rows first_row .. + batch - 1 on their way into the product, by a warp, read twice:
/// load(b, at, y) the chunks of row b from dimension `at` on, store(b, column, halves) what the product
/// reads, publish(b, scale, threshold) by one lane a row. Rows past the last are of no use.
template <CollectForm form, class Load, class Store, class Publish>
__device__ inline void prepare_rows(
        const CollectCall& call,
        const ModelScale& model_scale,
        int64_t first_row,
        int batch,
        const Load& load,
        const Store& store,
        const Publish& publish) {
    const CollectModel& model = call.model;
    const __half* operand = reinterpret_cast<const __half*>(model.operand);
    const int lane = threadIdx.x % 32, d = model.d, width = model.padded_width;
    const int second = squares_offset(d);
    const uint32_t none = static_cast<uint32_t>(model.K);
    const bool origin_aligned = d % 4 == 0 && reinterpret_cast<uintptr_t>(model.origin) % 16 == 0;
    // Lane l looks after row l / 4 % 4.
    const int looked_after = lane / 4 % row_batch;
    const uint32_t hint = looked_after < batch ? hint_of(call, first_row + looked_after) : none;
    HintedComponent<form> component;
    if (hint < none) {
        component.load(model.columns, hint);
    }
    const auto load_centred = [&](int b, int at, float(&y)[row_chunks][4]) {
        float origin[row_chunks][4];
        load_chunks(model.origin, at, d, origin_aligned, origin);
        load(b, at, y);
#pragma unroll
        for (int c = 0; c < row_chunks; ++c) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                y[c][j] -= origin[c][j];
            }
        }
    };
    float sums[2 * row_batch] = {}, fourths[2 * row_batch] = {}; // squares, then products
#pragma unroll
    for (int b = 0; b < row_batch; ++b) {
        const uint32_t k = __shfl_sync(all_lanes, hint, 4 * b);
        if (b >= batch || first_row + b >= call.input.n) {
            sums[b] = CUDART_NAN_F;
            continue;
        }
        const __half* hinted = operand + static_cast<size_t>(k) * width;
#pragma unroll 1
        for (int at = 4 * lane; at < d + 4 * lane; at += row_chunks * 128) {
            float w[row_chunks][4] = {}, w2[row_chunks][4] = {};
            if (k < none) {
#pragma unroll
                for (int c = 0; c < row_chunks; ++c) {
                    if (at + 128 * c < d) {
                        load_four_halves(hinted + at + 128 * c, w[c]);
                        if (form == CollectForm::squares) {
                            load_four_halves(hinted + second + at + 128 * c, w2[c]);
                        }
                    }
                }
            }
            float y[row_chunks][4];
            load_centred(b, at, y);
#pragma unroll
            for (int c = 0; c < row_chunks; ++c) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float v = y[c][j]; // zero from d on
                    sums[b] = fmaf(v, v, sums[b]);
                    sums[row_batch + b] = fmaf(v, w[c][j], sums[row_batch + b]);
                    if (form == CollectForm::squares) {
                        sums[row_batch + b] =
                                fmaf(v * v * model_scale.ratio, w2[c][j], sums[row_batch + b]);
                        fourths[b] = fmaf(v * v, v * v, fourths[b]);
                    }
                }
            }
        }
    }
    const float mine = warp_sums(sums);
    const float squares = __shfl_sync(all_lanes, mine, 4 * looked_after);
    const float product = __shfl_sync(all_lanes, mine, 4 * (row_batch + looked_after));
    float fourth = 0;
    if (form == CollectForm::squares) {
        fourth = __shfl_sync(all_lanes, warp_sums(fourths), 4 * looked_after);
    }
    const RowScale scale = row_scale<form>(squares, fourth, model_scale);
    if (lane % 4 == 0 && lane / 4 < batch) {
        publish(looked_after,
                scale,
                hint < none ? component.threshold(product, scale, call.input.margin) : open);
    }
#pragma unroll 1
    for (int b = 0; b < batch; ++b) {
        const float F = __shfl_sync(all_lanes, scale.F, 4 * b);
        const float F2 = __shfl_sync(all_lanes, scale.F2, 4 * b);
        const bool usable = F != 0;
#pragma unroll 1
        for (int from = 4 * lane; from < width; from += row_chunks * 128) {
            float y[row_chunks][4];
            if (usable) {
                load_centred(b, from, y);
            }
#pragma unroll
            for (int c = 0; c < row_chunks; ++c) {
                const int at = from + 128 * c;
                const uint2 nothing = make_uint2(0, 0);
                if (at < (form == CollectForm::squares ? second : width)) {
                    store(b, at, usable ? four_halves(y[c], F) : nothing);
                }
                if (form == CollectForm::squares && second + at < width) {
                    const float squared[4] = {
                            y[c][0] * y[c][0],
                            y[c][1] * y[c][1],
                            y[c][2] * y[c][2],
                            y[c][3] * y[c][3]};
                    store(b, second + at, usable ? four_halves(squared, F2) : nothing);
                }
            }
        }
    }
}

inline Rows rows_of(const CollectCall& call) {
    const ElementType type = call.input.type;
    Rows rows;
    rows.element_bytes = type == ElementType::f32                 ? 4
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
