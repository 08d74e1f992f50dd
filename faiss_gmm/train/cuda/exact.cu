// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The exact tier: rows for which no bound of a product form helps (groups 100 sigma apart, outliers,
// more candidates than a list holds where the dense tier does not apply), and all rows of `full`.
//   (1) l_ik = constant_k - sum_j hp_kj (x_ij - mu_kj)^2, fp64 from fp32 numbers
//   (2) r_ik; every share enters (weigh.cu leaves out those below a threshold)
//   (3) sums of r, r (x - mu_k), r |x - mu_k|^2 (diagonal: r (x - mu_k)^2), fp64
// Phases, for as many rows as the buffers hold: 1 joints, tiles of 32 rows x 64 components   2 shares,
//   one to eight warps a row, by K   3 sums, tiles of 32 components x 8 dimensions, rows in order.
// Cost: 2 n K d fp64 operations for (1) and as many for (3) (diagonal: half more and twice as many); of a row 24 K
//   bytes of joints, shares and moments written, and K d bytes of shares read, through L2. 4,096 rows of (1024, 128) on
//   an H100 under its profiler's fixed clock: 1 .153 ms, 56% of fp64's issue slots, loads from shared memory 81%
//   2 .070, 31%   3 .393, 21% (diagonal .386, 42%): it waits for rows and shares.
// Numerics: all fp64, nothing cancels. Determinism: gpu_to_gpu but for exp and log; every sum runs
//   over the rows in order, whatever the buffers hold. This is the reference of the other tiers.
// Test: tests/train/cuda/cuda_estep_engine_test.cc, against tests/train/naive_em.h.
// Lost, of 3: a warp a component; tiles of 32 x 32, 4 x 2 a thread (2.43 ms: 128 blocks, and the moment's division and
//   load a row within them); 32 x 16, 2 x 2 a thread (.49); the rows' numbers a tile further ahead (a tenth more).
#include "faiss_gmm/train/cuda/detail/exact.h"

#include <algorithm>

#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/matrices.h"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int tile_rows = 32, tile_components = 64, tile_depth = 16;
constexpr int joint_threads = 256;
constexpr double infinity = __builtin_huge_val();

__device__ uint32_t row_of(const ExactRows& rows, int i) {
    return rows.row[i];
}

/// A thread has 2 rows x 4 components.
template <Covariance form>
__global__ void __launch_bounds__(joint_threads)
        joint_kernel(MixtureView mixture, ExactRows rows, double* joint) {
    __shared__ double x_tile[tile_rows][tile_depth + 1];
    __shared__ double mu_tile[tile_components][tile_depth + 1];
    __shared__ double hp_tile[form == Covariance::diagonal ? tile_components : 1][tile_depth + 1];
    const int d = mixture.d, K = mixture.K;
    const int first_component = blockIdx.x * tile_components, first = blockIdx.y * tile_rows;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    double sum[2][4] = {};
    for (int j0 = 0; j0 < d; j0 += tile_depth) {
        for (int t = threadIdx.x; t < tile_rows * tile_depth; t += joint_threads) {
            const int i = t / tile_depth, j = t % tile_depth;
            const bool inside = first + i < rows.count && j0 + j < d;
            x_tile[i][j] =
                    inside ? number(rows.x,
                                    static_cast<size_t>(row_of(rows, first + i)) * d + j0 + j)
                           : 0;
        }
        for (int t = threadIdx.x; t < tile_components * tile_depth; t += joint_threads) {
            const int k = t / tile_depth, j = t % tile_depth;
            const bool inside = first_component + k < K && j0 + j < d;
            const size_t at = static_cast<size_t>(first_component + k) * d + j0 + j;
            mu_tile[k][j] = inside ? mean_number(mixture, first_component + k, j0 + j) : 0;
            if (form == Covariance::diagonal) {
                hp_tile[k][j] = inside ? mixture.half_precision[at] : 0;
            }
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < tile_depth; ++j) {
            double x[2], mu[4];
            for (int a = 0; a < 2; ++a) {
                x[a] = x_tile[ty + 16 * a][j];
            }
            for (int b = 0; b < 4; ++b) {
                mu[b] = mu_tile[tx + 16 * b][j];
            }
#pragma unroll
            for (int a = 0; a < 2; ++a) {
#pragma unroll
                for (int b = 0; b < 4; ++b) {
                    const double e = x[a] - mu[b];
                    const double scaled =
                            form == Covariance::diagonal ? hp_tile[tx + 16 * b][j] * e : e;
                    sum[a][b] = fma(scaled, e, sum[a][b]);
                }
            }
        }
        __syncthreads();
    }
    for (int a = 0; a < 2; ++a) {
        for (int b = 0; b < 4; ++b) {
            const int i = first + ty + 16 * a, k = first_component + tx + 16 * b;
            if (i < rows.count && k < K) {
                const double hp = form == Covariance::diagonal    ? 1.0
                                  : form == Covariance::spherical ? mixture.half_precision[k]
                                                                  : mixture.half_precision[0];
                joint[static_cast<size_t>(i) * K + k] = mixture.constant[k] - hp * sum[a][b];
            }
        }
    }
}

