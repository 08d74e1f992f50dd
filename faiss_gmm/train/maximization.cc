// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The M-step from moments around the old means.
//   (1) mu'_k = mu_k + f_k / N_k, rounded to fp32; e_k = mu'_k - mu_k in fp64, after rounding
//   (2) S_k N_k = M_k - e_k f_k^T - f_k e_k^T + N_k e_k e_k^T: exact around mu'_k as stored
//   (3) tied forms: sum over k of (2), over n; spherical forms: trace over d
//   f_k [K, d] first, M_k second moments around mu_k; N_k mass.
// Cost: K times the size of a covariance. Numerics: all fp64; f and M are relative to the old means,
// so nothing of the size of the data's offset cancels. Deterministic: one order of sums.
#include "faiss_gmm/train/maximization.h"

#include <algorithm>
#include <cmath>

namespace faiss_gmm {
namespace {

/// Adds to M (second moment around mu, in the covariance's shape, component k) the change of moving
/// the centre by e, with f the first moment around the old centre and N the mass. The callers
/// divide by mass later.
void move_centre(
        Covariance covariance,
        size_t k,
        size_t d,
        const double* e,
        const double* f,
        double N,
        std::vector<double>& M) {
    switch (covariance) {
    case Covariance::tied_spherical:
    case Covariance::spherical: {
        double change = 0;
        for (size_t j = 0; j < d; ++j) {
            change += e[j] * (N * e[j] - 2 * f[j]);
        }
        M[covariance == Covariance::spherical ? k : 0] += change;
        break;
    }
    case Covariance::diagonal:
        for (size_t j = 0; j < d; ++j) {
            M[k * d + j] += e[j] * (N * e[j] - 2 * f[j]);
        }
        break;
    case Covariance::tied:
    case Covariance::full: {
        double* matrix = &M[covariance == Covariance::full ? k * d * d : 0];
        for (size_t i = 0; i < d; ++i) {
            for (size_t j = 0; j < d; ++j) {
                matrix[i * d + j] += N * e[i] * e[j] - e[i] * f[j] - f[i] * e[j];
            }
        }
        break;
    }
    }
}

/// move_centre() of all components of `tied`, e and f [K, d]: the same sums in the same order, rows of M
/// by all threads, for K d^2 is much for one.
void move_tied_centres(
        size_t d,
        const std::vector<double>& e,
        const std::vector<double>& f,
        const std::vector<double>& N_k,
        std::vector<double>& M) {
#pragma omp parallel for if (e.size() * d > 65536)
    for (int64_t i = 0; i < static_cast<int64_t>(d); ++i) {
        double* row = &M[i * d];
        for (size_t k = 0; k < N_k.size(); ++k) {
            const double *e_k = &e[k * d], *f_k = &f[k * d];
            for (size_t j = 0; j < d; ++j) {
                row[j] += N_k[k] * e_k[i] * e_k[j] - e_k[i] * f_k[j] - f_k[i] * e_k[j];
            }
        }
    }
}

bool is_tied(Covariance covariance) {
    return covariance == Covariance::tied_spherical || covariance == Covariance::tied;
}

/// Mass below which a component counts as empty: what it has says nothing of a mean.
constexpr double no_mass = 1e-12;

} // namespace

GaussianMixture maximize_on_host(
        const GaussianMixture& before, const SufficientStatistics& statistics, double reg_covar) {
    const size_t K = before.K, d = before.d;
    GaussianMixture after = before;
    std::vector<double> M = statistics.second_moment;
    const bool one_matrix = before.covariance == Covariance::tied;
    std::vector<double> all_e(one_matrix ? K * d : d); // zero: a component that stays
    for (size_t k = 0; k < K; ++k) {
        double* e = &all_e[one_matrix ? k * d : 0];
        const double N = statistics.N_k[k];
        if (N <= no_mass) {
            continue;
        }
        const double* f = &statistics.first_moment[k * d];
        for (size_t j = 0; j < d; ++j) {
            const double mu = before.means[k * d + j];
            after.means[k * d + j] = static_cast<float>(mu + f[j] / N);
            e[j] = static_cast<double>(after.means[k * d + j]) - mu;
        }
        if (!one_matrix) {
            move_centre(before.covariance, k, d, e, f, N, M);
        }
    }
    if (one_matrix) {
        move_tied_centres(d, all_e, statistics.first_moment, statistics.N_k, M);
    }
    const size_t n = statistics.rows;
    const size_t block = M.size() / (is_tied(before.covariance) ? 1 : K); // numbers a covariance
    const bool trace = before.covariance == Covariance::tied_spherical ||
                       before.covariance == Covariance::spherical;
    const bool matrix =
            before.covariance == Covariance::tied || before.covariance == Covariance::full;
    for (size_t c = 0; c < M.size() / block; ++c) {
        const double mass = is_tied(before.covariance) ? static_cast<double>(n) : statistics.N_k[c];
        if (mass <= no_mass) {
            continue;
        }
        for (size_t j = 0; j < block; ++j) {
            // Rounding may leave a variance of nothing slightly below zero.
            const bool on_diagonal = !matrix || j / d == j % d;
            double value = M[c * block + j] / (trace ? mass * d : mass);
            if (on_diagonal) {
                value = std::max(value, 0.0) + reg_covar;
            }
            after.covariances[c * block + j] = value;
        }
    }
    if (before.mixing == Mixing::uniform) {
        std::fill(after.log_weights.begin(), after.log_weights.end(), -std::log(K));
    } else if (before.mixing == Mixing::free && n > 0) {
        for (size_t k = 0; k < K; ++k) {
            after.log_weights[k] = std::log(statistics.N_k[k] / n);
        }
    }
    return after;
}

void replace_means(
        GaussianMixture& mixture, const std::vector<double>& N_k, const std::vector<float>& means) {
    const size_t K = mixture.K, d = mixture.d;
    double n = 0;
    for (const double N : N_k) {
        n += N;
    }
    const std::vector<double> no_first_moment(d, 0.0); // around the mean that the M-step found
    std::vector<double> change(mixture.covariances.size(), 0.0);
    std::vector<double> e(d);
    for (size_t k = 0; k < K; ++k) {
        if (N_k[k] <= no_mass) {
            continue;
        }
        for (size_t j = 0; j < d; ++j) {
            e[j] = static_cast<double>(means[k * d + j]) - mixture.means[k * d + j];
        }
        const double mass = is_tied(mixture.covariance) ? N_k[k] / std::max(n, no_mass) : 1.0;
        move_centre(mixture.covariance, k, d, e.data(), no_first_moment.data(), mass, change);
    }
    const bool trace = mixture.covariance == Covariance::tied_spherical ||
                       mixture.covariance == Covariance::spherical;
    for (size_t i = 0; i < change.size(); ++i) {
        mixture.covariances[i] += trace ? change[i] / d : change[i];
    }
    mixture.means = means;
}

} // namespace faiss_gmm
