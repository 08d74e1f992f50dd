// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/table.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/datasets/files.h"

using namespace faiss_gmm::bench;

TEST(Table, AlignsColumns) {
    Table table({"a", "bb"});
    table.add_row({"long", "1"});
    EXPECT_EQ(table.text(), "a     bb\n--------\nlong   1\n");
}

TEST(Table, PutsHeadingsOverGroups) {
    Table table({"n", "x", "y"});
    table.add_group("", 1);
    table.add_group("a wide heading", 2);
    table.add_row({"1", "2", "3"});
    EXPECT_EQ(
            table.text(),
            "   a wide heading\n"
            "n  x            y\n"
            "-----------------\n"
            "1  2            3\n");
}

TEST(Table, RefusesARowOfAnotherLength) {
    Table table({"a", "b"});
    faiss_gmm::test::error_of([&] { table.add_row({"1"}); });
}

TEST(Grouped, ReadsWell) {
    EXPECT_EQ(grouped(0), "0");
    EXPECT_EQ(grouped(1.25), "1.2");
    EXPECT_EQ(grouped(42), "42");
    EXPECT_EQ(grouped(99.97), "100");
    EXPECT_EQ(grouped(999.6), "1,000");
    EXPECT_EQ(grouped(1234567.8), "1,234,568");
    EXPECT_EQ(grouped(-123456), "-123,456");
    EXPECT_EQ(grouped(std::nan("")), "-");
}
