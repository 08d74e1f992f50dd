// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The dense tier by itself, both forms, against the fp64 oracle row by row; and what dense_wgmma.cu's
// bound takes for granted of Hopper's tensor cores.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include "faiss_gmm/train/cuda/cuda_estep_engine.h"
#include "faiss_gmm/train/cuda/detail/dense.h"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/hopper.cuh"
#include "tests/train/naive_em.h"
#include "tests/train/random_data.h"

namespace faiss_gmm::cuda {
namespace {

template <class T> class OnDevice {
public:
    explicit OnDevice(const std::vector<T>& values) : count_(values.size()) {
        array_.reserve(count_);
        check(cudaMemcpy(array_.data(), values.data(), count_ * sizeof(T), cudaMemcpyDefault),
              "copying");
    }
    T* data() const {
        return array_.data();
    }
    std::vector<T> read() const {
        std::vector<T> values(count_);
        check(cudaMemcpy(values.data(), array_.data(), count_ * sizeof(T), cudaMemcpyDefault),
              "copying");
        return values;
    }

private:
    DeviceArray<T> array_;
    size_t count_;
};

bool on_hopper() {
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "asking");
    return major == 9;
}

struct Outcome {
    std::vector<double> first_moment, mass, log_likelihood, moment;
    unsigned long long shared_rows = 0;
};

/// `calls`: how many calls the blocks [left] are spread over.
Outcome
sum(const GaussianMixture& mixture,
    const std::vector<float>& x,
    const std::vector<int>& left,
    CollectPath path,
    int calls) {
    const int K = static_cast<int>(mixture.K), d = static_cast<int>(mixture.d);
    const size_t n = x.size() / d;
    const double half_precision = 0.5 / mixture.covariances[0];
    std::vector<double> constants(K);
    std::vector<float> means(mixture.means.begin(), mixture.means.end());
    for (int k = 0; k < K; ++k) {
        constants[k] = mixture.log_weights[k] + 0.5 * d * std::log(half_precision / M_PI);
    }
    const OnDevice<float> means_there(means), rows_there(x), origin(std::vector<float>(d, 0.1f));
    const OnDevice<double> constant(constants), precise({half_precision});
    const OnDevice<float> rounded({static_cast<float>(half_precision)});
    MixtureView view;
    view.K = K;
    view.d = d;
    view.means = means_there.data();
    view.constant = constant.data();
    view.half_precision = precise.data();
    view.half_precision32 = rounded.data();
    std::vector<uint32_t> order(n);
    for (size_t i = 0; i < n; ++i) {
        order[i] = static_cast<uint32_t>(n - 1 - i);
    }
    const OnDevice<uint32_t> order_there(order);
    const DenseShape shape = dense_shape(path, K, d);
    const DenseBytes bytes = dense_bytes(shape);
    DeviceBytes of_pass, of_chunk;
    of_pass.reserve(bytes.pass);
    of_chunk.reserve(bytes.chunk);
    check(cudaMemset(of_pass.data(), 0xff, of_pass.size()), "poisoning");
    check(cudaMemset(of_chunk.data(), 0xff, of_chunk.size()), "poisoning");
    const OnDevice<float> scale(std::vector<float>(dense_scales, 0.0f));
    const DenseBuffers buffers =
            place_dense_buffers(shape, of_pass.data(), of_chunk.data(), scale.data());
    find_dense_scales(view, origin.data(), shape, scale.data(), nullptr);
    prepare_dense(view, origin.data(), shape, buffers, nullptr);
    const size_t moments = mixture.means.size();
    const OnDevice<double> sums(std::vector<double>(moments + K, 0.0));
    const OnDevice<double> of_rows(std::vector<double>(2 * n, 0.0));
    const OnDevice<unsigned long long> shared_rows({0});
    PassSums pass;
    pass.first_moment = sums.data();
    pass.mass = sums.data() + moments;
    const DenseOutput output{of_rows.data(), of_rows.data() + n, shared_rows.data()};
    const int blocks = static_cast<int>(left.size()) - 1;
    for (int first = 0; first < blocks; first += (blocks + calls - 1) / calls) {
        const int here = std::min((blocks + calls - 1) / calls, blocks - first);
        const DenseRows rows{
                Rows(rows_there.data(), ElementType::f32, d),
                order_there.data(),
                left.data() + first,
                here};
        sum_densely(view, origin.data(), shape, buffers, rows, pass, output, nullptr);
    }
    Outcome outcome;
    const std::vector<double> all = sums.read(), rows = of_rows.read();
    outcome.first_moment.assign(all.begin(), all.begin() + moments);
    outcome.mass.assign(all.begin() + moments, all.end());
    outcome.log_likelihood.assign(rows.begin(), rows.begin() + n);
    outcome.moment.assign(rows.begin() + n, rows.end());
    outcome.shared_rows = shared_rows.read()[0];
    return outcome;
}

class DenseTest : public ::testing::Test {
protected:
    void SetUp() override {
        const std::string obstacle = cuda_obstacle();
        if (!obstacle.empty()) {
            GTEST_SKIP() << "no usable GPU: " << obstacle;
        }
    }
};

TEST_F(DenseTest, AgreesWithTheOracleRowByRow) {
    const struct {
        size_t K, d;
        double spread;
    } cases[] = {
            {1, 16, 0.3},
            {5, 17, 0.3},
            {70, 64, 0.15},
            {129, 65, 0.15},
            {128, 96, 0.1},
            {300, 100, 0.1},
            {1000, 128, 0.1}};
    const std::vector<int> left = {0, 100, 100, 2700, 2956, 3000};
    for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
        if (path == CollectPath::hopper && !on_hopper()) {
            continue;
        }
        for (const auto& c : cases) {
            SCOPED_TRACE(
                    ::testing::Message() << "path " << int(path) << " K " << c.K << " d " << c.d);
            const auto mixture =
                    testing::random_mixture(Covariance::tied_spherical, c.K, c.d, c.spread, 0, 1);
            const size_t n = left.back();
            const auto x = testing::draw(mixture, n, 2);
            const auto oracle = naive::iterate(mixture, n, x.data(), 0, false);
            const Outcome outcome = sum(mixture, x, left, path, 1);
            double worst_likelihood = 0, worst_moment = 0, shared = 0;
            std::vector<double> first_moment(c.K * c.d);
            for (size_t i = 0; i < n; ++i) {
                std::vector<double> r(
                        &oracle.responsibilities[i * c.K], &oracle.responsibilities[i * c.K] + c.K);
                double moment = 0;
                for (size_t k = 0; k < c.K; ++k) {
                    double square = 0;
                    for (size_t j = 0; j < c.d; ++j) {
                        const double y = double(x[i * c.d + j]) - mixture.means[k * c.d + j];
                        square += y * y;
                        first_moment[k * c.d + j] += r[k] * y;
                    }
                    moment += r[k] * square;
                }
                std::sort(r.rbegin(), r.rend());
                shared += c.K > 1 && r[1] > 1.0 / c.K;
                worst_likelihood = std::max(
                        worst_likelihood,
                        std::abs(outcome.log_likelihood[i] - oracle.log_likelihood[i]));
                worst_moment =
                        std::max(worst_moment, std::abs(outcome.moment[i] - moment) / moment);
            }
            double mass = 0, moment_error = 0, moment_size = 0;
            for (size_t k = 0; k < c.K; ++k) {
                mass = std::max(
                        mass, std::abs(outcome.mass[k] - oracle.N_k[k]) / (1 + oracle.N_k[k]));
            }
            for (size_t i = 0; i < first_moment.size(); ++i) {
                moment_error += std::pow(outcome.first_moment[i] - first_moment[i], 2);
                moment_size += std::pow(first_moment[i], 2);
            }
            const double moments = std::sqrt(moment_error / moment_size);
            std::printf(
                    "  path %d, K %zu, d %zu: likelihood %.1e nats, |x - mu|^2 %.1e, N_k %.1e, "
                    "moments %.1e\n",
                    int(path),
                    c.K,
                    c.d,
                    worst_likelihood,
                    worst_moment,
                    mass,
                    moments);
            EXPECT_LT(worst_likelihood, 1e-6 * c.d);
            EXPECT_LT(worst_moment, 1e-5);
            EXPECT_LT(mass, 1e-5);
            EXPECT_LT(moments, 1e-4); // about the old means: small beside the means
            EXPECT_NEAR(double(outcome.shared_rows), shared, 2);
        }
    }
}

