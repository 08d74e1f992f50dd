// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/defaults.h"

#include <algorithm>
#include <cmath>

namespace faiss_gmm {

size_t default_lists_probed(size_t nprobe, size_t nlist) {
    const double lists = 16 * std::sqrt(static_cast<double>(nprobe));
    return std::min(nlist, std::max(nprobe, static_cast<size_t>(std::lround(lists))));
}

size_t default_exact_distances(size_t k) {
    return 10 * k;
}

} // namespace faiss_gmm
