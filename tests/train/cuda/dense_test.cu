// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The dense tier by itself, all forms, against the fp64 oracle row by row; the bound of its scores, with
// rows that are hard on it; and what the bound on Hopper takes for granted of the tensor cores.
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

/// A model on the device, with the tier's memory for it.
struct Tier {
    Tier(const GaussianMixture& mixture, CollectPath path, float origin_number)
            : K(static_cast<int>(mixture.K)), d(static_cast<int>(mixture.d)),
              half_precision(0.5 / mixture.covariances[0]), shape(dense_shape(path, K, d)),
              means({mixture.means.begin(), mixture.means.end()}),
              origin(std::vector<float>(d, origin_number)), constant(constants(mixture)),
              precise({half_precision}), rounded({static_cast<float>(half_precision)}),
              scale(std::vector<float>(dense_scales, 0.0f)) {
        view.K = K;
        view.d = d;
        view.means = means.data();
        view.constant = constant.data();
        view.half_precision = precise.data();
        view.half_precision32 = rounded.data();
        const DenseBytes bytes = dense_bytes(shape);
        of_pass.reserve(bytes.pass);
        of_chunk.reserve(bytes.chunk);
        check(cudaMemset(of_pass.data(), 0xff, of_pass.size()), "poisoning");
        check(cudaMemset(of_chunk.data(), 0xff, of_chunk.size()), "poisoning");
        buffers = place_dense_buffers(shape, of_pass.data(), of_chunk.data(), scale.data());
        find_dense_scales(view, origin.data(), shape, scale.data(), nullptr);
        prepare_dense(view, origin.data(), shape, buffers, nullptr);
    }
    std::vector<double> constants(const GaussianMixture& mixture) const {
        std::vector<double> values(K);
        for (int k = 0; k < K; ++k) {
            values[k] = mixture.log_weights[k] + 0.5 * d * std::log(half_precision / M_PI);
        }
        return values;
    }
    /// Of rows in descending order. `calls`: how many calls the blocks [left] are spread over.
    Outcome sum(const std::vector<float>& x, const std::vector<int>& left, int calls) const {
        const size_t n = x.size() / d, moments = static_cast<size_t>(K) * d;
        std::vector<uint32_t> order(n);
        for (size_t i = 0; i < n; ++i) {
            order[i] = static_cast<uint32_t>(n - 1 - i);
        }
        const OnDevice<uint32_t> order_there(order);
        const OnDevice<float> rows_there(x);
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
        const std::vector<double> all = sums.read(), values = of_rows.read();
        outcome.first_moment.assign(all.begin(), all.begin() + moments);
        outcome.mass.assign(all.begin() + moments, all.end());
        outcome.log_likelihood.assign(values.begin(), values.begin() + n);
        outcome.moment.assign(values.begin() + n, values.end());
        outcome.shared_rows = shared_rows.read()[0];
        return outcome;
    }
    /// |y|^2 of the first rows of the last chunk.
    std::vector<float> squares(size_t rows) const {
        std::vector<float> values(rows);
        check(cudaMemcpy(values.data(), buffers.square, rows * sizeof(float), cudaMemcpyDefault),
              "copying");
        return values;
    }

    int K, d;
    double half_precision;
    DenseShape shape;
    OnDevice<float> means, origin;
    OnDevice<double> constant, precise;
    OnDevice<float> rounded, scale;
    MixtureView view;
    DeviceBytes of_pass, of_chunk;
    DenseBuffers buffers;
};

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
            {1000, 128, 0.1},
            {1, 129, 0.1},
            {257, 200, 0.08},
            {300, 384, 0.05},
            {130, 960, 0.04},
            {40, 2048, 0.03}};
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
            const Outcome outcome = Tier(mixture, path, 0.1f).sum(x, left, 1);
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
        for (const size_t d : {100, 300}) {
            SCOPED_TRACE(::testing::Message() << "path " << int(path) << " d " << d);
            const auto mixture =
                    testing::random_mixture(Covariance::tied_spherical, 200, d, 0.1, 0, 1);
            const std::vector<int> left = {0, 5000, 5001, 40000, 90000};
            const auto x = testing::draw(mixture, left.back(), 2);
            const Tier tier(mixture, path, 0.1f);
            const Outcome once = tier.sum(x, left, 1);
            for (const int calls : {1, 2, 4}) {
                const Outcome again = tier.sum(x, left, calls);
                EXPECT_EQ(again.first_moment, once.first_moment);
                EXPECT_EQ(again.mass, once.mass);
                EXPECT_EQ(again.log_likelihood, once.log_likelihood);
                EXPECT_EQ(again.moment, once.moment);
                EXPECT_EQ(again.shared_rows, once.shared_rows);
            }
        }
    }
}

