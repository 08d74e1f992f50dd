// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The model in the form the collecting pass reads: fp16 operand, start values, bounds.
// Formulas: collect_bound.h. One block a component, twice: the largest norms first, for the scales,
// then the operand and the bounds around it; squares: before, axes by a thread an axis and 16 components.
// All in double precision; maxima go through atomicMax on the bits of non-negative floats, sums are of
// integers, so any order gives the same bits.
// Cost: 4 K d bytes read twice, 2 K width written; 6.5 + 8.3 us at (K, d) = (1024, 128) on an H100: 20% of fp64's issue
//   slots, 31% of L2, 2% of memory.
#include <cmath>

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math_constants.h>

#include "faiss_gmm/train/cuda/collect_bound.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"

namespace faiss_gmm::cuda {
namespace {

constexpr int threads = 128;
constexpr int axis_components = 16; ///< that a thread of find_axes() looks at

struct ModelArrays {
    CollectModelSource source;
    int32_t padded_width;
    __half* operand;
    float* columns;
    float* scale;
};

__device__ double block_sum(double value) {
    __shared__ double partial[threads / 32];
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    __syncthreads(); // the last sum has been read
    if (threadIdx.x % 32 == 0) {
        partial[threadIdx.x / 32] = value;
    }
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < threads / 32; ++i) {
        sum += partial[i];
    }
    return sum;
}

/// Largest of non-negative numbers, rounded up.
__device__ void raise(float* target, double value) {
    atomicMax(reinterpret_cast<int*>(target), __float_as_int(__double2float_ru(value)));
}

__device__ double half_precision(const CollectModelSource& source, int64_t k, int64_t j) {
    switch (source.form) {
    case CollectForm::linear:
        return source.half_precision[0];
    case CollectForm::quadratic:
        return source.half_precision[k];
    default:
        return source.half_precision[k * source.d + j];
    }
}

__device__ double centred_mean(const CollectModelSource& source, int64_t k, int64_t j) {
    return static_cast<double>(source.means[k * source.d + j]) - source.origin[j];
}

/// Of the squares.
struct Axis {
    double a, m;
};
__device__ Axis axis_of(const ModelArrays& model, int64_t j) {
    const float* axes = model.scale + collect_scales;
    return {axes[j], axes[model.source.d + j]};
}

/// w_kj and, of squares, (h_kj - m_j) / R for an axis.
__device__ void
terms_of(const ModelArrays& model, int64_t k, int64_t j, double& linear, double& square) {
    const double h = half_precision(model.source, k, j);
    linear = 2 * h * centred_mean(model.source, k, j);
    square = 0;
    if (model.source.form == CollectForm::squares) {
        const Axis axis = axis_of(model, j);
        linear /= axis.a;
        square = (h - axis.m) / (axis.a * axis.a * squares_ratio);
    }
}

/// A component's score at the origin, whose largest b_k is relative to; the same value in every thread.
__device__ double score_at_origin(const CollectModelSource& source, int64_t k) {
    double sum = 0;
    for (int64_t j = threadIdx.x; j < source.d; j += threads) {
        const double c = centred_mean(source, k, j);
        sum += half_precision(source, k, j) * c * c;
    }
    return source.constant[k] - block_sum(sum);
}

/// Integers above 0 in the order of numbers, and back.
__device__ unsigned long long in_order(double value) {
    const auto bits = static_cast<unsigned long long>(__double_as_longlong(value));
    return (bits >> 63) != 0 ? ~bits : bits | 1ull << 63;
}
__device__ double number_of(unsigned long long ordered) {
    const unsigned long long bits = (ordered >> 63) != 0 ? ordered & ~(1ull << 63) : ~ordered;
    return __longlong_as_double(static_cast<long long>(bits));
}

/// Of the scores at the origin: the largest in order, and the complement of the least.
__device__ unsigned long long* extremes_of(const ModelArrays& model) {
    return reinterpret_cast<unsigned long long*>(model.scale + scale_origin_scores);
}
__device__ double largest_at_origin(const ModelArrays& model) {
    return number_of(extremes_of(model)[0]);
}
__device__ double least_at_origin(const ModelArrays& model) {
    return number_of(~extremes_of(model)[1]);
}

/// Of a power of two that brings the norm into [2^14, 2^15). An empty model (all means at the origin) has
/// norm 0: any scale does.
__device__ int exponent_for(float norm) {
    return norm > 0 ? max(-100, min(100, 14 - ilogbf(norm))) : 0;
}

/// Logarithm of E_k for such a norm: whole steps above that of the largest norm, so that components alike
/// have the same. (Of norm 0: as of the least that is not.)
__device__ int own_exponent(const ModelArrays& model, float norm) {
    const int of_largest = exponent_for(model.scale[scale_norm_bits]);
    if (model.source.form != CollectForm::squares) {
        return of_largest;
    }
    const float at_least = fmaxf(norm, model.scale[scale_least_norm_bits]);
    const int above = max(0, exponent_for(at_least) - of_largest);
    return of_largest + min(most_own_scale, above / own_scale_step * own_scale_step);
}

/// Logarithm of E.
__device__ int operand_exponent(const ModelArrays& model) {
    return own_exponent(model, 0);
}

/// The larger of the halves' norms; the same value in every thread.
__device__ double norm_of(const ModelArrays& model, int64_t k) {
    double linear = 0, squares = 0;
    for (int64_t j = threadIdx.x; j < model.source.d; j += threads) {
        double w = 0, square = 0;
        terms_of(model, k, j, w, square);
        linear += w * w;
        squares += square * square;
    }
    linear = block_sum(linear);
    squares = block_sum(squares);
    return sqrt(fmax(linear, squares));
}

/// Squares: blockIdx.x: axes, blockIdx.y: components. Sums of log2 h_kj, rounded down, and m_j.
__global__ void __launch_bounds__(threads) find_axes(ModelArrays model) {
    const CollectModelSource& source = model.source;
    const int64_t j = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    int logarithms = 0, live = 0;
    double least = CUDART_INF;
#pragma unroll
    for (int i = 0; i < axis_components; ++i) {
        const int64_t k = static_cast<int64_t>(blockIdx.y) * axis_components + i;
        if (k < source.K && j < source.d && source.constant[k] > -CUDART_INF) {
            const double h = half_precision(source, k, j);
            logarithms += ilogb(h);
            least = fmin(least, h);
            ++live;
        }
    }
    if (live > 0) {
        float* axes = model.scale + collect_scales;
        atomicAdd(reinterpret_cast<int*>(axes + j), logarithms);
        atomicMin(
                reinterpret_cast<int*>(axes + source.d + j),
                __float_as_int(__double2float_rd(least)));
        if (j == 0) {
            atomicAdd(reinterpret_cast<int*>(model.scale + scale_living), live);
        }
    }
}

/// a_j of the sums.
__global__ void __launch_bounds__(threads) set_axes(ModelArrays model) {
    const int64_t j = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (j < model.source.d) {
        float* a = model.scale + collect_scales + j;
        const int live = max(1, __float_as_int(model.scale[scale_living]));
        const double logarithm = (__float_as_int(*a) + 0.5 * live) / (2.0 * live);
        *a = exp2f(static_cast<float>(rint(logarithm)));
    }
    if (j == 0) {
        model.scale[scale_least_norm_bits] = CUDART_MAX_NORMAL_F;
    }
}

__global__ void __launch_bounds__(threads) find_largest_norms(ModelArrays model) {
    const int64_t k = blockIdx.x;
    const double score = score_at_origin(model.source, k);
    const double norm = norm_of(model, k);
    if (threadIdx.x == 0 && score > -CUDART_INF) {
        raise(model.scale + scale_norm_bits, norm);
        atomicMax(extremes_of(model), in_order(score));
        atomicMax(extremes_of(model) + 1, ~in_order(score));
        if (model.source.form == CollectForm::squares && norm > 0) {
            atomicMin(
                    reinterpret_cast<int*>(model.scale + scale_least_norm_bits),
                    __float_as_int(__double2float_ru(norm)));
        }
    }
}

/// Writes a number of the operand; returns its rounding error, of which so much relative to the number is
/// not counted, squared, and adds to the norm.
__device__ double
write_operand(__half* operand, double value, double uncounted, double& rounded_norm) {
    const __half rounded = __double2half(value);
    *operand = rounded;
    const double back = static_cast<double>(__half2float(rounded));
    rounded_norm += back * back;
    const double error = fmax(0.0, fabs(back - value) - uncounted * fabs(value));
    return error * error;
}

__global__ void __launch_bounds__(threads) write_components(ModelArrays model, CollectModel out) {
    const CollectModelSource& source = model.source;
    const int64_t k = blockIdx.x;
    const int32_t width = model.padded_width;
    __half* operand = model.operand + k * width;
    float* columns = model.columns + k / collect_tile * collect_columns;
    const int32_t place = static_cast<int32_t>(k % collect_tile);
    const bool squares = source.form == CollectForm::squares;
    const double E = exp2(static_cast<double>(operand_exponent(model)));
    const double largest = largest_at_origin(model);
    if (k == 0 && threadIdx.x == 0) {
        model.scale[scale_operand] = static_cast<float>(E);
        model.scale[scale_row_cap] = static_cast<float>(
                fmin(1e20, 0.9e30 / (E * fmax(1.0, largest - least_at_origin(model)))));
    }
    const double score = k < source.K ? score_at_origin(source, k) : -CUDART_INF;
    const double base = score - largest;
    const bool used = base > -CUDART_INF;
    double own_E = E;
    if (squares && used) {
        const float norm = __double2float_ru(norm_of(model, k));
        own_E = exp2(static_cast<double>(own_exponent(model, norm)));
    }
    const int32_t second = squares ? squares_offset(static_cast<int32_t>(source.d)) : width;
    double error[2] = {0, 0}, norm[2] = {0, 0};
    for (int32_t j = threadIdx.x; j < width; j += threads) {
        const int half = j >= second;
        const int32_t dimension = half ? j - second : j;
        if (!used || dimension >= source.d) {
            operand[j] = __half(0.0f);
            continue;
        }
        double linear = 0, square = 0;
        terms_of(model, k, dimension, linear, square);
        const double value = own_E * (half ? -square : linear);
        error[half] += write_operand(operand + j, value, half ? 0x1.0p-11 : 0.0, norm[half]);
    }
    double errors = 0;
    for (int half = 0; half < 2; ++half) {
        errors += sqrt(block_sum(error[half]));
        norm[half] = sqrt(block_sum(norm[half]));
    }
    if (threadIdx.x != 0) {
        return;
    }
    float* own = const_cast<float*>(own_columns(out, static_cast<int32_t>(k / collect_tile)));
    if (!used) {
        columns[column_base + column_place(place)] = -CUDART_INF_F;
        if (squares) {
            own[own_scale + column_place(place)] = 1;
        }
        return; // the rest was cleared
    }
    const double of_subnormals = sqrt(static_cast<double>(width)) * 0x1.0p-40;
    const double eta = 0x1.0p-11 * (1 + 0x1.0p-10) + of_subnormals;
    const double gamma = accumulation_error(width);
    // Of the start in fp32, and of its two scores in double.
    const double off = gamma * fabs(base) + 4e-15 * (fabs(score) + fabs(largest));
    if (squares) {
        const double c = squares_error(width), e = own_E / E;
        const double bound = 1.002 * collect_norm *
                             ((eta + gamma + c) * norm[0] + of_subnormals * norm[1] + errors);
        const float stored = __double2float_ru(bound);
        columns[column_base + column_place(place)] =
                __double2float_ru(e * ((1 + c) * base + 1.01 * off));
        columns[column_quadratic + column_place(place)] = stored;
        own[own_scale + column_place(place)] = static_cast<float>(e);
        raise(columns + column_largest_scale, e);
        raise(columns + column_largest_step, 1 / e);
        own[own_gap + column_place(place)] = __double2float_ru(2.0 * stored / e);
        own[own_gap_base + column_place(place)] = __double2float_ru(2 * c * base + 2.1 * off);
        return;
    }
    const double bound = 1.002 * collect_norm * (eta * norm[0] + errors + gamma * norm[0]);
    columns[column_base + column_place(place)] = __double2float_ru(base + 1.01 * off);
    raise(columns + column_bound + place / 8, bound);
    raise(columns + column_error_bound, 2 * bound);
    raise(columns + column_error_base, 2.1 * off);
    if (source.form == CollectForm::quadratic) {
        const double h = source.half_precision[k];
        columns[column_quadratic + column_place(place)] = __double2float_rd(h * (1 - 1.01 * gamma));
        raise(columns + column_error_quadratic, 2.1 * gamma * h);
    }
}

int32_t rounded_up(int64_t value, int64_t unit) {
    return static_cast<int32_t>((value + unit - 1) / unit * unit);
}

int32_t used_width(CollectForm form, int64_t d) {
    return static_cast<int32_t>(
            form == CollectForm::squares ? squares_offset(static_cast<int32_t>(d)) + d : d);
}

} // namespace

