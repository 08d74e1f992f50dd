// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/dataset.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/datasets/files.h"

using namespace faiss_gmm;
using namespace faiss_gmm::test;

namespace {

void expect_in(const std::string& part, const std::string& text) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

/// Four base rows, one query.
void write_set(const TemporaryFolder& folder) {
    folder.write("base.i8bin", big_ann<int8_t>(4, 2, {3, 4, 0, 2, -1, 0, 5, 5}));
    folder.write("query.fbin", big_ann<float>(1, 2, {0, 1}));
    folder.write("gt.ibin", big_ann<int32_t>(1, 2, {1, 2}));
}

std::string load_error(const TemporaryFolder& folder, Metric metric = Metric::l2) {
    return error_of([&] { load_dataset(folder.path(), metric); });
}

} // namespace

TEST(Dataset, ReadsAFolder) {
    const TemporaryFolder folder;
    write_set(folder);
    const Dataset set = load_dataset(folder.path() + "/", Metric::l2);
    EXPECT_EQ(set.name, folder.path().substr(folder.path().rfind('/') + 1));
    EXPECT_EQ(set.n, 4u);
    EXPECT_EQ(set.nq, 1u);
    EXPECT_EQ(set.d, 2u);
    EXPECT_EQ(set.base, (std::vector<float>{3, 4, 0, 2, -1, 0, 5, 5}));
    EXPECT_EQ(set.query, (std::vector<float>{0, 1}));
    const std::vector<int64_t> ids = {2, 1};
    EXPECT_DOUBLE_EQ(set.recall_measure(2).recall(ids.data()), 1);
}

TEST(Dataset, CosineBringsRowsToUnitLength) {
    const TemporaryFolder folder;
    write_set(folder);
    for (const Metric metric : {Metric::cosine, Metric::cosine_ip}) {
        const Dataset set = load_dataset(folder.path(), metric);
        EXPECT_FLOAT_EQ(set.base[0], .6f);
        EXPECT_FLOAT_EQ(set.base[1], .8f);
        EXPECT_FLOAT_EQ(set.base[6], std::sqrt(.5f));
        EXPECT_FLOAT_EQ(set.query[1], 1);
    }
    folder.write("query.fbin", big_ann<float>(1, 2, {0, 0}));
    expect_in("row 0", load_error(folder, Metric::cosine));
}

TEST(Dataset, ACroppedSetGetsItsOwnTruth) {
    const TemporaryFolder folder;
    write_set(folder);
    const Dataset set = load_dataset(folder.path(), Metric::l2, 2);
    EXPECT_EQ(set.n, 2u);
    EXPECT_EQ(set.base.size(), 4u);
    EXPECT_EQ(set.truth.ids, (std::vector<int32_t>{1, 0}));
    EXPECT_EQ(load_dataset(folder.path(), Metric::l2, 100).n, 4u);
}

TEST(Dataset, SaysWhatIsMissing) {
    expect_in("no folder", error_of([] { load_dataset("/nowhere/at all", Metric::l2); }));
    const TemporaryFolder folder;
    expect_in("no base.*", load_error(folder));
    folder.write("base.u8bin", big_ann<uint8_t>(2, 1, {1, 2}));
    expect_in("no query.*", load_error(folder));
    folder.write("query.u8bin", big_ann<uint8_t>(1, 1, {1}));
    expect_in("no gt.ibin", load_error(folder));
    folder.write("gt.ibin", big_ann<int32_t>(1, 1, {0}));
    EXPECT_EQ(load_dataset(folder.path(), Metric::l2).n, 2u);
    folder.write("base.fvecs", texmex<float>(1, {1, 2}));
    expect_in("base.fvecs, base.u8bin", load_error(folder));
}

TEST(Dataset, WhatDoesNotFitTogetherIsRefused) {
    const TemporaryFolder folder;
    write_set(folder);
    folder.write("gt.ibin", big_ann<int32_t>(2, 1, {0, 1}));
    expect_in("1 queries and true neighbours of 2", load_error(folder));
    folder.write("gt.ibin", big_ann<int32_t>(1, 1, {4}));
    expect_in("id 4", load_error(folder));
    folder.write("query.fbin", big_ann<float>(1, 3, {0, 1, 2}));
    expect_in("d = 2 in base.i8bin and d = 3 in query.fbin", load_error(folder));
}

TEST(Dataset, MetricWords) {
    for (const std::string& name : metric_names()) {
        EXPECT_EQ(metric_name(parse_metric(name)), name);
    }
    EXPECT_EQ(parse_metric("cosine-ip"), Metric::cosine_ip);
    EXPECT_EQ(faiss_metric(Metric::cosine), faiss::METRIC_L2);
    EXPECT_EQ(faiss_metric(Metric::cosine_ip), faiss::METRIC_INNER_PRODUCT);
    expect_in("cosine-ip", error_of([] { parse_metric("angular"); }));
}

TEST(Dataset, TheEmbeddedSetIsWhole) {
    const Dataset set = load_dataset(embedded_dataset_folder(), Metric::l2);
    EXPECT_EQ(set.n, 20000u);
    EXPECT_EQ(set.d, 128u);
    EXPECT_EQ(set.nq, 500u);
    EXPECT_EQ(set.truth.k, 100u);
    // Its own first ten neighbours are all within the tenth distance.
    std::vector<int64_t> ids;
    for (size_t q = 0; q < set.nq; ++q) {
        ids.insert(ids.end(), &set.truth.ids[q * 100], &set.truth.ids[q * 100] + 10);
    }
    EXPECT_DOUBLE_EQ(set.recall_measure(10).recall(ids.data()), 1);
    const GroundTruth searched = exact_ground_truth(
            set.d, set.n, set.base.data(), 20, set.query.data(), 10, faiss::METRIC_L2);
    const RecallMeasure measure(
            set.d, set.n, set.base.data(), 20, set.query.data(), searched, 10, faiss::METRIC_L2);
    EXPECT_DOUBLE_EQ(measure.recall(ids.data()), 1);
}
