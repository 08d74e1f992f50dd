// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What a warp does with the scores of 16 rows and a tile's 128 components, the same for both kinds of
// tensor-core products, whose accumulators have one layout: lane l holds
//   score[4 j + 2 h + i] = (row l / 4 + 8 h, column 8 j + 2 (l % 4) + i), so four lanes, a quad, share a row.
//
// (1) start_scores: what the accumulators begin with, so that the product leaves U there.
// (2) list_candidates: the sign of each score's distance to the row's threshold. No maxima, no branch
//     but where something is listed; a row's places are given out by a counter in shared memory, so
//     entries come in any order. A row with too many only looks for its best from then on.
// (3) write_lists: what lies within the margin of the largest L, ascending. So a threshold that is too
//     low (the hint's) costs places on the way, but changes no list that fits.
// (4) Survey: thresholds, where no hint gives one or rank > 1. For rank > 1 each lane keeps the four
//     largest of its groups' maxima: the smallest of a quad's ceil(rank / 4)-th ones is a bound, for
//     each stands for a component of its own.
// Lost: running maxima that raise the threshold from tile to tile, instead of a survey or a hint: lists
//     of thousands of components overflow before the row's home is seen, and a maximum a score is dearer
//     than a sign. A sum of saturated distances for eight scores at once, signs only where it is not zero:
//     8% more time, 16% on `overlap`.

#include <math_constants.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"
#include "faiss_gmm/train/cuda/detail/warp.cuh"

namespace faiss_gmm::cuda {

constexpr int survey_largest = 4; ///< group maxima that a lane keeps: rank up to 16
static_assert(4 * survey_largest == collect_max_rank, "");
static_assert(list_places == 64, "two entries a lane");

__device__ inline float quad_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(whole_warp, value, 1));
    return fmaxf(value, __shfl_xor_sync(whole_warp, value, 2));
}
__device__ inline float quad_min(float value) {
    value = fminf(value, __shfl_xor_sync(whole_warp, value, 1));
    return fminf(value, __shfl_xor_sync(whole_warp, value, 2));
}

/// Numbers of a lane's two rows.
struct TwoRows {
    float f[2], q[2], threshold[2];

    /// Rows `first` and first + 8 of the wave.
    __device__ void load(const CollectWave& wave, int first) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = first + 8 * h;
            const bool there = row < wave.rows;
            f[h] = there ? wave.f[row] : 1.0f;
            q[h] = there ? wave.q[row] : 0.0f;
            threshold[h] = there ? wave.threshold[row] : closed;
        }
    }
};

__device__ inline float4 load_four_columns(const float* from) {
    return *reinterpret_cast<const float4*>(from);
}

/// (1). `columns` is aligned to 16 bytes.
template <CollectForm form>
__device__ inline void start_scores(const float* columns, const TwoRows& rows, float (&score)[64]) {
    const int own = threadIdx.x % 4 * column_pitch;
    const auto four = load_four_columns;
    constexpr bool with_quadratic = form != CollectForm::linear; // of squares: their bounds
#pragma unroll
    for (int j4 = 0; j4 < 4; ++j4) {
        const float4 bounds = form == CollectForm::squares ? float4{0, 0, 0, 0}
                                                           : four(columns + column_bound + 4 * j4);
        const float bound[4] = {bounds.x, bounds.y, bounds.z, bounds.w};
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            const int at = own + 8 * j4 + 4 * pair;
            const float4 bases = four(columns + column_base + at);
            const float base[4] = {bases.x, bases.y, bases.z, bases.w};
            float quadratic[4] = {0, 0, 0, 0};
            if (with_quadratic) {
                const float4 quadratics = four(columns + column_quadratic + at);
                quadratic[0] = quadratics.x;
                quadratic[1] = quadratics.y;
                quadratic[2] = quadratics.z;
                quadratic[3] = quadratics.w;
            }
#pragma unroll
            for (int one = 0; one < 2; ++one) {
                const int j = 4 * j4 + 2 * pair + one;
#pragma unroll
                for (int h = 0; h < 2; ++h) {
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const float addend = form == CollectForm::squares ? quadratic[2 * one + i]
                                                                          : bound[2 * pair + one];
                        float start = fmaf(base[2 * one + i], rows.f[h], addend);
                        if (form == CollectForm::quadratic) {
                            start = fmaf(-quadratic[2 * one + i], rows.q[h], start);
                        }
                        score[4 * j + 2 * h + i] = start;
                    }
                }
            }
        }
    }
}

