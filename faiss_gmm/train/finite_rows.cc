// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/finite_rows.h"

#include <algorithm>

namespace faiss_gmm {

size_t first_bad_row(size_t n, size_t d, const float* x) {
    size_t first = n;
#pragma omp parallel for reduction(min : first) if (n * d > 65536)
    for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
        if (!all_finite(d, x + i * d)) {
            first = std::min(first, static_cast<size_t>(i));
        }
    }
    return first;
}

} // namespace faiss_gmm
