// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The dense tier: rows in which very many components matter, so that no list helps. Two matrix products
// on the tensor cores, each of numbers split into two halves (fp16 high + low).
//   y = x - o, c_k = mu_k - o; diagonal: axis j of both times a_j, a_j^2 = max_k hp_kj + min_k hp_kj, and hp_kj
//   less by a_j^2. h: hp; spherical: (max hp + min hp) / 2; diagonal: 1/2. w_k = 2 hp_k c_k.
//   (1) s_ik = y.w_k - sum_j (hp_kj - h) y_j^2 + constant_k - constant_f - sum_j hp_kj c_kj^2, f the first component
//       that takes part
//       y.w = (yh.wh + yh.wl + yl.wh) / (F E); yh + yl = F y, wh + wl = E w up to 2^-22. Diagonal: behind their
//       columns those of F' y^2 and E' (h - hp_k), F' E' = F E. Spherical: (hp_k - h) |y|^2 in fp32.
//   (2) r_ik = exp(s_ik - max) / sum;  likelihood = constant_f - h |y|^2 + max + log sum
//   (3) sum_i r y = (rh.yh + rl.yh + rh.yl) / (2^15 F);  sum_i r (y - c_k) = (3) - c_k sum_i r. Diagonal: the
//       same of y^2; spherical: sum_i r |y|^2 in fp64.
//       sum_i r (y - c)^2 = sum_i r y^2 - c (2 sum_i r (y - c) + c sum_i r), piece by piece in fp64
// Rows come in chunks by their rank among the left rows of their block, so nothing depends on waves.
// Phases of a chunk: 1 split the rows   2 (1), tiles of 128 x 128   3 (2), a warp a row   4 (3), tiles of
//   128 components x 128 dimensions, 256 rows a piece   5 pieces in order, fp64.
// Cost: 6 products of 2 n K d flops; n d 4 bytes read; scores of a chunk, which become responsibilities, stay in L2.
//   8,192 rows of (1024, 128) on an H100: 1 .006 ms   2 .039, 22% of cuBLAS's rate over its 3 products   3 .021, 60% of
//   L2, and masses .019   4 .030, 28%   5 .008. On an H200: 6.2 ms for (122,597, 1024, 384), 93 TFLOP/s of the 6
//   products; the sums wait for L2 more than for the tensor cores.
//   On Hopper dense_wgmma.cu takes tied_spherical rows of 16 to 128 dimensions, dense_wide_wgmma.cu wider
//   ones and those of the other forms.
// Numerics: F, E, F', E' powers of two of the model, so that a row up to 4 (max |c| + sqrt(d s2)) fits fp16.
//   |s - exact| <= rounding |y| max|w| + 5 2^-24 max|base|, derived at score_rounding(): 4.2e-6 at w = 384 columns.
//   Rows where this passes 1e-3 nats, or that do not fit, go to the exact tier. max and min are of the components
//   that are not thin (detail/dense_forms.cuh): thin ones take no part, and a row goes to the exact tier unless
//   all of them are 40 nats behind its provisional home, by (x - mu)^2 in fp32. 1e-3 would move a
//   responsibility by 2.5e-4; measured are 2e-7 (spherical with (hp_k - h) |y|^2 of 50 nats: 5e-6), for roundings
//   do not conspire. No threshold: all shares enter. r in (3) is off by 2^-22, sums of 32 rows leave the tensor
//   core; N_k: r in fp32, added in fp64. Variances of components 10 sigma from o: off by 7e-6.
// Determinism: run_to_run, whatever the chunks and the memory.
// Reference and test: exact.cu, tests/train/cuda/{dense,cuda_estep_engine}_test.
// Lost: all products in one sum of the tensor core (a bound twice as wide: overlapping rows of 384 dimensions went to
//   fp64); the pieces of a spherical moment by a warp each (a chain of loads: four at once now).
#include "faiss_gmm/train/cuda/detail/dense.h"

#include <algorithm>

#include "faiss_gmm/train/cuda/detail/copies.cuh"
#include "faiss_gmm/train/cuda/detail/dense_forms.cuh"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/halves.cuh"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {

using namespace dense_tiles;

namespace {

constexpr int depth = 32, gemm_threads = 256;
constexpr int dense_split = 256;       ///< rows of a piece
constexpr int score_pitch = depth + 8; ///< halves; 80 bytes: eight rows meet all banks
constexpr int sum_pitch = tile + 8;    ///< halves; 272 bytes
constexpr float infinity = __builtin_huge_valf();
constexpr float tolerable_error = 1e-3f; ///< nats, were every rounding the worst
/// What halves lose below their range, relative to the reach of rows or means: sqrt(2,048) columns of 2^-25,
/// of which the reach is 1,024 or more.
constexpr float below_halves = 0x1.0p-29f;
constexpr float below_half = 0x1.0p-25f;    ///< the same of one number, as it lies in halves
constexpr float most_columns_norm = 45.3f;  ///< sqrt(2,048)
constexpr float of_deviations = 0x1.0p-19f; ///< more than the errors of deviation_j itself
constexpr int sum_columns = 16;             ///< of scores: in the tensor core's own sum
constexpr int sums_together = 8;            ///< of those, before they join the others

__device__ float power_of_two_below(float value) {
    return exp2f(floorf(log2f(value)));
}

/// The largest of non-negative numbers; any order gives the same.
__device__ void raise(float* largest, float value) {
    atomicMax(reinterpret_cast<int*>(largest), __float_as_int(value));
}

__device__ void lower(float* least, float value) {
    atomicMin(reinterpret_cast<int*>(least), __float_as_int(value));
}

constexpr int range_components = 64,
              logarithm_components = 16; ///< whose precisions a block looks at
/// log2 of a precision over the typical one of its axis, from which a component is thin.
constexpr int thin_from = 6;
/// A thin component is left out of rows to which another is so much nearer, in nats: 2^16 shares of e^-40 are
/// 3e-13.
constexpr float left_out_from = 40;
/// Of a weighted distance in fp32: 64 additions a lane, a tree, three roundings a term.
constexpr float distance_error = 1e-5f;

/// Components that live and are not thin: those in the products.
__device__ bool takes_part(const MixtureView& mixture, const ThinComponents& thin, int k) {
    return isfinite(mixture.constant[k]) && !thin.is_thin(k);
}

/// Sums of log2 hp_kj, rounded down, over components that live, and their number.
__global__ void add_logarithms(MixtureView mixture, int axes, int* sums, float* scale) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= axes) {
        return;
    }
    int sum = 0, count = 0;
