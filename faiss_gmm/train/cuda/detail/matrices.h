// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What the forms whose covariances are matrices (tied, full) need beside the others: matrices.cu on the
// device, matrices.cc on the host.

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/cuda/detail/exact.h"
#include "faiss_gmm/train/cuda/detail/mixture_view.h"
#include "faiss_gmm/train/cuda/detail/rows.h"

namespace faiss_gmm::cuda {

inline bool has_matrices(Covariance covariance) {
    return covariance == Covariance::tied || covariance == Covariance::full;
}

/// S = L L^T, one matrix (tied) or K (full); host memory.
struct MatrixFactors {
    std::vector<double> lower;   ///< L [d, d], tied only; what is above the diagonal is void
    std::vector<double> inverse; ///< W = L^-1 [1 or K, d, d], zeros above the diagonal
    std::vector<double> log_determinant; ///< log |S| [1 or K]
};

/// Of a mixture whose check() has passed. (1 or K) 2 d^3 / 3 flops, K of them on all threads.
MatrixFactors factorise_covariances(const GaussianMixture& mixture);

/// f_k = L f'_k in place, for first_moment [K, d].
void unwhiten(const MatrixFactors& factors, size_t K, size_t d, std::vector<double>& first_moment);

/// sum r (x - mu_k)(x - mu_k)^T over all k, from `scatter` [d, d] = sum (x - o)(x - o)^T in place, where
/// the r of each row sum to one: see matrices.cc.
void scatter_around_means(
        const GaussianMixture& mixture,
        const std::vector<float>& origin,
        const std::vector<double>& N_k,
        const std::vector<double>& first_moment,
        std::vector<double>& scatter);

/// y = W (x - o) in fp64, as high and low [rows, d] fp32; device memory.
void whiten_rows(
        const Rows& x,
        size_t rows,
        int d,
        const float* origin,
        const double* inverse,
        float* high,
        float* low,
        cudaStream_t stream);

/// Sums of outer products, in device memory. A slot adds up the same rows of each block (tied) or of each
/// part of the exact tier (full), one after another, so that nothing depends on waves.
struct Scatter {
    double* sums = nullptr;  ///< [slots, matrices, d, d], on and below the diagonal
    double* first = nullptr; ///< full: [slots, matrices, d + 1] sums of r (x - mu_k) and of r
    int matrices = 0;        ///< 1 or K
    int slots = 0;
    int slot_rows = 0; ///< rows of a slot
    /// Of `sums`, and of `first` behind them.
    size_t numbers(size_t d) const {
        return static_cast<size_t>(slots) * matrices * (d * d + d + 1);
    }
};

/// Rows come in blocks or parts of `rows`, a power of two. Slots are as many as fill a device.
Scatter scatter_shape(size_t matrices, size_t d, size_t rows);

/// Adds (x - o)(x - o)^T of `rows` rows, one block's.
void add_scatter(
        const Rows& x,
        int rows,
        int d,
        const float* origin,
        const Scatter& scatter,
        cudaStream_t stream);

/// Adds r (x - mu_k)(x - mu_k)^T, r (x - mu_k) and r of a part; share [rows.count, K].
void add_shared_scatter(
        const MixtureView& mixture,
        const ExactRows& rows,
        const double* share,
        const Scatter& scatter,
        cudaStream_t stream);

/// Writes the first moments and masses of all slots into `sums`, and into the first slot.
void combine_first_moments(
        const Scatter& scatter, int d, const PassSums& sums, cudaStream_t stream);

/// All slots, in their order, into the first one: whole matrices [matrices, d, d].
void combine_scatter(const Scatter& scatter, int d, cudaStream_t stream);

/// joint [rows.count, K] for `full`.
void find_matrix_joints(
        const MixtureView& mixture, const ExactRows& rows, double* joint, cudaStream_t stream);

/// |x - mu_k|^2 of the components that out names, into out.squared_distance; means [K, d].
void measure_distances(
        const Rows& x,
        int rows,
        int d,
        const float* means,
        int m,
        const TopOutput& out,
        cudaStream_t stream);

} // namespace faiss_gmm::cuda
