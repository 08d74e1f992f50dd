// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// choose_lists allocates only while its output and a thread's scratch grow.
#include <gtest/gtest.h>

#include "tests/allocations.h"
#include "tests/spill/random_member.h"

namespace faiss_gmm {
namespace {

TEST(ChooseLists, AllocatesOnlyWhileGrowing) {
    if (!allocations_are_counted()) {
        GTEST_SKIP() << "operator new is the sanitizer's";
    }
    std::mt19937_64 random(testing::test_seed());
    std::vector<testing::Member> members;
    for (int i = 0; i < 100; i++) {
        members.push_back(testing::random_member(random));
    }
    SpillPolicy policy;
    policy.rule = SpillRule::always;
    policy.order = SpillOrder::soar;
    policy.max_lists = 16;
    std::vector<int32_t> lists;
    size_t total = 0;
    const auto choose_all = [&] {
        for (const testing::Member& member : members) {
            choose_lists(
                    policy,
                    member.mixture,
                    member.home,
                    member.home_squared_distance,
                    member.row(),
                    lists);
            total += lists.size();
        }
    };
    EXPECT_GT(allocations_of(choose_all), 0u) << "operator new is not counted";
    EXPECT_EQ(allocations_of(choose_all), 0u);
    EXPECT_GT(total, 1000u);
}

} // namespace
} // namespace faiss_gmm
