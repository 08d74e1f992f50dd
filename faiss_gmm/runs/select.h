// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_gmm {

/// Writes to keys, for the `want` smallest of scores [n], and possibly for up to an eighth more that are
/// next in size, or equal, score << 32 | position, in order of position; scores of 65535 never. Returns
/// how many; keys has room for n.
size_t select_scores(const uint16_t* scores, size_t n, size_t want, uint64_t* keys);

/// Positions of the `want` smallest of values [n] (all of them finite, 0 < want <= n), in order of
/// position, and possibly of up to an eighth more that are next in size, or equal. Returns how many;
/// positions has room for n.
size_t select_values(const float* values, size_t n, size_t want, int32_t* positions);

} // namespace faiss_gmm
