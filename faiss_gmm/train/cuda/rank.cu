// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The best m components of each row, their log r and |x - mu_k|^2.
// A warp takes 32 rows. Those of one candidate, where m = 1, straight ahead in a kernel of their own; the
//   others four at once, eight lanes each: all their candidates by (1) of detail/candidates.cuh in fp32, one
//   after the other; then up to four candidates a lane for the order and the normaliser.
// Rows whose list does not settle them are left to the exact tier, and all of them where m is more than 16.
// Cost: n d 4 bytes read; the means of all candidates come from L1 and L2. 690 instructions a row for 19
//   candidates of up to 128 dimensions; 4.6 TB/s from L2, on an H100.
// Numerics: l_k less that of the best, off by at most (4 chunks + 12) u (l_k's and the best's squares, each
//   weighted by hp). Where that moves a responsibility by 5e-5 or leaves open which is best, or a row is so
//   far off that its likelihood is too coarse, its candidates are computed again in fp64.
// Determinism: gpu_to_gpu, but for the libm's expf and logf; what is made of a row depends on the row and its
//   list alone. Equals rank by the lower component.
// Reference and test: tests/train/naive_em.h, tests/train/cuda/cuda_estep_engine_test.cc.
// Lost: comparing as training does (compare.cu) and ranking two lanes a row in a second kernel: 1.2 and .9
//   ms for (1M, 1024, 128) with 17 candidates a row, the latter for lists that each lane reads by itself.
//   A row by the whole warp, four candidates at once: 1.89 where this takes 1.25, for its chain of shuffles.
#include <algorithm>

#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/judge.cuh"
#include "faiss_gmm/train/cuda/detail/weigh.h"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps_a_block = 4;
constexpr int row_lanes = 8; ///< of one row of several candidates, each with 16 of 128 dimensions
constexpr int rows_at_once = 32 / row_lanes;
constexpr int lane_numbers = chunk_width / row_lanes;
constexpr int slots = most_candidates / row_lanes; ///< candidates of a lane

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
        return begin + 4 * (row_lanes * i + static_cast<int>(threadIdx.x) % row_lanes);
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

/// `f` of a row's lanes; in all of them.
template <class T, class Function> __device__ T over_row(T value, const Function& f) {
#pragma unroll
    for (int step = row_lanes / 2; step > 0; step /= 2) {
        value = f(value, __shfl_xor_sync(whole_warp, value, step));
    }
    return value;
}
__device__ inline float row_sum(float value) {
    return over_row(value, [](float a, float b) { return a + b; });
}
__device__ inline float row_max(float value) {
    return over_row(value, [](float a, float b) { return fmaxf(a, b); });
}
__device__ inline int row_min(int value) {
    return over_row(value, [](int a, int b) { return min(a, b); });
}

/// Of a lane: its row's candidates number lane % 8 + 8 s.
__device__ inline int candidate_number(int s) {
    return row_lanes * s + static_cast<int>(threadIdx.x) % row_lanes;
}

/// The row's candidate number l; the row's lanes ask for the same.
template <class T> __device__ inline T of_candidate(const T (&values)[slots], int l) {
    T value = values[0];
#pragma unroll
    for (int s = 1; s < slots; ++s) {
        value = l / row_lanes == s ? values[s] : value;
    }
    return __shfl_sync(whole_warp, value, l % row_lanes, row_lanes);
}

/// The four rows of a warp, as a lane knows its own.
struct RankedRows {
    uint32_t row; ///< where there is none, any
    int count;    ///< candidates; 0: there is no row
    int most;     ///< candidates of a row, of the four
    size_t first; ///< number of the rows
    int component[slots];
    Squares squares[slots];
    float relative[slots]; ///< l_k less some number of the row; -infinity past the count
    // Made of these:
    float best;
    int home;           ///< number of the best, the lower of equals; of no use where there is NaN
    float share[slots]; ///< exp(relative - best), of those within the margin
    float sum;

    __device__ void normalise(float margin) {
        best = relative[0];
#pragma unroll
        for (int s = 1; s < slots; ++s) {
            best = fmaxf(best, relative[s]);
        }
        best = row_max(best);
        home = first_of(relative, best);
        sum = 0;
#pragma unroll
        for (int s = 0; s < slots; ++s) {
            const float below = best - relative[s];
            share[s] = below <= margin ? expf(-below) : 0.0f;
            sum += share[s];
        }
        sum = row_sum(sum);
    }
    /// Number of the first candidate that has such a value; 0 if none.
    __device__ static int first_of(const float (&values)[slots], float value) {
        int number = most_candidates;
#pragma unroll
        for (int s = slots - 1; s >= 0; --s) {
            number = values[s] == value ? candidate_number(s) : number;
        }
        return row_min(number) % most_candidates;
    }
};

