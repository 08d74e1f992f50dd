// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>

namespace faiss_gmm {

/// Factor that brings x [d] to length 1. 1 for a row of zeros, and for one that has this length but
/// for rounding: rows that were brought to it in fp32 keep their bits.
double unit_length_factor(size_t d, const float* x);

/// Whether every row of x [n, d] has length 1, or 0.
bool of_unit_length(size_t n, size_t d, const float* x);

/// Rows x [n, d] brought to unit length into out [n, d], which may be x; a row of zeros stays.
void to_unit_length(size_t n, size_t d, const float* x, float* out);

} // namespace faiss_gmm
