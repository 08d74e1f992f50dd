// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <faiss/IndexFlat.h>
#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1500, nlist = 16, d = 12;

class Quantizer : public testing::TestWithParam<faiss::MetricType> {
protected:
    void SetUp() override {
        index_.train(rows, base_.data());
        quantizer_ = dynamic_cast<GMMQuantizer*>(index_.quantizer);
        ASSERT_NE(quantizer_, nullptr);
        means_.resize(nlist * d);
        quantizer_->reconstruct_n(0, nlist, means_.data());
    }
    const uint64_t seed_ = test_seed();
    std::vector<float> base_ = float_rows(rows, d, seed_), asked_ = float_rows(200, d, seed_ + 1);
    IndexIVFGMMFlat index_{d, nlist, GetParam()};
    GMMQuantizer* quantizer_ = nullptr;
    std::vector<float> means_;
};

/// log r_k of one row under one variance and equal weights, by the formula in double precision; for
/// inner products of the row's direction.
std::vector<double>
log_responsibilities(const GaussianMixture& mixture, faiss::MetricType metric, const float* x) {
    double length = 0;
    for (size_t t = 0; t < mixture.d; t++) {
        length += x[t] * static_cast<double>(x[t]);
    }
    length = metric == faiss::METRIC_INNER_PRODUCT ? std::sqrt(length) : 1;
    std::vector<double> joint(mixture.K);
    double largest = -1e300, sum = 0;
    for (size_t c = 0; c < mixture.K; c++) {
        double distance = 0;
        for (size_t t = 0; t < mixture.d; t++) {
            const double difference =
                    x[t] / length - static_cast<double>(mixture.means[c * mixture.d + t]);
            distance += difference * difference;
        }
        joint[c] = -distance / 2 / mixture.covariances[0];
        largest = std::max(largest, joint[c]);
    }
    for (const double v : joint) {
        sum += std::exp(v - largest);
    }
    for (double& v : joint) {
        v -= largest + std::log(sum);
    }
    return joint;
}

TEST_P(Quantizer, SearchIsIndexFlats) {
    faiss::IndexFlat flat(d, GetParam());
    flat.add(nlist, means_.data());
    for (const size_t n : {1, 5, 200}) { // with and without a matrix product in FAISS
        const std::vector<float> asked(asked_.begin(), asked_.begin() + n * d);
        const Results ours = search(*quantizer_, asked, nlist), theirs = search(flat, asked, nlist);
        EXPECT_EQ(ours.distances, theirs.distances);
        EXPECT_EQ(ours.labels, theirs.labels);
    }
    EXPECT_NE(dynamic_cast<faiss::IndexFlat*>(index_.quantizer), nullptr);
    EXPECT_EQ(quantizer_->metric_type, GetParam());
    if (GetParam() == faiss::METRIC_INNER_PRODUCT) {
        for (size_t c = 0; c < nlist; c++) {
            double norm = 0;
            for (size_t t = 0; t < d; t++) {
                norm += means_[c * d + t] * static_cast<double>(means_[c * d + t]);
            }
            EXPECT_NEAR(norm, 1, 1e-4) << "mean " << c;
        }
    }
}

TEST_P(Quantizer, AssignAndResponsibilitiesFollowTheFormula) {
    const GaussianMixture& mixture = index_.mixture();
    ASSERT_EQ(mixture.K, nlist);
    ASSERT_EQ(mixture.covariances.size(), 1u);
    const size_t m = nlist + 3, n = 200; // more than there are
    std::vector<int64_t> labels(n * m), assigned(n), best(n * m);
    std::vector<float> logs(n * m);
    quantizer_->responsibilities(n, asked_.data(), m, labels.data(), logs.data());
    quantizer_->assign(n, asked_.data(), assigned.data());
    quantizer_->assign(n, asked_.data(), best.data(), m);
    EXPECT_EQ(best, labels);
    for (size_t i = 0; i < n; i++) {
        const std::vector<double> truth =
                log_responsibilities(mixture, GetParam(), asked_.data() + i * d);
        double total = 0;
        std::set<int64_t> seen;
        for (size_t j = 0; j < m; j++) {
            const int64_t label = labels[i * m + j];
            const float log = logs[i * m + j];
            if (j >= nlist) {
                ASSERT_EQ(label, -1);
                ASSERT_EQ(log, -std::numeric_limits<float>::infinity());
                continue;
            }
            ASSERT_TRUE(label >= 0 && label < static_cast<int64_t>(nlist));
            ASSERT_TRUE(seen.insert(label).second);
            ASSERT_NEAR(log, truth[label], 1e-3 + 1e-4 * std::abs(truth[label]));
            ASSERT_TRUE(j == 0 || log <= logs[i * m + j - 1]);
            total += std::exp(static_cast<double>(log));
        }
        EXPECT_NEAR(total, 1, 1e-3);
        EXPECT_EQ(assigned[i], labels[i * m]);
        const double largest = *std::max_element(truth.begin(), truth.end());
        EXPECT_NEAR(truth[assigned[i]], largest, 1e-3);
    }
}

