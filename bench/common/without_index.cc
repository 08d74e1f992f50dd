// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Stands in for the index while the library has none, so that stock indices can be measured:
// compiled only where faiss_gmm/factory has no sources.
#include <faiss/index_factory.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/index_ivf_gmm.h"

namespace faiss_gmm {

IVFGMMStats indexIVFGMM_stats;

void IVFGMMStats::reset() {
    *this = {};
}

IndexIVFGMM::~IndexIVFGMM() = default;

BuildTimes IndexIVFGMM::build_times() const {
    return {};
}

MemoryUse IndexIVFGMM::memory_use() const {
    return {};
}

faiss::Index* index_factory(int d, const char* description, faiss::MetricType metric) {
    return faiss::index_factory(d, description, metric);
}

} // namespace faiss_gmm
