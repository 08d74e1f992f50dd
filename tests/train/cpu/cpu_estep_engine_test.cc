// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The CPU engine against the fp64 oracle, within the tolerances that any engine must keep:
// log-likelihood 1e-6 d nats a row; N_k, centred means and variances 1e-4 relative in norm;
// responsibilities 1e-4 absolute.
#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>
#include <omp.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/estep_engine.h"
#include "tests/train/engine_checks.h"
#include "tests/train/random_data.h"

namespace faiss_gmm {
namespace {

using testing::all_covariances;
using testing::chunk_of;
using testing::draw;
using testing::name_of;
using testing::pass;
using testing::random_mixture;
using testing::relative_distance;
using testing::test_seed;

void expect_like_oracle(
        const GaussianMixture& mixture,
        const std::vector<float>& x,
        double offset,
        Assignment assignment = Assignment::soft) {
    testing::Budget budget(1e-6);
    testing::expect_like_oracle(*make_cpu_engine(), mixture, x, offset, budget, assignment);
}

TEST(CpuEStepEngine, AgreesWithTheOracleOnEveryShape) {
    const struct {
        size_t n, K, d;
        double spread;
    } cases[] = {
            {700, 1, 3, 1.0},
            {700, 5, 1, 3.0},
            {900, 7, 2, 2.0},
            {1500, 33, 8, 1.5},
            {1000, 20, 24, 0.4},
            {600, 70, 17, 1.0},
            {300, 5, 64, 3.0}};
    for (const Covariance covariance : all_covariances) {
        for (const auto& c : cases) {
            SCOPED_TRACE(name_of(covariance));
            SCOPED_TRACE(::testing::Message() << "n " << c.n << " K " << c.K << " d " << c.d);
            const auto truth = random_mixture(covariance, c.K, c.d, c.spread, 0, 1);
            const auto x = draw(truth, c.n, 2);
            // Away from the truth, as in the middle of training.
            auto start = random_mixture(covariance, c.K, c.d, c.spread, 0, 3);
            expect_like_oracle(truth, x, 0);
            expect_like_oracle(start, x, 0);
            expect_like_oracle(start, x, 0, Assignment::hard);
        }
    }
}

TEST(CpuEStepEngine, AgreesWithTheOracleFarFromZero) {
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const auto truth = random_mixture(covariance, 12, 10, 1.0, 1e4, 4);
        expect_like_oracle(truth, draw(truth, 800, 5), 1e4);
    }
}

TEST(CpuEStepEngine, AgreesWithTheOracleInManyTilesAndDimensions) {
    // More components than a tile of scores, a number that is no multiple of any vector.
    const auto many = random_mixture(Covariance::tied_spherical, 2311, 5, 3.0, 0, 6);
    expect_like_oracle(many, draw(many, 400, 7), 0);
    const auto spherical = random_mixture(Covariance::spherical, 1100, 6, 3.0, 0, 6);
    expect_like_oracle(spherical, draw(spherical, 300, 7), 0);
    const auto wide = random_mixture(Covariance::tied_spherical, 9, 2048, 0.1, 0, 8);
    expect_like_oracle(wide, draw(wide, 300, 9), 0);
    const auto diagonal = random_mixture(Covariance::diagonal, 9, 2048, 0.1, 0, 8);
    expect_like_oracle(diagonal, draw(diagonal, 300, 9), 0);
}

TEST(CpuEStepEngine, NearTiesAreDecidedExactly) {
    // Pairs of means a hair apart, in a place where fp32 products are off by more than that hair.
    auto mixture = random_mixture(Covariance::tied_spherical, 40, 64, 30.0, 0, 10);
    for (size_t k = 0; k < 40; k += 2) {
        for (size_t j = 0; j < 64; ++j) {
            mixture.means[(k + 1) * 64 + j] = std::nextafter(mixture.means[k * 64 + j], 1e9f);
        }
    }
    mixture.covariances[0] = 1e-3;
    expect_like_oracle(mixture, draw(mixture, 1000, 11), 0);
}

TEST(CpuEStepEngine, TwoGroupsAHundredSigmaApart) {
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        auto mixture = random_mixture(covariance, 16, 12, 0.7, 0, 12);
        for (size_t i = 0; i < 8 * 12; ++i) {
            mixture.means[i] += 100;
        }
        expect_like_oracle(mixture, draw(mixture, 900, 13), 0);
    }
}