CollectModel collect_model_shape(CollectForm form, int64_t K, int64_t d) {
    CollectModel model;
    model.form = form;
    model.K = static_cast<int32_t>(K);
    model.d = static_cast<int32_t>(d);
    model.padded_K = rounded_up(K, collect_tile);
    model.width = used_width(form, d);
    model.padded_width = rounded_up(model.width, 16);
    model.stretch = static_cast<float>(stretch_of(form, model.padded_width));
    return model;
}

CollectModelBytes collect_model_bytes(const CollectModel& shape) {
    CollectModelBytes bytes;
    bytes.operand = static_cast<size_t>(shape.padded_K) * shape.padded_width * sizeof(__half);
    const bool squares = shape.form == CollectForm::squares;
    const size_t of_tile = collect_columns + (squares ? collect_own_columns : 0);
    bytes.columns = shape.padded_K / collect_tile * of_tile * sizeof(float);
    bytes.scale = (collect_scales + (squares ? 2 * size_t(shape.d) : 0)) * sizeof(float);
    return bytes;
}

void prepare_collect_model(const CollectModelSource& source, CollectModel& model, Stream stream) {
    CollectModel shape = collect_model_shape(source.form, source.K, source.d);
    shape.operand = model.operand;
    shape.columns = model.columns;
    shape.scale = model.scale;
    shape.origin = source.origin;
    model = shape;
    const CollectModelBytes bytes = collect_model_bytes(model);
    check_collect(cudaMemsetAsync(model.columns, 0, bytes.columns, stream), "clearing the columns");
    check_collect(cudaMemsetAsync(model.scale, 0, bytes.scale, stream), "clearing the scales");
    const ModelArrays arrays{
            source,
            model.padded_width,
            reinterpret_cast<__half*>(model.operand),
            model.columns,
            model.scale};
    if (model.form == CollectForm::squares) {
        // Bytes of a number larger than all that are of use.
        const size_t axes = model.d * sizeof(float);
        check_collect(
                cudaMemsetAsync(model.scale + collect_scales + model.d, 0x7f, axes, stream),
                "clearing the scales");
        const int across = (model.d + threads - 1) / threads;
        const dim3 grid(across, (model.K + axis_components - 1) / axis_components);
        find_axes<<<grid, threads, 0, stream>>>(arrays);
        set_axes<<<across, threads, 0, stream>>>(arrays);
    }
    find_largest_norms<<<model.K, threads, 0, stream>>>(arrays);
    write_components<<<model.padded_K, threads, 0, stream>>>(arrays, model);
    check_collect(cudaGetLastError(), "preparing the model");
}

} // namespace faiss_gmm::cuda
