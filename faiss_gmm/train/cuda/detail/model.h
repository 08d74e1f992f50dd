// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/matrices.h"
#include "faiss_gmm/train/cuda/detail/mixture_view.h"
#include "faiss_gmm/train/cuda/detail/order.h"

namespace faiss_gmm::cuda {

/// A mixture's parameters on the device and what follows from them.
class DeviceMixture {
public:
    /// Takes the mixture's parameters; a mixture whose check() has passed.
    void upload(const GaussianMixture& mixture, cudaStream_t stream);
    /// Brings means, weights and covariances back; not of matrices. Waits for the stream.
    void download(GaussianMixture& mixture, cudaStream_t stream) const;
    /// What rows are scored with; tied: whitened rows.
    MixtureView view() const;
    /// [d] mean of the view's means; diagonal: weighted by their precisions.
    const float* origin() const {
        return covariance_ == Covariance::tied ? white_origin_.data() : origin_.data();
    }
    /// [K, d], and their origin [d], in the space of the given rows.
    const float* given_means() const {
        return means_.data();
    }
    const float* given_origin() const {
        return origin_.data();
    }
    /// Of tied and full.
    const MatrixFactors& factors() const {
        return factors_;
    }
    const double* inverse() const {
        return inverse_.data();
    }
    /// The standard M-step in place, as train/maximization.h says it; not of matrices. `sums` hold what
    /// a pass over `rows` rows left. Balanced weights stay.
    void maximize(const PassSums& sums, double rows, double reg_covar, cudaStream_t stream);

private:
    void derive(cudaStream_t stream);
    /// `weighted`: by hp^2.
    void find_mean_of_means(const float* means, bool weighted, float* origin, cudaStream_t stream);

    Covariance covariance_ = Covariance::tied_spherical;
    Mixing mixing_ = Mixing::uniform;
    int K_ = 0, d_ = 0;
    DeviceArray<float> means_;        ///< [K, d]
    DeviceArray<double> log_weights_; ///< [K]
    DeviceArray<double>
            covariances_; ///< [1], [K] or [K, d]; of matrices the logarithms of determinants
    DeviceArray<double> constant_, half_precision_;
    DeviceArray<float> half_precision32_, origin_;
    DeviceArray<double> scratch_; ///< partial sums
    MatrixFactors factors_;
    DeviceArray<double> inverse_;                              ///< [1 or K, d, d]
    DeviceArray<float> white_high_, white_low_, white_origin_; ///< tied: W (mu_k - o) [K, d], [d]
};

/// sum = a + b + c + e (c, e may be null: nothing to add), number by number; *moment goes to component
/// 0's.
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
        cudaStream_t stream);

} // namespace faiss_gmm::cuda
