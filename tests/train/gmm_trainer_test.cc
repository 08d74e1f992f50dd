// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The EM loop: against the fp64 oracle over several iterations, with the tolerances of the engines
// (log-likelihood 1e-6 d nats a row; N_k, centred means and variances 1e-4 relative in norm), and
// its policies one by one.
#include "faiss_gmm/train/gmm_trainer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <omp.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/unit_length.h"
#include "tests/train/engine_checks.h"
#include "tests/train/random_data.h"

namespace faiss_gmm {
namespace {

using testing::all_covariances;
using testing::draw;
using testing::name_of;
using testing::random_mixture;
using testing::relative_distance;
using testing::test_seed;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

/// body(parameters) for every covariance and mixing.
template <class Body> void for_each_setup(Body body) {
    for (const Covariance covariance : all_covariances) {
        for (const Mixing mixing : {Mixing::uniform, Mixing::free, Mixing::balanced}) {
            SCOPED_TRACE(::testing::Message() << name_of(covariance) << " " << int(mixing));
            TrainingParameters p;
            p.covariance = covariance;
            p.mixing = mixing;
            body(p);
        }
    }
}

bool is_tied(Covariance covariance) {
    return covariance == Covariance::tied_spherical || covariance == Covariance::tied;
}

/// Entry (i, j) of the covariance matrix of component k, whatever the shape.
double entry(const GaussianMixture& mixture, size_t k, size_t i, size_t j) {
    const size_t d = mixture.d;
    switch (mixture.covariance) {
    case Covariance::tied_spherical:
        return i == j ? mixture.covariances[0] : 0;
    case Covariance::spherical:
        return i == j ? mixture.covariances[k] : 0;
    case Covariance::diagonal:
        return i == j ? mixture.covariances[k * d + i] : 0;
    case Covariance::tied:
        return mixture.covariances[i * d + j];
    case Covariance::full:
        return mixture.covariances[(k * d + i) * d + j];
    }
    return 0;
}

/// Shares r [n, K], log-joint's normal form, of the rows in the components.
std::vector<double> masses(const GaussianMixture& mixture, const std::vector<float>& x) {
    const size_t K = mixture.K, n = x.size() / mixture.d;
    std::vector<double> r(n * K), N_k(K, 0.0);
    mixture.log_responsibilities(n, x.data(), r.data());
    for (size_t i = 0; i < n * K; ++i) {
        N_k[i % K] += std::exp(r[i]);
    }
    return N_k;
}

/// Variances [.., in the shape] of x around given centres with shares r [n, K], by the definition.
std::vector<double> covariances_around(
        Covariance covariance,
        size_t K,
        size_t d,
        const std::vector<float>& centres,
        const std::vector<float>& x,
        const std::vector<double>& r,
        double reg_covar) {
    const size_t n = x.size() / d;
    const bool trace =
            covariance == Covariance::tied_spherical || covariance == Covariance::spherical;
    const bool matrix = covariance == Covariance::tied || covariance == Covariance::full;
    const size_t size = GaussianMixture::covariance_size(covariance, K, d);
    const size_t block = is_tied(covariance) ? size : size / K;
    std::vector<double> sums(size, 0.0);
    for (size_t k = 0; k < K; ++k) {
        double N = 0;
        for (size_t i = 0; i < n; ++i) {
            N += r[i * K + k];
        }
        const double mass = is_tied(covariance) ? double(n) : N;
        double* out = &sums[is_tied(covariance) ? 0 : k * block];
        for (size_t i = 0; i < n; ++i) {
            for (size_t a = 0; a < d; ++a) {
                const double e_a = double(x[i * d + a]) - centres[k * d + a];
                for (size_t b = 0; b < d; ++b) {
                    const double e_b = double(x[i * d + b]) - centres[k * d + b];
                    const double product = r[i * K + k] * e_a * e_b / mass;
                    if (matrix) {
                        out[a * d + b] += product;
                    } else if (a == b) {
                        out[trace ? 0 : a] += trace ? product / d : product;
                    }
                }
            }
        }
    }
    for (size_t i = 0; i < size; ++i) {
        if (!matrix || (i / d) % d == i % d) {
            sums[i] += reg_covar;
        }
    }
    return sums;
}

std::string message_of(const TrainingParameters& p, size_t K, size_t n, size_t d, const float* x) {
    try {
        GMMTrainer(p).train(K, n, d, x);
    } catch (const Error& error) {
        const std::string what = error.what();
        EXPECT_EQ(what.find("training a mixture: given "), 0u) << what;
        EXPECT_NE(what.find("; allowed: "), std::string::npos) << what;
        EXPECT_EQ(what.back(), '.');
        return what;
    }
    return "nothing thrown";
}

void expect_contains(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks: " << part;
}

/// The bits of all that training leaves behind, but for seconds.
void expect_same_bits(const TrainingResult& a, const TrainingResult& b) {
    EXPECT_EQ(a.mixture.means, b.mixture.means);
    EXPECT_EQ(a.mixture.covariances, b.mixture.covariances);
    EXPECT_EQ(a.mixture.log_weights, b.mixture.log_weights);
    EXPECT_EQ(a.data_mean, b.data_mean);
    EXPECT_EQ(a.converged, b.converged);
    ASSERT_EQ(a.history.size(), b.history.size());
    for (size_t i = 0; i < a.history.size(); ++i) {
        EXPECT_EQ(a.history[i].mean_log_likelihood, b.history[i].mean_log_likelihood);
        EXPECT_EQ(a.history[i].smallest_N_k, b.history[i].smallest_N_k);
        EXPECT_EQ(a.history[i].imbalance, b.history[i].imbalance);
        EXPECT_EQ(a.history[i].shared_fraction, b.history[i].shared_fraction);
        EXPECT_EQ(a.history[i].reseeded, b.history[i].reseeded);
    }
}

/// Writes down what the trainer asks of an engine.
class WatchedEngine : public testing::ForwardingEngine {
public:
    struct Pass {
        GaussianMixture mixture;
        Assignment assignment;
        SufficientStatistics statistics;
    };
    std::vector<Pass> passes;

    WatchedEngine() : ForwardingEngine(make_cpu_engine()) {}

