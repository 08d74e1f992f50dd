// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// From a row's candidates to responsibilities and sums: all that is kept of them is exact.
//   (1) l_k = constant_k - sum_j hp_kj (x_j - mu_kj)^2, hp = 1 / (2 s2);  r_k = exp(l_k - L), L = log sum exp l
//   (2) tied: l_k - l_c = 2 hp ((mu_k - mu_c).(x - mu_c) - |mu_k - mu_c|^2 / 2) + constant_k - constant_c
//   (3) a segment's sums: r, r (x - mu_c), r |x - mu_c|^2 (diagonal: r (x - mu_c)^2), L
//   c: the provisional home of the segment's rows. Means [K, d] fp32, x [rows, d] of any element type in
//   device memory (rows.cuh); whitened rows and means (tied, matrices.cu) have low parts beside them.
// Phases: a warp takes a segment (at most 64 rows of one block and provisional home, neighbours in
//   `order`); mu_c stays in its registers. For each row:
//   1 read x once, x - mu_c, its square   2 candidates: (2), or (1) of each for the other forms
//   3 normalise over those within the margin   4 add the share of c; write the other shares that count
//   into the row's list, for sum_pairs.
// Cost: n d 4 bytes read once, in the order of the homes; the candidates' means come from L1 and L2.
// Numerics: fp32 differences of given numbers, sums over d by lanes and a tree: (2) is off by at most
//   (4 chunks + 12) u (|mu_k - mu_c| |x - mu_c| + |mu_k - mu_c|^2 / 2) 2 hp. Where that moves a
//   responsibility by 5e-5, or leaves open which component is best, or where the row is so far from c
//   that |x - mu_c|^2 itself is too coarse for a likelihood, the row is computed again in fp64 from
//   (1). Segments add at most 64 rows in fp32; r, moments and likelihoods are added in fp64.
// A row's shares sum to one: home takes what the others leave (fp64).
// Determinism: gpu_to_gpu, but for the libm's expf and logf; a row's result depends on the row and c
//   alone, a segment's on its rows in order.
// Reference and test: tests/train/naive_em.h, tests/train/cuda/cuda_estep_engine_test.cc.
#include "faiss_gmm/train/cuda/detail/weigh.h"

#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps_a_block = 4;
constexpr float unit_roundoff = 5.9604645e-8f;
constexpr float tolerable_shift = 5e-5f; ///< of a responsibility, by fp32
/// Squared distance, in variances a dimension, from which a row's likelihood is left to fp64.
constexpr float far_row = 64;
constexpr float infinity = __builtin_huge_valf();
/// Of whitened rows' shares, in 1: matrices.cc subtracts sum r c c^T from what all rows make without r.
constexpr float share_steps = 0x1.0p24f;

/// The kernels' form `tied`: whitened rows and means, a tied_spherical mixture of numbers with low parts.
constexpr bool has_low_parts(Covariance form) {
    return form == Covariance::tied;
}
/// By (2), otherwise by (1).
constexpr bool compares_by_products(Covariance form) {
    return form == Covariance::tied_spherical || form == Covariance::tied;
}

/// Chunks of 128 dimensions whose means fit in registers beside the sums.
constexpr int most_held_chunks = 4;

template <Covariance form, int chunks> struct Component {
    int k;
    const float* mean;      ///< [d]
    const float* mean_low;  ///< [d] where rows have low parts
    const float* precision; ///< [d], diagonal only
    float half_precision;   ///< not diagonal
    double constant;

    __device__ Component(const MixtureView& mixture, int component) : k(component) {
        mean = mixture.means + static_cast<size_t>(k) * mixture.d;
        mean_low = mixture.means_low + static_cast<size_t>(k) * mixture.d;
        precision = mixture.half_precision32 + static_cast<size_t>(k) * mixture.d;
        half_precision = form == Covariance::diagonal    ? 0.0f
                         : form == Covariance::spherical ? mixture.half_precision32[k]
                                                         : mixture.half_precision32[0];
        constant = mixture.constant[k];
    }
};

template <Covariance form>
__device__ inline double half_precision(const MixtureView& mixture, int k, int j) {
    return form == Covariance::diagonal
                   ? mixture.half_precision[static_cast<size_t>(k) * mixture.d + j]
           : form == Covariance::spherical ? mixture.half_precision[k]
                                           : mixture.half_precision[0];
}

/// What a lane knows of its candidate of the row.
struct Candidate {
    int component;
    float relative; ///< l_k - l_c, or against any other reference; -inf: none
    float error;    ///< bound of it
    float square;   ///< |x - mu_k|^2; not diagonal
};

