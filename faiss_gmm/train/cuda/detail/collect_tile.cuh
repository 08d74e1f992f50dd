// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What a warp does with the scores of 16 rows and a tile's 128 components, the same for both kinds of
// tensor-core products, whose accumulators have one layout: lane l holds
//   score[4 j + 2 h + i] = (row l / 4 + 8 h, column 8 j + 2 (l % 4) + i), so four lanes, a quad, share a row.
//
// (1) start_scores: what the accumulators begin with, so that the product leaves U there.
// (2) list_candidates: the sign of each score's distance to the row's threshold. No maxima, no branch
//     but where something is listed; a row's places are given out by counts that its quad shares. A row with too
//     many, as it has that lists most of a tile, only looks for its best from then on.
// (3) write_lists: what lies within the margin of the largest L, ascending, or (7) of collect.h. So a threshold that
//     is too low (the hint's) costs places on the way, but changes no list that fits. The entries of all 16 rows
//     side by side, four a lane at once: a row has from one to as many as places.
// (4) Survey: thresholds, where no hint gives one or rank > 1. For rank > 1 each lane keeps the six
//     largest of its groups' maxima: the rank-th largest of a quad's is a bound, for each stands for a
//     component of its own. A group is eight components, two where there are few.
// (5) GrowingLists: for rank > 1, whose rows list many: the signs of a row and tile become the next part of
//     its list, four lanes a row. Where two warpgroups share a row: mark_candidates, the signs as they are, side
//     by side in L2 where a row has any; write_marked: they become its list in the end.
// (6) LoneSurvey: a survey for rank 1 that knows which column of which tile it is that reaches the threshold,
//     if one alone does; settle_rows: that one is the row's list.
// Lost: running maxima that raise the threshold from tile to tile, instead of a survey or a hint: lists
//     of thousands of components overflow before the row's home is seen, and a maximum a score is dearer
//     than a sign. Lists judged a row after the other by the warp (a third more time on `overlap`: each waits for
//     L2), or a quad a row (a quarter more: eight rows wait for the longest); places given out one by one, by a vote
//     of the lanes that have an entry more (3% more on `overlap`). A sum of saturated distances for eight scores at
//     once, signs only where it is not zero: 8% more time, 16% on `overlap`. Scores stored in groups of four columns
//     where one of them is listed, without a loop: less to list, more to read back, all in all nothing. Lists out of
//     such groups by a kernel of its own: a third more, for what is listed no longer stays in L2. Read back eight at
//     once: the same.

#include <climits>

#include <math_constants.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"
#include "faiss_gmm/train/cuda/detail/warp.cuh"

namespace faiss_gmm::cuda {

constexpr int survey_largest = 6; ///< group maxima that a lane keeps
static_assert(4 * survey_largest >= collect_max_rank, "");
constexpr int survey_group =
        8; ///< components of a lane's group: columns 8 j + 2 (l % 4) + i, four j's
constexpr int small_survey_group = 2, small_survey_tiles = 2; ///< of so few tiles

__device__ inline float quad_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(whole_warp, value, 1));
    return fmaxf(value, __shfl_xor_sync(whole_warp, value, 2));
}

/// Numbers of a lane's two rows.
struct TwoRows {
    float f[2], q[2], threshold[2];

    /// Rows `first` and first + 8 of the wave.
    __device__ void load(const CollectWave& wave, int first) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = first + 8 * h;
            const bool there = has_row(wave, row);
            f[h] = there ? wave.f[row] : 1.0f;
            q[h] = there ? wave.q[row] : 0.0f;
            threshold[h] = there ? wave.threshold[row] : closed;
        }
    }
};

/// Numbers of neighbouring columns, aligned to as many.
__device__ inline void load_columns(const float* from, float (&out)[4]) {
    const float4 all = *reinterpret_cast<const float4*>(from);
    out[0] = all.x;
    out[1] = all.y;
    out[2] = all.z;
    out[3] = all.w;
}
__device__ inline void load_columns(const float* from, float (&out)[2]) {
    const float2 both = *reinterpret_cast<const float2*>(from);
    out[0] = both.x;
    out[1] = both.y;
}

/// (1). `columns` is aligned to 16 bytes.
template <CollectForm form>
__device__ inline void start_scores(const float* columns, const TwoRows& rows, float (&score)[64]) {
    const int own = threadIdx.x % 4 * column_pitch;
    constexpr bool with_quadratic = form != CollectForm::linear; // of squares: their bounds
#pragma unroll
    for (int j4 = 0; j4 < 4; ++j4) {
        float bound[4] = {};
        if (form != CollectForm::squares) {
            load_columns(columns + column_bound + 4 * j4, bound);
        }
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            const int at = own + 8 * j4 + 4 * pair;
            float base[4], quadratic[4] = {};
            load_columns(columns + column_base + at, base);
            if (with_quadratic) {
                load_columns(columns + column_quadratic + at, quadratic);
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
        float scale[4];
        load_columns(own + 4 * c4, scale);
#pragma unroll
        for (int one = 0; one < 4; ++one) {
            const int c = 4 * c4 + one;
            const float above = fmaf(-threshold, scale[one], score[c / 2 * 4 + 2 * h + c % 2]);
            mask = __funnelshift_l(__float_as_uint(above), mask, 1);
        }
    }
    return mask;
}

/// Score number c of row h, one of half a lane's 32, without memory.
__device__ inline float pick(const float (&score)[64], int h, int half, int c) {
    float value[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const float* pair = score + 4 * (8 * half + j) + 2 * h;
        value[j] = c % 2 != 0 ? pair[1] : pair[0];
    }
#pragma unroll
    for (int bit = 2; bit >= 0; --bit) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j < 1 << bit) {
                value[j] = (c >> (bit + 1) & 1) != 0 ? value[j + (1 << bit)] : value[j];
            }
        }
    }
    return value[0];
}

