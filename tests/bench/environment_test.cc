// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/environment.h"

#include <gtest/gtest.h>

#include <omp.h>

using namespace faiss_gmm::bench;

TEST(Environment, NamesEverything) {
    const Environment environment = describe_environment();
    EXPECT_NE(environment.faiss_version.find("1."), std::string::npos);
    EXPECT_FALSE(environment.simd.empty());
    EXPECT_FALSE(environment.faiss_simd.empty());
    EXPECT_FALSE(environment.cpu.empty());
    EXPECT_FALSE(environment.git_commit.empty());
    EXPECT_EQ(environment.date.size(), std::string("2026-01-02T03:04:05Z").size());
}

TEST(Environment, SetsThreads) {
    const int before = default_threads();
    set_threads(1);
    EXPECT_EQ(omp_get_max_threads(), 1);
    set_threads(before);
    EXPECT_EQ(default_threads(), before);
}
