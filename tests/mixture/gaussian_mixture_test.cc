// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Density, responsibilities, criteria and sampling against formulas written out here, by Gaussian
// elimination where the library uses Cholesky's factors.
#include "faiss_gmm/mixture/gaussian_mixture.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "faiss_gmm/mixture/cholesky.h"
#include "faiss_gmm/mixture/error.h"
#include "tests/train/random_data.h"

namespace faiss_gmm {
namespace {

using testing::all_covariances;
using testing::draw;
using testing::name_of;
using testing::random_mixture;
using testing::test_seed;

constexpr double pi = 3.14159265358979323846;

/// Covariance matrix [d, d] of component k, whatever the shape.
std::vector<double> matrix_of(const GaussianMixture& mixture, size_t k) {
    const size_t d = mixture.d;
    const std::vector<double>& c = mixture.covariances;
    std::vector<double> matrix(d * d, 0.0);
    for (size_t i = 0; i < d; ++i) {
        switch (mixture.covariance) {
        case Covariance::tied_spherical:
            matrix[i * d + i] = c[0];
            break;
        case Covariance::spherical:
            matrix[i * d + i] = c[k];
            break;
        case Covariance::diagonal:
            matrix[i * d + i] = c[k * d + i];
            break;
        case Covariance::tied:
            std::copy_n(&c[i * d], d, &matrix[i * d]);
            break;
        case Covariance::full:
            std::copy_n(&c[(k * d + i) * d], d, &matrix[i * d]);
            break;
        }
    }
    return matrix;
}

/// log N(x | mean, S): S z = x - mean by elimination, whose pivots multiply to |S|.
double log_normal(size_t d, const float* x, const float* mean, std::vector<double> S) {
    std::vector<double> z(d);
    for (size_t i = 0; i < d; ++i) {
        z[i] = double(x[i]) - double(mean[i]);
    }
    const std::vector<double> e = z;
    double log_det = 0;
    for (size_t p = 0; p < d; ++p) {
        log_det += std::log(S[p * d + p]);
        for (size_t i = p + 1; i < d; ++i) {
            const double factor = S[i * d + p] / S[p * d + p];
            for (size_t j = p; j < d; ++j) {
                S[i * d + j] -= factor * S[p * d + j];
            }
            z[i] -= factor * z[p];
        }
    }
    double quadratic = 0;
    for (size_t i = d; i-- > 0;) {
        for (size_t j = i + 1; j < d; ++j) {
            z[i] -= S[i * d + j] * z[j];
        }
        z[i] /= S[i * d + i];
        quadratic += e[i] * z[i];
    }
    return -0.5 * (double(d) * std::log(2 * pi) + log_det + quadratic);
}

TEST(GaussianMixture, DensityFollowsTheFormulaForEveryShape) {
    const uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "FAISS_GMM_TEST_SEED=" << seed);
    for (const Covariance covariance : all_covariances) {
        for (const size_t d : {1, 2, 5}) {
            for (const size_t K : {1, 4}) {
                SCOPED_TRACE(
                        ::testing::Message() << name_of(covariance) << " d=" << d << " K=" << K);
                const GaussianMixture mixture = random_mixture(covariance, K, d, 1.5, 3, seed + d);
                const size_t n = 40;
                const std::vector<float> x = draw(mixture, n, seed + 1);
                std::vector<double> joint(n * K), log_r(n * K), scores(n);
                std::vector<int64_t> best(n);
                mixture.log_joint(n, x.data(), joint.data());
                mixture.log_responsibilities(n, x.data(), log_r.data());
                mixture.score_samples(n, x.data(), scores.data());
                mixture.predict(n, x.data(), best.data());
                double total = 0;
                for (size_t i = 0; i < n; ++i) {
                    std::vector<double> p(K);
                    double density = 0;
                    for (size_t k = 0; k < K; ++k) {
                        const double expected =
                                mixture.log_weights[k] +
                                log_normal(
                                        d, &x[i * d], &mixture.means[k * d], matrix_of(mixture, k));
                        EXPECT_NEAR(joint[i * K + k], expected, 1e-9 * (1 + std::abs(expected)));
                        p[k] = std::exp(expected);
                        density += p[k];
                    }
                    double sum = 0;
                    for (size_t k = 0; k < K; ++k) {
                        EXPECT_NEAR(std::exp(log_r[i * K + k]), p[k] / density, 1e-9);
                        sum += std::exp(log_r[i * K + k]);
                    }
                    EXPECT_NEAR(sum, 1, 1e-12);
                    EXPECT_NEAR(scores[i], std::log(density), 1e-8);
                    EXPECT_EQ(best[i], std::max_element(p.begin(), p.end()) - p.begin());
                    total += std::log(density);
                }
                EXPECT_NEAR(mixture.score(n, x.data()), total / n, 1e-8);
            }
        }
    }
}

/// Two components in one dimension, every number known by heart.
GaussianMixture by_hand() {
    GaussianMixture mixture;
    mixture.d = 1;
    mixture.K = 2;
    mixture.covariance = Covariance::spherical;
    mixture.mixing = Mixing::free;
    mixture.means = {0, 2};
    mixture.log_weights = {std::log(0.25), std::log(0.75)};
    mixture.covariances = {1, 4};
    return mixture;
}

TEST(GaussianMixture, NumbersByHand) {
    const GaussianMixture mixture = by_hand();
    const float x[] = {0};
    double joint[2];
    mixture.log_joint(1, x, joint);
    // 0.25 * 0.3989422804 and 0.75 * 0.1994711402 * exp(-1/2)
    EXPECT_NEAR(std::exp(joint[0]), 0.0997355701, 1e-10);
    EXPECT_NEAR(std::exp(joint[1]), 0.0907390217, 1e-10);
    EXPECT_NEAR(mixture.score(1, x), std::log(0.1904745918), 1e-8);
}

TEST(GaussianMixture, FarRowsKeepFiniteScoresAndResponsibilities) {
    // exp(joint) is zero in double precision: only a sum in logarithms survives.
    GaussianMixture mixture = by_hand();
    mixture.covariances = {1, 1};
    const float x[] = {1e4f};
    double log_r[2], score;
    mixture.log_responsibilities(1, x, log_r);
    mixture.score_samples(1, x, &score);
    const double nearer = std::log(0.75) - 0.5 * (std::log(2 * pi) + 9998.0 * 9998.0);
    EXPECT_NEAR(score, nearer, 1e-6);
    EXPECT_NEAR(log_r[1], 0, 1e-9);
    EXPECT_NEAR(log_r[0], std::log(0.25 / 0.75) - 0.5 * (1e8 - 9998.0 * 9998.0), 1e-6);
}

TEST(GaussianMixture, ShiftOfRowsAndMeansChangesNothing) {
    GaussianMixture mixture = by_hand();
    const float x[] = {0.5f, 3.25f};
    double here[4], there[4];
    mixture.log_joint(2, x, here);
    mixture.means = {1048576, 1048578};
    const float shifted[] = {1048576.5f, 1048579.25f}; // exact in fp32
    mixture.log_joint(2, shifted, there);
    for (size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(here[i], there[i]);
    }
}

TEST(GaussianMixture, EqualComponentsGoToTheLowerOneAndHalfEach) {
    GaussianMixture mixture = by_hand();
    mixture.means = {1, 1};
    mixture.covariances = {2, 2};
    mixture.log_weights = {std::log(0.5), std::log(0.5)};
    const float x[] = {-3, 1, 7};
    int64_t best[3];
    double log_r[6];
    mixture.predict(3, x, best);
    mixture.log_responsibilities(3, x, log_r);
    for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(best[i], 0);
        EXPECT_NEAR(log_r[2 * i], std::log(0.5), 1e-12);
        EXPECT_NEAR(log_r[2 * i + 1], std::log(0.5), 1e-12);
    }
}

