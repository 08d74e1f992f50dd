// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// The one way to read a row. Its type is looked up where it is loaded: it is the same for a whole grid,
// so the branch costs nothing beside the load, and no kernel is compiled five times.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "faiss_gmm/train/cuda/detail/mixture_view.h"
#include "faiss_gmm/train/cuda/detail/rows.h"
#include "faiss_gmm/train/cuda/detail/warp.cuh"

namespace faiss_gmm::cuda {

/// Calls f(numbers) with the rows' numbers as what they are.
template <class Function> __device__ inline void visit(const Rows& rows, const Function& f) {
    switch (rows.type) {
    case ElementType::f32:
        f(static_cast<const float*>(rows.data));
        break;
    case ElementType::f16:
        f(static_cast<const __half*>(rows.data));
        break;
    case ElementType::bf16:
        f(static_cast<const __nv_bfloat16*>(rows.data));
        break;
    case ElementType::u8:
        f(static_cast<const uint8_t*>(rows.data));
        break;
    case ElementType::i8:
        f(static_cast<const int8_t*>(rows.data));
        break;
    }
}

/// Number `at`, without its low part.
__device__ inline float high_number(const Rows& rows, size_t at) {
    float value = 0;
    visit(rows, [&](const auto* numbers) { value = to_float(numbers[at]); });
    return value;
}

/// Number `at`, all of it.
__device__ inline double number(const Rows& rows, size_t at) {
    const double high = high_number(rows, at);
    return rows.low == nullptr ? high : high + rows.low[at];
}

/// mu_kj, all of it.
__device__ inline double mean_number(const MixtureView& mixture, int k, int j) {
    const size_t at = static_cast<size_t>(k) * mixture.d + j;
    const double high = mixture.means[at];
    return mixture.means_low == nullptr ? high : high + mixture.means_low[at];
}

/// Rows first[i] / d, without their low parts; all loads are under way at once.
template <int chunks, int count>
__device__ inline void load_rows(
        const Rows& rows,
        const size_t (&first)[count],
        int d,
        int lane,
        float (&out)[count][4 * chunks]) {
    visit(rows, [&](const auto* numbers) {
#pragma unroll
        for (int i = 0; i < count; ++i) {
            load_row<chunks>(numbers + first[i], d, rows.aligned, lane, out[i]);
        }
    });
}

/// Four numbers of the row that begins at number `first`, without their low parts.
__device__ inline void load_four(const Rows& rows, size_t first, int at, int d, float* out) {
    visit(rows, [&](const auto* numbers) { load_four(numbers + first, at, d, rows.aligned, out); });
}

} // namespace faiss_gmm::cuda
