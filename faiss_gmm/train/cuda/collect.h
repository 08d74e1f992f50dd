// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Which components can matter for a row: fp16 tensor-core scores with a proven bound of their error,
// listed where they reach the row's threshold. No n x K matrix exists.
//   y = x - o (o: any fixed point near the data), c_k = mu_k - o
//   (1) linear     s_ik = y . 2 h c_k + b_k                 tied_spherical; h = 1 / (2 s2)
//   (2) quadratic  s_ik = y . 2 h_k c_k - h_k |y|^2 + b_k   spherical
//   (3) squares    s_ik = [y, y^2] . [2 h_k c_k, m - h_k] + b_k   diagonal; b_k = constant_k - h_k c_k^2,
//       m_j = min_k h_kj
//   Each is the log-joint up to a constant of the row, in nats; the largest b_k is 0.
//   (4) U_ik >= s_ik >= L_ik, computed from fp16 operands; head card and proof in collect_bound.h.
//   (5) k is a candidate of row i if U_ik >= (rank-th largest L_ij over j) - margin. Those are listed.
//   (6) For rank > 1 the fast paths list more: in the place of the rank-th largest L stands the rank-th
//       largest of those that a survey keeps: the largest of groups of components, and of these some. What
//       (5) would drop of that list, rescoring drops too.
//   (7) Where `rest` is asked for (linear, rank 1), of (5) only those with U_ik >= (largest L_ij) - significant are
//       listed. What is left is so little that the quick scores do for it:
//         rest_i = sum of exp(U_ik - U_ib) over the others of (5), b = best,
//       off by at most (e^G - 1) rest_i, G the largest gap U - L of the row's candidates (the fast paths: of
//       all components) and 2^-38 for each. Where that is more than most_rest_error, (5) is listed and the rest is 0.
// Rows go in waves through three steps: cast into the operand's form, with a threshold from the hint;
// where there is none, a survey of all scores for the threshold; the scores again, of which those are
// listed that reach it. On Hopper the survey may list rows of one candidate itself, for rank 1, and only the
// others' scores come again, those of all waves at once where they are few. A threshold that is too low, a
// hint's or of a survey that lists, makes entries that (5) drops in the end, so a list depends on the row, the
// model and the path alone: not on n, the place of the row, the number of multiprocessors, the run or the hint
// (but that such a threshold may let a list overflow on its way).
// Implementations of one contract, by `CollectPath`: collect_plain.cu (reference: read this one),
// collect_mma.cu (compute capability 8.0 and later), collect_wgmma.cu (9.0a); the latter two with
// collect_cast.cu and detail/collect_tile.cuh.
// Test: tests/train/cuda/collect_test.cu.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace faiss_gmm::cuda {

using Stream = CUstream_st*;

enum class CollectForm : int32_t {
    linear,    ///< one variance: (1)
    quadratic, ///< one variance a component: (2)
    squares,   ///< one variance a component and dimension: (3)
};

enum class CollectPath : int32_t { plain, portable, hopper };

enum class ElementType : int32_t { f32, f16, bf16, u8, i8 };

/// The model in the form the pass reads; made by prepare_collect_model(). Device memory.
struct CollectModel {
    CollectForm form = CollectForm::linear;
    int32_t K = 0;        ///< components, 1 to 65,536
    int32_t d = 0;        ///< dimensions of a row, 1 to 2,048
    int32_t padded_K = 0; ///< K up to a multiple of collect_tile
    int32_t width = 0; ///< columns of the operand that are used: d, or 2 * (d up to 8) for squares
    int32_t padded_width = 0;    ///< width up to a multiple of 16
    uint16_t* operand = nullptr; ///< fp16 [padded_K, padded_width], scaled; zeros in the padding
    /// [padded_K / collect_tile, collect_columns], squares: and [.., collect_own_columns]; collect_bound.h
    float* columns = nullptr;
    float* scale = nullptr;        ///< [collect_scales], squares: and a_j [d], m_j [d]
    float stretch = 1;             ///< kappa of collect_bound.h
    const float* origin = nullptr; ///< [d], the caller's
};

