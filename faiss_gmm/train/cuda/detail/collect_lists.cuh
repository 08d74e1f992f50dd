// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Candidates of a row on their way from the product to the output, the same for both tensor-core
// paths, whose accumulators have one layout: thread l of a warp holds, of 16 rows x 8 j columns,
// score[4 j + 2 h + i] = (row l / 4 + 8 h, column 8 j + 2 (l % 4) + i).
//
// (1) harvest: largest U of the tile -> lower bound -> threshold of the row; what reaches it goes to
//     the row's list (unordered, too long by what later tiles rule out). One maximum a score; a group of
//     columns is looked at one by one only where its largest reaches the threshold.
// (2) prune (rank > 1 only): the threshold from the list itself, the list cut to it.
// (3) write_row: what reaches the last threshold, ascending. One thread a row.
// A list's order depends on the race for places; its contents, and so all output, does not.

#include <cfloat>

#include <math_constants.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"

namespace faiss_gmm::cuda {

constexpr int list_places = 96; // of a row's list; more: the row overflows
constexpr int prune_from = 32;  // entries of a list

/// Lists of the rows of one row tile.
struct Lists {
    uint2* entry = nullptr;       ///< [rows, list_places] {U, component}; global memory, stays in L2
    uint32_t* count = nullptr;    ///< [rows] shared
    float* threshold = nullptr;   ///< [rows] shared: on the way in the start, on the way out the last one
};

/// Largest of a tile's error factors: lower bound of (4) in collect_bound.h.
struct Errors {
    float factor[3] = {0, 0, 0};
};

template <CollectForm form> __device__ inline float gap(const Errors& errors, float f, float q) {
    return bound_gap<form>(errors.factor, f, q);
}

/// A row whose start is this collects nothing.
constexpr float closed = FLT_MAX;
constexpr float open = -FLT_MAX; // above the -infinity of padding

__device__ inline float quad_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(all_lanes, value, 1));
    return fmaxf(value, __shfl_xor_sync(all_lanes, value, 2));
}
__device__ inline float quad_min(float value) {
    value = fminf(value, __shfl_xor_sync(all_lanes, value, 1));
    return fminf(value, __shfl_xor_sync(all_lanes, value, 2));
}

__device__ inline void list_scores(
        const float (&score)[8], float threshold, uint32_t column, const Lists& lists, int row) {
    uint32_t reached = 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
        reached |= score[c] >= threshold ? 1u << c : 0u;
    }
    uint32_t place = atomicAdd(&lists.count[row], __popc(reached));
#pragma unroll 1
    while (reached != 0) {
        const int c = __ffs(reached) - 1;
        reached &= reached - 1;
        float value = score[0];
#pragma unroll
        for (int other = 1; other < 8; ++other) {
            value = other == c ? score[other] : value;
        }
        if (place < list_places) {
            lists.entry[static_cast<size_t>(row) * list_places + place] =
                    make_uint2(__float_as_uint(value), column + (c >> 1) * 8 + (c & 1));
        }
        ++place;
    }
}

/// (1) for 16 rows of a warp; `row` the thread's first (of h = 0), `first` the tile's first component.
template <CollectForm form, int blocks>
__device__ inline void harvest(
        const float (&score)[4 * blocks],
        uint32_t first,
        const Errors& errors,
        float margin,
        int rank,
        const float (&f)[2],
        const float (&q)[2],
        float (&threshold)[2],
        const Lists& lists,
        int row) {
    constexpr int groups = blocks / 4;
    const uint32_t column = first + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float largest[groups];
#pragma unroll
        for (int g = 0; g < groups; ++g) {
            float m[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                m[j] = fmaxf(score[16 * g + 4 * j + 2 * h], score[16 * g + 4 * j + 2 * h + 1]);
            }
            largest[g] = fmaxf(fmaxf(m[0], m[1]), fmaxf(m[2], m[3]));
        }
        float mine = largest[0];
#pragma unroll
        for (int g = 1; g < groups; ++g) {
            mine = fmaxf(mine, largest[g]);
        }
        float reached = rank == 1 ? quad_max(mine) : CUDART_NAN_F;
        if (rank > 1 && first == 0) {
            // So many groups have a component each that is at least the smallest of their maxima.
            float smallest = mine;
            if (rank > 4) {
#pragma unroll
                for (int g = 0; g < groups; ++g) {
                    smallest = fminf(smallest, largest[g]);
                }
            }
            smallest = quad_min(smallest);
            reached = rank <= 4 * groups ? smallest : CUDART_NAN_F;
        }
        // fmaxf drops NaN: the threshold stays (rows of no use too).
        threshold[h] =
                fmaxf(threshold[h], reached - fmaf(margin, f[h], gap<form>(errors, f[h], q[h])));
        if (mine >= threshold[h]) {
#pragma unroll
            for (int g = 0; g < groups; ++g) {
                if (largest[g] >= threshold[h]) {
                    const float of_group[8] = {
                            score[16 * g + 2 * h],
                            score[16 * g + 2 * h + 1],
                            score[16 * g + 4 + 2 * h],
                            score[16 * g + 4 + 2 * h + 1],
                            score[16 * g + 8 + 2 * h],
                            score[16 * g + 8 + 2 * h + 1],
                            score[16 * g + 12 + 2 * h],
                            score[16 * g + 12 + 2 * h + 1]};
                    list_scores(of_group, threshold[h], column + 32 * g, lists, row + 8 * h);
                }
            }
        }
        __syncwarp();
    }
}

