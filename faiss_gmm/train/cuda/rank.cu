// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The best m components of each row, their log r and |x - mu_k|^2.
// A warp takes 32 rows. Those of one candidate straight ahead, a few at a time; the others one after the
//   other: all their candidates by (1) of detail/candidates.cuh in fp32, eight lanes a candidate, four at
//   once; then a candidate a lane for the order and the normaliser.
// Rows whose list does not settle them are left to the exact tier.
// Cost: n d 4 bytes read; the means of all candidates come from L1 and L2. 50 instructions for four
//   candidates of up to 128 dimensions, 4 for each and 150 for the row.
// Numerics: l_k less that of the best, off by at most (4 chunks + 12) u (l_k's and the best's squares, each
//   weighted by hp). Where that moves a responsibility by 5e-5 or leaves open which is best, or a row is so
//   far off that its likelihood is too coarse, its candidates are computed again in fp64.
// Determinism: gpu_to_gpu, but for the libm's expf and logf; what is made of a row depends on the row and its
//   list alone. Equals rank by the lower component.
// Reference and test: tests/train/naive_em.h, tests/train/cuda/cuda_estep_engine_test.cc.
// Lost: comparing as training does (compare.cu) and ranking two lanes a row in a second kernel: 1.2 and .9
//   ms for (1M, 1024, 128) with 17 candidates a row, the latter for lists that each lane reads by itself.
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/judge.cuh"
#include "faiss_gmm/train/cuda/detail/weigh.h"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps_a_block = 4;
constexpr int candidate_lanes = 8; ///< of one candidate, each with 16 of 128 dimensions
constexpr int candidates_at_once = 32 / candidate_lanes;
constexpr int lane_numbers = chunk_width / candidate_lanes;

__device__ void leave(const RowsLeft& left, uint32_t row) {
    left.row[atomicAdd(left.count, 1)] = row;
}

/// A lane's numbers of the 128 dimensions from `begin` on: four by four, neighbours in neighbouring lanes.
/// Where rows of d numbers are aligned, places past d read a table's first numbers, and for the row the means'
/// first ones: differences of zero, and no branch.
struct LanePlaces {
    static constexpr int fours = lane_numbers / 4;
    int at[fours];     ///< 0 past d
    int stride[fours]; ///< d, or 0 past d
    int begin;

