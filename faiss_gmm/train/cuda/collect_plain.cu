// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The reference of collect.h: what the two fast passes do, without what makes them fast.
// One block a row at a time: (1) the row, centred, scaled and rounded to fp16, in shared memory;
// (2) U of every component, into the workspace; (3) the rank-th largest lower bound; (4) what
// reaches it, ascending. Cost: reads the model once a row. Deterministic from GPU to GPU.

#include <cuda_runtime.h>
#include <math_constants.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int threads = 128;
constexpr int most_blocks = 512;
constexpr int most_width = 4096;

struct Largest {
    float value;
    int32_t k;
};

/// Larger value first, lower component of equals.
__device__ bool before(const Largest& a, const Largest& b) {
    return a.value > b.value || (a.value == b.value && a.k < b.k);
}

template <class T> __device__ T block_fold(T value, T (*fold)(const T&, const T&)) {
    __shared__ T all[threads];
    __syncthreads();
    all[threadIdx.x] = value;
    __syncthreads();
    T result = all[0];
    for (int i = 1; i < threads; ++i) {
        result = fold(result, all[i]);
    }
    return result;
}

__device__ float sum(const float& a, const float& b) {
    return a + b;
}
__device__ Largest first_of(const Largest& a, const Largest& b) {
    return before(b, a) ? b : a;
}

template <class T, CollectForm form>
__global__ void __launch_bounds__(threads)
        collect_rows_plainly(CollectCall call, float* __restrict__ workspace) {
    __shared__ float y[most_width]; // yh, in fp32
    __shared__ int listed;
    const CollectModel& model = call.model;
    const int32_t d = model.d, width = model.padded_width, capacity = call.output.capacity;
    const __half* operand = reinterpret_cast<const __half*>(model.operand);
    float* upper = workspace + static_cast<size_t>(blockIdx.x) * model.padded_K;
    const float minus_infinity = -CUDART_INF_F;
    for (int64_t i = blockIdx.x; i < call.input.n; i += gridDim.x) {
        // (1)
        const T* x = static_cast<const T*>(call.input.rows) + i * d;
        float squares = 0, fourths = 0;
        __syncthreads();
        for (int32_t j = threadIdx.x; j < width; j += threads) {
            y[j] = 0;
        }
        __syncthreads();
        for (int32_t j = threadIdx.x; j < d; j += threads) {
            float v = to_float(x[j]) - model.origin[j];
            if (form == CollectForm::squares) {
                v *= model.scale[collect_scales + j];
            }
            squares += v * v;
            fourths += v * v * v * v;
            y[j] = v;
        }
        squares = block_fold(squares, sum);
        fourths = block_fold(fourths, sum);
        const RowScale row = row_scale<form>(squares, fourths, ModelScale(model.scale));
        if (row.f == 0) {
            if (threadIdx.x == 0) {
                call.output.count[i] = static_cast<uint8_t>(capacity + 1);
                if (call.output.best != nullptr) {
                    call.output.best[i] = 0;
                }
            }
            continue;
        }
        for (int32_t j = threadIdx.x; j < d; j += threads) {
            const float v = y[j];
            y[j] = __half2float(__float2half_rn(row.F * v));
            if (form == CollectForm::squares) {
                y[squares_offset(d) + j] = __half2float(__float2half_rn(row.F2 * v * v));
            }
        }
        __syncthreads();
        // (2)
        for (int32_t k = threadIdx.x; k < model.padded_K; k += threads) {
            const ColumnsOf<form> columns(model, k);
            float score = columns.start(row);
            for (int32_t j = 0; j < width; ++j) {
                score = fmaf(
                        y[j], __half2float(operand[static_cast<size_t>(k) * width + j]), score);
            }
            upper[k] = score * columns.to_row_unit();
        }
        __syncthreads();
        // (3) the next largest, `rank` times
        Largest last{CUDART_INF_F, -1};
        Largest best{minus_infinity, 0};
        for (int32_t r = 0; r < call.input.rank; ++r) {
            Largest mine{minus_infinity, model.padded_K};
            for (int32_t k = threadIdx.x; k < model.K; k += threads) {
                const Largest lower{upper[k] - ColumnsOf<form>(model, k).gap(row.f, row.q), k};
                if (before(last, lower) && before(lower, mine)) {
                    mine = lower;
                }
                if (r == 0 && before({upper[k], k}, best)) {
                    best = {upper[k], k};
                }
            }
            last = block_fold(mine, first_of);
        }
        best = block_fold(best, first_of);
        // (4)
        const float threshold = threshold_under<form>(model, last.value, call.input.margin, row.f);
        if (threadIdx.x == 0) {
            float listed_from = threshold;
            if (call.output.rest != nullptr) { // (7)
                const float significant =
                        threshold_under<form>(model, last.value, call.input.significant, row.f);
                float rest = 0, widest = 0;
                for (int32_t k = 0; k < model.K; ++k) {
                    if (upper[k] >= threshold && upper[k] > minus_infinity) {
                        widest = fmaxf(widest, ColumnsOf<form>(model, k).gap(row.f, row.q));
                        const float share = expf((upper[k] - best.value) / row.f);
                        rest += upper[k] < significant ? fmaxf(share, 1.0f / (1LL << rest_bits))
                                                       : 0.0f;
                    }
                }
                const bool is_little = rest * expm1f(widest / row.f) <= most_rest_error;
                listed_from = is_little ? fmaxf(threshold, significant) : threshold;
                call.output.rest[i] = is_little ? rest : 0.0f;
            }
            listed = 0;
            for (int32_t k = 0; k < model.K && listed <= capacity; ++k) {
                if (upper[k] >= listed_from && upper[k] > minus_infinity) {
                    if (listed < capacity) {
                        call.output.component[i * capacity + listed] = static_cast<uint16_t>(k);
                    }
                    ++listed;
                }
            }
            call.output.count[i] = static_cast<uint8_t>(listed);
            if (call.output.best != nullptr) {
                call.output.best[i] = static_cast<uint16_t>(best.k);
            }
        }
        __syncthreads();
    }
}

template <class T> void launch(const CollectCall& call, float* workspace, Stream stream) {
    const unsigned blocks =
            static_cast<unsigned>(call.input.n < most_blocks ? call.input.n : most_blocks);
    switch (call.model.form) {
    case CollectForm::linear:
        collect_rows_plainly<T, CollectForm::linear>
                <<<blocks, threads, 0, stream>>>(call, workspace);
        break;
    case CollectForm::quadratic:
        collect_rows_plainly<T, CollectForm::quadratic>
                <<<blocks, threads, 0, stream>>>(call, workspace);
        break;
    case CollectForm::squares:
        collect_rows_plainly<T, CollectForm::squares>
                <<<blocks, threads, 0, stream>>>(call, workspace);
        break;
    }
}

} // namespace

size_t collect_plain_workspace(const CollectModel& model) {
    return static_cast<size_t>(most_blocks) * model.padded_K * sizeof(float);
}

void collect_plain(const CollectCall& call, void* workspace, Stream stream) {
    float* scores = static_cast<float*>(workspace);
    switch (call.input.type) {
    case ElementType::f32:
        launch<float>(call, scores, stream);
        break;
    case ElementType::f16:
        launch<__half>(call, scores, stream);
        break;
    case ElementType::bf16:
        launch<__nv_bfloat16>(call, scores, stream);
        break;
    case ElementType::u8:
        launch<uint8_t>(call, scores, stream);
        break;
    case ElementType::i8:
        launch<int8_t>(call, scores, stream);
        break;
    }
}

} // namespace faiss_gmm::cuda