#pragma unroll
    for (int i = 0; i < logarithm_components; ++i) {
        const int k = blockIdx.y * logarithm_components + i;
        if (k < mixture.K && isfinite(mixture.constant[k])) {
            sum += ilogbf(mixture.half_precision32[static_cast<size_t>(k) * axes + j]);
            ++count;
        }
    }
    atomicAdd(sums + j, sum);
    if (j == 0) {
        atomicAdd(reinterpret_cast<int*>(scale + scale_living), count);
    }
}

/// A warp a component: whether it is thin.
__global__ void
find_thin(MixtureView mixture, int axes, const int* sums, ThinComponents thin, float* scale) {
    const int k = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (k >= mixture.K) {
        return;
    }
    const float count = static_cast<float>(__float_as_int(scale[scale_living]));
    bool is_thin = false;
    for (int j = lane; j < axes; j += 32) {
        const int logarithm = ilogbf(mixture.half_precision32[static_cast<size_t>(k) * axes + j]);
        is_thin = is_thin || static_cast<float>(logarithm) - sums[j] / count >= thin_from;
    }
    is_thin = __any_sync(whole_warp, is_thin) && isfinite(mixture.constant[k]);
    if (lane == 0) {
        thin.flag[k] = is_thin;
        if (is_thin) {
            raise(scale + scale_thin, 1);
        }
    }
}

/// The first component that takes part.
__global__ void find_first(MixtureView mixture, ThinComponents thin, float* scale) {
    const int k = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned parts = __ballot_sync(whole_warp, k < mixture.K && takes_part(mixture, thin, k));
    if (threadIdx.x % 32 == 0 && parts != 0) {
        atomicMin(
                reinterpret_cast<int*>(scale + scale_first),
                k + __ffs(static_cast<int>(parts)) - 1);
    }
}

/// The largest precisions of components that take part, behind the scales, and the smallest behind those.
__global__ void
find_precision_ranges(MixtureView mixture, int axes, ThinComponents thin, float* scale) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= axes) {
        return;
    }
    float largest = 0, smallest = infinity;
    const int end = min(mixture.K, (static_cast<int>(blockIdx.y) + 1) * range_components);
    for (int k = blockIdx.y * range_components; k < end; ++k) {
        if (takes_part(mixture, thin, k)) {
            const float hp = mixture.half_precision32[static_cast<size_t>(k) * axes + j];
            largest = fmaxf(largest, hp);
            smallest = fminf(smallest, hp);
        }
    }
    raise(scale + dense_scales + j, largest);
    lower(scale + dense_scales + axes + j, smallest);
}

/// Ranges become a_j and deviation_j, or h and what it is off by.
__global__ void set_axes(Covariance form, int axes, float* scale) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= axes) {
        return;
    }
    float* own = scale + dense_scales + j;
    const float sum = own[0] + own[axes], range = own[0] - own[axes];
    const bool diagonal = form == Covariance::diagonal;
    own[0] = diagonal ? sqrtf(sum) : sum / 2;
    own[axes] = range / (diagonal ? 2 * sum : 2.0f) + of_deviations * (diagonal ? 1 : sum);
}

/// A warp a component: the largest |c|^2, |w|^2 and |base|.
__global__ void
find_largest(MixtureView mixture, const float* origin, ThinComponents thin, float* scale) {
    const int k = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (k >= mixture.K) {
        return;
    }
    float square = 0, weight = 0, product = 0;
    for (int j = lane; j < mixture.d; j += 32) {
        const float a = axis_scale(mixture.covariance, scale, j);
        const float mean = mixture.means[static_cast<size_t>(k) * mixture.d + j] - origin[j];
        const float hp = static_cast<float>(precision_of(mixture, k, j)) / (a * a);
        const float c = a * mean, w = 2 * hp * c;
        square = fmaf(c, c, square);
        weight = fmaf(w, w, weight);
        product = fmaf(hp * c, c, product);
    }
    square = warp_sum(square);
    weight = warp_sum(weight);
    product = warp_sum(product);
    if (lane == 0 && takes_part(mixture, thin, k)) {
        const double constant = mixture.constant[k] - reference_constant(mixture.constant, scale);
        raise(scale + scale_largest_square, square);
        raise(scale + scale_largest_weight, weight);
        raise(scale + scale_largest_base, fabsf(static_cast<float>(constant)) + product);
    }
}

