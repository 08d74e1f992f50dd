// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The CUDA engine against the fp64 oracle, within the tolerances that any engine must keep
// (tests/train/cpu/cpu_estep_engine_test.cc), and its tiers and paths against each other.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/cuda_estep_engine.h"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/plan.h"
#include "faiss_gmm/train/gmm_trainer.h"
#include "tests/train/engine_checks.h"
#include "tests/train/random_data.h"

namespace faiss_gmm {
namespace {

using cuda::CollectPath;
using testing::all_covariances;
using testing::Budget;
using testing::chunk_of;
using testing::draw;
using testing::expect_like_oracle;
using testing::expect_same_bits;
using testing::ForwardingEngine;
using testing::name_of;
using testing::of_living;
using testing::pass;
using testing::random_mixture;
using testing::relative_distance;
using testing::test_seed;

/// Those whose rows may take any tier; `full` knows the exact one alone.
constexpr Covariance forms[] = {
        Covariance::tied_spherical, Covariance::spherical, Covariance::diagonal, Covariance::tied};

bool has_matrices(Covariance covariance) {
    return covariance == Covariance::tied || covariance == Covariance::full;
}

/// Distances from fp32 sums; prints how much of each tolerance is used at most.
struct PrintedBudget : Budget {
    PrintedBudget() : Budget(2e-6) {}
    ~PrintedBudget() {
        print();
    }
};

/// Rows on the device, `shift` floats behind an aligned address.
class DeviceRows {
public:
    explicit DeviceRows(const std::vector<float>& x, size_t shift = 0) : shift_(shift) {
        void* memory = nullptr;
        EXPECT_EQ(cudaMalloc(&memory, (x.size() + shift) * sizeof(float)), cudaSuccess);
        data_ = static_cast<float*>(memory);
        EXPECT_EQ(
                cudaMemcpy(data_ + shift, x.data(), x.size() * sizeof(float), cudaMemcpyDefault),
                cudaSuccess);
    }
    ~DeviceRows() {
        cudaFree(data_);
    }
    Chunk chunk(size_t d, size_t first, size_t n, bool last) const {
        Chunk chunk;
        chunk.x = data_ + shift_ + first * d;
        chunk.n = n;
        chunk.first = first;
        chunk.memory = Chunk::Memory::device;
        chunk.last = last;
        return chunk;
    }

private:
    float* data_ = nullptr;
    size_t shift_;
};

/// Every tier and path on the device of the test.
struct Variant {
    const char* name;
    CudaOptions options;
};

std::vector<Variant> variants() {
    std::vector<Variant> all(5);
    for (Variant& variant : all) {
        // A component of a tenth of a row is made of shares below the default's 1e-5.
        variant.options.pair_threshold = 1e-8;
    }
    all[0].name = "plain";
    all[0].options.path = CudaPath::plain;
    all[1].name = "portable";
    all[1].options.path = CudaPath::portable;
    all[2].name = "best path";
    all[3].name = "exact tier";
    all[3].options.tier = CudaTier::exact;
    all[4].name = "dense tier";
    all[4].options.tier = CudaTier::dense;
    return all;
}

class CudaEStepEngineTest : public ::testing::Test {
protected:
    void SetUp() override {
        const std::string obstacle = cuda_obstacle();
        if (!obstacle.empty()) {
            GTEST_SKIP() << "no usable GPU: " << obstacle;
        }
    }
};

/// Of the forms that know more than one tier, and of all of them.
class CudaEStepEngineForms : public CudaEStepEngineTest,
                             public ::testing::WithParamInterface<Covariance> {};
class CudaEStepEngineAllForms : public CudaEStepEngineForms {};

std::string name_of_form(const ::testing::TestParamInfo<Covariance>& info) {
    return name_of(info.param);
}

INSTANTIATE_TEST_SUITE_P(All, CudaEStepEngineForms, ::testing::ValuesIn(forms), name_of_form);
INSTANTIATE_TEST_SUITE_P(
        All, CudaEStepEngineAllForms, ::testing::ValuesIn(all_covariances), name_of_form);

TEST(CudaPathTest, HopperIsRefusedOnOtherGpus) {
    using cuda::path_on;
    EXPECT_EQ(path_on(CollectPath::hopper, 9), CollectPath::hopper);
    EXPECT_EQ(path_on(std::nullopt, 9), CollectPath::hopper);
    for (const int major : {8, 10, 12}) {
        EXPECT_EQ(path_on(std::nullopt, major), CollectPath::portable);
        EXPECT_EQ(path_on(CollectPath::portable, major), CollectPath::portable);
        EXPECT_EQ(path_on(CollectPath::plain, major), CollectPath::plain);
    }
    try {
        path_on(CollectPath::hopper, 8);
        FAIL() << "kernels that an 8.x cannot launch";
    } catch (const Error& error) {
        const std::string said = error.what();
        for (const char* part :
             {"choosing the CUDA engine's path",
              "hopper, on a GPU of compute capability 8",
              "portable or plain on others",
              "unset FAISS_GMM_CUDA_PATH"}) {
            EXPECT_NE(said.find(part), std::string::npos) << said;
        }
    }
}

TEST(CudaObstacleTest, SaysWhatWasFound) {
    using cuda::DeviceAnswer;
    using cuda::obstacle_of;
    EXPECT_EQ(obstacle_of({cudaSuccess, 0, 2, 8, 0}, 1), "");
    const struct {
        DeviceAnswer answer;
        int device;
        const char* said;
    } cases[] = {
            {{cudaErrorInsufficientDriver, 0, 0, 0, 0}, 0, "no NVIDIA driver (CUDA driver version"},
            {{cudaErrorInsufficientDriver, 12040, 0, 0, 0}, 0, "a driver for CUDA 12.4 (CUDA dri"},
            {{cudaErrorNoDevice, 13000, 0, 0, 0}, 0, "a driver for CUDA 13.0 (no CUDA-capable dev"},
            {{cudaSuccess, 0, 2, 0, 0}, 2, "device 2 of 2 devices"},
            {{cudaSuccess, 0, 1, 0, 0}, 5, "device 5 of 1 device"},
            {{cudaSuccess, 0, 2, 0, 0}, -1, "device -1 of 2 devices"},
            {{cudaSuccess, 0, 1, 7, 5}, 0, "device 0 of compute capability 7.5"}};
    for (const auto& c : cases) {
        EXPECT_EQ(obstacle_of(c.answer, c.device).rfind(c.said, 0), 0) << c.said;
    }
    const std::string gpu = cuda::needed_for({cudaErrorNoDevice, 13000, 0, 0, 0}, 0);
    EXPECT_EQ(gpu.rfind("a GPU of compute capability 8.0 or later and a driver for CUDA 1", 0), 0);
    EXPECT_EQ(cuda::needed_for({cudaSuccess, 0, 1, 7, 5}, 0), gpu);
    EXPECT_EQ(cuda::needed_for({cudaSuccess, 0, 2, 0, 0}, 2), "device=0 to 1");
    EXPECT_EQ(cuda::needed_for({cudaSuccess, 0, 1, 0, 0}, 5), "device=0");
}

TEST(CudaObstacleTest, RefusesInFourParts) {
    CudaOptions options;
    options.device = 12345;
    const std::string obstacle = cuda_obstacle(options.device); // there is no such device anywhere
    ASSERT_FALSE(obstacle.empty());
    try {
        make_cuda_engine(options);
        FAIL() << "an engine without a device";
    } catch (const Error& error) {
        const std::string said = error.what();
        for (const std::string& part :
             {std::string("starting the CUDA engine"),
              obstacle,
              cuda_requirements(options.device),
              std::string("look at nvidia-smi, or choose engine=cpu")}) {
            EXPECT_NE(said.find(part), std::string::npos) << said;
        }
    }
}

TEST_F(CudaEStepEngineTest, AgreesWithTheOracleOnEveryShape) {
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
            {300, 5, 64, 3.0},
            {1200, 129, 130, 0.5},
            {500, 40, 300, 0.4},
            {400, 17, 520, 0.3},
            {300, 9, 130, 0.5},
            {200, 6, 200, 0.5}};
    for (const Variant& variant : variants()) {
        const auto engine = make_cuda_engine(variant.options);
        for (const Covariance covariance : all_covariances) {
            std::printf("  %s, %s\n", variant.name, name_of(covariance));
            PrintedBudget budget;
            for (const auto& c : cases) {
                if (has_matrices(covariance) && c.n * c.K * c.d * c.d > 100000000) {
                    continue; // the oracle would take its time
                }
                SCOPED_TRACE(variant.name);
                SCOPED_TRACE(name_of(covariance));
                SCOPED_TRACE(::testing::Message() << "n " << c.n << " K " << c.K << " d " << c.d);
                const auto truth = random_mixture(covariance, c.K, c.d, c.spread, 0, 1);
                const auto x = draw(truth, c.n, 2);
                const auto start = random_mixture(covariance, c.K, c.d, c.spread, 0, 3);
                expect_like_oracle(*engine, truth, x, 0, budget);
                expect_like_oracle(*engine, start, x, 0, budget);
                expect_like_oracle(*engine, start, x, 0, budget, Assignment::hard);
            }
        }
    }
}

TEST_F(CudaEStepEngineTest, AgreesWithTheOracleFarFromZero) {
    for (const Variant& variant : variants()) {
        const auto engine = make_cuda_engine(variant.options);
        PrintedBudget budget;
        for (const Covariance covariance : all_covariances) {
            SCOPED_TRACE(variant.name);
            SCOPED_TRACE(name_of(covariance));
            const auto truth = random_mixture(covariance, 12, 10, 1.0, 1e4, 4);
            expect_like_oracle(*engine, truth, draw(truth, 800, 5), 1e4, budget);
        }
    }
}

TEST_F(CudaEStepEngineTest, AgreesWithTheOracleInManyTilesAndDimensions) {
    for (const Variant& variant : variants()) {
        SCOPED_TRACE(variant.name);
        const auto engine = make_cuda_engine(variant.options);
        PrintedBudget budget;
        const auto many = random_mixture(Covariance::tied_spherical, 2311, 5, 3.0, 0, 6);
        expect_like_oracle(*engine, many, draw(many, 400, 7), 0, budget);
        const auto spherical = random_mixture(Covariance::spherical, 1100, 6, 3.0, 0, 6);
        expect_like_oracle(*engine, spherical, draw(spherical, 300, 7), 0, budget);
        const auto wide = random_mixture(Covariance::tied_spherical, 9, 2048, 0.1, 0, 8);
        expect_like_oracle(*engine, wide, draw(wide, 300, 9), 0, budget);
        const auto diagonal = random_mixture(Covariance::diagonal, 9, 2047, 0.1, 0, 8);
        expect_like_oracle(*engine, diagonal, draw(diagonal, 300, 9), 0, budget);
        for (const Covariance covariance : all_covariances) {
            SCOPED_TRACE(name_of(covariance));
            const auto most = random_mixture(covariance, 65536, 4, 30.0, 0, 6);
            expect_like_oracle(*engine, most, draw(most, 300, 7), 0, budget);
        }
        const auto widest = random_mixture(Covariance::spherical, 9, 2048, 0.1, 0, 8);
        expect_like_oracle(*engine, widest, draw(widest, 300, 9), 0, budget);
    }
}

TEST_F(CudaEStepEngineTest, MatricesOfManyDimensions) {
    const auto engine = make_cuda_engine();
    PrintedBudget budget;
    for (const Covariance covariance : {Covariance::tied, Covariance::full}) {
        SCOPED_TRACE(name_of(covariance));
        const auto mixture = random_mixture(covariance, 2, 1030, 0.1, 0, 8);
        expect_like_oracle(*engine, mixture, draw(mixture, 1300, 9), 0, budget);
    }
}

/// As many as there may be, where the oracle would take minutes: rows on the axes, whose scores and sums are known.
TEST_F(CudaEStepEngineTest, MatricesOfMostDimensions) {
    const size_t d = 2048, n = 2 * d;
    constexpr float length = 45; // about sqrt d
    std::vector<float> x(n * d, 0.0f);
    for (size_t i = 0; i < n; ++i) {
        x[i * d + i / 2] = i % 2 == 0 ? length : -length;
    }
    for (const Covariance covariance : {Covariance::tied, Covariance::full}) {
        SCOPED_TRACE(name_of(covariance));
        GaussianMixture mixture;
        mixture.K = 1;
        mixture.d = d;
        mixture.covariance = covariance;
        mixture.means.assign(d, 0.0f);
        mixture.log_weights = {0.0};
        // S = I + u u^T / 2, u_j = +-1 / sqrt d: |S| = 1.5, S^-1 = I - u u^T / 3.
        mixture.covariances.assign(d * d, 0.0);
        const auto sign = [](size_t j) { return j % 3 == 0 ? -1.0 : 1.0; };
        for (size_t j = 0; j < d; ++j) {
            for (size_t l = 0; l < d; ++l) {
                mixture.covariances[j * d + l] = (j == l) + 0.5 / d * sign(j) * sign(l);
            }
        }
        const auto engine = make_cuda_engine();
        const SufficientStatistics statistics = pass(*engine, mixture, x);
        const double square = length * length * (1 - 1.0 / (3 * d));
        const double expected =
                -0.5 * (d * std::log(2 * M_PI) + std::log(1.5) + square); // of every row
        EXPECT_NEAR(statistics.sum_log_likelihood / n, expected, 1e-6 * d);
        EXPECT_NEAR(statistics.N_k[0], n, 1e-9 * n);
        const GaussianMixture after = engine->maximize(statistics, 1e-6);
        std::vector<double> scatter(d * d, 0.0);
        for (size_t j = 0; j < d; ++j) {
            scatter[j * d + j] = 2 * length * length / n + 1e-6;
        }
        EXPECT_LT(relative_distance(after.covariances, scatter), 1e-5);
        for (const float mean : after.means) {
            EXPECT_NEAR(mean, 0, 1e-6);
        }
    }
}

TEST_F(CudaEStepEngineTest, NearTiesAreDecidedExactly) {
    for (const Covariance covariance : {Covariance::tied_spherical, Covariance::tied}) {
        auto mixture = random_mixture(covariance, 40, 64, 30.0, 0, 10);
        for (size_t k = 0; k < 40; k += 2) {
            for (size_t j = 0; j < 64; ++j) {
                mixture.means[(k + 1) * 64 + j] = std::nextafter(mixture.means[k * 64 + j], 1e9f);
            }
        }
        for (double& value : mixture.covariances) {
            value *= 1e-3;
        }
        const auto x = draw(mixture, covariance == Covariance::tied ? 300 : 1000, 11);
        for (const Variant& variant : variants()) {
            SCOPED_TRACE(variant.name);
            SCOPED_TRACE(name_of(covariance));
            const auto engine = make_cuda_engine(variant.options);
            PrintedBudget budget;
            expect_like_oracle(*engine, mixture, x, 0, budget);
            expect_like_oracle(*engine, mixture, x, 0, budget, Assignment::hard);
        }
    }
}

TEST_F(CudaEStepEngineTest, TwoGroupsAHundredSigmaApart) {
    for (const Variant& variant : variants()) {
        const auto engine = make_cuda_engine(variant.options);
        for (const Covariance covariance : all_covariances) {
            SCOPED_TRACE(variant.name);
            SCOPED_TRACE(name_of(covariance));
            PrintedBudget budget;
            auto mixture = random_mixture(covariance, 16, 12, 0.7, 0, 12);
            for (size_t i = 0; i < 8 * 12; ++i) {
                mixture.means[i] += 100;
            }
            expect_like_oracle(*engine, mixture, draw(mixture, 900, 13), 0, budget);
        }
    }
}

TEST_F(CudaEStepEngineTest, OneComponentWithATinyVariance) {
    for (const Variant& variant : variants()) {
        const auto engine = make_cuda_engine(variant.options);
        for (const Covariance covariance :
             {Covariance::spherical, Covariance::diagonal, Covariance::full}) {
            SCOPED_TRACE(variant.name);
            SCOPED_TRACE(name_of(covariance));
            PrintedBudget budget;
            auto mixture = random_mixture(covariance, 30, 9, 1.0, 0, 12);
            const size_t part = mixture.covariances.size() / 30;
            for (size_t j = 0; j < part; ++j) {
                mixture.covariances[7 * part + j] *= 1e-8;
            }
            expect_like_oracle(*engine, mixture, draw(mixture, 2000, 13), 0, budget);
        }
    }
}

TEST_F(CudaEStepEngineTest, OutliersAndExtremeScalesStayFinite) {
    for (const Variant& variant : variants()) {
        const auto engine = make_cuda_engine(variant.options);
        for (const Covariance covariance : all_covariances) {
            // Whitened rows are good to 2^-48: 1e6 deviations would cost 1e-2 nats.
            const double measured = has_matrices(covariance) ? 1e5 : 1e6;
            for (const size_t K : {1, 6, 40}) {
                for (const double scale : {measured, 1e15, 1e18, 1e25}) {
                    SCOPED_TRACE(variant.name);
                    SCOPED_TRACE(name_of(covariance));
                    SCOPED_TRACE(::testing::Message() << "K " << K << " scale " << scale);
                    const auto mixture = random_mixture(covariance, K, 5, 1.0, 0, 14);
                    auto x = draw(mixture, 400, 15);
                    x[7 * 5 + 2] = static_cast<float>(scale);
                    const auto after = engine->maximize(pass(*engine, mixture, x), 1e-6);
                    for (const double value : after.covariances) {
                        EXPECT_TRUE(std::isfinite(value));
                    }
                    if (scale == measured) {
                        PrintedBudget budget;
                        expect_like_oracle(*engine, mixture, x, 0, budget);
                    }
                }
            }
        }
    }
}

TEST_F(CudaEStepEngineTest, WeightsOfZeroGetNothing) {
    for (const Variant& variant : variants()) {
        const auto engine = make_cuda_engine(variant.options);
        for (const Covariance covariance : all_covariances) {
            SCOPED_TRACE(variant.name);
            SCOPED_TRACE(name_of(covariance));
            // Of 130 and 260 dimensions: rows that come 128 columns at a time.
            for (const size_t d : {4, 130, 260}) {
                SCOPED_TRACE(d);
                auto mixture = random_mixture(covariance, 5, d, 2.0, 0, 16);
                const double lost = std::exp(mixture.log_weights[2]);
                mixture.log_weights[2] = -std::numeric_limits<double>::infinity();
                for (double& value : mixture.log_weights) {
                    value -= std::log1p(-lost);
                }
                const auto x = draw(mixture, 500, 17);
                const SufficientStatistics statistics = pass(*engine, mixture, x);
                EXPECT_EQ(statistics.N_k[2], 0);
                TopResponsibilities top;
                engine->top_responsibilities(chunk_of(x, d, 0, 500), 5, top);
                for (size_t i = 0; i < 500; ++i) {
                    EXPECT_EQ(top.component[i * 5 + 4], 2);
                }
            }
        }
    }
}

TEST_P(CudaEStepEngineAllForms, SameBitsForAnyChunksMemoryAndResidence) {
    const Covariance covariance = GetParam();
    // A share of the spread at which about a third of the components matter to a row: then some rows have
    // too many candidates and some do not; at a quarter of it all have.
    for (const double share : {0.25, 1.0}) {
        SCOPED_TRACE(name_of(covariance));
        // d = 12, 140: blocks of 262,144 rows; d = 1030: of 65,536.
        for (const size_t d : {12, 140, 1030}) {
            const Covariance only = d == 140 ? Covariance::tied : Covariance::tied_spherical;
            if (d != 12 && (share < 1 || covariance != only)) {
                continue;
            }
            const size_t n = d == 12 ? 700001 : d == 140 ? 300001 : 70001;
            const double spread = (covariance == Covariance::tied ? 3.3 : 4.5) / std::sqrt(d);
            const auto mixture = random_mixture(covariance, 90, d, share * spread, 0, 18);
            const auto x = draw(mixture, n, 19);
            const auto engine = make_cuda_engine();
            const SufficientStatistics first = pass(*engine, mixture, x);
            const size_t left = engine->counts().dense_rows + engine->counts().exact_rows;
            std::printf(
                    "  %s, d %zu: %zu pairs, %zu rows without a list\n",
                    name_of(covariance),
                    d,
                    engine->counts().pairs,
                    left);
            if (covariance != Covariance::full) {
                EXPECT_GT(left, n / 100);
            }
            if (covariance != Covariance::full && share == 1) {
                EXPECT_LT(left, n - n / 100);
                EXPECT_GT(engine->counts().pairs, n / 100);
            }
            for (const size_t piece : {size_t{100000}, size_t{77777}}) {
                SCOPED_TRACE(::testing::Message() << "chunks of " << piece);
                expect_same_bits(first, pass(*engine, mixture, x, Assignment::soft, piece));
            }
            CudaOptions little;
            little.gpu_memory = size_t{1} << 20; // one block at a time
            const auto small = make_cuda_engine(little);
            expect_same_bits(first, pass(*small, mixture, x));
            const DeviceRows rows(x, 1);
            engine->begin(mixture);
            engine->accumulate(rows.chunk(d, 0, n, true));
            expect_same_bits(first, engine->finish());
            engine->begin(mixture);
            engine->accumulate(rows.chunk(d, 0, 1234, false));
            engine->accumulate(rows.chunk(d, 1234, n - 1234, false));
            expect_same_bits(first, engine->finish());
        }
    }
}

SufficientStatistics
pass_over(EStepEngine& engine, const GaussianMixture& mixture, VectorSource& source, size_t piece) {
    engine.begin(mixture);
    for (size_t first = 0; first < source.rows(); first += piece) {
        Chunk chunk;
        chunk.n = std::min(piece, source.rows() - first);
        chunk.first = first;
        chunk.source = source.number();
        chunk.last = first + chunk.n == source.rows();
        engine.accumulate(engine.holds(chunk) ? chunk : source.read(first, chunk.n));
    }
    return engine.finish();
}

TEST_F(CudaEStepEngineTest, RowsThatStayOnTheDeviceAreTheSameRows) {
    const size_t n = 900001, d = 12;
    const auto mixture = random_mixture(Covariance::tied_spherical, 90, d, 1.0, 0, 18);
    const auto x = draw(mixture, n, 19), y = draw(mixture, n, 20);
    MemorySource source(n, d, x.data()), other(n, d, y.data());
    const auto plain = make_cuda_engine();
    const SufficientStatistics of_x = pass(*plain, mixture, x), of_y = pass(*plain, mixture, y);
    for (const size_t cache : {size_t{0}, size_t{13} << 20, size_t{30} << 20, size_t{1} << 40}) {
        CudaOptions options;
        options.gpu_memory = size_t{1} << 20; // waves of one block: 4 of them, of 12.6 MB each
        options.gpu_cache = cache;
        const auto engine = make_cuda_engine(options);
        SCOPED_TRACE(cache);
        for (const size_t piece : {n, size_t{300000}, n, size_t{77777}}) {
            expect_same_bits(of_x, pass_over(*engine, mixture, source, piece));
            expect_same_bits(of_x, pass_over(*engine, mixture, source, piece));
            expect_same_bits(of_y, pass_over(*engine, mixture, other, piece));
        }
        // A pass that is given up halfway leaves nothing behind.
        engine->begin(mixture);
        engine->accumulate(source.read(0, 500000));
        expect_same_bits(of_x, pass_over(*engine, mixture, source, n));
        // One that ends early has a part of a wave, and the rest of it comes with the next.
        engine->begin(mixture);
        engine->accumulate(other.read(0, 100000));
        engine->finish();
        expect_same_bits(of_y, pass_over(*engine, mixture, other, n));
        const CudaPlan plan = cuda_plan(options, Covariance::tied_spherical, n, 90, d);
        EXPECT_EQ(plan.wave_rows, plan.block_rows);
        std::printf("  %s\n", plan.text().c_str());
    }
    // Pinned memory needs no detour.
    void* pinned = nullptr;
    ASSERT_EQ(cudaMallocHost(&pinned, x.size() * sizeof(float)), cudaSuccess);
    std::memcpy(pinned, x.data(), x.size() * sizeof(float));
    MemorySource direct(n, d, static_cast<const float*>(pinned));
    expect_same_bits(of_x, pass_over(*plain, mixture, direct, 400000));
    cudaFreeHost(pinned);
}

/// Chunks of any size, each in host memory or on the device, with and without a source that may be kept.
TEST_F(CudaEStepEngineTest, AnyMixOfChunksIsTheSameBits) {
    const uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "FAISS_GMM_TEST_SEED=" << seed);
    Random random(seed);
    const size_t n = 1400001, d = 12;
    const auto mixture = random_mixture(Covariance::tied_spherical, 60, d, 1.3, 0, 18);
    const auto x = draw(mixture, n, 19);
    const DeviceRows rows(x);
    const SufficientStatistics expected = pass(*make_cuda_engine(), mixture, x);
    CudaOptions options[3];
    options[1].gpu_memory = 1;                 // one block at once
    options[2].gpu_memory = size_t{192} << 20; // two
    options[2].gpu_cache = size_t{40} << 20;
    for (const CudaOptions& with : options) {
        const auto engine = make_cuda_engine(with);
        const uint64_t source = VectorSource::new_number();
        for (int round = 0; round < 12; ++round) {
            const size_t most = size_t{1} << (10 + random.below(12));
            const bool of_source = random.below(2) == 0;
            const size_t kinds = 1 + random.below(3); // host, either, device
            engine->begin(mixture);
            for (size_t first = 0; first < n && !HasFailure();) {
                const size_t here = std::min(n - first, most / 2 + random.below(most));
                const bool on_device = kinds == 3 || (kinds == 2 && random.below(2) == 0);
                Chunk chunk = on_device ? rows.chunk(d, first, here, first + here == n)
                                        : chunk_of(x, d, first, here);
                chunk.source = of_source ? source : 0;
                if (!on_device && of_source && engine->holds(chunk)) {
                    chunk.x = nullptr;
                }
                engine->accumulate(chunk);
                first += here;
            }
            SCOPED_TRACE(::testing::Message() << "round " << round << ", chunks to " << most);
            expect_same_bits(expected, engine->finish());
        }
    }
}

