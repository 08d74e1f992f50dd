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

size_t default_exact_distances(size_t k, size_t visited) {
    const double crowd = std::max(1.0, static_cast<double>(visited) / 20'000);
    return static_cast<size_t>(std::lround(10 * static_cast<double>(k) * std::sqrt(crowd)));
}

} // namespace faiss_gmm