/// The largest U of row h's scores of the lane, and in a tile of that scale or the lane's `own`.
template <CollectForm form>
__device__ inline float
largest_score(const float (&score)[64], int h, float scale, const float* own) {
    float largest = -CUDART_INF_F;
#pragma unroll
    for (int c = 0; c < 32; ++c) {
        float upper = score[c / 2 * 4 + 2 * h + c % 2];
        if (form == CollectForm::squares) {
            upper *= inverse_of_power(scale != 0 ? scale : own[c]);
        }
        largest = fmaxf(largest, upper);
    }
    return largest;
}

constexpr int mark_places = 28; ///< tiles in which a row may have candidates: in more it overflows

/// (5) Of a row, in the place of its entries.
struct alignas(16) RowMarks {
    /// Lane t's of a quad: bit 31 - c for column 8 j + 2 t + i of the tile, c = 2 j + i.
    uint32_t word[mark_places][4];
    uint16_t tile[mark_places];
};
static_assert(sizeof(RowMarks) <= least_list_places * sizeof(uint2), "");

/// Where a warp lists for its 16 rows.
struct WarpLists {
    uint2* entries; ///< [16, places] {score, component}, in any order; in L2
    int places;     ///< of a row
    bool from_end; ///< the last places: another warp lists other components of these rows in the first

    WarpLists() = default;
    /// Of the warp's 16 rows, which begin with row `first` of those that all blocks work on at once.
    __device__ WarpLists(const CollectWave& wave, size_t first, bool are_from_end)
            : entries(wave.entries + first * wave.list_places), places(wave.list_places),
              from_end(are_from_end) {
        asm("" : "+l"(entries)); // to be kept, not computed anew for each entry
    }
    __device__ uint2* entry(int row, int place) const {
        const int first = from_end ? places - 1 : 0, step = from_end ? -1 : 1;
        return entries + (row * places + first + step * place);
    }
    /// [16] where marks stand in the place of entries.
    __device__ RowMarks* marks() const {
        return reinterpret_cast<RowMarks*>(entries);
    }
};

/// Where `stores`, without a branch.
__device__ inline void store_entry(uint2* entry, float upper, uint32_t k, bool stores) {
    asm volatile("{\n"
                 ".reg .pred stores;\n"
                 "setp.ne.u32 stores, %3, 0;\n"
                 "@stores st.global.v2.b32 [%0], {%1, %2};\n"
                 "}" ::"l"(__cvta_generic_to_global(entry)),
                 "r"(__float_as_uint(upper)),
                 "r"(k),
                 "r"(static_cast<uint32_t>(stores))
                 : "memory");
}

/// What is known of a row's entries.
struct Listed {
    int count = 0;
    uint32_t best = ~0u;                  ///< the component of the largest U
    float top = -__builtin_huge_valf();   ///< its U
    float lower = -__builtin_huge_valf(); ///< the largest L

