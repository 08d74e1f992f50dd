// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstdint>

#include <cuda_fp16.h>

namespace faiss_gmm::cuda {

/// high + low = value up to 2^-22.
__device__ inline void split(float value, uint16_t& high, uint16_t& low) {
    const __half h = __float2half_rn(value);
    high = __half_as_ushort(h);
    low = __half_as_ushort(__float2half_rn(value - __half2float(h)));
}

/// The same of two values, first in the low bits.
__device__ inline void split(float first, float second, uint32_t& high, uint32_t& low) {
    const __half2 h = __floats2half2_rn(first, second);
    const float2 back = __half22float2(h);
    const __half2 l = __floats2half2_rn(first - back.x, second - back.y);
    high = *reinterpret_cast<const uint32_t*>(&h);
    low = *reinterpret_cast<const uint32_t*>(&l);
}

} // namespace faiss_gmm::cuda