/// A warp. See Numerics.
__global__ void find_scales(MixtureView mixture, DenseShape shape, float* scale) {
    const int d = mixture.d, lane = threadIdx.x;
    const bool diagonal = mixture.covariance == Covariance::diagonal;
    const bool spherical = mixture.covariance == Covariance::spherical;
    const float* deviation = scale + dense_scales + (diagonal ? d : 1);
    float variance = 0, deviations = 0; // |x - mu|^2 to be expected of the widest; of squares
    for (int j = lane; j < d; j += 32) {
        const float h = diagonal    ? 0.5f
                        : spherical ? scale[dense_scales]
                                    : mixture.half_precision32[0];
        const float off = diagonal ? deviation[j] : spherical ? deviation[0] : 0;
        variance += 0.5f / fmaxf(h - off, 1e-6f * h);
        deviations += off;
    }
    variance = warp_sum(variance);
    deviations = warp_sum(deviations);
    if (lane != 0) {
        return;
    }
    const float base = scale[scale_largest_base];
    const float weight = sqrtf(scale[scale_largest_weight]) * 1.001f;
    const float reach = 4 * (sqrtf(scale[scale_largest_square]) * 1.001f + sqrtf(variance));
    const bool usable = reach > 1e-15f && reach < 1e15f && isfinite(base) && weight < 1e17f &&
                        first_component(scale) < mixture.K;
    const float F = usable ? 2048 * power_of_two_below(1 / reach) : 1;
    float E = usable ? 2048 * power_of_two_below(1 / fmaxf(weight, 1e-15f)) : 1;
    // What is the same for all rows, and nearly so, is taken off what is tolerable.
    float left = tolerable_error - base * 0x1.4p-22f - reach * weight * below_halves;
    float of_norm = shape.rounding * weight, of_square = 0, of_axes = 0;
    if (diagonal) {
        const float F2 = usable ? 32768 * power_of_two_below(1 / (reach * reach)) : 1;
        const float E2 = fminf(F * E / F2, 16384);
        E = E2 * F2 / F;
        scale[scale_squares] = F2;
        scale[scale_mean_squares] = E2;
        left -= deviations * below_half / F2;
        of_norm += most_columns_norm * below_half / E;
        of_square = below_half / E2;
        of_axes = shape.rounding * 1.001f;
    } else if (spherical) {
        of_square = shape.square_rounding * deviation[0];
    }
    scale[scale_rows] = F;
    scale[scale_means] = E;
    scale[scale_reach] = usable ? reach : -1;
    scale[scale_error] = left > 0 ? of_norm / left : infinity;
    scale[scale_square_error] = left > 0 ? of_square / left : infinity;
    scale[scale_axis_error] = left > 0 ? of_axes / left : infinity;
}

/// A block a component, padding included.
__global__ void __launch_bounds__(128) split_components(
        MixtureView mixture, const float* origin, DenseShape shape, DenseBuffers out) {
    __shared__ double partial[128];
    const int k = blockIdx.x, d = mixture.d, width = shape.row_width;
    const bool tiles = shape.path == CollectPath::hopper;
    const bool lives =
            k < mixture.K && takes_part(mixture, thin_components(shape.form, d, out.scale), k);
    const auto write = [&](int j, double w) {
        if (tiles) {
            uint16_t* high = out.means_high + static_cast<size_t>(k) / tile * tile * 2 * width;
            const int place = place_in_part(k % tile, j);
            split(static_cast<float>(w),
                  high[place],
                  high[static_cast<size_t>(tile) * width + place]);
        } else {
            const size_t at = static_cast<size_t>(k) * width + j;
            split(static_cast<float>(w), out.means_high[at], out.means_low[at]);
        }
    };
    double square = 0; // sum hp c^2
    for (int j = threadIdx.x; j < half_width(shape); j += 128) {
        double w = 0, of_square = 0;
        if (lives && j < d) {
            const double a = axis_scale(shape.form, out.scale, j), hp = precision_of(mixture, k, j);
            const float c = mixture.means[static_cast<size_t>(k) * d + j] - origin[j];
            w = 2 * hp * c / a * out.scale[scale_means];
            of_square = (0.5 - hp / (a * a)) * out.scale[scale_mean_squares];
            square += hp * c * c;
        }
        if (shape.squares == 0 || j < shape.squares) {
            write(j, w);
        }
        if (shape.squares > 0) {
            write(shape.squares + j, of_square);
        }
    }
    partial[threadIdx.x] = square;
    for (int step = 64; step > 0; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) {
            partial[threadIdx.x] += partial[threadIdx.x + step];
        }
    }
    if (threadIdx.x == 0) {
        const double unit = tiles ? log2_e : 1;
        const double constant =
                lives ? mixture.constant[k] - reference_constant(mixture.constant, out.scale)
                      : impossible;
        const bool possible = constant > impossible;
        out.constant[k] = possible ? static_cast<float>(constant * unit) : impossible;
        out.base[k] = possible ? static_cast<float>((constant - partial[0]) * unit) : impossible;
        if (shape.form == Covariance::spherical) {
            const double h = common_precision(shape.form, mixture.half_precision, out.scale);
            out.excess[k] =
                    possible ? static_cast<float>((precision_of(mixture, k, 0) - h) * unit) : 0;
        }
    }
}

/// sum_j hp_kj (x_j - mu_kj)^2 of the row that begins at number `first`, by a warp.
__device__ float
weighted_distance(const MixtureView& mixture, const Rows& x, size_t first, int k, int lane) {
    const bool diagonal = mixture.covariance == Covariance::diagonal;
    const size_t of_k = static_cast<size_t>(k) * mixture.d;
    float sum = 0;
    for (int j = lane; j < mixture.d; j += 32) {
        const float e = high_number(x, first + j) - mixture.means[of_k + j];
        sum = fmaf(mixture.half_precision32[diagonal ? of_k + j : k] * e, e, sum);
    }
    return warp_sum(sum);
}

/// Whether thin components are of no account to the row: far behind component `near`, which takes part.
__device__ bool leaves_thin_out(
        const MixtureView& mixture,
        const ThinComponents& thin,
        const Rows& x,
        size_t first,
        int near,
        int lane) {
    if (!takes_part(mixture, thin, near)) {
        return false;
    }
    const float of_near = weighted_distance(mixture, x, first, near, lane);
    for (int k0 = 0; k0 < mixture.K; k0 += 32) {
        const bool mine = k0 + lane < mixture.K && thin.is_thin(k0 + lane);
        for (unsigned left = __ballot_sync(whole_warp, mine); left != 0; left &= left - 1) {
            const int k = k0 + __ffs(static_cast<int>(left)) - 1;
            const float of_k = weighted_distance(mixture, x, first, k, lane);
            const float ahead = static_cast<float>(mixture.constant[near] - mixture.constant[k]);
            const float error = distance_error * (of_k + of_near + fabsf(ahead));
            if (!(ahead + (of_k - of_near) - error >= left_out_from)) { // NaN: of no use either
                return false;
            }
        }
    }
    return true;
}

