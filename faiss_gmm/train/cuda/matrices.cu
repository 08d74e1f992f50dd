// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Covariances that are matrices: the products of d x d matrices with rows, all in fp64.
//   W_k = L_k^-1, S_k = L_k L_k^T; o: the mean of the means
//   (1) tied, a row:   y = W (x - o), kept as fp32 high + low: the rest of the pass sees rows y, means
//       W (mu_k - o) and one variance of 1 (collect, weigh.cu, dense.cu, exact.cu)
//   (2) tied, a pass:  T = sum_i (x_i - o)(x_i - o)^T, from which matrices.cc takes the second moment
//   (3) full, a row and component: l_ik = constant_k - |W_k (x_i - mu_k)|^2 / 2
//   (4) full, a pass:  M_k = sum_i r_ik (x_i - mu_k)(x_i - mu_k)^T over the rows with r_ik > 0, and
//       sum_i r_ik (x_i - mu_k), sum_i r_ik from the same tiles
//   x [n, d] of any element type, means [K, d] fp32, W [.., d, d] fp64; device memory.
// Phases: blocks of 4 warps, tiles of 64 x 64, 16 deep, fp64 matrix instructions. (2), (4): the tiles on
//   and below the diagonal, a slot of rows each; a slot's sums go on from what the last block left.
//   (4) first lists the rows with a share, 1,024 at a time, in their order.
// Cost: (1), (2) n d^2 flops each; (3) n K d^2; (4) d^2 a pair of row and component. (1) and (2) of (1M, 128) run at 18
//   TFLOP/s on an H100, 27% of the data sheet's fp64.
// Numerics: fp64 from given numbers; y is good to 2^-48. Determinism: gpu_to_gpu but for the order within
//   a matrix instruction (4 products): run_to_run.
// Reference: GaussianMixture::log_joint, tests/train/naive_em.h. Test:
//   tests/train/cuda/cuda_estep_engine_test.cc.
#include "faiss_gmm/train/cuda/detail/matrices.h"

#include <algorithm>

#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int tile = 64, depth = 16, threads = 128;
constexpr int deep_pitch = depth + 4; ///< of [tile, depth]; 4 rows of 4 doubles meet all banks
constexpr int wide_pitch = tile + 4;  ///< of [depth, tile]; likewise
constexpr int batch = 1024;           ///< rows whose shares are looked at together
constexpr float infinity = __builtin_huge_valf();

/// Which rows of x.
struct RowNumbers {
    const uint32_t* row; ///< [count]; null: the first `count`
    int count;
    __device__ size_t operator[](int i) const {
        return row == nullptr ? i : row[i];
    }
};

__device__ void multiply(double (&sum)[2], double a, double b) {
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};\n"
                 : "+d"(sum[0]), "+d"(sum[1])
                 : "d"(a), "d"(b));
}

/// A warp's 32 x 32 part of a tile: lane l has rows l / 4 + 8 m, columns l % 4 * 2 + 8 n and the next.
struct WarpTile {
    double value[4][4][2] = {};

    /// Adds a b^T over `depth` places; a(i, l) and b(j, l): numbers of the warp's rows and columns.
    template <class A, class B> __device__ void add(const A& a, const B& b, int lane) {
#pragma unroll
        for (int l = 0; l < depth; l += 4) {
            double u[4], v[4];
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                u[m] = a(lane / 4 + 8 * m, l + lane % 4);
                v[m] = b(lane / 4 + 8 * m, l + lane % 4);
            }
#pragma unroll
            for (int m = 0; m < 4; ++m) {
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    multiply(value[m][n], u[m], v[n]);
                }
            }
        }
    }
    /// Calls f(row, column, number) for what the lane has.
    template <class Function> __device__ void visit(int lane, const Function& f) {
#pragma unroll
        for (int m = 0; m < 4; ++m) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    f(lane / 4 + 8 * m, lane % 4 * 2 + 8 * n + c, value[m][n][c]);
                }
            }
        }
    }
};

constexpr int shares = tile * depth / threads; ///< numbers of a tile that a thread brings