TEST(CpuEStepEngine, OutliersAndExtremeScalesStayFinite) {
    for (const Covariance covariance : all_covariances) {
        for (const double scale : {1e6, 1e15, 1e18}) {
            SCOPED_TRACE(name_of(covariance));
            const auto mixture = random_mixture(covariance, 6, 5, 1.0, 0, 14);
            auto x = draw(mixture, 400, 15);
            x[7 * 5 + 2] = static_cast<float>(scale);
            const auto engine = make_cpu_engine();
            const auto after = engine->maximize(pass(*engine, mixture, x), 1e-6);
            for (const double value : after.covariances) {
                EXPECT_TRUE(std::isfinite(value));
            }
            if (scale == 1e6) {
                expect_like_oracle(mixture, x, 0);
            }
        }
    }
}

TEST(CpuEStepEngine, WeightsOfZeroGetNothing) {
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        auto mixture = random_mixture(covariance, 5, 4, 2.0, 0, 16);
        const double lost = std::exp(mixture.log_weights[2]);
        mixture.log_weights[2] = -std::numeric_limits<double>::infinity();
        for (double& value : mixture.log_weights) {
            value -= std::log1p(-lost);
        }
        const auto x = draw(mixture, 500, 17);
        const auto engine = make_cpu_engine();
        const SufficientStatistics statistics = pass(*engine, mixture, x);
        EXPECT_EQ(statistics.N_k[2], 0);
        TopResponsibilities top;
        engine->top_responsibilities(chunk_of(x, 4, 0, 500), 5, top);
        for (size_t i = 0; i < 500; ++i) {
            EXPECT_EQ(top.component[i * 5 + 4], 2);
        }
    }
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

TEST(CpuEStepEngine, SameBitsForAnyThreadsAndChunks) {
    const int before = omp_get_max_threads();
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const bool matrix = covariance == Covariance::tied || covariance == Covariance::full;
        const size_t n = matrix ? 2000 : 12000;
        const auto mixture = random_mixture(covariance, matrix ? 20 : 90, 12, 0.8, 0, 18);
        const auto x = draw(mixture, n, 19);
        const auto engine = make_cpu_engine();
        omp_set_num_threads(1);
        const SufficientStatistics first = pass(*engine, mixture, x);
        for (const int threads : {1, 2, 7}) {
            for (const size_t piece : {n, size_t{1000}, size_t{777}}) {
                SCOPED_TRACE(::testing::Message() << threads << " threads, chunks of " << piece);
                omp_set_num_threads(threads);
                const SufficientStatistics other =
                        pass(*engine, mixture, x, Assignment::soft, piece);
                EXPECT_EQ(first.sum_log_likelihood, other.sum_log_likelihood);
                EXPECT_EQ(first.shared_rows, other.shared_rows);
                EXPECT_TRUE(same_bits(first.N_k, other.N_k));
                EXPECT_TRUE(same_bits(first.first_moment, other.first_moment));
                EXPECT_TRUE(same_bits(first.second_moment, other.second_moment));
            }
        }
    }
    omp_set_num_threads(before);
}