/// A row against the component c of its segment.
struct AgainstC {
    float square;   ///< |x - mu_c|^2
    float weighted; ///< sum_j hp (x_j - mu_cj)^2
};

/// What the low parts add to x - mu.
template <int chunks>
__device__ void
add_low_parts(const float* x, const float* mean, int d, int lane, float (&difference)[4 * chunks]) {
#pragma unroll
    for (int i = 0; i < chunks; ++i) {
        float a[4], b[4];
        load_four(x, chunk_width * i + 4 * lane, d, d % 4 == 0, a);
        load_four(mean, chunk_width * i + 4 * lane, d, d % 4 == 0, b);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            difference[4 * i + j] += a[j] - b[j];
        }
    }
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
    double mine = -static_cast<double>(infinity);
    const int d = mixture.d;
    for (int l = 0; l < count; ++l) {
        const int k = __shfl_sync(whole_warp, component, l);
        double weighted = 0, plain = 0;
        for (int j = lane; j < d; j += 32) {
            const double e = number(x, first + j) - mean_number(mixture, k, j);
            plain += e * e;
            if (form == Covariance::diagonal) {
                weighted += half_precision<form>(mixture, k, j) * e * e;
            }
        }
        plain = warp_sum(plain);
        weighted = form == Covariance::diagonal ? warp_sum(weighted)
                                                : half_precision<form>(mixture, k, 0) * plain;
        if (lane == l) {
            mine = mixture.constant[k] - weighted;
            square = plain;
        }
    }
    return mine;
}

/// Candidates whose means are under way at once.
constexpr int compared_at_once = 4;

