// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the host does for covariances that are matrices: once a pass, nothing of size n.
//   (1) S = L L^T, W = L^-1
//   (2) f_k = L f'_k: first moments of whitened rows y = W (x - o) back in the space of the rows
//   (3) tied: sum_ik r (x - mu)(x - mu)^T = T - sum_k (c_k g_k^T + f_k c_k^T),
//       T = sum_i (x - o)(x - o)^T, c_k = mu_k - o, g_k = f_k + N_k c_k; for sum_k r_ik = 1.
// Cost: (1) 2 d^3 / 3 flops a matrix, (2) K d^2, (3) 2 K d^2.
// Numerics: fp64. (3) subtracts what lies between the components from all there is. It needs shares that
//   sum to one exactly (weigh.cu rounds them to steps of 2^-24), else 1e-8 |c_k|^2 would stay. Then T is
//   good to 2^-53 and more rows, and the error of f_k, 1e-7 of a component's own spread, is multiplied by
//   |c_k|: in units of the covariance (3) is off by 1e-7 max |W c_k| at most, and by far less where many
//   rows add up. In a direction of small variance the error shrinks with it, for f = L f'.
// Determinism: gpu_to_gpu; every sum runs in one order.
// Test: tests/train/cuda/cuda_estep_engine_test.cc.
#include "faiss_gmm/train/cuda/detail/matrices.h"

#include <algorithm>

#include "faiss_gmm/mixture/cholesky.h"

namespace faiss_gmm::cuda {

MatrixFactors factorise_covariances(const GaussianMixture& mixture) {
    const size_t d = mixture.d, square = d * d, count = mixture.covariances.size() / square;
    MatrixFactors factors;
    factors.inverse.resize(count * square);
    factors.log_determinant.resize(count);
#pragma omp parallel for schedule(dynamic) if (count > 1)
    for (int64_t k = 0; k < static_cast<int64_t>(count); ++k) {
        const auto first = mixture.covariances.begin() + static_cast<std::ptrdiff_t>(k * square);
        std::vector<double> lower(first, first + static_cast<std::ptrdiff_t>(square));
        cholesky(d, lower.data()); // check() has seen that it succeeds
        invert_lower(d, lower.data(), &factors.inverse[k * square]);
        factors.log_determinant[k] = log_determinant(d, lower.data());
        if (count == 1) {
            factors.lower.swap(lower);
        }
    }
    return factors;
}

void unwhiten(const MatrixFactors& factors, size_t K, size_t d, std::vector<double>& first_moment) {
#pragma omp parallel for if (K * d * d > 65536)
    for (int64_t k = 0; k < static_cast<int64_t>(K); ++k) {
        double* f = &first_moment[k * d];
        for (size_t i = d; i-- > 0;) { // from the end, for f_i needs what comes before it
            double sum = 0;
            for (size_t j = 0; j <= i; ++j) {
                sum += factors.lower[i * d + j] * f[j];
            }
            f[i] = sum;
        }
    }
}

void scatter_around_means(
        const GaussianMixture& mixture,
        const std::vector<float>& origin,
        const std::vector<double>& N_k,
        const std::vector<double>& first_moment,
        std::vector<double>& scatter) {
    const size_t K = mixture.K, d = mixture.d;
    std::vector<double> c(K * d), g(K * d);
    for (size_t k = 0; k < K; ++k) {
        for (size_t j = 0; j < d; ++j) {
            const size_t at = k * d + j;
            c[at] = static_cast<double>(mixture.means[at]) - origin[j];
            g[at] = first_moment[at] + N_k[k] * c[at];
        }
    }
#pragma omp parallel for schedule(dynamic, 4) if (K * d * d > 65536)
    for (int64_t i = 0; i < static_cast<int64_t>(d); ++i) {
        double* row = &scatter[i * d];
        for (size_t k = 0; k < K; ++k) {
            const double c_i = c[k * d + i], f_i = first_moment[k * d + i];
            for (int64_t j = 0; j <= i; ++j) {
                row[j] -= c_i * g[k * d + j] + f_i * c[k * d + j];
            }
        }
    }
    for (size_t i = 0; i < d; ++i) {
        for (size_t j = 0; j < i; ++j) {
            scatter[j * d + i] = scatter[i * d + j];
        }
    }
}

} // namespace faiss_gmm::cuda