/// (x - centre) W^T for 64 rows from `first` on and 64 columns from j0 on; W [d, d] lower. A step's numbers
/// are loaded while the last one's are multiplied.
__device__ WarpTile multiply_rows(
        const Rows& x,
        const RowNumbers& numbers,
        int first,
        int d,
        const float* centre,
        const double* inverse,
        int j0) {
    __shared__ double e_tile[tile * deep_pitch], w_tile[tile * deep_pitch];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const double* e = e_tile + warp / 2 * 32 * deep_pitch;
    const double* w = w_tile + warp % 2 * 32 * deep_pitch;
    // A thread has one place of the depth and `shares` rows and columns.
    constexpr int stride = threads / depth;
    const int my_place = threadIdx.x % depth, my_row = threadIdx.x / depth;
    float x_next[shares], centre_next = 0;
    double w_next[shares];
    const auto load = [&](int l0) {
        const int l = l0 + my_place;
        centre_next = l < d ? centre[l] : 0.0f;
        visit(x, [&](const auto* data) {
#pragma unroll
            for (int q = 0; q < shares; ++q) {
                const int i = first + my_row + stride * q;
                x_next[q] = i < numbers.count && l < d ? to_float(data[numbers[i] * d + l])
                                                       : centre_next;
            }
        });
#pragma unroll
        for (int q = 0; q < shares; ++q) {
            const int j = j0 + my_row + stride * q;
            w_next[q] = j < d && l < d ? inverse[static_cast<size_t>(j) * d + l] : 0.0;
        }
    };
    WarpTile sum;
    const int end = min(d, j0 + tile); // W is zero behind
    load(0);
    for (int l0 = 0; l0 < end; l0 += depth) {
        __syncthreads();
#pragma unroll
        for (int q = 0; q < shares; ++q) {
            const int at = (my_row + stride * q) * deep_pitch + my_place;
            e_tile[at] = static_cast<double>(x_next[q]) - centre_next;
            w_tile[at] = w_next[q];
        }
        __syncthreads();
        if (l0 + depth < end) {
            load(l0 + depth);
        }
        sum.add([&](int i, int l) { return e[i * deep_pitch + l]; },
                [&](int j, int l) { return w[j * deep_pitch + l]; },
                lane);
    }
    return sum;
}

/// (1); blockIdx.x: rows, blockIdx.y: columns.
__global__ void __launch_bounds__(threads) whiten_kernel(
        Rows x,
        int rows,
        int d,
        const float* origin,
        const double* inverse,
        float* high,
        float* low) {
    const int first = blockIdx.x * tile, j0 = blockIdx.y * tile;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    WarpTile y = multiply_rows(x, {nullptr, rows}, first, d, origin, inverse, j0);
    y.visit(lane, [&](int row, int column, double value) {
        const int i = first + warp / 2 * 32 + row, j = j0 + warp % 2 * 32 + column;
        if (i < rows && j < d) {
            const size_t at = static_cast<size_t>(i) * d + j;
            // What is finite stays so: only a row's own NaN and infinities are the caller's fault.
            const double kept = isfinite(value) ? fmin(fmax(value, -3e38), 3e38) : value;
            high[at] = static_cast<float>(kept);
            low[at] = isfinite(value) ? static_cast<float>(kept - high[at]) : 0.0f;
        }
    });
}