    /// An entry of the lane, whose components are ascending.
    __device__ void see(float upper, float gap, uint32_t k) {
        best = upper > top ? k : best;
        top = fmaxf(top, upper);
        lower = fmaxf(lower, upper - gap);
    }
    /// But for the count.
    __device__ void see(const Listed& other) {
        best = other.top > top || (other.top == top && other.best < best) ? other.best : best;
        top = fmaxf(top, other.top);
        lower = fmaxf(lower, other.lower);
    }
    /// With those of the lane so far off, which gives another row's.
    __device__ void exchange(const Listed& given, int step) {
        Listed other;
        other.best = __shfl_xor_sync(whole_warp, given.best, step);
        other.top = __shfl_xor_sync(whole_warp, given.top, step);
        other.lower = __shfl_xor_sync(whole_warp, given.lower, step);
        see(other);
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

/// The lane's [32] of e_k of a tile's components; squares.
template <CollectForm form>
__device__ inline const float* lane_scales(const CollectModel& model, int tile) {
    return form == CollectForm::squares
                   ? own_columns(model, tile) + own_scale + threadIdx.x % 4 * column_pitch
                   : nullptr;
}

/// scores_below of a tile whose components have that scale, or those of `own`.
template <CollectForm form>
__device__ inline uint32_t
scores_below(const float (&score)[64], int h, float threshold, float scale, const float* own) {
    return form != CollectForm::squares ? scores_below(score, h, threshold)
           : scale != 0                 ? scores_below(score, h, threshold * scale)
                                        : own_scores_below(score, h, threshold, own);
}

/// (2) What a quad has listed of its two rows; all but the count is the lane's, until it is shared.
struct TwoLists {
    Listed row[2];

    /// Of tile `tile`, whose components have that scale and such error factors (squares: their own). Raises the
    /// threshold of a row that has too many to its best.
    template <CollectForm form>
    __device__ void list_candidates(
            const CollectModel& model,
            const float (&score)[64],
            int tile,
            float scale,
            const float (&errors)[3],
            TwoRows& rows,
            const WarpLists& lists) {
        const int quad = threadIdx.x % 4;
        const float* own = lane_scales<form>(model, tile);
        uint32_t listed[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            listed[h] = ~scores_below<form>(score, h, rows.threshold[h], scale, own);
        }
        if (!__any_sync(whole_warp, (listed[0] | listed[1]) != 0)) {
            return;
        }
        // Places behind those of the quad's lanes before, for both rows at once.
        const uint32_t own_numbers = __popc(listed[0]) | __popc(listed[1]) << 16;
        uint32_t numbers = own_numbers;
#pragma unroll
        for (int step = 1; step < 4; step *= 2) {
            const uint32_t before = __shfl_up_sync(whole_warp, numbers, step, 4);
            numbers += quad >= step ? before : 0;
        }
        const uint32_t all = __shfl_sync(whole_warp, numbers, 3, 4);
        numbers -= own_numbers;
        int place[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            place[h] = row[h].count + static_cast<int>(numbers >> 16 * h & 0xffffu);
            const auto of_tile = static_cast<int>(all >> 16 * h & 0xffffu);
            row[h].count += of_tile > most_of_a_tile ? lists.places + 1 : of_tile;
        }
        const bool too_many =
                __any_sync(whole_warp, max(row[0].count, row[1].count) > lists.places);
        if (too_many) { // of such a row the lane's largest will do
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float largest = largest_score<form>(score, h, scale, own);
                if (row[h].count > lists.places) {
                    listed[h] &= ~scores_below<form>(score, h, largest, scale, own);
                }
            }
        }
        const uint32_t column = static_cast<uint32_t>(tile) * collect_tile + 2 * quad;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float f = rows.f[h];
            float gap = form == CollectForm::squares ? 0.0f : bound_gap<form>(errors, f, rows.q[h]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                uint32_t left = listed[h] & (half == 0 ? 0xffff0000u : 0x0000ffffu);
#pragma unroll 1
                for (; left != 0; ++place[h]) {
                    const int c = __clz(static_cast<int>(left));
                    left &= ~(0x80000000u >> c);
                    float upper = pick(score, h, half, c);
                    if (form == CollectForm::squares) {
                        upper *= inverse_of_power(scale != 0 ? scale : own[c]);
                        gap = fmaf(own[own_gap_base + c], f, own[own_gap + c]);
                    }
                    const uint32_t k = column + c / 2 * 8 + c % 2;
                    row[h].see(upper, gap, k);
                    store_entry(
                            lists.entry(threadIdx.x % 32 / 4 + 8 * h, place[h]),
                            upper,
                            k,
                            place[h] < lists.places);
                }
            }
        }
        if (too_many) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float top = quad_max(row[h].top);
                rows.threshold[h] = row[h].count > lists.places ? top : rows.threshold[h];
            }
        }
    }
    /// When no tile comes any more: the quad's, of the first row for its even lanes, of the second for the others.
    __device__ Listed of_quad() const {
        const auto one_of = [&](bool is_first) { // number by number: else they are in memory
            return Listed{
                    is_first ? row[0].count : row[1].count,
                    is_first ? row[0].best : row[1].best,
                    is_first ? row[0].top : row[1].top,
                    is_first ? row[0].lower : row[1].lower};
        };
        const bool is_first = threadIdx.x % 2 == 0;
        Listed mine = one_of(is_first);
        mine.exchange(one_of(!is_first), 1);
        mine.exchange(mine, 2);
        return mine;
    }
};

/// Which of a warp's 16 rows is the lane's, where of_quad() is of its own; lanes 2 and 3 of a quad have the same.
__device__ inline int row_of_lane() {
    const int lane = threadIdx.x % 32;
    return lane / 4 + lane % 2 * 8;
}

/// The first lane of which it is that.
__device__ inline int lane_of_row(int row) {
    return row % 8 * 4 + row / 8;
}

/// An entry that is none.
__device__ inline uint2 no_entry() {
    return make_uint2(__float_as_uint(-CUDART_INF_F), ~0u);
}

constexpr int entries_at_once = 4; ///< of a lane: each waits for L2
constexpr float bits_a_nat = 1.442695041f;

/// A row whose entries are looked at.
struct ListWork {
    int end;        ///< of the strip's entries, the row's and those of the rows before
    int from_start; ///< entries of the first list
    float threshold, listed_from;
    float top, to_bits; ///< its best U, and what takes a difference to a binary logarithm
    uint32_t rest;      ///< in units
    int kept;
};

/// More than any component's gap is where f is 1, and its part that goes by f. Not of squares.
__device__ inline float2 widest_errors(const CollectModel& model) {
    float2 widest{0, 0};
    for (int tile = threadIdx.x % 32; tile < model.padded_K / collect_tile; tile += 32) {
        const float* errors =
                model.columns + static_cast<size_t>(tile) * collect_columns + column_errors;
        widest.x = fmaxf(widest.x, errors[0]);
        widest.y = fmaxf(widest.y, errors[1]);
    }
    widest.x = __uint_as_float(__reduce_max_sync(whole_warp, __float_as_uint(widest.x)));
    widest.y = __uint_as_float(__reduce_max_sync(whole_warp, __float_as_uint(widest.y)));
    return widest;
}