    using EStepEngine::begin;
    void begin(const GaussianMixture& mixture, Assignment assignment) override {
        passes.push_back({mixture, assignment, {}});
        ForwardingEngine::begin(mixture, assignment);
    }
    SufficientStatistics finish() override {
        passes.back().statistics = ForwardingEngine::finish();
        return passes.back().statistics;
    }
};

std::vector<float> first_rows(const std::vector<float>& x, size_t numbers) {
    return {x.begin(), x.begin() + numbers};
}

TEST(GMMTrainer, SeveralIterationsEqualTheOracle) {
    const size_t K = 5, d = 6, n = 300; // below 64 K: the Lloyd step sees every row
    const size_t iterations = 6;
    for (const Covariance covariance : all_covariances) {
        for (const Mixing mixing : {Mixing::uniform, Mixing::free}) {
            SCOPED_TRACE(::testing::Message() << name_of(covariance) << " " << int(mixing));
            const std::vector<float> x =
                    draw(random_mixture(Covariance::full, K, d, 2, 3, 101), n, 102);
            TrainingParameters p;
            p.covariance = covariance;
            p.mixing = mixing;
            p.max_iter = iterations;
            p.tol = 0;
            p.means_init = first_rows(x, K * d);
            const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());

            // What EM begins with: weights and covariances of the nearest means' rows.
            GaussianMixture oracle;
            oracle.K = K;
            oracle.d = d;
            oracle.means = p.means_init;
            oracle.log_weights.assign(K, -std::log(double(K)));
            oracle.covariances = {1.0};
            const naive::Iteration nearest = naive::iterate(oracle, n, x.data(), 0, true);
            oracle.covariance = covariance;
            oracle.mixing = mixing;
            oracle.covariances = covariances_around(
                    covariance, K, d, oracle.means, x, nearest.responsibilities, p.reg_covar);
            std::vector<double> N_k = nearest.N_k;
            ASSERT_EQ(result.history.size(), iterations);
            for (size_t iteration = 0; iteration < iterations; ++iteration) {
                for (size_t k = 0; k < K && mixing == Mixing::free; ++k) {
                    oracle.log_weights[k] = std::log(N_k[k] / n);
                }
                const naive::Iteration step = naive::iterate(oracle, n, x.data(), p.reg_covar);
                const double expected = std::accumulate(
                        step.log_likelihood.begin(), step.log_likelihood.end(), 0.0);
                const TrainingProgress& progress = result.history[iteration];
                EXPECT_NEAR(progress.mean_log_likelihood, expected / n, 1e-6 * d) << iteration;
                N_k = step.N_k;
                double squares = 0;
                for (const double N : N_k) {
                    ASSERT_GE(N, 1);
                    squares += (N / n) * (N / n);
                }
                EXPECT_NEAR(progress.imbalance, K * squares, 1e-4 * K * squares);
                const double smallest = *std::min_element(N_k.begin(), N_k.end());
                EXPECT_NEAR(progress.smallest_N_k, smallest, 1e-4 * n);
                size_t shared = 0;
                for (size_t i = 0; i < n; ++i) {
                    shared += std::count_if(
                                      &step.responsibilities[i * K],
                                      &step.responsibilities[i * K] + K,
                                      [&](double r) { return r > 1.0 / K; }) > 1;
                }
                // A row on the very border may fall on either side of it.
                EXPECT_NEAR(progress.shared_fraction, double(shared) / n, 1.01 / n);
                oracle.means.assign(step.means.begin(), step.means.end());
                oracle.covariances = step.covariances;
            }
            std::vector<double> trained_N_k(K), centre(d, 0.0);
            for (size_t i = 0; i < n * d; ++i) {
                centre[i % d] += x[i] / double(n);
            }
            std::vector<double> trained(K * d), expected(K * d);
            for (size_t i = 0; i < K * d; ++i) {
                trained[i] = result.mixture.means[i] - centre[i % d];
                expected[i] = oracle.means[i] - centre[i % d];
            }
            for (size_t j = 0; j < d; ++j) {
                EXPECT_NEAR(result.data_mean[j], centre[j], 1e-5);
            }
            EXPECT_LT(relative_distance(trained, expected), 1e-4);
            EXPECT_LT(relative_distance(result.mixture.covariances, oracle.covariances), 1e-4);
            for (size_t k = 0; k < K; ++k) {
                trained_N_k[k] = n * std::exp(result.mixture.log_weights[k]);
                N_k[k] = mixing == Mixing::free ? N_k[k] : double(n) / K;
            }
            EXPECT_LT(relative_distance(trained_N_k, N_k), 1e-4);
            EXPECT_EQ(result.mixture.covariance, covariance);
            EXPECT_EQ(result.mixture.mixing, mixing);
            EXPECT_NO_THROW(result.mixture.check());
        }
    }
}

TEST(GMMTrainer, LikelihoodNeverFalls) {
    const uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "FAISS_GMM_TEST_SEED=" << seed);
    const size_t K = 8, d = 8, n = 2000;
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const std::vector<float> x =
                draw(random_mixture(Covariance::full, K, d, 1.2, 0, seed), n, seed + 1);
        TrainingParameters p;
        p.covariance = covariance;
        p.mixing = Mixing::free;
        p.max_iter = 30;
        p.tol = 0;
        p.seed = seed + 2;
        const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());
        ASSERT_EQ(result.history.size(), 30u);
        EXPECT_EQ(result.history[0].change, 0);
        for (size_t i = 1; i < 30; ++i) {
            const TrainingProgress &now = result.history[i], &before = result.history[i - 1];
            EXPECT_DOUBLE_EQ(now.change, now.mean_log_likelihood - before.mean_log_likelihood);
            ASSERT_EQ(before.reseeded, 0u); // else a fall would be no surprise
            EXPECT_GE(now.mean_log_likelihood, before.mean_log_likelihood - 1e-6 * d) << i;
        }
        // It moves, and the mixture handed back is the one that it moved to.
        EXPECT_GT(
                result.history.back().mean_log_likelihood,
                result.history.front().mean_log_likelihood + 0.01);
        EXPECT_GE(
                result.mixture.score(n, x.data()),
                result.history.back().mean_log_likelihood - 1e-6 * d);
    }
}

TEST(GMMTrainer, RecoversAKnownMixture) {
    const size_t K = 3, d = 4, n = 6000;
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const GaussianMixture truth = random_mixture(covariance, K, d, 12, 5, 301);
        const std::vector<float> x = draw(truth, n, 302);
        TrainingParameters p;
        p.covariance = covariance;
        p.mixing = Mixing::free;
        p.max_points_per_component = 0;
        p.max_iter = 30;
        p.n_init = 12;
        const GaussianMixture found = GMMTrainer(p).train(K, n, d, x.data()).mixture;
        std::vector<bool> taken(K, false);
        for (size_t k = 0; k < K; ++k) {
            size_t nearest = 0;
            double least = inf;
            for (size_t c = 0; c < K; ++c) {
                double square = 0;
                for (size_t j = 0; j < d; ++j) {
                    const double e = double(truth.means[k * d + j]) - found.means[c * d + j];
                    square += e * e;
                }
                nearest = square < least ? c : nearest;
                least = std::min(least, square);
            }
            ASSERT_FALSE(taken[nearest]);
            taken[nearest] = true;
            // Five standard errors, as if the rows carried their labels.
            const double weight = std::exp(truth.log_weights[k]), N = n * weight;
            EXPECT_NEAR(
                    std::exp(found.log_weights[nearest]),
                    weight,
                    5 * std::sqrt(weight * (1 - weight) / n));
            for (size_t i = 0; i < d; ++i) {
                const double S_ii = entry(truth, k, i, i);
                EXPECT_NEAR(
                        found.means[nearest * d + i],
                        truth.means[k * d + i],
                        5 * std::sqrt(S_ii / N));
                for (size_t j = 0; j < d; ++j) {
                    const double S_ij = entry(truth, k, i, j), S_jj = entry(truth, k, j, j);
                    EXPECT_NEAR(
                            entry(found, nearest, i, j),
                            S_ij,
                            5 * std::sqrt((S_ii * S_jj + S_ij * S_ij) / N));
                }
            }
        }
    }
}

