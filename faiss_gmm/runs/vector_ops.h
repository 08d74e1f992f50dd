// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>

namespace faiss_gmm {

/// <a, b>, a [d], b [d]; SIMD by run-time dispatch, the same order of sums each time on one
/// machine.
float dot(size_t d, const float* a, const float* b);
/// |a - b|^2, a [d], b [d].
float squared_distance(size_t d, const float* a, const float* b);
/// y += weight * x, x [d], y [d].
void add_scaled(size_t d, float weight, const float* x, float* y);
/// mean [d] of rows [n, d].
void mean_of_rows(size_t n, size_t d, const float* rows, float* mean);

} // namespace faiss_gmm
