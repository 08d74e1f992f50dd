// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What follows from a mixture's parameters, and the M-step that makes the next ones, on the device.
//   (1) hp = 1 / (2 s2), constant_k = log pi_k - (d log 2 pi + log |S_k|) / 2, origin = mean of the means;
//       diagonal: sum_k hp_k^2 mu_k / sum_k hp_k^2 of those that live, an axis each, which makes
//       sum_k |hp_k (mu_k - origin)|^2 least: what the bounds of collecting grow with
//   (1') tied, full: constant_k from log |S_k|; tied: the means whitened, W (mu_k - origin), hp = 1 / 2
//   (2) train/maximization.cc's formulas: mu'_k = mu_k + f_k / N_k rounded to fp32, e_k = mu'_k - mu_k,
//       s2 N = M + sum_j e (N e - 2 f), tied: summed over k, by n d
// Phases: 1 means and each component's variance, a block of threads a component   2 tied: the one
//   variance, in order   3 (1).
// Cost: 8 K d bytes of sums and 4 of means read, 4 written. (1024, 128) on an H100: 1 5 us, 9% of memory's rate   2 3.5
//   3 16 in three kernels, below 3%: each is a launch and a wait or two.
// Numerics: fp64, but for what is stored in fp32. Determinism: gpu_to_gpu but for log.
// Reference: train/maximization.cc. Test: tests/train/cuda/cuda_estep_engine_test.cc.
#include "faiss_gmm/train/cuda/detail/model.h"

#include <algorithm>
#include <cmath>

namespace faiss_gmm::cuda {
namespace {

constexpr int threads = 128;
constexpr double log_two_pi = 1.8378770664093454836;
constexpr double no_mass = 1e-12; ///< below it a component keeps its parameters
constexpr int origin_rows = 64;   ///< means that one block adds up for the origin

__device__ double block_sum(double value) {
    __shared__ double partial[threads];
    __syncthreads();
    partial[threadIdx.x] = value;
    for (int step = threads / 2; step > 0; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) {
            partial[threadIdx.x] += partial[threadIdx.x + step];
        }
    }
    __syncthreads();
    return partial[0];
}

/// (1) for component blockIdx.x.
__global__ void __launch_bounds__(threads) derive_kernel(
        Covariance form,
        int d,
        const double* log_weights,
        const double* covariances,
        double* constant,
        double* half_precision,
        float* half_precision32) {
    const int k = blockIdx.x;
    double log_det = 0;
    if (form == Covariance::diagonal) {
        for (int j = threadIdx.x; j < d; j += threads) {
            const size_t at = static_cast<size_t>(k) * d + j;
            const double s2 = covariances[at];
            log_det += log(s2);
            half_precision[at] = 0.5 / s2;
            half_precision32[at] = static_cast<float>(0.5 / s2);
        }
        log_det = block_sum(log_det);
    } else if (form == Covariance::tied || form == Covariance::full) {
        log_det = covariances[form == Covariance::full ? k : 0];
        if (threadIdx.x == 0 && k == 0) {
            half_precision[0] = 0.5; // of whitened rows
            half_precision32[0] = 0.5f;
        }
    } else {
        const int at = form == Covariance::spherical ? k : 0;
        const double s2 = covariances[at];
        log_det = d * log(s2);
        if (threadIdx.x == 0 && (k == 0 || form == Covariance::spherical)) {
            half_precision[at] = 0.5 / s2;
            half_precision32[at] = static_cast<float>(0.5 / s2);
        }
    }
    if (threadIdx.x == 0) {
        constant[k] = log_weights[k] - 0.5 * (d * log_two_pi + log_det);
    }
}

/// partial [2, blocks, d]: sums of origin_rows weighted means, then of their weights: 1, or hp^2 [K, d] of
/// components that live.
__global__ void sum_means(
        int K,
        int d,
        const float* means,
        const double* half_precision,
        const double* constant,
        double* partial) {
    const int j = blockIdx.y * blockDim.x + threadIdx.x;
    if (j >= d) {
        return;
    }
    double sum = 0, weights = 0;
    const int end = min(K, (static_cast<int>(blockIdx.x) + 1) * origin_rows);
#pragma unroll 8
    for (int k = blockIdx.x * origin_rows; k < end; ++k) {
        const size_t at = static_cast<size_t>(k) * d + j;
        double weight = 1;
        if (half_precision != nullptr) {
            const double hp = half_precision[at];
            weight = isfinite(constant[k]) ? hp * hp : 0;
        }
        sum += weight * means[at];
        weights += weight;
    }
    const size_t at = static_cast<size_t>(blockIdx.x) * d + j;
    partial[at] = sum;
    partial[static_cast<size_t>(gridDim.x) * d + at] = weights;
}

__global__ void find_origin(int d, int partials, const double* partial, float* origin) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= d) {
        return;
    }
    double sum = 0, weights = 0;
    for (int b = 0; b < partials; ++b) {
        sum += partial[static_cast<size_t>(b) * d + j];
        weights += partial[static_cast<size_t>(partials + b) * d + j];
    }
    origin[j] = static_cast<float>(sum / weights);
}