TEST(GMMTrainer, SameBitsForAnyNumberOfThreads) {
    const size_t K = 6, d = 16, n = 6000; // 1536 of them are used
    const int threads = omp_get_max_threads();
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const std::vector<float> x =
                draw(random_mixture(Covariance::full, K, d, 1, 0, 401), n, 402);
        TrainingParameters p;
        p.covariance = covariance;
        p.mixing = Mixing::free;
        p.n_init = 2;
        p.tol = 0;
        p.max_iter = 5;
        omp_set_num_threads(1);
        const TrainingResult alone = GMMTrainer(p).train(K, n, d, x.data());
        EXPECT_EQ(alone.history.size(), 5u);
        for (const int count : {2, 7}) {
            omp_set_num_threads(count);
            expect_same_bits(GMMTrainer(p).train(K, n, d, x.data()), alone);
        }
        omp_set_num_threads(threads);
    }
}

TEST(GMMTrainer, ShiftedDataShiftTheMeansAlone) {
    const size_t K = 4, d = 5, n = 1000;
    // Groups well apart, a start in each: where two components share a group, EM's steps amplify
    // the rounding of means without bound.
    constexpr float shift = 10000, grid = 1.0f / 1024; // both shifts are exact on this grid
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const GaussianMixture truth = random_mixture(covariance, K, d, 12, 0, 501);
        std::vector<float> x = draw(truth, n, 502);
        std::vector<float> shifted(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
            x[i] = std::round(x[i] / grid) * grid;
            shifted[i] = x[i] + shift;
            ASSERT_EQ(shifted[i] - shift, x[i]);
        }
        TrainingParameters p;
        p.covariance = covariance;
        p.mixing = Mixing::free;
        p.tol = 0;
        for (const float mean : truth.means) {
            p.means_init.push_back(std::round(mean / grid) * grid + 1);
        }
        const TrainingResult here = GMMTrainer(p).train(K, n, d, x.data());
        for (float& mean : p.means_init) {
            mean += shift;
        }
        const TrainingResult there = GMMTrainer(p).train(K, n, d, shifted.data());
        for (size_t i = 0; i < K * d; ++i) {
            // Half a unit of the last place at 1e4 is 4.9e-4.
            EXPECT_NEAR(there.mixture.means[i] - shift, here.mixture.means[i], 1e-3);
        }
        EXPECT_LT(relative_distance(there.mixture.covariances, here.mixture.covariances), 1e-4);
        for (size_t k = 0; k < K; ++k) {
            EXPECT_NEAR(there.mixture.log_weights[k], here.mixture.log_weights[k], 1e-4);
        }
        for (size_t j = 0; j < d; ++j) {
            EXPECT_NEAR(there.data_mean[j] - shift, here.data_mean[j], 1e-3);
        }
    }
}

TEST(GMMTrainer, FewerRowsThanComponentsAreRefused) {
    const std::vector<float> x(20, 1.0f);
    // The two numbers that FAISS gives in its message.
    const std::string message = message_of({}, 11, 10, 2, x.data());
    expect_contains(message, "n = 10 rows for K = 11 components");
    expect_contains(message, "n >= K");
    expect_contains(message, "give at least 11 rows or ask for at most 10 components");
    expect_contains(message_of({}, 1, 0, 2, nullptr), "n = 0 rows for K = 1 components");
    expect_contains(message_of({}, 0, 10, 2, x.data()), "K = 0 components");
    expect_contains(message_of({}, 1, 10, 0, x.data()), "d = 0");
}

TEST(GMMTrainer, BadParametersAreRefused) {
    const std::vector<float> x = draw(random_mixture(Covariance::tied, 2, 3, 3, 0, 601), 50, 602);
    const auto message = [&](auto set) {
        TrainingParameters p;
        set(p);
        return message_of(p, 2, 50, 3, x.data());
    };
    using P = TrainingParameters;
    expect_contains(message([](P& p) { p.reg_covar = -1; }), "reg_covar = -1");
    expect_contains(message([](P& p) { p.reg_covar = inf; }), "reg_covar = inf");
    expect_contains(message([](P& p) { p.reg_covar = nan; }), "reg_covar = nan");
    expect_contains(message([](P& p) { p.tol = -1; }), "tol = -1");
    expect_contains(message([](P& p) { p.tol = nan; }), "tol = nan");
    expect_contains(message([](P& p) { p.n_init = 0; }), "n_init = 0");
    expect_contains(message([](P& p) { p.keep_means = true; }), "keep_means without means_init");
    const std::string size = message([](P& p) { p.means_init.resize(5); });
    expect_contains(size, "means_init of 5 numbers");
    expect_contains(size, "K * d = 6 numbers");
    TrainingParameters p;
    p.means_init = {0, 0, 0, 1, nan, 1};
    EXPECT_THROW(GMMTrainer(p).train(2, 50, 3, x.data()), Error);
}

TEST(GMMTrainer, AsManyRowsAsComponents) {
    const size_t n = 7, d = 3;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, 1, d, 0, 2, 701), n, 702);
    for_each_setup([&](TrainingParameters p) {
        const TrainingResult result = GMMTrainer(p).train(n, n, d, x.data());
        EXPECT_NO_THROW(result.mixture.check());
        EXPECT_TRUE(std::isfinite(result.mixture.score(n, x.data())));
        if (p.covariance != Covariance::tied_spherical) {
            return;
        }
        // The Lloyd steps start with the rows as means, and there is nothing better.
        std::vector<int64_t> home(n);
        result.mixture.predict(n, x.data(), home.data());
        std::sort(home.begin(), home.end());
        for (size_t i = 0; i < n; ++i) {
            EXPECT_EQ(home[i], int64_t(i));
        }
        EXPECT_NEAR(result.mixture.covariances[0], p.reg_covar, 1e-9);
    });
}

