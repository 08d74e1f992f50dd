// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <algorithm>
#include <cstddef>

#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/FaissException.h>

namespace faiss_gmm {

/// Throws where FAISS's interrupt callback wants it.
inline void stop_if_interrupted() {
    if (faiss::InterruptCallback::is_interrupted()) {
        throw faiss::FaissException("search interrupted");
    }
}

/// scan(first, end) for stretches of the entries [from, to) of a list, each of d dimensions; between them
/// the callback is asked, as often as its period hint says.
template <class Scan> void scan_interruptibly(size_t d, size_t from, size_t to, Scan scan) {
    const size_t period = faiss::InterruptCallback::get_period_hint(d);
    for (size_t first = from; first < to; first += std::min(period, to - first)) {
        if (first > from) {
            stop_if_interrupted();
        }
        scan(first, first + std::min(period, to - first));
    }
}

} // namespace faiss_gmm