/// (2) for component blockIdx.x; `tied_part` [K] what it adds to a common variance.
__global__ void __launch_bounds__(threads) maximize_kernel(
        Covariance form,
        Mixing mixing,
        int K,
        int d,
        PassSums sums,
        double rows,
        double reg_covar,
        float* means,
        double* log_weights,
        double* covariances,
        double* tied_part) {
    const int k = blockIdx.x;
    const double N = sums.mass[k];
    const bool alive = N > no_mass;
    double change = 0;
    for (int j = threadIdx.x; j < d; j += threads) {
        const size_t at = static_cast<size_t>(k) * d + j;
        const double f = sums.first_moment[at], mu = means[at];
        const float moved = alive ? static_cast<float>(mu + f / N) : means[at];
        const double e = static_cast<double>(moved) - mu;
        const double here = alive ? e * (N * e - 2 * f) : 0;
        change += here;
        means[at] = moved;
        if (form == Covariance::diagonal && alive) {
            covariances[at] = fmax((sums.second_moment[at] + here) / N, 0.0) + reg_covar;
        }
    }
    change = block_sum(change);
    if (threadIdx.x != 0) {
        return;
    }
    const double uniform = -log(static_cast<double>(K));
    log_weights[k] = mixing == Mixing::uniform ? uniform
                     : mixing == Mixing::free  ? log(N / rows)
                                               : log_weights[k];
    if (form == Covariance::spherical && alive) {
        covariances[k] = fmax((sums.moment[k] + change) / (N * d), 0.0) + reg_covar;
    } else if (form == Covariance::tied_spherical) {
        tied_part[k] = sums.moment[k] + change;
    }
}

__global__ void __launch_bounds__(threads)
        find_tied_variance(int K, double mass, double reg_covar, const double* part, double* s2) {
    double sum = 0;
    for (int k = threadIdx.x; k < K; k += threads) {
        sum += part[k];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        *s2 = fmax(sum / mass, 0.0) + reg_covar;
    }
}

__device__ double or_zero(const double* values, size_t at) {
    return values != nullptr ? values[at] : 0;
}

__global__ void add_sums_kernel(
        int K,
        int d,
        bool diagonal,
        PassSums a,
        PassSums b,
        PassSums c,
        PassSums e,
        const double* moment,
        PassSums sum) {
    const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at < static_cast<size_t>(K) * d) {
        sum.first_moment[at] = a.first_moment[at] + b.first_moment[at] +
                               or_zero(c.first_moment, at) + or_zero(e.first_moment, at);
        if (diagonal) {
            sum.second_moment[at] = a.second_moment[at] + b.second_moment[at] +
                                    or_zero(c.second_moment, at) + or_zero(e.second_moment, at);
        }
    }
    if (at < K) {
        sum.mass[at] = a.mass[at] + b.mass[at] + or_zero(c.mass, at) + or_zero(e.mass, at);
        sum.log_likelihood[at] = a.log_likelihood[at] + b.log_likelihood[at];
        sum.moment[at] = a.moment[at] + b.moment[at] + or_zero(c.moment, at) +
                         or_zero(e.moment, at) + (at == 0 ? *moment : 0);
    }
}

template <class T>
void copy_up(DeviceArray<T>& to, const T* from, size_t count, cudaStream_t stream) {
    to.reserve(count);
    check(cudaMemcpyAsync(to.data(), from, count * sizeof(T), cudaMemcpyHostToDevice, stream),
          "copying a mixture to the device");
}

template <class T>
void copy_down(T* to, const DeviceArray<T>& from, size_t count, cudaStream_t stream) {
    check(cudaMemcpyAsync(to, from.data(), count * sizeof(T), cudaMemcpyDeviceToHost, stream),
          "copying a mixture from the device");
}

} // namespace