/// A warp looks at 32 rows, and reads those without a list.
__global__ void
classify_kernel(MixtureView mixture, const float* origin, const float* scale, RowLists lists) {
    const int lane = threadIdx.x % 32;
    const int first = (blockIdx.x * blockDim.x + threadIdx.x) / 32 * 32;
    const int mine = first + lane;
    const int count = mine < lists.rows ? lists.count[mine] : 1;
    unsigned left = __ballot_sync(whole_warp, count == 0 || count > lists.capacity);
    const bool usable = scale != nullptr;
    const ThinComponents thin = thin_components(mixture.covariance, mixture.d, scale);
    const bool some_are_thin = usable && thin.flag != nullptr && scale[scale_thin] > 0;
    while (left != 0) {
        const int l = __ffs(left) - 1;
        left &= left - 1;
        const size_t x = static_cast<size_t>(first + l) * mixture.d;
        float square = 0, of_axes = 0, largest = 0;
        for (int j = lane; usable && j < mixture.d; j += 32) {
            const float a = axis_scale(mixture.covariance, scale, j);
            const float y = a * (high_number(lists.x, x + j) - origin[j]);
            square = fmaf(y, y, square);
            if (mixture.covariance == Covariance::diagonal) {
                of_axes = fmaf(scale[dense_scales + mixture.d + j] * y, y, of_axes);
            }
            largest = fmaxf(largest, fabsf(y));
        }
        square = warp_sum(square);
        of_axes = warp_sum(of_axes);
        largest = warp_max(largest);
        // False for NaN too, which fmaxf drops and the square keeps.
        bool fits = usable && largest <= scale[scale_reach] &&
                    sqrtf(square) * scale[scale_error] + square * scale[scale_square_error] +
                                    of_axes * scale[scale_axis_error] <=
                            1;
        if (fits && some_are_thin) { // the same in all lanes
            const int near = min(static_cast<int>(lists.home[first + l]), mixture.K - 1);
            fits = leaves_thin_out(mixture, thin, lists.x, x, near, lane);
        }
        if (lane == 0) {
            lists.count[first + l] = fits ? dense_row : 0;
        }
    }
}

/// Phase 1; a warp a row, zeros behind the last.
__global__ void split_rows(
        Rows x,
        const uint32_t* row,
        int count,
        int d,
        const float* origin,
        DenseShape shape,
        DenseBuffers out) {
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (i >= (count + dense_split - 1) / dense_split * dense_split) {
        return;
    }
    const float scale = out.scale[scale_rows];
    const size_t from = i < count ? static_cast<size_t>(row[i]) * d : 0;
    double sum = 0;
    for (int j = lane; j < half_width(shape); j += 32) {
        float y = 0;
        if (i < count && j < d) {
            y = axis_scale(shape.form, out.scale, j) * (high_number(x, from + j) - origin[j]);
        }
        const float square = y * y;
        const size_t at = static_cast<size_t>(i) * shape.padded_width + j;
        if (shape.squares == 0 || j < shape.squares) {
            split(y * scale, out.rows_high[at], out.rows_low[at]);
        }
        if (shape.squares > 0) {
            split(square * out.scale[scale_squares],
                  out.rows_high[at + shape.squares],
                  out.rows_low[at + shape.squares]);
        }
        sum += square;
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        out.square[i] = static_cast<float>(sum);
    }
}

__device__ void load_matrices(unsigned (&out)[4], const uint16_t* address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(address)));
}
__device__ void load_transposed(unsigned (&out)[4], const uint16_t* address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(address)));
}
__device__ void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// The same for a sum that starts.
__device__ void multiply_afresh(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%10,%10,%10,%10};\n"
                 : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

/// A warp's 64 x 32 part of a tile.
struct WarpTile {
    float value[4][4][4] = {};

    __device__ void add(WarpTile& other) {
#pragma unroll
        for (int a = 0; a < 4; ++a) {
#pragma unroll
            for (int b = 0; b < 4; ++b) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    value[a][b][c] += other.value[a][b][c];
                    other.value[a][b][c] = 0;
                }
            }
        }
    }
};

/// Phase 2: scores [count, padded_K]; blockIdx.x: components, blockIdx.y: rows.
__global__ void __launch_bounds__(gemm_threads, 1)
        score_kernel(DenseShape shape, DenseBuffers buffers) {
    __shared__ __align__(16) uint16_t a_tile[2][tile * score_pitch];
    __shared__ __align__(16) uint16_t b_tile[2][tile * score_pitch];
    const int width = shape.padded_width, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
    const size_t first_row = static_cast<size_t>(blockIdx.y) * tile;
    const size_t first_k = static_cast<size_t>(blockIdx.x) * tile;
    // The small products first: yh.cl, yl.ch, yh.ch.
    const int steps_a_product = width / depth, steps = 3 * steps_a_product;
    const int first_large = 2 * steps_a_product;
    const auto fetch = [&](int step, int stage) {
        const int product = step / steps_a_product, j0 = step % steps_a_product * depth;
        const uint16_t* a = product == 1 ? buffers.rows_low : buffers.rows_high;
        const uint16_t* b = product == 0 ? buffers.means_low : buffers.means_high;
#pragma unroll
        for (int t = threadIdx.x; t < tile * depth / 8; t += gemm_threads) {
            const int i = t / (depth / 8), j = t % (depth / 8) * 8;
            copy_asynchronously(
                    shared_address(&a_tile[stage][i * score_pitch + j]),
                    a + (first_row + i) * width + j0 + j,
                    true);
            copy_asynchronously(
                    shared_address(&b_tile[stage][i * score_pitch + j]),
                    b + (first_k + i) * width + j0 + j,
                    true);
        }
        close_copies();
    };
    WarpTile sum, part;
    // Calls visit(m, n, a, b0, b1) for the operands of every 16 x 8 of the warp's part, 16 columns at a time.
    const auto visit_step = [&](int step, const auto& visit) {
        const int stage = step % 2;
        if (step + 1 < steps) {
            fetch(step + 1, 1 - stage);
            wait_for_copies_but<1>();
        } else {
            wait_for_copies_but<0>();
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < depth; j += sum_columns) {
            unsigned a[4][4], b[2][4];
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                const int i = warp_row + 16 * m + lane % 16;
                load_matrices(a[m], &a_tile[stage][i * score_pitch + j + lane / 16 * 8]);
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const int k = warp_column + 16 * n + lane % 8 + lane / 16 * 8;
                load_matrices(b[n], &b_tile[stage][k * score_pitch + j + lane / 8 % 2 * 8]);
            }
#pragma unroll
            for (int m = 0; m < 4; ++m) {
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    visit(m, n, a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
                }
            }
        }
    };
    fetch(0, 0);
    for (int step = 0; step < first_large; ++step) {
        visit_step(step, [&](int m, int n, const auto& a, unsigned b0, unsigned b1) {
            multiply(part.value[m][n], a, b0, b1);
        });
        sum.add(part);
        __syncthreads();
    }
    constexpr int steps_together = sums_together * sum_columns / depth;
    for (int step = first_large; step < steps; ++step) {
        visit_step(step, [&](int m, int n, const auto& a, unsigned b0, unsigned b1) {
            float products[4];
            multiply_afresh(products, a, b0, b1);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                part.value[m][n][c] += products[c];
            }
        });
        if ((step - first_large) % steps_together == steps_together - 1 || step + 1 == steps) {
            sum.add(part);
        }
        __syncthreads();
    }
    const float factor = 1 / (buffers.scale[scale_rows] * buffers.scale[scale_means]);
    const bool spherical = shape.form == Covariance::spherical;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            const size_t k = first_k + warp_column + 8 * n + lane % 4 * 2;
            const float2 base = *reinterpret_cast<const float2*>(buffers.base + k);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const size_t i = first_row + warp_row + 16 * m + lane / 4 + 8 * half;
                float2 rest = base;
                if (spherical) {
                    const float square = buffers.square[i];
                    rest.x = fmaf(-buffers.excess[k], square, rest.x);
                    rest.y = fmaf(-buffers.excess[k + 1], square, rest.y);
                }
                *reinterpret_cast<float2*>(buffers.score + i * shape.padded_K + k) =
                        float2{fmaf(factor, sum.value[m][n][2 * half], rest.x),
                               fmaf(factor, sum.value[m][n][2 * half + 1], rest.y)};
            }
        }
    }
}

