// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Files of earlier versions are read, and hold what they held.
#include <gtest/gtest.h>

#include "golden.h"
#include "io_fixture.h"

namespace faiss_gmm {
namespace {

TEST(Golden, ListsOfVersion1) {
    const std::string path = std::string(FAISS_GMM_GOLDEN) + "/lists_1.index";
    const std::unique_ptr<faiss::Index> read(read_index(path));
    auto& index = dynamic_cast<IndexIVFGMMFlat&>(*read);
    EXPECT_EQ(index.ntotal, static_cast<int64_t>(golden_rows));
    EXPECT_EQ(index.nprobe, 2u);
    EXPECT_EQ(index.k_factor, 5);
    EXPECT_EQ(index.training.seed, 42u);
    EXPECT_EQ(index.spill.rule, SpillRule::always);
    EXPECT_EQ(index.spill.max_lists, 3u);
    EXPECT_EQ(index.mixture().K, 4u);
    size_t runs = 0, guests = 0, sketches = 0;
    for (const ListRuns& list : index.run_lists()->directory().lists) {
        runs += list.runs();
        guests += list.guests.size();
        sketches += list.sketches.size();
    }
    EXPECT_GE(runs, 5u);
    EXPECT_GT(guests, 0u);
    EXPECT_GT(sketches, 0u);

    Oracle oracle(golden_d, faiss::METRIC_L2);
    oracle.add(golden_rows, golden_vectors().data());
    const std::vector<float> queries = whole_rows(30, golden_d, 13);
    IVFGMMSearchParameters all;
    all.nprobe = 4;
    expect_exact(oracle, queries, search(index, queries, 10, &all));
    expect_sound(oracle, queries, search(index, queries, 10));
    // Distances are sums that another machine may order otherwise, so not check(); but made anew it is sound.
    index.run_lists()->check_structure();
    index.add(100, whole_rows(100, golden_d, 14).data());
    EXPECT_EQ(index.remove_ids(faiss::IDSelectorRange(0, 20)), 20u);
    index.run_lists()->check_structure();
}

TEST(Golden, BlocksOfVersion1) {
    const std::string path = std::string(FAISS_GMM_GOLDEN) + "/blocks_1.index";
    const std::unique_ptr<faiss::Index> read(read_index(path));
    auto& index = dynamic_cast<IndexIVFGMMPQFastScan&>(*read);
    EXPECT_EQ(index.ntotal, static_cast<int64_t>(golden_rows));
    EXPECT_EQ(index.nprobe, 2u);
    EXPECT_EQ(index.training.seed, 42u);
    EXPECT_EQ(index.mixture().K, 4u);
    EXPECT_EQ(index.mixture().covariance, Covariance::diagonal);
    const auto& lists = dynamic_cast<const MixtureBlockLists&>(*index.invlists);
    EXPECT_EQ(lists.n_per_block, 32u);

    // Each row is in the list of its component.
    const std::vector<float> x = golden_vectors();
    std::vector<int64_t> component(golden_rows);
    index.mixture().predict(golden_rows, x.data(), component.data());
    size_t stored = 0;
    for (size_t l = 0; l < lists.nlist; l++) {
        for (const int64_t id : lists.ids[l]) {
            ASSERT_LT(static_cast<size_t>(id), golden_rows);
            EXPECT_EQ(component[id], static_cast<int64_t>(l)) << "row " << id;
            stored++;
        }
    }
    EXPECT_EQ(stored, golden_rows);

    // Codes of a byte a row and 8-bit tables: among all 150, two thirds of the nearest ten are found.
    Oracle oracle(golden_d, faiss::METRIC_L2);
    oracle.add(golden_rows, x.data());
    const std::vector<float> queries = whole_rows(30, golden_d, 13);
    index.nprobe = 4;
    EXPECT_GT(recall(oracle, queries, search(index, queries, 10)), 0.66);
    const Results all = search(index, queries, golden_rows);
    for (size_t i = 0; i < all.n; i++) {
        const std::set<int64_t> ids(
                all.labels.begin() + static_cast<std::ptrdiff_t>(i * all.k),
                all.labels.begin() + static_cast<std::ptrdiff_t>((i + 1) * all.k));
        EXPECT_EQ(ids.size(), golden_rows) << "query " << i;
        EXPECT_EQ(*ids.begin(), 0) << "query " << i;
    }
    index.add(100, whole_rows(100, golden_d, 14).data());
    EXPECT_EQ(index.ntotal, static_cast<int64_t>(golden_rows) + 100);
}

/// Remove with version 2: then reading alone is asked for.
TEST(Golden, Version1IsWhatIsWrittenStill) {
    for (const auto& [name, key] :
         {std::pair<std::string, std::string>{"lists_1.index", "ilgm"},
          {"blocks_1.index", "ilgb"}}) {
        const std::string path = std::string(FAISS_GMM_GOLDEN) + "/" + name;
        const std::unique_ptr<faiss::Index> read(read_index(path));
        const Bytes golden = contents(path), written = stock_bytes(*read);
        const auto section = std::search(written.begin(), written.end(), key.begin(), key.end());
        ASSERT_NE(section, written.end());
        EXPECT_NE(std::search(golden.begin(), golden.end(), section, written.end()), golden.end());
    }
}

} // namespace
} // namespace faiss_gmm
