// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/detail/mixture_view.h"
#include "faiss_gmm/train/cuda/detail/rows.h"
#include "faiss_gmm/train/cuda/detail/segments.h"

namespace faiss_gmm::cuda {

/// Most candidates that a row's list may hold: one a lane.
constexpr int most_candidates = 32;

/// A row against its provisional home c.
struct AgainstHome {
    float square;   ///< |x - mu_c|^2; not diagonal
    float weighted; ///< sum_j hp_cj (x_j - mu_cj)^2
};

/// Rows of a wave and the candidates of each; device memory.
struct RowLists {
    Rows x; ///< [rows, d]
    int rows = 0;
    int capacity = 0;
    uint16_t* component =
            nullptr;          ///< [rows, capacity] ascending; weighing leaves the kept ones there
    uint8_t* count = nullptr; ///< [rows]; 0 or more than capacity: no list, the row goes elsewhere
    uint16_t* home = nullptr; ///< [rows] the best by the quick scores
    /// [rows] or null: sum of exp(l_k - l_home) of candidates that are not listed, by the quick scores: (7) of
    /// collect.h.
    const float* rest = nullptr;
    /// [rows, capacity] l_k - l_home of rows with several candidates (less the best's, where fp64 was needed);
    /// weighing leaves the kept ones' responsibilities there.
    float* share = nullptr;
    uint16_t* error = nullptr;      ///< [rows, capacity] bounds of them, upper halves of floats
    AgainstHome* against = nullptr; ///< [rows] with several candidates
};

/// What weighing leaves behind beside the segments' sums.
struct WeighOutput {
    SegmentSums sums;
    uint8_t* kept = nullptr; ///< [sorted rows] pairs of the row that are not in its segment's sums
    unsigned long long* shared_rows = nullptr; ///< [1] rows with r > 1 / K in a second component
    unsigned long long* bad_row = nullptr;     ///< [1] least number of a row with NaN or Inf
    float* weight = nullptr; ///< [sorted rows] scratch: what of the row is its provisional home's
};

/// Fills share, error and against. `order` [*ordered]: rows, neighbours of one home best.
void compare_candidates(
        const MixtureView& mixture,
        const RowLists& lists,
        const uint32_t* order,
        const int* ordered,
        cudaStream_t stream);

/// Phase 3 of a wave, after comparing: see weigh.cu. `order` [offset[groups]]: rows by block and home; a group is
/// block * K + component. Segments 0 to `segments` - 1 of the table are weighed: as many as there are, or a
/// multiple of 64.
void weigh(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        const uint32_t* order,
        const SegmentTable& table,
        int segments,
        unsigned long long first_row,
        const WeighOutput& out,
        cudaStream_t stream);

/// A row's share in a component.
struct RowShare {
    uint32_t row;
    float r;
};

/// Phase 4: sums of the other pairs, sorted by block and component; `segments` as in weigh().
void sum_pairs(
        const MixtureView& mixture,
        const Rows& x,
        const RowShare* pairs,
        const SegmentTable& table,
        int segments,
        const SegmentSums& out,
        cudaStream_t stream);

struct TopOutput {
    int32_t* component = nullptr;        ///< [rows, m]
    float* log_responsibility = nullptr; ///< [rows, m]
    float* squared_distance = nullptr;   ///< [rows, m]
};

/// Rows that are left to the exact tier; their order means nothing.
struct RowsLeft {
    uint32_t* row = nullptr; ///< [rows]
    int* count = nullptr;    ///< [1]
};

/// The best m components of each row whose list settles them; the lists hold the m best by the quick scores and, for
/// m = 1, all within the margin. No comparisons are needed.
void rank_candidates(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        const RowsLeft& left,
        const TopOutput& out,
        cudaStream_t stream);

} // namespace faiss_gmm::cuda
