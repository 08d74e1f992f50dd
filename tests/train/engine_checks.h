// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the tests of all engines share: a pass, the comparison with the fp64 oracle within the tolerances that
// any engine must keep, and an engine that hands everything on to another.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "faiss_gmm/train/estep_engine.h"
#include "tests/train/naive_em.h"

namespace faiss_gmm::testing {

/// |a - b| / |b - origin|.
template <class A, class B>
double relative_distance(const std::vector<A>& a, const std::vector<B>& b, double origin = 0) {
    EXPECT_EQ(a.size(), b.size());
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        difference += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
        size += (double(b[i]) - origin) * (double(b[i]) - origin);
    }
    return std::sqrt(difference / std::max(size, 1e-300));
}

inline Chunk chunk_of(const std::vector<float>& x, size_t d, size_t first, size_t n) {
    Chunk chunk;
    chunk.x = x.data() + first * d;
    chunk.n = n;
    chunk.first = first;
    return chunk;
}

inline SufficientStatistics
pass(EStepEngine& engine,
     const GaussianMixture& mixture,
     const std::vector<float>& x,
     Assignment assignment = Assignment::soft,
     size_t piece = std::numeric_limits<size_t>::max()) {
    engine.begin(mixture, assignment);
    const size_t n = x.size() / mixture.d;
    for (size_t first = 0; first < n; first += std::min(piece, n)) {
        engine.accumulate(chunk_of(x, mixture.d, first, std::min(piece, n - first)));
    }
    return engine.finish();
}

/// The parts [size / K] of values that belong to components of some mass. Below a tenth of a row a
/// component is dead (the trainer re-seeds it) and what is left of it is tails without meaning.
template <class T>
std::vector<T> of_living(const std::vector<T>& values, const std::vector<double>& N_k) {
    const size_t part = values.size() / N_k.size();
    if (part == 0) {
        return values; // tied
    }
    std::vector<T> kept;
    for (size_t k = 0; k < N_k.size(); ++k) {
        if (N_k[k] >= 0.1) {
            kept.insert(kept.end(), &values[k * part], &values[k * part] + part);
        }
    }
    return kept;
}

/// Keeps how much of each tolerance is used at most; the tests fail at 1.
class Budget {
public:
    /// distance: tolerance of a squared distance, relative to it.
    explicit Budget(double distance) : distance(distance) {}
    void use(const char* of, double share) {
        double& seen = used_[of];
        seen = std::max(seen, share);
        EXPECT_LT(share, 1) << of;
    }
    void print() const {
        for (const auto& [of, share] : used_) {
            std::printf("    %-20s %.3f of the tolerance\n", of, share);
        }
    }
    const double distance;

private:
    struct Less {
        bool operator()(const char* a, const char* b) const {
            return std::strcmp(a, b) < 0;
        }
    };
    std::map<const char*, double, Less> used_;
};

inline bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

inline void expect_same_bits(const SufficientStatistics& a, const SufficientStatistics& b) {
    EXPECT_EQ(a.rows, b.rows);
    EXPECT_EQ(a.sum_log_likelihood, b.sum_log_likelihood);
    EXPECT_EQ(a.shared_rows, b.shared_rows);
    EXPECT_TRUE(same_bits(a.N_k, b.N_k));
    EXPECT_TRUE(same_bits(a.first_moment, b.first_moment));
    EXPECT_TRUE(same_bits(a.second_moment, b.second_moment));
}

/// How far a pass and its M-step are from the oracle.
struct IterationErrors {
    double log_likelihood;          ///< nats a row
    double N_k, means, covariances; ///< relative in norm, of components that live
};

/// offset: what the means lie around.
inline IterationErrors errors_of(
        const SufficientStatistics& statistics,
        const GaussianMixture& after,
        const naive::Iteration& oracle,
        double offset = 0) {
    double log_likelihood = 0;
    for (const double value : oracle.log_likelihood) {
        log_likelihood += value;
    }
    const auto& N_k = oracle.N_k;
    const bool tied = after.covariance == Covariance::tied;
    IterationErrors errors;
    errors.log_likelihood = std::abs(statistics.sum_log_likelihood - log_likelihood) /
                            static_cast<double>(oracle.log_likelihood.size());
    errors.N_k = relative_distance(statistics.N_k, N_k);
    errors.means =
            relative_distance(of_living(after.means, N_k), of_living(oracle.means, N_k), offset);
    errors.covariances =
            tied ? relative_distance(after.covariances, oracle.covariances)
                 : relative_distance(
                           of_living(after.covariances, N_k), of_living(oracle.covariances, N_k));
    return errors;
}

