// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The reference form of the density, in double precision.
//   (1) log N(x | mu, S) = -(d log 2 pi + log |S| + (x - mu)^T S^-1 (x - mu)) / 2
//   (2) (x - mu)^T S^-1 (x - mu) = |L^-1 (x - mu)|^2 with L L^T = S
// Cost: n K d (spherical, diagonal), n K d^2 / 2 (tied, full). Numerics: x - mu of two floats in
// fp64, so a shift of the data changes nothing. Deterministic: each row by itself.
#include "faiss_gmm/mixture/gaussian_mixture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "faiss_gmm/mixture/cholesky.h"
#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/mixture/random.h"

namespace faiss_gmm {
namespace {

constexpr double log_two_pi = 1.8378770664093454836;

[[noreturn]] void refuse(std::string given, std::string allowed, std::string next) {
    throw Error(
            {"checking a Gaussian mixture", std::move(given), std::move(allowed), std::move(next)});
}

/// `columns` numbers belong to each component; 0: all of them to all components.
template <class T>
void require_finite(const std::vector<T>& values, const char* name, size_t columns) {
    for (size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i])) {
            const std::string owner =
                    columns == 0 ? "all components" : fmt::format("component {}", i / columns);
            refuse(fmt::format("{} of {} is {}", name, owner, values[i]),
                   "finite numbers",
                   "train on finite data or read the mixture again");
        }
    }
}

/// L^-1 and log |S| of every matrix of a tied or full mixture.
struct Factors {
    std::vector<double> inverse; ///< [matrices, d, d], lower triangles
    std::vector<double> log_det; ///< [matrices]
};

Factors factorise(const GaussianMixture& mixture) {
    const size_t d = mixture.d;
    const size_t matrices = mixture.covariances.size() / (d * d);
    Factors factors;
    factors.inverse.resize(matrices * d * d);
    factors.log_det.resize(matrices);
    std::vector<double> lower(d * d);
    for (size_t m = 0; m < matrices; ++m) {
        std::copy_n(&mixture.covariances[m * d * d], d * d, lower.begin());
        if (!cholesky(d, lower.data())) {
            refuse(fmt::format("covariance matrix {} is not positive definite", m),
                   "positive definite matrices",
                   "train with a larger reg_covar");
        }
        factors.log_det[m] = log_determinant(d, lower.data());
        invert_lower(d, lower.data(), &factors.inverse[m * d * d]);
    }
    return factors;
}

double squared_norm_of_product(size_t d, const double* lower, const double* v) {
    double sum = 0;
    for (size_t i = 0; i < d; ++i) {
        double z = 0;
        for (size_t j = 0; j <= i; ++j) {
            z += lower[i * d + j] * v[j];
        }
        sum += z * z;
    }
    return sum;
}

double log_sum_exp(const double* values, size_t count) {
    const double largest = *std::max_element(values, values + count);
    double sum = 0;
    for (size_t k = 0; k < count; ++k) {
        sum += std::exp(values[k] - largest);
    }
    return largest + std::log(sum);
}

} // namespace

size_t GaussianMixture::covariance_size(Covariance covariance, size_t K, size_t d) {
    switch (covariance) {
    case Covariance::tied_spherical:
        return 1;
    case Covariance::spherical:
        return K;
    case Covariance::diagonal:
        return K * d;
    case Covariance::tied:
        return d * d;
    case Covariance::full:
        return K * d * d;
    }
    return 0;
}

