// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The model in the form the collecting pass reads: fp16 operand, start values, bounds.
// Formulas: collect_bound.h. One block a component, twice: the largest norms first, for the scales,
// then the operand and the bounds around it. All in double precision; maxima go through atomicMax on
// the bits of non-negative floats, so any order gives the same bits.
// Cost: K d reads, twice; 10 us at (K, d) = (1024, 128).
#include <cmath>

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math_constants.h>

#include "faiss_gmm/train/cuda/collect_bound.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"

namespace faiss_gmm::cuda {
namespace {

constexpr int threads = 128;

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

/// b_k; the same value in every thread.
__device__ double base_of(const CollectModelSource& source, int64_t k) {
    double sum = 0;
    for (int64_t j = threadIdx.x; j < source.d; j += threads) {
        const double c = centred_mean(source, k, j);
        sum += half_precision(source, k, j) * c * c;
    }
    return source.constant[k] - block_sum(sum);
}

__device__ double power_of_two_for(float largest) {
    // An empty model (all means at the origin) has norm 0: any scale does.
    const int exponent = largest > 0 ? 14 - ilogbf(largest) : 0;
    return exp2(static_cast<double>(max(-100, min(100, exponent))));
}

__global__ void __launch_bounds__(threads) find_largest_norms(ModelArrays model) {
    const CollectModelSource& source = model.source;
    const int64_t k = blockIdx.x;
    const double base = base_of(source, k);
    double linear = 0, squares = 0;
    for (int64_t j = threadIdx.x; j < source.d; j += threads) {
        const double h = half_precision(source, k, j), w = 2 * h * centred_mean(source, k, j);
        linear += w * w;
        squares += h * h;
    }
    linear = block_sum(linear);
    squares = block_sum(squares);
    if (threadIdx.x == 0 && base > -CUDART_INF) {
        raise(model.scale + scale_norm_bits, sqrt(linear));
        raise(model.scale + scale_squares_norm_bits, sqrt(squares));
        raise(model.scale + scale_base_bits, fabs(base));
    }
}

/// Writes a number of the operand; returns its rounding error squared and adds to the norm.
__device__ double write_operand(__half* operand, double value, double& rounded_norm) {
    const __half rounded = __double2half(value);
    *operand = rounded;
    const double back = static_cast<double>(__half2float(rounded));
    rounded_norm += back * back;
    return (back - value) * (back - value);
}

__global__ void __launch_bounds__(threads) write_components(ModelArrays model) {
    const CollectModelSource& source = model.source;
    const int64_t k = blockIdx.x;
    const int32_t width = model.padded_width;
    __half* operand = model.operand + k * width;
    float* columns = model.columns + k / collect_tile * collect_columns;
    const int32_t place = static_cast<int32_t>(k % collect_tile);
    const double E = power_of_two_for(model.scale[scale_norm_bits]);
    const double E2 = power_of_two_for(model.scale[scale_squares_norm_bits]);
    if (k == 0 && threadIdx.x == 0) {
        model.scale[scale_operand] = static_cast<float>(E);
        model.scale[scale_squares] = static_cast<float>(E2);
        model.scale[scale_squares_ratio] = static_cast<float>(E / E2);
        model.scale[scale_row_cap] = static_cast<float>(
                fmin(1e20, 1e30 / (E * fmaxf(1.0f, model.scale[scale_base_bits]))));
    }
    const double base = k < source.K ? base_of(source, k) : -CUDART_INF;
    const bool used = base > -CUDART_INF;
    const int32_t second = source.form == CollectForm::squares
                                   ? squares_offset(static_cast<int32_t>(source.d))
                                   : width;
    double error[2] = {0, 0}, norm[2] = {0, 0};
    for (int32_t j = threadIdx.x; j < width; j += threads) {
        const int half = j >= second;
        const int32_t dimension = half ? j - second : j;
        if (!used || dimension >= source.d) {
            operand[j] = __half(0.0f);
            continue;
        }
        const double h = half_precision(source, k, dimension);
        const double value = half ? -h * E2 : 2 * h * centred_mean(source, k, dimension) * E;
        error[half] += write_operand(operand + j, value, norm[half]);
    }
    double total_error = 0, total_norm = 0;
    for (int half = 0; half < 2; ++half) {
        total_error += sqrt(block_sum(error[half]));
        total_norm += sqrt(block_sum(norm[half]));
    }
    if (threadIdx.x != 0) {
        return;
    }
    if (!used) {
        columns[column_base + column_place(place)] = -CUDART_INF_F;
        return; // the rest was cleared
    }
    const double eta = 0x1.0p-11 * (1 + 0x1.0p-10) + sqrt(static_cast<double>(width)) * 0x1.0p-40;
    const double gamma = accumulation_error(width);
    const double bound =
            1.002 * collect_norm * (eta * total_norm + total_error + gamma * total_norm);
    columns[column_base + column_place(place)] =
            __double2float_ru(base + 1.01 * gamma * fabs(base));
    raise(columns + column_bound + place / 8, bound);
    raise(columns + column_error_bound, 2 * bound);
    raise(columns + column_error_base, 2.1 * gamma * fabs(base));
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
    return model;
}

CollectModelBytes collect_model_bytes(const CollectModel& shape) {
    CollectModelBytes bytes;
    bytes.operand = static_cast<size_t>(shape.padded_K) * shape.padded_width * sizeof(__half);
    bytes.columns = shape.padded_K / collect_tile * collect_columns * sizeof(float);
    bytes.scale = collect_scales * sizeof(float);
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
    find_largest_norms<<<model.K, threads, 0, stream>>>(arrays);
    write_components<<<model.padded_K, threads, 0, stream>>>(arrays);
    check_collect(cudaGetLastError(), "preparing the model");
}

} // namespace faiss_gmm::cuda