TEST(CpuEStepEngine, ResponsibilitiesOfARowSumToOne) {
    const uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "FAISS_GMM_TEST_SEED=" << seed);
    Random random(seed);
    for (int round = 0; round < 20; ++round) {
        const size_t K = 1 + random.below(150), d = 1 + random.below(40);
        const size_t n = 1 + random.below(600);
        const Covariance covariance = all_covariances[random.below(3)];
        const auto mixture =
                random_mixture(covariance, K, d, 2 * random.uniform(), 0, random.below(1000));
        const auto x = draw(mixture, n, random.below(1000));
        const auto engine = make_cpu_engine();
        const SufficientStatistics statistics = pass(*engine, mixture, x);
        double total = 0;
        for (const double N : statistics.N_k) {
            EXPECT_GE(N, 0);
            total += N;
        }
        EXPECT_NEAR(total, n, 1e-9 * n);
        TopResponsibilities top;
        engine->top_responsibilities(chunk_of(x, d, 0, n), K, top);
        for (size_t i = 0; i < n; ++i) {
            double sum = 0;
            std::vector<bool> seen(K);
            for (size_t c = 0; c < K; ++c) {
                sum += std::exp(top.log_responsibility[i * K + c]);
                EXPECT_FALSE(seen[top.component[i * K + c]]);
                seen[top.component[i * K + c]] = true;
            }
            EXPECT_NEAR(sum, 1, 1e-5);
        }
    }
}

TEST(CpuEStepEngine, VanishingVarianceIsKMeans) {
    auto mixture = random_mixture(Covariance::tied_spherical, 30, 6, 1.0, 0, 20);
    std::fill(mixture.log_weights.begin(), mixture.log_weights.end(), -std::log(30.0));
    const auto x = draw(mixture, 2000, 21);
    mixture.covariances[0] = 1e-9;
    const auto engine = make_cpu_engine();
    const SufficientStatistics soft = pass(*engine, mixture, x);
    const SufficientStatistics hard = pass(*engine, mixture, x, Assignment::hard);
    EXPECT_TRUE(same_bits(soft.N_k, hard.N_k));
    EXPECT_TRUE(same_bits(soft.second_moment, hard.second_moment));
}

TEST(CpuEStepEngine, NamesTheFirstRowThatIsNotFinite) {
    const auto mixture = random_mixture(Covariance::tied_spherical, 5, 4, 2.0, 0, 22);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(),
          std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
        auto x = draw(mixture, 5000, 23);
        x[4321 * 4 + 3] = bad;
        x[4800 * 4] = bad;
        const auto engine = make_cpu_engine();
        try {
            pass(*engine, mixture, x, Assignment::soft, 1000);
            FAIL() << "expected an error";
        } catch (const Error& error) {
            EXPECT_NE(std::string(error.what()).find("row 4321 "), std::string::npos)
                    << error.what();
        }
        TopResponsibilities top;
        EXPECT_THROW(engine->top_responsibilities(chunk_of(x, 4, 0, 5000), 2, top), Error);
    }
}

TEST(CpuEStepEngine, RowsOfBytesAreTheirValues) {
    const size_t n = 20000, d = 6;
    std::vector<uint8_t> bytes(n * d);
    for (size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
    }
    const std::vector<float> x(bytes.begin(), bytes.end());
    auto mixture = random_mixture(Covariance::diagonal, 12, d, 60, 128, 25);
    for (double& variance : mixture.covariances) {
        variance *= 2000;
    }
    const auto engine = make_cpu_engine();
    const SufficientStatistics expected = pass(*engine, mixture, x);
    MemorySource source(n, d, bytes.data(), RowElement::u8);
    engine->begin(mixture);
    engine->accumulate(source.read(0, 7000));
    engine->accumulate(source.read(7000, n - 7000));
    const SufficientStatistics typed = engine->finish();
    EXPECT_EQ(typed.N_k, expected.N_k);
    EXPECT_EQ(typed.first_moment, expected.first_moment);
    EXPECT_EQ(typed.second_moment, expected.second_moment);
    EXPECT_EQ(typed.sum_log_likelihood, expected.sum_log_likelihood);
}

TEST(CpuEStepEngine, RefusesWhatItCannotRead) {
    const auto engine = make_cpu_engine();
    EXPECT_THROW(engine->accumulate(Chunk()), Error);
    const auto mixture = random_mixture(Covariance::tied_spherical, 5, 4, 2.0, 0, 24);
    engine->begin(mixture);
    Chunk chunk;
    chunk.memory = Chunk::Memory::device;
    EXPECT_THROW(engine->accumulate(chunk), Error);
    engine->accumulate(Chunk()); // no rows
    EXPECT_EQ(engine->finish().rows, 0u);
}

} // namespace
} // namespace faiss_gmm