/// Fills the squares. All lanes take part; what those past a row's count get means nothing.
template <Covariance form, int chunks>
__device__ void measure(const MixtureView& mixture, const Rows& x, RankedRows& rows) {
    constexpr bool weighs = form == Covariance::diagonal, has_low = has_low_parts(form);
    const int own = threadIdx.x % row_lanes, d = mixture.d;
    const bool aligned = d % 4 == 0;
    float row[lane_numbers], row_low[lane_numbers];
    const auto load_row = [&](const LanePlaces& places) {
        if (x.type == ElementType::f32 && x.aligned) { // as most are; no branches around loads
            const auto* numbers = static_cast<const float*>(x.data) + rows.first;
#pragma unroll
            for (int i = 0; i < LanePlaces::fours; ++i) {
                const bool inside = places.stride[i] != 0;
                float four[4];
                load_aligned(inside ? numbers + places.at[i] : mixture.means, four);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    row[4 * i + j] = four[j];
                }
            }
        } else {
            visit(x, [&](const auto* numbers) {
                places.load_row(numbers + rows.first, x.aligned, mixture.means, d, aligned, row);
            });
        }
        if constexpr (has_low) {
            places.load_row(x.low + rows.first, aligned, mixture.means_low, d, aligned, row_low);
        }
    };
    LanePlaces places(0, d);
    if (chunks == 1) {
        load_row(places);
    }
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        rows.squares[s] = {};
        const int here = min(row_lanes, rows.most - row_lanes * s);
#pragma unroll 1
        for (int l = 0; l < here; l += 2) {
            int k[2];
            float plain[2][4] = {}, weighted[2][4] = {};
#pragma unroll
            for (int o = 0; o < 2; ++o) {
                k[o] = __shfl_sync(whole_warp, rows.component[s], l + o, row_lanes);
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
                places.load(mixture.means, k[1], d, aligned, mu[1]);
                if (chunks > 1) {
                    load_row(places);
                }
                add(0, mu[0]);
                add(1, mu[1]);
            }
            const auto sum_of = [](const float(&parts)[4]) {
                return row_sum((parts[0] + parts[1]) + (parts[2] + parts[3]));
            };
#pragma unroll
            for (int o = 0; o < 2; ++o) {
                const float sum = sum_of(plain[o]);
                rows.squares[s].plain = own == l + o ? sum : rows.squares[s].plain;
                if constexpr (weighs) {
                    const float other = sum_of(weighted[o]);
                    rows.squares[s].weighted = own == l + o ? other : rows.squares[s].weighted;
                }
            }
        }
        if (!weighs) {
            const int k = form == Covariance::spherical ? rows.component[s] : 0;
            rows.squares[s].weighted = mixture.half_precision32[k] * rows.squares[s].plain;
        }
    }
}

/// Fills `relative` from the squares, and what is made of it. Whether that settles the row.
template <Covariance form, int chunks>
__device__ bool compare(const MixtureView& mixture, float margin, RankedRows& rows) {
    constexpr float epsilon = (4 * chunks + 12) * unit_roundoff;
    // Relative to the best as far as fp32 knows, so that what cancels is small where it matters.
    double constant[slots];
    float rough[slots];
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        constant[s] = mixture.constant[rows.component[s]];
    }
    const double first_constant = __shfl_sync(whole_warp, constant[0], 0, row_lanes);
    float roughly_best = -infinity;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        rough[s] = static_cast<float>(constant[s] - first_constant) - rows.squares[s].weighted;
        rough[s] = candidate_number(s) < rows.count ? rough[s] : -infinity;
        roughly_best = fmaxf(roughly_best, rough[s]);
    }
    const int reference = RankedRows::first_of(rough, row_max(roughly_best));
    const double reference_constant = of_candidate(constant, reference);
    float weighted[slots], constants[slots], error[slots];
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        weighted[s] = rows.squares[s].weighted;
        constants[s] = static_cast<float>(constant[s] - reference_constant);
    }
    const float of_reference = of_candidate(weighted, reference);
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        const bool exists = candidate_number(s) < rows.count;
        rows.relative[s] = exists ? of_reference - weighted[s] + constants[s] : -infinity;
    }
    rows.normalise(margin);
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        error[s] = candidate_number(s) == reference
                           ? 0.0f
                           : epsilon * (weighted[s] + of_reference) +
                                     unit_roundoff *
                                             (4 * fabsf(rows.relative[s]) + fabsf(constants[s]));
    }
    const float home_error = of_candidate(error, rows.home);
    bool settles = is_near({0, of_reference}, mixture.d);
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        const int l = candidate_number(s);
        const bool fine =
                stays(rows.share[s] / rows.sum,
                      rows.best - rows.relative[s],
                      error[s] + home_error,
                      l == rows.home);
        settles = settles && (fine || l >= rows.count);
    }
    return settles; // NaN never does
}