/// (2), or (1) relative to c, in fp32 for every candidate; difference = x - mu_c. A few at a time, for
/// one after the other each would wait for its mean.
template <Covariance form, int chunks>
__device__ Candidate
compare(const MixtureView& mixture,
        bool means_aligned,
        const Component<form, chunks>& c,
        const Rows& x,
        size_t first,
        const float (&difference)[4 * chunks],
        const AgainstC& against,
        int count,
        int component,
        int lane) {
    constexpr float epsilon = (4 * chunks + 12) * unit_roundoff;
    const int d = mixture.d;
    const unsigned at_c = __ballot_sync(whole_warp, component == c.k);
    const int place_of_c = at_c != 0 ? __ffs(at_c) - 1 : 32;
    const int others = count - (at_c != 0);
    const bool mine_is_other = lane < count && lane != place_of_c;
    const int my_number = lane - (lane > place_of_c); // among the others
    float constants = 0, half_precision = c.half_precision;
    if (mine_is_other) {
        constants = static_cast<float>(mixture.constant[component] - c.constant);
        if (form == Covariance::spherical) {
            half_precision = mixture.half_precision32[component];
        }
    }
    Candidate mine{component, lane < count ? 0.0f : -infinity, 0.0f, against.square};
    for (int l0 = 0; l0 < others; l0 += compared_at_once) {
        size_t row[compared_at_once]; // of the means; the last one again where there are fewer
        float sums[2 * compared_at_once] = {};
#pragma unroll
        for (int o = 0; o < compared_at_once; ++o) {
            const int number = min(l0 + o, others - 1);
            const int k = __shfl_sync(whole_warp, component, number + (number >= place_of_c));
            row[o] = static_cast<size_t>(k) * d;
        }
#pragma unroll 1
        for (int i = 0; i < chunks; ++i) {
            const int at = chunk_width * i + 4 * lane;
            float mu[compared_at_once][4], mu_c[4] = {0, 0, 0, 0}, near[4] = {0, 0, 0, 0};
#pragma unroll
            for (int o = 0; o < compared_at_once; ++o) {
                load_four(mixture.means + row[o], at, d, means_aligned, mu[o]);
            }
            if (compares_by_products(form)) {
                load_four(c.mean, at, d, means_aligned, mu_c);
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
        const float both = warp_sums(sums); // lane l has number l / 4
        const int from = my_number - l0;
        const bool is_here = mine_is_other && from >= 0 && from < compared_at_once;
        const float sum = __shfl_sync(whole_warp, both, is_here ? 4 * from : 0);
        const float apart = __shfl_sync(whole_warp, both, is_here ? 16 + 4 * from : 0);
        if (!is_here) {
            continue;
        }
        if (compares_by_products(form)) {
            mine.relative = 2 * half_precision * sum + constants;
            mine.square = fmaxf(0.0f, fmaf(-2.0f, sum, against.square));
            mine.error =
                    epsilon * 2 * half_precision * (sqrtf(apart * against.square) + 0.5f * apart);
        } else {
            const float weighted = form == Covariance::spherical ? half_precision * sum : sum;
            mine.square = sum;
            mine.relative = against.weighted - weighted + constants;
            mine.error = epsilon * (against.weighted + weighted);
        }
        mine.error += unit_roundoff * (4 * fabsf(mine.relative) + fabsf(constants));
    }
    return mine;
}

/// A row's responsibilities, one candidate a lane.
struct Shares {
    int home;      ///< lane of the best
    float r;       ///< of this lane's candidate; 0 where it does not count
    float best;    ///< its relative value
    float log_sum; ///< L - best
};

/// Of the first lanes alone, as many as a row has candidates or a few more.
template <class T> __device__ inline T sum_of_first(T value, int lanes) {
    for (int step = lanes / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(whole_warp, value, step);
    }
    return __shfl_sync(whole_warp, value, 0);
}
__device__ inline float max_of_first(float value, int lanes) {
    for (int step = lanes / 2; step > 0; step /= 2) {
        value = fmaxf(value, __shfl_xor_sync(whole_warp, value, step));
    }
    return __shfl_sync(whole_warp, value, 0);
}
/// The power of two that holds so many candidates.
__device__ inline int lanes_for(int count) {
    return count <= 1 ? 1 : 1 << (32 - __clz(count - 1));
}

__device__ Shares normalise(const Candidate& mine, float margin, int lanes) {
    Shares shares;
    shares.best = max_of_first(mine.relative, lanes);
    shares.home = __ffs(__ballot_sync(whole_warp, mine.relative == shares.best)) - 1;
    const float e =
            mine.relative >= shares.best - margin ? expf(mine.relative - shares.best) : 0.0f;
    const float sum = sum_of_first(e, lanes);
    shares.r = e / sum;
    shares.log_sum = logf(sum);
    return shares;
}

/// Whether fp32 settles the row: NaN never does.
__device__ bool settled(const Candidate& mine, const Shares& shares, int lane) {
    const float home_error = __shfl_sync(whole_warp, mine.error, shares.home < 0 ? 0 : shares.home);
    const bool counts = mine.relative != -infinity;
    const float slope = fminf(shares.r, 1 - shares.r) + 1e-6f;
    const bool fine =
            !counts ||
            (slope * (mine.error + home_error) <= tolerable_shift &&
             (lane == shares.home || shares.best - mine.relative > mine.error + home_error));
    return shares.home >= 0 && __all_sync(whole_warp, fine);
}

__device__ bool all_finite_row(const Rows& x, size_t first, int d, int lane) {
    bool finite = true;
    for (int j = lane; j < d; j += 32) {
        finite = finite && isfinite(high_number(x, first + j));
    }
    return __all_sync(whole_warp, finite);
}

/// A warp's running sums.
template <Covariance form, int chunks> struct Sums {
    float first[4 * chunks] = {};
    float second[form == Covariance::diagonal ? 4 * chunks : 1] = {};
    double mass = 0, moment = 0, log_likelihood = 0;

    __device__ void add(const float (&difference)[4 * chunks], double r, double square) {
        const float weight = static_cast<float>(r);
#pragma unroll
        for (int i = 0; i < 4 * chunks; ++i) {
            first[i] = fmaf(weight, difference[i], first[i]);
            if (form == Covariance::diagonal) {
                second[i] = fmaf(weight * difference[i], difference[i], second[i]);
            }
        }
        mass += r;
        moment += r * square;
    }
    __device__ void store(const SegmentSums& out, size_t segment, int d, int lane) const {
        const bool aligned = d % 4 == 0;
        store_row<chunks>(out.first_moment + segment * d, d, aligned, lane, first);
        if constexpr (form == Covariance::diagonal) {
            store_row<chunks>(out.second_moment + segment * d, d, aligned, lane, second);
        }
        if (lane == 0) {
            out.mass[segment] = mass;
            if (form != Covariance::diagonal) {
                out.moment[segment] = moment;
            }
            if (out.log_likelihood != nullptr) {
                out.log_likelihood[segment] = log_likelihood;
            }
        }
    }
};

/// Rows of which a warp has the numbers under way at once.
constexpr int rows_ahead(int chunks) {
    return chunks == 1 ? 4 : chunks == 2 ? 2 : 1;
}

template <Covariance form, int chunks>
__device__ AgainstC against_c(
        const MixtureView& mixture,
        const Component<form, chunks>& c,
        const float (&difference)[4 * chunks],
        int lane) {
    float square = 0;
    if constexpr (form == Covariance::diagonal) {
#pragma unroll
        for (int i = 0; i < chunks; ++i) {
            float p[4];
            load_four(c.precision, chunk_width * i + 4 * lane, mixture.d, mixture.d % 4 == 0, p);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float e = difference[4 * i + j];
                square = fmaf(p[j] * e, e, square);
            }
        }
        return {0, warp_sum(square)};
    } else {
#pragma unroll
        for (int i = 0; i < 4 * chunks; ++i) {
            square = fmaf(difference[i], difference[i], square);
        }
        square = warp_sum(square);
        return {square, c.half_precision * square};
    }
}

template <int chunks>
__device__ inline void
subtract_mean(const float* mean, int d, int lane, float (&values)[4 * chunks]) {
#pragma unroll
    for (int i = 0; i < chunks; ++i) {
        float mu[4];
        load_four(mean, chunk_width * i + 4 * lane, d, d % 4 == 0, mu);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            values[4 * i + j] -= mu[j];
        }
    }
}

