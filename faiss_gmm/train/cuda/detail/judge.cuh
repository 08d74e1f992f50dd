// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// From the comparisons of a row (compare.cu) to its responsibilities.
// Two lanes a row, sixteen rows at once, normalise over those within the margin and add the row's rest.
// Where the bound of the comparisons moves a responsibility by 5e-5, or leaves open which component is
// best, or where the row is so far from c that |x - mu_c|^2 itself is too coarse for a likelihood, the warp
// computes the row again in fp64 from (1) of candidates.cuh.
// Determinism: gpu_to_gpu, but for the libm's expf and logf; what is made of a row depends on the row and
//   its list alone.
// Lost: a candidate a lane, a row after the other.

#include "faiss_gmm/train/cuda/detail/candidates.cuh"

namespace faiss_gmm::cuda {

constexpr float tolerable_shift = 5e-5f; ///< of a responsibility, by fp32
constexpr int judged_at_once = 16;       ///< rows

/// A row, as its two lanes know it.
struct JudgedRow {
    uint32_t row = 0;
    int count = 0;             ///< candidates; 0: no row, or one with NaN or Inf
    float* relative = nullptr; ///< [count] l_k less `reference`
    uint16_t* error = nullptr; ///< [count] bounds of them, upper halves of floats
    double reference = 0;
    double square = 0; ///< |x - mu_c|^2; computed in fp64 of no use where c is no candidate
    float rest = 0;    ///< what is not listed adds to the sum, in exp(l_c)
    float of_c = 0;    ///< c's relative value
    // Made of them:
    int home = 0;        ///< place of the best, the lower of equals
    float best = 0;      ///< its relative value
    float sum = 1;       ///< of exp(relative - best)
    bool settled = true; ///< by fp32, as far as is known
    bool in_fp64 = false;