/// Which of row h's scores are below `threshold`: bit 31 - c for column number c = 2 j + i of the lane.
__device__ inline uint32_t scores_below(const float (&score)[64], int h, float threshold) {
    uint32_t mask = 0;
#pragma unroll
    for (int c = 0; c < 32; ++c) {
        const float above = score[c / 2 * 4 + 2 * h + c % 2] - threshold;
        mask = __funnelshift_l(__float_as_uint(above), mask, 1);
    }
    return mask;
}

/// The same of scores in their components' own units; `own`: the lane's [32] of e_k.
__device__ inline uint32_t
own_scores_below(const float (&score)[64], int h, float threshold, const float* own) {
    uint32_t mask = 0;
#pragma unroll
    for (int c4 = 0; c4 < 8; ++c4) {
        const float4 scales = load_four_columns(own + 4 * c4);
        const float scale[4] = {scales.x, scales.y, scales.z, scales.w};
#pragma unroll
        for (int one = 0; one < 4; ++one) {
            const int c = 4 * c4 + one;
            const float above = fmaf(-threshold, scale[one], score[c / 2 * 4 + 2 * h + c % 2]);
            mask = __funnelshift_l(__float_as_uint(above), mask, 1);
        }
    }
    return mask;
}

/// Score number c of row h, without memory.
__device__ inline float pick(const float (&score)[64], int h, int c) {
    float value[16];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
        value[j] = c % 2 != 0 ? score[4 * j + 2 * h + 1] : score[4 * j + 2 * h];
    }
#pragma unroll
    for (int bit = 3; bit >= 0; --bit) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            if (j < 1 << bit) {
                value[j] = (c >> (bit + 1) & 1) != 0 ? value[j + (1 << bit)] : value[j];
            }
        }
    }
    return value[0];
}

/// What the lanes of a warp find for its 16 rows; shared memory, but for the entries.
struct WarpLists {
    int* count; ///< [16]
    /// [16] the largest distance to the row's threshold, to 16 bits, then 65,535 - component.
    uint32_t* best;
    uint2* entries; ///< [16, list_places] {score, component}, in any order; in L2
    bool alone;     ///< no other warp lists for these rows

    __device__ void clear() const {
        const int lane = threadIdx.x % 32;
        if (lane < 16) {
            count[lane] = 0;
            best[lane] = 0;
        }
        __syncwarp();
    }
    __device__ void add(int row, float score, float threshold, uint32_t k) const {
        const uint32_t above = __float_as_uint(score - threshold); // not below zero
        atomicMax(best + row, (above & 0xffff0000u) | (0xffffu - k));
        const int place = atomicAdd(count + row, 1);
        if (place < list_places) {
            entries[row * list_places + place] = make_uint2(__float_as_uint(score), k);
        }
    }
    __device__ uint32_t best_component(int row) const {
        return 0xffffu - (best[row] & 0xffffu);
    }
    /// What a component of the row must reach to be of interest still. (Where others list too, how many
    /// they have depends on the run.)
    __device__ float bar(int row, float threshold) const {
        const float above = __uint_as_float(best[row] & 0xffff0000u);
        return alone && count[row] > list_places ? threshold + above : threshold;
    }
};

/// The e_k that all of a tile's components have; 0 where they differ. Squares; for others 1.
template <CollectForm form> __device__ inline float common_scale(const float* columns) {
    if (form != CollectForm::squares) {
        return 1;
    }
    const float scale = columns[column_largest_scale];
    return scale * columns[column_largest_step] == 1 ? scale : 0.0f;
}

/// (2) of tile `tile`, whose components have that scale.
template <CollectForm form>
__device__ inline void list_candidates(
        const CollectModel& model,
        const float (&score)[64],
        int tile,
        float scale,
        const TwoRows& rows,
        const WarpLists& lists) {
    const int row = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    const float* own = nullptr;
    if (form == CollectForm::squares) {
        own = own_columns(model, tile) + own_scale + quad * column_pitch;
    }
    uint32_t below[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float bar = lists.bar(row + 8 * h, rows.threshold[h]);
        below[h] = form != CollectForm::squares ? scores_below(score, h, bar)
                   : scale != 0                 ? scores_below(score, h, bar * scale)
                                                : own_scores_below(score, h, bar, own);
    }
    __syncwarp();
    if ((below[0] & below[1]) != ~0u) {
        const uint32_t column = static_cast<uint32_t>(tile) * collect_tile + 2 * quad;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            uint32_t left = ~below[h];
#pragma unroll 1
            while (left != 0) {
                const int c = __clz(static_cast<int>(left));
                left &= ~(0x80000000u >> c);
                float of_row = pick(score, h, c);
                if (form == CollectForm::squares) {
                    of_row *= inverse_of_power(scale != 0 ? scale : own[c]);
                }
                lists.add(row + 8 * h, of_row, rows.threshold[h], column + c / 2 * 8 + c % 2);
            }
        }
    }
    __syncwarp();
}