    __device__ LanePlaces(int first_dimension, int d) : begin(first_dimension) {
#pragma unroll
        for (int i = 0; i < fours; ++i) {
            const bool exists = dimension(i) < d;
            at[i] = exists ? dimension(i) : 0;
            stride[i] = exists ? d : 0;
        }
    }
    __device__ int dimension(int i) const {
        return begin + 4 * (candidate_lanes * i + static_cast<int>(threadIdx.x) % candidate_lanes);
    }
    /// Of row k of `table` [.., d], of fewer than 2^31 numbers.
    __device__ void
    load(const float* table, int k, int d, bool aligned, float (&out)[lane_numbers]) const {
        if (!aligned) {
#pragma unroll
            for (int i = 0; i < fours; ++i) {
                load_four(table + first_number(k, d), dimension(i), d, false, out + 4 * i);
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < fours; ++i) {
            const auto* from = table + static_cast<uint32_t>(k * stride[i] + at[i]);
            const auto four = *reinterpret_cast<const float4*>(from);
            out[4 * i] = four.x;
            out[4 * i + 1] = four.y;
            out[4 * i + 2] = four.z;
            out[4 * i + 3] = four.w;
        }
    }
    /// Of the row whose numbers begin here; `table`: what load() reads beside it.
    template <class T>
    __device__ void load_row(
            const T* row,
            bool row_aligned,
            const float* table,
            int d,
            bool aligned,
            float (&out)[lane_numbers]) const {
#pragma unroll
        for (int i = 0; i < fours; ++i) {
            if (aligned && stride[i] == 0) {
                load_four(table, 0, d, true, out + 4 * i);
            } else {
                load_four(row, dimension(i), d, row_aligned, out + 4 * i);
            }
        }
    }
};

/// Of a row and a candidate.
struct Squares {
    float weighted = 0; ///< sum_j hp_kj (x_j - mu_kj)^2
    float plain = 0;    ///< |x - mu_k|^2
};

/// Over a candidate's lanes; in all of them.
__device__ inline float candidate_sum(const float (&parts)[4]) {
    float sum = (parts[0] + parts[1]) + (parts[2] + parts[3]);
#pragma unroll
    for (int step = candidate_lanes / 2; step > 0; step /= 2) {
        sum += __shfl_xor_sync(whole_warp, sum, step);
    }
    return sum;
}

/// Of lane l: of candidate number l, `component`, of the row that begins at number `first`. All lanes take
/// part; what those past the count get means nothing.
template <Covariance form, int chunks>
__device__ Squares
squares_of(const MixtureView& mixture, const Rows& x, size_t first, int count, int component) {
    constexpr bool weighs = form == Covariance::diagonal, has_low = has_low_parts(form);
    const int lane = threadIdx.x % 32, d = mixture.d;
    const bool aligned = d % 4 == 0;
    float row[lane_numbers], row_low[lane_numbers];
    const auto load_row = [&](const LanePlaces& places) {
        visit(x, [&](const auto* numbers) {
            places.load_row(numbers + first, x.aligned, mixture.means, d, aligned, row);
        });
        if constexpr (has_low) {
            places.load_row(x.low + first, aligned, mixture.means_low, d, aligned, row_low);
        }
    };
    LanePlaces places(0, d);
    if (chunks == 1) {
        load_row(places);
    }
    Squares mine;
#pragma unroll 1
    for (int l0 = 0; l0 < count; l0 += 2 * candidates_at_once) {
        const bool both = l0 + candidates_at_once < count;
        int k[2];
        float plain[2][4] = {}, weighted[2][4] = {};
#pragma unroll
        for (int o = 0; o < 2; ++o) {
            const int l = l0 + candidates_at_once * o + lane / candidate_lanes;
            k[o] = __shfl_sync(whole_warp, component, min(l, count - 1));
        }
        const auto add = [&](int o, const float(&mu)[lane_numbers]) {
            float low[lane_numbers], precision[lane_numbers];
            if constexpr (has_low) {
                places.load(mixture.means_low, k[o], d, aligned, low);
            }
            if constexpr (weighs) {
                places.load(mixture.half_precision32, k[o], d, aligned, precision);
            }
#pragma unroll
            for (int i = 0; i < lane_numbers; ++i) {
                float e = row[i] - mu[i];
                if constexpr (has_low) {
                    e += row_low[i] - low[i];
                }
                plain[o][i / 4] = fmaf(e, e, plain[o][i / 4]);
                if constexpr (weighs) {
                    weighted[o][i / 4] = fmaf(precision[i] * e, e, weighted[o][i / 4]);
                }
            }
        };
#pragma unroll 1
        for (int begin = 0; begin < chunk_width * chunks; begin += chunk_width) {
            if (chunks > 1) {
                places = LanePlaces(begin, d);
            }
            float mu[2][lane_numbers]; // both on their way at once
            places.load(mixture.means, k[0], d, aligned, mu[0]);
            if (both) {
                places.load(mixture.means, k[1], d, aligned, mu[1]);
            }
            if (chunks > 1) {
                load_row(places);
            }
            add(0, mu[0]);
            if (both) {
                add(1, mu[1]);
            }
        }
#pragma unroll
        for (int o = 0; o < 2; ++o) {
            if (o == 1 && !both) {
                break;
            }
            const int from = candidate_lanes * (lane % candidates_at_once);
            const bool is_mine = lane / candidates_at_once == l0 / candidates_at_once + o;
            const float sum = __shfl_sync(whole_warp, candidate_sum(plain[o]), from);
            mine.plain = is_mine ? sum : mine.plain;
            if constexpr (weighs) {
                const float other = __shfl_sync(whole_warp, candidate_sum(weighted[o]), from);
                mine.weighted = is_mine ? other : mine.weighted;
            }
        }
    }
    if (form == Covariance::spherical) {
        mine.weighted = mixture.half_precision32[component] * mine.plain;
    } else if (!weighs) {
        mine.weighted = mixture.half_precision32[0] * mine.plain;
    }
    return mine;
}

/// A row's candidates, one a lane.
struct RankedRow {
    float relative = -infinity; ///< l_k less some number of the row
    // Made of them:
    float best = 0;
    int home = 0;    ///< place of the best, the lower of equals; of no use where there is NaN
    float share = 0; ///< exp(relative - best), of those within the margin
    float sum = 0;