/// A row, which begins at number `first`, less mu_c.
template <Covariance form, int chunks>
__device__ inline void centre_at(
        const Component<form, chunks>& c,
        const Rows& x,
        size_t first,
        int d,
        int lane,
        float (&values)[4 * chunks]) {
    subtract_mean<chunks>(c.mean, d, lane, values);
    if constexpr (has_low_parts(form)) {
        add_low_parts<chunks>(x.low + first, c.mean_low, d, lane, values);
    }
}

/// The same for many rows: mu_c is in registers where it fits there.
template <Covariance form, int chunks> class CentredAtC {
public:
    __device__ CentredAtC(
            const MixtureView& mixture, const Component<form, chunks>& c, const Rows& x, int lane)
            : mean_(c.mean), mean_low_(c.mean_low), x_low_(x.low), d_(mixture.d), lane_(lane) {
        if constexpr (held) {
            load_row<chunks>(mean_, d_, d_ % 4 == 0, lane, held_);
        }
    }
    __device__ void centre(size_t first, float (&values)[4 * chunks]) const {
        if constexpr (held) {
#pragma unroll
            for (int j = 0; j < 4 * chunks; ++j) {
                values[j] -= held_[j];
            }
        } else {
            subtract_mean<chunks>(mean_, d_, lane_, values);
        }
        if constexpr (has_low_parts(form)) {
            add_low_parts<chunks>(x_low_ + first, mean_low_, d_, lane_, values);
        }
    }

private:
    static constexpr bool held = chunks <= most_held_chunks;
    const float *mean_, *mean_low_, *x_low_;
    int d_, lane_;
    float held_[held ? 4 * chunks : 1];
};

/// Rows whose first candidates a warp has loaded, a row a lane.
struct FirstCandidates {
    uint4 words; ///< the first eight

    __device__ void load(const RowLists& lists, uint32_t row, int count) {
        words = count > 1 && count <= lists.capacity
                        ? *reinterpret_cast<const uint4*>(
                                  lists.component + static_cast<size_t>(row) * lists.capacity)
                        : make_uint4(0, 0, 0, 0);
    }
    /// Lane l's candidate of the row that lane `from` has, -1 past `count`.
    __device__ int
    of_row(const RowLists& lists, uint32_t row, int from, int count, int lane) const {
        if (count > 8) {
            return lane < count ? lists.component[static_cast<size_t>(row) * lists.capacity + lane]
                                : -1;
        }
        const uint32_t word[4] = {
                __shfl_sync(whole_warp, words.x, from),
                __shfl_sync(whole_warp, words.y, from),
                __shfl_sync(whole_warp, words.z, from),
                __shfl_sync(whole_warp, words.w, from)};
        const uint32_t low = lane & 2 ? word[1] : word[0], high = lane & 2 ? word[3] : word[2];
        const uint32_t two = lane & 4 ? high : low;
        return lane < count ? static_cast<int>(lane & 1 ? two >> 16 : two & 0xffff) : -1;
    }
};

/// A row and its candidates, one a lane.
struct Judged {
    Candidate mine;
    Shares shares;
    double reference; ///< l of relative 0
    bool in_fp32;     ///< otherwise square is of this lane's candidate
    double square;    ///< |x - mu|^2, of c in fp32
};

