// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The proof behind collect.h, and the numbers that all paths share.
//
// Operands. w_k = E 2 h_k c_k, E a power of two with max_k |w_k| in [2^14, 2^15); wh_k = fp16(w_k).
//   y^ = F y, F = C / |y| up to rounding, C = 2^15, so |y^| <= C (F is smaller where a cap says so);
//   yh = fp16(y^). A product of the two has the unit 1 / (F E) nats: everything below is in it,
//   f = F E turns nats into it. So nothing overflows, and the bound of a component is one number for
//   all rows. (squares: a second half with its own E2 and F2 = F E / E2, |F2 y^2| <= C as well.)
// Roundings. |yh - y^| <= eta C, eta = 2^-11 (1 + 2^-10) + sqrt(width) 2^-40: half a unit of fp16,
//   subnormals (2^-25 each), and the roundings of y, y^2 and F y in fp32 (a few 2^-24).
//   D_k = |wh_k - w_k| is measured, in double. Hence
//   (1) |yh . wh_k - y^ . w_k| <= C (eta |wh_k| + D_k).
// Accumulation. A tensor core adds b products and the accumulator exactly after aligning them to the
//   largest, cutting each below 2^-23 of it, and cuts the sum: at most b + 2 cuts a step (Fasi et
//   al. 2021, Blanchard et al. 2020; b >= 4 on all that were measured, more guard bits on newer
//   ones). With M = |start| + sum_j |yh_j wh_kj| <= |start| + C (1 + eta) |wh_k| the width / b steps
//   lose at most 1.5 width 2^-23 M; plain fp32 sums lose less. The start is one or two FMAs.
//   (2) gamma = (2 width + 32) 2^-23 covers these, and |y|^2 in fp32, which q = f |y|^2 needs.
// So with   bound_k = 1.002 C (eta |wh_k| + D_k + gamma |wh_k|)
//           base_k up by 1.01 gamma |b_k|,   quadratic_k = h_k down by 1.01 gamma h_k
//   (3) U_ik = (f base_k + bound_k - q quadratic_k) + yh . wh_k >= s_ik f
//   (4) L_ik = U_ik - 2 bound_k - 2.1 gamma (f |b_k| + q h_k)   <= s_ik f
// Thresholds. Any sum of the same products in fp32 obeys (1) and (2) as well, so the U of a hint that the
//   cast computes and the tensor cores' U of that component both lie in [s f, s f + gap], gap = U - L of
//   its tile at most: they are at most one gap apart, and U_cast - 2 gap <= L. So a hint's threshold is
//   never above (5) in collect.h, and all that is to be listed is among what reaches it.
// The bounds are stored as the largest of 8 neighbours, the lower bound's terms as the largest of a tile.
// In numbers: |y||c|/s2 = 140 nats (d = 128, components 90 nats apart) gives bound 0.12 nats.
#pragma once

#include <cstdint>

#include "faiss_gmm/train/cuda/collect.h"

#ifdef __CUDACC__
#define FAISS_GMM_ON_BOTH __host__ __device__
#else
#define FAISS_GMM_ON_BOTH
#endif

namespace faiss_gmm::cuda {

constexpr float collect_norm = 32768.0f;                   // C
constexpr float collect_norm_aimed_at = 32768.0f * 0.998f; // room for the rounding of |y|^2
constexpr float smallest_row_scale = 1e-30f;               // below: the row overflows

FAISS_GMM_ON_BOTH constexpr double accumulation_error(int32_t width) {
    return (2.0 * width + 32.0) * 0x1.0p-23;
}

/// Places in a tile's columns [collect_columns]. A thread of a quad has columns 8 j + 2 t + i of a
/// product; its 32 numbers stand together, and the four threads' in different banks.
constexpr int32_t column_pitch = collect_tile / 4 + 4;
constexpr int32_t column_base = 0;
constexpr int32_t column_quadratic = 4 * column_pitch;
constexpr int32_t column_bound = 8 * column_pitch; // [collect_tile / 8]
constexpr int32_t column_errors =
        column_bound + collect_tile / 8; // 2 bound, then (4)'s other factors
constexpr int32_t column_error_bound = column_errors;
constexpr int32_t column_error_base = column_errors + 1;
constexpr int32_t column_error_quadratic = column_errors + 2;
static_assert(column_errors + 4 == collect_columns, "");

/// Place of a tile's component among base and quadratic.
FAISS_GMM_ON_BOTH constexpr int32_t column_place(int32_t component) {
    return component % 8 / 2 * column_pitch + component / 8 * 2 + component % 2;
}

/// Places in CollectModel::scale.
enum CollectScale : int32_t {
    scale_operand,       ///< E
    scale_squares,       ///< E2
    scale_squares_ratio, ///< E / E2
    scale_row_cap,       ///< largest F
    scale_norm_bits, ///< largest |2 h c|, |h| and |b|, as bits of floats while they are being found
    scale_squares_norm_bits,
    scale_base_bits,
};

/// Where y^2 starts in an operand of the form `squares`.
FAISS_GMM_ON_BOTH constexpr int32_t squares_offset(int32_t d) {
    return (d + 7) / 8 * 8;
}

} // namespace faiss_gmm::cuda