/// Many rows on the device go in waves of eight blocks, also where an engine had few before.
TEST_F(CudaEStepEngineTest, LongWavesOnTheDevice) {
    constexpr size_t few = 300000, n = (size_t{1} << 21) + 70001, K = 60, d = 12;
    const auto mixture = random_mixture(Covariance::tied_spherical, K, d, 1.3, 0, 18);
    const auto x = draw(mixture, n, 19);
    const DeviceRows rows(x);
    const auto planned = [&](size_t of) {
        const auto memory = Chunk::Memory::device;
        return cuda_plan({}, Covariance::tied_spherical, of, K, d, memory).wave_rows;
    };
    EXPECT_EQ(planned(few), size_t{1} << 20);
    EXPECT_EQ(planned(n), size_t{1} << 21);
    CudaOptions little;
    little.gpu_memory = 1; // one block at once
    const auto small = make_cuda_engine(little), engine = make_cuda_engine();
    for (const size_t count : {few, n}) {
        const uint64_t source = VectorSource::new_number();
        const auto pass_of = [&](CudaEStepEngine& with) {
            Chunk chunk = rows.chunk(d, 0, count, true);
            chunk.source = source; // the second round has hints
            with.begin(mixture);
            with.accumulate(chunk);
            return with.finish();
        };
        const SufficientStatistics expected = pass_of(*small);
        EXPECT_GT(small->counts().pairs, count / 100);
        EXPECT_GT(small->counts().dense_rows, 0u);
        for (int round = 0; round < 2; ++round) {
            expect_same_bits(expected, pass_of(*engine));
        }
    }
}

