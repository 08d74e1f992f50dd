// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/report.h"

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/bench/reports.h"
#include "tests/datasets/files.h"

using namespace faiss_gmm::bench;
using namespace faiss_gmm::test;

namespace {

void expect_in(const std::string& part, const std::string& text) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

} // namespace

TEST(Report, SavingsSayHowMuchLess) {
    const std::string text = savings_table(known_report());
    expect_in("100 (-50%)", text);
    expect_in("10,000 (-50%)", text);
    expect_in("measure more", text); // .95 of ours was not measured
    SearchReport stock = known_report();
    stock.rows.resize(3);
    EXPECT_EQ(savings_table(stock), "");
}

TEST(Report, SideBySideHasALineAnNprobe) {
    const std::string text = side_by_side_table(known_report());
    expect_in("IVF16,Flat", text);
    expect_in("IVFGMM16,Flat", text);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3 + 3); // headings, rule; nprobe 1, 2, 4
}

TEST(Report, TablesHaveALineARowOrAnIndex) {
    const std::string rows = rows_table(known_report()), build = build_table(known_report());
    EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 2 + 5);
    EXPECT_EQ(std::count(build.begin(), build.end(), '\n'), 2 + 2);
}

TEST(Report, ThePlotNamesHardwareAndSeries) {
    const std::string svg = plot_svg(known_report());
    expect_in("a &amp; b", svg);
    expect_in(">IVFGMM16,Flat</text>", svg);
    expect_in("queries per second", svg);
}

TEST(Report, FilesAreWrittenWholeOrNotAtAll) {
    const TemporaryFolder folder;
    const std::string path = folder.write("a.txt", "before");
    write_text_file(path, "after");
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    EXPECT_EQ(text.str(), "after");
    expect_in("/none/", error_of([&] { write_text_file(folder.path() + "/none/a", "x"); }));
    // A folder of that name: nothing is left beside it.
    const std::string blocked = folder.path() + "/blocked";
    std::filesystem::create_directory(blocked);
    error_of([&] { write_text_file(blocked, "x"); });
    const auto files = std::filesystem::directory_iterator(folder.path());
    EXPECT_EQ(std::distance(begin(files), end(files)), 2);
}
