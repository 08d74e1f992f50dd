// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// The loops of the CPU engine that stand beside its GEMM, compiled for every instruction set the
// compiler knows and chosen at run time (Highway): a package built for any x86-64 or Arm is fast.
//
// Score kernels read one row of products [columns], columns a multiple of `score_padding`, and the
// coefficients of the columns, padded with -infinity so that padding never wins. All are fp32: they
// only choose candidates, within proven bounds (see score_model.h).
// Value kernels take fp32 rows and work in fp64: x - mu of two floats is exact to 2^-53, so no
// shift of the data is visible in them. Their results depend on the row alone, never on its block.

#include <cstddef>
#include <cstdint>

namespace faiss_gmm::cpu {

constexpr size_t score_padding =
        64; ///< columns; a multiple of every vector's lanes up to 2,048 bits

/// Bounds of a log-joint (nats, up to a constant of the row) from its product, for column k:
/// upper = dot + upper0[k] + p upper1[k] + q upper2[k], lower likewise; p, q are the row's.
/// Without the arrays 1 and 2 (null) both are dot + upper0[k], and the row carries the error.
struct ScoreBounds {
    const float* upper0 = nullptr;
    const float* upper1 = nullptr;
    const float* upper2 = nullptr;
    const float* lower0 = nullptr;
    const float* lower1 = nullptr;
    const float* lower2 = nullptr;
    float p = 0;
    float q = 0;
};

/// Largest lower bound of the row.
float largest_lower_bound(const float* dot, const ScoreBounds& bounds, size_t columns);
/// The same, also raising groups [score_padding]: maxima over columns of equal number modulo
/// score_padding. Their m-th largest is at most the row's m-th largest lower bound.
void raise_group_bounds(const float* dot, const ScoreBounds& bounds, size_t columns, float* groups);
/// Columns whose upper bound is at least threshold: their numbers + first into index, their upper
/// bounds into upper; both [columns + score_padding]. Returns how many.
size_t collect_above(
        const float* dot,
        const ScoreBounds& bounds,
        size_t columns,
        float threshold,
        uint32_t first,
        uint32_t* index,
        float* upper);

/// y [d] = x - origin, rounded to fp32; returns |x - origin|^2 (not finite if x has NaN or Inf).
double centre_row(const float* x, const float* origin, size_t d, float* y);
/// |x - mu|^2.
double squared_distance(const float* x, const float* mu, size_t d);
/// |z - m|^2.
double squared_distance(const double* z, const double* m, size_t d);
/// sum_j weight_j (x_j - mu_j)^2.
double weighted_squared_distance(const float* x, const float* mu, const double* weight, size_t d);
/// sum [d] += r x.
void add_scaled(double* sum, double r, const float* x, size_t d);
/// sum [d] += r[0] x[0], then r[1] x[1], ... r[3] x[3]: the bits of four calls of add_scaled.
void add_four_scaled(double* sum, const double* r, const float* const* x, size_t d);
/// sum [d] += r v.
void add_scaled(double* sum, double r, const double* v, size_t d);
/// sum [d] += r (x - mu)^2, by dimension.
void add_scaled_squares(double* sum, double r, const float* x, const float* mu, size_t d);
/// sum_j a_j b_j.
double dot(const double* a, const double* b, size_t d);

} // namespace faiss_gmm::cpu