/// Numbers of an element type, and the same values as f32.
struct TypedRows {
    RowElement element;
    std::vector<char> numbers;
    std::vector<float> values;
};

/// x as numbers of the type; those of a byte are 10 x, u8: 128 + 10 x.
TypedRows as_type(RowElement element, const std::vector<float>& x) {
    TypedRows rows;
    rows.element = element;
    const auto put = [&](const auto& value) {
        const auto* bytes = reinterpret_cast<const char*>(&value);
        rows.numbers.insert(rows.numbers.end(), bytes, bytes + sizeof value);
    };
    for (const float value : x) {
        switch (element) {
        case RowElement::f32:
            put(value);
            break;
        case RowElement::f16:
            put(__half_as_ushort(__float2half_rn(value)));
            break;
        case RowElement::bf16:
            put(__bfloat16_as_ushort(__float2bfloat16_rn(value)));
            break;
        case RowElement::u8:
            put(static_cast<uint8_t>(std::clamp(128 + 10 * value, 0.0f, 255.0f)));
            break;
        case RowElement::i8:
            put(static_cast<int8_t>(std::clamp(10 * value, -128.0f, 127.0f)));
            break;
        }
    }
    Chunk chunk;
    chunk.x = rows.numbers.data();
    chunk.n = x.size();
    chunk.element = element;
    if (element == RowElement::f32) {
        rows.values = x;
    } else {
        as_f32(chunk, 1, 0, chunk.n, rows.values);
    }
    return rows;
}

TEST_F(CudaEStepEngineTest, RowsOfEveryElementTypeAreTheirValues) {
    for (const Covariance covariance : all_covariances) {
        for (const size_t d : {24, 19, 131, 256, 300}) {
            const size_t n = d > 200 ? 5000 : 20000, K = 30;
            auto mixture = random_mixture(covariance, K, d, 1.0, 0, 80);
            const auto x = draw(mixture, n, 81);
            for (const RowElement element :
                 {RowElement::f32,
                  RowElement::f16,
                  RowElement::bf16,
                  RowElement::u8,
                  RowElement::i8}) {
                SCOPED_TRACE(name_of(covariance));
                SCOPED_TRACE(::testing::Message() << "d " << d << " type " << int(element));
                const TypedRows rows = as_type(element, x);
                GaussianMixture scaled = mixture;
                if (bytes_of(element) == 1) {
                    for (float& mean : scaled.means) {
                        mean = 10 * mean + (element == RowElement::u8 ? 128 : 0);
                    }
                    for (double& value : scaled.covariances) {
                        value *= 100;
                    }
                }
                const auto engine = make_cuda_engine();
                const SufficientStatistics expected = pass(*engine, scaled, rows.values);
                MemorySource source(n, d, rows.numbers.data(), element);
                expect_same_bits(expected, pass_over(*engine, scaled, source, 7001));
                // Again, by rows that the engine has kept.
                engine->begin(scaled);
                Chunk kept;
                kept.n = n;
                kept.last = true;
                kept.source = source.number();
                ASSERT_TRUE(engine->holds(kept));
                engine->accumulate(kept);
                expect_same_bits(expected, engine->finish());
                // On the device, at an address that is a multiple of one number alone.
                const size_t shift = bytes_of(element), bytes = rows.numbers.size();
                void* memory = nullptr;
                ASSERT_EQ(cudaMalloc(&memory, bytes + shift), cudaSuccess);
                char* shifted = static_cast<char*>(memory) + shift;
                cudaMemcpy(shifted, rows.numbers.data(), bytes, cudaMemcpyHostToDevice);
                Chunk chunk;
                chunk.x = shifted;
                chunk.n = n;
                chunk.element = element;
                chunk.memory = Chunk::Memory::device;
                chunk.last = true;
                engine->begin(scaled);
                engine->accumulate(chunk);
                expect_same_bits(expected, engine->finish());
                TopResponsibilities typed, plain;
                engine->top_responsibilities(chunk, 3, typed);
                engine->top_responsibilities(chunk_of(rows.values, d, 0, n), 3, plain);
                EXPECT_EQ(typed.component, plain.component);
                EXPECT_EQ(typed.squared_distance, plain.squared_distance);
                if (bytes_of(element) > 1) {
                    chunk.x = shifted + 1;
                    chunk.n = n - 1;
                    engine->begin(scaled);
                    EXPECT_THROW(engine->accumulate(chunk), Error);
                }
                cudaFree(memory);
                // One type in a pass.
                engine->begin(scaled);
                engine->accumulate(source.read(0, 10));
                Chunk other = source.read(10, 10);
                other.element = element == RowElement::u8 ? RowElement::i8 : RowElement::u8;
                EXPECT_THROW(engine->accumulate(other), Error);
            }
        }
    }
}

size_t free_memory() {
    size_t free = 0, total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    return free;
}

/// All but `left` bytes of the device's free memory, while it lives.
class Ballast {
public:
    explicit Ballast(size_t left) {
        const size_t free = free_memory();
        EXPECT_GT(free, left);
        EXPECT_EQ(cudaMalloc(&memory_, free - left), cudaSuccess);
    }
    ~Ballast() {
        cudaFree(memory_);
    }

private:
    void* memory_ = nullptr;
};

TEST_F(CudaEStepEngineTest, LittleFreeMemoryIsTheSameBits) {
    const size_t n = 1200001, d = 40;
    for (const Covariance covariance : {Covariance::tied_spherical, Covariance::tied}) {
        SCOPED_TRACE(name_of(covariance));
        const auto mixture = random_mixture(covariance, 90, d, 1.0, 0, 18);
        const auto x = draw(mixture, n, 19);
        SufficientStatistics expected;
        size_t taken = 0;
        {
            const auto engine = make_cuda_engine();
            const size_t before = free_memory();
            expected = pass(*engine, mixture, x);
            taken = before - free_memory();
        }
        const Ballast ballast(taken / 2); // waves of four blocks do not fit
        const auto engine = make_cuda_engine();
        expect_same_bits(expected, pass(*engine, mixture, x));
        MemorySource source(n, d, x.data()); // nothing is kept on a full device
        expect_same_bits(expected, pass_over(*engine, mixture, source, n));
        const Ballast rest(size_t{8} << 20);
        const auto none = make_cuda_engine();
        EXPECT_THROW(pass(*none, mixture, x), OutOfMemory);
        // The one that has its memory goes on.
        expect_same_bits(expected, pass(*engine, mixture, x));
    }
}

/// What the work takes of the device's memory, as long as `engine` lives.
size_t memory_of(
        std::unique_ptr<CudaEStepEngine>& engine,
        const std::function<void(CudaEStepEngine&)>& work) {
    const size_t before = free_memory();
    engine = make_cuda_engine();
    work(*engine);
    return before - free_memory();
}

/// Rows on the device whose chunks end within a block wait in buffers, for which there must be memory too.
TEST_F(CudaEStepEngineTest, LittleFreeMemoryForRowsThatWaitIsTheSameBits) {
    const size_t n = 600001, d = 128;
    const auto mixture = random_mixture(Covariance::tied_spherical, 90, d, 1.0, 0, 18);
    const auto x = draw(mixture, n, 19);
    const DeviceRows rows(x);
    SufficientStatistics statistics;
    const auto work = [&](CudaEStepEngine& engine) {
        engine.begin(mixture);
        engine.accumulate(rows.chunk(d, 0, 1234, false));
        engine.accumulate(rows.chunk(d, 1234, n - 1234, false));
        statistics = engine.finish();
    };
    std::unique_ptr<CudaEStepEngine> engine;
    const size_t taken = memory_of(engine, work);
    const SufficientStatistics expected = statistics;
    engine.reset();
    const CudaPlan plan = cuda_plan({}, Covariance::tied_spherical, n, 90, d);
    // On the device already: two blocks at most wait.
    EXPECT_LE(
            taken,
            plan.total() - plan.row_buffers + 2 * plan.block_rows * d * 4 + (size_t{64} << 20));
    const Ballast ballast(taken * 2 / 3);
    memory_of(engine, work);
    expect_same_bits(expected, statistics);
}

TEST_F(CudaEStepEngineTest, LittleFreeMemoryRanksTheSame) {
    const size_t n = 1048576, d = 128;
    const auto mixture = random_mixture(Covariance::tied_spherical, 90, d, 1.0, 0, 18);
    const auto x = draw(mixture, n, 19);
    TopResponsibilities top;
    const auto work = [&](CudaEStepEngine& engine) {
        engine.begin(mixture);
        engine.top_responsibilities(chunk_of(x, d, 0, n), 2, top);
    };
    std::unique_ptr<CudaEStepEngine> engine;
    const size_t taken = memory_of(engine, work);
    const TopResponsibilities expected = top;
    engine.reset();
    const Ballast ballast(taken * 2 / 3);
    memory_of(engine, work);
    EXPECT_EQ(top.component, expected.component);
    EXPECT_EQ(top.log_responsibility, expected.log_responsibility);
    EXPECT_EQ(top.squared_distance, expected.squared_distance);
}

