// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/wrappers.h"

#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexRowwiseMinMax.h>

namespace faiss_gmm {

faiss::Index** innermost_slot(faiss::Index** slot) {
    if (auto* wrapper = dynamic_cast<faiss::IndexPreTransform*>(*slot)) {
        return innermost_slot(&wrapper->index);
    }
    if (auto* wrapper = dynamic_cast<faiss::IndexIDMap*>(*slot)) {
        return innermost_slot(&wrapper->index);
    }
    if (auto* wrapper = dynamic_cast<faiss::IndexRefine*>(*slot)) {
        return innermost_slot(&wrapper->base_index);
    }
    if (auto* wrapper = dynamic_cast<faiss::IndexRowwiseMinMaxBase*>(*slot)) {
        return innermost_slot(&wrapper->index);
    }
    return slot;
}

} // namespace faiss_gmm
