// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/cpu/row_kernels.h"

namespace faiss_gmm::cpu {

/// One row, made ready: what the product needs and the exact form's own copy.
struct PreparedRow {
    float* operand = nullptr;   ///< [operand_width]
    double* whitened = nullptr; ///< [d], tied only: L^-1 (x - origin)
    double norm = 0;            ///< |operand's first d numbers|, fp64
    float p = 0, q = 0;         ///< the row's factors in ScoreBounds
    float slack = 0;            ///< error of a score, nats; infinity: the product is of no use
};

/// A mixture made ready for scoring: the operand of the GEMM with bounds of its error, and the exact
/// log-joint in double precision. Head card in score_model.cc.
class ScoreModel {
public:
    explicit ScoreModel(const GaussianMixture& mixture);

    const GaussianMixture& mixture() const {
        return mixture_;
    }
    /// Columns of the product's operands; 0: there is no product (full), every component is a candidate.
    size_t operand_width() const {
        return width_;
    }
    const float* operand() const {
        return operand_.data(); // [K, operand_width]
    }
    bool needs_whitening() const {
        return mixture_.covariance == Covariance::tied;
    }
    /// Fills the row from x [d]; scratch [d]. False if x holds NaN or Inf.
    bool prepare(const float* x, double* scratch, PreparedRow& row) const;
    /// Bounds for the columns from component `first` on; there is padding behind the last one.
    ScoreBounds bounds(size_t first, const PreparedRow& row) const;
    /// log pi_k + log N(x | mu_k, S_k); also |x - mu_k|^2 where the shape gives it for nothing
    /// (spherical forms), else 0. scratch [d].
    double log_joint(
            const float* x,
            const PreparedRow& row,
            size_t k,
            double* scratch,
            double& squared_distance) const;

private:
    void build_tied_spherical();
    void build_spherical();
    void build_diagonal();
    void build_tied();
    void build_full();
    void set_columns(size_t k, double base, double linear, double square, double square_error);

    GaussianMixture mixture_;
    size_t width_ = 0;
    std::vector<float> origin_;          ///< [d], mean of the means
    std::vector<float> operand_;         ///< [K, width]
    std::vector<float> coefficients_[6]; ///< upper 0, 1, 2 and lower 0, 1, 2, each [K and padding]
    double largest_operand_ = 0;         ///< max_k |operand_k|
    double largest_base_ = 0;            ///< max_k |upper0_k|
    std::vector<double> constant_;       ///< [K], log pi_k - (d log 2 pi + log |S_k|) / 2
    std::vector<double> precision_; ///< 1 / (2 s2): [1], [K], [K, d]; tied, full: L^-1 [.., d, d]
    std::vector<double> whitened_means_; ///< [K, d], tied: L^-1 (mu_k - origin)
};

} // namespace faiss_gmm::cpu
