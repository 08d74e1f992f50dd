// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Whatever changes the lists, by our classes or behind our back: check() holds, all is found.
#include <numeric>

#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1500, queries = 10, k = 10;

class Mutation : public testing::TestWithParam<IndexSetup> {
protected:
    void SetUp() override {
        const IndexSetup& setup = GetParam();
        base_ = whole_rows(rows, setup.d, seed_);
        queries_ = whole_rows(queries, setup.d, seed_ + 1);
        index_ = setup.trained(base_);
    }
    void add(CountingIndex& index) {
        add_in_batches(index, base_, 500, seed_);
        oracle_.add(rows, base_.data());
    }
    /// check() holds, nprobe = nlist is exact, and fewer lists give sound results.
    void expect_whole(CountingIndex& index) const {
        index.check();
        ASSERT_EQ(index.ntotal, static_cast<int64_t>(oracle_.rows.size()));
        for (const size_t nprobe : {size_t{1}, size_t{4}, GetParam().nlist}) {
            index.nprobe = nprobe;
            index.log->clear();
            const Results got = search(index, queries_, k);
            index.log->expect_none_twice();
            if (nprobe == GetParam().nlist) {
                expect_exact(oracle_, queries_, got);
            } else {
                expect_sound(oracle_, queries_, got);
            }
        }
    }
    void expect_in_split_form() const {
        for (size_t l = 0; l < GetParam().nlist; l++) {
            const ListRuns& list = index_->run_lists()->directory().lists[l];
            EXPECT_EQ(list.split_entries, index_->invlists->list_size(l));
            EXPECT_FALSE(list.stale);
        }
    }
    void remove(const faiss::IDSelector& selector) {
        size_t expected = 0;
        for (auto row = oracle_.rows.begin(); row != oracle_.rows.end();) {
            const bool member = selector.is_member(row->first);
            expected += member;
            row = member ? oracle_.rows.erase(row) : std::next(row);
        }
        EXPECT_EQ(index_->remove_ids(selector), expected);
    }
    void expect_reconstructs(const CountingIndex& index) const {
        std::vector<float> row(GetParam().d);
        for (const auto& [id, truth] : oracle_.rows) {
            index.reconstruct(id, row.data());
            ASSERT_EQ(row, truth) << "id " << id;
        }
    }

    const uint64_t seed_ = test_seed();
    std::mt19937_64 random_{seed_};
    Oracle oracle_{GetParam().d, GetParam().metric};
    std::vector<float> base_, queries_;
    std::unique_ptr<CountingIndex> index_;
};

/// What copies refuse or do otherwise stands in copies_test.cc.
class MutationOfRuns : public Mutation {};

TEST_P(Mutation, RemoveIds) {
    add(*index_);
    remove(faiss::IDSelectorRange(300, 420));
    expect_whole(*index_);
    std::vector<int64_t> some;
    for (int i = 0; i < 200; i++) {
        some.push_back(static_cast<int64_t>(random_() % rows));
    }
    remove(faiss::IDSelectorBatch(some.size(), some.data()));
    expect_whole(*index_);
    remove(faiss::IDSelectorBatch(some.size(), some.data())); // nothing left of them
    expect_whole(*index_);
    index_->compact();
    expect_whole(*index_);
    remove(faiss::IDSelectorRange(0, rows));
    expect_whole(*index_);
    const std::vector<float> more = whole_rows(300, GetParam().d, seed_ + 5);
    std::vector<int64_t> ids(300);
    std::iota(ids.begin(), ids.end(), 5000);
    index_->add_with_ids(300, more.data(), ids.data());
    oracle_.add(300, more.data(), ids.data());
    expect_whole(*index_);
}

TEST_P(Mutation, Reset) {
    add(*index_);
    index_->reset();
    oracle_.rows.clear();
    expect_whole(*index_);
    EXPECT_GT(index_->mixture().K, 0u) << "what was learnt stays";
    add(*index_);
    oracle_ = Oracle(GetParam().d, GetParam().metric);
    oracle_.add(rows, base_.data());
    expect_whole(*index_);
}