TEST(GMMTrainer, OneComponentHasTheSampleMeanAndVariance) {
    const size_t d = 5, n = 200;
    const std::vector<float> x = draw(random_mixture(Covariance::full, 2, d, 3, 7, 801), n, 802);
    const std::vector<double> ones(n, 1.0);
    std::vector<double> mean(d, 0.0);
    for (size_t i = 0; i < n * d; ++i) {
        mean[i % d] += x[i] / double(n);
    }
    for (const Covariance covariance : all_covariances) {
        for (const size_t max_iter : {0, 3}) {
            SCOPED_TRACE(::testing::Message() << name_of(covariance) << " " << max_iter);
            TrainingParameters p;
            p.covariance = covariance;
            p.max_iter = max_iter;
            p.reg_covar = 0.01;
            const TrainingResult result = GMMTrainer(p).train(1, n, d, x.data());
            for (size_t j = 0; j < d; ++j) {
                EXPECT_NEAR(result.mixture.means[j], mean[j], 2e-6);
                EXPECT_NEAR(result.data_mean[j], mean[j], 2e-6);
            }
            const std::vector<double> expected =
                    covariances_around(covariance, 1, d, result.mixture.means, x, ones, 0.01);
            EXPECT_LT(relative_distance(result.mixture.covariances, expected), 1e-6);
            EXPECT_EQ(result.mixture.log_weights[0], 0);
        }
    }
}

TEST(GMMTrainer, OnlyDuplicates) {
    const size_t K = 3, d = 2, n = 90;
    std::vector<float> x;
    for (size_t i = 0; i < n; ++i) {
        x.push_back(1.5f);
        x.push_back(-40.25f);
    }
    for_each_setup([&](TrainingParameters p) {
        const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());
        EXPECT_NO_THROW(result.mixture.check());
        for (size_t k = 0; k < K; ++k) {
            EXPECT_NEAR(result.mixture.means[k * d], 1.5, 0.02);
            EXPECT_NEAR(result.mixture.means[k * d + 1], -40.25, 0.02);
            EXPECT_GE(entry(result.mixture, k, 0, 0), p.reg_covar);
            EXPECT_LE(entry(result.mixture, k, 0, 0), 1e-3);
        }
    });
}

TEST(GMMTrainer, ConstantDimensionsGetTheFloor) {
    const size_t K = 3, d = 4, n = 300;
    std::vector<float> x = draw(random_mixture(Covariance::diagonal, K, d, 6, 0, 901), n, 902);
    for (size_t i = 0; i < n; ++i) {
        x[i * d + 2] = 1234.5f;
    }
    for (const Covariance covariance : {Covariance::diagonal, Covariance::tied, Covariance::full}) {
        SCOPED_TRACE(name_of(covariance));
        TrainingParameters p;
        p.covariance = covariance;
        p.mixing = Mixing::free;
        const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());
        EXPECT_NO_THROW(result.mixture.check());
        EXPECT_TRUE(std::isfinite(result.mixture.score(n, x.data())));
        for (size_t k = 0; k < K; ++k) {
            EXPECT_EQ(result.mixture.means[k * d + 2], 1234.5f);
            EXPECT_NEAR(entry(result.mixture, k, 2, 2), p.reg_covar, 1e-9);
            EXPECT_GT(entry(result.mixture, k, 1, 1), 0.1);
        }
    }
}

TEST(GMMTrainer, FirstRowThatIsNotFiniteIsNamed) {
    const size_t K = 2, d = 3, n = 1000; // the Lloyd steps see 128 of them
    const std::vector<float> good =
            draw(random_mixture(Covariance::tied, K, d, 5, 0, 1001), n, 1002);
    for (const float value : {nan, inf, -inf}) {
        std::vector<float> x = good;
        for (const size_t row : {999, 700, 417}) {
            x[row * d + row % d] = value; // with those before it: only the first is named
            const std::string part = "row " + std::to_string(row) + " ";
            expect_contains(message_of({}, K, n, d, x.data()), part);
            // Sources are read as they come, a subset of them first.
            MemorySource source(n, d, x.data());
            const std::unique_ptr<EStepEngine> engine = make_cpu_engine();
            for (uint64_t seed = 0; seed < 12; ++seed) {
                TrainingParameters p;
                p.seed = seed;
                try {
                    GMMTrainer(p).train(K, source, *engine);
                    ADD_FAILURE() << "nothing thrown";
                } catch (const Error& error) {
                    expect_contains(error.what(), part);
                }
            }
        }
    }
    EXPECT_EQ(message_of({}, K, n, d, good.data()), "nothing thrown");
}

TEST(GMMTrainer, OneDimensionAndManyDimensions) {
    for (const size_t d : {size_t(1), size_t(2048)}) {
        for (const Covariance covariance : all_covariances) {
            if (d > 1 && (covariance == Covariance::tied || covariance == Covariance::full)) {
                continue; // d^3: seconds, and the engine's own test has many dimensions
            }
            SCOPED_TRACE(::testing::Message() << name_of(covariance) << " d=" << d);
            const size_t K = 2, n = 200;
            GaussianMixture truth;
            truth.K = K;
            truth.d = d;
            truth.means.assign(d, -10);
            truth.means.resize(2 * d, 10);
            truth.log_weights = {std::log(0.3), std::log(0.7)};
            truth.covariances = {4};
            std::vector<float> x(n * d);
            std::vector<int64_t> labels(n), home(n);
            truth.sample(n, 1102, x.data(), labels.data());
            TrainingParameters p;
            p.covariance = covariance;
            p.mixing = Mixing::free;
            p.n_init = 4;
            const GaussianMixture found = GMMTrainer(p).train(K, n, d, x.data()).mixture;
            found.predict(n, x.data(), home.data());
            // The same split of the rows, in either order of the components.
            const int64_t swapped = home[0] ^ labels[0];
            double N[2] = {}, square[2] = {};
            for (size_t i = 0; i < n; ++i) {
                ASSERT_EQ(home[i] ^ swapped, labels[i]) << i;
                N[home[i]] += 1;
                const double e = x[i * d] - found.means[home[i] * d];
                square[home[i]] += e * e;
            }
            for (size_t k = 0; k < K; ++k) {
                EXPECT_NEAR(std::exp(found.log_weights[k]) * n, N[k], 1e-2);
                if (covariance == Covariance::diagonal || (d == 1 && !is_tied(covariance))) {
                    EXPECT_NEAR(entry(found, k, 0, 0), square[k] / N[k], 1e-2);
                } else {
                    // 200 rows in one dimension: a tenth; far less in 2048
                    EXPECT_NEAR(entry(found, k, 0, 0), 4, d == 1 ? 2 : 0.1);
                }
            }
        }
    }
}