/// The numbers of 16 lists in their order, by a warp. `mine`: of the list of the lane's row_of_lane(), 0 for none.
/// `list_of(row)`: that row's.
template <class ListOf> __device__ inline void sort_lists(int mine, const ListOf& list_of) {
    const int lane = threadIdx.x % 32;
    // Short ones by eight lanes each, all under way at once.
    constexpr int few = 8, at_once = 32 / few, rounds = 16 / at_once;
    uint32_t k[rounds];
#pragma unroll
    for (int r = 0; r < rounds; ++r) {
        const int row = r * at_once + lane / few;
        const int count = __shfl_sync(whole_warp, mine, lane_of_row(row));
        const bool has_one = count <= few && lane % few < count;
        k[r] = ~0u;
        if (has_one) {
            k[r] = list_of(row)[lane % few];
        }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < rounds; ++r) {
        if (!__any_sync(whole_warp, k[r] != ~0u)) {
            continue;
        }
        int smaller = 0;
#pragma unroll
        for (int other = 0; other < few; ++other) {
            smaller += __shfl_sync(whole_warp, k[r], other, few) < k[r];
        }
        if (k[r] != ~0u) {
            list_of(r * at_once + lane / few)[smaller] = static_cast<uint16_t>(k[r]);
        }
    }
    uint32_t longer = __ballot_sync(whole_warp, mine > few);
#pragma unroll 1
    for (; longer != 0; longer &= longer - 1) {
        const int its = __ffs(static_cast<int>(longer)) - 1;
        const int count = __shfl_sync(whole_warp, mine, its);
        uint16_t* const list = list_of(its / 4 + its % 2 * 8);
        const uint32_t own = lane < count ? list[lane] : ~0u;
        int smaller = 0;
        for (int other = 0; other < count; ++other) {
            smaller += __shfl_sync(whole_warp, own, other) < own;
        }
        __syncwarp();
        if (lane < count) {
            list[smaller] = static_cast<uint16_t>(own);
        }
    }
}
static_assert(collect_max_capacity == 32, "one a lane");

/// (3) for a warp's 16 rows, `first` of the wave and after: all their entries side by side. `mine`: of_quad().
/// `others`: [16] what another warp has listed of these rows, in `other_lists`, or null; then the warps write the lists
/// of eight rows each, the first or the last eight. `widest_error`: widest_errors(), where rests are asked for. `work`:
/// [16] scratch in shared memory.
template <CollectForm form>
__device__ inline void write_lists(
        const CollectCall& call,
        const CollectWave& wave,
        int first,
        const TwoRows& rows,
        Listed mine,
        const WarpLists& lists,
        const Listed* others,
        const WarpLists& other_lists,
        bool are_first,
        const float2& widest_error,
        ListWork* work) {
    const CollectOutput& output = call.output;
    const bool with_rest = form == CollectForm::linear && output.rest != nullptr;
    // Two lanes of a quad have a row each.
    const int lane = threadIdx.x % 32, own = lane / 4 * 2 + lane % 2;
    const auto in_strip = [](int number) { return number / 2 + number % 2 * 8; };
    const bool is_first = lane % 2 == 0;
    const bool has_one = lane % 4 < 2 && (others == nullptr || is_first == are_first);
    const int in_wave = first + row_of_lane();
    const auto list_of = [&](int number) {
        return output.component +
               row_of_call(wave, first + in_strip(number)) * static_cast<int64_t>(output.capacity);
    };
    const int from_start = mine.count;
    if (others != nullptr) {
        const Listed& other = others[row_of_lane()];
        mine.see(other);
        mine.count += other.count;
    }
    const float f = is_first ? rows.f[0] : rows.f[1];
    const float row_threshold = is_first ? rows.threshold[0] : rows.threshold[1];
    const bool fits = row_threshold != closed && mine.count <= lists.places;
    int kept = fits ? mine.count : output.capacity + 1;
    const uint32_t best = mine.count > 0 ? mine.best : 0;
    float rest = 0;
    bool looks = has_one && fits && mine.count > 1; // one stays for sure
    if (__any_sync(whole_warp, looks)) {
        const float threshold = threshold_under<form>(call.model, mine.lower, call.input.margin, f);
        float listed_from = threshold, widest = 0;
        if (with_rest) { // (7) of collect.h
            widest = fmaf(widest_error.y, f, widest_error.x);
            const float significant =
                    threshold_under<form>(call.model, mine.lower, call.input.significant, f);
            listed_from = fmaxf(threshold, significant);
        }
#pragma unroll 1
        while (__any_sync(whole_warp, looks)) {
            int end = looks ? mine.count : 0;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const int before = __shfl_up_sync(whole_warp, end, step);
                end += lane >= step ? before : 0;
            }
            const int all = __shfl_sync(whole_warp, end, 31);
            if (lane % 4 < 2) {
                work[own] = {
                        end, from_start, threshold, listed_from, mine.top, bits_a_nat / f, 0, 0};
            }
            __syncwarp();
#pragma unroll 1
            for (int begin = lane; begin - lane < all; begin += 32 * entries_at_once) {
                int number[entries_at_once]; // of the row
                uint2 entry[entries_at_once];
#pragma unroll
                for (int e = 0; e < entries_at_once; ++e) {
                    const int place = begin + 32 * e;
                    int row = 0;
#pragma unroll
                    for (int step = 8; step > 0; step /= 2) {
                        row += work[row + step - 1].end <= place ? step : 0;
                    }
                    number[e] = row;
                    const int in_row = place - (row > 0 ? work[row - 1].end : 0);
                    const int start = work[row].from_start;
                    entry[e] = place >= all     ? no_entry()
                               : in_row < start ? *lists.entry(in_strip(row), in_row)
                                                : *other_lists.entry(in_strip(row), in_row - start);
                }
#pragma unroll
                for (int e = 0; e < entries_at_once; ++e) {
                    ListWork& row = work[number[e]];
                    const float upper = __uint_as_float(entry[e].x);
                    if (entry[e].y == ~0u || !(upper >= row.threshold)) {
                        continue;
                    }
                    if (upper >= row.listed_from) {
                        const int place = atomicAdd(&row.kept, 1);
                        if (place < output.capacity) {
                            list_of(number[e])[place] = static_cast<uint16_t>(entry[e].y);
                        }
                    } else {
                        const float share = exp2f(fmaf(upper - row.top, row.to_bits, rest_bits));
                        // At least one unit: what is nearly nothing by its bound may be more.
                        atomicAdd(&row.rest, __float2uint_ru(fmaxf(share, 1.0f)));
                    }
                }
            }
            __syncwarp();
            if (looks) {
                kept = min(work[own].kept, output.capacity + 1);
                rest = 0;
                looks = work[own].rest > 0;
                if (looks) {
                    rest = ldexpf(static_cast<float>(work[own].rest), -rest_bits);
                    looks = !(rest * expm1f(widest / f) <= most_rest_error); // then all are listed
                }
                listed_from = looks ? threshold : listed_from;
            }
            __syncwarp();
        }
        sort_lists(
                has_one && mine.count > 1 && kept > 1 && kept <= output.capacity ? kept : 0,
                [&](int row) { return list_of(lane_of_row(row) / 4 * 2 + row / 8); });
    }
    if (has_one && has_row(wave, in_wave) && row_threshold != settled) {
        const int64_t i = row_of_call(wave, in_wave);
        if (fits && mine.count == 1) {
            output.component[i * output.capacity] = static_cast<uint16_t>(best);
        }
        output.count[i] = static_cast<uint8_t>(kept);
        if (output.rest != nullptr) {
            output.rest[i] = rest;
        }
        if (output.best != nullptr) {
            output.best[i] =
                    static_cast<uint16_t>(min(best, static_cast<uint32_t>(call.model.K - 1)));
        }
    }
}