constexpr int32_t collect_tile = 128; ///< components of a tile
/// A tile's floats: base [4, 36], quadratic (squares: bound) [4, 36], bound [16], largest {bound, base,
/// quadratic} errors and one of padding; squares: own [3, 4, 36]. Places in collect_bound.h.
constexpr int32_t collect_columns = 8 * (collect_tile / 4 + 4) + collect_tile / 8 + 4;
constexpr int32_t collect_own_columns = 12 * (collect_tile / 4 + 4);
constexpr int32_t collect_scales = 16;
constexpr int32_t collect_max_capacity = 32;
constexpr int32_t collect_max_rank = 16;
constexpr float most_rest_error = 3.4e-5f;
constexpr float least_significant = 11.1f; ///< sums of a list's places fit an integer of 2^-38

/// The numbers of a model, without its arrays.
CollectModel collect_model_shape(CollectForm form, int64_t K, int64_t d);

/// Bytes that prepare_collect_model() fills, for the caller to allocate (256-byte aligned).
struct CollectModelBytes {
    size_t operand = 0, columns = 0, scale = 0;
};
CollectModelBytes collect_model_bytes(const CollectModel& shape);

/// The mixture's parameters, device memory, as the caller's exact scores use them: the log-joint of x
/// and k is constant[k] - sum_j half_precision (x_j - mu_kj)^2.
struct CollectModelSource {
    CollectForm form = CollectForm::linear;
    int64_t K = 0, d = 0;
    const float* means = nullptr;     ///< [K, d]
    const float* origin = nullptr;    ///< [d]; must live as long as the model
    const double* constant = nullptr; ///< [K]; -infinity: never a candidate
    const double* half_precision =
            nullptr; ///< 1 / (2 s2): linear [1], quadratic [K], squares [K, d]
};

/// Fills operand, columns and scale (allocated by the caller) and the other fields; a few small
/// kernels in double precision, no host synchronisation.
void prepare_collect_model(const CollectModelSource& source, CollectModel& model, Stream stream);

struct CollectInput {
    const void* rows = nullptr; ///< [n, d], row-major, device; aligned to its element type
    ElementType type = ElementType::f32;
    int64_t n = 0;
    /// [n] or null: a component believed to be the row's best (its last home), which saves the survey;
    /// any value below K is correct. May be `best` of the output. Not used for rank > 1.
    const uint16_t* hint = nullptr;
    float margin = 0;      ///< nats, >= 0
    int32_t rank = 1;      ///< (5); 1 for an E-step, m for top m; at most collect_max_rank
    float significant = 0; ///< (7) nats, least_significant or more; where `rest` is asked for
};

struct CollectOutput {
    uint16_t* component = nullptr; ///< [n, capacity], ascending; past the count undefined
    uint8_t* count = nullptr;      ///< [n]; capacity + 1: overflow, the row's list is undefined
    /// [n] or null: component of the largest U_ik; of a row of no use any below K. Not written for rank > 1.
    uint16_t* best = nullptr;
    float* rest = nullptr; ///< [n] (7), of rows with a list; null: all of (5) are listed
    int32_t capacity = 16; ///< a multiple of 8, at most collect_max_capacity
};

/// Scratch that one call of collect_candidates needs on the current device, on a multiple of 256
/// bytes as cudaMalloc gives it; it does not depend on n. 70 to 180 MiB on 132 multiprocessors.
size_t collect_workspace_bytes(const CollectModel& shape, CollectPath path);

/// Of the current device.
int compute_capability_major();

/// hopper on compute capability 9, else portable.
CollectPath best_collect_path(int major);

/// Asynchronous; the workspace must not be shared with a call that may run at the same time. Rows
/// whose |x - o|^2 is not finite in fp32 (NaN and infinity among them) overflow.
/// Throws Error if the launch fails.
void collect_candidates(
        const CollectModel& model,
        const CollectInput& input,
        const CollectOutput& output,
        CollectPath path,
        void* workspace,
        Stream stream);

} // namespace faiss_gmm::cuda
