// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/ground_truth.h"

#include <gtest/gtest.h>

#include "tests/datasets/files.h"

using namespace faiss_gmm;
using namespace faiss_gmm::test;

namespace {

void expect_in(const std::string& part, const std::string& text) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

} // namespace

TEST(GroundTruth, TheSizeTellsWhetherDistancesFollow) {
    const TemporaryFolder folder;
    const std::vector<int32_t> ids = {0, 1, 2, 3, 4, 0};
    const std::vector<float> distances = {.5f, 1, 2, 3, 4, 5};
    const GroundTruth alone = load_ground_truth(folder.write("gt.ibin", big_ann(2, 3, ids)), 5);
    EXPECT_EQ(alone.nq, 2u);
    EXPECT_EQ(alone.k, 3u);
    EXPECT_EQ(alone.ids, ids);
    EXPECT_TRUE(alone.distances.empty());
    const GroundTruth both =
            load_ground_truth(folder.write("gt.ibin", big_ann(2, 3, ids) + bytes_of(distances)), 5);
    EXPECT_EQ(both.ids, ids);
    EXPECT_EQ(both.distances, distances);
}

TEST(GroundTruth, EveryOtherSizeIsRefused) {
    const TemporaryFolder folder;
    const std::string whole =
            big_ann<int32_t>(1, 3, {0, 1, 2}) + bytes_of<float>({0, 1, 2}) + "more";
    for (size_t length = 0; length <= whole.size(); ++length) {
        SCOPED_TRACE(length);
        const std::string path = folder.write("gt.ibin", whole.substr(0, length));
        if (length == 8 + 12 || length == 8 + 24) {
            EXPECT_EQ(load_ground_truth(path, 3).k, 3u);
        } else {
            error_of([&] { load_ground_truth(path, 3); });
        }
    }
}

TEST(GroundTruth, HostileFilesAreRefused) {
    const TemporaryFolder folder;
    const auto open = [&](uint32_t nq, uint32_t k, const std::vector<int32_t>& ids) {
        const std::string path = folder.write("gt.ibin", big_ann(nq, k, ids));
        return error_of([&] { load_ground_truth(path, 5); });
    };
    expect_in("0 queries", open(0, 3, {1, 2, 3}));
    expect_in("k = 0", open(3, 0, {1, 2, 3}));
    expect_in("truncated", open(~0u, ~0u, {1, 2, 3}));
    expect_in("truncated", open(1u << 31, 1u << 31, {}));
    expect_in("id 5 for query 1", open(2, 2, {0, 1, 2, 5}));
    expect_in("id -1 for query 0", open(1, 2, {0, -1}));
}

TEST(Recall, CountsTiesOnceAndDuplicatesOnce) {
    // On a line; the query stands at 0, so distances are 0, 1, 4, 4, 9.
    const std::vector<float> base = {0, 1, 2, -2, 3};
    const std::vector<float> query = {0};
    const GroundTruth truth =
            exact_ground_truth(1, 5, base.data(), 1, query.data(), 5, faiss::METRIC_L2);
    const RecallMeasure at_3(1, 5, base.data(), 1, query.data(), truth, 3, faiss::METRIC_L2);
    const auto recall = [&](std::vector<int64_t> ids) { return at_3.recall(ids.data()); };
    EXPECT_DOUBLE_EQ(recall({0, 1, 2}), 1);
    EXPECT_DOUBLE_EQ(recall({0, 1, 3}), 1); // ties with the third
    EXPECT_DOUBLE_EQ(recall({3, 2, 0}), 1);
    EXPECT_DOUBLE_EQ(recall({0, 1, 4}), 2. / 3);
    EXPECT_DOUBLE_EQ(recall({0, 0, 0}), 1. / 3);
    EXPECT_DOUBLE_EQ(recall({0, -1, -1}), 1. / 3);
    EXPECT_DOUBLE_EQ(recall({-1, -1, -1}), 0);
    expect_in("id 5", error_of([&] { recall({0, 1, 5}); }));
    expect_in("id -2", error_of([&] { recall({0, 1, -2}); }));
}

TEST(Recall, InnerProductCountsTheLargest) {
    const std::vector<float> base = {1, 2, 3, -4};
    const std::vector<float> query = {1, -1};
    const GroundTruth truth =
            exact_ground_truth(1, 4, base.data(), 2, query.data(), 2, faiss::METRIC_INNER_PRODUCT);
    EXPECT_EQ(truth.ids, (std::vector<int32_t>{2, 1, 3, 0}));
    const RecallMeasure measure(
            1, 4, base.data(), 2, query.data(), truth, 2, faiss::METRIC_INNER_PRODUCT);
    const std::vector<int64_t> ids = {1, 2, 2, 3};
    EXPECT_DOUBLE_EQ(measure.recall(ids.data()), .75);
}

TEST(Recall, RoundingInTheOrderOfTheTruthDoesNotMatter) {
    const std::vector<float> base = {1, 1.00001f, 2};
    const std::vector<float> query = {0};
    const GroundTruth swapped{1, 2, {1, 0}, {}};
    const RecallMeasure measure(1, 3, base.data(), 1, query.data(), swapped, 2, faiss::METRIC_L2);
    const std::vector<int64_t> ids = {0, 1};
    EXPECT_DOUBLE_EQ(measure.recall(ids.data()), 1);
}

TEST(Recall, ATruthOfAnotherMetricIsRefused) {
    const std::vector<float> base = {1, 2, 3};
    const std::vector<float> query = {1};
    const GroundTruth truth{1, 3, {0, 1, 2}, {}};
    RecallMeasure(1, 3, base.data(), 1, query.data(), truth, 3, faiss::METRIC_L2);
    expect_in(
            "nearest first for 1 of 1", error_of([&] {
                RecallMeasure(
                        1, 3, base.data(), 1, query.data(), truth, 3, faiss::METRIC_INNER_PRODUCT);
            }));
}

TEST(Recall, WhatDoesNotFitIsRefused) {
    const std::vector<float> base = {0, 1, 2};
    const std::vector<float> query = {0, 1};
    const auto make = [&](const GroundTruth& truth, size_t k, faiss::MetricType metric) {
        return error_of([&] {
            RecallMeasure measure(1, 3, base.data(), 2, query.data(), truth, k, metric);
        });
    };
    const GroundTruth good{2, 1, {0, 1}, {}};
    make(good, 2, faiss::METRIC_L2);
    make(good, 0, faiss::METRIC_L2);
    make(GroundTruth{1, 2, {0, 1}, {}}, 1, faiss::METRIC_L2);
    make(good, 1, faiss::METRIC_L1);
    error_of([&] { exact_ground_truth(1, 3, base.data(), 2, query.data(), 4, faiss::METRIC_L2); });
}