TEST(GMMTrainer, StopsAtTheToleranceOrAtMaxIter) {
    const size_t K = 3, d = 3, n = 600;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 3, 0, 1201), n, 1202);
    TrainingParameters p;
    p.mixing = Mixing::free;
    p.max_iter = 100;
    p.tol = 1e-3;
    const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());
    EXPECT_TRUE(result.converged);
    EXPECT_FALSE(result.stopped);
    ASSERT_GE(result.history.size(), 3u);
    ASSERT_LT(result.history.size(), 100u);
    for (size_t i = 1; i < result.history.size(); ++i) {
        // The first gain below the tolerance is the last iteration.
        EXPECT_EQ(result.history[i].change < p.tol, i + 1 == result.history.size()) << i;
    }
    p.max_iter = result.history.size() - 1;
    const TrainingResult cut = GMMTrainer(p).train(K, n, d, x.data());
    EXPECT_FALSE(cut.converged);
    EXPECT_EQ(cut.history.size(), p.max_iter);
    p.max_iter = 17;
    p.tol = 0;
    EXPECT_EQ(GMMTrainer(p).train(K, n, d, x.data()).history.size(), 17u);
    p.max_iter = 1;
    p.tol = 1e9; // one iteration has no gain to judge
    const TrainingResult one = GMMTrainer(p).train(K, n, d, x.data());
    EXPECT_FALSE(one.converged);
    EXPECT_EQ(one.history.size(), 1u);
}

TEST(GMMTrainer, WithoutIterationsTenLloydStepsOnAllRows) {
    const size_t K = 3, d = 2, n = 700; // more than 64 K
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 3, 0, 1301), n, 1302);
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        TrainingParameters p;
        p.covariance = covariance;
        p.mixing = Mixing::free;
        p.max_iter = 0;
        size_t calls = 0;
        p.progress = [&](const TrainingProgress&) { return ++calls > 0; };
        MemorySource source(n, d, x.data());
        WatchedEngine engine;
        const TrainingResult result = GMMTrainer(p).train(K, source, engine);
        ASSERT_EQ(engine.passes.size(), 10u);
        // The steps are reported like iterations.
        EXPECT_EQ(calls, 10u);
        ASSERT_EQ(result.history.size(), 10u);
        EXPECT_EQ(result.history.back().iteration, 10u);
        for (const WatchedEngine::Pass& pass : engine.passes) {
            EXPECT_EQ(pass.assignment, Assignment::hard);
            EXPECT_EQ(pass.statistics.rows, n);
        }
        // Lloyd by hand from the same start.
        std::vector<double> means(
                engine.passes[0].mixture.means.begin(), engine.passes[0].mixture.means.end());
        std::vector<double> shares;
        std::vector<double> N(K);
        for (size_t step = 0; step < 10; ++step) {
            shares.assign(n * K, 0.0);
            std::vector<double> sums(K * d, 0.0);
            N.assign(K, 0.0);
            for (size_t i = 0; i < n; ++i) {
                size_t nearest = 0;
                double least = std::numeric_limits<double>::infinity();
                for (size_t k = 0; k < K; ++k) {
                    const double e = x[i * d] - means[k * d];
                    const double f = x[i * d + 1] - means[k * d + 1];
                    if (e * e + f * f < least) {
                        least = e * e + f * f;
                        nearest = k;
                    }
                }
                shares[i * K + nearest] = 1;
                N[nearest] += 1;
                sums[nearest * d] += x[i * d];
                sums[nearest * d + 1] += x[i * d + 1];
            }
            for (size_t i = 0; i < K * d; ++i) {
                means[i] = sums[i] / N[i / d];
            }
        }
        EXPECT_LT(relative_distance(result.mixture.means, means), 1e-6);
        const std::vector<double> expected =
                covariances_around(covariance, K, d, result.mixture.means, x, shares, p.reg_covar);
        EXPECT_LT(relative_distance(result.mixture.covariances, expected), 1e-6);
        for (size_t k = 0; k < K; ++k) {
            EXPECT_NEAR(std::exp(result.mixture.log_weights[k]) * n, N[k], 1e-6);
        }
    }
}

TEST(GMMTrainer, WarmStartIsEightLloydStepsOnASubsample) {
    const size_t K = 3, d = 2, n = 700;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 3, 0, 1401), n, 1402);
    MemorySource source(n, d, x.data());
    TrainingParameters p;
    p.max_iter = 2;
    p.tol = 0;
    WatchedEngine engine;
    GMMTrainer(p).train(K, source, engine);
    ASSERT_EQ(engine.passes.size(), 10u);
    for (size_t i = 0; i < 10; ++i) {
        EXPECT_EQ(engine.passes[i].assignment, i < 8 ? Assignment::hard : Assignment::soft);
        EXPECT_EQ(engine.passes[i].statistics.rows, i < 8 ? 64 * K : n);
    }
    p.warm_start_iterations = 2;
    WatchedEngine shorter;
    GMMTrainer(p).train(K, source, shorter);
    EXPECT_EQ(shorter.passes.size(), 4u);
    p.means_init = first_rows(x, K * d); // one step, for the variances
    WatchedEngine given;
    GMMTrainer(p).train(K, source, given);
    ASSERT_EQ(given.passes.size(), 3u);
    EXPECT_EQ(given.passes[1].mixture.means, p.means_init);
}

TEST(GMMTrainer, BestOfSeveralRunsIsKept) {
    const size_t K = 6, d = 3, n = 1200;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 8, 0, 1501), n, 1502);
    TrainingParameters p;
    p.mixing = Mixing::free;
    p.tol = 0;
    p.max_iter = 10;
    std::vector<TrainingResult> single;
    size_t best = 0;
    double worst = 0;
    for (size_t run = 0; run < 5; ++run) {
        p.seed = 12 + run; // a run's random numbers come from seed + its number
        single.push_back(GMMTrainer(p).train(K, n, d, x.data()));
        const double likelihood = single[run].history.back().mean_log_likelihood;
        if (likelihood > single[best].history.back().mean_log_likelihood) {
            best = run;
        }
        worst = std::min(worst, likelihood);
    }
    // Else keeping the first, the last or the worst would do.
    ASSERT_NE(best, 0u);
    ASSERT_NE(best, 4u);
    ASSERT_GT(single[best].history.back().mean_log_likelihood, worst + 0.01);
    p.seed = 12;
    p.n_init = 5;
    std::vector<size_t> calls(5, 0);
    p.progress = [&](const TrainingProgress& progress) {
        ++calls.at(progress.run);
        return true;
    };
    const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());
    expect_same_bits(result, single[best]);
    EXPECT_EQ(calls, std::vector<size_t>(5, 10));
    EXPECT_EQ(result.history.back().run, best);
}

TEST(GMMTrainer, SeedRepeatsAndChangesTheResult) {
    const size_t K = 5, d = 4, n = 3000; // 1280 are used
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 1, 0, 1601), n, 1602);
    TrainingParameters p;
    const TrainingResult first = GMMTrainer(p).train(K, n, d, x.data());
    expect_same_bits(GMMTrainer(p).train(K, n, d, x.data()), first);
    p.seed = 1235;
    const TrainingResult other = GMMTrainer(p).train(K, n, d, x.data());
    EXPECT_NE(other.mixture.means, first.mixture.means);
    EXPECT_NE(other.data_mean, first.data_mean); // another sample, too
}

