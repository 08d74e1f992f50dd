// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Candidates of a row on their way from the product to the output, the same for both tensor-core
// paths, whose accumulators have one layout: thread l of a warp holds, of 16 rows x 8 j columns,
// score[4 j + 2 h + i] = (row l / 4 + 8 h, column 8 j + 2 (l % 4) + i). So four threads, a quad, share a row.
//
// (1) harvest: largest U of the tile -> lower bound -> threshold of the row; what reaches it goes to
//     the thread's own part of the row's list: no atomics, no order between threads. One maximum a
//     score; a group of 8 scores is looked at one by one only where its largest reaches the threshold.
// (2) survey, where there is no hint or rank > 1: the same tiles before, for the threshold alone. For
//     rank > 1 each thread keeps the four largest of its groups' maxima: the smallest of a quad's
//     ceil(rank / 4)-th ones is a bound, for each stands for a component of its own.
// (3) tighten (rank > 1): the threshold from the list itself. A warp a row.
// (4) write_row: what reaches the last threshold, ascending. A thread a row.
// The lists are read by ordinary loads: those that skip L1 need not see the block's own stores.
// Lost: one list a row with atomics for places (latency in the products' shadow no longer hidden at 8
// candidates a row); pruning lists as they grow in place of a survey (43 ms for rank 16).

#include <math_constants.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"

namespace faiss_gmm::cuda {

constexpr int part_places = 32; // of a thread's part of a list; more than 31: the row overflows
constexpr int list_places = 4 * part_places;
constexpr uint8_t part_overflow = 255;
constexpr size_t part_bytes = part_places * sizeof(uint2);
static_assert(part_bytes == 256, "the low bits of an address say how full a part is");
constexpr int survey_largest = 4; // group maxima that a thread keeps: rank up to 16
static_assert(4 * survey_largest == collect_max_rank, "");

/// Lists of the rows of one row tile.
struct Lists {
    uint2* entry = nullptr; ///< [rows, 4, part_places] {U, component}; global memory, stays in L2
    uint32_t* counts = nullptr; ///< [rows] shared: four bytes, a part each
    float* threshold =
            nullptr; ///< [rows] shared: on the way in the start, on the way out the last one
};

/// Largest of a tile's error factors: lower bound of (4) in collect_bound.h.
struct Errors {
    float factor[3] = {0, 0, 0};
};

template <CollectForm form> __device__ inline float gap(const Errors& errors, float f, float q) {
    return bound_gap<form>(errors.factor, f, q);
}

/// The same for any tile of the model.
template <CollectForm form>
__device__ inline float largest_gap(const float* __restrict__ scale, float f, float q) {
    return bound_gap<form>(scale + scale_largest_errors, f, q);
}

__device__ inline float quad_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(all_lanes, value, 1));
    return fmaxf(value, __shfl_xor_sync(all_lanes, value, 2));
}
__device__ inline float quad_min(float value) {
    value = fminf(value, __shfl_xor_sync(all_lanes, value, 1));
    return fminf(value, __shfl_xor_sync(all_lanes, value, 2));
}

/// Largest of each group of 8 scores of row h.
template <int blocks>
__device__ inline void
group_maxima(const float (&score)[4 * blocks], int h, float (&largest)[blocks / 4]) {
#pragma unroll
    for (int g = 0; g < blocks / 4; ++g) {
        float m[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            m[j] = fmaxf(score[16 * g + 4 * j + 2 * h], score[16 * g + 4 * j + 2 * h + 1]);
        }
        largest[g] = fmaxf(fmaxf(m[0], m[1]), fmaxf(m[2], m[3]));
    }
}

template <int groups> __device__ inline float largest_of(const float (&largest)[groups]) {
    float all = largest[0];
#pragma unroll
    for (int g = 1; g < groups; ++g) {
        all = fmaxf(all, largest[g]);
    }
    return all;
}

/// Where a thread goes on in its part of one row's list. Parts begin at multiples of their size.
struct Part {
    uint2* next;
    bool overflows;

