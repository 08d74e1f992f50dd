// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Which components can matter for a row: one fp32 product with a proven bound of its error.
//   y = x - o, c_k = mu_k - o, o the mean of the means (any fixed point would do: it only keeps |y| small)
//   (1) tied_spherical  score = y . (c_k / s2) + b_k            b_k = log pi_k - |c_k|^2 / (2 s2)
//   (2) spherical       score = y . (c_k / s2_k) - |y|^2 / (2 s2_k) + b_k
//   (3) diagonal        score = [y, y^2] . [c_k / s_k, -1 / (2 s_k)] + b_k
//   (4) tied            as (1) with s2 = 1 and L^-1 y, L^-1 c_k;   full: no product, all exact
//   Each is the log-joint up to a constant of the row, in nats.
// Bound: an fp32 dot product of w terms, in any order, with or without FMA, is off by at most
//   w u / (1 - w u) sum |a_j b_j| <= (w + small) u |a| |b|, u = 2^-24 (Higham 2002, section 3.1); the
//   roundings of y, c_k and b_k add a few u of the same terms. (1) and (4) take max_k |c_k / s2| and
//   put the error in the row's slack; (2) and (3) bound each component by itself, for their variances
//   may differ by orders of magnitude.
// Exact form: fp64 from x - mu_k. A candidate's value depends on the row alone, so what is kept of
//   the candidates (engine) depends on no block, thread or chunk.
// Overflow: bounds beyond 1e30 nats make the row's slack infinite: every component is a candidate.
// Tests: tests/train/cpu_estep_engine_test.cc (near ties, far groups, 1e6 sigma).
#include "faiss_gmm/train/cpu/score_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "faiss_gmm/mixture/cholesky.h"