TEST(GMMTrainer, RegCovarIsAFloorOfVariances) {
    const size_t K = 4, d = 3, n = 400;
    // Rows on a plane, in clumps: variances of nothing in one direction.
    std::vector<float> x = draw(random_mixture(Covariance::spherical, K, d, 5, 0, 1701), n, 1702);
    for (size_t i = 0; i < n; ++i) {
        x[i * d + 2] = 0;
    }
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        double without = 0;
        for (const double floor : {1e-9, 0.25}) {
            TrainingParameters p;
            p.covariance = covariance;
            p.mixing = Mixing::free;
            p.reg_covar = floor;
            p.max_iter = 1;
            p.means_init = first_rows(x, K * d);
            p.keep_means = true;
            const GaussianMixture mixture = GMMTrainer(p).train(K, n, d, x.data()).mixture;
            double least = entry(mixture, 0, 2, 2);
            for (size_t k = 0; k < K; ++k) {
                for (size_t j = 0; j < d; ++j) {
                    least = std::min(least, entry(mixture, k, j, j));
                }
            }
            EXPECT_GE(least, floor);
            if (covariance != Covariance::tied_spherical && covariance != Covariance::spherical) {
                EXPECT_NEAR(least, floor, 1e-9); // what the plane has across it
            } else if (floor < 0.1) {
                without = least;
            } else {
                EXPECT_GT(least, without + 0.1);
            }
        }
    }
}

TEST(GMMTrainer, DeadComponentsAreSeededAnew) {
    const size_t K = 4, d = 3, n = 1000;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, 3, d, 4, 0, 1801), n, 1802);
    for_each_setup([&](TrainingParameters p) {
        p.max_iter = 15;
        p.tol = 0;
        p.means_init = first_rows(x, K * d);
        p.means_init[4] = 1e4f; // component 1 is far from every row
        const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());
        size_t reseeded = 0;
        for (const TrainingProgress& progress : result.history) {
            reseeded += progress.reseeded;
        }
        EXPECT_GT(reseeded, 0u);
        EXPECT_LT(result.history[0].smallest_N_k, 0.1);
        EXPECT_NO_THROW(result.mixture.check());
        for (const double N : masses(result.mixture, x)) {
            EXPECT_GT(N, 1);
        }
        EXPECT_LT(std::abs(result.mixture.means[4]), 100);
    });
}

TEST(GMMTrainer, CallbackIsToldOncePerIterationAndMayStop) {
    const size_t K = 4, d = 3, n = 800;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 2, 0, 1901), n, 1902);
    TrainingParameters p;
    p.mixing = Mixing::free;
    p.tol = 0;
    p.max_iter = 10;
    std::vector<TrainingProgress> told;
    p.progress = [&](const TrainingProgress& progress) {
        told.push_back(progress);
        return true;
    };
    const TrainingResult whole = GMMTrainer(p).train(K, n, d, x.data());
    ASSERT_EQ(told.size(), 10u);
    ASSERT_EQ(whole.history.size(), 10u);
    EXPECT_FALSE(whole.stopped);
    for (size_t i = 0; i < 10; ++i) {
        EXPECT_EQ(told[i].run, 0u);
        EXPECT_EQ(told[i].iteration, i + 1);
        EXPECT_EQ(told[i].mean_log_likelihood, whole.history[i].mean_log_likelihood);
        EXPECT_EQ(told[i].reseeded, 0u);
        EXPECT_GE(told[i].seconds, 0);
    }
    // Stopped after three iterations: the parameters of three iterations.
    told.clear();
    p.n_init = 3;
    p.progress = [&](const TrainingProgress& progress) {
        told.push_back(progress);
        return told.size() < 3;
    };
    const TrainingResult stopped = GMMTrainer(p).train(K, n, d, x.data());
    EXPECT_EQ(told.size(), 3u); // no further run
    EXPECT_TRUE(stopped.stopped);
    EXPECT_FALSE(stopped.converged);
    EXPECT_EQ(stopped.history.size(), 3u);
    p.progress = nullptr;
    p.n_init = 1;
    p.max_iter = 3;
    expect_same_bits(stopped, GMMTrainer(p).train(K, n, d, x.data()));
    // Also between the Lloyd steps that stand for training without EM.
    for (const Covariance covariance : all_covariances) {
        p.covariance = covariance;
        p.max_iter = 0;
        p.progress = [](const TrainingProgress& progress) { return progress.iteration < 2; };
        const TrainingResult lloyd = GMMTrainer(p).train(K, n, d, x.data());
        EXPECT_TRUE(lloyd.stopped);
        EXPECT_EQ(lloyd.history.size(), 2u);
        EXPECT_EQ(lloyd.mixture.covariance, covariance);
        EXPECT_NO_THROW(lloyd.mixture.check());
    }
}

TEST(GMMTrainer, InterruptsWithinEachPassOrNever) {
    // Rows of host memory in four pieces: three calls within each pass.
    constexpr size_t K = 3, d = 2, n = 3 * 65536 + 7;
    const auto truth = random_mixture(Covariance::tied_spherical, K, d, 1, 0.3, 5);
    const std::vector<float> x = draw(truth, n, 6);
    TrainingParameters p;
    p.max_points_per_component = 0;
    p.warm_start_iterations = 1;
    p.max_iter = 3;
    p.tol = 0;
    const TrainingResult expected = GMMTrainer(p).train(K, n, d, x.data());
    size_t calls = 0, iterations = 0;
    p.interrupt = [&] { ++calls; };
    p.progress = [&](const TrainingProgress& progress) {
        iterations = progress.iteration;
        EXPECT_EQ(calls, 3 * iterations); // the first step sees 64 rows a component
        return true;
    };
    EXPECT_EQ(GMMTrainer(p).train(K, n, d, x.data()).mixture.means, expected.mixture.means);
    EXPECT_EQ(calls, 9u);

    struct GivenUp {};
    MemorySource source(n, d, x.data());
    const auto engine = make_cpu_engine();
    for (const size_t call : {1, 3, 5}) {
        calls = iterations = 0;
        p.interrupt = [&] {
            if (++calls == call) {
                throw GivenUp();
            }
        };
        p.progress = [&](const TrainingProgress&) { return ++iterations > 0; };
        EXPECT_THROW(GMMTrainer(p).train(K, source, *engine), GivenUp);
        EXPECT_EQ(calls, call);
        EXPECT_EQ(iterations, (call - 1) / 3) << "within an iteration";
    }
    // The engine begins anew.
    p.interrupt = nullptr;
    EXPECT_EQ(GMMTrainer(p).train(K, source, *engine).mixture.means, expected.mixture.means);
}