TEST(GaussianMixture, AWeightOfZeroGetsNothing) {
    GaussianMixture mixture = by_hand();
    mixture.log_weights = {-std::numeric_limits<double>::infinity(), 0};
    const float x[] = {0}; // right at the mean of the component without weight
    int64_t best;
    double log_r[2];
    mixture.predict(1, x, &best);
    mixture.log_responsibilities(1, x, log_r);
    EXPECT_EQ(best, 1);
    EXPECT_EQ(std::exp(log_r[0]), 0);
    EXPECT_NEAR(log_r[1], 0, 1e-12);
    std::vector<float> drawn(1000);
    std::vector<int64_t> labels(1000);
    mixture.sample(1000, 5, drawn.data(), labels.data());
    EXPECT_EQ(std::count(labels.begin(), labels.end(), 1), 1000);
}

TEST(GaussianMixture, ParameterCountsAsInScikitLearn) {
    GaussianMixture mixture;
    mixture.K = 3;
    mixture.d = 4;
    const size_t expected[] = {15, 17, 26, 24, 44}; // 12 means, 2 weights and 1, 3, 12, 10, 30
    for (size_t i = 0; i < 5; ++i) {
        mixture.covariance = all_covariances[i];
        mixture.mixing = Mixing::free;
        EXPECT_EQ(mixture.parameter_count(), expected[i]) << name_of(mixture.covariance);
        mixture.mixing = Mixing::balanced;
        EXPECT_EQ(mixture.parameter_count(), expected[i]) << name_of(mixture.covariance);
        mixture.mixing = Mixing::uniform;
        EXPECT_EQ(mixture.parameter_count(), expected[i] - 2) << name_of(mixture.covariance);
    }
    const size_t sizes[] = {1, 3, 12, 16, 48};
    for (size_t i = 0; i < 5; ++i) {
        EXPECT_EQ(GaussianMixture::covariance_size(all_covariances[i], 3, 4), sizes[i]);
    }
}

