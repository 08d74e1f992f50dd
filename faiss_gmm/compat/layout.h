// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// That the FAISS in a process is the one whose headers were compiled. Its releases, patches too, move members
// of the classes that ours derive from, and a program made of two of them reads and writes beside them.
#pragma once

#include <cstddef>
#include <utility>

#include <faiss/IndexFlat.h>
#include <faiss/IndexIVF.h>
#include <faiss/invlists/BlockInvertedLists.h>

namespace faiss_gmm::compat {

/// FAISS as its headers have it.
struct Layout {
    int version;                                                         ///< 1015000 for 1.15.0
    size_t index_ivf, search_parameters, index_flat, lists, block_lists; ///< sizeof
};

/// Of the headers that this translation unit sees.
static constexpr Layout layout_here = {
        FAISS_VERSION_MAJOR * 1000000 + FAISS_VERSION_MINOR * 1000 + FAISS_VERSION_PATCH,
        sizeof(faiss::IndexIVF),
        sizeof(faiss::SearchParametersIVF),
        sizeof(faiss::IndexFlat),
        sizeof(faiss::InvertedLists),
        sizeof(faiss::BlockInvertedLists)};

/// Compares a translation unit's headers with this library's, at load; what differs is kept.
class LayoutCheck {
public:
    explicit LayoutCheck(const Layout& layout) noexcept;
};
static const LayoutCheck layout_check_here(layout_here);

/// Throws faiss::FaissException where a translation unit, this library and the loaded FAISS do not agree: on their
/// version (that of the loaded one is known since 1.9), or on sizes and members of the classes that ours derive
/// from, as FAISS's own constructors fill them. Looks at FAISS once.
void require_matching_faiss();

/// The same in front of a base class of FAISS's, which would be written over what follows it in memory.
template <class T> T&& checked(T&& argument) {
    require_matching_faiss();
    return std::forward<T>(argument);
}

} // namespace faiss_gmm::compat