/// An engine goes on with another mixture in the memory that it has.
TEST_F(CudaEStepEngineTest, AnotherShapeHasTheMemoryOfTheLast) {
    const size_t n = 600001, d = 128, few = 20000;
    const auto mixture = random_mixture(Covariance::tied_spherical, 90, d, 1.0, 0, 18);
    const auto other = random_mixture(Covariance::tied_spherical, few, 2 * d, 1.0, 0, 20);
    const auto x = draw(mixture, n, 19), y = draw(other, few, 21);
    const SufficientStatistics expected = pass(*make_cuda_engine(), other, y);
    const auto engine = make_cuda_engine();
    const SufficientStatistics first = pass(*engine, mixture, x);
    const Ballast ballast(size_t{64} << 20);
    expect_same_bits(expected, pass(*engine, other, y));
    expect_same_bits(first, pass(*engine, mixture, x));
}

TEST_F(CudaEStepEngineTest, TooLittleMemoryIsSaidWithWhatIsNeeded) {
    const size_t n = 100000, d = 64;
    const auto mixture = random_mixture(Covariance::tied_spherical, 90, d, 1.0, 0, 18);
    const auto x = draw(mixture, n, 19);
    CudaOptions least;
    least.gpu_memory = 1;
    const size_t needed = cuda_plan(least, Covariance::tied_spherical, 0, 90, d).total() >> 20;
    const auto expect_said = [&](size_t left, const std::function<void()>& work) {
        const Ballast ballast(left);
        try {
            work();
            FAIL() << "expected an error";
        } catch (const OutOfMemory& error) {
            const std::string said = error.what();
            EXPECT_NE(said.find(fmt::format("{} MiB for the engine", needed + 1)), said.npos)
                    << said;
            EXPECT_NE(said.find("MiB of its memory free"), said.npos) << said;
        }
    };
    const auto engine = make_cuda_engine();
    expect_said(size_t{8} << 20, [&] { pass(*engine, mixture, x); });
    const auto many = random_mixture(Covariance::tied_spherical, 9000, d, 1.0, 0, 18);
    const size_t of_many = cuda_plan(least, Covariance::tied_spherical, 0, 9000, d).total();
    const Ballast ballast(size_t{4} << 20);
    try {
        engine->begin(many);
        FAIL() << "expected an error";
    } catch (const OutOfMemory& error) {
        const std::string said = error.what();
        EXPECT_NE(said.find(fmt::format("{} MiB for", (of_many >> 20) + 1)), said.npos) << said;
    }
    cuda::PinnedBytes pinned;
    try {
        pinned.reserve(size_t{1} << 50);
        FAIL() << "expected an error";
    } catch (const OutOfMemory& error) {
        const std::string said = error.what();
        EXPECT_NE(said.find("given 1073741824 MiB"), said.npos) << said;
        EXPECT_NE(said.find("free host memory"), said.npos) << said;
    }
}

TEST_F(CudaEStepEngineTest, WorkingMemoryIsBoundedForEverySize) {
    constexpr size_t n = 100000000, bound = size_t{256} << 20;
    for (const CudaPath path : {CudaPath::plain, CudaPath::portable, CudaPath::automatic}) {
        for (const Covariance covariance : all_covariances) {
            for (const size_t K : {1, 2, 100, 1000, 1024, 4096, 8193, 16384, 30000, 65535, 65536}) {
                for (const size_t d :
                     {1, 3, 16, 64, 96, 128, 129, 256, 300, 960, 1025, 1488, 1600, 2048}) {
                    SCOPED_TRACE(name_of(covariance));
                    SCOPED_TRACE(::testing::Message() << "K " << K << " d " << d);
                    CudaOptions options;
                    options.path = path;
                    const CudaPlan plan = cuda_plan(options, covariance, n, K, d);
                    ASSERT_LE(plan.working(), bound) << plan.text();
                    const CudaPlan longest =
                            cuda_plan(options, covariance, n, K, d, Chunk::Memory::device);
                    ASSERT_LE(longest.working(), bound) << longest.text();
                    // The least that there is.
                    options.gpu_memory = 1;
                    const CudaPlan least = cuda_plan(options, covariance, n, K, d);
                    EXPECT_LE(least.working(), bound) << least.text();
                    EXPECT_LE(least.total(), plan.total());
                    // Where a pass looks first does not hang on how long its waves are.
                    EXPECT_EQ(plan.homes, longest.homes);
                    EXPECT_EQ(plan.homes, least.homes);
                }
            }
        }
    }
    for (const size_t K : {1024, 65536}) {
        const CudaPlan plan = cuda_plan({}, Covariance::tied_spherical, n, K, 96);
        EXPECT_GE(plan.homes, size_t{2} << 20);
        std::printf("  %s\n", plan.text().c_str());
    }
}

TEST_F(CudaEStepEngineTest, LittleFreeMemoryIsNeededBeyondThePlan) {
    constexpr size_t slack = size_t{64} << 20; // what allocations are rounded up to
    const struct {
        Covariance covariance;
        size_t n, K, d;
        double spread; ///< 0.05: rows without a list
    } cases[] = {
            {Covariance::tied_spherical, 600000, 300, 64, 1.0},
            {Covariance::tied_spherical, 300000, 300, 64, 0.05},
            {Covariance::spherical, 600000, 31, 16, 0.1}, // 30 pairs a row
            {Covariance::tied, 300000, 31, 16, 0.1},
            {Covariance::tied_spherical, 100000, 60000, 24, 3.0},
            {Covariance::diagonal, 300000, 100, 200, 1.0},
            {Covariance::diagonal, 20000, 300, 64, 0.05},
            {Covariance::tied, 300000, 100, 64, 1.0},
            {Covariance::full, 20000, 30, 64, 1.0}};
    for (const auto& c : cases) {
        SCOPED_TRACE(
                ::testing::Message()
                << name_of(c.covariance) << " K " << c.K << " d " << c.d << " spread " << c.spread);
        const auto mixture = random_mixture(c.covariance, c.K, c.d, c.spread, 0, 18);
        const auto x = draw(mixture, c.n, 19);
        MemorySource source(c.n, c.d, x.data());
        SufficientStatistics first;
        size_t limit = 0;
        for (const bool least : {false, true}) {
            CudaOptions options;
            options.gpu_cache = 0;
            // A byte less than the plan: fewer blocks at once, where there are several.
            options.gpu_memory = least ? limit - 1 : 0;
            const CudaPlan plan = cuda_plan(options, c.covariance, c.n, c.K, c.d);
            if (least && plan.wave_rows > plan.block_rows) {
                EXPECT_LE(plan.total(), options.gpu_memory);
            }
            limit = plan.total();
            const size_t before = free_memory();
            const auto engine = make_cuda_engine(options);
            const SufficientStatistics statistics = pass_over(*engine, mixture, source, c.n);
            const CudaPassCounts counts = engine->counts();
            TopResponsibilities top;
            engine->begin(mixture);
            engine->top_responsibilities(chunk_of(x, c.d, 0, c.n), 5, top);
            const size_t taken = before - free_memory();
            std::printf(
                    "  %s K %zu d %zu: %zu MiB of %zu planned, working %zu; %zu dense, %zu exact "
                    "rows\n",
                    name_of(c.covariance),
                    c.K,
                    c.d,
                    taken >> 20,
                    plan.total() >> 20,
                    plan.working() >> 20,
                    counts.dense_rows,
                    counts.exact_rows);
            EXPECT_LE(taken, plan.total() + slack);
            if (least) {
                expect_same_bits(first, statistics);
            }
            first = statistics;
        }
    }
}

/// Components that lie together share their rows, the others have theirs alone.
GaussianMixture partly_shared_mixture(Covariance covariance, size_t together, size_t apart) {
    GaussianMixture mixture;
    mixture.covariance = covariance;
    mixture.K = together + apart;
    mixture.d = apart;
    mixture.means = random_mixture(Covariance::tied_spherical, mixture.K, apart, 0.1, 0, 18).means;
    for (size_t k = 0; k < apart; ++k) {
        mixture.means[(together + k) * apart + k] += 12;
    }
    mixture.log_weights.assign(mixture.K, -std::log(double(mixture.K)));
    mixture.covariances.assign(GaussianMixture::covariance_size(covariance, mixture.K, apart), 1.0);
    for (size_t i = 0; covariance == Covariance::tied && i < mixture.covariances.size(); ++i) {
        mixture.covariances[i] = i / apart == i % apart ? 1.0 : 0.0;
    }
    return mixture;
}

/// Pairs for which a wave of one block has no room, and one of four blocks has: all are of the first block.
TEST_P(CudaEStepEngineForms, PairsBeyondThePlanTakeTurns) {
    const size_t together = 9, d = 31, block = size_t{1} << 18, n = 4 * block - 5;
    const auto mixture = partly_shared_mixture(GetParam(), together, d);
    auto noise = mixture;
    std::fill(noise.means.begin(), noise.means.end(), 0.0f);
    std::vector<float> x = draw(noise, block, 19); // and again in every block
    x.resize(4 * x.size());
    for (size_t i = n; i-- > 0;) {
        const size_t k = i < block ? i % together : together + i % d;
        for (size_t j = 0; j < d; ++j) {
            x[i * d + j] = x[i % block * d + j] + mixture.means[k * d + j];
        }
    }
    x.resize(n * d);
    const DeviceRows rows(x);
    CudaOptions small;
    small.gpu_memory = 1;
    SufficientStatistics first;
    for (const CudaPath path : {CudaPath::portable, CudaPath::automatic}) {
        for (const bool one_block : {false, true}) {
            CudaOptions options = one_block ? small : CudaOptions();
            options.path = path;
            const CudaPlan plan = cuda_plan(options, GetParam(), n, mixture.K, d);
            EXPECT_EQ(plan.wave_rows, one_block ? block : 4 * block);
            const auto engine = make_cuda_engine(options);
            engine->begin(mixture);
            engine->accumulate(rows.chunk(d, 0, n, true));
            const SufficientStatistics statistics = engine->finish();
            const CudaPassCounts counts = engine->counts();
            std::printf("  %s: %zu pairs\n", name_of(GetParam()), counts.pairs);
            EXPECT_GT(counts.pairs, 5 * block);
            EXPECT_LT(counts.pairs, 12 * block);
            EXPECT_LT(counts.dense_rows + counts.exact_rows, n / 100);
            if (one_block) {
                expect_same_bits(first, statistics);
            }
            first = statistics;
        }
    }
    CudaOptions exactly;
    exactly.tier = CudaTier::exact;
    const auto exact = make_cuda_engine(exactly);
    exact->begin(mixture);
    exact->accumulate(rows.chunk(d, 0, n, true));
    const SufficientStatistics expected = exact->finish();
    EXPECT_LT(relative_distance(first.N_k, expected.N_k), 1e-4);
    EXPECT_LT(
            relative_distance(
                    exact->maximize(first, 1e-6).means, exact->maximize(expected, 1e-6).means),
            1e-4);
}

/// A source's homes take what is planned also where its rows come in small chunks.
TEST_F(CudaEStepEngineTest, HomesTakeWhatIsPlanned) {
    const size_t n = 60000000, piece = 1000000; // more than there is room for
    const std::vector<uint8_t> x(n, 7);
    auto mixture = random_mixture(Covariance::tied_spherical, 2, 1, 1.0, 7, 18);
    CudaOptions options;
    options.gpu_cache = 0;
    const auto engine = make_cuda_engine(options);
    MemorySource few(piece, 1, x.data(), RowElement::u8), all(n, 1, x.data(), RowElement::u8);
    pass_over(*engine, mixture, few, piece);
    const size_t before = free_memory();
    pass_over(*engine, mixture, all, piece);
    const size_t taken = before - free_memory();
    const auto planned = [&](size_t rows) {
        return cuda_plan(options, Covariance::tied_spherical, rows, 2, 1).homes;
    };
    EXPECT_LT(planned(n), 2 * n);
    EXPECT_EQ(planned(n), planned(2 * n));
    EXPECT_GE(taken + (size_t{4} << 20), planned(n) - planned(piece));
    EXPECT_LE(taken, planned(n) - planned(piece) + (size_t{4} << 20));
    // What was asked for holds for rows too that came later.
    CudaOptions little = options;
    little.gpu_memory = 1;
    little.gpu_memory = cuda_plan(little, Covariance::tied_spherical, piece, 2, 1).total();
    const auto bounded = make_cuda_engine(little);
    pass_over(*bounded, mixture, few, piece);
    const size_t then = free_memory();
    for (const size_t at_once : {piece, piece, n}) {
        expect_same_bits(
                pass_over(*engine, mixture, all, at_once),
                pass_over(*bounded, mixture, all, at_once));
    }
    EXPECT_LE(then - free_memory(), size_t{4} << 20);
}

