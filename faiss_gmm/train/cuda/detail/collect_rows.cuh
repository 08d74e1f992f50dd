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

/// A threshold to start from: the lower bound of one component, by the row in fp32 (no further off
/// than the product of (3)), less the margin. Loaded before it is needed.
template <CollectForm form> struct HintedComponent {
    float base = 0, bound = 0, quadratic = 0, errors[3] = {0, 0, 0};

    __device__ void load(const float* __restrict__ columns, uint32_t k) {
        const float* tile = columns + k / collect_tile * collect_columns;
        const int place = k % collect_tile;
        base = tile[column_base + column_place(place)];
        bound = tile[column_bound + place / 8];
        errors[0] = tile[column_error_bound];
        errors[1] = tile[column_error_base];
        if (form == CollectForm::quadratic) {
            quadratic = tile[column_quadratic + column_place(place)];
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

/// Thresholds begin with hints.
__device__ inline bool takes_hints(const CollectInput& input) {
    return input.hint != nullptr && input.rank == 1;
}

/// The hint of row i; some component where there is none.
__device__ inline uint32_t hint_of(const CollectCall& call, int64_t i) {
    return takes_hints(call.input) && i < call.input.n
                   ? min(static_cast<uint32_t>(call.input.hint[i]),
                         static_cast<uint32_t>(call.model.K - 1))
                   : 0;
}

/// A row whose threshold is this collects nothing.
constexpr float closed = FLT_MAX;
constexpr float open = -FLT_MAX; // above the -infinity of padding

__device__ inline float start_of_threshold(const RowScale& scale, float from_hint) {
    return scale.f == 0 ? closed : fmaxf(open, from_hint); // a hint of weight zero gives -infinity
}

/// Rows that a warp prepares together, by the places that they take in registers: eight times four
/// dimensions a thread, so that eight loads are in flight.
constexpr int row_places = 8;
template <int batch> __device__ constexpr int row_of(int place) {
    return place % batch;
}
/// The first dimension of a place, of those from `group` on.
template <int batch> __device__ constexpr int dimension_of(int place, int group, int lane) {
    return group + place / batch * 128 + 4 * lane;
}

/// `batch` rows of width d one after the other, zeros from d on; rows from `count` on are not read.
template <int batch, class T>
__device__ inline void
load_places(const T* rows, int count, int group, int d, bool aligned, float (&y)[row_places][4]) {
#pragma unroll
    for (int place = 0; place < row_places; ++place) {
        const int row = row_of<batch>(place) < count ? row_of<batch>(place) : 0;
        load_four(
                rows + static_cast<int64_t>(row) * d,
                dimension_of<batch>(place, group, threadIdx.x % 32),
                d,
                aligned,
                y[place]);
    }
}

/// Rows first_row .. + batch - 1 on their way into the product, by a warp, read twice:
/// load(group, y) fills the places from dimension `group` on, store(b, column, halves) writes what the
/// product reads, publish(b, scale, threshold) is called by one lane a row. Rows past the last are of
/// no use.
template <CollectForm form, int batch, class Load, class Store, class Publish>
__device__ inline void prepare_rows(
        const CollectCall& call,
        const ModelScale& model_scale,
        int64_t first_row,
        const Load& load,
        const Store& store,
        const Publish& publish) {
    constexpr int group_width = row_places / batch * 128;
    const CollectModel& model = call.model;
    const __half* operand = reinterpret_cast<const __half*>(model.operand);
    const int lane = threadIdx.x % 32, d = model.d, width = model.padded_width;
    const int second = squares_offset(d);
    const bool origin_aligned = d % 4 == 0 && reinterpret_cast<uintptr_t>(model.origin) % 16 == 0;
    const bool with_hints = takes_hints(call.input);
    // Lane l looks after row l / 4.
    const int looked_after = lane / 4 % batch;
    const uint32_t component = hint_of(call, first_row + looked_after);
    HintedComponent<form> hinted;
    if (with_hints) {
        hinted.load(model.columns, component);
    }
    const auto load_centred = [&](int group, float(&y)[row_places][4]) {
        load(group, y);
#pragma unroll
        for (int c = 0; c < row_places / batch; ++c) {
            float origin[4];
            load_four(model.origin, group + 128 * c + 4 * lane, d, origin_aligned, origin);
#pragma unroll
            for (int b = 0; b < batch; ++b) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    y[c * batch + b][j] -= origin[j];
                }
            }
        }
    };
    float squares[8] = {}, products[8] = {}, fourths[8] = {};
#pragma unroll 1
    for (int group = 0; group < d; group += group_width) {
        uint2 w[row_places], w2[row_places];
        if (with_hints) {
#pragma unroll
            for (int place = 0; place < row_places; ++place) {
                const uint32_t k = __shfl_sync(all_lanes, component, 4 * row_of<batch>(place));
                const int at = dimension_of<batch>(place, group, lane);
                const __half* from = operand + static_cast<size_t>(k) * width + (at < d ? at : 0);
                w[place] = *reinterpret_cast<const uint2*>(from);
                if (form == CollectForm::squares) {
                    w2[place] = *reinterpret_cast<const uint2*>(from + second);
                }
            }
        }
        float y[row_places][4];
        load_centred(group, y);
#pragma unroll
        for (int place = 0; place < row_places; ++place) {
            const int b = row_of<batch>(place);
            float own[4] = {0, 0, 0, 0}, own2[4] = {0, 0, 0, 0};
            if (with_hints) {
                split_halves(w[place], own);
                if (form == CollectForm::squares) {
                    split_halves(w2[place], own2);
                }
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float v = y[place][j]; // zero from d on
                squares[b] = fmaf(v, v, squares[b]);
                products[b] = fmaf(v, own[j], products[b]);
                if (form == CollectForm::squares) {
                    products[b] = fmaf(v * v * model_scale.ratio, own2[j], products[b]);
                    fourths[b] = fmaf(v * v, v * v, fourths[b]);
                }
            }
        }
    }
    // Sums of eight numbers a warp: lane l gets that of number l / 4.
    float sum_of_squares, product, sum_of_fourths = 0;
    if (batch <= 4) {
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            squares[4 + b] = products[b];
        }
        const float both = warp_sums(squares);
        sum_of_squares = __shfl_sync(all_lanes, both, 4 * looked_after);
        product = __shfl_sync(all_lanes, both, 16 + 4 * looked_after);
    } else {
        sum_of_squares = warp_sums(squares);
        product = warp_sums(products);
    }
    if (form == CollectForm::squares) {
        sum_of_fourths = __shfl_sync(all_lanes, warp_sums(fourths), 4 * looked_after);
    }
    RowScale scale = row_scale<form>(sum_of_squares, sum_of_fourths, model_scale);
    if (first_row + looked_after >= call.input.n) {
        scale = RowScale{};
    }
    if (lane % 4 == 0 && lane / 4 < batch) {
        publish(looked_after,
                scale,
                with_hints ? hinted.threshold(product, scale, call.input.margin) : open);
    }
#pragma unroll 1
    for (int group = 0; group < width; group += group_width) {
        float y[row_places][4];
        load_centred(group, y);
#pragma unroll
        for (int place = 0; place < row_places; ++place) {
            const int b = row_of<batch>(place), at = dimension_of<batch>(place, group, lane);
            const float F = __shfl_sync(all_lanes, scale.F, 4 * b);
            const bool usable = F != 0; // a row of no use may hold NaN: zeros instead
            const uint2 nothing = make_uint2(0, 0);
            if (at < (form == CollectForm::squares ? second : width)) {
                store(b, at, usable ? four_halves(y[place], F) : nothing);
            }
            if (form == CollectForm::squares) {
                const float F2 = __shfl_sync(all_lanes, scale.F2, 4 * b);
                if (second + at < width) {
                    const float squared[4] = {
                            y[place][0] * y[place][0],
                            y[place][1] * y[place][1],
                            y[place][2] * y[place][2],
                            y[place][3] * y[place][3]};
                    store(b, second + at, usable ? four_halves(squared, F2) : nothing);
                }
            }
        }
    }
}

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
