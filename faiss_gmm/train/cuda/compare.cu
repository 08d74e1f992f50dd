// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Rows against their candidates: l_k - l_c of each, c a row's provisional home.
//   (2) tied: l_k - l_c = 2 hp ((mu_k - mu_c).(x - mu_c) - |mu_k - mu_c|^2 / 2) + constant_k - constant_c
//   The other forms: (1) of detail/candidates.cuh, less l_c. Means [K, d] fp32, x [rows, d] of any element
//   type; whitened rows and means (tied, matrices.cu) have low parts beside them.
// Phases: a warp takes 16 rows, neighbours in `order`, and of these one after the other those with several
//   candidates, its lanes sharing the dimensions; four candidates at once.
// Cost: rows of several candidates read once, in the order of the homes; the means come from L1 and L2.
//   Some 180 instructions for four candidates, 64 of them (2), 90 for the row; 67% of the issue slots busy.
// Numerics: fp32 differences of given numbers, sums over d by lanes and a tree: (2) is off by at most
//   (4 chunks + 12) u (|mu_k - mu_c| |x - mu_c| + |mu_k - mu_c|^2 / 2) 2 hp, which goes with it (the
//   first product as half the sum of its squares), rounded up to 8 bits.
// Determinism: gpu_to_gpu; what is made of a row depends on the row and c alone.
// Reference and test: tests/train/naive_em.h, tests/train/cuda/cuda_estep_engine_test.cc.
// Lost: comparing, normalising and adding in one kernel: 96 to 128 registers, 12 warps a multiprocessor on
//   average, each waiting 7 cycles an instruction. Eight lanes a candidate.
#include "faiss_gmm/train/cuda/detail/candidates.cuh"
#include "faiss_gmm/train/cuda/detail/device.h"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps_a_block = 4;
constexpr int rows_a_warp = 16;

/// The upper half of a float that is not less; value >= 0 (or NaN, where what it bounds is NaN too).
__device__ inline uint16_t rounded_up(float value) {
    return static_cast<uint16_t>((__float_as_uint(value) + 0xffffu) >> 16);
}

/// Candidates whose means are under way at once.
constexpr int compared_at_once = 4;

/// (2), or (1) relative to c, in fp32 for every candidate, one a lane; difference = x - mu_c. A few at a
/// time, for one after the other each would wait for its mean.
template <Covariance form, int chunks>
__device__ void
compare(const MixtureView& mixture,
        const Component<form, chunks>& c,
        const Rows& x,
        size_t first,
        const float (&difference)[4 * chunks],
        const AgainstHome& against,
        int count,
        int component,
        int place_of_c,
        int lane,
        float* relative,
        uint16_t* error) {
    constexpr float epsilon = (4 * chunks + 12) * unit_roundoff;
    const int d = mixture.d;
    const bool means_aligned = d % 4 == 0;
    const int others = count - (place_of_c < count);
    const int first_of_c = c.k * d;
    if (lane == place_of_c) {
        relative[lane] = 0;
        error[lane] = 0;
    }
    for (int l0 = 0; l0 < others; l0 += compared_at_once) {
        // Lane l writes candidate number l0 + l / 4 % 4 of the others; the last one again where there
        // are fewer.
        const int number = min(l0 + lane / 4 % compared_at_once, others - 1);
        const int place = number + (number >= place_of_c);
        const int k = __shfl_sync(whole_warp, component, place);
        const float constants = constants_between(mixture, k, c.k);
        const float half_precision =
                form == Covariance::spherical ? mixture.half_precision32[k] : c.half_precision;
        int row[compared_at_once]; // of the means, of which there are fewer than 2^31 numbers
        float sums[2 * compared_at_once] = {};
#pragma unroll
        for (int o = 0; o < compared_at_once; ++o) {
            row[o] = __shfl_sync(whole_warp, k, 4 * o) * d;
        }
#pragma unroll 1
        for (int i = 0; i < chunks; ++i) {
            const int at = chunk_width * i + 4 * lane;
            float mu[compared_at_once][4], mu_c[4] = {0, 0, 0, 0}, near[4] = {0, 0, 0, 0};
            if (compares_by_products(form) && means_aligned) {
                // Lanes past d read from c's mean on both sides: a difference of zero, and no branch.
                const bool inside = at < d;
#pragma unroll
                for (int o = 0; o < compared_at_once; ++o) {
                    load_aligned(mixture.means + (inside ? row[o] + at : first_of_c), mu[o]);
                }
                load_aligned(mixture.means + first_of_c + (inside ? at : 0), mu_c);
            } else {
#pragma unroll
                for (int o = 0; o < compared_at_once; ++o) {
                    load_four(mixture.means + row[o], at, d, means_aligned, mu[o]);
                }
                if (compares_by_products(form)) {
                    load_four(c.mean, at, d, means_aligned, mu_c);
                }
            }
            if (!compares_by_products(form) || chunks > 1) {
                load_four(x, first, at, d, near);
            }
            if constexpr (has_low_parts(form)) { // all of them less mu_c
                float low_c[4], low[4];
                load_four(c.mean_low, at, d, means_aligned, low_c);
#pragma unroll
                for (int o = 0; o < compared_at_once; ++o) {
                    load_four(mixture.means_low + row[o], at, d, means_aligned, low);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        mu[o][j] = mu[o][j] - mu_c[j] + (low[j] - low_c[j]);
                    }
                }
                load_four(x.low + first, at, d, d % 4 == 0, low);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    near[j] = near[j] - mu_c[j] + (low[j] - low_c[j]);
                    mu_c[j] = 0;
                }
            }
#pragma unroll
            for (int o = 0; o < compared_at_once; ++o) {
                if (l0 + o >= others) {
                    break;
                }
                float p[4] = {1, 1, 1, 1};
                if (form == Covariance::diagonal) {
                    load_four(mixture.half_precision32 + row[o], at, d, means_aligned, p);
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (compares_by_products(form)) {
                        const float t = mu[o][j] - mu_c[j];
                        const float own = chunks == 1 ? difference[j] : near[j] - mu_c[j];
                        sums[o] = fmaf(t, fmaf(-0.5f, t, own), sums[o]);
                        sums[compared_at_once + o] = fmaf(t, t, sums[compared_at_once + o]);
                    } else {
                        const float e = near[j] - mu[o][j];
                        sums[o] = fmaf(p[j] * e, e, sums[o]);
                    }
                }
            }
        }
        const float sum = warp_sums(sums); // lane l has number l / 4
        const float apart = __shfl_down_sync(whole_warp, sum, 4 * compared_at_once);
        float value, bound;
        if (compares_by_products(form)) {
            value = 2 * half_precision * sum + constants;
            // |mu_k - mu_c| |x - mu_c| is at most half of the sum of their squares.
            bound = epsilon * 2 * half_precision * (apart + 0.5f * against.square);
        } else {
            const float weighted = form == Covariance::spherical ? half_precision * sum : sum;
            value = against.weighted - weighted + constants;
            bound = epsilon * (against.weighted + weighted);
        }
        if (lane % 4 == 0 && lane / 4 < min(compared_at_once, others - l0)) {
            relative[place] = value;
            error[place] =
                    rounded_up(bound + unit_roundoff * (4 * fabsf(value) + fabsf(constants)));
        }
    }
}

