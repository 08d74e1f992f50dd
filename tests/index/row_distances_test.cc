// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Our own loops over stored rows against fp64, rows encoded and decoded by FAISS.
#include <cmath>
#include <string>
#include <vector>

#include <faiss/impl/ScalarQuantizer.h>
#include <gtest/gtest.h>

#include "faiss_gmm/index/row_distances.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

using Form = StoredRows::Form;

struct RowSetup {
    Form form;
    bool residual, products;
    size_t d;
};

void PrintTo(const RowSetup& setup, std::ostream* out) {
    const char* forms[] = {"fp32", "fp16", "bytes"};
    *out << forms[static_cast<int>(setup.form)] << (setup.residual ? "_residual" : "")
         << (setup.products ? "_products" : "") << "_d" << setup.d;
}

std::vector<RowSetup> row_setups() {
    std::vector<RowSetup> all;
    for (const Form form : {Form::fp32, Form::fp16, Form::bytes}) {
        for (const bool residual : {false, true}) {
            for (const bool products : {false, true}) {
                for (const size_t d : {1, 3, 8, 16, 31, 32, 33, 70, 128}) {
                    all.push_back({form, residual, products, d});
                }
            }
        }
    }
    return all;
}

float distance(const RowDistances& distances, const uint8_t* row) {
    float result = 0;
    distances(&row, 1, 0, &result);
    return result;
}

class RowDistancesTest : public testing::TestWithParam<RowSetup> {};

TEST_P(RowDistancesTest, AgreeWithFp64) {
    const auto [form, residual, products, d] = GetParam();
    const size_t n = 50, lists = 3;
    const uint64_t seed = test_seed();
    const std::vector<float> x = float_rows(n, d, seed), means = float_rows(lists, d, seed + 1),
                             queries = float_rows(4, d, seed + 2);
    using Scalar = faiss::ScalarQuantizer;
    Scalar sq(d, form == Form::fp16 ? Scalar::QT_fp16 : Scalar::QT_8bit);
    sq.train(n, x.data());
    std::vector<float> decoded = x;
    std::vector<uint8_t> codes(n * d * sizeof(float));
    size_t row_bytes = d * sizeof(float);
    if (form == Form::fp32) {
        std::memcpy(codes.data(), x.data(), codes.size());
    } else {
        row_bytes = sq.code_size;
        sq.compute_codes(x.data(), codes.data(), n);
        sq.decode(codes.data(), decoded.data(), n);
    }
    StoredRows rows{form, residual};
    if (form == Form::bytes) {
        rows.low = sq.trained.data();
        rows.width = sq.trained.data() + d;
    }
    RowDistances distances; // one for all queries, as in a search
    for (size_t i = 0; i < 4; i++) {
        const float* q = queries.data() + i * d;
        distances.set_query(rows, products, d, q);
        for (size_t j = 0; j < n; j++) {
            const float* mean = means.data() + j % lists * d;
            double truth = 0, size = 0, with_mean = 0;
            for (size_t t = 0; t < d; t++) {
                const double value =
                        double{decoded[j * d + t]} + (residual ? double{mean[t]} : 0.0);
                const double term = products ? q[t] * value : (q[t] - value) * (q[t] - value);
                truth += term;
                size += std::abs(term) + std::abs(double{q[t]} * mean[t]);
                with_mean += double{q[t]} * mean[t];
            }
            if (residual) {
                distances.set_home(mean, static_cast<float>(with_mean));
            }
            EXPECT_NEAR(
                    distance(distances, codes.data() + j * row_bytes),
                    truth,
                    1e-6 * (1 + 3 * size));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(
        All,
        RowDistancesTest,
        testing::ValuesIn(row_setups()),
        [](const testing::TestParamInfo<RowSetup>& info) {
            return testing::PrintToString(info.param);
        });

TEST(RowDistancesOfOne, ForgetTheLastQueryAndItsHome) {
    const std::vector<float> q = {1, 2}, mean = {5, 5}, row = {4, 6};
    const auto* bytes = reinterpret_cast<const uint8_t*>(row.data());
    RowDistances distances;
    distances.set_query({Form::fp32, true}, true, 2, q.data());
    distances.set_home(mean.data(), 15);
    EXPECT_EQ(distance(distances, bytes), 31); // <q, mean> + <q, row>
    distances.set_query({Form::fp32, true}, false, 2, q.data());
    distances.set_home(mean.data(), 0);
    EXPECT_EQ(distance(distances, bytes), 64 + 81);
    distances.set_query({Form::fp32, false}, false, 2, q.data());
    EXPECT_EQ(distance(distances, bytes), 9 + 16);
    distances.set_query({Form::fp32, false}, true, 2, q.data());
    EXPECT_EQ(distance(distances, bytes), 16);
}

TEST(RowDistancesOfMany, EqualThoseOfOneWhateverFollows) {
    const uint64_t seed = test_seed();
    const size_t d = 40, n = 1000; // more rows than are asked for at once
    const std::vector<float> x = float_rows(n, d, seed), q = float_rows(1, d, seed + 1);
    std::vector<const uint8_t*> rows;
    for (size_t i = 0; i < n; i++) {
        rows.push_back(reinterpret_cast<const uint8_t*>(x.data() + i * d));
    }
    RowDistances distances;
    distances.set_query({Form::fp32, false}, false, d, q.data());
    std::vector<float> got(n, -1);
    for (size_t from = 0, to = 0; from < n; from = to) {
        to = std::min(n, from + 1 + from % 7);
        distances(rows.data() + from, to - from, n - to, got.data() + from);
    }
    for (size_t i = 0; i < n; i++) {
        ASSERT_EQ(got[i], distance(distances, rows[i])) << i;
    }
}

} // namespace
} // namespace faiss_gmm