/// The rank-th largest of a row's values; -infinity where there are fewer.
template <int places>
__device__ inline float largest_of_rank(const float (&value)[places], int rank) {
    const int lane = threadIdx.x % 32;
    int larger[places] =
            {}; // or equal and before: what comes to stand at rank - 1 is one of equals
#pragma unroll
    for (int o = 0; o < places; ++o) {
#pragma unroll 8
        for (int l = 0; l < 32; ++l) {
            const float other = __shfl_sync(whole_warp, value[o], l);
#pragma unroll
            for (int p = 0; p < places; ++p) {
                larger[p] += other > value[p] || (other == value[p] && 32 * o + l < 32 * p + lane);
            }
        }
    }
    float found = -CUDART_INF_F;
#pragma unroll
    for (int p = 0; p < places; ++p) {
        found = larger[p] == rank - 1 ? value[p] : found;
    }
    return warp_max(found);
}

/// An entry that is none.
__device__ inline uint2 no_entry() {
    return make_uint2(__float_as_uint(-CUDART_INF_F), ~0u);
}

/// What of a row's list stays.
struct Kept {
    int count;     ///< capacity + 1: too many
    uint32_t best; ///< the component of the largest U
};

/// (3) for row i of the output by a whole warp, `places` entries a lane: those are kept whose U reaches
/// the rank-th L less the margin.
template <CollectForm form, int places>
__device__ inline Kept
write_list(const CollectCall& call, int64_t i, const uint2 (&entry)[places], float f, float q) {
    const int lane = threadIdx.x % 32, capacity = call.output.capacity, rank = call.input.rank;
    float upper[places], lower[places], top = -CUDART_INF_F, largest_lower = -CUDART_INF_F;
    uint32_t k[places];
#pragma unroll
    for (int o = 0; o < places; ++o) {
        k[o] = entry[o].y;
        upper[o] = lower[o] = __uint_as_float(entry[o].x);
        if (k[o] != ~0u) {
            lower[o] = upper[o] - ColumnsOf<form>(call.model, k[o]).gap(f, q);
        }
        top = fmaxf(top, upper[o]);
        largest_lower = fmaxf(largest_lower, lower[o]);
    }
    top = warp_max(top);
    uint32_t first_of_top = ~0u;
#pragma unroll
    for (int o = 0; o < places; ++o) {
        first_of_top = upper[o] == top ? min(first_of_top, k[o]) : first_of_top;
    }
    const uint32_t best = __reduce_min_sync(whole_warp, first_of_top);
    const float at_rank = rank > 1 ? largest_of_rank<places>(lower, rank) : warp_max(largest_lower);
    const float threshold = threshold_under<form>(call.model, at_rank, call.input.margin, f);
    uint32_t keeps[places];
    int smaller[places] = {}, kept = 0;
#pragma unroll
    for (int o = 0; o < places; ++o) {
        keeps[o] = __ballot_sync(whole_warp, k[o] != ~0u && upper[o] >= threshold);
        kept += __popc(keeps[o]);
    }
    if (kept > capacity) {
        return {capacity + 1, best};
    }
#pragma unroll
    for (int o = 0; o < places; ++o) {
        for (uint32_t left = keeps[o]; left != 0; left &= left - 1) {
            const uint32_t other = __shfl_sync(whole_warp, k[o], __ffs(static_cast<int>(left)) - 1);
#pragma unroll
            for (int p = 0; p < places; ++p) {
                smaller[p] += other < k[p];
            }
        }
    }
#pragma unroll
    for (int o = 0; o < places; ++o) {
        if ((keeps[o] >> lane & 1) != 0) {
            call.output.component[i * capacity + smaller[o]] = static_cast<uint16_t>(k[o]);
        }
    }
    return {kept, best};
}

