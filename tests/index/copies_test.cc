// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// storage=copies: a vector counts once wherever it is counted; what cannot be kept is refused.
#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1200, d = 16;

class Copies : public testing::Test {
protected:
    void SetUp() override {
        setup_.storage = SpillStorage::copies;
        setup_.max_lists = 3;
        base_ = whole_rows(rows, d, seed_);
        index_ = setup_.trained(base_);
        add_in_batches(*index_, base_, 500, seed_);
    }
    const uint64_t seed_ = test_seed();
    IndexSetup setup_;
    std::vector<float> base_;
    std::unique_ptr<CountingIndex> index_;
};

TEST_F(Copies, StandInSeveralListsAndCountOnce) {
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows));
    EXPECT_EQ(index_->invlists->compute_ntotal(), 3 * rows);
    std::map<int64_t, std::set<size_t>> lists;
    for (size_t l = 0; l < index_->nlist; l++) {
        for (size_t i = 0; i < index_->invlists->list_size(l); i++) {
            const int64_t id = index_->invlists->get_single_id(l, i);
            EXPECT_TRUE(lists[id].insert(l).second) << id << " twice in list " << l;
        }
    }
    EXPECT_EQ(lists.size(), rows);
    for (const auto& [id, of_id] : lists) {
        EXPECT_EQ(of_id.size(), 3u) << id;
    }
    EXPECT_FALSE(index_->run_lists()->has_runs());
    index_->check();
}

TEST_F(Copies, RemoveIdsReturnsVectors) {
    EXPECT_EQ(index_->remove_ids(faiss::IDSelectorRange(10, 110)), 100u);
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows) - 100);
    EXPECT_EQ(index_->remove_ids(faiss::IDSelectorRange(10, 110)), 0u);
    EXPECT_EQ(index_->invlists->compute_ntotal(), 3 * (rows - 100));
}

TEST_F(Copies, MoreThanEveryNeighbourKeepsTheBest) {
    // k * max_lists hits always hold k distinct ones.
    Oracle oracle(d, faiss::METRIC_L2);
    oracle.add(rows, base_.data());
    const std::vector<float> asked = whole_rows(10, d, seed_ + 1);
    index_->nprobe = index_->nlist;
    for (const size_t k : {size_t{1}, size_t{17}, rows}) {
        expect_exact(oracle, asked, search(*index_, asked, k));
    }
}

TEST_F(Copies, RefuseWhatNeedsOnePlaceAVector) {
    const int64_t id = 3;
    expect_four_parts(
            refusal([&] { index_->update_vectors(1, &id, base_.data()); }), "storage=copies");
    IndexSetup setup = setup_;
    const auto other = setup.trained(base_);
    expect_four_parts(
            refusal([&] {
                index_->copy_subset_to(*other, static_cast<FAISS_GMM_SUBSET_TYPE>(0), 0, 100);
            }),
            "storage=copies");
    index_->parallel_mode = index_->PARALLEL_MODE_NO_HEAP_INIT;
    const int64_t key = 0;
    float coarse = 0, distance = 0;
    int64_t label = 0;
    faiss::SearchParametersIVF params;
    const auto keep_heap = [&] {
        index_->search_preassigned(
                1, base_.data(), 1, &key, &coarse, &distance, &label, false, &params);
    };
    expect_four_parts(refusal(keep_heap), "storage=copies");
    for (const auto type : {faiss::DirectMap::Array, faiss::DirectMap::Hashtable}) {
        const auto mapped = setup_.trained(base_);
        mapped->set_direct_map_type(type);
        expect_four_parts(refusal([&] { mapped->add(10, base_.data()); }), "storage=copies");
        EXPECT_EQ(mapped->ntotal, 0);
    }
}

} // namespace
} // namespace faiss_gmm