TEST_P(Mutation, MergeFrom) {
    add(*index_);
    const auto other = GetParam().trained(base_);
    const std::vector<float> more = whole_rows(600, GetParam().d, seed_ + 7);
    std::vector<int64_t> ids(600);
    std::iota(ids.begin(), ids.end(), 100);
    other->add_with_ids(600, more.data(), ids.data());
    index_->merge_from(*other, 10000);
    for (int64_t& id : ids) {
        id += 10000;
    }
    oracle_.add(600, more.data(), ids.data());
    expect_whole(*index_);
    EXPECT_EQ(other->ntotal, 0);
    other->check();
    other->nprobe = GetParam().nlist;
    EXPECT_EQ(search(*other, queries_, 1).labels, std::vector<int64_t>(queries, -1));
    other->nprobe = 2;
    EXPECT_EQ(search(*other, queries_, 1).labels, std::vector<int64_t>(queries, -1));
    other->add_with_ids(600, more.data(), ids.data());
    other->check();
}

TEST_P(MutationOfRuns, CodesOfSaEncodeAreFound) {
    add(*index_);
    const size_t d = GetParam().d, n = 80;
    const std::vector<float> more = whole_rows(n, d, seed_ + 4);
    std::vector<uint8_t> codes(n * index_->sa_code_size());
    index_->sa_encode(n, more.data(), codes.data());
    index_->add_sa_codes(n, codes.data(), nullptr);
    oracle_.add(n, more.data());
    expect_whole(*index_);
    index_->compact();
    expect_in_split_form();
    expect_whole(*index_);
}

/// Stock code empties it, or ends the process.
TEST_P(Mutation, AnIndexAndItselfAreRefused) {
    add(*index_);
    expect_four_parts(refusal([&] { index_->merge_from(*index_, 10000); }), "itself");
    const auto copy = [&] {
        index_->copy_subset_to(*index_, static_cast<FAISS_GMM_SUBSET_TYPE>(0), 0, 100);
    };
    expect_four_parts(refusal(copy), "itself");
    expect_whole(*index_);
}

TEST_P(Mutation, ListsThatDoNotExistAreRefused) {
    add(*index_);
    for (const int64_t wrong : {static_cast<int64_t>(GetParam().nlist), int64_t{1} << 40}) {
        const int64_t lists[] = {0, wrong, 1};
        const auto add_there = [&] { index_->add_core(3, base_.data(), nullptr, lists); };
        expect_four_parts(refusal(add_there), "list " + std::to_string(wrong));
    }
    expect_whole(*index_);
}

TEST_P(Mutation, RowsThatAreNotFiniteAreSkipped) {
    std::vector<float> broken = base_;
    const size_t d = GetParam().d;
    std::vector<size_t> bad{0, 7, 700, 701, rows - 1};
    for (const size_t i : bad) {
        broken[i * d + i % d] = i % 2 == 0 ? NAN : INFINITY;
    }
    std::fill_n(broken.begin() + 900 * d, d, 1e30f); // its square is not finite
    bad.push_back(900);
    add_in_batches(*index_, broken, 500, seed_);
    oracle_.add(rows, base_.data());
    for (const size_t i : bad) {
        oracle_.rows.erase(static_cast<int64_t>(i));
    }
    index_->check();
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows)); // as stock counts
    index_->nprobe = GetParam().nlist;
    Results got = search(*index_, queries_, k);
    if (GetParam().metric == faiss::METRIC_L2) {
        expect_exact(oracle_, queries_, got);
    }
    index_->nprobe = 4;
    got = search(*index_, queries_, k);
    if (GetParam().metric == faiss::METRIC_L2) {
        expect_sound(oracle_, queries_, got);
        EXPECT_GT(recall(oracle_, queries_, got), 0.3);
    }
    index_->compact();
    index_->check();
}

TEST_P(MutationOfRuns, UpdateRefusesRowsThatAreNotFinite) {
    add(*index_);
    index_->make_direct_map();
    std::vector<float> broken(base_.begin(), base_.begin() + 3 * GetParam().d);
    broken[2 * GetParam().d] = NAN;
    const int64_t ids[] = {4, 5, 6};
    expect_four_parts(
            refusal([&] { index_->update_vectors(3, ids, broken.data()); }), "row 2 with NaN");
    index_->check();
    expect_whole(*index_);
}

