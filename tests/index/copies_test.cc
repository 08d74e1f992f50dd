// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// storage=copies: a vector counts once wherever it is counted; what cannot be kept is refused.
#include <map>
#include <set>

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

/// More than FAISS adds at once come in several pieces.
TEST(CopiesOfManyVectors, StandInTheListsOfTheirs) {
    constexpr size_t n = 65536, few = 500, k_lists = 3, dimensions = 2;
    IndexSetup setup;
    setup.storage = SpillStorage::copies;
    setup.max_lists = k_lists;
    setup.d = dimensions;
    const std::vector<float> base = float_rows(few, dimensions, 5);
    const auto one = setup.trained(base), many = setup.trained(base);
    one->add(few, base.data());
    std::vector<float> x;
    for (size_t i = 0; i < n; i++) {
        x.insert(x.end(), &base[i % few * dimensions], &base[i % few * dimensions] + dimensions);
    }
    many->add(n, x.data());
    const auto places = [](const CountingIndex& index, size_t modulo) {
        std::set<std::pair<int64_t, size_t>> found;
        for (size_t l = 0; l < index.nlist; l++) {
            for (size_t i = 0; i < index.invlists->list_size(l); i++) {
                found.insert({index.invlists->get_single_id(l, i) % modulo, l});
            }
        }
        return found;
    };
    EXPECT_EQ(many->invlists->compute_ntotal(), k_lists * n);
    EXPECT_EQ(places(*many, few), places(*one, few));
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
    IndexSetup fewer = setup_, shared = setup_;
    fewer.max_lists = 2;
    shared.storage = SpillStorage::shared;
    const auto whole = static_cast<FAISS_GMM_SUBSET_TYPE>(0);
    for (const IndexSetup& setup : {fewer, shared}) {
        const auto other = setup.trained(base_);
        expect_four_parts(
                refusal([&] { index_->copy_subset_to(*other, whole, 0, 100); }), "storage=copies");
        EXPECT_EQ(other->ntotal, 0);
    }
    const auto other = setup_.trained(base_);
    for (const int torn : {2, 3, 4, -1}) { // a vector's copies would come apart, or nobody knows
        const auto part = static_cast<FAISS_GMM_SUBSET_TYPE>(torn);
        expect_four_parts(
                refusal([&] { index_->copy_subset_to(*other, part, 0, 0); }), "storage=copies");
    }
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

/// A codec whose add_core fails at one call: as if memory had run out between two blocks.
struct FailingFlat : faiss::IndexIVFFlat {
    using faiss::IndexIVFFlat::IndexIVFFlat;
    size_t calls = 0, failing_call = 0; ///< from 1; 0: none

    void add_core(
            int64_t n,
            const float* x,
            const int64_t* xids,
            const int64_t* precomputed_idx FAISS_GMM_CONTEXT_PARAMETER) override {
        if (++calls == failing_call) {
            throw std::bad_alloc();
        }
        faiss::IndexIVFFlat::add_core(n, x, xids, precomputed_idx FAISS_GMM_CONTEXT_ARGUMENT);
    }
};

TEST_F(Copies, AnAddThatFailsLeavesWhatWasThere) {
    IndexIVFGMMOf<FailingFlat> index(d, setup_.nlist);
    setup_.apply(index);
    index.train(rows, base_.data());
    index.add(rows, base_.data());
    const std::vector<float> asked = whole_rows(10, d, seed_ + 1);
    const auto results = [&] {
        index.nprobe = 3;
        return search(index, asked, 5);
    };
    const Results before = results();
    for (const size_t call : {1, 2}) { // the rows' homes, their copies
        index.calls = 0;
        index.failing_call = call;
        EXPECT_THROW(index.add(100, base_.data()), std::exception);
        EXPECT_EQ(index.calls, call);
        EXPECT_EQ(index.ntotal, static_cast<int64_t>(rows));
        EXPECT_EQ(index.invlists->compute_ntotal(), 3 * rows);
        index.check();
        EXPECT_EQ(results().labels, before.labels);
    }
    index.failing_call = 0;
    index.add(100, base_.data());
    EXPECT_EQ(index.ntotal, static_cast<int64_t>(rows) + 100);
    index.check();
}

TEST_F(Copies, RemoveIdsRefusesADirectMapThatCameLater) {
    index_->set_direct_map_type(faiss::DirectMap::Hashtable);
    expect_four_parts(
            refusal([&] { index_->remove_ids(faiss::IDSelectorRange(0, 3)); }), "storage=copies");
    EXPECT_EQ(index_->invlists->compute_ntotal(), 3 * rows);
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows));
}

TEST_F(Copies, ADirectMapThatCameLaterReconstructs) {
    for (const auto type : {faiss::DirectMap::Array, faiss::DirectMap::Hashtable}) {
        index_->set_direct_map_type(type);
        index_->check();
        std::vector<float> row(d);
        for (const int64_t id : {int64_t{0}, int64_t{17}, static_cast<int64_t>(rows) - 1}) {
            index_->reconstruct(id, row.data());
            EXPECT_TRUE(std::equal(row.begin(), row.end(), base_.begin() + id * d)) << id;
        }
    }
}

/// Stock code ends the process.
TEST_F(Copies, KeysThatDoNotExistAreRefused) {
    const std::vector<int64_t> keys = {0, static_cast<int64_t>(index_->nlist), 1};
    const std::vector<float> coarse(3, 1.0f), asked = whole_rows(1, d, seed_ + 1);
    faiss::SearchParametersIVF params;
    params.nprobe = 3;
    faiss::IndexIVFStats stats;
    expect_four_parts(
            refusal([&] { search_keys(*index_, asked, 5, keys, coarse, params, false, &stats); }),
            "list " + std::to_string(index_->nlist));
}

TEST_F(Copies, RetrainingKeepsWhatCopiesMean) {
    const auto train = [&] { index_->train(rows, base_.data()); };
    index_->spill.storage = SpillStorage::shared;
    expect_four_parts(refusal(train), "another storage");
    index_->spill.storage = SpillStorage::copies;
    index_->spill.max_lists = 2; // three copies are stored
    expect_four_parts(refusal(train), "fewer max_lists");
    index_->spill.max_lists = 3;
    EXPECT_EQ(refusal(train), "");
    index_->check();
    index_->reset();
    index_->spill.storage = SpillStorage::shared;
    EXPECT_EQ(refusal(train), "");
    index_->add(rows, base_.data());
    index_->check();
}

TEST_F(Copies, CheckSeesVectorsThatDoNotCount) {
    index_->ntotal--;
    expect_four_parts(refusal([&] { index_->check(); }), std::to_string(rows) + " vectors");
}

} // namespace
} // namespace faiss_gmm