TEST(GaussianMixture, CriteriaByHand) {
    GaussianMixture mixture;
    mixture.d = mixture.K = 1;
    mixture.means = {0};
    mixture.log_weights = {0};
    mixture.covariances = {1};
    const float x[] = {0, 1, 2};
    // Log-likelihood -3 * 0.9189385332 - 2.5; two parameters.
    EXPECT_NEAR(mixture.score(3, x), -5.2568155996 / 3, 1e-9);
    EXPECT_NEAR(mixture.aic(3, x), 14.5136311992, 1e-9);
    EXPECT_NEAR(mixture.bic(3, x), 12.7108557766, 1e-9);
    EXPECT_THROW(mixture.score(0, x), Error);
    EXPECT_THROW(mixture.aic(0, x), Error);
    EXPECT_THROW(mixture.bic(0, x), Error);
}

TEST(GaussianMixture, ManyComponentsAreScoredPieceByPiece) {
    // 2^20 / K rows a piece: three pieces, the last one short.
    const size_t K = 1 << 14, n = 150;
    GaussianMixture mixture;
    mixture.K = K;
    mixture.d = 1;
    mixture.log_weights.assign(K, -std::log(double(K)));
    mixture.covariances = {0.01};
    for (size_t k = 0; k < K; ++k) {
        mixture.means.push_back(static_cast<float>(k));
    }
    std::vector<float> x(n);
    for (size_t i = 0; i < n; ++i) {
        x[i] = static_cast<float>(100 * i) + 0.25f;
    }
    std::vector<int64_t> best(n);
    std::vector<double> scores(n);
    mixture.predict(n, x.data(), best.data());
    mixture.score_samples(n, x.data(), scores.data());
    const double expected = -std::log(double(K)) - 0.5 * (std::log(2 * pi * 0.01) + 0.0625 / 0.01) +
                            std::log1p(std::exp(-0.5 * (0.5625 - 0.0625) / 0.01));
    for (size_t i = 0; i < n; ++i) {
        EXPECT_EQ(best[i], int64_t(100 * i));
        EXPECT_NEAR(scores[i], expected, 1e-9) << i;
    }
}