struct Best {
    double value;
    int component;
};

__device__ bool better(const Best& a, const Best& b) {
    return a.value > b.value || (a.value == b.value && a.component < b.component);
}

/// The best of all lanes, the lower component of equals.
__device__ Best warp_best(Best mine) {
    for (int step = 16; step > 0; step /= 2) {
        const Best other{
                __shfl_xor_sync(whole_warp, mine.value, step),
                __shfl_xor_sync(whole_warp, mine.component, step)};
        mine = better(other, mine) ? other : mine;
    }
    return mine;
}

constexpr int most_row_warps = 8;

/// Threads that share a row's components; a function of K, as the order of its sums is.
int threads_of_row(int K) {
    return std::clamp(K / 256, 1, most_row_warps) * 32;
}

/// The warps' numbers joined in their order; every thread of the block has the result.
template <class T, class Join> __device__ T over_warps(T of_warp, const Join& join) {
    __shared__ T of_warps[most_row_warps];
    const int warps = blockDim.x / 32;
    if (warps == 1) {
        return of_warp;
    }
    __syncthreads(); // what was there has been read
    if (threadIdx.x % 32 == 0) {
        of_warps[threadIdx.x / 32] = of_warp;
    }
    __syncthreads();
    T all = of_warps[0];
    for (int w = 1; w < warps; ++w) {
        all = join(all, of_warps[w]);
    }
    return all;
}

__device__ Best block_best(const Best& mine) {
    return over_warps(
            warp_best(mine), [](const Best& a, const Best& b) { return better(b, a) ? b : a; });
}

__device__ double block_sum(double value) {
    return over_warps(warp_sum(value), [](double a, double b) { return a + b; });
}

__device__ double block_max(double value) {
    return over_warps(warp_max(value), [](double a, double b) { return a > b ? a : b; });
}

/// Best component and log-normaliser less its joint; a NaN or an infinity in x makes `finite` false.
struct RowNormal {
    Best best;
    double sum; ///< of exp(joint - best)
    bool finite;
};

__device__ RowNormal normalise(
        const MixtureView& mixture,
        const Rows& x,
        size_t first,
        const double* joint,
        float margin) {
    const int thread = threadIdx.x, threads = blockDim.x;
    RowNormal normal;
    bool finite = true;
    for (int j = thread; j < mixture.d; j += threads) {
        finite = finite && isfinite(high_number(x, first + j));
    }
    normal.finite = __syncthreads_and(finite);
    Best mine{-infinity, mixture.K};
    for (int k = thread; k < mixture.K; k += threads) {
        const Best here{joint[k], k};
        mine = better(here, mine) ? here : mine;
    }
    normal.best = block_best(mine);
    double sum = 0;
    for (int k = thread; k < mixture.K; k += threads) {
        const double relative = joint[k] - normal.best.value;
        sum += relative >= -margin ? exp(relative) : 0;
    }
    normal.sum = block_sum(sum);
    return normal;
}

/// r |x - mu|^2, by the joint of x; of components that have one variance.
__device__ double moment_of(const MixtureView& mixture, int k, double r, double joint) {
    const double hp = mixture.half_precision[mixture.covariance == Covariance::spherical ? k : 0];
    // A component of weight zero has joints of -infinity, and no share.
    return r > 0 ? r * ((mixture.constant[k] - joint) / hp) : 0;
}