/// (2) for one row, by a whole warp: the rank-th largest U of the list, less the gap, is a threshold.
__device__ inline void prune(const Lists& lists, int row, int rank, float gap_and_margin) {
    constexpr int own = list_places / 32;
    const int lane = threadIdx.x % 32;
    const int count = static_cast<int>(lists.count[row]);
    if (count > list_places || count < rank) {
        return;
    }
    uint2* entries = lists.entry + static_cast<size_t>(row) * list_places;
    uint2 mine[own];
    int larger[own];
#pragma unroll
    for (int o = 0; o < own; ++o) {
        const int place = 32 * o + lane;
        mine[o] = place < count ? __ldcg(&entries[place])
                                : make_uint2(__float_as_uint(-CUDART_INF_F), 0xffffffffu - place);
        larger[o] = 0;
    }
#pragma unroll
    for (int o = 0; o < own; ++o) {
#pragma unroll 1
        for (int l = 0; l < 32; ++l) {
            const float value = __shfl_sync(all_lanes, __uint_as_float(mine[o].x), l);
            const uint32_t k = __shfl_sync(all_lanes, mine[o].y, l);
#pragma unroll
            for (int p = 0; p < own; ++p) {
                const float own_value = __uint_as_float(mine[p].x);
                larger[p] += value > own_value || (value == own_value && k < mine[p].y);
            }
        }
    }
    float at_rank = -CUDART_INF_F;
#pragma unroll
    for (int o = 0; o < own; ++o) {
        at_rank = larger[o] == rank - 1 ? __uint_as_float(mine[o].x) : at_rank;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        at_rank = fmaxf(at_rank, __shfl_xor_sync(all_lanes, at_rank, step));
    }
    const float threshold = fmaxf(lists.threshold[row], at_rank - gap_and_margin);
    int kept = 0;
#pragma unroll
    for (int o = 0; o < own; ++o) {
        const bool keep = __uint_as_float(mine[o].x) >= threshold;
        const unsigned keeping = __ballot_sync(all_lanes, keep);
        if (keep) {
            entries[kept + __popc(keeping & ((1u << lane) - 1))] = mine[o];
        }
        kept += __popc(keeping);
    }
    __syncwarp(); // all have read the old threshold
    if (lane == 0) {
        lists.count[row] = kept;
        lists.threshold[row] = threshold;
    }
    __syncwarp();
}

/// Components that wait for their place, ascending; a register each.
template <int capacity> struct Ascending {
    uint32_t k[capacity];
    __device__ Ascending() {
#pragma unroll
        for (int i = 0; i < capacity; ++i) {
            k[i] = 0xffffu;
        }
    }
    /// The largest falls out when there are too many.
    __device__ void insert(uint32_t value) {
#pragma unroll
        for (int i = 0; i < capacity; ++i) {
            const uint32_t smaller = min(k[i], value);
            value = max(k[i], value);
            k[i] = smaller;
        }
    }
    __device__ void write(uint16_t* target) const {
        uint4* out = reinterpret_cast<uint4*>(target);
#pragma unroll
        for (int i = 0; i < capacity; i += 8) {
            out[i / 8] = make_uint4(
                    k[i] | k[i + 1] << 16,
                    k[i + 2] | k[i + 3] << 16,
                    k[i + 4] | k[i + 5] << 16,
                    k[i + 6] | k[i + 7] << 16);
        }
    }
};

/// Capacities beyond the registers': a component's place is the number of smaller ones that stay.
__device__ inline void
write_long_row(const uint2* entries, int count, float threshold, uint16_t* target, int capacity) {
    for (int e = 0; e < count; ++e) {
        const uint2 entry = __ldcg(&entries[e]);
        int place = __uint_as_float(entry.x) >= threshold ? 0 : capacity;
        for (int other = 0; other < count && place < capacity; ++other) {
            const uint2 against = __ldcg(&entries[other]);
            place += __uint_as_float(against.x) >= threshold && against.y < entry.y;
        }
        if (place < capacity) {
            target[place] = static_cast<uint16_t>(entry.y);
        }
    }
}

/// (3) for row i of the output, from row `row` of the lists.
__device__ inline void
write_row(const CollectOutput& output, int64_t i, const Lists& lists, int row) {
    constexpr int in_registers = 16;
    const int capacity = output.capacity;
    const float threshold = lists.threshold[row];
    const int count = static_cast<int>(lists.count[row]);
    int kept = 0;
    float best_value = -CUDART_INF_F;
    uint32_t best = 0;
    if (count > list_places || threshold == closed) {
        kept = capacity + 1;
    } else {
        const uint2* entries = lists.entry + static_cast<size_t>(row) * list_places;
        Ascending<in_registers> ascending;
#pragma unroll 1
        for (int e = 0; e < count; e += 2) {
            const uint2 pair[2] = {
                    __ldcg(&entries[e]), __ldcg(&entries[e + 1 < count ? e + 1 : e])};
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                const float value = __uint_as_float(pair[p].x);
                if (e + p < count && value >= threshold) {
                    ascending.insert(pair[p].y);
                    ++kept;
                    if (value > best_value || (value == best_value && pair[p].y < best)) {
                        best_value = value;
                        best = pair[p].y;
                    }
                }
            }
        }
        uint16_t* target = output.component + i * capacity;
        if (kept > capacity) {
            kept = capacity + 1;
        } else if (capacity == in_registers) {
            ascending.write(target);
        } else {
            write_long_row(entries, count, threshold, target, capacity);
        }
    }
    output.count[i] = static_cast<uint8_t>(kept);
    if (output.best != nullptr) {
        output.best[i] = static_cast<uint16_t>(best);
    }
}

} // namespace faiss_gmm::cuda