    __device__ void begin(uint2* part) {
        next = part;
        overflows = false;
    }
    __device__ uint32_t count() const {
        return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(next)) % part_bytes /
               sizeof(uint2);
    }
    __device__ uint8_t byte() const {
        return overflows ? part_overflow : static_cast<uint8_t>(count());
    }
    /// Predicated, without a branch: the compiler would make one of each.
    __device__ void add_if_reached(float score, float threshold, uint32_t k) {
        asm volatile("{\n"
                     ".reg .pred reached;\n"
                     "setp.ge.f32 reached, %1, %2;\n"
                     "@reached st.global.v2.b32 [%0], {%3, %4};\n"
                     "@reached add.u64 %0, %0, 8;\n"
                     "}"
                     : "+l"(next)
                     : "f"(score), "f"(threshold), "r"(__float_as_uint(score)), "r"(k)
                     : "memory");
    }
};

/// (1) for 16 rows of a warp; `first` is the tile's first component.
template <CollectForm form, bool many, int blocks>
__device__ inline void
harvest(const float (&score)[4 * blocks],
        uint32_t first,
        const Errors& errors,
        float margin,
        const float (&f)[2],
        const float (&q)[2],
        float (&threshold)[2],
        Part (&part)[2]) {
    constexpr int groups = blocks / 4;
    float largest[2][groups], mine[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        group_maxima<blocks>(score, h, largest[h]);
        mine[h] = largest_of(largest[h]);
    }
    if (!many) {
        const float of_quad[2] = {quad_max(mine[0]), quad_max(mine[1])};
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float below = fmaf(margin, f[h], gap<form>(errors, f[h], q[h]));
            // fmaxf drops the NaN of a row of no use: its threshold stays closed.
            threshold[h] = fmaxf(threshold[h], of_quad[h] - below);
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        if (mine[h] >= threshold[h]) {
            const uint32_t column = first + 2 * (threadIdx.x % 4);
#pragma unroll
            for (int g = 0; g < groups; ++g) {
                if (largest[h][g] >= threshold[h]) {
                    if (part[h].count() >= part_places - 8) {
                        part[h].overflows = true;
                    } else {
#pragma unroll
                        for (int c = 0; c < 8; ++c) {
                            part[h].add_if_reached(
                                    score[16 * g + c / 2 * 4 + 2 * h + c % 2],
                                    threshold[h],
                                    column + 32 * g + c / 2 * 8 + c % 2);
                        }
                    }
                }
            }
        }
        __syncwarp();
    }
}

/// (2) What a survey has seen of two rows.
template <bool many> struct Survey {
    float largest[2][many ? survey_largest : 1];

    __device__ void begin() {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
            for (float& value : largest[h]) {
                value = -CUDART_INF_F;
            }
        }
    }
    template <int blocks> __device__ void see(const float (&score)[4 * blocks]) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float of_groups[blocks / 4];
            group_maxima<blocks>(score, h, of_groups);
#pragma unroll
            for (int g = 0; g < blocks / 4; ++g) { // one kept: the maximum
                float value = of_groups[g];
#pragma unroll
                for (float& kept : largest[h]) {
                    const float smaller = fminf(kept, value);
                    kept = fmaxf(kept, value);
                    value = smaller;
                }
            }
        }
    }
    /// So many components' U are at least this.
    __device__ float bound(int h, int rank) const {
        if (!many) {
            return quad_max(largest[h][0]);
        }
        const int place = (rank - 1) / 4;
        float own = largest[h][0];
#pragma unroll
        for (int i = 1; i < (many ? survey_largest : 1); ++i) {
            own = i == place ? largest[h][i] : own;
        }
        return quad_min(own);
    }
};

__device__ inline bool part_holds(uint32_t counts, int part, int place) {
    return place < static_cast<int>(counts >> (8 * part) & 0xff);
}

__device__ inline bool any_part_overflows(uint32_t counts) {
    return (__vcmpeq4(counts, 0xffffffffu) != 0);
}