/// Phase 3; a warp a row, zeros behind the last. Scores become responsibilities.
__global__ void responsibility_kernel(
        MixtureView mixture,
        DenseShape shape,
        DenseBuffers buffers,
        const uint32_t* row,
        int count,
        DenseOutput output) {
    const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (i >= (count + dense_split - 1) / dense_split * dense_split) {
        return;
    }
    float* score = buffers.score + static_cast<size_t>(i) * shape.padded_K;
    ushort2* high =
            reinterpret_cast<ushort2*>(buffers.r_high + static_cast<size_t>(i) * shape.padded_K);
    ushort2* low =
            reinterpret_cast<ushort2*>(buffers.r_low + static_cast<size_t>(i) * shape.padded_K);
    if (i >= count) {
        for (int k = 2 * lane; k < shape.padded_K; k += 64) {
            *reinterpret_cast<float2*>(score + k) = float2{0, 0};
            high[k / 2] = low[k / 2] = ushort2{0, 0};
        }
        return;
    }
    float best = -infinity;
    for (int k = 2 * lane; k < shape.padded_K; k += 64) {
        const float2 s = *reinterpret_cast<const float2*>(score + k);
        best = fmaxf(best, fmaxf(s.x, s.y));
    }
    best = warp_max(best);
    float sum = 0;
    for (int k = 2 * lane; k < shape.padded_K; k += 64) {
        const float2 s = *reinterpret_cast<const float2*>(score + k);
        sum += expf(s.x - best) + expf(s.y - best);
    }
    sum = warp_sum(sum);
    const float inverse = 1 / sum;
    float first = 0, second = 0, weighted = 0; // two largest r; sum r (constant_k - constant_f - s)
    for (int k = 2 * lane; k < shape.padded_K; k += 64) {
        const float2 s = *reinterpret_cast<const float2*>(score + k);
        float2 r{expf(s.x - best) * inverse, expf(s.y - best) * inverse};
        const float2 constant = *reinterpret_cast<const float2*>(buffers.constant + k);
        weighted += r.x > 0 ? r.x * (constant.x - s.x) : 0;
        weighted += r.y > 0 ? r.y * (constant.y - s.y) : 0;
        second = fmaxf(second, fminf(first, r.x));
        first = fmaxf(first, r.x);
        second = fmaxf(second, fminf(first, r.y));
        first = fmaxf(first, r.y);
        ushort2 h, l;
        split(r.x * r_scale, h.x, l.x);
        split(r.y * r_scale, h.y, l.y);
        high[k / 2] = h;
        low[k / 2] = l;
        *reinterpret_cast<float2*>(score + k) = r;
    }
    weighted = warp_sum(weighted);
    for (int step = 16; step > 0; step /= 2) {
        const float other_first = __shfl_xor_sync(whole_warp, first, step);
        const float other_second = __shfl_xor_sync(whole_warp, second, step);
        second = fmaxf(fminf(first, other_first), fmaxf(second, other_second));
        first = fmaxf(first, other_first);
    }
    if (lane == 0) {
        const double h = common_precision(shape.form, mixture.half_precision, buffers.scale);
        const double square = buffers.square[i];
        output.log_likelihood[row[i]] =
                reference_constant(mixture.constant, buffers.scale) - h * square + best + logf(sum);
        if (shape.form == Covariance::tied_spherical) {
            // |x - mu_k|^2 = |y|^2 + |c_k|^2 - 2 y.c_k
            output.moment[row[i]] = square + weighted / h;
        }
        if (second > 1.0f / mixture.K) {
            atomicAdd(output.shared_rows, 1ull);
        }
    }
}