/// A block of threads a row. Where components have one variance, moment_of() comes in the joints' place.
__global__ void share_kernel(
        MixtureView mixture,
        PairRule rule,
        ExactRows rows,
        double* joint,
        double* share,
        unsigned long long first_row,
        double* log_likelihood,
        unsigned long long* shared_rows,
        unsigned long long* bad_row) {
    const int i = blockIdx.x, thread = threadIdx.x, threads = blockDim.x;
    const int K = mixture.K;
    const uint32_t row = row_of(rows, i);
    joint += static_cast<size_t>(i) * K;
    share += static_cast<size_t>(i) * K;
    const RowNormal normal =
            normalise(mixture, rows.x, static_cast<size_t>(row) * mixture.d, joint, rule.margin);
    if (!normal.finite || normal.best.component >= K) {
        for (int k = thread; k < K; k += threads) {
            share[k] = 0;
            joint[k] = 0;
        }
        if (thread == 0) {
            log_likelihood[row] = 0;
            atomicMin(bad_row, first_row + row);
        }
        return;
    }
    const bool with_moment =
            mixture.covariance != Covariance::diagonal && mixture.covariance != Covariance::full;
    double others = 0, second = 0;
    for (int k = thread; k < K; k += threads) {
        const double relative = joint[k] - normal.best.value;
        const double r = relative >= -rule.margin ? exp(relative) / normal.sum : 0;
        double kept = 0;
        if (k != normal.best.component && !rule.hard) {
            second = r > second ? r : second;
            kept = r >= rule.threshold ? r : 0;
            others += kept;
        }
        share[k] = kept;
        if (with_moment && k != normal.best.component) {
            joint[k] = moment_of(mixture, k, kept, joint[k]);
        }
    }
    others = block_sum(others);
    second = block_max(second);
    if (thread == normal.best.component % threads) {
        const int best = normal.best.component;
        share[best] = 1 - others;
        if (with_moment) {
            joint[best] = moment_of(mixture, best, 1 - others, joint[best]);
        }
        log_likelihood[row] = normal.best.value + (rule.hard ? 0 : log(normal.sum));
        if (second > 1.0 / K) {
            atomicAdd(shared_rows, 1ull);
        }
    }
}

constexpr int sum_rows = 32, sum_components = 32, sum_dimensions = 8, sum_threads = 128;

/// Adds values [rows, K] of component k to its sum, in their order.
__device__ void add_in_order(const double* values, int rows, int K, int k, double* sums) {
    if (k >= K) {
        return;
    }
    double sum = sums[k];
#pragma unroll 32
    for (int i = 0; i < rows; ++i) {
        sum += values[static_cast<size_t>(i) * K + k];
    }
    sums[k] = sum;
}

/// (3): a block of threads has 32 components x 8 dimensions, a thread two of them; rows in order, the next ones on
/// their way. The last blocks add up r and, where components have one variance, r |x - mu|^2: a thread a component.
template <bool diagonal>
__global__ void __launch_bounds__(sum_threads) moment_kernel(
        MixtureView mixture,
        ExactRows rows,
        const double* __restrict__ moments,
        const double* __restrict__ shares,
        PassSums sums) {
    __shared__ double r_tile[sum_rows][sum_components];
    __shared__ double x_tile[sum_rows][sum_dimensions];
    const int d = mixture.d, K = mixture.K;
    const int of_dimensions = (d + sum_dimensions - 1) / sum_dimensions;
    if (blockIdx.y >= of_dimensions) {
        const int k = blockIdx.x * sum_threads + threadIdx.x;
        const bool are_masses = blockIdx.y == of_dimensions;
        if (are_masses || !diagonal) {
            add_in_order(
                    are_masses ? shares : moments,
                    rows.count,
                    K,
                    k,
                    are_masses ? sums.mass : sums.moment);
        }
        return;
    }
    const int k0 = blockIdx.x * sum_components, j0 = blockIdx.y * sum_dimensions;
    const int tx = threadIdx.x % sum_dimensions, ty = threadIdx.x / sum_dimensions;
    double mu[2], first[2], second[2] = {};
    for (int a = 0; a < 2; ++a) {
        const int k = k0 + ty + 16 * a, j = j0 + tx;
        const size_t at = static_cast<size_t>(k) * d + j;
        const bool inside = k < K && j < d;
        mu[a] = inside ? mean_number(mixture, k, j) : 0;
        first[a] = inside ? sums.first_moment[at] : 0;
        second[a] = inside && diagonal ? sums.second_moment[at] : 0;
    }
    constexpr int shares_a_thread = sum_rows * sum_components / sum_threads;
    constexpr int numbers_a_thread = sum_rows * sum_dimensions / sum_threads;
    double next_share[shares_a_thread], next_number[numbers_a_thread];
    const auto fetch = [&](int i0) {
#pragma unroll
        for (int q = 0; q < shares_a_thread; ++q) {
            const int t = threadIdx.x + q * sum_threads;
            const int i = i0 + t / sum_components, k = k0 + t % sum_components;
            next_share[q] = i < rows.count && k < K ? shares[static_cast<size_t>(i) * K + k] : 0;
        }
#pragma unroll
        for (int q = 0; q < numbers_a_thread; ++q) {
            const int t = threadIdx.x + q * sum_threads;
            const int i = i0 + t / sum_dimensions, j = j0 + t % sum_dimensions;
            next_number[q] = i < rows.count && j < d
                                     ? number(rows.x, static_cast<size_t>(row_of(rows, i)) * d + j)
                                     : 0;
        }
    };
    fetch(0);
    for (int i0 = 0; i0 < rows.count; i0 += sum_rows) {
        __syncthreads();
#pragma unroll
        for (int q = 0; q < shares_a_thread; ++q) {
            const int t = threadIdx.x + q * sum_threads;
            r_tile[t / sum_components][t % sum_components] = next_share[q];
        }
#pragma unroll
        for (int q = 0; q < numbers_a_thread; ++q) {
            const int t = threadIdx.x + q * sum_threads;
            x_tile[t / sum_dimensions][t % sum_dimensions] = next_number[q];
        }
        __syncthreads();
        fetch(i0 + sum_rows); // nothing behind the last
#pragma unroll 8
        for (int i = 0; i < sum_rows; ++i) {
            const double x = x_tile[i][tx];
#pragma unroll
            for (int a = 0; a < 2; ++a) {
                const double r = r_tile[i][ty + 16 * a], e = x - mu[a];
                first[a] = fma(r, e, first[a]);
                if (diagonal) {
                    second[a] = fma(r * e, e, second[a]);
                }
            }
        }
    }
    for (int a = 0; a < 2; ++a) {
        const int k = k0 + ty + 16 * a, j = j0 + tx;
        if (k < K && j < d) {
            const size_t at = static_cast<size_t>(k) * d + j;
            sums.first_moment[at] = first[a];
            if (diagonal) {
                sums.second_moment[at] = second[a];
            }
        }
    }
}