/// A bitonic sequence of six, the largest first.
__device__ inline void sort_bitonic(float (&value)[6]) {
    const auto exchange = [&](int a, int b) {
        const float larger = fmaxf(value[a], value[b]);
        value[b] = fminf(value[a], value[b]);
        value[a] = larger;
    };
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        exchange(i, i + 3);
    }
#pragma unroll
    for (int i = 0; i < 6; i += 3) {
        exchange(i, i + 1);
        exchange(i + 1, i + 2);
        exchange(i, i + 1);
    }
}

/// Four sorted sixes of a quad as one sequence, the largest first: lane t's are numbers 6 t to 6 t + 5.
__device__ inline void sort_quad(float (&value)[6]) {
    const auto split = [&](int step, bool reversed, bool takes_larger) {
        float other[6];
#pragma unroll
        for (int i = 0; i < 6; ++i) {
            other[i] = __shfl_xor_sync(whole_warp, value[reversed ? 5 - i : i], step);
        }
#pragma unroll
        for (int i = 0; i < 6; ++i) {
            value[i] = takes_larger ? fmaxf(value[i], other[i]) : fminf(value[i], other[i]);
        }
    };
    const bool even = threadIdx.x % 2 == 0;
    split(1, true, even);
    sort_bitonic(value);
    split(3, true, threadIdx.x % 4 < 2);
    split(1, false, even);
    sort_bitonic(value);
}
static_assert(survey_largest == 6, "as they are sorted");

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
    template <CollectForm form, int group = survey_group>
    __device__ void
    see(const float (&score)[64], const float* errors, const float* own, const TwoRows& rows) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float gap = form == CollectForm::squares
                                      ? 0.0f
                                      : bound_gap<form>(errors, rows.f[h], rows.q[h]);
            float all = -CUDART_INF_F;
