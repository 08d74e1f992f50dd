// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/IndexIVF.h>
#if __has_include(<faiss/IndexIVFFlatPanorama.h>)
#include <faiss/IndexIVFFlatPanorama.h>
#endif

namespace faiss_gmm::compat {

/// Whether this is an IndexIVFFlatPanorama, which there is since 1.13.
inline bool is_panorama([[maybe_unused]] const faiss::IndexIVF& index) {
#if __has_include(<faiss/IndexIVFFlatPanorama.h>)
    return dynamic_cast<const faiss::IndexIVFFlatPanorama*>(&index) != nullptr;
#else
    return false;
#endif
}

} // namespace faiss_gmm::compat
