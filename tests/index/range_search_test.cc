// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Search by radius: no id twice, everything at nprobe = nlist.
#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1500, queries = 12;

class RangeSearch : public testing::TestWithParam<IndexSetup> {
protected:
    void SetUp() override {
        const IndexSetup& setup = GetParam();
        base_ = whole_rows(rows, setup.d, seed_);
        queries_ = whole_rows(queries, setup.d, seed_ + 1);
        index_ = setup.trained(base_);
        add_in_batches(*index_, base_, 500, seed_);
        oracle_.add(rows, base_.data());
    }

    /// A radius between two true distances of query 0, with about `hits` inside.
    float radius_of(size_t hits) const {
        const std::vector<double> sorted = oracle_.sorted(queries_.data());
        return static_cast<float>(sorted[hits]) + 0.5f;
    }

    /// Hits of each query: ids with distances; fails if one is there twice or told wrongly.
    std::vector<std::map<int64_t, float>>
    hits(float radius, const faiss::SearchParameters* params = nullptr) const {
        faiss::RangeSearchResult result(queries);
        index_->range_search(queries, queries_.data(), radius, &result, params);
        std::vector<std::map<int64_t, float>> hits(queries);
        for (size_t i = 0; i < queries; i++) {
            for (size_t j = result.lims[i]; j < result.lims[i + 1]; j++) {
                const int64_t id = result.labels[j];
                EXPECT_TRUE(hits[i].emplace(id, result.distances[j]).second) << id << " twice";
                EXPECT_EQ(
                        result.distances[j],
                        oracle_.distance(queries_.data() + i * GetParam().d, id));
                EXPECT_TRUE(oracle_.better(result.distances[j], radius));
            }
        }
        return hits;
    }

    size_t truly_inside(size_t query, float radius, const faiss::IDSelector* selector) const {
        const auto sorted = oracle_.sorted(queries_.data() + query * GetParam().d, selector);
        return static_cast<size_t>(std::count_if(
                sorted.begin(), sorted.end(), [&](double v) { return oracle_.better(v, radius); }));
    }

    const uint64_t seed_ = test_seed();
    Oracle oracle_{GetParam().d, GetParam().metric};
    std::vector<float> base_, queries_;
    std::unique_ptr<CountingIndex> index_;
};

TEST_P(RangeSearch, FindsAllAtNlistAndNoneTwice) {
    for (const size_t wanted : {1, 30, 700}) {
        const float radius = radius_of(wanted);
        size_t found = 0;
        for (const size_t nprobe : {size_t{1}, size_t{5}, GetParam().nlist}) {
            index_->nprobe = nprobe;
            index_->log->clear();
            indexIVFGMM_stats.reset();
            const auto got = hits(radius);
            index_->log->expect_none_twice();
            EXPECT_EQ(indexIVFGMM_stats.ndis, index_->log->total());
            size_t sum = 0;
            for (size_t i = 0; i < queries; i++) {
                sum += got[i].size();
                if (nprobe == GetParam().nlist) {
                    EXPECT_EQ(got[i].size(), truly_inside(i, radius, nullptr));
                }
            }
            EXPECT_GE(sum, found);
            found = sum;
        }
        EXPECT_GT(found, 0u);
    }
}

TEST_P(RangeSearch, HeedsSelectorsInBaseAndOwnParameters) {
    const float radius = radius_of(200);
    const faiss::IDSelectorRange some(200, 500);
    faiss::SearchParameters plain;
    plain.sel = const_cast<faiss::IDSelectorRange*>(&some);
    index_->nprobe = GetParam().nlist;
    IVFGMMSearchParameters ours;
    ours.nprobe = GetParam().nlist;
    ours.sel = plain.sel;
    for (const faiss::SearchParameters* params :
         {&plain, static_cast<faiss::SearchParameters*>(&ours)}) {
        const auto got = hits(radius, params);
        for (size_t i = 0; i < queries; i++) {
            EXPECT_EQ(got[i].size(), truly_inside(i, radius, &some));
            for (const auto& hit : got[i]) {
                EXPECT_TRUE(some.is_member(hit.first));
            }
        }
    }
}

TEST_P(RangeSearch, StrangeQueriesAndRadiiFindNothing) {
    index_->nprobe = GetParam().nlist;
    const bool l2 = GetParam().metric == faiss::METRIC_L2;
    for (const auto& got : hits(l2 ? -1.0f : 1e30f)) {
        EXPECT_TRUE(got.empty());
    }
    std::fill_n(queries_.begin() + GetParam().d, GetParam().d, NAN);
    EXPECT_TRUE(hits(radius_of(50))[1].empty());
}

INSTANTIATE_TEST_SUITE_P(All, RangeSearch, testing::ValuesIn(all_setups()), setup_name);

} // namespace
} // namespace faiss_gmm
