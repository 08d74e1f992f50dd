// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/Index.h>

namespace faiss_gmm {

/// The place inside the wrappers (IndexPreTransform, IndexIDMap and IDMap2, IndexRefine,
/// IndexRowwiseMinMax, one in another) that points to the innermost index; `slot` itself where there are none.
faiss::Index** innermost_slot(faiss::Index** slot);

} // namespace faiss_gmm