/// (3) for 64 rows and one component: blockIdx.x is component * row tiles + row tile, so that blocks
/// that run together share W_k.
__global__ void __launch_bounds__(threads)
        matrix_joint_kernel(MixtureView mixture, ExactRows rows, int row_tiles, double* joint) {
    __shared__ double halves[2][tile];
    const int d = mixture.d, k = blockIdx.x / row_tiles, first = blockIdx.x % row_tiles * tile;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float* mean = mixture.means + static_cast<size_t>(k) * d;
    const double* inverse = mixture.inverse + static_cast<size_t>(k) * d * d;
    double square[4] = {}; // of rows lane / 4 + 8 m
    for (int j0 = 0; j0 < d; j0 += tile) {
        WarpTile z = multiply_rows(rows.x, {rows.row, rows.count}, first, d, mean, inverse, j0);
#pragma unroll
        for (int m = 0; m < 4; ++m) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                square[m] = fma(z.value[m][n][0], z.value[m][n][0], square[m]);
                square[m] = fma(z.value[m][n][1], z.value[m][n][1], square[m]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) {
        square[m] += __shfl_xor_sync(whole_warp, square[m], 1);
        square[m] += __shfl_xor_sync(whole_warp, square[m], 2);
        if (lane % 4 == 0) {
            halves[warp % 2][warp / 2 * 32 + lane / 4 + 8 * m] = square[m];
        }
    }
    __syncthreads();
    const int i = first + threadIdx.x;
    if (threadIdx.x < tile && i < rows.count) {
        joint[static_cast<size_t>(i) * mixture.K + k] =
                mixture.constant[k] - 0.5 * (halves[0][threadIdx.x] + halves[1][threadIdx.x]);
    }
}

/// The p-th tile on or below the diagonal, row by row.
__device__ void find_tile(int p, int& a0, int& b0) {
    int a = 0;
    while (p > a) {
        p -= ++a;
    }
    a0 = a * tile;
    b0 = p * tile;
}

/// Rows of a batch that have a share in the component, in their order.
struct SharedRows {
    int count;
    uint32_t row[batch];
    double r[batch];
};

/// Lists the rows first .. end - 1 of a part with a share in k; all threads take part.
__device__ void list_shared_rows(
        const RowNumbers& numbers,
        const double* share,
        int K,
        int k,
        int first,
        int end,
        SharedRows& list) {
    __shared__ int counts[threads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int listed = 0;
    for (int i0 = first; i0 < end; i0 += threads) {
        const int i = i0 + threadIdx.x;
        const double r = i < end ? share[static_cast<size_t>(i) * K + k] : 0.0;
        const unsigned shared = __ballot_sync(whole_warp, r > 0);
        __syncthreads(); // the last round's counts have been read, and the last batch's list
        if (lane == 0) {
            counts[warp] = __popc(shared);
        }
        __syncthreads();
        int before = listed;
        for (int w = 0; w < threads / 32; ++w) {
            before += w < warp ? counts[w] : 0;
            listed += counts[w];
        }
        if (r > 0) {
            const int at = before + __popc(shared & ((1u << lane) - 1));
            list.row[at] = static_cast<uint32_t>(numbers[i]);
            list.r[at] = r;
        }
    }
    if (threadIdx.x == 0) {
        list.count = listed;
    }
    __syncthreads();
}

/// (2), (4) for one tile of one matrix (blockIdx.x) and one slot (blockIdx.y).
template <bool weighted>
__global__ void __launch_bounds__(threads) scatter_kernel(
        Rows x,
        RowNumbers numbers,
        int d,
        const float* centres,
        const double* share,
        int tiles,
        Scatter out) {
    __shared__ double a_tile[depth * wide_pitch], b_tile[depth * wide_pitch];
    __shared__ SharedRows list;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int k = blockIdx.x / tiles, slot = blockIdx.y;
    const int begin = slot * out.slot_rows, end = min(begin + out.slot_rows, numbers.count);
    if (begin >= end) {
        return;
    }
    int a0, b0;
    find_tile(blockIdx.x % tiles, a0, b0);
    const float* centre = centres + static_cast<size_t>(k) * d;
    const int warp_a = warp / 2 * 32, warp_b = warp % 2 * 32;
    double* sums = out.sums + (static_cast<size_t>(slot) * out.matrices + k) * d * d;
    WarpTile sum;
    sum.visit(lane, [&](int row, int column, double& value) {
        const int a = a0 + warp_a + row, b = b0 + warp_b + column;
        value = a < d && b < d ? sums[static_cast<size_t>(a) * d + b] : 0.0;
    });
    // A thread has one column of each tile and `shares` rows.
    constexpr int stride = threads / tile;
    const int my_column = threadIdx.x % tile, my_row = threadIdx.x / tile;
    const int my_a = a0 + my_column, my_b = b0 + my_column;
    const float centre_a = my_a < d ? centre[my_a] : 0.0f;
    const float centre_b = my_b < d ? centre[my_b] : 0.0f;
    double first_moment = 0, mass = 0; // of column my_b; a0 = b0 alone, and the first threads
    // Adds the rows row(i) with weights r(i), i < count; loads run ahead as in multiply_rows().
    const auto add_rows = [&](int count, const auto& row, const auto& r) {
        float a_next[shares], b_next[shares];
        double r_next[shares];
        const auto load = [&](int i0) {
            visit(x, [&](const auto* data) {
#pragma unroll
                for (int q = 0; q < shares; ++q) {
                    const int i = i0 + my_row + stride * q;
                    const size_t first = i < count ? row(i) * d : 0;
                    r_next[q] = i < count ? r(i) : 0.0;
                    a_next[q] = i < count && my_a < d ? to_float(data[first + my_a]) : centre_a;
                    b_next[q] = i < count && my_b < d ? to_float(data[first + my_b]) : centre_b;
                }
            });
        };
        load(0);
        for (int i0 = 0; i0 < count; i0 += depth) {
            __syncthreads();
#pragma unroll
            for (int q = 0; q < shares; ++q) {
                const int at = (my_row + stride * q) * wide_pitch + my_column;
                a_tile[at] = static_cast<double>(a_next[q]) - centre_a;
                b_tile[at] = r_next[q] * (static_cast<double>(b_next[q]) - centre_b);
            }
            __syncthreads();
            if (weighted && a0 == b0 && threadIdx.x < tile) {
                for (int l = 0; l < depth; ++l) {
                    first_moment += b_tile[l * wide_pitch + threadIdx.x];
                    mass += i0 + l < count ? r(i0 + l) : 0.0;
                }
            }
            if (i0 + depth < count) {
                load(i0 + depth);
            }
            sum.add([&](int i, int l) { return a_tile[l * wide_pitch + warp_a + i]; },
                    [&](int j, int l) { return b_tile[l * wide_pitch + warp_b + j]; },
                    lane);
        }
    };
    if constexpr (weighted) {
        for (int first = begin; first < end; first += batch) {
            list_shared_rows(numbers, share, out.matrices, k, first, min(first + batch, end), list);
            add_rows(
                    list.count,
                    [&](int i) { return static_cast<size_t>(list.row[i]); },
                    [&](int i) { return list.r[i]; });
        }
    } else {
        add_rows(
                end - begin, [&](int i) { return numbers[begin + i]; }, [](int) { return 1.0; });
    }
    sum.visit(lane, [&](int row, int column, double value) {
        const int a = a0 + warp_a + row, b = b0 + warp_b + column;
        if (a < d && b < d) {
            sums[static_cast<size_t>(a) * d + b] = value;
        }
    });
    if (weighted && a0 == b0 && threadIdx.x < tile) {
        double* firsts = out.first + (static_cast<size_t>(slot) * out.matrices + k) * (d + 1);
        if (my_b < d) {
            firsts[my_b] += first_moment;
        }
        if (b0 == 0 && threadIdx.x == 0) {
            firsts[d] += mass;
        }
    }
}

/// A thread a number on or below the diagonal; matrices [matrices, d, d] of slot 0 become whole.
__global__ void combine_kernel(Scatter scatter, int d) {
    const size_t square = static_cast<size_t>(d) * d, all = scatter.matrices * square;
    const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= all) {
        return;
    }
    const size_t k = at / square, i = at % square / d, j = at % d;
    if (j > i) {
        return;
    }
    double sum = 0;
    for (int s = 0; s < scatter.slots; ++s) {
        sum += scatter.sums[s * all + at];
    }
    scatter.sums[at] = sum;
    scatter.sums[k * square + j * d + i] = sum;
}

/// A block a component; slot 0 gets all slots, and so do the pass's sums.
__global__ void combine_first_kernel(Scatter scatter, int d, PassSums sums) {
    const size_t k = blockIdx.x, width = d + 1, all = scatter.matrices * width;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        double sum = 0;
        for (int s = 0; s < scatter.slots; ++s) {
            sum += scatter.first[s * all + k * width + j];
        }
        scatter.first[k * width + j] = sum;
        (j < d ? sums.first_moment[k * d + j] : sums.mass[k]) = sum;
    }
}