TEST_P(MutationOfRuns, CopySubsetTo) {
    add(*index_);
    const auto other = GetParam().trained(base_);
    index_->copy_subset_to(*other, static_cast<FAISS_GMM_SUBSET_TYPE>(0), 200, 900); // by id
    const Oracle all = oracle_;
    for (auto row = oracle_.rows.begin(); row != oracle_.rows.end();) {
        const bool inside = row->first >= 200 && row->first < 900;
        row = inside ? std::next(row) : oracle_.rows.erase(row);
    }
    expect_whole(*other);
    other->compact();
    expect_whole(*other);
    oracle_ = all;
    expect_whole(*index_);
}

TEST_P(MutationOfRuns, SubsetsThatStockCodeCannotCopyAreRefused) {
    add(*index_);
    const auto other = GetParam().trained(base_);
    const auto expect_refused = [&](int type, int64_t a, int64_t b, const std::string& given) {
        const auto copy = [&] {
            index_->copy_subset_to(*other, static_cast<FAISS_GMM_SUBSET_TYPE>(type), a, b);
        };
        expect_four_parts(refusal(copy), given);
        EXPECT_EQ(other->invlists->compute_ntotal(), 0u);
    };
    const auto n = static_cast<int64_t>(rows);
    other->set_direct_map_type(faiss::DirectMap::Hashtable);
    expect_refused(0, 0, 10, "a direct map");
    other->set_direct_map_type(faiss::DirectMap::NoMap);
    expect_refused(1, 0, 0, "1 / 0");
    expect_refused(2, -1, 5, "-1 to 5");
    expect_refused(2, 9, 5, "9 to 5");
    expect_refused(2, 0, n + 1, "0 to " + std::to_string(n + 1));
    std::vector<float> nowhere(GetParam().d, NAN);
    index_->add(1, nowhere.data()); // counted, and stored nowhere
    if (FAISS_GMM_SUBSETS_NEED_ALL_ROWS) {
        expect_refused(0, 0, n, std::to_string(n) + " of " + std::to_string(n + 1));
    } else {
        index_->copy_subset_to(*other, static_cast<FAISS_GMM_SUBSET_TYPE>(0), 0, n);
        expect_whole(*other);
    }
}

TEST_P(MutationOfRuns, AnUpdateOfIdsThatAreNotThereChangesNothing) {
    for (const auto type : {faiss::DirectMap::Array, faiss::DirectMap::Hashtable}) {
        index_->reset();
        index_->set_direct_map_type(type);
        oracle_ = Oracle(GetParam().d, GetParam().metric);
        add(*index_);
        std::vector<float> nowhere(GetParam().d, NAN);
        index_->add(1, nowhere.data()); // id rows: counted, and stored nowhere
        const std::vector<float> renewed = whole_rows(3, GetParam().d, seed_ + 9);
        const auto n = static_cast<int64_t>(rows);
        for (const int64_t bad : {int64_t{-1}, n, n + 1, int64_t{1} << 40, int64_t{7}}) {
            const int64_t ids[] = {3, 7, bad};
            const auto update = [&] { index_->update_vectors(3, ids, renewed.data()); };
            expect_four_parts(refusal(update), "id " + std::to_string(bad));
        }
        index_->check();
        expect_reconstructs(*index_);
    }
}

TEST_P(MutationOfRuns, DirectMapsFollow) {
    for (const auto type : {faiss::DirectMap::Array, faiss::DirectMap::Hashtable}) {
        SCOPED_TRACE(type == faiss::DirectMap::Array ? "Array" : "Hashtable");
        oracle_ = Oracle(GetParam().d, GetParam().metric);
        index_ = GetParam().trained(base_);
        index_->set_direct_map_type(type);
        const size_t half = rows / 2;
        std::vector<int64_t> ids(rows);
        std::iota(ids.begin(), ids.end(), 0);
        for (size_t first = 0; first < half;) {
            const size_t count = std::min(half - first, 1 + random_() % 200);
            index_->add_with_ids(
                    static_cast<int64_t>(count),
                    base_.data() + first * GetParam().d,
                    type == faiss::DirectMap::Array ? nullptr : ids.data() + first);
            oracle_.add(count, base_.data() + first * GetParam().d, ids.data() + first);
            first += count;
            index_->check();
        }
        expect_reconstructs(*index_);
        index_->compact();
        expect_whole(*index_);
        expect_reconstructs(*index_);
        // A third of them takes the place of others.
        const std::vector<float> renewed = whole_rows(half / 3, GetParam().d, seed_ + 9);
        std::vector<int64_t> chosen(ids.begin(), ids.begin() + half);
        std::shuffle(chosen.begin(), chosen.end(), random_);
        index_->update_vectors(static_cast<int>(half / 3), chosen.data(), renewed.data());
        oracle_.add(half / 3, renewed.data(), chosen.data());
        expect_whole(*index_);
        expect_reconstructs(*index_);
        if (type == faiss::DirectMap::Hashtable) {
            remove(faiss::IDSelectorArray(100, chosen.data()));
            expect_whole(*index_);
            expect_reconstructs(*index_);
        }
        index_->compact();
        expect_whole(*index_);
        expect_reconstructs(*index_);
        index_->set_direct_map_type(faiss::DirectMap::NoMap);
        index_->make_direct_map(type == faiss::DirectMap::Array);
        index_->check();
    }
}

