// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>

namespace faiss_gmm {

/// Bytes of rows on their way while one is compared.
constexpr size_t prefetched_row_bytes = 4096;

/// Asks for the cache lines of [from, from + bytes), one each 64 bytes.
inline void prefetch_bytes(const void* from, size_t bytes) {
    for (size_t b = 0; b < bytes; b += 64) {
        __builtin_prefetch(static_cast<const char*>(from) + b);
    }
}

/// Calls visit(i) for i < n in order, with rows [n] of row_bytes each on their way ahead of it.
template <class Visit>
void for_each_row_prefetched(
        const unsigned char* const* rows, size_t n, size_t row_bytes, Visit visit) {
    const size_t ahead = row_bytes > 0 ? prefetched_row_bytes / row_bytes + 1 : 1;
    for (size_t i = 0; i < ahead && i < n; i++) {
        prefetch_bytes(rows[i], row_bytes);
    }
    for (size_t i = 0; i < n; i++) {
        if (i + ahead < n) {
            prefetch_bytes(rows[i + ahead], row_bytes);
        }
        visit(i);
    }
}

} // namespace faiss_gmm