void GaussianMixture::check() const {
    const size_t expected = covariance_size(covariance, K, d);
    if (K == 0 || d == 0 || means.size() != K * d || log_weights.size() != K ||
        covariances.size() != expected) {
        refuse(fmt::format(
                       "K = {}, d = {}, {} numbers of means, {} weights, {} covariances",
                       K,
                       d,
                       means.size(),
                       log_weights.size(),
                       covariances.size()),
               fmt::format("K, d > 0, {} means, {} weights, {} covariances", K * d, K, expected),
               "train the mixture or fill all of its arrays");
    }
    require_finite(means, "the mean", d);
    const bool shared = covariance == Covariance::tied_spherical || covariance == Covariance::tied;
    require_finite(covariances, "the covariance", shared ? 0 : expected / K);
    double total = 0;
    for (size_t k = 0; k < K; ++k) {
        // A weight of zero (log -inf) is legitimate: a component that gets nothing.
        if (std::isnan(log_weights[k]) || log_weights[k] > 1e-6) {
            refuse(fmt::format("log-weight {} of component {}", log_weights[k], k),
                   "numbers up to 0",
                   "give logarithms of weights that sum to 1");
        }
        total += std::exp(log_weights[k]);
    }
    if (std::abs(total - 1) > 1e-6) {
        refuse(fmt::format("weights that sum to {}", total),
               "a sum of 1",
               "subtract the logarithm of the sum from every log-weight");
    }
    if (covariance == Covariance::tied || covariance == Covariance::full) {
        factorise(*this);
        return;
    }
    for (size_t i = 0; i < covariances.size(); ++i) {
        if (!(covariances[i] > 0)) {
            refuse(fmt::format("variance {} at position {}", covariances[i], i),
                   "positive variances",
                   "train with a larger reg_covar");
        }
    }
}

void GaussianMixture::log_joint(size_t n, const float* x, double* out) const {
    check();
    const bool matrices = covariance == Covariance::tied || covariance == Covariance::full;
    const Factors factors = matrices ? factorise(*this) : Factors();
    std::vector<double> log_det(K); // log |S_k|
    for (size_t k = 0; k < K; ++k) {
        switch (covariance) {
        case Covariance::tied_spherical:
            log_det[k] = d * std::log(covariances[0]);
            break;
        case Covariance::spherical:
            log_det[k] = d * std::log(covariances[k]);
            break;
        case Covariance::diagonal:
            for (size_t j = 0; j < d; ++j) {
                log_det[k] += std::log(covariances[k * d + j]);
            }
            break;
        case Covariance::tied:
            log_det[k] = factors.log_det[0];
            break;
        case Covariance::full:
            log_det[k] = factors.log_det[k];
            break;
        }
    }
#pragma omp parallel if (n * K * d > 100000)
    {
        std::vector<double> difference(d);
#pragma omp for
        for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
            for (size_t k = 0; k < K; ++k) {
                double quadratic = 0; // (x - mu)^T S^-1 (x - mu)
                for (size_t j = 0; j < d; ++j) {
                    difference[j] = static_cast<double>(x[i * d + j]) - means[k * d + j];
                    const double square = difference[j] * difference[j];
                    quadratic += covariance == Covariance::diagonal
                                         ? square / covariances[k * d + j]
                                         : square;
                }
                if (covariance == Covariance::tied_spherical) {
                    quadratic /= covariances[0];
                } else if (covariance == Covariance::spherical) {
                    quadratic /= covariances[k];
                } else if (matrices) {
                    const size_t m = covariance == Covariance::full ? k : 0;
                    quadratic = squared_norm_of_product(
                            d, &factors.inverse[m * d * d], difference.data());
                }
                out[i * K + k] = log_weights[k] - (d * log_two_pi + log_det[k] + quadratic) / 2;
            }
        }
    }
}

void GaussianMixture::log_responsibilities(size_t n, const float* x, double* out) const {
    log_joint(n, x, out);
    for (size_t i = 0; i < n; ++i) {
        const double norm = log_sum_exp(out + i * K, K);
        for (size_t k = 0; k < K; ++k) {
            out[i * K + k] -= norm;
        }
    }
}

