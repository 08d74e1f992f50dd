// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Numbers of a codec that a file may hold, or that come of vectors whose distances are beyond fp32: casts of them must be
// defined (the sanitizers of preset fuzz see those that are not).
#include "faiss_gmm/runs/run_codec.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "run_fixture.h"

namespace faiss_gmm {
namespace {

constexpr float beyond = std::numeric_limits<float>::infinity();

TEST(RunCodec, ConstantsBeyondFloats) {
    const float not_a_number = std::nanf("");
    EXPECT_EQ((ConstantRange{0, 1, true}.code(not_a_number)), 0);
    EXPECT_EQ((ConstantRange{0, 1, true}.code(beyond)), saturated_score);
    EXPECT_EQ((ConstantRange{0, beyond, true}.code(beyond)), 0);
    EXPECT_EQ((ConstantRange{0, not_a_number, true}.code(1)), 0);
    EXPECT_EQ((ConstantRange{-1, 2, true}.code(0)), saturated_score / 2);
}

TEST(RunCodec, TablesOfRangesBeyondFloats) {
    const ListsOfRuns of(8, 6, 2, false, 3);
    QueryTables tables;
    const std::vector<float> far(of.codec().kept, 3e38f); // whose products overflow
    of.codec().build_tables(far.data(), {0, beyond, true}, {0, 3e38f, true}, tables);
    EXPECT_EQ(tables.summary_scale, 0) << "NaN, from infinity by nothing";
    const std::vector<float> near(of.codec().kept, 0.5f);
    of.codec().build_tables(near.data(), {0, 3e38f, true}, {0, 0, true}, tables);
    EXPECT_GE(tables.summary_scale, 65534) << "the whole range";
    EXPECT_EQ(tables.sketch_scale, 0);
}

} // namespace
} // namespace faiss_gmm