/// A warp a row.
__global__ void distance_kernel(Rows x, int rows, int d, const float* means, int m, TopOutput out) {
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (i >= rows) {
        return;
    }
    for (int place = 0; place < m; ++place) {
        const size_t at = static_cast<size_t>(i) * m + place;
        const int k = out.component[at];
        double square = k < 0 ? infinity : 0.0;
        for (int j = lane; k >= 0 && j < d; j += 32) {
            const double e = number(x, static_cast<size_t>(i) * d + j) -
                             means[static_cast<size_t>(k) * d + j];
            square += e * e;
        }
        square = warp_sum(square);
        if (lane == 0) {
            out.squared_distance[at] = static_cast<float>(square);
        }
    }
}

int tiles_of(int numbers) {
    return (numbers + tile - 1) / tile;
}

int tiles_below(int d) {
    return tiles_of(d) * (tiles_of(d) + 1) / 2;
}

} // namespace

void whiten_rows(
        const Rows& x,
        size_t rows,
        int d,
        const float* origin,
        const double* inverse,
        float* high,
        float* low,
        cudaStream_t stream) {
    const auto count = static_cast<int>(rows);
    whiten_kernel<<<dim3(tiles_of(count), tiles_of(d)), threads, 0, stream>>>(
            x, count, d, origin, inverse, high, low);
    check_launch("whitening rows");
}

