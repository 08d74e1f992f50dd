// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Selectors: what is not selected is never returned, and what is skipped is counted.
#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 2000, queries = 15, k = 10;

class Selector : public testing::TestWithParam<IndexSetup> {
protected:
    void SetUp() override {
        const IndexSetup& setup = GetParam();
        base_ = whole_rows(rows, setup.d, seed_);
        queries_ = whole_rows(queries, setup.d, seed_ + 1);
        index_ = setup.trained(base_);
        add_in_batches(*index_, base_, 700, seed_);
        oracle_.add(rows, base_.data());
    }

    void expect_heeded(const faiss::IDSelector& selector, size_t selected) {
        const bool copies = GetParam().storage == SpillStorage::copies;
        for (const size_t nprobe : {size_t{1}, size_t{4}, GetParam().nlist}) {
            SCOPED_TRACE(testing::Message() << selected << " selected, nprobe " << nprobe);
            IVFGMMSearchParameters params;
            params.nprobe = nprobe;
            params.sel = const_cast<faiss::IDSelector*>(&selector);
            indexIVFGMM_stats.reset();
            index_->log->clear();
            const Results got = search(*index_, queries_, k, &params);
            if (nprobe == GetParam().nlist) {
                expect_exact(oracle_, queries_, got, 0, &selector);
            } else {
                expect_sound(oracle_, queries_, got, 0, &selector);
            }
            if (copies) {
                continue;
            }
            const IVFGMMStats& stats = indexIVFGMM_stats;
            EXPECT_EQ(stats.ndis, index_->log->total());
            if (nprobe == GetParam().nlist) {
                EXPECT_EQ(stats.ndis, queries * selected);
                EXPECT_EQ(stats.nskipped, queries * (rows - selected));
            } else if (GetParam().sketch == SketchParameters::Mode::none) {
                EXPECT_EQ(stats.ndis + stats.nskipped, stats.nvisited);
            } else {
                EXPECT_GT(stats.nskipped, 0u);
                EXPECT_LE(stats.ndis + stats.nskipped, stats.nvisited);
            }
        }
    }

    const uint64_t seed_ = test_seed();
    Oracle oracle_{GetParam().d, GetParam().metric};
    std::vector<float> base_, queries_;
    std::unique_ptr<CountingIndex> index_;
};

TEST_P(Selector, RangesAndBatchesAreHeeded) {
    std::mt19937_64 random(seed_);
    for (const size_t share : {1, 10, 50}) {
        const size_t selected = rows * share / 100;
        const auto first = static_cast<int64_t>(random() % (rows - selected));
        const auto end = first + static_cast<int64_t>(selected);
        expect_heeded(faiss::IDSelectorRange(first, end), selected);
        // Runs are not in the order of ids: ours must not believe it.
        expect_heeded(faiss::IDSelectorRange(first, end, true), selected);
        std::vector<int64_t> ids(rows);
        for (size_t i = 0; i < rows; i++) {
            ids[i] = static_cast<int64_t>(i);
        }
        std::shuffle(ids.begin(), ids.end(), random);
        expect_heeded(faiss::IDSelectorBatch(selected, ids.data()), selected);
    }
}

TEST_P(Selector, OfOnePercentStillFindsWhatIsVisited) {
    // Only selected vectors move the threshold: with exact distances for two results' worth, all 20
    // selected ones that lie in visited runs are found.
    if (GetParam().storage == SpillStorage::copies) {
        return;
    }
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < 20; i++) {
        ids.push_back(i * 97 % static_cast<int64_t>(rows));
    }
    const faiss::IDSelectorBatch selector(ids.size(), ids.data());
    IVFGMMSearchParameters params;
    params.nprobe = GetParam().nlist - 1; // nearly everything, by sketches
    params.k_factor = 2;
    params.probe_expansion = 2;
    params.sel = const_cast<faiss::IDSelectorBatch*>(&selector);
    const Results got = search(*index_, queries_, k, &params);
    expect_sound(oracle_, queries_, got, 0, &selector);
    size_t found = 0;
    for (const int64_t label : got.labels) {
        found += label >= 0;
    }
    EXPECT_EQ(found, queries * k);
}

INSTANTIATE_TEST_SUITE_P(All, Selector, testing::ValuesIn(all_setups()), setup_name);

} // namespace
} // namespace faiss_gmm
