// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/series.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/bench/reports.h"

using namespace faiss_gmm::bench;
using namespace faiss_gmm::test;

TEST(CostAtRecall, IsLinearInTheLogarithm) {
    const std::vector<CostPoint> points = {{.8, 100}, {.9, 400}, {1, 1600}};
    EXPECT_NEAR(*cost_at_recall(points, .85), 200, 1e-9); // the geometric middle
    EXPECT_NEAR(*cost_at_recall(points, .825), 100 * std::sqrt(2.), 1e-9);
    EXPECT_NEAR(*cost_at_recall(points, .95), 800, 1e-9);
}

TEST(CostAtRecall, HitsMeasuredPoints) {
    const std::vector<CostPoint> points = {{.8, 100}, {.9, 400}, {1, 1600}};
    EXPECT_NEAR(*cost_at_recall(points, .8), 100, 1e-9);
    EXPECT_NEAR(*cost_at_recall(points, .9), 400, 1e-9);
    EXPECT_NEAR(*cost_at_recall(points, 1), 1600, 1e-9);
}

TEST(CostAtRecall, NeverExtrapolates) {
    const std::vector<CostPoint> points = {{.8, 100}, {.9, 400}};
    EXPECT_FALSE(cost_at_recall(points, .79));
    EXPECT_FALSE(cost_at_recall(points, .91));
    EXPECT_FALSE(cost_at_recall({{.9, 1}}, .9));
    EXPECT_FALSE(cost_at_recall({}, .9));
}

TEST(CostAtRecall, TheFirstCrossingCounts) {
    const std::vector<CostPoint> points = {{.8, 100}, {.9, 200}, {.85, 300}, {.95, 400}};
    EXPECT_NEAR(*cost_at_recall(points, .9), 200, 1e-9);
    EXPECT_NEAR(*cost_at_recall({{.9, 100}, {.9, 200}, {1, 400}}, .95), std::sqrt(80000.), 1e-9);
}

TEST(Savings, AreAgainstTheFirstStockIndex) {
    SearchReport report = known_report();
    report.rows.push_back(row(2, "IVF32,Flat", false, 1, .89, 1));
    report.rows.push_back(row(2, "IVF32,Flat", false, 2, .91, 2));
    const std::vector<Saving> all = savings(report);
    ASSERT_EQ(all.size(), 8u); // two recalls, one of ours, four figures
    EXPECT_EQ(all[0].figure, Figure::visited);
    EXPECT_EQ(all[0].recall, .90);
    EXPECT_EQ(all[0].stock_label, "IVF16,Flat");
    EXPECT_EQ(all[0].label, "IVFGMM16,Flat");
    EXPECT_NEAR(*all[0].stock, 200, 1e-9);
    EXPECT_NEAR(*all[0].ours, 100, 1e-9);
    EXPECT_NEAR(*all[0].share(), .5, 1e-12);
    EXPECT_NEAR(*all[1].stock, 100, 1e-9);   // distances
    EXPECT_NEAR(*all[2].stock, 20000, 1e-9); // bytes
    EXPECT_NEAR(*all[3].stock, 200, 1e-9);   // microseconds
    EXPECT_EQ(all[4].recall, .95);
    EXPECT_NEAR(*all[4].stock, 400, 1e-9);
    EXPECT_FALSE(all[4].ours);
    EXPECT_FALSE(all[4].share());
}

TEST(Savings, NeedBothSides) {
    SearchReport report = known_report();
    report.rows.resize(3);
    EXPECT_TRUE(savings(report).empty());
    report.rows = {row(0, "IVFGMM16,Flat", true, 1, .9, 1)};
    EXPECT_TRUE(savings(report).empty());
}

TEST(SeriesOf, LabelsNameWhatWasAskedFor) {
    SearchReport report = known_report();
    report.rows[4].series = 2;
    report.rows[4].setting.lists = 8;
    report.rows[4].setting.k_factor = 2.5f;
    const std::vector<RowSeries> series = series_of(report);
    ASSERT_EQ(series.size(), 3u);
    EXPECT_EQ(series[1].label, "IVFGMM16,Flat");
    EXPECT_EQ(series[2].label, "IVFGMM16,Flat lists=8 k_factor=2.5");
    EXPECT_EQ(series[0].rows.size(), 3u);
}
