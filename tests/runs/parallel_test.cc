// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <omp.h>

#include "faiss_gmm/runs/parallel.h"

namespace faiss_gmm {
namespace {

TEST(ParallelFor, CallsEachOnceAndThrowsTheSmallestsError) {
    const int threads = omp_get_max_threads();
    for (const int used : {1, 2, 7}) {
        omp_set_num_threads(used);
        std::vector<std::atomic<int>> calls(500);
        std::string thrown;
        try {
            parallel_for(calls.size(), [&](size_t i) {
                calls[i]++;
                if (i % 2 == 1 && i >= 33) {
                    throw std::runtime_error(std::to_string(i));
                }
            });
        } catch (const std::runtime_error& error) {
            thrown = error.what();
        }
        EXPECT_EQ(thrown, "33") << used << " threads";
        for (size_t i = 0; i < calls.size(); i++) {
            EXPECT_EQ(calls[i], 1) << "item " << i << ", " << used << " threads";
        }
    }
    omp_set_num_threads(threads);
}

} // namespace
} // namespace faiss_gmm
