// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace faiss_gmm {

/// Whether no number of x [d] is NaN or Inf.
inline bool all_finite(size_t d, const float* x) {
    constexpr uint32_t exponent = 0x7f800000; // all ones: NaN or Inf
    uint32_t bad = 0;
    for (size_t i = 0; i < d; ++i) { // without branches, so that it vectorises
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bad |= static_cast<uint32_t>((bits & exponent) == exponent);
    }
    return bad == 0;
}

/// First row of x [n, d] that holds NaN or Inf; n: none.
size_t first_bad_row(size_t n, size_t d, const float* x);

} // namespace faiss_gmm
