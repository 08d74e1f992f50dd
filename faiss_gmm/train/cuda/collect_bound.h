// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The proof behind collect.h, and the numbers that all paths share.
//
// Operands. w_k = E 2 h_k c_k, E a power of two with max_k |w_k| in [2^14, 2^15); wh_k = fp16(w_k).
//   y^ = F y, F = C / |y| up to rounding, C = 2^15, so |y^| <= C (F is smaller where a cap says so);
//   yh = fp16(y^). A product of the two has the unit 1 / (F E) nats: everything below is in it,
//   f = F E turns nats into it. So nothing overflows, and the bound of a component is one number for
//   all rows.
// Roundings. |yh - y^| <= eta C, eta = 2^-11 (1 + 2^-10) + sqrt(width) 2^-40: half a unit of fp16,
//   subnormals (2^-25 each), and the roundings of y and F y in fp32 (a few 2^-24).
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
// b_k is less what the largest of them is: that all have in common, and it would count in (4) for nothing, with 1.2
//   nats at d = 960. The roundings of both in double, 4e-15 of each, count beside gamma |b_k|.
// The bounds are stored as the largest of 8 neighbours, the lower bound's terms as the largest of a tile.
// In numbers: |y||c|/s2 = 140 nats (d = 128, components 90 nats apart) gives bound 0.12 nats.
//
// Squares. One variance may be a billionth of another, so norms over axes and scales over components say
//   nothing: each component has its own scale, each axis too, and the squares' error goes by the score.
//   a_j, a power of two near the geometric mean of sqrt h_kj over k, makes y_j = a_j (x_j - o_j) and takes
//   the same out of c and h; m_j <= h_kj for all k is taken out of h_kj: what is common to a row's scores.
//   w_k = E_k [2 h_k c_k, -(h_k - m) / R], rows [F y, F R y^2] with R = 2^-4, |F R y^2| <= C; E_k makes the
//   larger half's norm lie in [2^7, 2^15), in steps of 2^8 of which components alike have the same; E = max E_k,
//   e_k = E_k / E (2^-48 at least). A component's accumulator has the unit 1 / (F E_k), over e_k all the same.
//   The squares' products have one sign: their sum is T = F E_k sum_j (h_kj - m_j) y_j^2, and of it
//   T = y^ . w_k + F E_k b_k - S, S = F E_k s, so T <= C |w_k| + F E_k b_k - S (w: the linear half).
//   Their roundings are relative to each, but for what D' = |(|wh - w| - 2^-11 |w|)+|, measured, and 2^-25
//   of subnormals add: with c = 1.01 (1.002 2^-10 + gamma)
//   (5) |U~ - S| <= A_k + c (F E_k b_k - S),  U~ = yh . wh_k + F E_k b_k,
//       A_k = 1.002 C ((eta + gamma + c) |wh_k| + 2^-40 sqrt(width) |wh'_k| + D_k + D'_k) + gamma F E_k |b_k|
//   With bound_k = A_k but for its last term, base_k = (1 + c) b_k up by 1.01 gamma |b_k|, the sum
//   u = (f e_k base_k + bound_k + yh . wh_k) / e_k obeys
//   (6) (1 + c) s f <= u <= (1 - c) s f + gap_k,  gap_k = 2 bound_k / e_k + f (2 c b_k + 2.1 gamma |b_k|)
//   which is a score's upper bound u / (1 + c) and its lower one l / (1 - c), l = u - gap_k. So k may reach
//   L - margin where u_k >= kappa (l - margin f), kappa = (1 + c) / (1 - c) (margin: a little more than
//   needed). Of a hint's two u one may be as low and the other as high as (6) allows, so the
//   tensor cores' l is at least kappa l_cast - gap_k.
//   In numbers: 100 nats of sum h y^2 beyond the least of all components cost 0.1 nats.
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
constexpr float squares_ratio = 0x1.0p-4f;                 // R
constexpr int32_t most_own_scale = 48, own_scale_step = 8; // of -log2 e_k

FAISS_GMM_ON_BOTH constexpr double accumulation_error(int32_t width) {
    return (2.0 * width + 32.0) * 0x1.0p-23;
}

/// c
FAISS_GMM_ON_BOTH constexpr double squares_error(int32_t width) {
    return 1.01 * (0x1.008p-10 + accumulation_error(width));
}

/// kappa; of the other forms 1.
FAISS_GMM_ON_BOTH constexpr double stretch_of(CollectForm form, int32_t width) {
    return form == CollectForm::squares ? (1 + squares_error(width)) / (1 - squares_error(width))
                                        : 1.0;
}

/// Places in a tile's columns [collect_columns]. A thread of a quad has columns 8 j + 2 t + i of a
/// product; its 32 numbers stand together, and the four threads' in different banks.
constexpr int32_t column_pitch = collect_tile / 4 + 4;
constexpr int32_t column_base = 0;
constexpr int32_t column_quadratic = 4 * column_pitch; // squares: bound_k
constexpr int32_t column_bound = 8 * column_pitch;     // [collect_tile / 8]
constexpr int32_t column_errors =
        column_bound + collect_tile / 8; // 2 bound, then (4)'s other factors
constexpr int32_t column_error_bound = column_errors;
constexpr int32_t column_error_base = column_errors + 1;
constexpr int32_t column_error_quadratic = column_errors + 2;
constexpr int32_t column_largest_scale = column_errors; // squares: of e_k, and of 1 / e_k
constexpr int32_t column_largest_step = column_errors + 1;
static_assert(column_errors + 4 == collect_columns, "");

/// Places in a tile's own columns [collect_own_columns], each as those of the base; squares.
constexpr int32_t own_scale = 0;                   // e_k
constexpr int32_t own_gap = 4 * column_pitch;      // 2 bound_k / e_k
constexpr int32_t own_gap_base = 8 * column_pitch; // gap_k's factor of f
static_assert(12 * column_pitch == collect_own_columns, "");

/// Of tile `tile`, behind the columns of all.
FAISS_GMM_ON_BOTH inline const float* own_columns(const CollectModel& model, int32_t tile) {
    return model.columns + model.padded_K / collect_tile * collect_columns +
           tile * collect_own_columns;
}

/// Place of a tile's component among base and quadratic.
FAISS_GMM_ON_BOTH constexpr int32_t column_place(int32_t component) {
    return component % 8 / 2 * column_pitch + component / 8 * 2 + component % 2;
}

/// Places in CollectModel::scale.
enum CollectScale : int32_t {
    scale_operand,         ///< E
    scale_row_cap,         ///< largest F
    scale_norm_bits,       ///< largest norm, as bits of a float while it is being found
    scale_least_norm_bits, ///< squares
    scale_living,          ///< squares: components that live
    scale_origin_scores =
            8, ///< two integers of 64 bits: the largest and the least score at the origin
};
static_assert(scale_living < scale_origin_scores && scale_origin_scores + 4 <= collect_scales, "");
/// Behind them, squares: a_j [d], which begin as sums of logarithms, and m_j [d].

/// Where y^2 starts in an operand of the form `squares`.
FAISS_GMM_ON_BOTH constexpr int32_t squares_offset(int32_t d) {
    return (d + 7) / 8 * 8;
}

} // namespace faiss_gmm::cuda