/// A plan for longer waves does not count the homes of a longer source: they make room.
TEST_F(CudaEStepEngineTest, HomesOfALongerSourceMakeRoom) {
    constexpr size_t slack = size_t{64} << 20; // what allocations are rounded up to
    const size_t n = 60000000, few = 3000000;
    const std::vector<uint8_t> x(n, 7);
    const auto mixture = random_mixture(Covariance::tied_spherical, 2, 1, 1.0, 7, 18);
    void* rows = nullptr;
    ASSERT_EQ(cudaMalloc(&rows, few), cudaSuccess);
    cudaMemcpy(rows, x.data(), few, cudaMemcpyHostToDevice);
    CudaOptions options;
    options.gpu_cache = 0;
    const auto planned = [&](size_t count, Chunk::Memory memory) {
        return cuda_plan(options, Covariance::tied_spherical, count, 2, 1, memory);
    };
    const CudaPlan longer = planned(few, Chunk::Memory::device);
    const CudaPlan of_host = planned(n, Chunk::Memory::host);
    ASSERT_GT(longer.wave_rows, of_host.wave_rows);
    ASSERT_GT(longer.total(), of_host.total());
    ASSERT_GT(of_host.homes, longer.homes + slack) << "what is too much would not be seen";
    options.gpu_memory = longer.total();
    const size_t before = free_memory();
    const auto engine = make_cuda_engine(options);
    MemorySource source(n, 1, x.data(), RowElement::u8);
    pass_over(*engine, mixture, source, n);
    EXPECT_LE(before - free_memory(), options.gpu_memory + slack);
    Chunk chunk;
    chunk.x = rows;
    chunk.n = few;
    chunk.element = RowElement::u8;
    chunk.memory = Chunk::Memory::device;
    chunk.last = true;
    engine->begin(mixture);
    engine->accumulate(chunk);
    EXPECT_EQ(engine->finish().rows, few);
    EXPECT_LE(before - free_memory(), options.gpu_memory + slack);
    cudaFree(rows);
}

/// More segments than the workspace holds: every row lies between two means, each of which has two halves.
TEST_F(CudaEStepEngineTest, SegmentsThatDoNotFitComeInPieces) {
    const size_t K = 24000, d = 2048;
    GaussianMixture mixture;
    mixture.K = K;
    mixture.d = d;
    mixture.log_weights.assign(K, -std::log(double(K)));
    mixture.covariances = {20};
    uint64_t state = 7;
    for (size_t i = 0; i < K * d; ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        mixture.means.push_back(static_cast<float>(int(state >> 61)) / 2); // 0 .. 3.5
    }
    const auto mean = [&](size_t k, size_t j) { return mixture.means[k % K * d + j]; };
    std::vector<float> x(K * d);
    for (size_t at = 0; at < K * d; ++at) {
        x[at] = (mean(at / d, at % d) + mean(at / d + 1, at % d)) / 2; // exact
    }
    const auto engine = make_cuda_engine();
    const SufficientStatistics statistics = pass(*engine, mixture, x);
    EXPECT_EQ(engine->counts().pairs, K);
    double moment = 0;
    for (size_t k = 0; k < K; ++k) {
        ASSERT_NEAR(statistics.N_k[k], 1, 1e-4) << k;
        for (size_t j = 0; j < d; ++j) {
            const double before = x[(k + K - 1) % K * d + j] - mean(k, j);
            const double after = x[k * d + j] - mean(k, j);
            ASSERT_NEAR(statistics.first_moment[k * d + j], (before + after) / 2, 1e-4) << k;
            moment += (before * before + after * after) / 2;
        }
    }
    EXPECT_NEAR(statistics.second_moment[0], moment, 1e-6 * moment);
    expect_same_bits(statistics, pass(*engine, mixture, x));
    // Four blocks of rows a wave elsewhere; here one, and the pieces are as many as the table needs.
    const CudaPlan plan = cuda_plan({}, Covariance::tied_spherical, K, K, d);
    EXPECT_LT(plan.segments / (4 * d), K) << "all of them fit: nothing is tested";
}

/// The homes of a source of more rows than there is room for are done without, also in the middle of a pass.
TEST_F(CudaEStepEngineTest, LittleFreeMemoryLeavesHomesOut) {
    const size_t n = 8000000, few = 100000, d = 4;
    const auto mixture = random_mixture(Covariance::tied_spherical, 20, d, 20.0, 0, 18);
    const auto x = draw(mixture, n, 19);
    CudaOptions options;
    options.gpu_cache = 0;
    MemorySource source(n, d, x.data()), small(few, d, x.data());
    SufficientStatistics expected;
    {
        const auto engine = make_cuda_engine(options);
        pass_over(*engine, mixture, source, n);
        expected = pass_over(*engine, mixture, source, n); // with hints
    }
    for (const size_t piece : {n, size_t{3000000}}) {
        const auto engine = make_cuda_engine(options);
        pass_over(*engine, mixture, small, few);
        const Ballast ballast(size_t{8} << 20); // homes are 16 MB, those of a piece 6
        expect_same_bits(expected, pass_over(*engine, mixture, source, piece));
        expect_same_bits(expected, pass_over(*engine, mixture, source, piece));
    }
}

/// What a source hands out until it fails.
class FailingSource : public MemorySource {
public:
    using MemorySource::MemorySource;
    size_t max_chunk_rows() const override {
        return 100000;
    }
    Chunk read(size_t first, size_t n) override {
        if (first >= 300000) {
            throw Error({"reading", "rows", "none", "stop"});
        }
        return MemorySource::read(first, n);
    }
};

TEST_F(CudaEStepEngineTest, APassThatIsGivenUpLeavesNothing) {
    const size_t n = 700001, d = 12;
    const auto mixture = random_mixture(Covariance::tied_spherical, 90, d, 0.5, 0, 18);
    const auto x = draw(mixture, n, 19);
    const auto engine = make_cuda_engine();
    const SufficientStatistics expected = pass(*engine, mixture, x);
    void* pinned = nullptr;
    for (int round = 0; round < 3; ++round) {
        ASSERT_EQ(cudaMallocHost(&pinned, x.size() * sizeof(float)), cudaSuccess);
        std::memcpy(pinned, x.data(), x.size() * sizeof(float));
        FailingSource failing(n, d, pinned);
        EXPECT_THROW(pass_over(*engine, mixture, failing, 100000), Error);
        // A row that is refused while later ones are on their way.
        static_cast<float*>(pinned)[5 * d] = std::numeric_limits<float>::quiet_NaN();
        MemorySource bad(n, d, pinned);
        EXPECT_THROW(pass_over(*engine, mixture, bad, n), Error);
        cudaFreeHost(pinned);
        expect_same_bits(expected, pass(*engine, mixture, x));
        // Nor does an engine that ends within a pass.
        const auto ends = make_cuda_engine();
        ends->begin(mixture);
        ends->accumulate(chunk_of(x, d, 0, 500000));
    }
}

TEST_F(CudaEStepEngineTest, RowsOfACallersStreamAreReadInItsOrder) {
    const size_t n = 300000, d = 16;
    const auto mixture = random_mixture(Covariance::tied_spherical, 50, d, 0.7, 0, 90);
    const auto x = draw(mixture, n, 91);
    const size_t bytes = x.size() * sizeof(float), delay = size_t{1} << 30;
    const auto engine = make_cuda_engine();
    const SufficientStatistics expected = pass(*engine, mixture, x);
    cudaStream_t stream = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    void *rows = nullptr, *pinned = nullptr, *idle = nullptr;
    ASSERT_EQ(cudaMalloc(&rows, bytes), cudaSuccess);
    ASSERT_EQ(cudaMalloc(&idle, delay), cudaSuccess);
    ASSERT_EQ(cudaMallocHost(&pinned, bytes), cudaSuccess);
    std::memcpy(pinned, x.data(), bytes);
    for (const size_t piece : {n, size_t{70000}}) {
        engine->begin(mixture);
        for (size_t first = 0; first < n; first += piece) {
            Chunk chunk;
            chunk.x = rows;
            chunk.n = std::min(piece, n - first);
            chunk.first = first;
            chunk.memory = Chunk::Memory::device;
            chunk.stream = stream;
            const size_t part = chunk.n * d * sizeof(float);
            // NaN before and after; between them a while in which the rows are not there yet.
            cudaMemsetAsync(rows, 0xff, bytes, stream);
            for (int i = 0; i < 20; ++i) {
                cudaMemsetAsync(idle, i, delay, stream);
            }
            const auto* from = static_cast<const float*>(pinned) + first * d;
            cudaMemcpyAsync(rows, from, part, cudaMemcpyHostToDevice, stream);
            engine->accumulate(chunk);
            cudaMemsetAsync(rows, 0xff, bytes, stream);
        }
        expect_same_bits(expected, engine->finish());
    }
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    cudaFree(rows);
    cudaFree(idle);
    cudaFreeHost(pinned);
}

/// Ranking waits for the rows on the caller's stream, and what comes on it afterwards for the ranks.
TEST_F(CudaEStepEngineTest, RanksOfACallersStreamAreMadeInItsOrder) {
    const size_t n = 100000, d = 16, m = 2;
    const auto mixture = random_mixture(Covariance::tied_spherical, 50, d, 0.7, 0, 90);
    const auto x = draw(mixture, n, 91);
    const size_t bytes = x.size() * sizeof(float), delay = size_t{1} << 30;
    const auto engine = make_cuda_engine();
    engine->begin(mixture);
    TopResponsibilities expected;
    engine->top_responsibilities(chunk_of(x, d, 0, n), m, expected);
    cudaStream_t stream = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    void *rows = nullptr, *ranks = nullptr, *pinned = nullptr, *idle = nullptr, *result = nullptr;
    ASSERT_EQ(cudaMalloc(&rows, bytes), cudaSuccess);
    ASSERT_EQ(cudaMalloc(&ranks, 3 * n * m * 4), cudaSuccess);
    ASSERT_EQ(cudaMalloc(&idle, delay), cudaSuccess);
    ASSERT_EQ(cudaMallocHost(&pinned, bytes), cudaSuccess);
    ASSERT_EQ(cudaMallocHost(&result, n * m * 4), cudaSuccess);
    std::memcpy(pinned, x.data(), bytes);
    auto* component = static_cast<int32_t*>(ranks);
    auto* numbers = static_cast<float*>(ranks) + n * m;
    Chunk chunk;
    chunk.x = rows;
    chunk.n = n;
    chunk.memory = Chunk::Memory::device;
    chunk.stream = stream;
    // NaN, and a while in which the rows are not there yet.
    cudaMemsetAsync(rows, 0xff, bytes, stream);
    for (int i = 0; i < 20; ++i) {
        cudaMemsetAsync(idle, i, delay, stream);
    }
    cudaMemcpyAsync(rows, pinned, bytes, cudaMemcpyHostToDevice, stream);
    engine->rank_on_device(chunk, m, component, numbers, numbers + n * m);
    cudaMemcpyAsync(result, component, n * m * 4, cudaMemcpyDeviceToHost, stream);
    cudaMemsetAsync(component, 0xff, n * m * 4, stream);
    cudaStreamSynchronize(stream);
    EXPECT_EQ(std::memcmp(result, expected.component.data(), n * m * 4), 0);
    cudaStreamDestroy(stream);
    cudaFree(rows);
    cudaFree(ranks);
    cudaFree(idle);
    cudaFreeHost(pinned);
    cudaFreeHost(result);
}