TEST_F(DenseTest, SameBitsInAnyNumberOfCalls) {
    for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
        if (path == CollectPath::hopper && !on_hopper()) {
            continue;
        }
        const auto mixture =
                testing::random_mixture(Covariance::tied_spherical, 200, 100, 0.1, 0, 1);
        const std::vector<int> left = {0, 5000, 5001, 40000, 90000};
        const auto x = testing::draw(mixture, left.back(), 2);
        const Outcome once = sum(mixture, x, left, path, 1);
        for (const int calls : {1, 2, 4}) {
            const Outcome again = sum(mixture, x, left, path, calls);
            EXPECT_EQ(again.first_moment, once.first_moment);
            EXPECT_EQ(again.mass, once.mass);
            EXPECT_EQ(again.log_likelihood, once.log_likelihood);
            EXPECT_EQ(again.moment, once.moment);
            EXPECT_EQ(again.shared_rows, once.shared_rows);
        }
    }
}

/// out[0]: 1 + 15 products of 2^-e; out[1]: 1 from before + 16 of them.
__global__ void add_small_products(int e, float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    __shared__ __align__(1024) __half a[128 * 64], b[128 * 64];
    for (int with_one = 1; with_one >= 0; --with_one) {
        for (int i = threadIdx.x; i < 128 * 64; i += blockDim.x) {
            const int row = i / 64, column = i % 64;
            const int place = row * 64 + ((column / 8) ^ (row % 8)) * 8 + column % 8;
            const bool one = with_one && column == 0;
            a[place] = __float2half(one ? 1.0f : column < 16 ? 0x1.0p-12f : 0.0f);
            b[place] = __float2half(one ? 1.0f : column < 16 ? exp2f(12.0f - e) : 0.0f);
        }
        hopper::fence_for_async_proxy();
        __syncthreads();
        float acc[64];
        for (float& value : acc) {
            value = with_one ? 0 : 1;
        }
        hopper::begin_products();
        hopper::multiply_asynchronously(
                acc, hopper::operand_descriptor(a), hopper::operand_descriptor(b));
        hopper::close_group();
        hopper::wait_for_all_but<0>();
        if (threadIdx.x == 0) {
            out[1 - with_one] = acc[0];
        }
        __syncthreads();
    }
#endif
}

TEST_F(DenseTest, HopperAddsSixteenProductsWithTwoBitsBehindTheLast) {
    if (!on_hopper()) {
        GTEST_SKIP() << "not a Hopper GPU";
    }
    const OnDevice<float> out(std::vector<float>(2));
    for (int e = 20; e <= 25; ++e) {
        add_small_products<<<1, 128>>>(e, out.data());
        check(cudaDeviceSynchronize(), "multiplying");
        for (int i = 0; i < 2; ++i) {
            // Kept down to 2^-25 of the largest, in one sum; then cut to the last place, 2^-23.
            const double exact = (15 + i) * std::exp2(-e);
            EXPECT_EQ(out.read()[i] - 1.0, std::floor(exact * 0x1.0p23) * 0x1.0p-23) << "e " << e;
        }
    }
}

} // namespace
} // namespace faiss_gmm::cuda