/// (3) for a warp's 16 rows, `first` of the wave and after; clears the lists.
template <CollectForm form>
__device__ inline void
write_lists(const CollectCall& call, const CollectWave& wave, int first, const WarpLists& lists) {
    const CollectOutput& output = call.output;
    const int lane = threadIdx.x % 32, row = first + lane;
    const bool there = lane < 16 && row < wave.rows;
    const bool of_use = there && wave.threshold[row] != closed;
    const int listed = there ? lists.count[lane] : 0;
    Kept mine{output.capacity + 1, listed > 0 ? lists.best_component(lane) : 0};
    if (of_use && listed == 1) { // most rows where components lie apart
        mine.count = 1;
        output.component[(wave.first + row) * output.capacity] = static_cast<uint16_t>(mine.best);
    }
    const bool several = of_use && listed != 1 && listed <= list_places;
    const float f = several ? wave.f[row] : 0, q = several ? wave.q[row] : 0;
    uint32_t left = __ballot_sync(whole_warp, several);
    const auto entry_of = [&](uint32_t rows, int place) { // of the first of `rows`
        const int r = rows != 0 ? __ffs(static_cast<int>(rows)) - 1 : 0;
        const bool exists = rows != 0 && place < __shfl_sync(whole_warp, listed, r);
        return exists ? lists.entries[r * list_places + place] : no_entry();
    };
    uint2 next = entry_of(left, lane);
    while (left != 0) {
        const int r = __ffs(static_cast<int>(left)) - 1;
        const uint2 here = next;
        next = entry_of(left & (left - 1), lane); // on its way while this row is judged
        const int64_t i = wave.first + first + r;
        const float own_f = __shfl_sync(whole_warp, f, r), own_q = __shfl_sync(whole_warp, q, r);
        Kept kept;
        if (__shfl_sync(whole_warp, listed, r) <= 32) {
            kept = write_list<form, 1>(call, i, {here}, own_f, own_q);
        } else {
            kept = write_list<form, 2>(call, i, {here, entry_of(left, 32 + lane)}, own_f, own_q);
        }
        mine = lane == r ? kept : mine;
        left &= left - 1;
    }
    if (there) {
        output.count[wave.first + row] = static_cast<uint8_t>(mine.count);
        if (output.best != nullptr) {
            output.best[wave.first + row] =
                    static_cast<uint16_t>(min(mine.best, static_cast<uint32_t>(call.model.K - 1)));
        }
    }
    __syncwarp();
    lists.clear();
}

/// (4) What a survey has seen of two rows: lower bounds L.
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
    /// Of a tile with such error factors; squares: with such own columns.
    template <CollectForm form>
    __device__ void
    see(const float (&score)[64], const float* errors, const float* own, const TwoRows& rows) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float gap = form == CollectForm::squares
                                      ? 0.0f
                                      : bound_gap<form>(errors, rows.f[h], rows.q[h]);
            float all = -CUDART_INF_F;
#pragma unroll
            for (int g = 0; g < 8; ++g) {
                float value;
                if (form == CollectForm::squares) {
                    value = largest_of_four(score, own, g, h, rows.f[h]);
                } else {
                    value = score[8 * g + 2 * h];
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            value = fmaxf(value, score[8 * g + 4 * j + 2 * h + i]);
                        }
                    }
                }
                if (!many) {
                    all = fmaxf(all, value);
                    continue;
                }
                value -= gap;
#pragma unroll
                for (float& kept : largest[h]) {
                    const float smaller = fminf(kept, value);
                    kept = fmaxf(kept, value);
                    value = smaller;
                }
            }
            if (!many) {
                largest[h][0] = fmaxf(largest[h][0], all - gap);
            }
        }
    }
    /// The largest l, in the row's unit, of columns 4 g to 4 g + 3 of the lane; squares.
    __device__ static float
    largest_of_four(const float (&score)[64], const float* own, int g, int h, float f) {
        own += threadIdx.x % 4 * column_pitch + 4 * g;
        const float4 e = load_four_columns(own + own_scale);
        const float4 gap = load_four_columns(own + own_gap);
        const float4 base = load_four_columns(own + own_gap_base);
        const auto lower = [&](int c, float scale, float bound, float of_base) {
            const float own_score = score[8 * g + c / 2 * 4 + 2 * h + c % 2];
            return fmaf(own_score, inverse_of_power(scale), -fmaf(of_base, f, bound));
        };
        return fmaxf(
                fmaxf(lower(0, e.x, gap.x, base.x), lower(1, e.y, gap.y, base.y)),
                fmaxf(lower(2, e.z, gap.z, base.z), lower(3, e.w, gap.w, base.w)));
    }
    /// The L of so many components are at least this.
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

/// (4) Thresholds of a lane's rows, `first` and first + 8 of the wave.
template <CollectForm form>
__device__ inline void raise_thresholds(
        const CollectCall& call,
        const CollectWave& wave,
        int first,
        const TwoRows& rows,
        const float (&bound)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = first + 8 * h;
        const float threshold =
                threshold_under<form>(call.model, bound[h], call.input.margin, rows.f[h]);
        if (threadIdx.x % 4 == 0 && row < wave.rows && rows.threshold[h] != closed) {
            wave.threshold[row] = fmaxf(rows.threshold[h], threshold);
        }
    }
}

} // namespace faiss_gmm::cuda
