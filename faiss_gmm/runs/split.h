// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faiss_gmm {

/// Orders the n rows y [n, d] so that each 32 consecutive ones are neighbours: the runs of a list.
///
/// Balanced binary splits: a part is projected on its main direction, ordered, and cut at the
/// multiple of 32 nearest to the middle, down to runs; so all runs but the last are full. A
/// function of the rows in the order given, whatever the machine does beside: the caller brings
/// them in an order that depends on the set alone. order [n]: row numbers.
void balanced_split(size_t n, size_t d, const float* y, std::vector<uint32_t>& order);

} // namespace faiss_gmm