/// n d above 2^31: the same million rows 17 times.
TEST_F(CudaEStepEngineTest, MoreNumbersThanAnIntCounts) {
    const size_t part = size_t{1} << 20, times = 17, d = 128;
    if (free_memory() < (size_t{6} << 30)) {
        GTEST_SKIP() << "needs 6 GiB of free device memory";
    }
    std::vector<uint8_t> x(part * d);
    uint64_t state = 93;
    for (size_t i = 0; i < part; ++i) { // some of four clouds
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        const uint8_t base = 50 + 40 * (state >> 62);
        for (size_t j = 0; j < d; ++j) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            x[i * d + j] = base + (state >> 59);
        }
    }
    void* rows = nullptr;
    ASSERT_EQ(cudaMalloc(&rows, times * x.size()), cudaSuccess);
    for (size_t t = 0; t < times; ++t) {
        cudaMemcpy(
                static_cast<char*>(rows) + t * x.size(),
                x.data(),
                x.size(),
                cudaMemcpyHostToDevice);
    }
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        auto mixture = random_mixture(covariance, 4, d, 0.1, 0, 94);
        for (size_t i = 0; i < mixture.means.size(); ++i) {
            mixture.means[i] += static_cast<float>(65 + 40 * (i / d));
        }
        for (double& value : mixture.covariances) {
            value *= 80;
        }
        const auto engine = make_cuda_engine();
        Chunk chunk;
        chunk.x = rows;
        chunk.element = RowElement::u8;
        chunk.memory = Chunk::Memory::device;
        chunk.last = true;
        const auto of = [&](size_t n) {
            chunk.n = n;
            engine->begin(mixture);
            engine->accumulate(chunk);
            return engine->finish();
        };
        const SufficientStatistics once = of(part), all = of(times * part);
        const auto expect_multiple = [&](std::vector<double> values,
                                         const std::vector<double>& of_all) {
            for (double& value : values) {
                value *= times;
            }
            EXPECT_LT(relative_distance(of_all, values), 1e-9);
        };
        expect_multiple(once.N_k, all.N_k);
        expect_multiple(once.first_moment, all.first_moment);
        expect_multiple(once.second_moment, all.second_moment);
        expect_multiple({once.sum_log_likelihood}, {all.sum_log_likelihood});
        TopResponsibilities top;
        chunk.x = static_cast<const char*>(rows) + (times - 1) * x.size();
        chunk.n = 1000;
        engine->top_responsibilities(chunk, 1, top);
        chunk.x = rows;
        TopResponsibilities first;
        engine->top_responsibilities(chunk, 1, first);
        EXPECT_EQ(top.component, first.component);
    }
    cudaFree(rows);
}

TEST_F(CudaEStepEngineTest, NamesABadRowOfALaterWave) {
    const size_t n = 900001, d = 12, bad = 700003;
    const auto mixture = random_mixture(Covariance::tied_spherical, 40, d, 1.0, 0, 95);
    auto x = draw(mixture, n, 96);
    x[bad * d + 7] = std::numeric_limits<float>::infinity();
    x[(bad + 9) * d] = std::numeric_limits<float>::quiet_NaN();
    CudaOptions little;
    little.gpu_memory = size_t{1} << 20;
    const DeviceRows rows(x);
    for (const CudaOptions& options : {CudaOptions(), little}) {
        const auto engine = make_cuda_engine(options);
        const auto expect_named = [&](const std::function<void()>& work) {
            try {
                work();
                FAIL() << "expected an error";
            } catch (const Error& error) {
                EXPECT_NE(std::string(error.what()).find("row 700003 "), std::string::npos)
                        << error.what();
            }
        };
        expect_named([&] { pass(*engine, mixture, x); });
        expect_named([&] { pass(*engine, mixture, x, Assignment::soft, 100000); });
        expect_named([&] {
            engine->begin(mixture);
            engine->accumulate(rows.chunk(d, 0, n, true));
            engine->finish();
        });
    }
}

/// Ranks are no part of a pass: a row that cannot be ranked spoils neither it nor the next ranks.
TEST_F(CudaEStepEngineTest, ABadRankedRowIsRefusedOnce) {
    const size_t n = 5000, d = 8;
    const auto mixture = random_mixture(Covariance::tied_spherical, 12, d, 1.0, 0, 95);
    const auto x = draw(mixture, n, 96);
    auto bad = x;
    bad[4321 * d] = std::numeric_limits<float>::quiet_NaN();
    const DeviceRows bad_rows(bad);
    const auto engine = make_cuda_engine();
    const SufficientStatistics expected = pass(*engine, mixture, x);
    engine->begin(mixture);
    engine->accumulate(chunk_of(x, d, 0, n));
    TopResponsibilities top, again;
    engine->top_responsibilities(chunk_of(x, d, 0, n), 2, top);
    EXPECT_THROW(engine->top_responsibilities(chunk_of(bad, d, 0, n), 2, again), Error);
    engine->top_responsibilities(chunk_of(x, d, 0, n), 2, again);
    EXPECT_EQ(again.component, top.component);
    void* out = nullptr;
    ASSERT_EQ(cudaMalloc(&out, 3 * n * 4), cudaSuccess);
    auto* numbers = static_cast<float*>(out);
    engine->rank_on_device(
            bad_rows.chunk(d, 0, n, true),
            1,
            static_cast<int32_t*>(out),
            numbers + n,
            numbers + 2 * n);
    std::vector<int32_t> component(n);
    cudaStreamSynchronize(static_cast<cudaStream_t>(engine->stream()));
    cudaMemcpy(component.data(), out, n * 4, cudaMemcpyDeviceToHost);
    cudaFree(out);
    EXPECT_EQ(component[4321], -1);
    expect_same_bits(expected, engine->finish());
}

/// A part of a data set, whose rows have the numbers that they have in the whole.
TEST_F(CudaEStepEngineTest, NamesRowsByTheirNumberInTheSource) {
    const size_t n = 400000, d = 12, part = 50000, bad = 123456;
    const auto mixture = random_mixture(Covariance::tied_spherical, 40, d, 1.0, 0, 95);
    auto x = draw(mixture, n, 96);
    x[bad * d + 7] = std::numeric_limits<float>::infinity();
    const DeviceRows rows(x);
    const auto engine = make_cuda_engine();
    for (const bool on_device : {false, true}) {
        for (const size_t piece : {n, size_t{30000}}) {
            SCOPED_TRACE(::testing::Message() << on_device << " pieces of " << piece);
            try {
                engine->begin(mixture);
                for (size_t first = part; first < n; first += piece) {
                    const size_t here = std::min(piece, n - first);
                    engine->accumulate(
                            on_device ? rows.chunk(d, first, here, first + here == n)
                                      : chunk_of(x, d, first, here));
                }
                engine->finish();
                FAIL() << "expected an error";
            } catch (const Error& error) {
                EXPECT_NE(std::string(error.what()).find("row 123456 "), std::string::npos)
                        << error.what();
            }
        }
    }
}

TEST_F(CudaEStepEngineTest, TheTrainerRunsOnTheGpu) {
    for (const Covariance covariance : all_covariances) {
        SCOPED_TRACE(name_of(covariance));
        const auto truth = random_mixture(covariance, 40, 16, 2.0, 3, 70);
        const auto x = draw(truth, 30000, 71);
        TrainingParameters parameters;
        parameters.covariance = covariance;
        parameters.mixing = Mixing::free;
        parameters.max_iter = 12;
        parameters.engine = EngineKind::cuda;
        parameters.max_points_per_component = 0;
        const TrainingResult result = GMMTrainer(parameters).train(40, 30000, 16, x.data());
        for (size_t i = 1; i < result.history.size(); ++i) {
            EXPECT_GE(
                    result.history[i].mean_log_likelihood,
                    result.history[i - 1].mean_log_likelihood - 1e-6 * 16);
        }
        // What it says is what the reference says of the parameters it began the iteration with.
        EXPECT_NEAR(
                result.mixture.score(30000, x.data()),
                result.history.back().mean_log_likelihood,
                0.05);
        const TrainingResult again = GMMTrainer(parameters).train(40, 30000, 16, x.data());
        EXPECT_EQ(again.mixture.means, result.mixture.means);
        EXPECT_EQ(again.mixture.covariances, result.mixture.covariances);
    }
}

/// Rows that lie on the device.
class DeviceSource : public VectorSource {
public:
    DeviceSource(const std::vector<float>& x, size_t d) : rows_(x), n_(x.size() / d), d_(d) {}
    size_t rows() const override {
        return n_;
    }
    size_t dimensions() const override {
        return d_;
    }
    size_t max_chunk_rows() const override {
        return n_;
    }
    uint64_t number() const override {
        return number_;
    }
    Chunk read(size_t first, size_t n) override {
        Chunk chunk = rows_.chunk(d_, first, n, first + n == n_);
        chunk.source = number_;
        return chunk;
    }

private:
    DeviceRows rows_;
    size_t n_, d_;
    uint64_t number_ = new_number();
};

/// What the trainer asks between pieces of the host's rows, or the device's, changes nothing; a pass that it ended leaves
/// nothing behind.
TEST_F(CudaEStepEngineTest, TheTrainerInterruptsPassesOverHostAndDevice) {
    const size_t K = 40, d = 4, n = (size_t{1} << 21) + 70000;
    const auto truth = random_mixture(Covariance::tied_spherical, K, d, 2.0, 3, 70);
    const auto x = draw(truth, n, 71);
    TrainingParameters parameters;
    parameters.means_init = truth.means;
    parameters.max_iter = 3;
    parameters.tol = 0;
    MemorySource host(n, d, x.data());
    DeviceSource device(x, d);
    // What a source's first Lloyd step sees decides where EM begins: all of the device's rows, a subset of the host's.
    const struct {
        VectorSource& source;
        size_t calls; ///< in an iteration
        bool first_step_sees_all;
    } cases[] = {{host, (n - 1) / 65536, false}, {device, 1, true}};
    for (const auto& c : cases) {
        SCOPED_TRACE(c.calls);
        parameters.interrupt = nullptr;
        parameters.progress = nullptr;
        const auto engine = make_cuda_engine();
        const TrainingResult expected = GMMTrainer(parameters).train(K, c.source, *engine);
        EXPECT_EQ(expected.history.size(), 3u);
        EXPECT_NEAR(
                expected.mixture.score(20000, x.data()),
                expected.history.back().mean_log_likelihood,
                0.05);
        size_t calls = 0, iterations = 0;
        const size_t before = c.first_step_sees_all ? c.calls : 0;
        parameters.interrupt = [&] { ++calls; };
        parameters.progress = [&](const TrainingProgress& progress) {
            iterations = progress.iteration;
            EXPECT_EQ(calls, before + c.calls * iterations);
            return true;
        };
        const auto expect_expected = [&] {
            const TrainingResult result = GMMTrainer(parameters).train(K, c.source, *engine);
            EXPECT_EQ(result.mixture.means, expected.mixture.means);
            EXPECT_EQ(result.mixture.covariances, expected.mixture.covariances);
        };
        expect_expected();
        EXPECT_EQ(iterations, 3u);
        struct GivenUp {};
        const size_t in_second = before + c.calls + (c.calls + 1) / 2;
        calls = iterations = 0;
        parameters.interrupt = [&] {
            if (++calls == in_second) {
                throw GivenUp();
            }
        };
        EXPECT_THROW(GMMTrainer(parameters).train(K, c.source, *engine), GivenUp);
        EXPECT_EQ(iterations, 1u) << "within the second iteration";
        parameters.interrupt = nullptr;
        parameters.progress = nullptr;
        expect_expected();
    }
    // Where the first step takes all rows of either, they train the same mixture.
    const size_t few = 64 * K;
    const std::vector<float> some(x.begin(), x.begin() + few * d);
    MemorySource few_of_host(few, d, some.data());
    DeviceSource few_of_device(some, d);
    const auto both = make_cuda_engine();
    const GMMTrainer trainer(parameters);
    const GaussianMixture of_host = trainer.train(K, few_of_host, *both).mixture;
    const GaussianMixture of_device = trainer.train(K, few_of_device, *both).mixture;
    EXPECT_EQ(of_host.means, of_device.means);
    EXPECT_EQ(of_host.covariances, of_device.covariances);
    // A start that has to be picked from rows on the device is refused.
    parameters.means_init.clear();
    const auto engine = make_cuda_engine();
    try {
        GMMTrainer(parameters).train(K, device, *engine);
        FAIL() << "rows of the device were picked from the host";
    } catch (const Error& error) {
        const std::string said = error.what();
        EXPECT_NE(said.find("in device memory"), said.npos) << said;
        EXPECT_NE(said.find("give means_init"), said.npos) << said;
    }
}

