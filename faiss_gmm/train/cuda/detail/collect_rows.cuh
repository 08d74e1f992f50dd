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
    float operand, cap;

    __device__ explicit ModelScale(const float* __restrict__ scale)
            : operand(scale[scale_operand]), cap(scale[scale_row_cap]) {}
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
        F = fminf(F, collect_norm_aimed_at / (squares_ratio * sqrtf(sum_of_fourths)));
    }
    const float f = F * scale.operand;
    // NaN fails every comparison; an infinite sum gives F = 0.
    if (sum_of_squares < 3e38f && F > smallest_row_scale && f > smallest_row_scale && f < 1e30f) {
        row.F = F;
        row.F2 = form == CollectForm::squares ? F * squares_ratio : 0.0f;
        row.f = f;
        row.q = form == CollectForm::quadratic ? f * sum_of_squares : 0.0f;
    }
    return row;
}

/// How far a lower bound of the tile's components lies below the upper one, at most; not of squares.
template <CollectForm form>
__device__ inline float bound_gap(const float* __restrict__ errors, float f, float q) {
    float gap = fmaf(errors[1], f, errors[0]);
    if (form == CollectForm::quadratic) {
        gap = fmaf(errors[2], q, gap);
    }
    return gap;
}

/// What a U must reach where the rank-th largest L is such; rounded one way wherever it is used.
template <CollectForm form>
__device__ inline float
threshold_under(const CollectModel& model, float lower, float margin, float f) {
    const float threshold = __fsub_rn(lower, __fmul_rn(margin, f));
    return form == CollectForm::squares ? __fmul_rn(model.stretch, threshold) : threshold;
}

/// 1 / e_k.
__device__ inline float inverse_of_power(float power_of_two) {
    return __int_as_float(0x7f000000 - __float_as_int(power_of_two));
}

/// A component's numbers in the columns of its tile, all of them under way at once.
template <CollectForm form> struct ColumnsOf {
    float base = 0, quadratic = 0;
    float bound = 0;     ///< of 8 components; not of squares
    float own = 1;       ///< e_k, squares
    float error[3] = {}; ///< of the tile; squares: what the component's own gap is

    __device__ ColumnsOf() {}
    __device__ ColumnsOf(const CollectModel& model, uint32_t k) {
        const float* columns = model.columns + k / collect_tile * collect_columns;
        const int place = column_place(k % collect_tile);
        base = columns[column_base + place];
        if (form != CollectForm::linear) {
            quadratic = columns[column_quadratic + place];
        }
        if (form == CollectForm::squares) {
            const float* owns = own_columns(model, k / collect_tile);
            own = owns[own_scale + place];
            error[0] = owns[own_gap + place];
            error[1] = owns[own_gap_base + place];
        } else {
            // Places of a pair are 2, of a quad's four threads a pitch apart.
            bound = columns[column_bound + place % column_pitch / 2];
#pragma unroll
            for (int e = 0; e < 3; ++e) {
                error[e] = columns[column_errors + e];
            }
        }
    }
    /// Start of the product: U without yh . wh; squares: in the component's own unit.
    __device__ float start(const RowScale& row) const {
        if (form == CollectForm::squares) {
            return fmaf(base, row.f, quadratic);
        }
        const float start = fmaf(base, row.f, bound);
        return form == CollectForm::quadratic ? fmaf(-quadratic, row.q, start) : start;
    }
    /// What takes a score from the component's own unit to the row's.
    __device__ float to_row_unit() const {
        return form == CollectForm::squares ? inverse_of_power(own) : 1.0f;
    }
    /// How far a lower bound lies below the upper one, at most; squares: l below u.
    __device__ float gap(float f, float q) const {
        return form == CollectForm::squares ? fmaf(error[1], f, error[0])
                                            : bound_gap<form>(error, f, q);
    }
};

/// A row whose threshold is this collects nothing.
constexpr float closed = FLT_MAX;
constexpr float open = -FLT_MAX; // above the -infinity of padding
/// A row that is settled.
constexpr float settled = __builtin_huge_valf();

/// Rows of the wave that a step looks at.
template <CollectStep step> __device__ inline int32_t rows_at_work(const CollectWave& wave) {
    if (step != CollectStep::list || wave.open == nullptr) {
        return wave.rows;
    }
    const unsigned long long open_rows = *wave.open, places = wave.open_tiles * wave_tile_rows;
    if (wave.number != nullptr) {
        return static_cast<int32_t>(min(open_rows, places));
    }
    return open_rows > places ? wave.rows : 0;
}

/// Where open row number p comes: few of them lie far apart, for many warps share them then.
__device__ inline int open_place(int p, int open_tiles) {
    const int strip = p / open_tiles % 16, of_strip = p / open_tiles / 16;
    return p % open_tiles * wave_tile_rows + 16 * strip + of_strip;
}

/// Whether there is such a row, in a wave of as many rows as are at work.
__device__ inline bool has_row(const CollectWave& wave, int row) {
    if (wave.number == nullptr) {
        return row < wave.rows;
    }
    const int of_tile = row % wave_tile_rows, p = of_tile % 16 * 16 + of_tile / 16;
    return p * wave.open_tiles + row / wave_tile_rows < wave.rows;
}

/// A wave's row as the call counts them.
__device__ inline int64_t row_of_call(const CollectWave& wave, int row) {
    return wave.number == nullptr ? wave.first + row : wave.number[row];
}

} // namespace faiss_gmm::cuda
