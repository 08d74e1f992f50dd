// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The CUDA engine on the benchmarks' data sets against the fp64 oracle: the tolerances that any engine must
// keep, what shares below other thresholds cost, and the same bits in a second engine.
//   FAISS_GMM_TEST_ROWS=100000   rows of each set (10,000 without it)
//   FAISS_GMM_TEST_DESCRIPTORS   a .u8bin file instead of the embedded set
// Cost of the oracle: n K d, of matrices 2 n K d^2 multiplications in fp64 on all threads.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "datasets/drawn_rows.h"
#include "faiss_gmm/train/cuda/cuda_estep_engine.h"
#include "tests/train/engine_checks.h"
#include "tests/train/random_data.h"

namespace faiss_gmm {
namespace {

using testing::Budget;
using testing::chunk_of;
using testing::errors_of;
using testing::expect_same_bits;
using testing::IterationErrors;
using testing::name_of;
using testing::pass;

constexpr double reg_covar = 1e-6;

size_t rows_of_a_set() {
    const char* given = std::getenv("FAISS_GMM_TEST_ROWS");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : 10000;
}

std::string descriptors() {
    const char* given = std::getenv("FAISS_GMM_TEST_DESCRIPTORS");
    return given != nullptr ? given : FAISS_GMM_EMBEDDED_DIR "/base.u8bin";
}

/// At most n rows; d as read. Empty: no such file.
std::vector<float> read_bytes(const std::string& path, size_t n, size_t& d) {
    std::ifstream file(path, std::ios::binary);
    uint32_t shape[2] = {0, 0};
    file.read(reinterpret_cast<char*>(shape), sizeof shape);
    d = shape[1];
    std::vector<uint8_t> bytes(std::min<size_t>(n, shape[0]) * d);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return file ? std::vector<float>(bytes.begin(), bytes.end()) : std::vector<float>();
}

/// The mixture with one variance and equal weights around these means.
GaussianMixture
around(Covariance covariance, size_t K, size_t d, std::vector<float> means, double variance) {
    GaussianMixture mixture;
    mixture.K = K;
    mixture.d = d;
    mixture.covariance = covariance;
    mixture.means = std::move(means);
    mixture.log_weights.assign(K, -std::log(double(K)));
    const size_t size = GaussianMixture::covariance_size(covariance, K, d);
    const bool matrices = covariance == Covariance::tied || covariance == Covariance::full;
    for (size_t i = 0; i < size; ++i) {
        mixture.covariances.push_back(!matrices || i / d % d == i % d ? variance : 0.0);
    }
    return mixture;
}

/// Of rows: what ten Lloyd steps lead to, with the covariances of the last one.
GaussianMixture
after_lloyd_steps(Covariance covariance, size_t K, size_t d, const std::vector<float>& x) {
    std::vector<float> means;
    const size_t n = x.size() / d;
    for (size_t k = 0; k < K; ++k) {
        const auto row = x.begin() + static_cast<std::ptrdiff_t>(n / K * k * d);
        means.insert(means.end(), row, row + static_cast<std::ptrdiff_t>(d));
    }
    const auto engine = make_cuda_engine();
    for (int step = 0; step < 10; ++step) {
        const auto mixture = around(Covariance::tied_spherical, K, d, std::move(means), 1);
        means = engine->maximize(pass(*engine, mixture, x, Assignment::hard), reg_covar).means;
    }
    // Bytes: a component of few rows keeps a variance of some size.
    const auto mixture = around(covariance, K, d, std::move(means), 1);
    return engine->maximize(pass(*engine, mixture, x, Assignment::hard), 1.0);
}

/// Components that so many rows can feed: 60 rows each, or of matrices more than dimensions.
size_t components_for(Covariance covariance, size_t n) {
    return covariance == Covariance::full   ? std::clamp<size_t>(n / 1000, 2, 64)
           : covariance == Covariance::tied ? std::clamp<size_t>(n / 300, 2, 256)
                                            : std::clamp<size_t>(n / 60, 2, 1024);
}

class CudaEStepTolerances : public ::testing::TestWithParam<std::tuple<const char*, Covariance>> {
protected:
    void SetUp() override {
        const std::string obstacle = cuda_obstacle();
        if (!obstacle.empty()) {
            GTEST_SKIP() << "no usable GPU: " << obstacle;
        }
        const auto [data, covariance] = GetParam();
        const size_t n = rows_of_a_set();
        size_t d = 128;
        if (std::string(data) == "descriptors") {
            x_ = read_bytes(descriptors(), n, d);
            if (x_.empty()) {
                GTEST_SKIP() << "no rows in " << descriptors()
                             << ": name a .u8bin file in FAISS_GMM_TEST_DESCRIPTORS";
            }
            mixture_ =
                    after_lloyd_steps(covariance, components_for(covariance, x_.size() / d), d, x_);
            return;
        }
        const size_t K = components_for(covariance, n);
        const DrawnRows rows = drawn_rows(data, n, K, d);
        x_ = rows.rows(n);
        DrawnRows start = rows;
        start.spread = rows.spread > 0 ? rows.spread : 0.25f;
        mixture_ = around(covariance, K, d, start.means(), double(rows.sigma) * rows.sigma);
    }
    std::vector<float> x_;
    GaussianMixture mixture_;
};

TEST_P(CudaEStepTolerances, AreKept) {
    const size_t n = x_.size() / mixture_.d;
    const naive::Iteration oracle = naive::iterate(mixture_, n, x_.data(), reg_covar);
    const auto engine = make_cuda_engine();
    {
        Budget budget(2e-6);
        expect_like_oracle(*engine, mixture_, x_, 0, budget, oracle, reg_covar);
        std::printf("  n %zu K %zu d %zu, the default threshold:\n", n, mixture_.K, mixture_.d);
        budget.print();
    }
    const SufficientStatistics first = pass(*engine, mixture_, x_);
    expect_same_bits(first, pass(*engine, mixture_, x_));
    expect_same_bits(first, pass(*make_cuda_engine(), mixture_, x_));
    const CudaPassCounts counts = engine->counts();
    const auto print = [&](const char* threshold,
                           const SufficientStatistics& statistics,
                           const CudaPassCounts& counts) {
        const IterationErrors errors =
                errors_of(statistics, engine->maximize(statistics, reg_covar), oracle);
        std::printf(
                "  threshold %s: nats %.1e, N_k %.1e, means %.1e, covariances %.1e; %.2f other "
                "pairs a row, %zu dense and %zu exact rows\n",
                threshold,
                errors.log_likelihood,
                errors.N_k,
                errors.means,
                errors.covariances,
                double(counts.pairs) / n,
                counts.dense_rows,
                counts.exact_rows);
        return errors;
    };
    double last = 1;
    for (const char* threshold : {"1e-4", "1e-5", "1e-6", "1e-7"}) {
        CudaOptions options;
        options.pair_threshold = std::atof(threshold);
        const auto other = make_cuda_engine(options);
        const SufficientStatistics statistics = pass(*other, mixture_, x_);
        const double error = print(threshold, statistics, other->counts()).N_k;
        EXPECT_LE(error, last + 1e-6) << "less is left out, yet N_k is further off";
        last = error;
    }
    print("default", first, counts);
}

INSTANTIATE_TEST_SUITE_P(
        All,
        CudaEStepTolerances,
        ::testing::Combine(
                ::testing::Values("separate", "overlap", "isotropic", "descriptors"),
                ::testing::ValuesIn(testing::all_covariances)),
        [](const auto& info) {
            return std::string(std::get<0>(info.param)) + "_" + name_of(std::get<1>(info.param));
        });

} // namespace
} // namespace faiss_gmm