    __device__ void normalise(float margin) {
        best = warp_max(relative);
        home = __ffs(static_cast<int>(__ballot_sync(whole_warp, relative == best))) - 1;
        const float below = best - relative;
        share = below <= margin ? expf(-below) : 0.0f;
        sum = warp_sum(share);
    }
};

/// A row of several candidates.
template <Covariance form, int chunks>
__device__ void rank_row(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        const RowsLeft& left,
        const TopOutput& out,
        uint32_t row,
        int count) {
    constexpr float epsilon = (4 * chunks + 12) * unit_roundoff;
    const int lane = threadIdx.x % 32, d = mixture.d;
    const bool exists = lane < count;
    const size_t first = first_number(row, d);
    const int component =
            lists.component[static_cast<size_t>(row) * lists.capacity + min(lane, count - 1)];
    Squares squares = squares_of<form, chunks>(mixture, lists.x, first, count, component);
    // Relative to the best as far as fp32 knows, so that what cancels is small where it matters.
    const double constant = mixture.constant[component];
    const double first_constant = __shfl_sync(whole_warp, constant, 0);
    const float rough = static_cast<float>(constant - first_constant) - squares.weighted;
    const unsigned bests = __ballot_sync(whole_warp, rough == warp_max(rough));
    const int reference = bests != 0 ? __ffs(static_cast<int>(bests)) - 1 : 0;
    const float constants =
            static_cast<float>(constant - __shfl_sync(whole_warp, constant, reference));
    const float weighted = __shfl_sync(whole_warp, squares.weighted, reference);
    RankedRow ranked;
    ranked.relative = exists ? weighted - squares.weighted + constants : -infinity;
    ranked.normalise(rule.margin);
    const float error =
            lane == reference
                    ? 0.0f
                    : epsilon * (squares.weighted + weighted) +
                              unit_roundoff * (4 * fabsf(ranked.relative) + fabsf(constants));
    const float both = error + __shfl_sync(whole_warp, error, max(ranked.home, 0));
    const float r = ranked.share / ranked.sum, slope = fminf(r, 1 - r) + 1e-6f;
    const bool settles =
            is_near({squares.plain, weighted}, d) &&
            (!exists || (slope * both <= tolerable_shift &&
                         (lane == ranked.home || ranked.best - ranked.relative > both)));
    if (!__all_sync(whole_warp, settles)) { // NaN never does
        double square = 0;
        const double joint =
                exact_joint<form>(mixture, lists.x, first, count, component, lane, square);
        const double highest = warp_max(joint);
        const bool finite = isfinite(highest);
        if (!finite && !all_finite_row(lists.x, first, d, lane)) {
            if (lane == 0) {
                atomicMin(bad_row, first_row + row);
            }
            return;
        }
        ranked.relative = !exists ? -infinity : finite ? static_cast<float>(joint - highest) : 0.0f;
        squares.plain = static_cast<float>(square);
        ranked.normalise(rule.margin);
    }
    int rank = lane != ranked.home;
    if (m > 1) {
        rank = 0;
#pragma unroll 4
        for (int other = 0; other < count; ++other) {
            const float value = __shfl_sync(whole_warp, ranked.relative, other);
            rank += value > ranked.relative || (value == ranked.relative && other < lane);
        }
        // Lists of the m best alone: the normaliser is complete if the m-th is beyond the margin.
        const bool within = exists && rank == m - 1 &&
                            ranked.relative >= ranked.best - rule.margin && count < mixture.K;
        if (__any_sync(whole_warp, within)) {
            if (lane == 0) {
                leave(left, row);
            }
            return;
        }
    }
    if (exists && rank < m) {
        const size_t at = static_cast<size_t>(row) * m + rank;
        out.component[at] = component;
        out.log_responsibility[at] = ranked.relative - ranked.best - logf(ranked.sum);
        if (form != Covariance::tied) { // tied: of rows before they were whitened, later
            out.squared_distance[at] = squares.plain;
        }
    }
}

template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block, chunks == 1 ? 5 : 1) rank_kernel(
        const __grid_constant__ MixtureView mixture,
        PairRule rule,
        const __grid_constant__ RowLists lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        RowsLeft left,
        TopOutput out) {
    const int first = (blockIdx.x * warps_a_block + threadIdx.x / 32) * 32;
    const int lane = threadIdx.x % 32, here = min(32, lists.rows - first);
    if (here <= 0) {
        return;
    }
    constexpr int ahead = rows_ahead(chunks);
    const int d = mixture.d, my_row = first + lane;
    const int my_count = lane < here ? lists.count[my_row] : -1;
    const int my_home = my_count > 0 ? lists.home[my_row] : 0;
    const bool is_left = my_count == 0 || my_count > lists.capacity ||
                         (lane < here && my_count < min(m, mixture.K));
    if (is_left) {
        leave(left, my_row);
    }
    const unsigned alone = __ballot_sync(whole_warp, my_count == 1 && !is_left);
    const unsigned several = __ballot_sync(whole_warp, my_count > 1 && !is_left);
    float my_square = -1; // of a row that is done straight ahead
    for (int i0 = 0; i0 < here && form != Covariance::diagonal; i0 += ahead) {
        if ((alone >> i0 & ((1u << ahead) - 1)) == 0) {
            continue;
        }
        float values[ahead][4 * chunks];
        size_t at[ahead];
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            at[i] = first_number(first + min(i0 + i, here - 1), d);
        }
        load_rows<chunks>(lists.x, at, d, lane, values);
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            const int home = __shfl_sync(whole_warp, my_home, min(i0 + i, here - 1));
            const Component<form, chunks> c(mixture, home);
            centre_at<form, chunks>(c, lists.x, at[i], d, lane, values[i]);
            const AgainstHome against = against_c<form, chunks>(mixture, c, values[i], lane);
            if (lane == i0 + i && is_near(against, d)) {
                my_square = against.square;
            }
        }
    }
    const bool is_alone = (alone >> lane & 1) != 0;
    unsigned far =
            __ballot_sync(whole_warp, is_alone && my_square < 0); // or not finite, or diagonal
