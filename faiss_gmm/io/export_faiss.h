// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/Index.h>

namespace faiss_gmm {

/// Where export_faiss() puts a vector.
enum class ExportedLists {
    as_stored, ///< where its code is stored: once (storage=shared), or in each of its lists (copies)
    with_guests, ///< beside that, in each list that its run is a guest of: spill for stock search
};

/// The index in classes of FAISS alone, which any program reads without this library: the IVF index of the codec
/// over a flat quantizer (or a clone of another), plain lists in memory, each in ascending order of ids
/// (as IDSelectorRange::assume_sorted wants them; blocks of FastScan codecs as they are). Wrappers are cloned around it; an index that is no
/// IndexIVFGMM is cloned as it is. No direct map is made. The caller owns the result.
///
/// Searched with nprobe lists it compares all they hold, so it finds what stock finds over these lists. Where a vector
/// stands in several (copies, or with_guests) stock search may return its id several times, and ntotal counts it
/// once. A guest's code is the codec's for the list it stands in.
///
/// Throws faiss::FaissException for what FAISS does not clone; std::bad_alloc.
faiss::Index*
export_faiss(const faiss::Index& index, ExportedLists lists = ExportedLists::as_stored);

} // namespace faiss_gmm
