// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// choose_lists allocates only while its output and a thread's scratch grow. A program of its own:
// it replaces operator new; the sanitizers have their own, and the test is skipped under them.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "tests/spill/random_member.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FAISS_GMM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAISS_GMM_SANITIZED 1
#endif
#endif

namespace {
std::atomic<size_t> allocations{0};
}

#ifndef FAISS_GMM_SANITIZED
void* operator new(size_t size) {
    allocations++;
    if (void* memory = std::malloc(size ? size : 1)) {
        return memory;
    }
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
#endif

namespace faiss_gmm {
namespace {

TEST(ChooseLists, AllocatesOnlyWhileGrowing) {
#ifdef FAISS_GMM_SANITIZED
    GTEST_SKIP() << "operator new is the sanitizer's";
#endif
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
        const size_t before = allocations;
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
        return allocations - before;
    };
    EXPECT_GT(choose_all(), 0u) << "operator new is not counted";
    EXPECT_EQ(choose_all(), 0u);
    EXPECT_GT(total, 1000u);
}

} // namespace
} // namespace faiss_gmm
