// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>

namespace faiss_gmm {

/// Replaces the lower triangle of the symmetric matrix a [d, d] by L with L L^T = a; what stands above
/// the diagonal is left. False if a is not positive definite (a is then spoilt). d^3 / 3 flops.
bool cholesky(size_t d, double* a);

/// Writes L^-1 (lower triangle, zeros above) into inverse [d, d]. d^3 / 3 flops.
void invert_lower(size_t d, const double* lower, double* inverse);

/// 2 sum_j log L_jj: the logarithm of the determinant of L L^T.
double log_determinant(size_t d, const double* lower);

} // namespace faiss_gmm