/// mass [pieces, padded_K]: responsibilities of a piece's rows; square_sum.
template <bool with_squares> __global__ void mass_kernel(DenseShape shape, DenseBuffers buffers) {
    const int k = blockIdx.x * blockDim.x + threadIdx.x;
    const float* r = buffers.score + static_cast<size_t>(blockIdx.y) * dense_split * shape.padded_K;
    const float* square = buffers.square + static_cast<size_t>(blockIdx.y) * dense_split;
    double sum = 0, squares = 0;
#pragma unroll 16
    for (int i = 0; i < dense_split; ++i) {
        const double share = r[static_cast<size_t>(i) * shape.padded_K + k];
        sum += share;
        if (with_squares) {
            squares += share * square[i];
        }
    }
    const size_t at = static_cast<size_t>(blockIdx.y) * shape.padded_K + k;
    buffers.mass[at] = sum;
    if (with_squares) {
        buffers.square_sum[at] = squares;
    }
}

/// Phase 4: partial [pieces, padded_K, padded_width]; blockIdx: dimensions, components, piece.
__global__ void __launch_bounds__(gemm_threads, 1)
        moment_kernel(DenseShape shape, DenseBuffers buffers) {
    __shared__ __align__(16) uint16_t r_tile[2][depth * sum_pitch];
    __shared__ __align__(16) uint16_t y_tile[2][depth * sum_pitch];
    const int width = shape.padded_width, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_k = warp / 4 * 64, warp_j = warp % 4 * 32;
    const int first_j = blockIdx.x * tile;
    const size_t first_k = static_cast<size_t>(blockIdx.y) * tile;
    const size_t first_row = static_cast<size_t>(blockIdx.z) * dense_split;
    constexpr int steps_a_product = dense_split / depth, steps = 3 * steps_a_product;
    const auto fetch = [&](int step, int stage) {
        const int product = step / steps_a_product;
        const size_t i0 = first_row + step % steps_a_product * depth;
        const uint16_t* r = product == 1 ? buffers.r_low : buffers.r_high;
        const uint16_t* y = product == 2 ? buffers.rows_low : buffers.rows_high;
#pragma unroll
        for (int t = threadIdx.x; t < depth * tile / 8; t += gemm_threads) {
            const int i = t / (tile / 8), j = t % (tile / 8) * 8;
            copy_asynchronously(
                    shared_address(&r_tile[stage][i * sum_pitch + j]),
                    r + (i0 + i) * shape.padded_K + first_k + j,
                    true);
            const bool inside = first_j + j < width;
            copy_asynchronously(
                    shared_address(&y_tile[stage][i * sum_pitch + j]),
                    y + (i0 + i) * width + (inside ? first_j + j : 0),
                    inside);
        }
        close_copies();
    };
    WarpTile sum, part;
    fetch(0, 0);
    for (int step = 0; step < steps; ++step) {
        const int stage = step % 2;
        if (step + 1 < steps) {
            fetch(step + 1, 1 - stage);
            wait_for_copies_but<1>();
        } else {
            wait_for_copies_but<0>();
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < depth; i += 16) {
            unsigned a[4][4], b[2][4];
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                const int at = (i + lane % 8 + lane / 16 * 8) * sum_pitch;
                load_transposed(a[m], &r_tile[stage][at + warp_k + 16 * m + lane / 8 % 2 * 8]);
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const int at = (i + lane % 16) * sum_pitch;
                load_transposed(b[n], &y_tile[stage][at + warp_j + 16 * n + lane / 16 * 8]);
            }
#pragma unroll
            for (int m = 0; m < 4; ++m) {
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    multiply(part.value[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
                }
            }
        }
        sum.add(part);
        __syncthreads();
    }
    float* out = buffers.partial + static_cast<size_t>(blockIdx.z) * shape.padded_K * width;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            const int j = first_j + warp_j + 8 * n + lane % 4 * 2;
            if (j >= width) {
                continue;
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const size_t k = first_k + warp_k + 16 * m + lane / 4 + 8 * half;
                *reinterpret_cast<float2*>(out + k * width + j) =
                        float2{sum.value[m][n][2 * half], sum.value[m][n][2 * half + 1]};
            }
        }
    }
}