template <Covariance form, int chunks>
__global__ void __launch_bounds__(
        32 * warps_a_block,
        chunks > 4   ? 3
        : chunks > 1 ? 5
                     : 7)
        compare_kernel(
                const __grid_constant__ MixtureView mixture,
                const __grid_constant__ RowLists lists,
                const uint32_t* __restrict__ order,
                const int* __restrict__ ordered) {
    const int begin = (blockIdx.x * warps_a_block + threadIdx.x / 32) * rows_a_warp;
    const int lane = threadIdx.x % 32, d = mixture.d;
    const int here = min(rows_a_warp, *ordered - begin);
    if (here <= 0) {
        return;
    }
    const uint32_t my_row = lane < here ? order[begin + lane] : 0;
    const int my_count = lane < here ? lists.count[my_row] : 0;
    const bool several = my_count > 1 && my_count <= lists.capacity;
    const int my_home = several ? lists.home[my_row] : 0;
    unsigned left = __ballot_sync(whole_warp, several);
#pragma unroll 1
    for (; left != 0; left &= left - 1) {
        const int i = __ffs(static_cast<int>(left)) - 1;
        const uint32_t row = __shfl_sync(whole_warp, my_row, i);
        const int count = __shfl_sync(whole_warp, my_count, i);
        const Component<form, chunks> c(mixture, __shfl_sync(whole_warp, my_home, i));
        const size_t list = static_cast<size_t>(row) * lists.capacity;
        const int component = lane < count ? lists.component[list + lane] : -1;
        const size_t first[1] = {first_number(row, d)};
        float difference[1][4 * chunks];
        load_rows<chunks>(lists.x, first, d, lane, difference);
        centre_at<form, chunks>(c, lists.x, first[0], d, lane, difference[0]);
        const AgainstHome against = against_c<form, chunks>(mixture, c, difference[0], lane);
        const unsigned at_c = __ballot_sync(whole_warp, component == c.k);
        if (lane == 0) {
            lists.against[row] = against;
        }
        if (is_near(against, d)) { // otherwise it is for fp64
            compare<form, chunks>(
                    mixture,
                    c,
                    lists.x,
                    first[0],
                    difference[0],
                    against,
                    count,
                    component,
                    at_c != 0 ? __ffs(static_cast<int>(at_c)) - 1 : most_candidates,
                    lane,
                    lists.share + list,
                    lists.error + list);
        }
    }
}

template <Covariance form, int chunks> struct Compare {
    static void
    go(const MixtureView& mixture,
       const RowLists& lists,
       const uint32_t* order,
       const int* ordered,
       cudaStream_t stream) {
        constexpr int rows_a_block = warps_a_block * rows_a_warp;
        compare_kernel<form, chunks>
                <<<(lists.rows + rows_a_block - 1) / rows_a_block, 32 * warps_a_block, 0, stream>>>(
                        mixture, lists, order, ordered);
    }
};

} // namespace

void compare_candidates(
        const MixtureView& mixture,
        const RowLists& lists,
        const uint32_t* order,
        const int* ordered,
        cudaStream_t stream) {
    if (lists.rows > 0) {
        launch_for<Compare>(mixture, lists, order, ordered, stream);
        check_launch("comparing candidates");
    }
}

} // namespace faiss_gmm::cuda