/// Phases 2 and 3: in fp32 where that settles the row, or else in fp64. False for a row with NaN or
/// Inf, which bad_row is told of.
template <Covariance form, int chunks>
__device__ bool
judge(const MixtureView& mixture,
      float margin,
      const Component<form, chunks>& c,
      const Rows& x,
      size_t first,
      const float (&difference)[4 * chunks],
      int count,
      int component,
      unsigned long long number,
      unsigned long long* bad_row,
      Judged& row) {
    const int d = mixture.d, lane = threadIdx.x % 32, lanes = lanes_for(count);
    const AgainstC against = against_c<form, chunks>(mixture, c, difference, lane);
    row.reference = c.constant - against.weighted;
    row.square = against.square;
    row.in_fp32 = false;
    if (against.weighted <= far_row / 2 * d) { // false for NaN
        row.mine = compare<form, chunks>(
                mixture, d % 4 == 0, c, x, first, difference, against, count, component, lane);
        row.shares = normalise(row.mine, margin, lanes);
        row.in_fp32 = settled(row.mine, row.shares, lane);
    }
    if (row.in_fp32) {
        return true;
    }
    const double joint = exact_joint<form>(mixture, x, first, count, component, lane, row.square);
    row.reference = warp_max(joint);
    row.mine = {
            component,
            static_cast<float>(joint - row.reference),
            0.0f,
            static_cast<float>(row.square)};
    if (!isfinite(row.reference)) {
        if (!all_finite_row(x, first, d, lane)) {
            if (lane == 0) {
                atomicMin(bad_row, number);
            }
            return false;
        }
        row.mine.relative = lane < count ? 0.0f : -infinity;
    }
    row.shares = normalise(row.mine, margin, lanes);
    return true;
}

/// Phases 2 to 4 of a row that is not its home's alone. Returns how many shares it leaves to sum_pairs.
template <Covariance form, int chunks>
__device__ int weigh_row(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        const Component<form, chunks>& c,
        uint32_t row,
        const float (&difference)[4 * chunks],
        int count,
        int component,
        unsigned long long number,
        unsigned long long* bad_row,
        Sums<form, chunks>& sums,
        unsigned& shared) {
    const int lane = threadIdx.x % 32;
    Judged judged;
    if (!judge<form, chunks>(
                mixture,
                rule.margin,
                c,
                lists.x,
                static_cast<size_t>(row) * mixture.d,
                difference,
                count,
                component,
                number,
                bad_row,
                judged)) {
        return 0;
    }
    const Shares& shares = judged.shares;
    const unsigned at_c = __ballot_sync(whole_warp, component == c.k);
    const int place_of_c = at_c != 0 ? __ffs(at_c) - 1 : 0;
    const bool is_home = lane == shares.home;
    // Whitened rows: shares that add up to one exactly, also where home's is stored in fp32.
    const float given =
            has_low_parts(form) ? rintf(shares.r * share_steps) / share_steps : shares.r;
    const float r = rule.hard ? 0.0f : given;
    const bool keeps = !is_home && r >= rule.threshold && r > 0;
    const double others = sum_of_first(keeps ? static_cast<double>(r) : 0.0, lanes_for(count));
    const double weight = is_home ? 1.0 - others : keeps ? static_cast<double>(r) : 0.0;
    if (at_c != 0) {
        const double weight_c = __shfl_sync(whole_warp, weight, place_of_c);
        if (weight_c > 0) {
            const double square = judged.in_fp32
                                          ? judged.square
                                          : __shfl_sync(whole_warp, judged.square, place_of_c);
            sums.add(difference, weight_c, square);
        }
    }
    sums.log_likelihood += judged.reference + shares.best + (rule.hard ? 0.0f : shares.log_sum);
    shared += __any_sync(whole_warp, !is_home && r > 1.0f / mixture.K) != 0;
    const bool emits = (is_home || keeps) && component != c.k;
    const unsigned emitted = __ballot_sync(whole_warp, emits);
    if (emits) {
        const size_t at =
                static_cast<size_t>(row) * lists.capacity + __popc(emitted & ((1u << lane) - 1));
        lists.component[at] = static_cast<uint16_t>(component);
        lists.share[at] = static_cast<float>(weight);
    }
    return __popc(emitted);
}

/// Blocks that share a multiprocessor's registers: warps hide each other's waiting.
constexpr int weigh_blocks(Covariance form, int chunks) {
    return chunks > 4 ? 2 : chunks > 1 ? 3 : form == Covariance::tied_spherical ? 5 : 4;
}