/// Phase 5; a block a component.
template <Covariance form>
__global__ void __launch_bounds__(128) add_pieces_kernel(
        MixtureView mixture,
        const float* origin,
        DenseShape shape,
        DenseBuffers buffers,
        int pieces,
        PassSums sums) {
    __shared__ double masses[most_pieces];
    const int k = blockIdx.x, d = mixture.d;
    const size_t stride = shape.padded_K;
    if (threadIdx.x < pieces) {
        masses[threadIdx.x] = buffers.mass[threadIdx.x * stride + k];
    }
    __syncthreads();
    const double factor = 1.0 / (static_cast<double>(r_scale) * buffers.scale[scale_rows]);
    const float* partial = buffers.partial + static_cast<size_t>(k) * shape.padded_width;
    const auto centre = [&](int j) { // c_kj
        const float mean = mixture.means[static_cast<size_t>(k) * d + j] - origin[j];
        return static_cast<double>(axis_scale(form, buffers.scale, j)) * mean;
    };
    const auto first_of = [&](int p, int j, double c) { // sum r (y_j - c_kj) of a piece
        return partial[p * stride * shape.padded_width + j] * factor - masses[p] * c;
    };
    for (int j = threadIdx.x; j < d; j += 128) {
        const size_t at = static_cast<size_t>(k) * d + j;
        const double c = centre(j);
        double first = sums.first_moment[at];
        if constexpr (form == Covariance::diagonal) {
            const double of_axis = 1.0 / axis_scale(form, buffers.scale, j);
            const double of_squares =
                    1.0 / (static_cast<double>(r_scale) * buffers.scale[scale_squares]);
            double second = sums.second_moment[at];
#pragma unroll 8
            for (int p = 0; p < pieces; ++p) {
                const double of_piece = first_of(p, j, c);
                const double square =
                        partial[p * stride * shape.padded_width + shape.squares + j] * of_squares;
                first += of_piece * of_axis;
                second += (square - c * (2 * of_piece + masses[p] * c)) * (of_axis * of_axis);
            }
            sums.second_moment[at] = second;
        } else {
#pragma unroll 16
            for (int p = 0; p < pieces; ++p) {
                first += first_of(p, j, c);
            }
        }
        sums.first_moment[at] = first;
    }
    if constexpr (form == Covariance::spherical) {
        __shared__ double less[most_pieces];                 // that r |y - c|^2 is than r |y|^2
        for (int p = threadIdx.x / 32; p < pieces; p += 4) { // a warp a piece
            double sum = 0;
#pragma unroll 4
            for (int j = threadIdx.x % 32; j < d; j += 32) {
                const double c = centre(j);
                sum += c * (2 * first_of(p, j, c) + masses[p] * c);
            }
            sum = warp_sum(sum);
            if (threadIdx.x % 32 == 0) {
                less[p] = sum;
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            double moment = sums.moment[k];
            for (int p = 0; p < pieces; ++p) {
                moment += buffers.square_sum[p * stride + k] - less[p];
            }
            sums.moment[k] = moment;
        }
    }
    if (threadIdx.x == 0) {
        double mass = sums.mass[k];
        for (int p = 0; p < pieces; ++p) {
            mass += masses[p];
        }
        sums.mass[k] = mass;
    }
}

int rounded_up(int value, int unit) {
    return (value + unit - 1) / unit * unit;
}

/// |s - exact| <= rounding |y| max|w| + 5 2^-24 max|base|, with rounding the sum of
///     24 2^-23                 yh.wh: 16 columns in the tensor core's own sum, which truncates; at worst four
///                              times four products and what was before, none with a bit behind the last, then
///                              the sum: 4 (5 + 1) cuts of |y||w| of those columns, in all at most |y||w|
///     (7 + w / 128) 2^-24      fp32 additions: eight such sums, then those behind the small products
///     (48 2^-23 + w / 16 2^-24) 2^-10   yh.wl + yl.wh, 32 columns in the tensor core's sum
///     2^-21 + 2^-29            2^-23 off y and w in halves, yl.wl is left out; below fp16's range
///     4 2^-24                  x - o, mu - o, w, the last multiply-add
/// 4.2e-6 at w = 384 columns, 4.5e-6 at 960. max|w| is taken a thousandth larger, for |yh.wh| <= (1 + 2^-11)^2
/// |y||w| and for errors of errors. What of y is below fp16's range: 2^-29 max|w| times the reach, for any row.
/// Spherical: and 10 2^-24 max|hp_k - h| |y|^2, of which |y|^2 7, its factor 1, multiply-adds 2.
/// Diagonal: and rounding times sum_j max_k|hp_kj - h| y_j^2, for every column's errors are relative to its
/// products; 3 2^-24 more in it, for y has two roundings and y^2 five. Below fp16's range lie 2^-25 of a number
/// in halves: sum_j max_k|hp_kj - h| 2^-25 / F' for any row, |y| 45 2^-25 / E, |y|^2 2^-25 / E'.
/// w = `width`, a multiple of `depth`.
float score_rounding(int width) {
    constexpr float cut = 0x1.0p-23f, rounded = 0x1.0p-24f, small = 0x1.0p-10f;
    constexpr float cuts_a_column = 1.5f; // 4 (5 + 1) of 16
    const int groups =
            rounded_up(width, sum_columns * sums_together) / (sum_columns * sums_together);
    const float large = cuts_a_column * sum_columns * cut +
                        static_cast<float>(sums_together - 1 + groups) * rounded;
    const float others =
            cuts_a_column * depth * cut + static_cast<float>(2 * width / depth) * rounded;
    return large + others * small + 0x1.0p-21f + below_halves + 4 * rounded;
}

} // namespace

DenseShape dense_shape(CollectPath path, Covariance covariance, int K, int d) {
    DenseShape shape;
    shape.form = covariance == Covariance::tied ? Covariance::tied_spherical : covariance;
    const bool diagonal = covariance == Covariance::diagonal;
    shape.squares = diagonal ? rounded_up(d, 8) : 0;
    const int width = shape.squares + d;
    if (path != CollectPath::hopper || d < narrowest_row_of_warpgroups) {
        constexpr int scores = 1 << 22; // of a chunk: 16 MiB, and as many in halves twice
        shape.padded_K = rounded_up(K, tile);
        shape.padded_width = shape.row_width = rounded_up(width, depth);
        shape.piece_rows = dense_split;
        shape.chunk_rows =
                std::clamp(scores / shape.padded_K / dense_split * dense_split, dense_split, 4096);
        shape.rounding = score_rounding(shape.padded_width);
    } else if (shape.form == Covariance::tied_spherical && d <= widest_narrow_row) {
        shape_for_warpgroups(K, d, shape);
    } else {
        shape_for_wide_warpgroups(K, width, shape);
    }
    shape.rounding += diagonal ? 3 * 0x1.0p-24f : 0;
    shape.square_rounding = covariance == Covariance::spherical ? 10 * 0x1.0p-24f : 0;
    return shape;
}

size_t dense_scale_count(Covariance covariance, int K, int d) {
    const size_t axes = covariance == Covariance::diagonal ? d : 1;
    const bool differ = covariance == Covariance::diagonal || covariance == Covariance::spherical;
    return dense_scales + 3 * axes + (differ ? (K + sizeof(float) - 1) / sizeof(float) : 0);
}

