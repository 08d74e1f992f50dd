// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Rows into the form that the collecting products read: y = x - o scaled and rounded to fp16, the
// row's scale, and a threshold from its hint. Formulas: collect_bound.h.
//   threshold = L_i,hint - margin, of the row in fp32 (no further off than the product of (3))
// A few lanes a row: 8 up to 128 dimensions, 16 up to 256, else a warp; each holds its dimensions.
// All that depends on the hint is asked for at once, beside the row, before any of it is used: one wait more
//   than without hints, not one a step.
// Cost: n d of the rows' type read once, 2 n width bytes written; a hinted component is 2 width bytes
//   from L2 a row. Bound by memory: .26 ms for (1M, 128) fp32 on an H100, with and without hints,
//   2.9 TB/s: 98% of what a copy reaches.
// Determinism: gpu_to_gpu; a row's numbers depend on the row, its hint and the model alone.
#include <cuda_runtime.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int threads = 256;

__device__ inline uint2 four_halves(const float (&v)[4], float scale) {
    const __half2 low = __floats2half2_rn(v[0] * scale, v[1] * scale);
    const __half2 high = __floats2half2_rn(v[2] * scale, v[3] * scale);
    return make_uint2(
            *reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
}

__device__ inline void split_halves(const uint2& raw, float (&out)[4]) {
    const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&raw.x));
    const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&raw.y));
    out[0] = low.x;
    out[1] = low.y;
    out[2] = high.x;
    out[3] = high.y;
}

template <int lanes> __device__ inline float sum_over(float value) {
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(whole_warp, value, step);
    }
    return value;
}

/// A hinted component, all of it under way at once.
template <CollectForm form, int chunks> struct Hinted {
    static constexpr int vectors = form == CollectForm::squares ? 2 : 1;
    uint2 operand[vectors][chunks]; ///< four halves of w, squares: and of w2
    ColumnsOf<form> columns;

    /// `component`: its operand. Zeros from d on.
    template <class Dimension>
    __device__ void
    load(const CollectModel& model, uint32_t k, const Dimension& dimension, int second) {
        const __half* component = reinterpret_cast<const __half*>(model.operand) +
                                  static_cast<size_t>(k) * model.padded_width;
#pragma unroll
        for (int v = 0; v < vectors; ++v) {
#pragma unroll
            for (int c = 0; c < chunks; ++c) {
                const int at = dimension(c);
                operand[v][c] =
                        at < model.d ? *reinterpret_cast<const uint2*>(component + v * second + at)
                                     : make_uint2(0, 0);
            }
        }
        columns = ColumnsOf<form>(model, k);
    }

    /// At most the product's L of the component, less the margin; `product` is y . w and R y^2 . w2.
    /// Both U hold the score and lie within the gap above it, so they are at most a gap apart (squares: (6)).
    __device__ float
    threshold(const CollectModel& model, float product, const RowScale& row, float margin) const {
        const float upper = fmaf(row.F, product, columns.start(row)) * columns.to_row_unit();
        const float gap = columns.gap(row.f, row.q);
        // A little more than the margin, for the roundings here.
        const float wide_margin = 1.000001f * margin;
        if (form == CollectForm::squares) {
            const float lower = model.stretch * (upper - gap) - gap;
            return threshold_under<form>(model, lower, wide_margin, row.f);
        }
        return upper - fmaf(wide_margin, row.f, 2 * gap);
    }
};

/// Rows up to whole tiles: zeros behind the last one.
FAISS_GMM_ON_BOTH inline int rows_of_tiles(const CollectWave& wave) {
    return (wave.rows + wave_tile_rows - 1) / wave_tile_rows * wave_tile_rows;
}