TEST(GaussianMixture, SampleHasTheMomentsOfItsComponents) {
    const size_t n = 60000, K = 3, d = 3;
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const GaussianMixture mixture = random_mixture(covariance, K, d, 4, 1, 11);
        std::vector<float> x(n * d);
        std::vector<int64_t> labels(n);
        mixture.sample(n, 12, x.data(), labels.data());
        for (size_t k = 0; k < K; ++k) {
            std::vector<double> mean(d, 0.0), second(d * d, 0.0);
            double count = 0;
            for (size_t i = 0; i < n; ++i) {
                for (size_t a = 0; labels[i] == int64_t(k) && a < d; ++a) {
                    const double e = x[i * d + a] - mixture.means[k * d + a];
                    mean[a] += e;
                    for (size_t b = 0; b < d; ++b) {
                        second[a * d + b] += e * (x[i * d + b] - mixture.means[k * d + b]);
                    }
                }
                count += labels[i] == int64_t(k);
            }
            // Five standard errors of a proportion, a mean and a product of two normals.
            const double p = std::exp(mixture.log_weights[k]);
            EXPECT_NEAR(count / n, p, 5 * std::sqrt(p * (1 - p) / n));
            const std::vector<double> S = matrix_of(mixture, k);
            for (size_t a = 0; a < d; ++a) {
                const double S_aa = S[a * d + a];
                EXPECT_NEAR(mean[a] / count, 0, 5 * std::sqrt(S_aa / count));
                for (size_t b = 0; b < d; ++b) {
                    const double S_bb = S[b * d + b], S_ab = S[a * d + b];
                    EXPECT_NEAR(
                            second[a * d + b] / count,
                            S_ab,
                            5 * std::sqrt((S_aa * S_bb + S_ab * S_ab) / count));
                }
            }
        }
    }
}

TEST(GaussianMixture, SampleDependsOnItsSeedAlone) {
    const GaussianMixture mixture = random_mixture(Covariance::full, 3, 4, 4, 0, 21);
    const std::vector<float> first = draw(mixture, 50, 1);
    std::vector<float> second(first.size());
    std::vector<int64_t> labels(50, -1);
    mixture.sample(50, 1, second.data(), labels.data());
    EXPECT_EQ(first, second); // with labels or without
    EXPECT_NE(first, draw(mixture, 50, 2));
    EXPECT_TRUE(
            std::all_of(labels.begin(), labels.end(), [](int64_t k) { return k >= 0 && k < 3; }));
}

std::string refusal(const GaussianMixture& mixture) {
    try {
        mixture.check();
    } catch (const Error& error) {
        return error.what();
    }
    return "nothing thrown";
}

void expect_refused(
        const char* part,
        Covariance covariance,
        const std::function<void(GaussianMixture&)>& spoil) {
    SCOPED_TRACE(part);
    GaussianMixture mixture = random_mixture(covariance, 2, 3, 4, 0, 31);
    ASSERT_NO_THROW(mixture.check());
    spoil(mixture);
    const std::string message = refusal(mixture);
    const size_t given = message.find("checking a Gaussian mixture: given ");
    const size_t allowed = message.find("; allowed: ");
    ASSERT_EQ(given, 0u) << message;
    ASSERT_NE(allowed, std::string::npos) << message;
    EXPECT_LT(message.find(part), allowed) << message; // among what was given
    EXPECT_NE(message.find("; ", allowed + 1), std::string::npos) << message;
    EXPECT_EQ(message.back(), '.');
    // Nothing is computed with it either.
    const float x[12] = {};
    double out[8];
    int64_t best[4];
    float drawn[12];
    EXPECT_THROW(mixture.log_joint(1, x, out), Error);
    EXPECT_THROW(mixture.score_samples(1, x, out), Error);
    EXPECT_THROW(mixture.predict(1, x, best), Error);
    EXPECT_THROW(mixture.sample(1, 1, drawn), Error);
}

