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
//   (4 chunks + 8) u (|mu_k - mu_c| |x - mu_c| + |mu_k - mu_c|^2 / 2) 2 hp. Where that moves a
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

/// (2), or (1) relative to c, in fp32 for every candidate; difference = x - mu_c.
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
    constexpr float epsilon = (4 * chunks + 8) * unit_roundoff;
    const int d = mixture.d;
    Candidate mine{component, lane < count ? 0.0f : -infinity, 0.0f};
    for (int l = 0; l < count; ++l) {
        const int k = __shfl_sync(whole_warp, component, l);
        if (k == c.k) {
            continue;
        }
        const Component<form, chunks> other(mixture, k);
        float relative, error;
        float a = 0, b = 0;
#pragma unroll
        for (int i = 0; i < chunks; ++i) {
            const int at = chunk_width * i + 4 * lane;
            float mu[4],
                    near[4]; // near: mu_c, or x (again from the cache) where distances are compared
            load_four(other.mean, at, d, means_aligned, mu);
            if constexpr (form == Covariance::tied_spherical) {
                load_four(c.mean, at, d, means_aligned, near);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    mu[j] -= near[j];
                }
                if (mixture.means_low != nullptr) {
                    float low[4];
                    load_four(other.mean_low, at, d, means_aligned, low);
                    load_four(c.mean_low, at, d, means_aligned, near);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        mu[j] += low[j] - near[j];
                    }
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float t = mu[j];
                    a = fmaf(t, fmaf(-0.5f, t, difference[4 * i + j]), a);
                    b = fmaf(t, t, b);
                }
            } else {
                float p[4] = {1, 1, 1, 1};
                load_four(x, first, at, d, near);
                if constexpr (form == Covariance::diagonal) {
                    load_four(other.precision, at, d, means_aligned, p);
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float e = near[j] - mu[j];
                    a = fmaf(p[j] * e, e, a);
                }
            }
        }
        a = warp_sum(a);
        const float constants = static_cast<float>(other.constant - c.constant);
        if (form == Covariance::tied_spherical) {
            b = warp_sum(b);
            relative = 2 * c.half_precision * a + constants;
            error = epsilon * 2 * c.half_precision * (sqrtf(b * against.square) + 0.5f * b);
        } else {
            const float weighted = form == Covariance::spherical ? other.half_precision * a : a;
            relative = against.weighted - weighted + constants;
            error = epsilon * (against.weighted + weighted);
        }
        error += unit_roundoff * 4 * fabsf(relative);
        if (lane == l) {
            mine.relative = relative;
            mine.error = error;
        }
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