/// The row of lanes `first_lane` to first_lane + 7 again in fp64, by the warp. One with NaN or Inf has no
/// candidates any more, and bad_row is told of it.
template <Covariance form>
__device__ void compare_in_fp64(
        const MixtureView& mixture,
        const Rows& x,
        unsigned long long first_row,
        unsigned long long* bad_row,
        int first_lane,
        RankedRows& rows) {
    const int lane = threadIdx.x % 32;
    const uint32_t row = __shfl_sync(whole_warp, rows.row, first_lane);
    const int count = __shfl_sync(whole_warp, rows.count, first_lane);
    const size_t first = first_number(row, mixture.d);
    int component = 0;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        const int k = __shfl_sync(whole_warp, rows.component[s], first_lane + lane % row_lanes);
        component = lane / row_lanes == s ? k : component;
    }
    double square = 0;
    const double joint = exact_joint<form>(mixture, x, first, count, component, lane, square);
    const double highest = warp_max(joint);
    const bool finite = isfinite(highest);
    const bool is_row = finite || all_finite_row(x, first, mixture.d, lane);
    if (!is_row && lane == 0) {
        atomicMin(bad_row, first_row + row);
    }
    const float relative = finite ? static_cast<float>(joint - highest) : 0.0f;
    const bool is_mine = lane / row_lanes == first_lane / row_lanes;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        const int l = candidate_number(s);
        const float of_l = __shfl_sync(whole_warp, relative, l);
        const float square_of_l = __shfl_sync(whole_warp, static_cast<float>(square), l);
        if (is_mine) {
            rows.relative[s] = l < count ? of_l : -infinity;
            rows.squares[s].plain = square_of_l;
        }
    }
    rows.count = is_mine && !is_row ? 0 : rows.count;
}

/// How many of the row's candidates come before each of the lane's.
__device__ inline void find_places(const RankedRows& rows, int (&place)[slots]) {
    const int own = threadIdx.x % row_lanes;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        place[s] = 0;
    }
#pragma unroll
    for (int t = 0; t < slots; ++t) {
        const int here = min(row_lanes, rows.most - row_lanes * t);
#pragma unroll 2
        for (int l = 0; l < here; ++l) {
            const float other = __shfl_sync(whole_warp, rows.relative[t], l, row_lanes);
#pragma unroll
            for (int s = 0; s < slots; ++s) {
                const bool earlier = t < s || (t == s && l < own);
                place[s] += other > rows.relative[s] || (other == rows.relative[s] && earlier);
            }
        }
    }
}

/// Four rows of several candidates.
template <Covariance form, int chunks>
__device__ void rank_rows(
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
    const int lane = threadIdx.x % 32;
    RankedRows rows;
    rows.row = row;
    rows.count = count;
    rows.most = __reduce_max_sync(whole_warp, count);
    rows.first = first_number(row, mixture.d);
    const uint16_t* list = lists.component + static_cast<size_t>(row) * lists.capacity;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        rows.component[s] = count > 0 ? list[min(candidate_number(s), count - 1)] : 0;
    }
    measure<form, chunks>(mixture, lists.x, rows);
    const bool settles = compare<form, chunks>(mixture, rule.margin, rows);
    const unsigned unsettled = __ballot_sync(whole_warp, !settles && count > 0);
    if (unsettled != 0) {
#pragma unroll 1
        for (int first_lane = 0; first_lane < 32; first_lane += row_lanes) {
            if ((unsettled >> first_lane & ((1u << row_lanes) - 1)) != 0) {
                compare_in_fp64<form>(mixture, lists.x, first_row, bad_row, first_lane, rows);
            }
        }
        rows.normalise(rule.margin);
    }
    int place[slots];
    bool within = false;
    if (m > 1) {
        find_places(rows, place);
        // Lists of the m best alone: the normaliser is complete if the m-th is beyond the margin.
#pragma unroll
        for (int s = 0; s < slots; ++s) {
            within = within || (candidate_number(s) < rows.count && place[s] == m - 1 &&
                                rows.relative[s] >= rows.best - rule.margin);
        }
        const unsigned rows_within = __ballot_sync(whole_warp, within && rows.count < mixture.K);
        within = (rows_within >> lane / row_lanes * row_lanes & ((1u << row_lanes) - 1)) != 0;
        if (within && lane % row_lanes == 0) {
            leave(left, row);
        }
    } else {
#pragma unroll
        for (int s = 0; s < slots; ++s) {
            place[s] = candidate_number(s) != rows.home;
        }
    }
    const float log_sum = logf(rows.sum);
