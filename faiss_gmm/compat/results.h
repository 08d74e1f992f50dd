// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Ways to hand out results that not every version has.
#pragma once

#include "faiss_gmm/compat/faiss_version.h"

#if FAISS_GMM_FAISS_AT_LEAST(1, 8)
#define FAISS_GMM_HAS_CODES_OF_RESULTS 1 // IndexIVF::search_and_return_codes
#endif

#if __has_include(<faiss/impl/expanded_scanners.h>) // IndexIVF::search1, since 1.14
#include <faiss/impl/ResultHandler.h>
#define FAISS_GMM_HAS_SEARCH1 1

namespace faiss_gmm::compat {

/// The k nearest of one query by search1, nearest first.
inline void
search1(const faiss::IndexIVF& index, const float* x, size_t k, float* distances, int64_t* labels) {
    faiss::HeapBlockResultHandler<faiss::CMax<float, int64_t>> results(1, distances, labels, k);
    faiss::HeapBlockResultHandler<faiss::CMax<float, int64_t>>::SingleResultHandler one(results);
    one.begin(0);
    index.search1(x, one, nullptr);
    one.end();
}

} // namespace faiss_gmm::compat
#endif
