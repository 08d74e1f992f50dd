// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Codecs beside Flat: what is stored decides, and the codec's own scanner has the last word.
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/utils/distances.h>
#include <gtest/gtest.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

using Type = faiss::ScalarQuantizer::QuantizerType;

struct ScalarSetup {
    std::string name;
    Type type;
    faiss::MetricType metric;
    bool by_residual;
    double tolerance; ///< of a distance, beside the spread of the data
};

void PrintTo(const ScalarSetup& setup, std::ostream* out) {
    *out << setup.name;
}

class ScalarCodecs : public testing::TestWithParam<ScalarSetup> {
protected:
    static constexpr size_t rows = 2000, queries = 30, d = 24, nlist = 16, k = 10;

    void SetUp() override {
        index_.train(rows, base_.data());
        add_in_batches(index_, base_, 700, seed_);
        oracle_.add(rows, base_.data());
    }

    const uint64_t seed_ = test_seed();
    std::vector<float> base_ = float_rows(rows, d, seed_);
    std::vector<float> queries_ = float_rows(queries, d, seed_ + 1);
    Oracle oracle_{d, GetParam().metric};
    IndexIVFGMMScalarQuantizer index_{
            d, nlist, GetParam().type, GetParam().metric, GetParam().by_residual};
};

TEST_P(ScalarCodecs, AtNlistEqualTheStockClassOverTheSameMeans) {
    faiss::IndexIVFScalarQuantizer stock(
            index_.quantizer, d, nlist, GetParam().type, GetParam().metric, GetParam().by_residual);
    stock.sq = index_.sq;
    stock.is_trained = true;
    stock.add(rows, base_.data());
    index_.nprobe = stock.nprobe = nlist;
    const Results ours = search(index_, queries_, k), theirs = search(stock, queries_, k);
    for (size_t i = 0; i < ours.distances.size(); i++) {
        EXPECT_NEAR(ours.distances[i], theirs.distances[i], 1e-4 * std::abs(theirs.distances[i]));
    }
    EXPECT_GT(recall(oracle_, queries_, ours), recall(oracle_, queries_, theirs) - 1e-3);
}

TEST_P(ScalarCodecs, FindWhatFlatFindsAndDistancesAreTheCodecsOwn) {
    EXPECT_TRUE(index_.run_lists()->directory().sketched);
    EXPECT_TRUE(index_.has_own_distances());
    IndexIVFGMMFlat flat(d, nlist, GetParam().metric);
    flat.train(rows, base_.data());
    add_in_batches(flat, base_, 700, seed_); // the same runs
    for (const size_t nprobe : {1, 2, 4}) {
        index_.nprobe = flat.nprobe = nprobe;
        const Results got = search(index_, queries_, k);
        EXPECT_GT(
                recall(oracle_, queries_, got),
                recall(oracle_, queries_, search(flat, queries_, k)) - GetParam().tolerance);
        for (size_t i = 0; i < queries; i++) {
            std::set<int64_t> seen;
            for (size_t j = 0; j < k; j++) {
                const int64_t id = got.labels[i * k + j];
                ASSERT_TRUE(seen.insert(id).second);
                const double truth = oracle_.distance(queries_.data() + i * d, id);
                EXPECT_NEAR(got.distances[i * k + j], truth, GetParam().tolerance * 10);
            }
        }
    }
}

TEST_P(ScalarCodecs, DistancesAreTheStockScannersWithinRounding) {
    index_.nprobe = 3;
    const Results got = search(index_, queries_, k);
    index_.set_direct_map_type(faiss::DirectMap::Array);
    std::unique_ptr<faiss::InvertedListScanner> scanner(
            compat::make_scanner(index_, nullptr, nullptr));
    std::vector<float> mean(d);
    for (size_t i = 0; i < queries; i++) {
        const float* q = queries_.data() + i * d;
        scanner->set_query(q);
        for (size_t j = 0; j < k; j++) {
            const int64_t place = index_.direct_map.get(got.labels[i * k + j]);
            const auto list = static_cast<int64_t>(faiss::lo_listno(place));
            index_.quantizer->reconstruct(list, mean.data());
            scanner->set_list(
                    list,
                    GetParam().metric == faiss::METRIC_L2
                            ? faiss::fvec_L2sqr(q, mean.data(), d)
                            : faiss::fvec_inner_product(q, mean.data(), d));
            const float theirs = scanner->distance_to_code(
                    index_.invlists->get_single_code(list, faiss::lo_offset(place)));
            EXPECT_NEAR(got.distances[i * k + j], theirs, 1e-5 * (1 + std::abs(theirs)));
        }
    }
}

TEST_P(ScalarCodecs, KeepTheirRunsThroughChanges) {
    index_.check();
    EXPECT_EQ(index_.remove_ids(faiss::IDSelectorRange(100, 400)), 300u);
    index_.check();
    index_.compact();
    index_.check();
    const std::vector<float> again = float_rows(300, d, seed_ + 2);
    index_.add(300, again.data());
    index_.check();
    EXPECT_EQ(index_.ntotal, static_cast<int64_t>(rows));
}

INSTANTIATE_TEST_SUITE_P(
        All,
        ScalarCodecs,
        testing::Values(
                ScalarSetup{"SQ8", Type::QT_8bit, faiss::METRIC_L2, true, 0.08},
                ScalarSetup{"SQ8_not_residual", Type::QT_8bit, faiss::METRIC_L2, false, 0.08},
                ScalarSetup{"SQ8_ip", Type::QT_8bit, faiss::METRIC_INNER_PRODUCT, true, 0.08},
                ScalarSetup{"SQfp16", Type::QT_fp16, faiss::METRIC_L2, true, 0.02},
                ScalarSetup{"SQfp16_ip", Type::QT_fp16, faiss::METRIC_INNER_PRODUCT, false, 0.02}),
        [](const testing::TestParamInfo<ScalarSetup>& info) { return info.param.name; });

} // namespace
} // namespace faiss_gmm