namespace {

/// Hands out parts of one piece of memory, or only counts them.
class Places {
public:
    explicit Places(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
    template <class T> void take(T*& pointer, size_t count) {
        pointer = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
        bytes_ += (count * sizeof(T) + 255) / 256 * 256;
    }
    size_t bytes() const {
        return bytes_;
    }

private:
    unsigned char* memory_;
    size_t bytes_ = 0;
};

DenseBytes place(const DenseShape& shape, void* of_pass, void* of_chunk, DenseBuffers& out) {
    const bool portable = shape.path != CollectPath::hopper, scored = portable || shape.wide();
    const size_t K = shape.padded_K, rows = shape.chunk_rows, pieces = shape.pieces();
    const size_t width = shape.row_width, parts = portable ? 1 : 2;
    Places pass(of_pass), chunk(of_chunk);
    pass.take(out.means_high, parts * K * width);
    pass.take(out.base, K);
    pass.take(out.constant, K);
    pass.take(out.partial, pieces * K * shape.padded_width);
    pass.take(out.mass, pieces * K);
    if (shape.form == Covariance::spherical) {
        pass.take(out.excess, K);
        pass.take(out.square_sum, pieces * K);
    }
    chunk.take(out.rows_high, parts * rows * width);
    chunk.take(out.square, rows);
    if (portable) {
        pass.take(out.means_low, K * width);
        chunk.take(out.rows_low, rows * width);
        chunk.take(out.r_high, rows * K);
        chunk.take(out.r_low, rows * K);
    }
    if (scored) {
        chunk.take(out.score, rows * K);
    } else {
        chunk.take(out.norm, rows);
    }
    return {pass.bytes(), chunk.bytes()};
}

} // namespace

DenseBytes dense_bytes(const DenseShape& shape) {
    DenseBuffers none;
    return place(shape, nullptr, nullptr, none);
}

DenseBuffers
place_dense_buffers(const DenseShape& shape, void* of_pass, void* of_chunk, float* scale) {
    DenseBuffers buffers;
    buffers.scale = scale;
    place(shape, of_pass, of_chunk, buffers);
    return buffers;
}

void find_dense_scales(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        float* scale,
        cudaStream_t stream) {
    const int axes = shape.form == Covariance::diagonal ? mixture.d : 1;
    check(cudaMemsetAsync(scale, 0, (dense_scales + axes) * sizeof(float), stream),
          "clearing scales");
    const ThinComponents thin = thin_components(shape.form, mixture.d, scale);
    if (shape.form != Covariance::tied_spherical) {
        // Bytes of a number larger than all that are of use.
        check(cudaMemsetAsync(scale + dense_scales + axes, 0x7f, axes * sizeof(float), stream),
              "clearing scales");
        const int across = (axes + 127) / 128;
        const dim3 grid(across, (mixture.K + range_components - 1) / range_components);
        int* sums = reinterpret_cast<int*>(scale + dense_scales + 2 * axes);
        check(cudaMemsetAsync(sums, 0, axes * sizeof(int), stream), "clearing scales");
        const dim3 parts(across, (mixture.K + logarithm_components - 1) / logarithm_components);
        add_logarithms<<<parts, 128, 0, stream>>>(mixture, axes, sums, scale);
        find_thin<<<(mixture.K + 7) / 8, 256, 0, stream>>>(mixture, axes, sums, thin, scale);
        find_precision_ranges<<<grid, 128, 0, stream>>>(mixture, axes, thin, scale);
        set_axes<<<across, 128, 0, stream>>>(shape.form, axes, scale);
    }
    // A number larger than all components'.
    check(cudaMemsetAsync(scale + scale_first, 0x7f, sizeof(int), stream), "clearing scales");
    find_first<<<(mixture.K + 255) / 256, 256, 0, stream>>>(mixture, thin, scale);
    find_largest<<<(mixture.K + 7) / 8, 256, 0, stream>>>(mixture, origin, thin, scale);
    find_scales<<<1, 32, 0, stream>>>(mixture, shape, scale);
    check_launch("preparing the dense tier");
}

void prepare_dense(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        cudaStream_t stream) {
    split_components<<<shape.padded_K, 128, 0, stream>>>(mixture, origin, shape, buffers);
    check_launch("preparing the dense tier");
}

void add_pieces(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        int pieces,
        const PassSums& sums,
        cudaStream_t stream) {
    const auto add = shape.form == Covariance::diagonal ? add_pieces_kernel<Covariance::diagonal>
                     : shape.form == Covariance::spherical
                             ? add_pieces_kernel<Covariance::spherical>
                             : add_pieces_kernel<Covariance::tied_spherical>;
    add<<<mixture.K, 128, 0, stream>>>(mixture, origin, shape, buffers, pieces, sums);
}

void classify_left_rows(
        const MixtureView& mixture,
        const float* origin,
        const float* scale,
        const RowLists& lists,
        cudaStream_t stream) {
    classify_kernel<<<(lists.rows + 255) / 256, 256, 0, stream>>>(mixture, origin, scale, lists);
    check_launch("choosing tiers");
}

namespace {

/// Rows `row` [count] of one block.
void sum_block(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const Rows& x,
        const uint32_t* row,
        int count,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream) {
    for (int first = 0; first < count; first += shape.chunk_rows) {
        const int here = std::min(shape.chunk_rows, count - first);
        const int pieces = (here + dense_split - 1) / dense_split;
        const int padded = pieces * dense_split;
        split_rows<<<padded / 8, 256, 0, stream>>>(
                x, row + first, here, mixture.d, origin, shape, buffers);
        score_kernel<<<dim3(shape.padded_K / tile, padded / tile), gemm_threads, 0, stream>>>(
                shape, buffers);
        responsibility_kernel<<<padded / 8, 256, 0, stream>>>(
                mixture, shape, buffers, row + first, here, output);
        const auto add_masses =
                shape.form == Covariance::spherical ? mass_kernel<true> : mass_kernel<false>;
        add_masses<<<dim3(shape.padded_K / tile, pieces), tile, 0, stream>>>(shape, buffers);
        const dim3 grid((shape.padded_width + tile - 1) / tile, shape.padded_K / tile, pieces);
        moment_kernel<<<grid, gemm_threads, 0, stream>>>(shape, buffers);
        add_pieces(mixture, origin, shape, buffers, pieces, sums, stream);
        check_launch("adding up rows densely");
    }
}

} // namespace

void sum_densely(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream) {
    if (shape.path == CollectPath::hopper) {
        const auto sum = shape.wide() ? sum_wide_by_warpgroups : sum_by_warpgroups;
        sum(mixture, origin, shape, buffers, rows, sums, output, stream);
        return;
    }
    for (int b = 0; b < rows.blocks; ++b) {
        const int first = rows.left[b], count = rows.left[b + 1] - first;
        sum_block(
                mixture,
                origin,
                shape,
                buffers,
                rows.x,
                rows.order + first,
                count,
                sums,
                output,
                stream);
    }
}

} // namespace faiss_gmm::cuda