TEST(GMMTrainer, AtMost256RowsAComponentUnlessTold) {
    const size_t d = 2, n = 5000;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, 2, d, 2, 0, 2001), n, 2002);
    TrainingParameters p;
    p.max_iter = 2;
    p.min_points_per_component = 100000; // the warning tells the size of the sample
    std::string warning;
    p.warning = [&](const std::string& text) { warning = text; };
    const auto mass = [&] {
        return GMMTrainer(p).train(1, n, d, x.data()).history[0].smallest_N_k;
    };
    EXPECT_EQ(mass(), 256); // with one component, its mass is the sample
    GMMTrainer(p).train(7, n, d, x.data());
    expect_contains(warning, "clustering 1792 points to 7 centroids");
    GMMTrainer(p).train(19, n, d, x.data());
    expect_contains(warning, "clustering 4864 points to 19 centroids");
    GMMTrainer(p).train(20, n, d, x.data()); // 5120 would do
    expect_contains(warning, "clustering 5000 points to 20 centroids");
    p.max_points_per_component = 100;
    EXPECT_EQ(mass(), 100);
    p.max_points_per_component = 0;
    EXPECT_EQ(mass(), 5000);
    // A source's rows are the caller's choice: all are used.
    p.max_points_per_component = 256;
    MemorySource source(n, d, x.data());
    WatchedEngine engine;
    GMMTrainer(p).train(1, source, engine);
    EXPECT_EQ(engine.passes.back().statistics.rows, n);
}

TEST(GMMTrainer, SampleIsSpreadOverAllRows) {
    // Rows 0 .. n - 1 in one dimension: a uniform sample of 256 has mean (n - 1) / 2 within five
    // standard errors of n / sqrt(12 * 256).
    const size_t n = 10000;
    std::vector<float> x(n);
    std::iota(x.begin(), x.end(), 0.0f);
    const TrainingResult result = GMMTrainer({}).train(1, n, 1, x.data());
    EXPECT_NEAR(result.data_mean[0], (n - 1) / 2.0, 5 * n / std::sqrt(12.0 * 256));
    // Variance of a uniform distribution; its estimate's relative error is sqrt(0.8 / 256).
    EXPECT_NEAR(result.mixture.covariances[0] / (double(n) * n / 12), 1, 5 * std::sqrt(0.8 / 256));
}

TEST(GMMTrainer, WarnsOfFewPointsInTheWordsOfFaiss) {
    const std::vector<float> x =
            draw(random_mixture(Covariance::tied, 2, 2, 2, 0, 2101), 200, 2102);
    TrainingParameters p;
    std::vector<std::string> warnings;
    p.warning = [&](const std::string& text) { warnings.push_back(text); };
    ::testing::internal::CaptureStderr();
    ::testing::internal::CaptureStdout();
    GMMTrainer(p).train(3, 116, 2, x.data());
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_EQ(
            warnings[0],
            "WARNING clustering 116 points to 3 centroids: please provide at least 117 training "
            "points");
    GMMTrainer(p).train(3, 117, 2, x.data());
    EXPECT_EQ(warnings.size(), 1u); // enough
    p.min_points_per_component = 10;
    GMMTrainer(p).train(3, 30, 2, x.data());
    EXPECT_EQ(warnings.size(), 1u);
    p.n_init = 3;
    GMMTrainer(p).train(3, 29, 2, x.data());
    EXPECT_EQ(warnings.size(), 2u); // once, not once a run
    p.warning = nullptr;
    GMMTrainer(p).train(3, 29, 2, x.data());
    EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(GMMTrainer, BalancedMixingEvensOutSkewedData) {
    // Half of the rows in one dense clump, the rest wide around it.
    const size_t K = 16, d = 4, n = 3000;
    GaussianMixture skewed;
    skewed.K = 2;
    skewed.d = d;
    skewed.covariance = Covariance::spherical;
    skewed.means.assign(2 * d, 0);
    skewed.log_weights = {std::log(0.5), std::log(0.5)};
    skewed.covariances = {0.01, 4};
    const std::vector<float> x = draw(skewed, n, 2202);
    TrainingParameters p;
    p.max_iter = 20;
    p.tol = 0;
    const auto imbalance = [&](Mixing mixing) {
        p.mixing = mixing;
        const TrainingResult result = GMMTrainer(p).train(K, n, d, x.data());
        EXPECT_NO_THROW(result.mixture.check());
        double squares = 0;
        for (const double N : masses(result.mixture, x)) {
            squares += (N / n) * (N / n);
        }
        return K * squares;
    };
    const double uniform = imbalance(Mixing::uniform), balanced = imbalance(Mixing::balanced);
    EXPECT_GT(uniform, 1.2);
    EXPECT_LT(balanced, 1 + (uniform - 1) / 2);
}

TEST(GMMTrainer, UniformMixingKeepsEvenWeights) {
    const std::vector<float> x =
            draw(random_mixture(Covariance::tied, 3, 2, 4, 0, 2301), 400, 2302);
    TrainingParameters p;
    for (const double log_weight : GMMTrainer(p).train(3, 400, 2, x.data()).mixture.log_weights) {
        EXPECT_DOUBLE_EQ(log_weight, -std::log(3.0));
    }
}

TEST(GMMTrainer, ParametersStayWithTheEngineWherePolicyLeavesThemAlone) {
    class CountingEngine : public WatchedEngine {
    public:
        size_t advances = 0, fetches = 0;
        PassSummary advance(double reg_covar) override {
            ++advances;
            return WatchedEngine::advance(reg_covar);
        }
        GaussianMixture mixture() override {
            ++fetches;
            return WatchedEngine::mixture();
        }
    };
    const size_t K = 4, d = 3, n = 400;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 4, 0, 2701), n, 2702);
    for_each_setup([&](TrainingParameters p) {
        p.max_iter = 5;
        p.tol = 0;
        for (const bool unit_means : {false, true}) {
            p.unit_means = unit_means;
            MemorySource source(n, d, x.data());
            CountingEngine engine;
            const TrainingResult result = GMMTrainer(p).train(K, source, engine);
            ASSERT_EQ(result.history.size(), 5u);
            const bool stay = p.mixing != Mixing::balanced && !unit_means;
            EXPECT_EQ(engine.advances, stay ? 4u : 0u); // the first pass tells of the data's mean
            EXPECT_EQ(engine.fetches, stay ? 1u : 0u);
            WatchedEngine::Pass& last = engine.passes.back();
            if (stay) {
                const auto again = make_cpu_engine();
                again->begin(last.mixture, last.assignment);
                const GaussianMixture expected = again->maximize(last.statistics, p.reg_covar);
                EXPECT_EQ(result.mixture.means, expected.means);
                EXPECT_EQ(result.mixture.covariances, expected.covariances);
                EXPECT_EQ(result.mixture.log_weights, expected.log_weights);
            }
        }
    });
}