template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block, weigh_blocks(form, chunks)) weigh_kernel(
        MixtureView mixture,
        PairRule rule,
        RowLists lists,
        const uint32_t* __restrict__ order,
        SegmentTable table,
        unsigned long long first_row,
        WeighOutput out) {
    const int s = blockIdx.x * warps_a_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (s >= table.first[table.groups]) {
        return;
    }
    const int d = mixture.d;
    const Segment segment = find_segment(table, s);
    const Component<form, chunks> c(mixture, segment.group % mixture.K);
    const CentredAtC<form, chunks> at_c(mixture, c, lists.x, lane);
    constexpr int ahead = rows_ahead(chunks);
    const float far = far_row / 2 * d;
    Sums<form, chunks> sums;
    unsigned shared = 0;
    for (int begin = segment.begin; begin < segment.end; begin += 32) {
        const int here = min(32, segment.end - begin);
        const uint32_t my_row = lane < here ? order[begin + lane] : 0;
        const int my_count = lane < here ? lists.count[my_row] : 0;
        FirstCandidates candidates;
        candidates.load(lists, my_row, my_count);
        int my_kept = 0;
        for (int i0 = 0; i0 < here; i0 += ahead) {
            float values[ahead][4 * chunks];
            size_t first[ahead];
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const uint32_t row = __shfl_sync(whole_warp, my_row, min(i0 + i, here - 1));
                first[i] = static_cast<size_t>(row) * d;
            }
            load_rows<chunks>(lists.x, first, d, lane, values);
            // Rows of one candidate first, straight ahead; the others by one piece of code.
            unsigned left = 0;
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                if (i0 + i >= here) {
                    break;
                }
                left |= 1u << i;
                if (__shfl_sync(whole_warp, my_count, i0 + i) != 1) {
                    continue;
                }
                at_c.centre(first[i], values[i]);
                const AgainstC against = against_c<form, chunks>(mixture, c, values[i], lane);
                if (against.weighted <= far) { // false for NaN
                    sums.add(values[i], 1.0, against.square);
                    sums.log_likelihood += c.constant - static_cast<double>(against.weighted);
                    left &= ~(1u << i);
                }
            }
#pragma unroll 1
            for (; left != 0; left &= left - 1) {
                const int i = i0 + __ffs(static_cast<int>(left)) - 1;
                const uint32_t row = __shfl_sync(whole_warp, my_row, i);
                const int count = __shfl_sync(whole_warp, my_count, i);
                int component = candidates.of_row(lists, row, i, count, lane);
                if (count == 1) { // far off, or not finite
                    component = lane == 0 ? c.k : -1;
                }
                const size_t again[1] = {static_cast<size_t>(row) * d};               // from L1
                auto& difference = reinterpret_cast<float(&)[1][4 * chunks]>(values); // done with
                load_rows<chunks>(lists.x, again, d, lane, difference);
                at_c.centre(again[0], difference[0]);
                const int kept = weigh_row<form, chunks>(
                        mixture,
                        rule,
                        lists,
                        c,
                        row,
                        difference[0],
                        count,
                        component,
                        first_row + row,
                        out.bad_row,
                        sums,
                        shared);
                my_kept = lane == i ? kept : my_kept;
            }
        }
        if (lane < here) {
            out.kept[begin + lane] = static_cast<uint8_t>(my_kept);
        }
    }
    sums.store(out.sums, s, d, lane);
    if (lane == 0 && shared > 0) {
        atomicAdd(out.shared_rows, static_cast<unsigned long long>(shared));
    }
}

