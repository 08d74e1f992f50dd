// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/statistics.h"

#include <mutex>

#include <faiss/IndexIVF.h>

namespace faiss_gmm {

IVFGMMStats indexIVFGMM_stats;

void IVFGMMStats::reset() {
    *this = IVFGMMStats();
}

void IVFGMMStats::add(const IVFGMMStats& other) {
    nq += other.nq;
    nlist += other.nlist;
    ndis += other.ndis;
    nscored += other.nscored;
    nvisited += other.nvisited;
    nskipped += other.nskipped;
    bytes_scored += other.bytes_scored;
    means += other.means;
}

void publish(const IVFGMMStats& stats, faiss::IndexIVFStats* caller) {
    static std::mutex lock;
    const std::lock_guard<std::mutex> guard(lock);
    indexIVFGMM_stats.add(stats);
    faiss::IndexIVFStats& stock = caller != nullptr ? *caller : faiss::indexIVF_stats;
    stock.nq += stats.nq;
    stock.nlist += stats.nlist;
    stock.ndis += stats.ndis;
}

} // namespace faiss_gmm
