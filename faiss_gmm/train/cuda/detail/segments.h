// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <algorithm>
#include <cstddef>

namespace faiss_gmm::cuda {

/// Rows of one group that one warp adds up, in order, before double precision takes over.
constexpr int segment_rows = 64;

/// Segments of a list of so many items at most, in so many groups.
inline size_t most_segments(size_t items, size_t groups) {
    return items / segment_rows + std::min(groups, items);
}

/// A sorted list cut into groups (the pairs of one block and component), and each group into
/// segments of `segment_rows`, from the group's first pair on: a segment holds the same pairs
/// whatever else is in the list. Where the first segments are done (skip_segments()) their numbers are
/// negative. Device memory.
struct SegmentTable {
    int groups = 0;
    const int* offset = nullptr; ///< [groups + 1] first pair of each group
    const int* first = nullptr;  ///< [groups + 1] first segment of each group; last: their number
};

/// What segments leave behind. Device memory.
struct SegmentSums {
    float* first_moment = nullptr;  ///< [segments, d] sum of r (x - mu)
    float* second_moment = nullptr; ///< [segments, d] sum of r (x - mu)^2; diagonal only
    double* mass = nullptr;         ///< [segments] sum of r
    double* moment = nullptr;       ///< [segments] sum of r |x - mu|^2; not diagonal
    double* log_likelihood =
            nullptr; ///< [segments] nats; null where pairs other than homes are summed
};

} // namespace faiss_gmm::cuda