Scatter scatter_shape(size_t matrices, size_t d, size_t rows) {
    constexpr size_t enough = 768; // blocks of threads that fill a device
    const size_t tiles = matrices * tiles_below(static_cast<int>(d));
    Scatter scatter;
    scatter.matrices = static_cast<int>(matrices);
    scatter.slots = 1;
    while (scatter.slots * tiles < enough && rows / scatter.slots > 512) {
        scatter.slots *= 2;
    }
    scatter.slot_rows = static_cast<int>(rows / scatter.slots);
    return scatter;
}

void add_scatter(
        const Rows& x,
        int rows,
        int d,
        const float* origin,
        const Scatter& scatter,
        cudaStream_t stream) {
    const int tiles = tiles_below(d);
    scatter_kernel<false><<<dim3(tiles, scatter.slots), threads, 0, stream>>>(
            x, {nullptr, rows}, d, origin, nullptr, tiles, scatter);
    check_launch("adding up outer products");
}

void add_shared_scatter(
        const MixtureView& mixture,
        const ExactRows& rows,
        const double* share,
        const Scatter& scatter,
        cudaStream_t stream) {
    const int tiles = tiles_below(mixture.d);
    scatter_kernel<true><<<dim3(mixture.K * tiles, scatter.slots), threads, 0, stream>>>(
            rows.x, {rows.row, rows.count}, mixture.d, mixture.means, share, tiles, scatter);
    check_launch("adding up outer products");
}

void combine_first_moments(
        const Scatter& scatter, int d, const PassSums& sums, cudaStream_t stream) {
    combine_first_kernel<<<scatter.matrices, 128, 0, stream>>>(scatter, d, sums);
    check_launch("adding up first moments");
}

void combine_scatter(const Scatter& scatter, int d, cudaStream_t stream) {
    const size_t numbers = static_cast<size_t>(scatter.matrices) * d * d;
    combine_kernel<<<static_cast<unsigned>((numbers + 255) / 256), 256, 0, stream>>>(scatter, d);
    check_launch("adding up outer products");
}

void find_matrix_joints(
        const MixtureView& mixture, const ExactRows& rows, double* joint, cudaStream_t stream) {
    const int row_tiles = tiles_of(rows.count);
    matrix_joint_kernel<<<mixture.K * row_tiles, threads, 0, stream>>>(
            mixture, rows, row_tiles, joint);
    check_launch("computing exact log-joints");
}

void measure_distances(
        const Rows& x,
        int rows,
        int d,
        const float* means,
        int m,
        const TopOutput& out,
        cudaStream_t stream) {
    distance_kernel<<<(rows + 7) / 8, 256, 0, stream>>>(x, rows, d, means, m, out);
    check_launch("measuring distances");
}

} // namespace faiss_gmm::cuda