TEST(GMMTrainer, UnitMeansHaveLengthOneAndVariancesAroundThem) {
    const size_t K = 5, d = 4, n = 600;
    const std::vector<float> x = draw(random_mixture(Covariance::tied, K, d, 3, 1, 2401), n, 2402);
    for (const Covariance covariance : all_covariances) {
        for (const size_t max_iter : {0, 5}) {
            SCOPED_TRACE(::testing::Message() << name_of(covariance) << " " << max_iter);
            TrainingParameters p;
            p.covariance = covariance;
            p.mixing = Mixing::free;
            p.unit_means = true;
            p.max_iter = max_iter;
            const GaussianMixture mixture = GMMTrainer(p).train(K, n, d, x.data()).mixture;
            EXPECT_NO_THROW(mixture.check());
            for (size_t k = 0; k < K; ++k) {
                double square = 0;
                for (size_t j = 0; j < d; ++j) {
                    square += double(mixture.means[k * d + j]) * mixture.means[k * d + j];
                }
                EXPECT_NEAR(std::sqrt(square), 1, 1e-6);
            }
            const GaussianMixture one = GMMTrainer(p).train(1, 256, d, x.data()).mixture;
            std::vector<float> rows = first_rows(x, 256 * d);
            to_unit_length(256, d, rows.data(), rows.data());
            const std::vector<double> expected = covariances_around(
                    covariance, 1, d, one.means, rows, std::vector<double>(256, 1), p.reg_covar);
            EXPECT_LT(relative_distance(one.covariances, expected), 1e-5);
        }
    }
}

/// Lengths from 1/100 to 10,000; one row of zeros.
std::vector<float> of_any_length(std::vector<float> x, size_t d) {
    for (size_t i = 0; i < x.size(); ++i) {
        x[i] *= i / d == 7 ? 0
                           : static_cast<float>(
                                     std::pow(10.0, static_cast<double>(i / d % 13) / 2 - 2));
    }
    return x;
}

// Around means of length 1 long rows are all equally far away: taken as they are, they would make one
// of all means.
TEST(GMMTrainer, UnitMeansAreOfDirectionsWhateverTheLengths) {
    const size_t K = 8, d = 6, n = 2000;
    std::vector<float> unit = draw(random_mixture(Covariance::tied, K, d, 3, 1, 2411), n, 2412);
    to_unit_length(n, d, unit.data(), unit.data());
    const std::vector<float> x = of_any_length(unit, d);
    std::fill_n(unit.begin() + 7 * d, d, 0.0f);
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        TrainingParameters p;
        p.covariance = covariance;
        p.mixing = Mixing::free;
        p.unit_means = true;
        p.tol = 0;
        p.means_init = std::vector<float>(unit.begin() + 8 * d, unit.begin() + (8 + K) * d);
        const GaussianMixture expected = GMMTrainer(p).train(K, n, d, unit.data()).mixture;
        const GaussianMixture mixture = GMMTrainer(p).train(K, n, d, x.data()).mixture;
        EXPECT_LT(relative_distance(mixture.means, expected.means), 1e-4);
        EXPECT_LT(relative_distance(mixture.covariances, expected.covariances), 1e-4);
        EXPECT_LT(relative_distance(mixture.log_weights, expected.log_weights), 1e-4);
    }
}

TEST(GMMTrainer, UnitMeansOfLloydStepsAreStocksAndTheirCovariancesThoseOfDirections) {
    const size_t K = 8, d = 6, n = 2000;
    std::vector<float> x =
            of_any_length(draw(random_mixture(Covariance::tied, K, d, 3, 1, 2421), n, 2422), d);
    std::copy_n(x.begin() + 8 * d, d, x.begin() + 7 * d); // zeros are as far from all means
    std::vector<float> unit = x;
    to_unit_length(n, d, unit.data(), unit.data());
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        TrainingParameters p;
        p.covariance = covariance;
        p.unit_means = true;
        p.max_iter = 0;
        const GaussianMixture mixture = GMMTrainer(p).train(K, n, d, x.data()).mixture;
        // Ten steps settle this: one more moves nothing far.
        std::vector<double> sum(K * d), home_of(n * K);
        for (size_t i = 0; i < n; ++i) {
            size_t best = 0;
            double largest = -1e300;
            for (size_t k = 0; k < K; ++k) {
                double product = 0;
                for (size_t j = 0; j < d; ++j) {
                    product += double(x[i * d + j]) * mixture.means[k * d + j];
                }
                if (product > largest) {
                    largest = product;
                    best = k;
                }
            }
            home_of[i * K + best] = 1;
            for (size_t j = 0; j < d; ++j) {
                sum[best * d + j] += x[i * d + j];
            }
        }
        std::vector<float> means(sum.begin(), sum.end());
        to_unit_length(K, d, means.data(), means.data());
        EXPECT_LT(relative_distance(mixture.means, means), 0.05);
        const std::vector<double> expected =
                covariances_around(covariance, K, d, mixture.means, unit, home_of, p.reg_covar);
        EXPECT_LT(relative_distance(mixture.covariances, expected), 1e-4);
    }
}

TEST(GMMTrainer, KeptMeansStayBitForBit) {
    const size_t K = 4, d = 3, n = 250; // below 64 K
    const GaussianMixture truth = random_mixture(Covariance::full, K, d, 4, 0, 2501);
    const std::vector<float> x = draw(truth, n, 2502);
    for (const Covariance covariance : all_covariances) {
        for (const size_t max_iter : {0, 1, 6}) {
            SCOPED_TRACE(::testing::Message() << name_of(covariance) << " " << max_iter);
            TrainingParameters p;
            p.covariance = covariance;
            p.mixing = Mixing::free;
            p.max_iter = max_iter;
            p.tol = 0;
            p.keep_means = true;
            p.means_init = truth.means;
            for (float& value : p.means_init) {
                value += 0.3f; // not where EM would have them
            }
            MemorySource source(n, d, x.data());
            WatchedEngine engine;
            const GaussianMixture mixture = GMMTrainer(p).train(K, source, engine).mixture;
            EXPECT_EQ(mixture.means, p.means_init);
            for (const double N : engine.passes.back().statistics.N_k) {
                ASSERT_GE(N, 2); // each has a variance of its own
            }
            // Weights and variances are those of the last pass, around the means that were kept.
            const WatchedEngine::Pass& last = engine.passes.back();
            const naive::Iteration step = naive::iterate(
                    last.mixture, n, x.data(), 0, last.assignment == Assignment::hard);
            EXPECT_LT(
                    relative_distance(
                            mixture.covariances,
                            covariances_around(
                                    covariance,
                                    K,
                                    d,
                                    p.means_init,
                                    x,
                                    step.responsibilities,
                                    p.reg_covar)),
                    1e-4);
            for (size_t k = 0; k < K; ++k) {
                EXPECT_NEAR(std::exp(mixture.log_weights[k]) * n, step.N_k[k], 1e-4 * n);
            }
        }
    }
}

} // namespace
} // namespace faiss_gmm
