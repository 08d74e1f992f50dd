// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/Index.h>
#include <faiss/clone_index.h>

namespace faiss_gmm {

/// FAISS's cloner, which knows IndexIVFGMM too, inside wrappers as well, and IndexRefine, IndexHNSWFlat and every
/// transformation that index_factory makes in every version of FAISS.
/// (FAISS's own refuses an IndexIVFGMM: its lists are of a class that it does not know.)
struct Cloner : faiss::Cloner {
    faiss::Index* clone_Index(const faiss::Index* index) override;
    faiss::VectorTransform* clone_VectorTransform(const faiss::VectorTransform* transform) override;
};

/// The same index again: vectors, runs, parameters, callbacks. The mixture, which never changes, is shared. The
/// caller owns the clone. Throws faiss::FaissException for lists that are not in memory and for classes that
/// FAISS does not clone; std::bad_alloc.
faiss::Index* clone_index(const faiss::Index& index);

} // namespace faiss_gmm