TEST_P(MutationOfRuns, WhatStockCodeWritesBehindOurBackIsFound) {
    add(*index_);
    const size_t d = GetParam().d;
    const std::vector<float> more = whole_rows(60, d, seed_ + 3);
    std::vector<int64_t> homes(60);
    index_->quantizer->assign(60, more.data(), homes.data());
    const auto code = [](const float* row) { return reinterpret_cast<const uint8_t*>(row); };
    for (size_t i = 0; i < 40; i++) { // entries without a run
        const int64_t id = 20000 + static_cast<int64_t>(i);
        index_->invlists->add_entry(homes[i], id, code(more.data() + i * d));
        oracle_.add(1, more.data() + i * d, &id);
    }
    index_->ntotal += 40;
    expect_whole(*index_);
    index_->nprobe = 1;
    index_->probe_expansion = 1;
    for (size_t i = 0; i < 40; i++) { // and a search that probes their list meets them
        const std::vector<float> own(more.begin() + i * d, more.begin() + (i + 1) * d);
        if (GetParam().metric == faiss::METRIC_L2) {
            EXPECT_EQ(search(*index_, own, 1).distances[0], 0) << i;
        }
    }
    index_->probe_expansion = 0;
    for (size_t i = 40; i < 60; i++) { // entries overwritten, in runs or not
        const size_t list = homes[i], size = index_->invlists->list_size(list);
        const size_t offset = random_() % size;
        const int64_t id = 20000 + static_cast<int64_t>(i);
        oracle_.rows.erase(index_->invlists->get_single_id(list, offset));
        index_->invlists->update_entry(list, offset, id, code(more.data() + i * d));
        oracle_.add(1, more.data() + i * d, &id);
        if (i % 5 == 0) {
            expect_whole(*index_);
        }
    }
    for (size_t list = 0; list < 3; list++) { // lists cut short, one emptied
        const size_t size = index_->invlists->list_size(list);
        const size_t kept = list == 0 ? 0 : size - size / 3;
        for (size_t i = kept; i < size; i++) {
            oracle_.rows.erase(index_->invlists->get_single_id(list, i));
        }
        index_->invlists->resize(list, kept);
        index_->ntotal -= static_cast<int64_t>(size - kept);
        expect_whole(*index_);
    }
    index_->compact();
    expect_in_split_form();
    expect_whole(*index_);
}

TEST_P(MutationOfRuns, AppendingStaysBoundedAndCompactSplits) {
    index_->add(1000, base_.data());
    expect_in_split_form();
    for (size_t i = 1000; i < rows; i++) { // one by one
        index_->add(1, base_.data() + i * GetParam().d);
    }
    oracle_.add(rows, base_.data());
    size_t arrived = 0;
    for (size_t l = 0; l < GetParam().nlist; l++) {
        const ListRuns& list = index_->run_lists()->directory().lists[l];
        const size_t size = index_->invlists->list_size(l);
        EXPECT_EQ(list.covered, size);
        const size_t arrivals = size - list.split_entries;
        EXPECT_TRUE(arrivals <= 64 || 8 * arrivals <= size) << arrivals << " of " << size;
        arrived += arrivals;
    }
    EXPECT_GT(arrived, 0u);
    expect_whole(*index_);
    index_->compact();
    expect_in_split_form();
    expect_whole(*index_);
}

INSTANTIATE_TEST_SUITE_P(All, Mutation, testing::ValuesIn(all_setups()), setup_name);
INSTANTIATE_TEST_SUITE_P(All, MutationOfRuns, testing::ValuesIn(shared_setups()), setup_name);

} // namespace
} // namespace faiss_gmm