    /// Candidates that `relative` knows: none of a row far off that fp64 has not seen yet.
    __device__ int compared() const {
        return settled || in_fp64 ? count : 0;
    }
    __device__ float r(int l, float margin) const {
        const float below = best - relative[l];
        return below <= margin ? expf(-below) / sum : 0.0f;
    }
};

__device__ inline float rest_of(const RowLists& lists, uint32_t row) {
    return lists.rest != nullptr ? lists.rest[row] : 0.0f;
}

/// Row `row` for the two lanes that ask; none where `exists` is not the case. Rows of one candidate have no
/// comparisons.
template <Covariance form>
__device__ inline JudgedRow
take_row(const MixtureView& mixture, const RowLists& lists, bool exists, uint32_t row) {
    JudgedRow mine;
    if (exists) {
        const size_t list = static_cast<size_t>(row) * lists.capacity;
        const AgainstHome against = lists.against[row];
        mine.row = row;
        mine.count = lists.count[row];
        mine.relative = lists.share + list;
        mine.error = lists.error + list;
        mine.reference = mixture.constant[lists.home[row]] - against.weighted;
        mine.square = against.square;
        mine.settled = is_near(against, mixture.d);
        mine.rest = rest_of(lists, row);
    }
    return mine;
}

/// l_k in fp64 for lane l's candidate of the row that begins at number `first`; all lanes take part.
/// `square`: |x - mu_k|^2.
template <Covariance form>
__device__ double exact_joint(
        const MixtureView& mixture,
        const Rows& x,
        size_t first,
        int count,
        int component,
        int lane,
        double& square) {
    // A few candidates at a time: a warp would wait for each one's mean and sums otherwise, and the others of the
    // grid for that warp.
    constexpr int at_once = 4;
    double mine = -static_cast<double>(infinity);
    const int d = mixture.d;
    for (int l0 = 0; l0 < count; l0 += at_once) {
        int k[at_once];
        double weighted[at_once] = {}, plain[at_once] = {};
#pragma unroll
        for (int o = 0; o < at_once; ++o) {
            k[o] = __shfl_sync(whole_warp, component, min(l0 + o, count - 1));
        }
        for (int j = lane; j < d; j += 32) {
            const double value = number(x, first + j);
#pragma unroll
            for (int o = 0; o < at_once; ++o) {
                const double e = value - mean_number(mixture, k[o], j);
                plain[o] += e * e;
                if (form == Covariance::diagonal) {
                    weighted[o] += half_precision<form>(mixture, k[o], j) * e * e;
                }
            }
        }
#pragma unroll
        for (int o = 0; o < at_once; ++o) {
            plain[o] = warp_sum(plain[o]);
            weighted[o] = form == Covariance::diagonal
                                  ? warp_sum(weighted[o])
                                  : half_precision<form>(mixture, k[o], 0) * plain[o];
            if (lane == l0 + o && lane < count) {
                mine = mixture.constant[k[o]] - weighted[o];
                square = plain[o];
            }
        }
    }
    return mine;
}

__device__ inline bool all_finite_row(const Rows& x, size_t first, int d, int lane) {
    bool finite = true;
    for (int j = lane; j < d; j += 32) {
        finite = finite && isfinite(high_number(x, first + j));
    }
    return __all_sync(whole_warp, finite);
}

template <class T> __device__ inline T of_other_lane(T value) {
    return __shfl_xor_sync(whole_warp, value, 1);
}

/// home, best and sum. All lanes take part in step: shuffles among some of them would be made one group
/// after the other.
__device__ inline void normalise(float margin, JudgedRow& row) {
    const int half = threadIdx.x % 2, count = row.compared();
    row.best = -infinity;
    row.home = most_candidates;
#pragma unroll 4 // loads of several on their way
    for (int l = half; l < count; l += 2) {
        if (row.relative[l] > row.best) {
            row.best = row.relative[l];
            row.home = l;
        }
    }
    const float best_of_other = of_other_lane(row.best);
    const int home_of_other = of_other_lane(row.home);
    if (best_of_other > row.best || (best_of_other == row.best && home_of_other < row.home)) {
        row.best = best_of_other;
        row.home = home_of_other;
    }
    float sum = 0;
#pragma unroll 1
    for (int l = half; l < count; l += 2) {
        const float below = row.best - row.relative[l];
        sum += below <= margin ? expf(-below) : 0.0f;
    }
    row.sum = sum + of_other_lane(sum);
    if (row.rest > 0) {
        row.sum = fmaf(row.rest, expf(row.of_c - row.best), row.sum);
    }
}

/// Whether a candidate `below` the best one and of responsibility r stays what it is where their difference may be off
/// by `both`; NaN never does.
__device__ inline bool stays(float r, float below, float both, bool is_best) {
    const float slope = fminf(r, 1 - r) + 1e-6f;
    return slope * both <= tolerable_shift && (is_best || below > both);
}

/// Whether the bounds leave the row as it is; NaN never does.
__device__ inline bool settles(float margin, const JudgedRow& row) {
    const auto bound = [&](int l) {
        return __uint_as_float(static_cast<uint32_t>(row.error[l]) << 16);
    };
    bool fine = row.settled && (row.home < row.count || row.count == 0);
    const float home_error = fine && row.count > 0 ? bound(row.home) : 0.0f;
    if (fine) {
#pragma unroll 1
        for (int l = threadIdx.x % 2; l < row.count; l += 2) {
            const float below = row.best - row.relative[l], both = bound(l) + home_error;
            fine = fine && stays(row.r(l, margin), below, both, l == row.home);
        }
    }
    return fine & of_other_lane(fine);
}

/// The row that lane `first_lane` and the next have, in fp64, by the warp. One with NaN or Inf has no
/// candidates any more, and bad_row is told of it.
template <Covariance form>
__device__ void compute_in_fp64(
        const MixtureView& mixture,
        const RowLists& lists,
        unsigned long long first_row,
        unsigned long long* bad_row,
        int first_lane,
        JudgedRow& mine) {
    const int lane = threadIdx.x % 32;
    const uint32_t row = __shfl_sync(whole_warp, mine.row, first_lane);
    const int count = __shfl_sync(whole_warp, mine.count, first_lane);
    const size_t first = first_number(row, mixture.d);
    const size_t list = static_cast<size_t>(row) * lists.capacity;
    const int component = lane < count ? lists.component[list + lane] : 0;
    double square = 0;
    const double joint = exact_joint<form>(mixture, lists.x, first, count, component, lane, square);
    const double reference = warp_max(joint);
    const bool finite = isfinite(reference);
    const float relative = finite ? static_cast<float>(joint - reference) : 0.0f;
    const bool is_row = finite || all_finite_row(lists.x, first, mixture.d, lane);
    if (lane < count) {
        lists.share[list + lane] = relative;
    }
    const unsigned at_c = __ballot_sync(whole_warp, lane < count && component == lists.home[row]);
    const int lane_of_c = at_c != 0 ? __ffs(static_cast<int>(at_c)) - 1 : 0;
    square = __shfl_sync(whole_warp, square, lane_of_c);
    const float of_c = __shfl_sync(whole_warp, relative, lane_of_c);
    if (!is_row && lane == 0) {
        atomicMin(bad_row, first_row + row);
    }
    if (lane / 2 == first_lane / 2) {
        mine.count = is_row ? count : 0;
        mine.in_fp64 = true;
        mine.reference = reference;
        mine.square = square;
        mine.of_c = of_c;
    }
}

/// The rows that the warp's lanes have taken.
template <Covariance form>
__device__ void
judge(const MixtureView& mixture,
      float margin,
      const RowLists& lists,
      unsigned long long first_row,
      unsigned long long* bad_row,
      JudgedRow& mine) {
    normalise(margin, mine);
    const unsigned unsettled = __ballot_sync(whole_warp, !settles(margin, mine));
    if (unsettled == 0) {
        return;
    }
    __syncwarp(); // what the others write now has been read
#pragma unroll 1
    for (unsigned left = unsettled & 0x55555555u; left != 0; left &= left - 1) {
        const int first_lane = __ffs(static_cast<int>(left)) - 1;
        compute_in_fp64<form>(mixture, lists, first_row, bad_row, first_lane, mine);
    }
    __syncwarp();
    normalise(margin, mine);
}

} // namespace faiss_gmm::cuda
