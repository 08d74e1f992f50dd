// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_gmm {

/// Bytes of blocks or rows on their way while one is read. They come into the second cache: the first
/// has too few lines under way at once (bench/results/search-log.md).
constexpr size_t prefetched_bytes = size_t{64} << 10;

/// How many items of item_bytes each these are, at least one.
constexpr size_t items_ahead(size_t item_bytes) {
    return item_bytes > 0 ? prefetched_bytes / item_bytes + 1 : 1;
}

/// Asks for the cache lines that [from, from + bytes) touches, in the second cache.
inline void prefetch_bytes(const void* from, size_t bytes) {
    constexpr size_t line = 64;
    const auto* first = static_cast<const char*>(from);
    const char* const end = first + bytes;
    for (const char* at = first - reinterpret_cast<uintptr_t>(first) % line; at < end; at += line) {
        __builtin_prefetch(at, 0, 2);
    }
}

} // namespace faiss_gmm
