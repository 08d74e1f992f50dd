// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/search_bench.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/bench/reports.h"
#include "tests/datasets/files.h"

using namespace faiss_gmm;
using namespace faiss_gmm::bench;
using namespace faiss_gmm::test;

namespace {

constexpr size_t n = 2000, nq = 50, d = 16;

SearchReport run(SearchBenchOptions options) {
    options.shortest_round_s = 0;
    return run_search_bench(synthetic_set(n, nq, d), options);
}

SearchBenchOptions options_for(std::vector<std::string> indices, std::vector<size_t> nprobe) {
    SearchBenchOptions options;
    options.indices = std::move(indices);
    options.nprobe = std::move(nprobe);
    return options;
}

void expect_sound(const SearchRow& row) {
    EXPECT_GT(row.recall, 0) << row.index;
    EXPECT_LE(row.recall, 1);
    EXPECT_GT(row.counts.ndis, 0);
    EXPECT_GT(row.counts.nvisited, 0);
    EXPECT_GT(row.counts.bytes_read, 0);
    EXPECT_GT(row.qps, 0);
    EXPECT_GT(row.p50_us, 0);
    EXPECT_GE(row.p99_us, row.p50_us);
    EXPECT_GT(row.build.train_s, 0);
    EXPECT_GT(row.build.add_s, 0);
    EXPECT_GT(row.build.bytes_per_vector, 0);
}

} // namespace

TEST(SearchBench, StockIndicesEndToEnd) {
    const SearchReport report = run(options_for({"IVF8,Flat", "IVF16,SQ8"}, {1, 4, 8, 16, 64}));
    ASSERT_EQ(report.rows.size(), 3 + 4u); // nprobe is cut to nlist, none twice
    for (const SearchRow& row : report.rows) {
        expect_sound(row);
        EXPECT_EQ(row.counts.ndis, row.counts.nvisited);
        EXPECT_EQ(row.counts.nscored, 0);
        EXPECT_EQ(row.counts.lists, double(row.setting.nprobe));
    }
    // All lists of flat codes: exact, every vector compared once.
    const SearchRow& all = report.rows[2];
    EXPECT_EQ(all.setting.nprobe, 8u);
    EXPECT_EQ(all.recall, 1);
    EXPECT_EQ(all.counts.ndis, double(n));
    EXPECT_EQ(all.counts.bytes_read, double(n * 4 * d + 4 * d * 8));
    // Codes, ids and means; the quantizer's own header is all there may be more.
    const double bytes = 4 * d + 8 + double(8 * 4 * d) / n;
    EXPECT_GE(all.build.bytes_per_vector, bytes);
    EXPECT_LT(all.build.bytes_per_vector, bytes + 1);
    for (size_t i = 1; i < 3; ++i) {
        EXPECT_GE(report.rows[i].recall, report.rows[i - 1].recall);
    }
}

TEST(SearchBench, CountsTheMeansThatAGraphVisits) {
    const SearchReport report = run(options_for({"IVF64_HNSW4,Flat", "IVFGMM64_HNSW4,Flat"}, {1}));
    ASSERT_EQ(report.rows.size(), 2u);
    for (const SearchRow& row : report.rows) {
        EXPECT_GT(row.counts.bytes_read, row.counts.ndis * 4 * d) << row.index;
    }
    const double of_stock = report.rows[0].counts.bytes_read - report.rows[0].counts.ndis * 4 * d;
    EXPECT_LT(
            of_stock, 4. * d * 64 * 2); // a graph of 64 nodes, efSearch 16: not each several times
    const double means = of_stock * nq / (4. * d);
    EXPECT_NEAR(means, std::round(means), 1e-6); // whole ones
}

TEST(SearchBench, LooksBehindWrappers) {
    const SearchReport report = run(options_for(
            {"PCA8,IVF8,Flat", "IDMap,IVF8,Flat", "IVF8,PQ8x4fs,RFlat", "PCA8,IVF8,SQ8,RFlat"},
            {2, 8}));
    ASSERT_EQ(report.rows.size(), 8u);
    for (size_t i = 0; i < report.rows.size(); i += 2) {
        expect_sound(report.rows[i]);
        EXPECT_LT(report.rows[i].counts.ndis, double(n)); // so nprobe arrived
        EXPECT_EQ(report.rows[i + 1].counts.ndis, double(n));
    }
    EXPECT_GT(report.rows[4].build.bytes_per_vector, 4. * d); // the vectors kept for refinement
}

TEST(SearchBench, KFactorReachesRefinementAlone) {
    SearchBenchOptions options = options_for({"IVF8,Flat", "IVF8,PQ2x4,RFlat"}, {8});
    options.k_factor = {1, 50};
    options.lists = {4, 8};
    const SearchReport report = run(options);
    ASSERT_EQ(report.rows.size(), 1 + 2u);
    EXPECT_EQ(report.rows[0].setting.k_factor, 0);
    EXPECT_LT(report.rows[1].recall, report.rows[2].recall);
}

TEST(SearchBench, WhatCannotBeMeasuredIsRefused) {
    error_of([] { run(options_for({"Flat"}, {1})); });
    error_of([] { run(options_for({}, {1})); });
    error_of([] { run(options_for({"IVF8,Flat"}, {})); });
    error_of([] { run(options_for({"IVF8,Flat"}, {0})); });
    EXPECT_THROW(run(options_for({"IVF8,Nonsense"}, {1})), std::exception);
}

TEST(SearchBench, ThreadsAreAsBefore) {
    const int before = default_threads();
    SearchBenchOptions options = options_for({"IVF8,Flat"}, {1});
    options.threads = before + 1;
    EXPECT_EQ(run(options).threads, before + 1);
    EXPECT_EQ(run(options).build_threads, before + 1);
    EXPECT_EQ(default_threads(), before);
    options.build_threads = before + 2;
    EXPECT_EQ(run(options).threads, before + 1);
    EXPECT_EQ(run(options).build_threads, before + 2);
    EXPECT_EQ(default_threads(), before);
}

TEST(Quantile, IsTheNearestRank) {
    EXPECT_EQ(quantile_of({5, 1, 3, 2, 4}, .5), 3);
    EXPECT_EQ(quantile_of({5, 1, 3, 2, 4}, .99), 5);
    EXPECT_EQ(quantile_of({5, 1, 3, 2, 4}, 0), 1);
    EXPECT_EQ(quantile_of({7}, .5), 7);
}

TEST(SearchBench, OursBesideStock) {
    SearchBenchOptions options = options_for(
            {"IVF8,Flat", "IVFGMM8,Flat", "PCA8,IVFGMM8,Flat", "IDMap,IVFGMM8,Flat"}, {2, 8});
    options.lists = {0, 8};
    const SearchReport report = run(options);
    ASSERT_EQ(report.rows.size(), 2 + 3 * 4u);
    for (const SearchRow& row : report.rows) {
        expect_sound(row);
        EXPECT_EQ(row.parameters.empty(), !row.is_gmm);
        EXPECT_EQ(row.is_gmm, row.index.find("GMM") != std::string::npos);
        if (row.is_gmm && row.setting.lists == 8) {
            EXPECT_EQ(row.counts.lists, 8) << row.index;
        }
        if (row.setting.nprobe == 8 && row.index.rfind("PCA", 0) != 0) {
            EXPECT_EQ(row.recall, 1) << row.index; // all lists: exact
        }
    }
}