__device__ Shares normalise(const Candidate& mine, float margin) {
    Shares shares;
    shares.best = warp_max(mine.relative);
    shares.home = __ffs(__ballot_sync(whole_warp, mine.relative == shares.best)) - 1;
    const float e =
            mine.relative >= shares.best - margin ? expf(mine.relative - shares.best) : 0.0f;
    const float sum = warp_sum(e);
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

template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block) weigh_kernel(
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
    const bool means_aligned = d % 4 == 0;
    const Segment segment = find_segment(table, s);
    const Component<form, chunks> c(mixture, segment.group % mixture.K);
    float held[chunks <= most_held_chunks ? 4 * chunks : 1];
    if constexpr (chunks <= most_held_chunks) {
        load_row<chunks>(c.mean, d, means_aligned, lane, held);
    }
    constexpr int ahead = rows_ahead(chunks);
    const float far = far_row / 2 * d;
    Sums<form, chunks> sums;
    unsigned shared = 0;

    for (int begin = segment.begin; begin < segment.end; begin += 32) {
        const int here = min(32, segment.end - begin);
        const uint32_t my_row = lane < here ? order[begin + lane] : 0;
        const int my_count = lane < here ? lists.count[my_row] : 0;
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
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                if (i0 + i >= here) {
                    break;
                }
                const uint32_t row = __shfl_sync(whole_warp, my_row, i0 + i);
                const int count = __shfl_sync(whole_warp, my_count, i0 + i);
                float(&difference)[4 * chunks] = values[i];
                if constexpr (chunks <= most_held_chunks) {
#pragma unroll
                    for (int j = 0; j < 4 * chunks; ++j) {
                        difference[j] -= held[j];
                    }
                } else {
#pragma unroll
                    for (int j = 0; j < chunks; ++j) {
                        float mu[4];
                        load_four(c.mean, chunk_width * j + 4 * lane, d, means_aligned, mu);
#pragma unroll
                        for (int q = 0; q < 4; ++q) {
                            difference[4 * j + q] -= mu[q];
                        }
                    }
                }
                if (form == Covariance::tied_spherical && lists.x.low != nullptr) {
                    add_low_parts<chunks>(lists.x.low + first[i], c.mean_low, d, lane, difference);
                }
                const AgainstC against = against_c<form, chunks>(mixture, c, difference, lane);
                const bool near = against.weighted <= far; // false for NaN
                if (count == 1 && near) {
                    sums.add(difference, 1.0, against.square);
                    sums.log_likelihood += c.constant - static_cast<double>(against.weighted);
                    continue;
                }
                const size_t list = static_cast<size_t>(row) * lists.capacity;
                const int component = lane < count ? lists.component[list + lane] : -1;
                Candidate mine;
                Shares shares;
                double square = against.square;                   // |x - mu_c|^2
                double reference = c.constant - against.weighted; // l of relative 0
                bool fine = false;
                if (near) {
                    mine = compare<form, chunks>(
                            mixture,
                            means_aligned,
                            c,
                            lists.x,
                            first[i],
                            difference,
                            against,
                            count,
                            component,
                            lane);
                    shares = normalise(mine, rule.margin);
                    fine = settled(mine, shares, lane);
                }
                if (!fine) {
                    double my_square = 0;
                    const double joint = exact_joint<form>(
                            mixture, lists.x, first[i], count, component, lane, my_square);
                    reference = warp_max(joint);
                    mine = {component, static_cast<float>(joint - reference), 0.0f};
                    if (!isfinite(reference)) {
                        if (!all_finite_row(lists.x, first[i], d, lane)) {
                            if (lane == 0) {
                                atomicMin(out.bad_row, first_row + row);
                            }
                            continue;
                        }
                        mine.relative = lane < count ? 0.0f : -infinity;
                    }
                    shares = normalise(mine, rule.margin);
                    const unsigned at_c = __ballot_sync(whole_warp, component == c.k);
                    square = __shfl_sync(whole_warp, my_square, at_c != 0 ? __ffs(at_c) - 1 : 0);
                }
                const bool is_home = lane == shares.home;
                // Whitened rows: shares that add up to one exactly, also where home's is stored in fp32.
                const float given = lists.x.low != nullptr
                                            ? rintf(shares.r * share_steps) / share_steps
                                            : shares.r;
                const float r = rule.hard ? 0.0f : given;
                const bool keeps = !is_home && r >= rule.threshold && r > 0;
                const double rest = 1.0 - warp_sum(keeps ? static_cast<double>(r) : 0.0);
                const double weight = is_home ? rest : keeps ? static_cast<double>(r) : 0.0;
                const unsigned at_c = __ballot_sync(whole_warp, component == c.k);
                if (at_c != 0) {
                    const double weight_c = __shfl_sync(whole_warp, weight, __ffs(at_c) - 1);
                    if (weight_c > 0) {
                        sums.add(difference, weight_c, square);
                    }
                }
                sums.log_likelihood +=
                        reference + shares.best + (rule.hard ? 0.0f : shares.log_sum);
                shared += warp_max(is_home ? 0.0f : r) > 1.0f / mixture.K;
                const bool emits = (is_home || keeps) && component != c.k;
                const unsigned emitted = __ballot_sync(whole_warp, emits);
                if (emits) {
                    const int at = __popc(emitted & ((1u << lane) - 1));
                    lists.component[list + at] = static_cast<uint16_t>(component);
                    lists.share[list + at] = static_cast<float>(weight);
                }
                if (lane == i0 + i) {
                    my_kept = __popc(emitted);
                }
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
                if (form == Covariance::tied_spherical && x.low != nullptr) {
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

template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block) rank_kernel(
        MixtureView mixture,
        PairRule rule,
        RowLists lists,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        RowsLeft left,
        TopOutput out) {
    const int row = blockIdx.x * warps_a_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= lists.rows) {
        return;
    }
    const int count = lists.count[row];
    if (count == 0 || count > lists.capacity || (count < m && count < mixture.K)) {
        leave(left, row, lane);
        return;
    }
    const int d = mixture.d;
    const size_t first[1] = {static_cast<size_t>(row) * d};
    const int component =
            lane < count ? lists.component[static_cast<size_t>(row) * lists.capacity + lane] : -1;
    const Component<form, chunks> c(mixture, lists.home[row]);
    float values[1][4 * chunks];
    float(&difference)[4 * chunks] = values[0];
    load_rows<chunks>(lists.x, first, d, lane, values);
#pragma unroll
    for (int j = 0; j < chunks; ++j) {
        float mu[4];
        load_four(c.mean, chunk_width * j + 4 * lane, d, d % 4 == 0, mu);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            difference[4 * j + q] -= mu[q];
        }
    }
    if (form == Covariance::tied_spherical && lists.x.low != nullptr) {
        add_low_parts<chunks>(lists.x.low + first[0], c.mean_low, d, lane, difference);
    }
    const AgainstC against = against_c<form, chunks>(mixture, c, difference, lane);
    Candidate mine;
    Shares shares;
    bool fine = false;
    if (against.weighted <= far_row / 2 * d) {
        mine = compare<form, chunks>(
                mixture,
                d % 4 == 0,
                c,
                lists.x,
                first[0],
                difference,
                against,
                count,
                component,
                lane);
        shares = normalise(mine, rule.margin);
        fine = settled(mine, shares, lane);
    }
    float square = against.square;
    if (!fine) {
        double exact_square = infinity;
        const double joint =
                exact_joint<form>(mixture, lists.x, first[0], count, component, lane, exact_square);
        square = static_cast<float>(exact_square);
        const double reference = warp_max(joint);
        mine = {component, static_cast<float>(joint - reference), 0.0f};
        if (!isfinite(reference)) {
            if (!all_finite_row(lists.x, first[0], d, lane)) {
                if (lane == 0) {
                    atomicMin(bad_row, first_row + row);
                }
                return;
            }
            mine.relative = lane < count ? 0.0f : -infinity;
        }
        shares = normalise(mine, rule.margin);
    } else if (count > 1 || form == Covariance::diagonal) {
        square = squared_distance(mixture, lists.x, first[0], count, component, lane);
    }
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
        launch_for_width<Launch, Covariance::tied_spherical>(mixture.d, mixture, arguments...);
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
                form == Covariance::diagonal ? Covariance::diagonal : Covariance::tied_spherical;
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
        rank_kernel<form, chunks><<<blocks_of(lists.rows), 32 * warps_a_block, 0, stream>>>(
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
