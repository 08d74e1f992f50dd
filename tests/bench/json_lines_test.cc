// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/json_lines.h"

#include <sstream>

#include <gtest/gtest.h>

#include "tests/bench/reports.h"

using namespace faiss_gmm::bench;
using namespace faiss_gmm::test;

TEST(JsonLines, HaveEveryField) {
    std::istringstream lines(json_lines(known_report()));
    size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
        const auto json = nlohmann::json::parse(line);
        for (const char* key :
             {"index",
              "nprobe",
              "lists",
              "k_factor",
              "parameters",
              "dataset",
              "n",
              "d",
              "k",
              "recall_at_10",
              "ndis",
              "nvisited",
              "nscored",
              "bytes_read",
              "qps",
              "p50_us",
              "p99_us",
              "threads",
              "train_s",
              "add_s",
              "split_s",
              "sketch_s",
              "bytes_per_vector",
              "faiss_version",
              "simd",
              "faiss_simd",
              "cpu",
              "git_commit",
              "date"}) {
            EXPECT_TRUE(json.contains(key)) << key;
        }
    }
    EXPECT_EQ(count, 5u);
}

TEST(JsonLines, CarryTheNumbers) {
    const SearchReport report = known_report();
    const auto json = to_json(report, report.rows[4]);
    EXPECT_EQ(json["index"], "IVFGMM16,Flat");
    EXPECT_EQ(json["nprobe"], 2);
    EXPECT_EQ(json["recall_at_10"], .9);
    EXPECT_EQ(json["ndis"], 50);
    EXPECT_EQ(json["nvisited"], 100);
    EXPECT_EQ(json["nscored"], 7);
    EXPECT_EQ(json["bytes_read"], 10000);
    EXPECT_EQ(json["k"], 10);
    EXPECT_EQ(json["parameters"]["metric"], "l2");
    EXPECT_EQ(json["cpu"], "a & b");
}