TEST_F(CudaEStepEngineTest, ResponsibilitiesOfARowSumToOne) {
    const uint64_t seed = test_seed();
    SCOPED_TRACE(::testing::Message() << "FAISS_GMM_TEST_SEED=" << seed);
    Random random(seed);
    const auto engine = make_cuda_engine();
    for (int round = 0; round < 20; ++round) {
        const size_t K = 1 + random.below(150), d = 1 + random.below(40);
        const size_t n = 1 + random.below(600);
        const Covariance covariance = all_covariances[random.below(5)];
        const auto mixture =
                random_mixture(covariance, K, d, 2 * random.uniform(), 0, random.below(1000));
        const auto x = draw(mixture, n, random.below(1000));
        const SufficientStatistics statistics = pass(*engine, mixture, x);
        double total = 0;
        for (const double N : statistics.N_k) {
            EXPECT_GE(N, 0);
            total += N;
        }
        EXPECT_NEAR(total, n, 1e-7 * n);
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

TEST_F(CudaEStepEngineTest, VanishingVarianceIsKMeans) {
    auto mixture = random_mixture(Covariance::tied_spherical, 30, 6, 1.0, 0, 20);
    std::fill(mixture.log_weights.begin(), mixture.log_weights.end(), -std::log(30.0));
    const auto x = draw(mixture, 2000, 21);
    mixture.covariances[0] = 1e-9;
    const auto engine = make_cuda_engine();
    const SufficientStatistics soft = pass(*engine, mixture, x);
    const SufficientStatistics hard = pass(*engine, mixture, x, Assignment::hard);
    EXPECT_LT(relative_distance(soft.N_k, hard.N_k), 1e-9);
    EXPECT_LT(relative_distance(soft.second_moment, hard.second_moment), 1e-6);
}

TEST_F(CudaEStepEngineTest, NamesTheFirstRowThatIsNotFinite) {
    for (const Variant& variant : variants()) {
        SCOPED_TRACE(variant.name);
        for (const Covariance covariance :
             {Covariance::tied_spherical, Covariance::tied, Covariance::full}) {
            const auto mixture = random_mixture(covariance, 5, 4, 2.0, 0, 22);
            for (const float bad :
                 {std::numeric_limits<float>::quiet_NaN(),
                  std::numeric_limits<float>::infinity(),
                  -std::numeric_limits<float>::infinity()}) {
                auto x = draw(mixture, 5000, 23);
                x[4321 * 4 + 3] = bad;
                x[4800 * 4] = bad;
                const auto engine = make_cuda_engine(variant.options);
                try {
                    pass(*engine, mixture, x, Assignment::soft, 1000);
                    FAIL() << "expected an error";
                } catch (const Error& error) {
                    EXPECT_NE(std::string(error.what()).find("row 4321 "), std::string::npos)
                            << error.what();
                }
                for (const bool fresh : {false, true}) { // what was in its memory does not matter
                    const auto other = fresh ? make_cuda_engine(variant.options) : nullptr;
                    EStepEngine& ranking = fresh ? *other : *engine;
                    ranking.begin(mixture);
                    TopResponsibilities top;
                    try {
                        ranking.top_responsibilities(chunk_of(x, 4, 0, 5000), 2, top);
                        FAIL() << "expected an error";
                    } catch (const Error& error) {
                        EXPECT_NE(std::string(error.what()).find("row 4321 "), std::string::npos)
                                << error.what();
                    }
                }
            }
        }
    }
}

/// Parameters and statistics go through the host at every iteration.
struct ThroughTheHost : ForwardingEngine {
    ThroughTheHost() : ForwardingEngine(make_cuda_engine()) {}
};

TEST_F(CudaEStepEngineTest, TrainingIsTheSameWhereverParametersAndRowsStay) {
    const size_t K = 300, d = 24, n = 60000;
    const auto x = draw(random_mixture(Covariance::tied_spherical, K, d, 1.0, 0, 61), n, 62);
    for (const Covariance covariance : forms) {
        for (const bool unit_means : {false, true}) {
            SCOPED_TRACE(name_of(covariance));
            TrainingParameters parameters;
            parameters.covariance = covariance;
            parameters.unit_means = unit_means;
            parameters.tol = 0;
            ThroughTheHost host;
            const auto engine = make_cuda_engine();
            MemorySource source(n, d, x.data());
            const TrainingResult expected = GMMTrainer(parameters).train(K, source, host);
            const TrainingResult result = GMMTrainer(parameters).train(K, source, *engine);
            EXPECT_LT(relative_distance(result.mixture.means, expected.mixture.means), 1e-5);
            EXPECT_LT(
                    relative_distance(result.mixture.covariances, expected.mixture.covariances),
                    1e-5);
            ASSERT_EQ(result.history.size(), expected.history.size());
            EXPECT_NEAR(
                    result.history.back().mean_log_likelihood,
                    expected.history.back().mean_log_likelihood,
                    1e-6 * d);
        }
    }
}

TEST_F(CudaEStepEngineTest, RefusesWhatItCannotRead) {
    const auto engine = make_cuda_engine();
    EXPECT_THROW(engine->accumulate(Chunk()), Error);
    CudaOptions elsewhere;
    elsewhere.device = 1000;
    EXPECT_THROW(make_cuda_engine(elsewhere), Error);
    const auto mixture = random_mixture(Covariance::tied_spherical, 5, 4, 2.0, 0, 24);
    engine->begin(mixture);
    engine->accumulate(Chunk()); // no rows
    EXPECT_EQ(engine->finish().rows, 0u);
    // Rows that it was to keep, without their address.
    Chunk nowhere;
    nowhere.n = 10;
    EXPECT_THROW(engine->accumulate(nowhere), Error);
    nowhere.source = VectorSource::new_number();
    EXPECT_THROW(engine->accumulate(nowhere), Error);
    nowhere.memory = Chunk::Memory::device;
    EXPECT_THROW(engine->accumulate(nowhere), Error);
    // Rows of a source that begin elsewhere than those that it keeps of it.
    const auto x = draw(mixture, 3000, 25);
    MemorySource source(3000, 4, x.data());
    const SufficientStatistics expected = pass(*engine, mixture, x);
    engine->begin(mixture);
    engine->accumulate(source.read(0, 1000));
    EXPECT_THROW(engine->accumulate(source.read(2000, 1000)), Error);
    engine->begin(mixture);
    EXPECT_THROW(engine->accumulate(source.read(1000, 2000)), Error);
    expect_same_bits(expected, pass_over(*engine, mixture, source, 1000));
}

TEST_F(CudaEStepEngineTest, MStepOnTheDeviceIsTheHosts) {
    for (const Covariance covariance : all_covariances) {
        for (const Mixing mixing : {Mixing::uniform, Mixing::free}) {
            SCOPED_TRACE(name_of(covariance));
            auto mixture = random_mixture(covariance, 50, 30, 1.0, 5, 30);
            mixture.mixing = mixing;
            const auto x = draw(mixture, 20000, 31);
            const auto engine = make_cuda_engine();
            auto start = random_mixture(covariance, 50, 30, 1.0, 5, 32);
            start.mixing = mixing;
            const GaussianMixture host = engine->maximize(pass(*engine, start, x), 1e-6);
            const SufficientStatistics before = pass(*engine, start, x);
            engine->begin(start);
            engine->accumulate(chunk_of(x, 30, 0, 20000));
            const PassSummary summary = engine->advance(1e-6);
            EXPECT_EQ(summary.rows, before.rows);
            EXPECT_EQ(summary.shared_rows, before.shared_rows);
            EXPECT_EQ(summary.sum_log_likelihood, before.sum_log_likelihood);
            EXPECT_EQ(summary.N_k, before.N_k);
            const GaussianMixture device = engine->mixture();
            EXPECT_LT(relative_distance(device.means, host.means), 1e-7);
            EXPECT_LT(relative_distance(device.covariances, host.covariances), 1e-12);
            EXPECT_LT(relative_distance(device.log_weights, host.log_weights), 1e-12);
            // And the next pass from there.
            engine->begin_again(Assignment::soft);
            engine->accumulate(chunk_of(x, 30, 0, 20000));
            const SufficientStatistics again = engine->finish();
            const SufficientStatistics uploaded = pass(*engine, device, x);
            expect_same_bits(again, uploaded);
        }
    }
}

/// Larger data, the automatic choice against the exact tier (which the tests above tie to the oracle).
TEST_P(CudaEStepEngineForms, TiersAgreeOnLargerData) {
    const struct {
        const char* name;
        size_t n, K, d;
        double spread;
        bool fits_dense; ///< the bound of its scores lets all rows take the dense tier
    } cases[] = {
            {"separate", 60000, 1024, 128, 1.0, false},
            {"overlap", 60000, 1024, 128, 0.28, true},
            {"nearly one cloud", 20000, 1024, 128, 0.1, true},
            {"many components", 60000, 8192, 32, 1.0, true},
            {"wide", 20000, 512, 960, 0.12, false}};
    const Covariance covariance = GetParam();
    for (const auto& c : cases) {
        if (covariance == Covariance::tied && c.d > 200) {
            continue; // drawing takes n d^2
        }
        SCOPED_TRACE(name_of(covariance));
        SCOPED_TRACE(c.name);
        const auto mixture = random_mixture(covariance, c.K, c.d, c.spread, 0, 40);
        const auto x = draw(mixture, c.n, 41);
        CudaOptions exactly;
        exactly.tier = CudaTier::exact;
        const auto exact = make_cuda_engine(exactly);
        const SufficientStatistics a = pass(*exact, mixture, x);
        const GaussianMixture a_next = exact->maximize(a, 1e-6);
        CudaOptions portable, best, densely;
        portable.path = CudaPath::portable;
        densely.tier = CudaTier::dense;
        for (const auto& [how, options] :
             {std::pair{"portable", portable}, {"best", best}, {"dense", densely}}) {
            const auto engine = make_cuda_engine(options);
            const SufficientStatistics b = pass(*engine, mixture, x);
            const GaussianMixture b_next = engine->maximize(b, 1e-6);
            std::printf(
                    "  %s, %s, %s: %.2f pairs a row, %.3f of rows dense, %.3f exact\n",
                    name_of(covariance),
                    c.name,
                    how,
                    double(engine->counts().pairs) / c.n,
                    double(engine->counts().dense_rows) / c.n,
                    double(engine->counts().exact_rows) / c.n);
            if (c.fits_dense && options.tier == CudaTier::dense) {
                // Otherwise fp64 is compared with itself.
                EXPECT_EQ(engine->counts().dense_rows, c.n);
            } else if (c.name == std::string("overlap")) {
                // Rows with and without lists, beside each other.
                EXPECT_GT(engine->counts().dense_rows, 0u);
                EXPECT_GT(engine->counts().pairs, 0u);
                expect_same_bits(b, pass(*engine, mixture, x));
            }
            PrintedBudget budget;
            budget.use(
                    "log-likelihood",
                    std::abs(a.sum_log_likelihood - b.sum_log_likelihood) / c.n / (1e-6 * c.d));
            budget.use("N_k", relative_distance(b.N_k, a.N_k) / 1e-4);
            budget.use(
                    "means",
                    relative_distance(
                            of_living(b_next.means, a.N_k), of_living(a_next.means, a.N_k)) /
                            1e-4);
            budget.use(
                    "covariances",
                    relative_distance(
                            of_living(b_next.covariances, a.N_k),
                            of_living(a_next.covariances, a.N_k)) /
                            1e-4);
        }
    }
}

/// Rows of 384 and 960 dimensions whose components overlap: their scores' bound allows the dense tier.
TEST_F(CudaEStepEngineTest, WideRowsThatOverlapStayOutOfFp64) {
    const struct {
        size_t d;
        double spread; ///< |y| max|c| 2 hp is some 135 and 180
        double off;    ///< of variances, where there are several: |hp - h| |y|^2 is some 40 and 10
    } cases[] = {{384, 0.3, 0.1}, {960, 0.17, 0.01}};
    constexpr size_t n = 20000;
    for (const Covariance covariance :
         {Covariance::tied_spherical, Covariance::spherical, Covariance::diagonal}) {
        for (const auto& c : cases) {
            SCOPED_TRACE(name_of(covariance));
            SCOPED_TRACE(c.d);
            // Sums of twice as many columns are rounded more.
            const double spread = c.spread * (covariance == Covariance::diagonal ? 0.85 : 1);
            auto mixture = random_mixture(covariance, 1024, c.d, spread, 0, 42);
            const double off = covariance == Covariance::tied_spherical ? 0 : c.off;
            for (double& variance : mixture.covariances) { // of 0.5 to 1.5
                variance = 1 + off * (2 * variance - 2);
            }
            const auto x = draw(mixture, n, 43);
            for (const CudaPath path : {CudaPath::portable, CudaPath::automatic}) {
                CudaOptions options;
                options.path = path;
                const auto engine = make_cuda_engine(options);
                pass(*engine, mixture, x);
                std::printf(
                        "  %s, d %zu, path %d: %zu dense, %zu exact of %zu rows\n",
                        name_of(covariance),
                        c.d,
                        static_cast<int>(path),
                        engine->counts().dense_rows,
                        engine->counts().exact_rows,
                        n);
                EXPECT_GT(engine->counts().dense_rows, n / 100);
                EXPECT_EQ(engine->counts().exact_rows, 0u);
            }
        }
    }
}

/// Components whose rows all have the same number in some axes, as empty bins of descriptors are: of a diagonal
/// mixture's variances one is then a billionth of another. No row loses its list for it.
TEST_F(CudaEStepEngineTest, EmptyBinsCostNoLists) {
    constexpr size_t K = 150, d = 48, n = 20000;
    for (const Variant& variant : {variants()[0], variants()[1], variants()[2]}) {
        const auto engine = make_cuda_engine(variant.options);
        for (const size_t step : {K, size_t{5}, size_t{1}}) { // one such component, 30, all
            SCOPED_TRACE(variant.name);
            SCOPED_TRACE(step);
            PrintedBudget budget;
            auto mixture = random_mixture(Covariance::diagonal, K, d, 2.0, 5, 70);
            for (size_t k = 0; k < K; k += step) {
                for (size_t j = k % 7; j < d; j += 7) {
                    mixture.means[k * d + j] = 0;
                    mixture.covariances[k * d + j] = 1e-9;
                }
            }
            const auto x = draw(mixture, n, 71);
            expect_like_oracle(*engine, mixture, x, 0, budget);
            pass(*engine, mixture, x);
            EXPECT_EQ(engine->counts().dense_rows + engine->counts().exact_rows, 0u);
        }
    }
}

/// Rows without a list go to fp64 where a component of next to no variance may be near them, and nowhere else.
TEST_F(CudaEStepEngineTest, ThinComponentsSendTheirOwnRowsToFp64) {
    constexpr size_t K = 300, d = 64, n = 20000;
    for (const CudaPath path : {CudaPath::portable, CudaPath::automatic}) {
        CudaOptions options;
        options.path = path;
        options.pair_threshold = 1e-8;
        const auto engine = make_cuda_engine(options);
        for (const Covariance covariance : {Covariance::spherical, Covariance::diagonal}) {
            const size_t part = GaussianMixture::covariance_size(covariance, K, d) / K;
            for (const size_t step : {K, size_t{10}}) {
                SCOPED_TRACE(name_of(covariance));
                SCOPED_TRACE(::testing::Message() << "step " << step << " path " << int(path));
                PrintedBudget budget;
                auto mixture = random_mixture(covariance, K, d, 0.15, 0, 72);
                for (double& variance : mixture.covariances) { // so alike that rows have no list
                    variance = 1 + 0.1 * (variance - 1);
                }
                double share = 0;
                for (size_t k = 0; k < K; k += step) {
                    mixture.covariances[k * part + k % part] = 1e-9;
                    share += std::exp(mixture.log_weights[k]);
                }
                const auto x = draw(mixture, n, 73);
                expect_like_oracle(*engine, mixture, x, 0, budget);
                pass(*engine, mixture, x);
                const CudaPassCounts counts = engine->counts();
                std::printf(
                        "  %zu dense, %zu exact of %zu rows, %.0f of thin components\n",
                        counts.dense_rows,
                        counts.exact_rows,
                        n,
                        share * n);
                EXPECT_GT(counts.dense_rows, 0.9 * (1 - share) * n);
                EXPECT_LE(counts.exact_rows, 1.5 * share * n + 10);
            }
        }
    }
}

/// Rows with lists, of the dense tier and of fp64, by what thin components leave them.
TEST_F(CudaEStepEngineTest, ThinComponentsAreTheSameBitsForAnyChunks) {
    constexpr size_t K = 90, d = 12, n = 700001;
    auto mixture = random_mixture(Covariance::diagonal, K, d, 1.1, 0, 76);
    for (size_t k = 0; k < K; k += 9) {
        mixture.covariances[k * d + k % d] = 1e-9;
    }
    const auto x = draw(mixture, n, 77);
    for (const CudaPath path : {CudaPath::portable, CudaPath::automatic}) {
        CudaOptions options;
        options.path = path;
        const auto engine = make_cuda_engine(options);
        const SufficientStatistics first = pass(*engine, mixture, x);
        const CudaPassCounts counts = engine->counts();
        std::printf(
                "  %zu dense, %zu exact of %zu rows\n", counts.dense_rows, counts.exact_rows, n);
        EXPECT_GT(counts.dense_rows, n / 100);
        EXPECT_GT(counts.exact_rows, n / 10000);
        EXPECT_LT(counts.dense_rows + counts.exact_rows, n - n / 100);
        expect_same_bits(first, pass(*engine, mixture, x, Assignment::soft, 77777));
        options.gpu_memory = size_t{1} << 20; // one block at a time
        expect_same_bits(first, pass(*make_cuda_engine(options), mixture, x));
    }
}

/// The dense tier's scores are relative to a component that there is.
TEST_F(CudaEStepEngineTest, AFirstComponentWithoutWeightLeavesTheDenseTier) {
    constexpr size_t K = 200, d = 64, n = 2000;
    for (const CudaPath path : {CudaPath::portable, CudaPath::automatic}) {
        CudaOptions options;
        options.path = path;
        const auto engine = make_cuda_engine(options);
        for (const Covariance covariance :
             {Covariance::tied_spherical, Covariance::spherical, Covariance::diagonal}) {
            SCOPED_TRACE(name_of(covariance));
            SCOPED_TRACE(static_cast<int>(path));
            PrintedBudget budget;
            auto mixture = random_mixture(covariance, K, d, 0.15, 0, 74);
            if (covariance != Covariance::tied_spherical) {
                for (double& variance : mixture.covariances) {
                    variance = 1 + 0.1 * (variance - 1);
                }
            }
            const double lost = std::exp(mixture.log_weights[0]);
            mixture.log_weights[0] = -std::numeric_limits<double>::infinity();
            for (double& value : mixture.log_weights) {
                value -= std::log1p(-lost);
            }
            const auto x = draw(mixture, n, 75);
            expect_like_oracle(*engine, mixture, x, 0, budget);
            pass(*engine, mixture, x);
            EXPECT_GT(engine->counts().dense_rows, 9 * n / 10);
            EXPECT_EQ(engine->counts().exact_rows, 0u);
        }
    }
}

/// What the threshold costs, on data like descriptors: 2 to 3 components a row above 1e-5.
TEST_F(CudaEStepEngineTest, SharesBelowTheThresholdGoHome) {
    for (const Covariance covariance : forms) {
        const auto mixture = random_mixture(covariance, 1024, 32, 1.25, 0, 60);
        const auto x = draw(mixture, 100000, 61);
        CudaOptions options;
        options.tier = CudaTier::exact;
        options.pair_threshold = 1e-30;
        const auto exact = make_cuda_engine(options);
        const SufficientStatistics all = pass(*exact, mixture, x);
        const GaussianMixture all_next = exact->maximize(all, 1e-6);
        for (const double threshold : {1e-4, 1e-5, 1e-6, 1e-7, 0.0}) {
            CudaOptions some;
            some.pair_threshold = threshold;
            const auto engine = make_cuda_engine(some);
            const SufficientStatistics kept = pass(*engine, mixture, x);
            const GaussianMixture next = engine->maximize(kept, 1e-6);
            const double N_k = relative_distance(kept.N_k, all.N_k);
            const double means = relative_distance(next.means, all_next.means);
            const double covariances = relative_distance(next.covariances, all_next.covariances);
            std::printf(
                    "  %s, threshold %.0e: N_k %.1e, means %.1e, covariances %.1e; %.2f other "
                    "pairs a "
                    "row, %zu rows without a list\n",
                    name_of(covariance),
                    threshold,
                    N_k,
                    means,
                    covariances,
                    double(engine->counts().pairs) / 1e5,
                    engine->counts().dense_rows + engine->counts().exact_rows);
            if (threshold == 0) { // the default
                EXPECT_LT(N_k, 1e-4);
                EXPECT_LT(means, 1e-4);
                EXPECT_LT(covariances, 1e-4);
            }
        }
    }
}

TEST_F(CudaEStepEngineTest, CandidatesAreCountedWhereItIsAskedFor) {
    const size_t n = 5000, K = 64, d = 24;
    const auto apart = random_mixture(Covariance::tied_spherical, K, d, 30.0, 0, 44);
    const auto near = random_mixture(Covariance::tied_spherical, K, d, 0.7, 0, 46);
    const auto x = draw(apart, n, 45), between = draw(near, n, 47);
    for (const bool asked : {false, true}) {
        CudaOptions options;
        options.time_phases = asked;
        const auto engine = make_cuda_engine(options);
        for (const size_t piece : {n, n / 3}) {
            pass(*engine, apart, x, Assignment::soft, piece);
            EXPECT_EQ(engine->counts().candidates, asked ? n : 0);
            pass(*engine, near, between, Assignment::soft, piece);
            const CudaPassCounts counts = engine->counts();
            const size_t listed = n - counts.dense_rows - counts.exact_rows;
            EXPECT_GT(counts.pairs, 0u);
            EXPECT_GE(counts.candidates, asked ? listed + counts.pairs : 0);
            EXPECT_LE(counts.candidates, asked ? 32 * listed : 0);
        }
    }
}

/// Rows of every tier side by side, with the last pass's homes as hints and without.
TEST_P(CudaEStepEngineAllForms, RepeatsAreTheSameBits) {
    const Covariance covariance = GetParam();
    const bool has_lists = covariance != Covariance::full;
    const size_t K = has_lists ? 300 : 40, d = has_lists ? 40 : 12, n = has_lists ? 8000 : 1500;
    auto mixture = random_mixture(covariance, K, d, 0.5, 0, 50);
    // Two thirds of the components lie together, the others two by two, and the first axis tells nothing: a row far along
    // it has all of them as candidates, with scores too large for the dense tier's bound.
    for (size_t at = 0; at < K * d; ++at) {
        mixture.means[at] *= at % d == 0 ? 0.0f : at / d % 3 == 0 ? 4.0f : 0.1f;
        if (at / d % 6 == 3 && at % d != 0) {
            mixture.means[at] = mixture.means[at - 3 * d] + 0.3f;
        }
    }
    for (size_t at = 0; at < mixture.covariances.size(); ++at) {
        if (covariance == Covariance::spherical || (at % d == 0 && !has_matrices(covariance))) {
            mixture.covariances[at] = 1.0;
        } else if (has_matrices(covariance) && (at % d == 0 || at / d % d == 0)) {
            mixture.covariances[at] = at % (d * d) == 0 ? 1.0 : 0.0;
        }
    }
    auto x = draw(mixture, n, 51);
    x[7 * d] = 1e5f;
    MemorySource source(n, d, x.data());
    const auto engine = make_cuda_engine();
    const SufficientStatistics unhinted = pass(*engine, mixture, x);
    const CudaPassCounts counts = engine->counts();
    EXPECT_GT(counts.exact_rows, 0u);
    if (has_lists) {
        EXPECT_GT(counts.pairs, 0u);
        EXPECT_GT(counts.dense_rows, 0u);
        EXPECT_LT(counts.dense_rows + counts.exact_rows, n);
    }
    std::printf(
            "  %zu pairs, %zu dense, %zu exact of %zu rows\n",
            counts.pairs,
            counts.dense_rows,
            counts.exact_rows,
            n);
    pass_over(*engine, mixture, source, n);
    const SufficientStatistics hinted = pass_over(*engine, mixture, source, n);
    for (int repeat = 0; repeat < 1000 && !HasFailure(); ++repeat) {
        SCOPED_TRACE(repeat);
        expect_same_bits(hinted, pass_over(*engine, mixture, source, n));
        if (repeat % 2 == 0) { // and forgets the hints
            expect_same_bits(unhinted, pass(*engine, mixture, x));
            pass_over(*engine, mixture, source, n);
        }
    }
}

} // namespace
} // namespace faiss_gmm