/// (3) by a whole warp: the rank-th largest U of the list, less the gap, is a threshold too.
__device__ inline void tighten(const Lists& lists, int row, int rank, float gap_and_margin) {
    constexpr int own = list_places / 32;
    const int lane = threadIdx.x % 32;
    const uint32_t counts = lists.counts[row];
    const float threshold = lists.threshold[row];
    if (any_part_overflows(counts) || threshold == closed) {
        return;
    }
    const uint2* entries = lists.entry + static_cast<size_t>(row) * list_places;
    float mine[own];
    int larger[own]; // or equal and before: what comes to stand at rank - 1 is one of equals
#pragma unroll
    for (int o = 0; o < own; ++o) {
        const int place = 32 * o + lane;
        mine[o] = part_holds(counts, place / part_places, place % part_places)
                          ? __uint_as_float(entries[place].x)
                          : -CUDART_INF_F;
        larger[o] = 0;
    }
#pragma unroll
    for (int o = 0; o < own; ++o) {
#pragma unroll 4
        for (int l = 0; l < 32; ++l) {
            const float value = __shfl_sync(all_lanes, mine[o], l);
#pragma unroll
            for (int p = 0; p < own; ++p) {
                larger[p] += value > mine[p] || (value == mine[p] && 32 * o + l < 32 * p + lane);
            }
        }
    }
    float at_rank = -CUDART_INF_F;
#pragma unroll
    for (int o = 0; o < own; ++o) {
        at_rank = larger[o] == rank - 1 ? mine[o] : at_rank;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        at_rank = fmaxf(at_rank, __shfl_xor_sync(all_lanes, at_rank, step));
    }
    __syncwarp();
    if (lane == 0) {
        lists.threshold[row] = fmaxf(threshold, at_rank - gap_and_margin);
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

/// Calls visit(U, component) for what reaches the threshold.
template <class Visit>
__device__ inline void
for_each_candidate(const uint2* entries, uint32_t counts, float threshold, const Visit& visit) {
#pragma unroll 1
    for (int part = 0; part < 4; ++part) {
        const int count = static_cast<int>(counts >> (8 * part) & 0xff);
        const uint2* own = entries + part * part_places;
#pragma unroll 1
        for (int e = 0; e < count; e += 2) { // two loads in flight
            const uint2 pair[2] = {own[e], own[e + 1 < count ? e + 1 : e]};
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                if (e + p < count && __uint_as_float(pair[p].x) >= threshold) {
                    visit(__uint_as_float(pair[p].x), pair[p].y);
                }
            }
        }
    }
}

/// (4) for row i of the output, from row `row` of the lists.
__device__ inline void
write_row(const CollectOutput& output, int64_t i, const Lists& lists, int row) {
    constexpr int in_registers = 16;
    const int capacity = output.capacity;
    const float threshold = lists.threshold[row];
    const uint32_t counts = lists.counts[row];
    int kept = 0;
    float best_value = -CUDART_INF_F;
    uint32_t best = 0;
    if (any_part_overflows(counts) || threshold == closed) {
        kept = capacity + 1;
    } else {
        const uint2* entries = lists.entry + static_cast<size_t>(row) * list_places;
        Ascending<in_registers> ascending;
        for_each_candidate(entries, counts, threshold, [&](float value, uint32_t k) {
            ascending.insert(k);
            ++kept;
            if (value > best_value || (value == best_value && k < best)) {
                best_value = value;
                best = k;
            }
        });
        uint16_t* target = output.component + i * capacity;
        if (kept > capacity) {
            kept = capacity + 1;
        } else if (capacity == in_registers) {
            ascending.write(target);
        } else {
            // A component's place is the number of smaller ones.
            for_each_candidate(entries, counts, threshold, [&](float, uint32_t k) {
                int place = 0;
                for_each_candidate(entries, counts, threshold, [&](float, uint32_t other) {
                    place += other < k;
                });
                target[place] = static_cast<uint16_t>(k);
            });
        }
    }
    output.count[i] = static_cast<uint8_t>(kept);
    if (output.best != nullptr) {
        output.best[i] = static_cast<uint16_t>(best);
    }
}

} // namespace faiss_gmm::cuda