void DeviceMixture::upload(const GaussianMixture& mixture, cudaStream_t stream) {
    covariance_ = mixture.covariance;
    mixing_ = mixture.mixing;
    K_ = static_cast<int>(mixture.K);
    d_ = static_cast<int>(mixture.d);
    copy_up(means_, mixture.means.data(), mixture.means.size(), stream);
    copy_up(log_weights_, mixture.log_weights.data(), mixture.K, stream);
    size_t precisions = mixture.covariances.size();
    if (has_matrices(covariance_)) {
        factors_ = factorise_covariances(mixture);
        const std::vector<double>& log_determinant = factors_.log_determinant;
        copy_up(covariances_, log_determinant.data(), log_determinant.size(), stream);
        copy_up(inverse_, factors_.inverse.data(), factors_.inverse.size(), stream);
        precisions = 1;
    } else {
        copy_up(covariances_, mixture.covariances.data(), precisions, stream);
    }
    if (covariance_ == Covariance::tied) {
        white_high_.reserve(mixture.means.size());
        white_low_.reserve(mixture.means.size());
        white_origin_.reserve(mixture.d);
    }
    constant_.reserve(mixture.K);
    half_precision_.reserve(precisions);
    half_precision32_.reserve(precisions);
    origin_.reserve(mixture.d);
    const size_t partials = (mixture.K + origin_rows - 1) / origin_rows;
    scratch_.reserve(std::max(2 * partials * mixture.d, mixture.K));
    derive(stream);
}

void DeviceMixture::derive(cudaStream_t stream) {
    derive_kernel<<<K_, threads, 0, stream>>>(
            covariance_,
            d_,
            log_weights_.data(),
            covariances_.data(),
            constant_.data(),
            half_precision_.data(),
            half_precision32_.data());
    find_mean_of_means(means_.data(), covariance_ == Covariance::diagonal, origin_.data(), stream);
    if (covariance_ == Covariance::tied) {
        whiten_rows(
                Rows(means_.data(), ElementType::f32, d_),
                K_,
                d_,
                origin_.data(),
                inverse_.data(),
                white_high_.data(),
                white_low_.data(),
                stream);
        find_mean_of_means(white_high_.data(), false, white_origin_.data(), stream);
    }
    check_launch("preparing a mixture");
}

void DeviceMixture::find_mean_of_means(
        const float* means, bool weighted, float* origin, cudaStream_t stream) {
    const int partials = (K_ + origin_rows - 1) / origin_rows;
    const int across = (d_ + threads - 1) / threads;
    sum_means<<<dim3(partials, across), threads, 0, stream>>>(
            K_,
            d_,
            means,
            weighted ? half_precision_.data() : nullptr,
            constant_.data(),
            scratch_.data());
    find_origin<<<across, threads, 0, stream>>>(d_, partials, scratch_.data(), origin);
}

void DeviceMixture::download(GaussianMixture& mixture, cudaStream_t stream) const {
    mixture.covariance = covariance_;
    mixture.mixing = mixing_;
    mixture.K = K_;
    mixture.d = d_;
    mixture.means.resize(mixture.K * mixture.d);
    mixture.log_weights.resize(mixture.K);
    mixture.covariances.resize(GaussianMixture::covariance_size(covariance_, mixture.K, mixture.d));
    copy_down(mixture.means.data(), means_, mixture.means.size(), stream);
    copy_down(mixture.log_weights.data(), log_weights_, mixture.K, stream);
    copy_down(mixture.covariances.data(), covariances_, mixture.covariances.size(), stream);
    check(cudaStreamSynchronize(stream), "copying a mixture from the device");
}

MixtureView DeviceMixture::view() const {
    const bool tied = covariance_ == Covariance::tied;
    MixtureView view;
    view.covariance = tied ? Covariance::tied_spherical : covariance_;
    view.K = K_;
    view.d = d_;
    view.means = tied ? white_high_.data() : means_.data();
    view.means_low = tied ? white_low_.data() : nullptr;
    view.inverse = covariance_ == Covariance::full ? inverse_.data() : nullptr;
    view.constant = constant_.data();
    view.half_precision = half_precision_.data();
    view.half_precision32 = half_precision32_.data();
    return view;
}

void DeviceMixture::maximize(
        const PassSums& sums, double rows, double reg_covar, cudaStream_t stream) {
    maximize_kernel<<<K_, threads, 0, stream>>>(
            covariance_,
            mixing_,
            K_,
            d_,
            sums,
            rows,
            reg_covar,
            means_.data(),
            log_weights_.data(),
            covariances_.data(),
            scratch_.data());
    if (covariance_ == Covariance::tied_spherical) {
        find_tied_variance<<<1, threads, 0, stream>>>(
                K_, rows * d_, reg_covar, scratch_.data(), covariances_.data());
    }
    check_launch("the M-step");
    derive(stream);
}

void add_sums(
        int K,
        int d,
        bool diagonal,
        const PassSums& a,
        const PassSums& b,
        const PassSums& c,
        const PassSums& e,
        const double* moment,
        const PassSums& sum,
        cudaStream_t stream) {
    const size_t count = static_cast<size_t>(K) * std::max(d, 1);
    add_sums_kernel<<<static_cast<unsigned>((count + 255) / 256), 256, 0, stream>>>(
            K, d, diagonal, a, b, c, e, moment, sum);
    check_launch("adding up a pass");
}

} // namespace faiss_gmm::cuda
