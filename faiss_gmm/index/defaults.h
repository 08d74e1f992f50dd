// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>

namespace faiss_gmm {

/// Lists probed for a budget of nprobe lists' vectors, where nothing was asked for (measured:
/// bench/results/search-defaults.md).
size_t default_lists_probed(size_t nprobe, size_t nlist);

/// Exact distances for the k best of so many vectors visited, where nothing was asked for: 10 k, more
/// from 20,000 visited on, where 10 k would cut true neighbours off (measured: the same file).
size_t default_exact_distances(size_t k, size_t visited);

} // namespace faiss_gmm