#pragma unroll
            for (int c0 = 0; c0 < 32; c0 += group) {
                float value;
                if constexpr (form == CollectForm::squares) {
                    value = largest_of_own<group>(score, own, c0, h, rows.f[h]);
                } else {
                    value = score[2 * c0 + 2 * h];
#pragma unroll
                    for (int c = c0 + 1; c < c0 + group; ++c) {
                        value = fmaxf(value, score[c / 2 * 4 + 2 * h + c % 2]);
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
    /// The largest l, in the row's unit, of columns c0 to c0 + group - 1 of the lane; squares.
    template <int group>
    __device__ static float
    largest_of_own(const float (&score)[64], const float* own, int c0, int h, float f) {
        constexpr int at_once = group % 4 == 0 ? 4 : 2;
        own += threadIdx.x % 4 * column_pitch;
        float largest_l = -CUDART_INF_F;
#pragma unroll
        for (int c = c0; c < c0 + group; c += at_once) {
            float scale[at_once], gap[at_once], base[at_once];
            load_columns(own + c + own_scale, scale);
            load_columns(own + c + own_gap, gap);
            load_columns(own + c + own_gap_base, base);
#pragma unroll
            for (int one = 0; one < at_once; ++one) {
                const float own_score = score[(c + one) / 2 * 4 + 2 * h + one % 2];
                const float error = fmaf(base[one], f, gap[one]);
                largest_l = fmaxf(largest_l, fmaf(own_score, inverse_of_power(scale[one]), -error));
            }
        }
        return largest_l;
    }
    /// The same in groups for so many tiles.
    template <CollectForm form>
    __device__ void see_tile(
            const float (&score)[64],
            const float* errors,
            const float* own,
            const TwoRows& rows,
            int tiles) {
        if (many && tiles <= small_survey_tiles) {
            see<form, small_survey_group>(score, errors, own, rows);
        } else {
            see<form>(score, errors, own, rows);
        }
    }
    /// No tile comes any more.
    __device__ void end() {
        if constexpr (many) {
            sort_quad(largest[0]);
            sort_quad(largest[1]);
        }
    }
    /// The L of so many components are at least this.
    __device__ float bound(int h, int rank) const {
        if constexpr (!many) {
            return quad_max(largest[h][0]);
        } else {
            const int wanted = (rank - 1) % survey_largest;
            float own = -CUDART_INF_F;
#pragma unroll
            for (int i = 0; i < survey_largest; ++i) { // a plain choice became an indexed array
                own = fmaxf(own, i == wanted ? largest[h][i] : -CUDART_INF_F);
            }
            const int holder = threadIdx.x % 32 / 4 * 4 + (rank - 1) / survey_largest;
            return __shfl_sync(whole_warp, own, holder);
        }
    }
    /// For another survey of the row's other components: in shared memory, one row's [seen_values].
    static constexpr int seen_values = many ? 4 * survey_largest : 1;
    __device__ void tell(int h, float* seen) const {
        if constexpr (!many) {
            const float value = quad_max(largest[h][0]);
            if (threadIdx.x % 4 == 0) {
                seen[0] = value;
            }
        } else {
#pragma unroll
            for (int i = 0; i < survey_largest; ++i) {
                seen[survey_largest * (threadIdx.x % 4) + i] = largest[h][i];
            }
        }
    }
    /// bound() of both surveys' components.
    __device__ float bound_with(int h, int rank, const float* seen) const {
        if constexpr (!many) {
            return fmaxf(quad_max(largest[h][0]), seen[0]);
        } else {
            // The rank-th of two sorted sequences: the largest of min(i-th of one, (rank - i)-th of the other).
            float found = seen[rank - 1];
#pragma unroll
            for (int i = 0; i < survey_largest; ++i) {
                const int others = rank - (survey_largest * (threadIdx.x % 4) + i + 1);
                const float value = others > 0    ? fminf(largest[h][i], seen[others - 1])
                                    : others == 0 ? largest[h][i]
                                                  : -CUDART_INF_F;
                found = fmaxf(found, value);
            }
            return quad_max(found);
        }
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

/// (6) What a survey for the best component alone has seen of two rows: the largest U, rounded to bf16, which
/// keeps their order. A lane's columns of a tile are 16 pairs, four lines of four places.
struct LoneSurvey {
    static constexpr int lines = 4, places = 4;
    // Of all tiles, for the first and the second of a pair.
    __nv_bfloat162 of_line[2][lines], of_place[2][places];
    float best[2], second[2]; ///< of tiles
    int tile[2];              ///< of the best

    __device__ void begin() {
        const auto least = __float2bfloat162_rn(-CUDART_INF_F);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            best[h] = second[h] = -CUDART_INF_F;
            tile[h] = 0;
#pragma unroll
            for (int i = 0; i < lines; ++i) {
                of_line[h][i] = of_place[h][i] = least;
            }
        }
    }
    __device__ void see(const float (&score)[64], int number) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            __nv_bfloat162 all;
#pragma unroll
            for (int line = 0; line < lines; ++line) {
                __nv_bfloat162 pair[places], largest;
#pragma unroll
                for (int place = 0; place < places; ++place) {
                    const float* of_pair = score + 4 * (places * line + place) + 2 * h;
                    pair[place] = __floats2bfloat162_rn(of_pair[0], of_pair[1]);
                    of_place[h][place] = __hmax2(of_place[h][place], pair[place]);
                    largest = place == 0 ? pair[0] : __hmax2(largest, pair[place]);
                }
                of_line[h][line] = __hmax2(of_line[h][line], largest);
                all = line == 0 ? largest : __hmax2(all, largest);
            }
            const float value = fmaxf(__low2float(all), __high2float(all));
            second[h] = fmaxf(second[h], fminf(best[h], value));
            tile[h] = value > best[h] ? number : tile[h];
            best[h] = fmaxf(best[h], value);
        }
    }
    /// The threshold of row h, from an L of each lane's best.
    template <CollectForm form>
    __device__ float threshold(const CollectCall& call, const TwoRows& rows, int h) const {
        const float* errors = call.model.columns + tile[h] * collect_columns + column_errors;
        const float rounding = 0x1.0p-8f * fabsf(best[h]);
        const float lower = best[h] - rounding - bound_gap<form>(errors, rows.f[h], rows.q[h]);
        const float found =
                threshold_under<form>(call.model, quad_max(lower), call.input.margin, rows.f[h]);
        return fmaxf(rows.threshold[h], found);
    }
    struct Reach {
        int count; ///< 0: no column of the lane reaches it; 1: this one; more: it is not known which
        int column; ///< of the best's tile
    };
    __device__ Reach reach(int h, float threshold) const {
        const float bar = __bfloat162float(__float2bfloat16_rn(threshold));
        int reaching_lines = 0, reaching_places = 0, column = 2 * (threadIdx.x % 4);
        const auto look = [&](const __nv_bfloat162& pair, int first, int& reaching) {
            const bool one = __low2float(pair) >= bar, other = __high2float(pair) >= bar;
            reaching += one + other;
            column += one || other ? first : 0;
            return other;
        };
#pragma unroll
        for (int line = 0; line < lines; ++line) {
            column += look(of_line[h][line], 8 * places * line, reaching_lines);
        }
#pragma unroll
        for (int place = 0; place < places; ++place) {
            look(of_place[h][place], 8 * place, reaching_places);
        }
        return {max(max(reaching_lines, reaching_places), second[h] >= bar ? 2 : 0), column};
    }
};

/// (6) for a warp's 16 rows, `first` of the wave and after: those with one candidate are listed, the others go
/// into `open`.
template <CollectForm form>
__device__ inline void settle_rows(
        const CollectCall& call,
        const CollectWave& wave,
        const CollectWave& open,
        int first,
        const TwoRows& rows,
        const LoneSurvey& survey) {
    const int lane = threadIdx.x % 32;
    float threshold[2];
    bool is_open[2];
    uint32_t opens[2]; // bit 4 r of row r of eight
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = first + lane / 4 + 8 * h;
        threshold[h] = survey.threshold<form>(call, rows, h);
        const LoneSurvey::Reach reach = survey.reach(h, threshold[h]);
        int all = reach.count + __shfl_xor_sync(whole_warp, reach.count, 1);
        all += __shfl_xor_sync(whole_warp, all, 2);
        is_open[h] = all != 1 && lane % 4 == 0 && row < wave.rows;
        opens[h] = __ballot_sync(whole_warp, is_open[h]);
        if (all == 1 && reach.count == 1 && row < wave.rows) {
            const auto k = static_cast<uint16_t>(survey.tile[h] * collect_tile + reach.column);
            const int64_t i = wave.first + row;
            call.output.component[i * call.output.capacity] = k;
            call.output.count[i] = 1;
            if (call.output.rest != nullptr) {
                call.output.rest[i] = 0;
            }
            if (call.output.best != nullptr) {
                call.output.best[i] = k;
            }
            wave.threshold[row] = settled;
        }
    }
    if ((opens[0] | opens[1]) == 0) {
        return;
    }
    const int first_count = __popc(opens[0]);
    int begin = 0;
    if (lane == 0) {
        const unsigned long long before = atomicAdd(
                wave.open, static_cast<unsigned long long>(first_count + __popc(opens[1])));
        begin = static_cast<int>(min(before, static_cast<unsigned long long>(open.rows)));
    }
    begin = __shfl_sync(whole_warp, begin, 0);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = first + lane / 4 + 8 * h;
        const int number = begin + h * first_count + __popc(opens[h] & ((1u << lane) - 1));
        if (is_open[h]) {
            wave.threshold[row] = threshold[h];
        }
        if (is_open[h] && number < open.rows) {
            const int place = open_place(number, wave.open_tiles);
            open.f[place] = rows.f[h];
            open.q[place] = rows.q[h];
            open.threshold[place] = threshold[h];
            open.number[place] = wave.first + row;
        }
        const int parts = call.model.padded_width / 8; // of 16 bytes
        const auto* from = reinterpret_cast<const uint4*>(wave.operand);
        auto* to = reinterpret_cast<uint4*>(open.operand);
        int next = begin + h * first_count;
        for (uint32_t left = opens[h]; left != 0 && next < open.rows; left &= left - 1, ++next) {
            const size_t of_wave = first + 8 * h + __ffs(static_cast<int>(left)) / 4;
            const size_t place = open_place(next, wave.open_tiles);
            if (lane < parts) {
                to[place * parts + lane] = from[of_wave * parts + lane];
            }
        }
    }
}