/// The m best components of each row against the oracle's responsibilities and fp64 distances.
inline void expect_responsibilities(
        const TopResponsibilities& top,
        size_t m,
        const GaussianMixture& mixture,
        const std::vector<float>& x,
        const naive::Iteration& oracle,
        Budget& budget) {
    const size_t K = mixture.K, d = mixture.d, n = x.size() / d;
    double worst = 0, worst_of_ties = 0;
    size_t near_ties = 0;
    std::vector<double> row;
    for (size_t i = 0; i < n; ++i) {
        double here = 0;
        for (size_t c = 0; c < m; ++c) {
            const int32_t k = top.component[i * m + c];
            if (c >= K) {
                EXPECT_EQ(k, -1);
                continue;
            }
            ASSERT_GE(k, 0);
            ASSERT_LT(size_t(k), K);
            const double r = oracle.responsibilities[i * K + k];
            here = std::max(here, std::abs(std::exp(top.log_responsibility[i * m + c]) - r));
            double distance = 0;
            for (size_t j = 0; j < d; ++j) {
                distance += std::pow(double(x[i * d + j]) - mixture.means[k * d + j], 2);
            }
            EXPECT_NEAR(top.squared_distance[i * m + c], distance, budget.distance * distance);
            if (c > 0) {
                EXPECT_LE(top.log_responsibility[i * m + c], top.log_responsibility[i * m + c - 1]);
            }
        }
        row.assign(&oracle.responsibilities[i * K], &oracle.responsibilities[i * K] + K);
        const size_t second = std::min<size_t>(1, K - 1);
        std::nth_element(row.begin(), row.begin() + second, row.end(), std::greater<double>());
        const double best = *std::max_element(row.begin(), row.begin() + second + 1);
        const bool tie = second == 1 && row[1] > best * std::exp(-1e-3);
        near_ties += tie;
        (tie ? worst_of_ties : worst) = std::max(tie ? worst_of_ties : worst, here);
        // The best one is the oracle's, or as good within what responsibilities may be off by.
        EXPECT_GE(oracle.responsibilities[i * K + top.component[i * m]], best - 1e-4);
    }
    budget.use("responsibilities", worst / 1e-4);
    if (near_ties > 0) {
        budget.use("those of near-ties", worst_of_ties / 1e-4);
    }
}

/// Compares one iteration and the responsibilities with the oracle's.
inline void expect_like_oracle(
        EStepEngine& engine,
        const GaussianMixture& mixture,
        const std::vector<float>& x,
        double offset,
        Budget& budget,
        const naive::Iteration& oracle,
        double reg_covar,
        Assignment assignment = Assignment::soft) {
    const size_t K = mixture.K, d = mixture.d, n = x.size() / d;
    const SufficientStatistics statistics = pass(engine, mixture, x, assignment);
    const GaussianMixture after = engine.maximize(statistics, reg_covar);
    EXPECT_EQ(statistics.rows, n);
    const IterationErrors errors = errors_of(statistics, after, oracle, offset);
    budget.use("log-likelihood", errors.log_likelihood / (1e-6 * d));
    budget.use("N_k", errors.N_k / 1e-4);
    // Means are stored in fp32: at an offset of 1e4 half a unit of theirs is 5e-4.
    budget.use("means", errors.means / (1e-4 + std::abs(offset) * 0x1.0p-24));
    budget.use("covariances", errors.covariances / 1e-4);
    after.check();
    if (assignment == Assignment::hard) {
        return;
    }
    size_t shared = 0;
    for (size_t i = 0; i < n; ++i) {
        const double* row = &oracle.responsibilities[i * K];
        shared += std::count_if(row, row + K, [&](double r) { return r > 1.0 / K; }) > 1;
    }
    EXPECT_NEAR(double(statistics.shared_rows), double(shared), 1 + 1e-3 * n);
    TopResponsibilities top;
    const size_t m = std::min<size_t>(4, K + 1);
    engine.top_responsibilities(chunk_of(x, d, 0, n), m, top);
    expect_responsibilities(top, m, mixture, x, oracle, budget);
    // The same components without a normaliser, but for ties.
    TopResponsibilities hard;
    engine.begin(mixture, Assignment::hard);
    engine.top_responsibilities(chunk_of(x, d, 0, n), m, hard);
    EXPECT_TRUE(hard.log_responsibility.empty());
    for (size_t at = 0; at < n * m; ++at) {
        const int32_t k = hard.component[at], soft = top.component[at];
        if (soft < 0) {
            EXPECT_EQ(k, soft);
            continue;
        }
        ASSERT_GE(k, 0);
        if (k == soft) { // to within the tolerance of the row's largest
            const float* all = &top.squared_distance[at / m * m];
            const float largest = *std::max_element(all, all + std::min(m, K));
            const double distance = top.squared_distance[at];
            EXPECT_NEAR(hard.squared_distance[at], distance, 2 * budget.distance * largest);
        }
        const double* r = &oracle.responsibilities[at / m * K];
        EXPECT_NEAR(r[k], r[soft], 1e-4);
    }
}

inline void expect_like_oracle(
        EStepEngine& engine,
        const GaussianMixture& mixture,
        const std::vector<float>& x,
        double offset,
        Budget& budget,
        Assignment assignment = Assignment::soft) {
    const double reg_covar = 1e-6;
    const naive::Iteration oracle = naive::iterate(
            mixture, x.size() / mixture.d, x.data(), reg_covar, assignment == Assignment::hard);
    expect_like_oracle(engine, mixture, x, offset, budget, oracle, reg_covar, assignment);
}

/// Hands on to another engine what every engine does, and takes the defaults for the rest.
class ForwardingEngine : public EStepEngine {
public:
    explicit ForwardingEngine(std::unique_ptr<EStepEngine> engine) : engine_(std::move(engine)) {}

    using EStepEngine::begin;
    void begin(const GaussianMixture& mixture, Assignment assignment) override {
        engine_->begin(mixture, assignment);
    }
    void accumulate(const Chunk& chunk) override {
        engine_->accumulate(chunk);
    }
    SufficientStatistics finish() override {
        return engine_->finish();
    }
    GaussianMixture
    maximize(const SufficientStatistics& statistics, double reg_covar) const override {
        return engine_->maximize(statistics, reg_covar);
    }
    void top_responsibilities(const Chunk& chunk, size_t m, TopResponsibilities& out) override {
        engine_->top_responsibilities(chunk, m, out);
    }

private:
    std::unique_ptr<EStepEngine> engine_;
};

} // namespace faiss_gmm::testing
