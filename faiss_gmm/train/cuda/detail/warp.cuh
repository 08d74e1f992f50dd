// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What the threads of a warp do together on rows of d numbers: lane l holds dimensions
// 128 c + 4 l .. 128 c + 4 l + 3 of chunk c.

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "faiss_gmm/train/cuda/detail/segments.h"

namespace faiss_gmm::cuda {

constexpr unsigned whole_warp = 0xffffffffu;
constexpr int chunk_width = 128;

__device__ inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

template <class T> __device__ inline T warp_sum(T value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(whole_warp, value, step);
    }
    return value;
}

template <class T> __device__ inline T warp_max(T value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const T other = __shfl_xor_sync(whole_warp, value, step);
        value = other > value ? other : value;
    }
    return value;
}

/// Sums of eight numbers over a warp; lane l gets that of number l / 4.
__device__ inline float warp_sums(float (&value)[8]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 4; half > 0; half /= 2) {
        const bool upper = (lane & half * 4) != 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (i < half) {
                const float sent = upper ? value[i] : value[i + half];
                const float kept = upper ? value[i + half] : value[i];
                value[i] = kept + __shfl_xor_sync(whole_warp, sent, half * 4);
            }
        }
    }
    value[0] += __shfl_xor_sync(whole_warp, value[0], 2);
    return value[0] + __shfl_xor_sync(whole_warp, value[0], 1);
}

__device__ inline float to_float(float value) {
    return value;
}
__device__ inline float to_float(__half value) {
    return __half2float(value);
}
__device__ inline float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__device__ inline float to_float(uint8_t value) {
    return value;
}
__device__ inline float to_float(int8_t value) {
    return value;
}

template <class T> struct alignas(4 * sizeof(T)) Four { T value[4]; };

/// Where a row of d numbers begins; by one instruction.
__device__ inline size_t first_number(uint32_t row, int d) {
    return static_cast<size_t>(row) * static_cast<uint32_t>(d);
}

__device__ inline void load_aligned(const float* from, float (&out)[4]) {
    const auto four = *reinterpret_cast<const float4*>(from);
    out[0] = four.x;
    out[1] = four.y;
    out[2] = four.z;
    out[3] = four.w;
}

/// Four numbers of a row from dimension `at` on, zeros past d. `aligned`: one load of all four is allowed.
template <class T>
__device__ inline void load_four(const T* row, int at, int d, bool aligned, float* out) {
    if (aligned) {
        if (at < d) {
            const Four<T> four = *reinterpret_cast<const Four<T>*>(row + at);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                out[i] = to_float(four.value[i]);
            }
        } else {
            out[0] = out[1] = out[2] = out[3] = 0;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[i] = at + i < d ? to_float(row[at + i]) : 0.0f;
    }
}

template <int chunks, class T>
__device__ inline void
load_row(const T* row, int d, bool aligned, int lane, float (&out)[4 * chunks]) {
#pragma unroll
    for (int c = 0; c < chunks; ++c) {
        load_four(row, chunk_width * c + 4 * lane, d, aligned, out + 4 * c);
    }
}

template <int chunks>
__device__ inline void
store_row(float* row, int d, bool aligned, int lane, const float (&values)[4 * chunks]) {
#pragma unroll
    for (int c = 0; c < chunks; ++c) {
        const int at = chunk_width * c + 4 * lane;
        if (aligned) {
            if (at < d) {
                *reinterpret_cast<float4*>(row + at) = float4{
                        values[4 * c], values[4 * c + 1], values[4 * c + 2], values[4 * c + 3]};
            }
            continue;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (at + i < d) {
                row[at + i] = values[4 * c + i];
            }
        }
    }
}

struct Segment {
    int begin, end; ///< of the sorted list
    int group;
};

/// Segment number s < table.first[table.groups], for a warp in step: 32 places are looked at at once.
__device__ inline Segment find_segment(const SegmentTable& table, int s) {
    const int lane = threadIdx.x % 32;
    int low = 0, high = table.groups; // first[low] <= s < first[high]
    while (high - low > 1) {
        const int step = (high - low + 31) / 32, probe = low + step * (lane + 1);
        const bool before = probe < high && table.first[probe] <= s;
        low += step * __popc(__ballot_sync(whole_warp, before));
        high = min(low + step, high);
    }
    const int begin = table.offset[low] + segment_rows * (s - table.first[low]);
    return {begin, min(begin + segment_rows, table.offset[low + 1]), low};
}

} // namespace faiss_gmm::cuda
