// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The best m components of each row, their log r and |x - mu_k|^2.
// A warp takes 32 rows, compared already (compare.cu). Those of one candidate straight ahead; the others
//   normalised (detail/judge.cuh) and ranked, two lanes a row.
// Rows whose list does not settle them are left to the exact tier.
// Cost: n d 4 bytes read; for each component of a row of several candidates again where variances differ.
// Numerics, determinism: detail/judge.cuh. Equals rank by the lower component.
// Reference and test: tests/train/naive_em.h, tests/train/cuda/cuda_estep_engine_test.cc.
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/judge.cuh"
#include "faiss_gmm/train/cuda/detail/weigh.h"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps_a_block = 4;

/// |x - mu_k|^2 in fp32, by a warp.
__device__ float
squared_distance(const MixtureView& mixture, const Rows& x, size_t first, int k, int lane) {
    const float* mean = mixture.means + first_number(k, mixture.d);
    float square = 0;
    for (int j = lane; j < mixture.d; j += 32) {
        const float e = high_number(x, first + j) - mean[j];
        square = fmaf(e, e, square);
    }
    return warp_sum(square);
}

__device__ void leave(const RowsLeft& left, uint32_t row) {
    left.row[atomicAdd(left.count, 1)] = row;
}

/// |x - mu_k|^2 from what comparing left of it: tied_spherical.
__device__ float square_of(
        const MixtureView& mixture,
        const RowLists& lists,
        const JudgedRow& row,
        int k,
        float relative) {
    const double precision = mixture.half_precision[0];
    if (row.in_fp64) {
        const double joint = row.reference + static_cast<double>(relative);
        return static_cast<float>((mixture.constant[k] - joint) / precision);
    }
    const float constants = constants_between(mixture, k, lists.home[row.row]);
    const double nearer = static_cast<double>(relative) - static_cast<double>(constants);
    return static_cast<float>(row.square - nearer / precision);
}

/// Rows of several candidates that the warp's lanes have taken.
template <Covariance form>
__device__ void rank_rows(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        JudgedRow& mine,
        const RowsLeft& left,
        const TopOutput& out) {
    const int lane = threadIdx.x % 32, half = lane % 2;
    judge<form>(mixture, rule.margin, lists, first_row, bad_row, mine);
    const float* relative = mine.relative;
    const int count = mine.count;
    // A place's rank: how many are better, the lower component of equals first.
    const auto rank_of = [&](int l) {
        if (m == 1) {
            return static_cast<int>(l != mine.home);
        }
        int better = 0;
        for (int other = 0; other < count; ++other) {
            better +=
                    relative[other] > relative[l] || (relative[other] == relative[l] && other < l);
        }
        return better;
    };
    const uint16_t* components = lists.component + static_cast<size_t>(mine.row) * lists.capacity;
    const float log_sum = logf(mine.sum);
    // Lists of the m best alone: the normaliser is complete if the m-th is beyond the margin.
    bool incomplete = false;
    uint32_t written = 0;
    for (int l = half; l < count; l += 2) {
        const int rank = rank_of(l);
        if (rank >= m) {
            continue;
        }
        incomplete |= rank == m - 1 && relative[l] >= mine.best - rule.margin;
        const size_t at = static_cast<size_t>(mine.row) * m + rank;
        out.component[at] = components[l];
        out.log_responsibility[at] = relative[l] - mine.best - log_sum;
        if (form == Covariance::tied_spherical) { // tied: of rows before they were whitened, later
            const float square = square_of(mixture, lists, mine, components[l], relative[l]);
            out.squared_distance[at] = fmaxf(0.0f, square);
        }
        written |= 1u << l;
    }
    incomplete = (incomplete | of_other_lane(incomplete)) && m > 1 && count < mixture.K;
    if (incomplete && half == 0) {
        leave(left, mine.row); // is written again
    }
    if (form == Covariance::diagonal || form == Covariance::spherical) {
        written |= of_other_lane(written);
#pragma unroll 1
        for (int pair = 0; pair < 32; pair += 2) {
            const uint32_t row = __shfl_sync(whole_warp, mine.row, pair);
#pragma unroll 1
            for (uint32_t its = __shfl_sync(whole_warp, written, pair); its != 0; its &= its - 1) {
                const int l = __ffs(static_cast<int>(its)) - 1;
                const int k = lists.component[static_cast<size_t>(row) * lists.capacity + l];
                const float square =
                        squared_distance(mixture, lists.x, first_number(row, mixture.d), k, lane);
                if (lane == pair) {
                    out.squared_distance[static_cast<size_t>(row) * m + rank_of(l)] = square;
                }
            }
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
    for (int begin = 0; begin < 32; begin += judged_at_once) {
        const int i = begin + lane / 2;
        const bool mine = (several >> i & 1) != 0;
        if (__any_sync(whole_warp, mine)) {
            JudgedRow row = take_row<form>(mixture, lists, mine, first + i);
            rank_rows<form>(mixture, rule, lists, m, first_row, bad_row, row, left, out);
        }
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