/// A tile's word of each of 32 components in their order, the first in bit 31: lane t of a quad gets those from
/// 32 t on, of its lanes' marks.
__device__ inline uint32_t in_order(uint32_t marks) {
    const int own = threadIdx.x % 4;
    uint32_t word = 0;
#pragma unroll
    for (int t = 0; t < 4; ++t) {
        const uint32_t of_t = __shfl_sync(whole_warp, marks, threadIdx.x % 32 / 4 * 4 + t);
        uint32_t pairs = of_t >> (24 - 8 * own) & 0xffu; // of columns 8 j + 2 t, four j's
        pairs = (pairs | pairs << 12) & 0x000f000fu;
        pairs = (pairs | pairs << 6) & 0x03030303u;
        word |= pairs << (6 - 2 * t);
    }
    return word;
}

/// (5) Lists of a lane's two rows, whose tiles come in order. All tiles are this warp's.
struct GrowingLists {
    int count[2] = {0, 0}; ///< the same in the four lanes of a quad

    /// Of tile `tile`, whose components have that scale; rows `first` and first + 8 of the wave.
    template <CollectForm form>
    __device__ void
    grow(const CollectCall& call,
         const CollectWave& wave,
         const float (&score)[64],
         int tile,
         float scale,
         const TwoRows& rows,
         int first) {
        const int own = threadIdx.x % 4, capacity = call.output.capacity;
        const float* own_scales = lane_scales<form>(call.model, tile);
        uint32_t word[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const uint32_t below =
                    scores_below<form>(score, h, rows.threshold[h], scale, own_scales);
            word[h] = in_order(~below);
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            int end = __popc(word[h]);
#pragma unroll
            for (int step = 1; step < 4; step *= 2) {
                const int before = __shfl_up_sync(whole_warp, end, step, 4);
                end += own >= step ? before : 0;
            }
            int place = count[h] + end - __popc(word[h]);
            count[h] += __shfl_sync(whole_warp, end, 3, 4);
            uint16_t* list = call.output.component + (wave.first + first + 8 * h) * capacity;
            const int component = tile * collect_tile + 32 * own;
            const int places =
                    rows.threshold[h] == closed ? 0 : capacity; // such a row may not be there
#pragma unroll 1
            for (; word[h] != 0; ++place) {
                const int c = __clz(static_cast<int>(word[h]));
                word[h] &= ~(0x80000000u >> c);
                if (place < places) {
                    list[place] = static_cast<uint16_t>(component + c);
                }
            }
        }
    }
    /// No tile comes any more.
    __device__ void
    end(const CollectCall& call, const CollectWave& wave, const TwoRows& rows, int first) const {
        const int too_many = call.output.capacity + 1;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = first + 8 * h;
            if (threadIdx.x % 4 == 0 && row < wave.rows) {
                const int listed = rows.threshold[h] == closed ? too_many : count[h];
                call.output.count[wave.first + row] = static_cast<uint8_t>(min(listed, too_many));
            }
        }
    }
};