#pragma unroll
    for (int s = 0; s < slots; ++s) {
        if (!within && candidate_number(s) < rows.count && place[s] < m) {
            const size_t at = static_cast<size_t>(row) * m + place[s];
            out.component[at] = rows.component[s];
            out.log_responsibility[at] = rows.relative[s] - rows.best - log_sum;
            if (form != Covariance::tied) { // tied: of rows before they were whitened, later
                out.squared_distance[at] = rows.squares[s].plain;
            }
        }
    }
}

/// Of the 32 rows of a warp.
struct WarpRows {
    int first, here;
    int my_count; ///< candidates of the lane's row; -1: there is none

    __device__ explicit WarpRows(const RowLists& lists)
            : first((blockIdx.x * warps_a_block + threadIdx.x / 32) * 32),
              here(min(32, lists.rows - first)) {
        const int lane = threadIdx.x % 32;
        my_count = lane < here ? lists.count[first + lane] : -1;
    }
};

/// Rows of one candidate, where that is enough.
template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block) rank_single_kernel(
        const __grid_constant__ MixtureView mixture,
        const __grid_constant__ RowLists lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        TopOutput out) {
    const WarpRows rows(lists);
    constexpr int ahead = rows_ahead(chunks);
    const int lane = threadIdx.x % 32, d = mixture.d, my_row = rows.first + lane;
    const bool is_alone = rows.my_count == 1;
    const unsigned alone = __ballot_sync(whole_warp, is_alone);
    const int my_home = is_alone ? lists.home[my_row] : 0;
    float my_square = -1; // of a row that is done straight ahead
    for (int i0 = 0; i0 < rows.here && form != Covariance::diagonal; i0 += ahead) {
        if ((alone >> i0 & ((1u << ahead) - 1)) == 0) {
            continue;
        }
        float values[ahead][4 * chunks];
        size_t at[ahead];
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            at[i] = first_number(rows.first + min(i0 + i, rows.here - 1), d);
        }
        load_rows<chunks>(lists.x, at, d, lane, values);
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            const int home = __shfl_sync(whole_warp, my_home, min(i0 + i, rows.here - 1));
            const Component<form, chunks> c(mixture, home);
            centre_at<form, chunks>(c, lists.x, at[i], d, lane, values[i]);
            const AgainstHome against = against_c<form, chunks>(mixture, c, values[i], lane);
            if (lane == i0 + i && is_near(against, d)) {
                my_square = against.square;
            }
        }
    }
    unsigned far =
            __ballot_sync(whole_warp, is_alone && my_square < 0); // or not finite, or diagonal
#pragma unroll 1
    for (; far != 0; far &= far - 1) {
        const int i = __ffs(static_cast<int>(far)) - 1;
        const size_t at = first_number(rows.first + i, d);
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
}

/// Rows of several candidates; leaves those that their lists do not settle.
template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block, chunks == 1 ? 5 : 1) rank_several_kernel(
        const __grid_constant__ MixtureView mixture,
        PairRule rule,
        const __grid_constant__ RowLists lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        RowsLeft left,
        TopOutput out) {
    const WarpRows rows(lists);
    const int lane = threadIdx.x % 32;
    const bool is_left = rows.my_count == 0 || rows.my_count > lists.capacity ||
                         (lane < rows.here && rows.my_count < min(m, mixture.K));
    if (is_left) {
        leave(left, rows.first + lane);
    }
    unsigned several = __ballot_sync(whole_warp, rows.my_count > 1 && !is_left);
#pragma unroll 1
    while (several != 0) {
        int mine = -1; // of the next four
#pragma unroll
        for (int g = 0; g < rows_at_once; ++g) {
            mine = lane / row_lanes == g ? __ffs(static_cast<int>(several)) - 1 : mine;
            several &= several - 1;
        }
        const int count = __shfl_sync(whole_warp, rows.my_count, max(mine, 0));
        rank_rows<form, chunks>(
                mixture,
                rule,
                lists,
                m,
                first_row,
                bad_row,
                left,
                out,
                rows.first + max(mine, 0),
                mine < 0 ? 0 : count);
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
        constexpr int threads = 32 * warps_a_block;
        const int blocks = (lists.rows + threads - 1) / threads;
        if (std::min(m, mixture.K) == 1) {
            rank_single_kernel<form, chunks>
                    <<<blocks, threads, 0, stream>>>(mixture, lists, m, first_row, bad_row, out);
        }
        rank_several_kernel<form, chunks><<<blocks, threads, 0, stream>>>(
                mixture, rule, lists, m, first_row, bad_row, left, out);
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
