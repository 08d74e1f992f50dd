// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>

namespace faiss_gmm {

/// body(i) for i < n, over OpenMP threads, one item at a time, each called whatever others threw;
/// then the exception of the smallest i is thrown again here (none may leave a parallel region).
template <class Body> void parallel_for(size_t n, Body body) {
    std::exception_ptr failure;
    size_t failed = n;
#pragma omp parallel for schedule(dynamic) if (n > 1)
    for (int64_t i = 0; i < static_cast<int64_t>(n); i++) {
        try {
            body(static_cast<size_t>(i));
        } catch (...) {
#pragma omp critical(faiss_gmm_parallel_for)
            if (static_cast<size_t>(i) < failed) {
                failed = static_cast<size_t>(i);
                failure = std::current_exception();
            }
        }
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

} // namespace faiss_gmm
