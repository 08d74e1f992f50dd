// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The signatures of a scanner of one's own.
#pragma once

#include <faiss/IndexIVF.h>

#include "faiss_gmm/compat/faiss_version.h"

// IndexIVF::get_InvertedListScanner takes parameters of the codec since 1.11.
#if FAISS_GMM_FAISS_AT_LEAST(1, 11)
#define FAISS_GMM_CODEC_PARAMETERS_PARAMETER                                                       \
    , [[maybe_unused]] const faiss::IVFSearchParameters* codec_parameters
#define FAISS_GMM_CODEC_PARAMETERS_ARGUMENT , codec_parameters
#else
#define FAISS_GMM_CODEC_PARAMETERS_PARAMETER
#define FAISS_GMM_CODEC_PARAMETERS_ARGUMENT
#endif

// InvertedListScanner::scan_codes fills a heap; since 1.14, whose number its first release does not bear, what
// a scanner overrides fills any collector of results.
#if __has_include(<faiss/impl/expanded_scanners.h>)
#define FAISS_GMM_RESULTS_PARAMETER [[maybe_unused]] faiss::ResultHandler& results
#define FAISS_GMM_RESULTS_ARGUMENT results
#else
#define FAISS_GMM_RESULTS_PARAMETER                                                                \
    [[maybe_unused]] float *distances, [[maybe_unused]] int64_t *labels, [[maybe_unused]] size_t k
#define FAISS_GMM_RESULTS_ARGUMENT distances, labels, k
#endif

namespace faiss_gmm::compat {

/// Whether parameters of a codec reach its scanner.
constexpr bool scanners_take_parameters = FAISS_GMM_FAISS_AT_LEAST(1, 11);

} // namespace faiss_gmm::compat
