// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>

namespace faiss {
struct IndexIVFStats;
}

namespace faiss_gmm {

/// What searches touched, counted where it happens, not estimated. Words as in the README.
struct IVFGMMStats {
    size_t nq = 0;           ///< queries
    size_t nlist = 0;        ///< lists probed
    size_t ndis = 0;         ///< exact (codec) distances between a query and stored vectors
    size_t nscored = 0;      ///< summaries and sketches scored
    size_t nvisited = 0;     ///< vectors of the runs chosen, and those scanned without a run
    size_t nskipped = 0;     ///< vectors that the selector refused
    size_t bytes_scored = 0; ///< bytes of the summaries and sketches scored
    /// Means compared with queries: nlist each by a flat quantizer, and those of guests' homes. What
    /// another quantizer compares, its own statistics tell (faiss::hnsw_stats).
    size_t means = 0;

    /// Bytes of codes, summaries, sketches and means that these counts come to.
    size_t bytes_read(size_t code_size, size_t d) const {
        return ndis * code_size + bytes_scored + means * d * sizeof(float);
    }
    void reset();
    void add(const IVFGMMStats& other);
};

/// Sums over all searches of the process, as faiss::indexIVF_stats; added to once a call, under a
/// lock. Reset it when nothing searches.
extern IVFGMMStats indexIVFGMM_stats;

/// indexIVFGMM_stats.add(stats) under the lock; also adds nq, nlist and ndis to the caller's
/// statistics, or, where there are none, to faiss::indexIVF_stats.
void publish(const IVFGMMStats& stats, faiss::IndexIVFStats* caller);

} // namespace faiss_gmm