TEST(GaussianMixture, CheckRefusesEachBadField) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float inf = std::numeric_limits<float>::infinity();
    using M = GaussianMixture;
    const Covariance diagonal = Covariance::diagonal;
    expect_refused("K = 0, d = 3", diagonal, [](M& m) { m.K = 0; });
    expect_refused("K = 2, d = 0", diagonal, [](M& m) { m.d = 0; });
    expect_refused("5 numbers of means", diagonal, [](M& m) { m.means.pop_back(); });
    expect_refused("3 weights", diagonal, [](M& m) { m.log_weights.push_back(0); });
    expect_refused("7 covariances", diagonal, [](M& m) { m.covariances.push_back(1); });
    expect_refused("6 covariances", diagonal, [](M& m) { m.covariance = Covariance::tied; });
    expect_refused("the mean of component 1 is nan", diagonal, [](M& m) { m.means[3] = nan; });
    expect_refused("the mean of component 0 is -inf", diagonal, [](M& m) { m.means[2] = -inf; });
    expect_refused(
            "the covariance of component 1 is inf", diagonal, [](M& m) { m.covariances[5] = inf; });
    expect_refused("the covariance of component 1 is nan", Covariance::spherical, [](M& m) {
        m.covariances[1] = nan;
    });
    expect_refused("the covariance of component 1 is nan", Covariance::full, [](M& m) {
        m.covariances[9] = nan;
    });
    // One covariance for all has no component to name.
    expect_refused("the covariance of all components is nan", Covariance::tied, [](M& m) {
        m.covariances[8] = nan;
    });
    expect_refused("the covariance of all components is inf", Covariance::tied_spherical, [](M& m) {
        m.covariances[0] = inf;
    });
    expect_refused("log-weight nan of component 1", diagonal, [](M& m) { m.log_weights[1] = nan; });
    expect_refused("log-weight 0.5 of component 0", diagonal, [](M& m) { m.log_weights[0] = 0.5; });
    expect_refused("weights that sum to 0.75", diagonal, [](M& m) {
        m.log_weights = {std::log(0.5), std::log(0.25)};
    });
    for (const Covariance shape :
         {Covariance::tied_spherical, Covariance::spherical, Covariance::diagonal}) {
        expect_refused("variance 0 at position 0", shape, [](M& m) { m.covariances[0] = 0; });
        expect_refused("variance -1 at position", shape, [](M& m) { m.covariances.back() = -1; });
    }
    expect_refused("covariance matrix 0 is not", Covariance::tied, [](M& m) {
        m.covariances = {1, 2, 0, 2, 1, 0, 0, 0, 1}; // eigenvalues 3, 1 and -1
    });
    expect_refused("covariance matrix 1 is not", Covariance::full, [](M& m) {
        std::fill_n(m.covariances.begin() + 9, 9, 1.0); // of rank one
    });
}

TEST(Cholesky, FactorsAKnownMatrix) {
    double a[] = {4, 99, 99, 2, 10, 99, -2, 5, 14}; // L: 2 | 1 3 | -1 2 3
    ASSERT_TRUE(cholesky(3, a));
    const double expected[] = {2, 99, 99, 1, 3, 99, -1, 2, 3};
    for (size_t i = 0; i < 9; ++i) {
        EXPECT_NEAR(a[i], expected[i], 1e-14) << i;
    }
    EXPECT_NEAR(log_determinant(3, a), std::log(324.0), 1e-13);
    double inverse[9];
    invert_lower(3, a, inverse);
    const double inverted[] = {0.5, 0, 0, -1.0 / 6, 1.0 / 3, 0, 5.0 / 18, -2.0 / 9, 1.0 / 3};
    for (size_t i = 0; i < 9; ++i) {
        EXPECT_NEAR(inverse[i], inverted[i], 1e-14) << i;
    }
}

TEST(Cholesky, FactorsMultiplyBackToTheMatrix) {
    const size_t d = 13; // longer than the unrolled part, and not a multiple of it
    const std::vector<double> S = random_mixture(Covariance::full, 1, d, 1, 0, 41).covariances;
    std::vector<double> lower = S, inverse(d * d);
    ASSERT_TRUE(cholesky(d, lower.data()));
    invert_lower(d, lower.data(), inverse.data());
    for (size_t i = 0; i < d; ++i) {
        for (size_t j = 0; j <= i; ++j) {
            double product = 0, unit = 0;
            for (size_t l = 0; l <= j; ++l) {
                product += lower[i * d + l] * lower[j * d + l];
            }
            for (size_t l = j; l <= i; ++l) {
                unit += lower[i * d + l] * inverse[l * d + j];
            }
            EXPECT_NEAR(product, S[i * d + j], 1e-12);
            EXPECT_NEAR(unit, double(i == j), 1e-12);
        }
    }
}

TEST(Cholesky, RefusesWhatIsNotPositiveDefinite) {
    double indefinite[] = {1, 2, 2, 1};
    double zero[] = {0};
    double not_a_number[] = {std::numeric_limits<double>::quiet_NaN()};
    EXPECT_FALSE(cholesky(2, indefinite));
    EXPECT_FALSE(cholesky(1, zero));
    EXPECT_FALSE(cholesky(1, not_a_number));
}

} // namespace
} // namespace faiss_gmm