template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block) sum_pairs_kernel(
        MixtureView mixture,
        Rows x,
        const RowShare* __restrict__ pairs,
        SegmentTable table,
        SegmentSums out) {
    const int s = blockIdx.x * warps_a_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (s >= table.first[table.groups]) {
        return;
    }
    const int d = mixture.d;
    const bool means_aligned = d % 4 == 0;
    const Segment segment = find_segment(table, s);
    const size_t first_mean = static_cast<size_t>(segment.group % mixture.K) * d;
    const float* mean = mixture.means + first_mean;
    constexpr int ahead = rows_ahead(chunks);
    Sums<form, chunks> sums;
    float squares = 0; // this lane's part of sum r |x - mu|^2
    for (int begin = segment.begin; begin < segment.end; begin += 32) {
        const int here = min(32, segment.end - begin);
        const RowShare mine = lane < here ? pairs[begin + lane] : RowShare{0, 0};
        for (int i0 = 0; i0 < here; i0 += ahead) {
            float values[ahead][4 * chunks];
            size_t first[ahead];
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const uint32_t row = __shfl_sync(whole_warp, mine.row, min(i0 + i, here - 1));
                first[i] = static_cast<size_t>(row) * d;
            }
            load_rows<chunks>(x, first, d, lane, values);
#pragma unroll
            for (int j = 0; j < chunks; ++j) {
                float mu[4];
                load_four(mean, chunk_width * j + 4 * lane, d, means_aligned, mu);
#pragma unroll
                for (int i = 0; i < ahead; ++i) {
#pragma unroll
                    for (int q = 0; q < 4; ++q) {
                        values[i][4 * j + q] -= mu[q];
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const float r = __shfl_sync(whole_warp, mine.r, min(i0 + i, here - 1));
                if (i0 + i >= here) {
                    break;
                }
                if constexpr (has_low_parts(form)) {
                    add_low_parts<chunks>(
                            x.low + first[i], mixture.means_low + first_mean, d, lane, values[i]);
                }
                sums.add(values[i], r, 0.0);
                if (form != Covariance::diagonal) {
                    float square = 0;
#pragma unroll
                    for (int j = 0; j < 4 * chunks; ++j) {
                        square = fmaf(values[i][j], values[i][j], square);
                    }
                    squares = fmaf(r, square, squares);
                }
            }
        }
    }
    if (form != Covariance::diagonal) {
        sums.moment = warp_sum(squares);
    }
    sums.store(out, s, d, lane);
}

/// |x - mu_k|^2 in fp32 for lane l's candidate.
__device__ float squared_distance(
        const MixtureView& mixture,
        const Rows& x,
        size_t first,
        int count,
        int component,
        int lane) {
    float mine = infinity;
    for (int l = 0; l < count; ++l) {
        const int k = __shfl_sync(whole_warp, component, l);
        const float* mean = mixture.means + static_cast<size_t>(k) * mixture.d;
        float square = 0;
        for (int j = lane; j < mixture.d; j += 32) {
            const float e = high_number(x, first + j) - mean[j];
            square = fmaf(e, e, square);
        }
        square = warp_sum(square);
        mine = lane == l ? square : mine;
    }
    return mine;
}

__device__ void leave(const RowsLeft& left, int row, int lane) {
    if (lane == 0) {
        left.row[atomicAdd(left.count, 1)] = row;
    }
}

/// The best m components of a row whose list has more than one.
template <Covariance form, int chunks>
__device__ void rank_row(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        int m,
        int row,
        int count,
        unsigned long long number,
        unsigned long long* bad_row,
        const RowsLeft& left,
        const TopOutput& out) {
    const int d = mixture.d, lane = threadIdx.x % 32;
    const size_t first[1] = {static_cast<size_t>(row) * d};
    const int component =
            lane < count ? lists.component[static_cast<size_t>(row) * lists.capacity + lane] : -1;
    const Component<form, chunks> c(mixture, lists.home[row]);
    float values[1][4 * chunks];
    load_rows<chunks>(lists.x, first, d, lane, values);
    centre_at<form, chunks>(c, lists.x, first[0], d, lane, values[0]);
    Judged judged;
    if (!judge<form, chunks>(
                mixture,
                rule.margin,
                c,
                lists.x,
                first[0],
                values[0],
                count,
                component,
                number,
                bad_row,
                judged)) {
        return;
    }
    const Candidate& mine = judged.mine;
    const Shares& shares = judged.shares;
    const float square =
            form == Covariance::diagonal && judged.in_fp32
                    ? squared_distance(mixture, lists.x, first[0], count, component, lane)
                    : mine.square;
    // A lane's place: how many are better, the lower component of equals first.
    int place = 0;
    for (int l = 0; l < count; ++l) {
        const float other = __shfl_sync(whole_warp, mine.relative, l);
        place += other > mine.relative || (other == mine.relative && l < lane);
    }
    // Lists of the m best alone: the normaliser is complete if the m-th is beyond the margin.
    const bool last_counts =
            lane < count && place == m - 1 && mine.relative >= shares.best - rule.margin;
    if (m > 1 && count < mixture.K && __any_sync(whole_warp, last_counts)) {
        leave(left, row, lane);
        return;
    }
    if (lane < count && place < m) {
        const size_t at = static_cast<size_t>(row) * m + place;
        out.component[at] = component;
        out.log_responsibility[at] = mine.relative - shares.best - shares.log_sum;
        out.squared_distance[at] = square;
    }
}

/// A warp takes 32 rows: those of one candidate straight ahead, a few at a time, where one is asked for.
template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block, chunks == 1 ? 5 : 1) rank_kernel(
        MixtureView mixture,
        PairRule rule,
        RowLists lists,
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
    constexpr int ahead = form == Covariance::diagonal ? 1 : rows_ahead(chunks);
    const int d = mixture.d, my_row = first + lane;
    const int my_count = lane < here ? lists.count[my_row] : 0;
    const int my_home = lane < here ? lists.home[my_row] : 0;
    const float far = far_row / 2 * d;
    float my_square = -1; // of a row that is done straight ahead
    unsigned several = 0;
    if (m > 1 || form == Covariance::diagonal) {
        several = here == 32 ? ~0u : (1u << here) - 1;
    }
    for (int i0 = 0; i0 < here && several == 0; i0 += ahead) {
        float values[ahead][4 * chunks];
        size_t at[ahead];
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            at[i] = static_cast<size_t>(first + min(i0 + i, here - 1)) * d;
        }
        load_rows<chunks>(lists.x, at, d, lane, values);
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            const int home = __shfl_sync(whole_warp, my_home, min(i0 + i, here - 1));
            const Component<form, chunks> c(mixture, home);
            centre_at<form, chunks>(c, lists.x, at[i], d, lane, values[i]);
            const AgainstC against = against_c<form, chunks>(mixture, c, values[i], lane);
            const bool is_near = against.weighted <= far; // false for NaN
            if (lane == i0 + i && my_count == 1 && is_near) {
                my_square = against.square;
            }
        }
    }
    if (several == 0) {
        several = __ballot_sync(whole_warp, lane < here && my_square < 0);
    }
    if (my_square >= 0) {
        out.component[my_row] = my_home;
        out.log_responsibility[my_row] = 0;
        out.squared_distance[my_row] = my_square;
    }
