// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Rows into the form that the collecting products read: centred, scaled, rounded to fp16; the row's
// scale, and a threshold from its hint. Formulas: collect_bound.h and detail/collect_rows.cuh.
// A warp takes eight rows up to 128 dimensions wide, four wider ones; reads them twice, the second
// time from L1.
// Cost: n d of the rows' type read and 2 n width bytes written, to memory or, where a wave fits, to L2.
#include <cuda_runtime.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps = 8;

template <CollectForm form, int batch>
__global__ void __launch_bounds__(32 * warps)
        cast_kernel(const __grid_constant__ CollectCall call, Rows rows, CollectWave wave) {
    const int first = (blockIdx.x * warps + threadIdx.x / 32) * batch;
    const int there = min(batch, wave.rows - first);
    if (there <= 0) {
        return;
    }
    const ModelScale model_scale(call.model.scale);
    const int64_t own = wave.first + first;
    __half* operand = reinterpret_cast<__half*>(wave.operand);
    const size_t width = call.model.padded_width;
    prepare_rows<form, batch>(
            call,
            model_scale,
            own,
            [&](int group, float(&y)[row_places][4]) {
                rows.visit([&](auto* elements) {
                    load_places<batch>(
                            elements + own * rows.d, there, group, rows.d, rows.aligned, y);
                });
            },
            [&](int b, int column, const uint2& halves) {
                if (b < there) {
                    *reinterpret_cast<uint2*>(operand + (first + b) * width + column) = halves;
                }
            },
            [&](int b, const RowScale& scale, float threshold) {
                if (b < there) {
                    wave.f[first + b] = scale.f == 0 ? 1.0f : scale.f;
                    wave.q[first + b] = scale.q;
                    wave.threshold[first + b] = start_of_threshold(scale, threshold);
                }
            });
}

template <CollectForm form, int batch>
void launch(const CollectCall& call, const CollectWave& wave, Stream stream) {
    constexpr int block_rows = warps * batch;
    cast_kernel<form, batch><<<(wave.rows + block_rows - 1) / block_rows, 32 * warps, 0, stream>>>(
            call, rows_of(call), wave);
}

template <CollectForm form>
void launch(const CollectCall& call, const CollectWave& wave, Stream stream) {
    if (call.model.d <= 128) {
        launch<form, 8>(call, wave, stream);
    } else {
        launch<form, 4>(call, wave, stream);
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