void GaussianMixture::score_samples(size_t n, const float* x, double* out) const {
    check();
    // Piece by piece: n K doubles at once would be eight times the data.
    const size_t piece = std::max<size_t>(1, (size_t{1} << 20) / K);
    std::vector<double> joint(std::min(n, piece) * K);
    for (size_t first = 0; first < n; first += piece) {
        const size_t rows = std::min(piece, n - first);
        log_joint(rows, x + first * d, joint.data());
        for (size_t i = 0; i < rows; ++i) {
            out[first + i] = log_sum_exp(&joint[i * K], K);
        }
    }
}

double GaussianMixture::score(size_t n, const float* x) const {
    if (n == 0) {
        throw Error(
                {"scoring rows under a mixture", "no rows", "at least one row", "give some rows"});
    }
    std::vector<double> scores(n);
    score_samples(n, x, scores.data());
    double sum = 0;
    for (const double value : scores) {
        sum += value;
    }
    return sum / n;
}

void GaussianMixture::predict(size_t n, const float* x, int64_t* out) const {
    check();
    const size_t piece = std::max<size_t>(1, (size_t{1} << 20) / K);
    std::vector<double> joint(std::min(n, piece) * K);
    for (size_t first = 0; first < n; first += piece) {
        const size_t rows = std::min(piece, n - first);
        log_joint(rows, x + first * d, joint.data());
        for (size_t i = 0; i < rows; ++i) {
            const double* row = &joint[i * K];
            out[first + i] = std::max_element(row, row + K) - row; // the first of equals
        }
    }
}

size_t GaussianMixture::parameter_count() const {
    size_t count = K * d + (mixing == Mixing::uniform ? 0 : K - 1);
    switch (covariance) {
    case Covariance::tied_spherical:
        return count + 1;
    case Covariance::spherical:
        return count + K;
    case Covariance::diagonal:
        return count + K * d;
    case Covariance::tied:
        return count + d * (d + 1) / 2;
    case Covariance::full:
        return count + K * d * (d + 1) / 2;
    }
    return count;
}

double GaussianMixture::aic(size_t n, const float* x) const {
    return -2.0 * n * score(n, x) + 2.0 * parameter_count();
}

double GaussianMixture::bic(size_t n, const float* x) const {
    return -2.0 * n * score(n, x) + parameter_count() * std::log(static_cast<double>(n));
}

void GaussianMixture::sample(size_t n, uint64_t seed, float* x, int64_t* labels) const {
    check();
    std::vector<double> cumulative(K);
    double total = 0;
    for (size_t k = 0; k < K; ++k) {
        total += std::exp(log_weights[k]);
        cumulative[k] = total;
    }
    std::vector<double> lower;
    if (covariance == Covariance::tied || covariance == Covariance::full) {
        lower = covariances;
        for (size_t m = 0; m < lower.size() / (d * d); ++m) {
            cholesky(d, &lower[m * d * d]); // check() has seen that it succeeds
        }
    }
    Random random(seed);
    std::vector<double> z(d);
    for (size_t i = 0; i < n; ++i) {
        const double u = random.uniform() * total;
        const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), u);
        const size_t k = std::min<size_t>(found - cumulative.begin(), K - 1);
        if (labels != nullptr) {
            labels[i] = static_cast<int64_t>(k);
        }
        for (double& value : z) {
            value = random.normal();
        }
        for (size_t j = 0; j < d; ++j) {
            double offset = 0;
            switch (covariance) {
            case Covariance::tied_spherical:
                offset = std::sqrt(covariances[0]) * z[j];
                break;
            case Covariance::spherical:
                offset = std::sqrt(covariances[k]) * z[j];
                break;
            case Covariance::diagonal:
                offset = std::sqrt(covariances[k * d + j]) * z[j];
                break;
            case Covariance::tied:
            case Covariance::full: {
                const double* row = &lower[((covariance == Covariance::full ? k * d : 0) + j) * d];
                for (size_t l = 0; l <= j; ++l) {
                    offset += row[l] * z[l];
                }
                break;
            }
            }
            x[i * d + j] = static_cast<float>(means[k * d + j] + offset);
        }
    }
}

} // namespace faiss_gmm