namespace faiss_gmm::cpu {
namespace {

constexpr double log_two_pi = 1.8378770664093454836;
constexpr double u = 0x1.0p-24;   // unit roundoff of fp32
constexpr double unusable = 1e30; // nats; fp32 products of this size are near overflow
constexpr float infinity = std::numeric_limits<float>::infinity();

size_t padded(size_t K) {
    return (K + score_padding - 1) / score_padding * score_padding;
}

double norm(const float* v, size_t d) {
    double sum = 0;
    for (size_t j = 0; j < d; ++j) {
        sum += static_cast<double>(v[j]) * v[j];
    }
    return std::sqrt(sum);
}

/// z = L^-1 v for a lower triangle [d, d].
void multiply_lower(size_t d, const double* inverse, const double* v, double* z) {
    for (size_t i = 0; i < d; ++i) {
        z[i] = dot(inverse + i * d, v, i + 1);
    }
}

} // namespace

ScoreModel::ScoreModel(const GaussianMixture& mixture) : mixture_(mixture) {
    mixture_.check();
    const size_t K = mixture_.K, d = mixture_.d;
    std::vector<double> centre(d, 0.0);
    for (size_t k = 0; k < K; ++k) {
        add_scaled(centre.data(), 1.0 / K, &mixture_.means[k * d], d);
    }
    origin_.assign(centre.begin(), centre.end());
    constant_.resize(K);
    for (size_t c = 0; c < 6; ++c) {
        // Padding and components of weight zero: -infinity as base, so that they never win, and
        // finite factors, so that -infinity does not become NaN.
        coefficients_[c].assign(padded(K) + score_padding, c % 3 == 0 ? -infinity : 0.0f);
    }
    switch (mixture_.covariance) {
    case Covariance::tied_spherical:
        build_tied_spherical();
        break;
    case Covariance::spherical:
        build_spherical();
        break;
    case Covariance::diagonal:
        build_diagonal();
        break;
    case Covariance::tied:
        build_tied();
        break;
    case Covariance::full:
        build_full();
        break;
    }
}

/// Fills component k's coefficients: base b_k, linear the error a |y|, square the factor of q and its
/// error.
void ScoreModel::set_columns(
        size_t k, double base, double linear, double square, double square_error) {
    // Evaluating the bound in fp32 costs a few roundings itself.
    const double base_error = 8 * u * std::abs(base);
    const double q_error = square_error + 8 * u * std::abs(square);
    if (base == -std::numeric_limits<double>::infinity()) {
        return;
    }
    coefficients_[0][k] = static_cast<float>(base + base_error);
    coefficients_[1][k] = static_cast<float>(linear);
    coefficients_[2][k] = static_cast<float>(square + q_error);
    coefficients_[3][k] = static_cast<float>(base - base_error);
    coefficients_[4][k] = static_cast<float>(-linear);
    coefficients_[5][k] = static_cast<float>(square - q_error);
    largest_base_ = std::max(largest_base_, std::abs(base));
}

void ScoreModel::build_tied_spherical() {
    const size_t K = mixture_.K, d = mixture_.d;
    const double s2 = mixture_.covariances[0];
    width_ = d;
    operand_.resize(K * d);
    precision_ = {0.5 / s2};
#pragma omp parallel for if (K * d > 65536)
    for (int64_t k = 0; k < static_cast<int64_t>(K); ++k) {
        const float* mu = &mixture_.means[k * d];
        for (size_t j = 0; j < d; ++j) {
            operand_[k * d + j] =
                    static_cast<float>((static_cast<double>(mu[j]) - origin_[j]) / s2);
        }
        constant_[k] = mixture_.log_weights[k] - 0.5 * d * (log_two_pi + std::log(s2));
        const double base =
                mixture_.log_weights[k] - squared_distance(mu, origin_.data(), d) * precision_[0];
        coefficients_[0][k] = static_cast<float>(base);
    }
    for (size_t k = 0; k < K; ++k) {
        largest_operand_ = std::max(largest_operand_, norm(&operand_[k * d], d));
        if (std::isfinite(mixture_.log_weights[k])) {
            largest_base_ =
                    std::max(largest_base_, std::abs(static_cast<double>(coefficients_[0][k])));
        }
    }
}

void ScoreModel::build_spherical() {
    const size_t K = mixture_.K, d = mixture_.d;
    width_ = d;
    operand_.resize(K * d);
    precision_.resize(K);
    for (size_t k = 0; k < K; ++k) {
        const double s2 = mixture_.covariances[k];
        const float* mu = &mixture_.means[k * d];
        for (size_t j = 0; j < d; ++j) {
            operand_[k * d + j] =
                    static_cast<float>((static_cast<double>(mu[j]) - origin_[j]) / s2);
        }
        precision_[k] = 0.5 / s2;
        constant_[k] = mixture_.log_weights[k] - 0.5 * d * (log_two_pi + std::log(s2));
        const double size = norm(&operand_[k * d], d);
        largest_operand_ = std::max(largest_operand_, std::max(size, precision_[k]));
        const double base = constant_[k] - squared_distance(mu, origin_.data(), d) * precision_[k];
        set_columns(k, base, (d + 12) * u * size, -precision_[k], 0);
    }
}

void ScoreModel::build_diagonal() {
    const size_t K = mixture_.K, d = mixture_.d;
    width_ = 2 * d;
    operand_.resize(K * width_);
    precision_.resize(K * d);
    for (size_t k = 0; k < K; ++k) {
        const float* mu = &mixture_.means[k * d];
        double log_det = 0;
        for (size_t j = 0; j < d; ++j) {
            const double s2 = mixture_.covariances[k * d + j];
            log_det += std::log(s2);
            precision_[k * d + j] = 0.5 / s2;
            operand_[k * width_ + j] =
                    static_cast<float>((static_cast<double>(mu[j]) - origin_[j]) / s2);
            operand_[k * width_ + d + j] = static_cast<float>(-0.5 / s2);
        }
        constant_[k] = mixture_.log_weights[k] - 0.5 * (d * log_two_pi + log_det);
        const double linear = norm(&operand_[k * width_], d);
        const double square = norm(&operand_[k * width_ + d], d);
        largest_operand_ = std::max(largest_operand_, std::max(linear, square));
        const double base =
                constant_[k] - weighted_squared_distance(mu, origin_.data(), &precision_[k * d], d);
        set_columns(k, base, (width_ + 12) * u * linear, 0, (width_ + 12) * u * square);
    }
}

void ScoreModel::build_tied() {
    const size_t K = mixture_.K, d = mixture_.d;
    width_ = d;
    operand_.resize(K * d);
    std::vector<double> lower = mixture_.covariances;
    cholesky(d, lower.data()); // check() has seen that it succeeds
    precision_.resize(d * d);
    invert_lower(d, lower.data(), precision_.data());
    whitened_means_.resize(K * d);
    std::vector<double> centred(d);
    for (size_t k = 0; k < K; ++k) {
        for (size_t j = 0; j < d; ++j) {
            centred[j] = static_cast<double>(mixture_.means[k * d + j]) - origin_[j];
        }
        double* m = &whitened_means_[k * d];
        multiply_lower(d, precision_.data(), centred.data(), m);
        std::copy_n(m, d, &operand_[k * d]);
        constant_[k] =
                mixture_.log_weights[k] - 0.5 * (d * log_two_pi + log_determinant(d, lower.data()));
        const double base = mixture_.log_weights[k] - 0.5 * dot(m, m, d);
        coefficients_[0][k] = static_cast<float>(base);
        largest_operand_ = std::max(largest_operand_, norm(&operand_[k * d], d));
        if (std::isfinite(base)) {
            largest_base_ = std::max(largest_base_, std::abs(base));
        }
    }
}

void ScoreModel::build_full() {
    const size_t K = mixture_.K, d = mixture_.d;
    precision_.resize(K * d * d);
    std::vector<double> lower(d * d);
    for (size_t k = 0; k < K; ++k) {
        std::copy_n(&mixture_.covariances[k * d * d], d * d, lower.begin());
        cholesky(d, lower.data()); // check() has seen that it succeeds
        invert_lower(d, lower.data(), &precision_[k * d * d]);
        constant_[k] =
                mixture_.log_weights[k] - 0.5 * (d * log_two_pi + log_determinant(d, lower.data()));
    }
}

bool ScoreModel::prepare(const float* x, double* scratch, PreparedRow& row) const {
    const size_t d = mixture_.d;
    const double square = centre_row(x, origin_.data(), d, row.operand);
    if (!std::isfinite(square)) {
        return false;
    }
    row.norm = std::sqrt(square);
    row.p = static_cast<float>(row.norm * (1 + 4 * u));
    row.q = 0;
    double q = 0;
    if (mixture_.covariance == Covariance::spherical) {
        q = square;
    } else if (mixture_.covariance == Covariance::diagonal) {
        double fourth = 0;
        for (size_t j = 0; j < d; ++j) {
            const float y = row.operand[j];
            row.operand[d + j] = y * y;
            fourth += static_cast<double>(row.operand[d + j]) * row.operand[d + j];
        }
        q = std::sqrt(fourth);
    } else if (mixture_.covariance == Covariance::tied) {
        for (size_t j = 0; j < d; ++j) {
            scratch[j] = static_cast<double>(x[j]) - origin_[j];
        }
        multiply_lower(d, precision_.data(), scratch, row.whitened);
        std::copy_n(row.whitened, d, row.operand);
        row.norm = std::sqrt(dot(row.whitened, row.whitened, d));
    }
    row.q = static_cast<float>(q);
    const double size = (row.norm + q) * largest_operand_;
    const bool shared_bound = mixture_.covariance == Covariance::tied_spherical ||
                              mixture_.covariance == Covariance::tied;
    row.slack =
            shared_bound
                    ? static_cast<float>(((width_ + 12) * u * size + 8 * u * largest_base_) * 1.001)
                    : 0.0f;
    if (!(size + largest_base_ < unusable) || !(row.norm + q < unusable)) {
        row.slack = infinity;
    }
    return true;
}

ScoreBounds ScoreModel::bounds(size_t first, const PreparedRow& row) const {
    ScoreBounds bounds;
    bounds.upper0 = &coefficients_[0][first];
    if (mixture_.covariance == Covariance::spherical ||
        mixture_.covariance == Covariance::diagonal) {
        bounds.upper1 = &coefficients_[1][first];
        bounds.upper2 = &coefficients_[2][first];
        bounds.lower0 = &coefficients_[3][first];
        bounds.lower1 = &coefficients_[4][first];
        bounds.lower2 = &coefficients_[5][first];
        bounds.p = row.p;
        bounds.q = row.q;
    }
    return bounds;
}

double ScoreModel::log_joint(
        const float* x, const PreparedRow& row, size_t k, double* scratch, double& distance) const {
    const size_t d = mixture_.d;
    const float* mu = &mixture_.means[k * d];
    distance = 0;
    switch (mixture_.covariance) {
    case Covariance::tied_spherical:
        distance = squared_distance(x, mu, d);
        return constant_[k] - distance * precision_[0];
    case Covariance::spherical:
        distance = squared_distance(x, mu, d);
        return constant_[k] - distance * precision_[k];
    case Covariance::diagonal:
        return constant_[k] - weighted_squared_distance(x, mu, &precision_[k * d], d);
    case Covariance::tied:
        return constant_[k] - 0.5 * squared_distance(row.whitened, &whitened_means_[k * d], d);
    case Covariance::full: {
        for (size_t j = 0; j < d; ++j) {
            scratch[j] = static_cast<double>(x[j]) - mu[j];
        }
        double quadratic = 0;
        for (size_t i = 0; i < d; ++i) {
            const double z = dot(&precision_[(k * d + i) * d], scratch, i + 1);
            quadratic += z * z;
        }
        return constant_[k] - 0.5 * quadratic;
    }
    }
    return constant_[k];
}

} // namespace faiss_gmm::cpu