/// (5) Tiles of a lane's two rows that have marks; more than there are places: the row overflows.
struct MarkedTiles {
    int count[2] = {0, 0};

    /// Of tile `tile`, whose components have that scale. `marks` [16]: of the warp's rows; in places `begin`
    /// to begin + places - 1.
    template <CollectForm form>
    __device__ void mark_candidates(
            const CollectModel& model,
            const float (&score)[64],
            int tile,
            float scale,
            const TwoRows& rows,
            RowMarks* marks,
            int begin,
            int places) {
        const int lane = threadIdx.x % 32;
        const float* own = lane_scales<form>(model, tile);
        uint32_t word[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            word[h] = ~scores_below<form>(score, h, rows.threshold[h], scale, own);
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const uint32_t any = __ballot_sync(whole_warp, word[h] != 0);
            if ((any >> (lane / 4 * 4) & 15u) == 0) {
                continue;
            }
            if (count[h] < places) {
                RowMarks& row = marks[lane / 4 + 8 * h];
                row.word[begin + count[h]][lane % 4] = word[h];
                if (lane % 4 == 0) {
                    row.tile[begin + count[h]] = static_cast<uint16_t>(tile);
                }
            }
            ++count[h];
        }
    }
    /// To the warp's [16], in shared memory.
    __device__ void tell(int* counts) const {
        const int lane = threadIdx.x % 32;
        if (lane % 4 == 0) {
            counts[lane / 4] = count[0];
            counts[lane / 4 + 8] = count[1];
        }
        __syncwarp();
    }
};

/// Which place holds the lane-th of a row's marked tiles, of two sequences of `first` and `second` tiles
/// that are ascending each, in the first and the second half of its places.
__device__ inline int merged_place(const RowMarks& marks, int first, int second) {
    constexpr int half = mark_places / 2;
    const int lane = threadIdx.x % 32, own = lane < half ? lane : lane - half;
    const bool exists = lane < mark_places && own < (lane < half ? first : second);
    const int tile = exists ? marks.tile[lane] : INT_MAX;
    int number = own;
    for (int i = 0; i < half; ++i) {
        number += __shfl_sync(whole_warp, tile, lane < half ? half + i : i) < tile;
    }
    int place = 0;
    for (int i = 0; i < mark_places; ++i) {
        const bool is_mine = __shfl_sync(whole_warp, exists ? number : -1, i) == lane;
        place = is_mine ? i : place;
    }
    return place;
}

/// (5) for a warp's 16 rows, `first` of the wave and after. Tiles with marks by `count` [16], and of the
/// second half of the components, which other warps have marked, by `second` [16].
__device__ inline void write_marked(
        const CollectCall& call,
        const CollectWave& wave,
        int first,
        const RowMarks* marks,
        const int* count,
        const int* second) {
    constexpr int places = mark_places / 2;
    const CollectOutput& output = call.output;
    const int lane = threadIdx.x % 32, row = first + lane;
    const bool there = lane < 16 && row < wave.rows;
    const int tiles = there ? count[lane] : 0;
    const int other_tiles = there ? second[lane] : 0;
    const bool fits =
            there && wave.threshold[row] != closed && tiles <= places && other_tiles <= places;
    int mine = fits ? 0 : output.capacity + 1;
    uint32_t left = __ballot_sync(whole_warp, fits && tiles + other_tiles > 0);
    struct Part {
        uint32_t word = 0;
        int tile = 0;
    };
    // Eight tiles of the first of `rows`, from number `from` on.
    const auto part_of = [&](uint32_t rows, int from) {
        const int r = rows != 0 ? __ffs(static_cast<int>(rows)) - 1 : 0;
        const int n = __shfl_sync(whole_warp, tiles, r);
        const int others = __shfl_sync(whole_warp, other_tiles, r);
        int place = from + lane / 4;
        const bool exists = rows != 0 && place < n + others;
        place = __shfl_sync(whole_warp, merged_place(marks[r], n, others), place % 32);
        Part part;
        if (exists) {
            part.word = marks[r].word[place][lane % 4];
            part.tile = marks[r].tile[place];
        }
        return part;
    };
    Part next = part_of(left, 0);
    while (left != 0) {
        const int r = __ffs(static_cast<int>(left)) - 1;
        const int all_tiles = __shfl_sync(whole_warp, tiles + other_tiles, r);
        uint16_t* list = output.component + (wave.first + first + r) * output.capacity;
        int listed = 0;
#pragma unroll 1
        for (int from = 0; from < all_tiles; from += 8) {
            const Part part = next;
            // The next ones are on their way while these are written.
            next = from + 8 < all_tiles ? part_of(left, from + 8) : part_of(left & (left - 1), 0);
            uint32_t word = in_order(part.word);
            int end = __popc(word);
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const int before = __shfl_up_sync(whole_warp, end, step);
                end += lane >= step ? before : 0;
            }
            int place = listed + end - __popc(word);
            listed += __shfl_sync(whole_warp, end, 31);
            const int component = part.tile * collect_tile + 32 * (lane % 4);
#pragma unroll 1
            for (; word != 0; ++place) {
                const int c = __clz(static_cast<int>(word));
                word &= ~(0x80000000u >> c);
                if (place < output.capacity) {
                    list[place] = static_cast<uint16_t>(component + c);
                }
            }
        }
        mine = lane == r ? min(listed, output.capacity + 1) : mine;
        left &= left - 1;
    }
    if (there) {
        output.count[wave.first + row] = static_cast<uint8_t>(mine);
    }
    __syncwarp(); // the next rows' counts come where these have been read
}

} // namespace faiss_gmm::cuda
