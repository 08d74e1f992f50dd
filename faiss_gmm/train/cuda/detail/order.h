// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/detail/segments.h"
#include "faiss_gmm/train/cuda/detail/weigh.h"

namespace faiss_gmm::cuda {

/// How rows of a wave are cut: a group is block * K + component.
struct Grouping {
    int K = 0;
    int block_rows = 0;
    int blocks = 0;
    int groups() const {
        return blocks * K;
    }
    /// Keys of rows without a list: of the dense tier by block, then those of the exact tier.
    int left_keys() const {
        return blocks + 1;
    }
};

/// Where a list's groups begin; device memory.
struct GroupArrays {
    int* offset = nullptr; ///< [groups + left_keys + 1], the last ones of rows without a list
    int* first = nullptr;  ///< [groups + 1]
};

/// Scratch for sorting up to `items` and scanning up to `scanned` numbers.
size_t order_scratch_bytes(int items, int scanned);

struct Scratch {
    void* data = nullptr;
    size_t bytes = 0;
};

/// Adds the entries of all lists to `candidates` [1].
void count_candidates(const RowLists& lists, unsigned long long* candidates, cudaStream_t stream);

/// Rows sorted by block and home; rows without a list come last, in order: those of the dense tier
/// (count dense_row) by block from offset[groups + block] on, the others from offset[groups + blocks].
/// `keys` and `rows`: [2, lists.rows], each its own scratch; returns the sorted row numbers.
const uint32_t* order_rows(
        const RowLists& lists,
        const Grouping& grouping,
        uint32_t* keys,
        uint32_t* rows,
        const GroupArrays& groups,
        Scratch scratch,
        cudaStream_t stream);

/// first_pair [sorted rows + 1]: exclusive sums of `kept`; rows without a list have none.
void place_pairs(
        const uint8_t* kept,
        int rows,
        const int* sorted_rows,
        int* first_pair,
        Scratch scratch,
        cudaStream_t stream);

/// Pairs that weighing has kept in the lists, in the order of their rows.
struct KeptPairs {
    RowLists lists;
    Grouping grouping;
    const uint32_t* order = nullptr; ///< [sorted_rows]
    const uint8_t* kept = nullptr;   ///< [sorted_rows]
    int sorted_rows = 0;             ///< with a list; at least 1
};

/// Groups begin .. end - 1.
struct GroupRange {
    int begin = 0, end = 0;
};

/// How many pairs each group has: of_group [groups].
void count_pairs(const KeptPairs& pairs, int* of_group, cudaStream_t stream);

/// first_pair [sorted_rows]: as place_pairs(), of the range's pairs alone.
void place_pairs_of(
        const KeptPairs& pairs,
        const GroupRange& range,
        int* first_pair,
        Scratch scratch,
        cudaStream_t stream);

/// The range's pairs side by side, where first_pair says.
void gather_pairs(
        const KeptPairs& pairs,
        const GroupRange& range,
        const int* first_pair,
        uint32_t* keys,
        RowShare* out,
        cudaStream_t stream);

/// Pairs sorted by group, stable. `keys` and `pairs`: [2, count]; returns the sorted ones.
const RowShare* order_pairs(
        int count,
        const Grouping& grouping,
        size_t half, ///< where the second halves of keys and pairs begin
        uint32_t* keys,
        RowShare* pairs,
        const GroupArrays& groups,
        Scratch scratch,
        cudaStream_t stream);

/// What a pass adds up; device memory, fp64.
struct PassSums {
    double* first_moment = nullptr;   ///< [K, d]
    double* second_moment = nullptr;  ///< [K, d]; diagonal only
    double* mass = nullptr;           ///< [K]
    double* moment = nullptr;         ///< [K]; not diagonal
    double* log_likelihood = nullptr; ///< [K]
};

/// A table whose segments before `count` are done: numbers from there on count from 0.
void skip_segments(const GroupArrays& groups, int group_count, int count, cudaStream_t stream);

/// Phase 4's end: adds the sums of the table's segments 0 to `segments` - 1 to the pass's, block by block,
/// segment by segment.
void add_segments(
        const Grouping& grouping,
        int d,
        const SegmentTable& table,
        int segments,
        const SegmentSums& of_segments,
        const PassSums& sums,
        cudaStream_t stream);

} // namespace faiss_gmm::cuda