TEST(QuantizerOfOtherMixtures, AssignsByTheDensityOfTheMixture) {
    const uint64_t seed = test_seed();
    const auto base = float_rows(rows, d, seed);
    auto asked = float_rows(300, d, seed + 1);
    for (size_t i = 0; i < asked.size(); i++) { // between the groups, where densities decide
        asked[i] = 0.5f * (asked[i] + base[i]);
    }
    for (const auto covariance :
         {Covariance::tied_spherical, Covariance::spherical, Covariance::diagonal}) {
        IndexIVFGMMFlat index(d, nlist);
        index.training.covariance = covariance;
        index.training.mixing = Mixing::free;
        index.train(rows, base.data());
        index.add(rows, base.data());
        index.check();
        const GaussianMixture& mixture = index.mixture();
        std::vector<double> truth(300 * nlist);
        mixture.log_responsibilities(300, asked.data(), truth.data());
        std::vector<int64_t> labels(300);
        index.quantizer->assign(300, asked.data(), labels.data());
        std::vector<int64_t> nearest(300);
        index.quantizer->faiss::Index::assign(300, asked.data(), nearest.data());
        for (size_t i = 0; i < 300; i++) {
            const double* row = truth.data() + i * nlist;
            EXPECT_NEAR(row[labels[i]], *std::max_element(row, row + nlist), 1e-2) << i;
        }
        // Search stays in metric order whatever the densities say.
        const Results found = search(*index.quantizer, asked, 1);
        EXPECT_EQ(found.labels, nearest);
        if (covariance != Covariance::tied_spherical) {
            EXPECT_NE(labels, nearest) << "these data do not tell the two apart";
        }
    }
}

TEST_P(Quantizer, RowsThatAreNotFiniteBelongNowhere) {
    std::vector<float> asked = asked_;
    asked[3 * d + 1] = NAN;
    asked[5 * d] = INFINITY;
    std::vector<int64_t> labels(200 * 2), sound(200 * 2);
    quantizer_->assign(200, asked.data(), labels.data(), 2);
    quantizer_->assign(200, asked_.data(), sound.data(), 2);
    for (size_t i = 0; i < 400; i++) {
        EXPECT_EQ(labels[i], i / 2 == 3 || i / 2 == 5 ? -1 : sound[i]) << i;
    }
}

/// More rows than are ranked at once, all of them finite or not.
TEST(QuantizerOfManyRows, GivesEachItsOwnList) {
    constexpr size_t d = 2, nlist = 8, few = 1000, n = 262144 + few;
    const std::vector<float> base = float_rows(few, d, 3);
    IndexIVFGMMFlat index(d, nlist);
    index.train(few, base.data());
    std::vector<int64_t> of_base(few), labels(n);
    index.quantizer->assign(few, base.data(), of_base.data(), 1);
    std::vector<float> asked;
    for (size_t i = 0; i < n; i++) {
        asked.insert(asked.end(), &base[i % few * d], &base[i % few * d] + d);
    }
    for (const bool all_finite : {true, false}) {
        if (!all_finite) {
            asked[7 * d] = NAN;
        }
        index.quantizer->assign(n, asked.data(), labels.data(), 1);
        size_t wrong = 0;
        for (size_t i = 0; i < n; i++) {
            wrong += labels[i] != (!all_finite && i == 7 ? -1 : of_base[i % few]);
        }
        EXPECT_EQ(wrong, 0u);
    }
}

TEST_P(Quantizer, BeforeTrainingItIsAnEmptyFlatIndex) {
    GMMQuantizer fresh(d, GetParam());
    faiss::IndexFlat flat(d, GetParam());
    int64_t label = 7, expected = 8;
    fresh.assign(1, asked_.data(), &label);
    flat.assign(1, asked_.data(), &expected);
    EXPECT_EQ(label, expected);
    float log = 0;
    expect_four_parts(
            refusal([&] { fresh.responsibilities(1, asked_.data(), 1, &label, &log); }),
            "no mixture");
    fresh.add(nlist, means_.data()); // filled by hand: metric order
    std::vector<int64_t> ours(200), theirs(200);
    fresh.assign(200, asked_.data(), ours.data());
    flat.add(nlist, means_.data());
    flat.assign(200, asked_.data(), theirs.data());
    EXPECT_EQ(ours, theirs);
}

TEST_P(Quantizer, HomesAreWhatAssignSays) {
    index_.add(rows, base_.data());
    std::vector<int64_t> homes(rows);
    quantizer_->assign(rows, base_.data(), homes.data());
    for (size_t l = 0; l < nlist; l++) {
        for (size_t i = 0; i < index_.invlists->list_size(l); i++) {
            ASSERT_EQ(homes[index_.invlists->get_single_id(l, i)], static_cast<int64_t>(l));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(
        All, Quantizer, testing::Values(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT));

} // namespace
} // namespace faiss_gmm