#pragma unroll 1
    for (; several != 0; several &= several - 1) {
        const int i = __ffs(static_cast<int>(several)) - 1, row = first + i;
        const int count = __shfl_sync(whole_warp, my_count, i);
        if (count == 0 || count > lists.capacity || (count < m && count < mixture.K)) {
            leave(left, row, lane);
        } else {
            rank_row<form, chunks>(
                    mixture, rule, lists, m, row, count, first_row + row, bad_row, left, out);
        }
    }
}

template <template <Covariance, int> class Launch, Covariance form, class... Arguments>
void launch_for_width(int d, const Arguments&... arguments) {
    if (d <= 128) {
        Launch<form, 1>::go(arguments...);
    } else if (d <= 256) {
        Launch<form, 2>::go(arguments...);
    } else if (d <= 512) {
        Launch<form, 4>::go(arguments...);
    } else if (d <= 1024) {
        Launch<form, 8>::go(arguments...);
    } else {
        Launch<form, 16>::go(arguments...);
    }
}

/// Launch<form, chunks>::go(arguments...) for the mixture's form and width.
template <template <Covariance, int> class Launch, class... Arguments>
void launch_for(const MixtureView& mixture, const Arguments&... arguments) {
    switch (mixture.covariance) {
    case Covariance::spherical:
        launch_for_width<Launch, Covariance::spherical>(mixture.d, mixture, arguments...);
        break;
    case Covariance::diagonal:
        launch_for_width<Launch, Covariance::diagonal>(mixture.d, mixture, arguments...);
        break;
    default:
        if (mixture.means_low != nullptr) {
            launch_for_width<Launch, Covariance::tied>(mixture.d, mixture, arguments...);
        } else {
            launch_for_width<Launch, Covariance::tied_spherical>(mixture.d, mixture, arguments...);
        }
        break;
    }
}

int blocks_of(int warps) {
    return (warps + warps_a_block - 1) / warps_a_block;
}

template <Covariance form, int chunks> struct Weigh {
    static void
    go(const MixtureView& mixture,
       const PairRule& rule,
       const RowLists& lists,
       const uint32_t* order,
       const SegmentTable& table,
       int segments,
       unsigned long long first_row,
       const WeighOutput& out,
       cudaStream_t stream) {
        weigh_kernel<form, chunks><<<blocks_of(segments), 32 * warps_a_block, 0, stream>>>(
                mixture, rule, lists, order, table, first_row, out);
    }
};

template <Covariance form, int chunks> struct SumPairs {
    static void
    go(const MixtureView& mixture,
       const Rows& x,
       const RowShare* pairs,
       const SegmentTable& table,
       int segments,
       const SegmentSums& out,
       cudaStream_t stream) {
        // Both spherical forms are the same here.
        constexpr Covariance sums_form =
                form == Covariance::spherical ? Covariance::tied_spherical : form;
        sum_pairs_kernel<sums_form, chunks><<<blocks_of(segments), 32 * warps_a_block, 0, stream>>>(
                mixture, x, pairs, table, out);
    }
};

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
                <<<blocks_of((lists.rows + 31) / 32), 32 * warps_a_block, 0, stream>>>(
                        mixture, rule, lists, m, first_row, bad_row, left, out);
    }
};

} // namespace

void weigh(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        const uint32_t* order,
        const SegmentTable& table,
        int segments,
        unsigned long long first_row,
        const WeighOutput& out,
        cudaStream_t stream) {
    if (segments > 0) {
        launch_for<Weigh>(mixture, rule, lists, order, table, segments, first_row, out, stream);
        check_launch("weighing rows");
    }
}

void sum_pairs(
        const MixtureView& mixture,
        const Rows& x,
        const RowShare* pairs,
        const SegmentTable& table,
        int segments,
        const SegmentSums& out,
        cudaStream_t stream) {
    if (segments > 0) {
        launch_for<SumPairs>(mixture, x, pairs, table, segments, out, stream);
        check_launch("adding up pairs");
    }
}

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