constexpr int row_tile = 1024;

/// Sum of a block's 256 numbers.
__device__ double sum_of_block(double value) {
    __shared__ double partial[256];
    __syncthreads(); // what was there has been read
    partial[threadIdx.x] = value;
    for (int step = 128; step > 0; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) {
            partial[threadIdx.x] += partial[threadIdx.x + step];
        }
    }
    __syncthreads();
    return partial[0];
}

__global__ void add_rows(const double* values, size_t stride, int rows, double* tiles) {
    double sum = 0;
    for (int q = 0; q < 4; ++q) {
        const int i = blockIdx.x * row_tile + threadIdx.x + 256 * q;
        sum += i < rows ? values[blockIdx.y * stride + i] : 0;
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) {
        tiles[blockIdx.y * gridDim.x + blockIdx.x] = sum;
    }
}

/// The tiles of a block of rows as a tree, the blocks one after the other.
__global__ void add_tiles(const double* tiles, int count, int tiles_a_block, double* sums) {
    double total = sums[blockIdx.x];
    tiles += blockIdx.x * count;
    for (int first = 0; first < count; first += tiles_a_block) {
        const int t = static_cast<int>(threadIdx.x);
        const bool there = t < tiles_a_block && first + t < count;
        total += sum_of_block(there ? tiles[first + t] : 0);
    }
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = total;
    }
}

/// A block of threads a row: the best one after another.
__global__ void rank_kernel(
        MixtureView mixture,
        PairRule rule,
        ExactRows rows,
        double* joint,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        TopOutput out) {
    const int i = blockIdx.x, thread = threadIdx.x, threads = blockDim.x;
    const int K = mixture.K, d = mixture.d;
    const uint32_t row = row_of(rows, i);
    const size_t x = static_cast<size_t>(row) * d;
    joint += static_cast<size_t>(i) * K;
    const RowNormal normal = normalise(mixture, rows.x, x, joint, rule.margin);
    if (!normal.finite) {
        if (thread == 0) {
            atomicMin(bad_row, first_row + row);
        }
        return;
    }
    const double norm = normal.best.value + log(normal.sum);
    Best last{infinity, -1};
    for (int place = 0; place < m && place < K; ++place) {
        Best mine{-infinity, K};
        for (int k = thread; k < K; k += threads) {
            const Best here{joint[k], k};
            if (better(last, here) && better(here, mine)) {
                mine = here;
            }
        }
        last = block_best(mine);
        double square = 0;
        for (int j = thread; j < d; j += threads) {
            const double e = number(rows.x, x + j) - mean_number(mixture, last.component, j);
            square += e * e;
        }
        square = block_sum(square);
        if (thread == 0) {
            const size_t at = static_cast<size_t>(row) * m + place;
            out.component[at] = last.component;
            out.log_responsibility[at] = static_cast<float>(last.value - norm);
            out.squared_distance[at] = static_cast<float>(square);
        }
    }
}

