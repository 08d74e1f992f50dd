// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Wrappers that not every version has, and what stock code around an index does where versions differ.
#pragma once

#if __has_include(<faiss/IndexShardsIVF.h>)
#include <faiss/IndexShardsIVF.h>
#define FAISS_GMM_HAS_SHARDS_IVF 1 // since 1.7.4
#endif
#if __has_include(<faiss/IndexIVFIndependentQuantizer.h>)
#include <faiss/IndexIVFIndependentQuantizer.h>
#define FAISS_GMM_HAS_INDEPENDENT_QUANTIZER 1 // since 1.8
#endif

#include "faiss_gmm/compat/faiss_version.h"

#if FAISS_GMM_FAISS_AT_LEAST(1, 8)
#define FAISS_GMM_HAS_REFINE_PARAMETERS 1 // IndexRefineSearchParameters
#endif

namespace faiss_gmm::compat {

/// Whether IndexIDMap, IndexRefine and the others hand search parameters on.
constexpr bool wrappers_take_parameters = FAISS_GMM_FAISS_AT_LEAST(1, 8);
/// Whether ivflib::range_search_with_parameters asks the index, not a scanner of its lists.
constexpr bool ivflib_calls_range_search = FAISS_GMM_FAISS_AT_LEAST(1, 8);
/// Whether what 1.7.3 refuses may work.
constexpr bool may_do_more_than_the_oldest = FAISS_GMM_FAISS_AT_LEAST(1, 8);

} // namespace faiss_gmm::compat