#pragma unroll 1
    for (; far != 0; far &= far - 1) {
        const int i = __ffs(static_cast<int>(far)) - 1;
        const size_t at = first_number(first + i, d);
        const int home = __shfl_sync(whole_warp, my_home, i);
        double square = 0;
        exact_joint<form>(mixture, lists.x, at, 1, home, lane, square);
        square = __shfl_sync(whole_warp, square, 0);
        const bool is_row = isfinite(square) || all_finite_row(lists.x, at, d, lane);
        if (lane == i && is_row) {
            my_square = static_cast<float>(square);
        } else if (lane == i) {
            atomicMin(bad_row, first_row + my_row);
        }
    }
    if (is_alone && my_square >= 0) {
        const size_t at = static_cast<size_t>(my_row) * m;
        out.component[at] = my_home;
        out.log_responsibility[at] = 0;
        out.squared_distance[at] = my_square;
    }
#pragma unroll 1
    for (unsigned rows = several; rows != 0; rows &= rows - 1) {
        const int i = __ffs(static_cast<int>(rows)) - 1;
        rank_row<form, chunks>(
                mixture,
                rule,
                lists,
                m,
                first_row,
                bad_row,
                left,
                out,
                first + i,
                __shfl_sync(whole_warp, my_count, i));
    }
}

template <Covariance form, int chunks> struct Rank {
    static void
    go(const MixtureView& mixture,
       const PairRule& rule,
       const RowLists& lists,
       int m,
       unsigned long long first_row,
       unsigned long long* bad_row,
       const RowsLeft& left,
       const TopOutput& out,
       cudaStream_t stream) {
        rank_kernel<form, chunks>
                <<<(lists.rows + 32 * warps_a_block - 1) / (32 * warps_a_block),
                   32 * warps_a_block,
                   0,
                   stream>>>(mixture, rule, lists, m, first_row, bad_row, left, out);
    }
};

} // namespace

void rank_candidates(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        const RowsLeft& left,
        const TopOutput& out,
        cudaStream_t stream) {
    if (lists.rows > 0) {
        launch_for<Rank>(mixture, rule, lists, m, first_row, bad_row, left, out, stream);
        check_launch("ranking components");
    }
}

} // namespace faiss_gmm::cuda