/// Numbers of a kind that is hard on sums; the products of two vectors of one kind are hard too.
std::vector<float> hard_numbers(int kind, int d, Random& random) {
    std::vector<float> numbers(d);
    for (int j = 0; j < d; ++j) {
        const double u = random.uniform();
        double value = 1 + u; // products of one sign: every cut is to the same side
        switch (kind) {
        case 1: // half of a step of fp16 above: low halves as large as they get, of one sign
            value = 1 + 0x1.0p-11 * (0.9 + 0.1 * u);
            break;
        case 2: // products that are cut beside a large one
            value = j % 16 == 0 ? 1 + u : 0x1.0p-10 * (1 + u);
            break;
        case 3: // sums that fall to nothing
            value = j % 2 == 0 ? 1 + u : -1 - u;
            break;
        case 4: // from the largest to the smallest
            value = std::exp2(-12.0 * j / d) * (1 + u);
            break;
        default:
            break;
        }
        numbers[j] = static_cast<float>(value);
    }
    return numbers;
}

/// One component: the score is what log-likelihood and |y|^2 leave.
TEST_F(DenseTest, ScoresKeepTheirBound) {
    constexpr int kinds = 5, rows_a_kind = 25, n = kinds * rows_a_kind;
    const uint64_t seed = testing::test_seed();
    for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
        if (path == CollectPath::hopper && !on_hopper()) {
            continue;
        }
        for (const int d : {16, 100, 128, 130, 384, 960, 1536, 2048}) {
            Random random(seed);
            double largest = 0;
            for (int mean_kind = 0; mean_kind < kinds; ++mean_kind) {
                SCOPED_TRACE(
                        ::testing::Message() << "path " << int(path) << " d " << d << " kind "
                                             << mean_kind << " seed " << seed);
                GaussianMixture mixture;
                mixture.K = 1;
                mixture.d = d;
                mixture.covariance = Covariance::tied_spherical;
                mixture.log_weights = {0.0};
                mixture.covariances = {1.3};
                mixture.means = hard_numbers(mean_kind, d, random);
                std::vector<float> x;
                for (int i = 0; i < n; ++i) {
                    const std::vector<float> row = hard_numbers(i / rows_a_kind, d, random);
                    x.insert(x.end(), row.begin(), row.end());
                }
                const Tier tier(mixture, path, 0.0f);
                const Outcome outcome = tier.sum(x, {0, n}, 1);
                const std::vector<float> squares = tier.squares(n), scale = tier.scale.read();
                const double hp = tier.half_precision, constant = tier.constants(mixture)[0];
                double mean_square = 0;
                for (const float c : mixture.means) {
                    mean_square += double(c) * c;
                }
                // The same for all rows.
                const double others =
                        hp * mean_square * 0x1.0p-23 +
                        scale[scale_reach] * std::sqrt(mean_square) * 2 * hp * 0x1.0p-29;
                EXPECT_GE(
                        scale[scale_error] * (1e-3 - others),
                        tier.shape.rounding * std::sqrt(mean_square) * 2 * hp);
                for (int i = 0; i < n; ++i) {
                    double square = 0, product = 0;
                    for (int j = 0; j < d; ++j) {
                        const double y = x[static_cast<size_t>(i) * d + j];
                        square += y * y;
                        product += y * mixture.means[j];
                    }
                    const double exact = 2 * hp * product - hp * mean_square;
                    const double score =
                            outcome.log_likelihood[i] - constant + hp * squares[n - 1 - i];
                    const double bound =
                            tier.shape.rounding * std::sqrt(square * mean_square) * 2 * hp + others;
                    const double share = std::abs(score - exact) / bound;
                    largest = std::max(largest, share);
                    ASSERT_LE(share, 1) << "row " << i;
                }
            }
            std::printf(
                    "  path %d, d %d: rounding %.2e, largest error %.2f of the bound\n",
                    int(path),
                    d,
                    dense_shape(path, 1, d).rounding,
                    largest);
        }
    }
}

/// Rows of `overlap` need this to stay out of fp64: |y| max|c| 2 hp is 134 and 203 there.
TEST(DenseShapeTest, WideRowsHaveRoomForTheirRounding) {
    for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
        EXPECT_LE(dense_shape(path, 1024, 384).rounding, 4.2e-6f);
        EXPECT_LE(dense_shape(path, 1024, 960).rounding, 4.5e-6f);
    }
}

TEST(DenseShapeTest, ChunksAreWholePiecesWithinTheirMemory) {
    for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
        for (const int K : {1, 129, 1000, 1024, 4096, 8193, 16384, 30000, 65536}) {
            for (const int d : {1, 16, 64, 96, 128, 129, 256, 300, 384, 960, 1025, 1536, 2048}) {
                SCOPED_TRACE(
                        ::testing::Message() << "path " << int(path) << " K " << K << " d " << d);
                const DenseShape shape = dense_shape(path, K, d);
                EXPECT_GE(shape.padded_K, K);
                EXPECT_GE(shape.row_width, d);
                ASSERT_GT(shape.piece_rows, 0);
                EXPECT_EQ(shape.chunk_rows, shape.pieces() * shape.piece_rows);
                EXPECT_LE(dense_bytes(shape).chunk, size_t{160} << 20);
            }
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
