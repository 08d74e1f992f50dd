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

constexpr Covariance dense_forms[] = {
        Covariance::tied_spherical, Covariance::spherical, Covariance::diagonal};

struct Outcome {
    std::vector<double> first_moment, second_moment, mass, component_moment;
    std::vector<double> log_likelihood, moment; ///< of rows
    unsigned long long shared_rows = 0;
};

/// A model on the device, with the tier's memory for it.
struct Tier {
    Tier(const GaussianMixture& mixture, CollectPath path, float origin_number)
            : K(static_cast<int>(mixture.K)), d(static_cast<int>(mixture.d)),
              half_precision(half_inverses(mixture)),
              shape(dense_shape(path, mixture.covariance, K, d)),
              means({mixture.means.begin(), mixture.means.end()}),
              origin(std::vector<float>(d, origin_number)), constant(constants(mixture)),
              precise(half_precision), rounded({half_precision.begin(), half_precision.end()}),
              scale(std::vector<float>(dense_scale_count(mixture.covariance, K, d), 0.0f)) {
        view.covariance = mixture.covariance;
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
    static std::vector<double> half_inverses(const GaussianMixture& mixture) {
        std::vector<double> values;
        for (const double variance : mixture.covariances) {
            values.push_back(0.5 / variance);
        }
        return values;
    }
    /// hp_kj.
    double precision(int k, int j) const {
        const bool diagonal = shape.form == Covariance::diagonal;
        return half_precision[diagonal ? k * d + j : shape.form == Covariance::spherical ? k : 0];
    }
    std::vector<double> constants(const GaussianMixture& mixture) const {
        std::vector<double> values = mixture.log_weights;
        for (int k = 0; k < K; ++k) {
            for (int j = 0; j < d; ++j) {
                values[k] += 0.5 * std::log(precision(k, j) / M_PI);
            }
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
        const OnDevice<double> sums(std::vector<double>(2 * moments + 2 * K, 0.0));
        const OnDevice<double> of_rows(std::vector<double>(2 * n, 0.0));
        const OnDevice<unsigned long long> shared_rows({0});
        PassSums pass;
        pass.first_moment = sums.data();
        pass.second_moment = sums.data() + moments;
        pass.mass = sums.data() + 2 * moments;
        pass.moment = pass.mass + K;
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
        outcome.second_moment.assign(all.begin() + moments, all.begin() + 2 * moments);
        outcome.mass.assign(all.begin() + 2 * moments, all.end() - K);
        outcome.component_moment.assign(all.end() - K, all.end());
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
    std::vector<double> half_precision;
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

double relative_error(const std::vector<double>& values, const std::vector<double>& exact) {
    double error = 0, size = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
        error += std::pow(values[i] - exact[i], 2);
        size += std::pow(exact[i], 2);
    }
    return std::sqrt(error / size);
}

/// What the tier adds up, in fp64 about the old means; `shared`: rows with r > 1 / K in a second component.
struct Expected {
    Expected(const GaussianMixture& mixture, const std::vector<float>& x)
            : oracle(naive::iterate(mixture, x.size() / mixture.d, x.data(), 0, false)),
              first_moment(mixture.K * mixture.d), second_moment(first_moment),
              component_moment(mixture.K), row_moment(x.size() / mixture.d) {
        const size_t K = mixture.K, d = mixture.d;
        for (size_t i = 0; i < row_moment.size(); ++i) {
            std::vector<double> r(
                    &oracle.responsibilities[i * K], &oracle.responsibilities[i * K] + K);
            for (size_t k = 0; k < K; ++k) {
                double square = 0;
                for (size_t j = 0; j < d; ++j) {
                    const double y = double(x[i * d + j]) - mixture.means[k * d + j];
                    square += y * y;
                    first_moment[k * d + j] += r[k] * y;
                    second_moment[k * d + j] += r[k] * y * y;
                }
                component_moment[k] += r[k] * square;
                row_moment[i] += r[k] * square;
            }
            std::sort(r.rbegin(), r.rend());
            shared += K > 1 && r[1] > 1.0 / K;
        }
    }
    /// Of what the form has: of rows the worst, of components in norm.
    double second_error(const Outcome& outcome, Covariance form) const {
        if (form == Covariance::diagonal) {
            return relative_error(outcome.second_moment, second_moment);
        }
        if (form == Covariance::spherical) {
            return relative_error(outcome.component_moment, component_moment);
        }
        double worst = 0;
        for (size_t i = 0; i < row_moment.size(); ++i) {
            worst = std::max(worst, std::abs(outcome.moment[i] / row_moment[i] - 1));
        }
        return worst;
    }

    naive::Iteration oracle;
    std::vector<double> first_moment, second_moment, component_moment, row_moment;
    double shared = 0;
};

TEST_F(DenseTest, AgreesWithTheOracleRowByRow) {
    const struct {
        size_t K, d;
        double spread;
    } cases[] = {
            {5, 3, 0.3},
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
    for (const Covariance form : dense_forms) {
        for (const auto& c : cases) {
            auto mixture = testing::random_mixture(form, c.K, c.d, c.spread, 0, 1);
            if (form != Covariance::tied_spherical) { // so alike that rows have several components
                for (double& variance : mixture.covariances) {
                    variance = 1 + (variance - 1) * std::min(1.0, 8 / std::sqrt(c.d));
                }
            }
            const auto x = testing::draw(mixture, left.back(), 2);
            const Expected expected(mixture, x);
            for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
                if (path == CollectPath::hopper && !on_hopper()) {
                    continue;
                }
                SCOPED_TRACE(
                        ::testing::Message() << testing::name_of(form) << " path " << int(path)
                                             << " K " << c.K << " d " << c.d);
                const Outcome outcome = Tier(mixture, path, 0.1f).sum(x, left, 1);
                double likelihood = 0, mass = 0;
                for (size_t i = 0; i < expected.row_moment.size(); ++i) {
                    likelihood = std::max(
                            likelihood,
                            std::abs(
                                    outcome.log_likelihood[i] - expected.oracle.log_likelihood[i]));
                }
                for (size_t k = 0; k < c.K; ++k) {
                    const double N = expected.oracle.N_k[k];
                    mass = std::max(mass, std::abs(outcome.mass[k] - N) / (1 + N));
                }
                const double second = expected.second_error(outcome, form);
                const double moments = relative_error(outcome.first_moment, expected.first_moment);
                std::printf(
                        "  %s, path %d, K %zu, d %zu: likelihood %.1e nats, |x - mu|^2 %.1e, N_k "
                        "%.1e, moments %.1e\n",
                        testing::name_of(form),
                        int(path),
                        c.K,
                        c.d,
                        likelihood,
                        second,
                        mass,
                        moments);
                EXPECT_LT(likelihood, 1e-6 * c.d);
                EXPECT_LT(second, 1e-5);
                EXPECT_LT(mass, 1e-5);
                EXPECT_LT(moments, 1e-4); // about the old means: small beside the means
                EXPECT_NEAR(double(outcome.shared_rows), expected.shared, 2);
            }
        }
    }
}

/// Two groups, each far from the origin between them: variances are the differences of sums about it.
TEST_F(DenseTest, VariancesSurviveADistantOrigin) {
    constexpr size_t K = 64, n = 8192;
    for (const Covariance form : {Covariance::spherical, Covariance::diagonal}) {
        for (const size_t d : {2, 16, 48, 128}) {
            auto mixture = testing::random_mixture(form, K, d, 0.3 / std::sqrt(d), 0, 1);
            for (size_t k = 0; k < K; ++k) {
                mixture.means[k * d] += k % 2 == 0 ? 10.0f : -10.0f;
            }
            const auto x = testing::draw(mixture, n, 2);
            const Expected expected(mixture, x);
            for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
                if (path == CollectPath::hopper && !on_hopper()) {
                    continue;
                }
                SCOPED_TRACE(
                        ::testing::Message()
                        << testing::name_of(form) << " path " << int(path) << " d " << d);
                const Outcome outcome = Tier(mixture, path, 0.0f).sum(x, {0, int(n)}, 1);
                const double error = expected.second_error(outcome, form);
                std::printf(
                        "  %s, path %d, d %zu: %.1e\n",
                        testing::name_of(form),
                        int(path),
                        d,
                        error);
                EXPECT_LT(error, 1e-4);
            }
        }
    }
}

TEST_F(DenseTest, SameBitsInAnyNumberOfCalls) {
    for (const Covariance form : dense_forms) {
        for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
            if (path == CollectPath::hopper && !on_hopper()) {
                continue;
            }
            for (const size_t d : {100, 300}) {
                SCOPED_TRACE(
                        ::testing::Message()
                        << testing::name_of(form) << " path " << int(path) << " d " << d);
                const auto mixture = testing::random_mixture(form, 200, d, 0.1, 0, 1);
                const std::vector<int> left = {0, 5000, 5001, 40000, 90000};
                const auto x = testing::draw(mixture, left.back(), 2);
                const Tier tier(mixture, path, 0.1f);
                const Outcome once = tier.sum(x, left, 1);
                for (const int calls : {1, 2, 4}) {
                    const Outcome again = tier.sum(x, left, calls);
                    EXPECT_EQ(again.first_moment, once.first_moment);
                    EXPECT_EQ(again.second_moment, once.second_moment);
                    EXPECT_EQ(again.mass, once.mass);
                    EXPECT_EQ(again.component_moment, once.component_moment);
                    EXPECT_EQ(again.log_likelihood, once.log_likelihood);
                    EXPECT_EQ(again.moment, once.moment);
                    EXPECT_EQ(again.shared_rows, once.shared_rows);
                }
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

/// The score of a component that has all of every row is what log-likelihood and |y|^2 leave. The others'
/// precisions, where there are any, make its own differ from what is common to all.
TEST_F(DenseTest, ScoresKeepTheirBound) {
    constexpr int kinds = 5, rows_a_kind = 25, n = kinds * rows_a_kind;
    const uint64_t seed = testing::test_seed();
    for (const Covariance form : dense_forms) {
        for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
            if (path == CollectPath::hopper && !on_hopper()) {
                continue;
            }
            for (const int d : {16, 100, 128, 130, 384, 960, 1536, 2048}) {
                Random random(seed);
                double largest = 0;
                for (int mean_kind = 0; mean_kind < kinds; ++mean_kind) {
                    SCOPED_TRACE(
                            ::testing::Message()
                            << testing::name_of(form) << " path " << int(path) << " d " << d
                            << " kind " << mean_kind << " seed " << seed);
                    const bool tied = form == Covariance::tied_spherical;
                    GaussianMixture mixture;
                    mixture.K = tied ? 1 : 2;
                    mixture.d = d;
                    mixture.covariance = form;
                    mixture.log_weights = {0.0, -200.0 - 2 * d};
                    mixture.log_weights.resize(mixture.K);
                    const size_t precisions =
                            GaussianMixture::covariance_size(form, mixture.K, mixture.d);
                    for (size_t i = 0; i < precisions; ++i) {
                        mixture.covariances.push_back(tied ? 1.3 : 0.6 + 1.2 * random.uniform());
                    }
                    mixture.means = hard_numbers(mean_kind, d, random);
                    mixture.means.resize(mixture.K * d);
                    std::vector<float> x;
                    for (int i = 0; i < n; ++i) {
                        const std::vector<float> row = hard_numbers(i / rows_a_kind, d, random);
                        x.insert(x.end(), row.begin(), row.end());
                    }
                    const Tier tier(mixture, path, 0.0f);
                    const Outcome outcome = tier.sum(x, {0, n}, 1);
                    const std::vector<float> squares = tier.squares(n), scale = tier.scale.read();
                    const double constant = tier.constants(mixture)[0];
                    const bool diagonal = form == Covariance::diagonal;
                    const double common = tied       ? tier.half_precision[0]
                                          : diagonal ? 0.5
                                                     : scale[dense_scales];
                    const auto axis = [&](int j) {
                        return diagonal ? double(scale[dense_scales + j]) : 1.0;
                    };
                    double base = 0, weight = 0, deviations = 0;
                    for (int j = 0; j < d; ++j) {
                        const double hp = tier.precision(0, j), c = mixture.means[j];
                        base += hp * c * c;
                        weight += std::pow(2 * hp * c / axis(j), 2);
                        deviations += diagonal ? scale[dense_scales + d + j] : 0;
                        EXPECT_LE(
                                std::abs(hp / std::pow(axis(j), 2) - common),
                                tied ? 0.0 : scale[dense_scales + (diagonal ? d + j : 1)]);
                    }
                    weight = std::sqrt(weight);
                    // The same for all rows.
                    double others = base * 0x1.0p-23 + scale[scale_reach] * weight * 0x1.0p-29;
                    if (diagonal) {
                        others += deviations * 0x1.0p-25 / scale[scale_squares];
                    }
                    EXPECT_GE(scale[scale_error] * (1e-3 - others), tier.shape.rounding * weight);
                    for (int i = 0; i < n; ++i) {
                        double square = 0, exact = 0, deviation = 0;
                        for (int j = 0; j < d; ++j) {
                            const double y = axis(j) * x[static_cast<size_t>(i) * d + j];
                            const double hp = tier.precision(0, j), a = axis(j);
                            const double c = mixture.means[j];
                            const double off = hp / (a * a) - common;
                            square += y * y;
                            exact += 2 * hp * c * y / a - hp * c * c - off * y * y;
                            deviation += std::abs(off) * y * y;
                        }
                        const double score =
                                outcome.log_likelihood[i] - constant + common * squares[n - 1 - i];
                        double bound = tier.shape.rounding * std::sqrt(square) * weight + others;
                        if (diagonal) {
                            bound += tier.shape.rounding * deviation +
                                     45.3 * 0x1.0p-25 / scale[scale_means] * std::sqrt(square) +
                                     0x1.0p-25 / scale[scale_mean_squares] * square;
                        } else {
                            bound += tier.shape.square_rounding * deviation;
                        }
                        const double share = std::abs(score - exact) / bound;
                        largest = std::max(largest, share);
                        ASSERT_LE(share, 1) << "row " << i;
                    }
                }
                std::printf(
                        "  %s, path %d, d %d: rounding %.2e, largest error %.2f of the bound\n",
                        testing::name_of(form),
                        int(path),
                        d,
                        dense_shape(path, form, 1, d).rounding,
                        largest);
            }
        }
    }
}

/// Rows of `overlap` need this to stay out of fp64: |y| max|c| 2 hp is 134 and 203 there.
TEST(DenseShapeTest, WideRowsHaveRoomForTheirRounding) {
    for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
        for (const Covariance form : {Covariance::tied_spherical, Covariance::spherical}) {
            EXPECT_LE(dense_shape(path, form, 1024, 384).rounding, 4.2e-6f);
            EXPECT_LE(dense_shape(path, form, 1024, 960).rounding, 4.5e-6f);
        }
        const bool hopper = path == CollectPath::hopper;
        const auto of_diagonal = [&](int d) {
            return dense_shape(path, Covariance::diagonal, 1024, d).rounding;
        };
        EXPECT_LE(of_diagonal(384), hopper ? 2.9e-6f : 4.6e-6f);
        EXPECT_LE(of_diagonal(960), hopper ? 3.1e-6f : 5.2e-6f); // times 286, `overlap`
    }
}

TEST(DenseShapeTest, ChunksAreWholePiecesWithinTheirMemory) {
    for (const Covariance form : dense_forms) {
        for (const CollectPath path : {CollectPath::portable, CollectPath::hopper}) {
            for (const int K : {1, 129, 1000, 1024, 4096, 8193, 16384, 30000, 65536}) {
                for (const int d :
                     {1, 16, 64, 96, 128, 129, 256, 300, 384, 960, 1025, 1536, 2048}) {
                    SCOPED_TRACE(
                            ::testing::Message() << testing::name_of(form) << " path " << int(path)
                                                 << " K " << K << " d " << d);
                    const DenseShape shape = dense_shape(path, form, K, d);
                    EXPECT_GE(shape.padded_K, K);
                    EXPECT_GE(shape.row_width, shape.squares + d);
                    EXPECT_EQ(shape.squares > 0, form == Covariance::diagonal);
                    ASSERT_GT(shape.piece_rows, 0);
                    EXPECT_EQ(shape.chunk_rows, shape.pieces() * shape.piece_rows);
                    EXPECT_LE(dense_bytes(shape).chunk, size_t{160} << 20);
                }
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