template <CollectForm form, int lanes, int chunks>
__global__ void __launch_bounds__(threads, chunks > 8 ? 2 : 1)
        cast_kernel(const __grid_constant__ CollectCall call, Rows rows, CollectWave wave) {
    const CollectModel& model = call.model;
    const int lane = threadIdx.x % lanes, d = model.d, width = model.padded_width;
    const int row = (blockIdx.x * threads + threadIdx.x) / lanes;
    const bool there = row < wave.rows;
    const int64_t i = wave.first + (there ? row : 0);
    const bool with_hint = call.input.hint != nullptr && call.input.rank == 1;
    const uint32_t hint = with_hint ? min(static_cast<uint32_t>(call.input.hint[i]),
                                          static_cast<uint32_t>(model.K - 1))
                                    : 0;
    const int second = squares_offset(d);
    const auto dimension = [&](int c) { return 4 * (lanes * c + lane); };

    float y[chunks][4];
    visit(rows, [&](const auto* numbers) {
#pragma unroll
        for (int c = 0; c < chunks; ++c) {
            load_four(numbers + i * d, dimension(c), d, rows.aligned, y[c]);
        }
    });
    Hinted<form, chunks> hinted{};
    if (with_hint) {
        hinted.load(model, hint, dimension, second);
    }
    const bool origin_aligned = d % 4 == 0 && reinterpret_cast<uintptr_t>(model.origin) % 16 == 0;
    const ModelScale model_scale(model.scale);
    float squares = 0, fourths = 0, product = 0;
#pragma unroll
    for (int c = 0; c < chunks; ++c) {
        float origin[4], axis[4], w[4], w2[4] = {0, 0, 0, 0};
        load_four(model.origin, dimension(c), d, origin_aligned, origin);
        split_halves(hinted.operand[0][c], w);
        if constexpr (form == CollectForm::squares) {
            load_four(model.scale + collect_scales, dimension(c), d, d % 4 == 0, axis);
            split_halves(hinted.operand[1][c], w2);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float v = y[c][j] - origin[j]; // zero from d on
            if (form == CollectForm::squares) {
                v *= axis[j];
            }
            y[c][j] = v;
            squares = fmaf(v, v, squares);
            product = fmaf(v, w[j], product);
            if (form == CollectForm::squares) {
                product = fmaf(v * v * squares_ratio, w2[j], product);
                fourths = fmaf(v * v, v * v, fourths);
            }
        }
    }
    squares = sum_over<lanes>(squares);
    product = sum_over<lanes>(product);
    if (form == CollectForm::squares) {
        fourths = sum_over<lanes>(fourths);
    }
    const RowScale scale = row_scale<form>(squares, fourths, model_scale);
    if (row >= rows_of_tiles(wave)) {
        return;
    }
    __half* out = reinterpret_cast<__half*>(wave.operand) + static_cast<size_t>(row) * width;
    const bool holds_numbers = there && scale.F != 0; // others may hold NaN: zeros instead
    const uint2 nothing = make_uint2(0, 0);
#pragma unroll
    for (int c = 0; c < chunks; ++c) {
        const int at = dimension(c);
        if (at < (form == CollectForm::squares ? second : width)) {
            *reinterpret_cast<uint2*>(out + at) =
                    holds_numbers ? four_halves(y[c], scale.F) : nothing;
        }
        if (form == CollectForm::squares && second + at < width) {
            const float squared[4] = {
                    y[c][0] * y[c][0], y[c][1] * y[c][1], y[c][2] * y[c][2], y[c][3] * y[c][3]};
            *reinterpret_cast<uint2*>(out + second + at) =
                    holds_numbers ? four_halves(squared, scale.F2) : nothing;
        }
    }
    if (lane == 0 && there) {
        const float threshold =
                with_hint ? hinted.threshold(model, product, scale, call.input.margin) : open;
        const bool of_use = scale.f != 0;
        wave.f[row] = of_use ? scale.f : 1.0f;
        wave.q[row] = scale.q;
        // A hint of weight zero gives -infinity.
        wave.threshold[row] = of_use ? fmaxf(open, threshold) : closed;
    }
}

template <CollectForm form, int lanes, int chunks>
void launch(const CollectCall& call, const CollectWave& wave, Stream stream) {
    constexpr int block_rows = threads / lanes;
    cast_kernel<form, lanes, chunks>
            <<<(rows_of_tiles(wave) + block_rows - 1) / block_rows, threads, 0, stream>>>(
                    call, Rows(call.input.rows, call.input.type, call.model.d), wave);
}

template <CollectForm form>
void launch(const CollectCall& call, const CollectWave& wave, Stream stream) {
    const int d = call.model.d;
    if (d <= 128) {
        launch<form, 8, 4>(call, wave, stream);
    } else if (d <= 256) {
        launch<form, 16, 4>(call, wave, stream);
    } else if (d <= 512) {
        launch<form, 32, 4>(call, wave, stream);
    } else if (d <= 1024) {
        launch<form, 32, 8>(call, wave, stream);
    } else {
        launch<form, 32, 16>(call, wave, stream);
    }
}

} // namespace

void cast_rows(const CollectCall& call, const CollectWave& wave, Stream stream) {
    switch (call.model.form) {
    case CollectForm::linear:
        launch<CollectForm::linear>(call, wave, stream);
        break;
    case CollectForm::quadratic:
        launch<CollectForm::quadratic>(call, wave, stream);
        break;
    case CollectForm::squares:
        launch<CollectForm::squares>(call, wave, stream);
        break;
    }
}

} // namespace faiss_gmm::cuda