void find_joints(
        const MixtureView& mixture,
        const ExactRows& rows,
        const ExactBuffers& buffers,
        cudaStream_t stream) {
    if (mixture.covariance == Covariance::full) {
        find_matrix_joints(mixture, rows, buffers.joint, stream);
        return;
    }
    const dim3 grid(
            (mixture.K + tile_components - 1) / tile_components,
            (rows.count + tile_rows - 1) / tile_rows);
    switch (mixture.covariance) {
    case Covariance::spherical:
        joint_kernel<Covariance::spherical>
                <<<grid, joint_threads, 0, stream>>>(mixture, rows, buffers.joint);
        break;
    case Covariance::diagonal:
        joint_kernel<Covariance::diagonal>
                <<<grid, joint_threads, 0, stream>>>(mixture, rows, buffers.joint);
        break;
    default:
        joint_kernel<Covariance::tied_spherical>
                <<<grid, joint_threads, 0, stream>>>(mixture, rows, buffers.joint);
        break;
    }
    check_launch("computing exact log-joints");
}

/// Calls f(part) for as many rows at once as the buffers hold.
template <class Function>
void in_parts(const ExactRows& rows, const ExactBuffers& buffers, Function&& f) {
    for (int first = 0; first < rows.count; first += buffers.rows) {
        ExactRows part = rows;
        part.count = std::min(buffers.rows, rows.count - first);
        part.row = rows.row + first;
        f(part);
    }
}

} // namespace

void sum_exactly(
        const MixtureView& mixture,
        const PairRule& rule,
        const ExactRows& rows,
        const ExactBuffers& buffers,
        unsigned long long first_row,
        const PassSums& sums,
        const Scatter& scatter,
        double* log_likelihood,
        unsigned long long* shared_rows,
        unsigned long long* bad_row,
        cudaStream_t stream) {
    in_parts(rows, buffers, [&](const ExactRows& part) {
        find_joints(mixture, part, buffers, stream);
        share_kernel<<<part.count, threads_of_row(mixture.K), 0, stream>>>(
                mixture,
                rule,
                part,
                buffers.joint,
                buffers.share,
                first_row,
                log_likelihood,
                shared_rows,
                bad_row);
        if (mixture.covariance == Covariance::full) {
            add_shared_scatter(mixture, part, buffers.share, scatter, stream);
            return;
        }
        const dim3 grid(
                (mixture.K + sum_components - 1) / sum_components,
                (mixture.d + sum_dimensions - 1) / sum_dimensions + 2);
        if (mixture.covariance == Covariance::diagonal) {
            moment_kernel<true><<<grid, sum_threads, 0, stream>>>(
                    mixture, part, buffers.joint, buffers.share, sums);
        } else {
            moment_kernel<false><<<grid, sum_threads, 0, stream>>>(
                    mixture, part, buffers.joint, buffers.share, sums);
        }
        check_launch("adding up rows exactly");
    });
}

void add_row_values(
        const double* values,
        size_t stride,
        int rows,
        int block_rows,
        double* tiles,
        double* sums,
        cudaStream_t stream) {
    const int count = (rows + row_tile - 1) / row_tile;
    add_rows<<<dim3(count, 2), 256, 0, stream>>>(values, stride, rows, tiles);
    add_tiles<<<2, 256, 0, stream>>>(tiles, count, block_rows / row_tile, sums);
    check_launch("adding up likelihoods");
}

void rank_exactly(
        const MixtureView& mixture,
        const PairRule& rule,
        const ExactRows& rows,
        const ExactBuffers& buffers,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        const TopOutput& out,
        cudaStream_t stream) {
    in_parts(rows, buffers, [&](const ExactRows& part) {
        find_joints(mixture, part, buffers, stream);
        rank_kernel<<<part.count, threads_of_row(mixture.K), 0, stream>>>(
                mixture, rule, part, buffers.joint, m, first_row, bad_row, out);
        check_launch("ranking components exactly");
    });
}

} // namespace faiss_gmm::cuda
