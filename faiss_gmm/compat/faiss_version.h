// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The only place that knows how FAISS's signatures changed between versions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <faiss/IndexIVF.h>
#include <faiss/impl/HNSW.h>
#include <faiss/invlists/InvertedLists.h>

#define FAISS_GMM_FAISS_AT_LEAST(major, minor)                                                     \
    (FAISS_VERSION_MAJOR > (major) ||                                                              \
     (FAISS_VERSION_MAJOR == (major) && FAISS_VERSION_MINOR >= (minor)))

// IndexIVF::add_core takes an inverted_list_context since 1.8.
#if FAISS_GMM_FAISS_AT_LEAST(1, 8)
#define FAISS_GMM_CONTEXT_PARAMETER , void* inverted_list_context = nullptr
#define FAISS_GMM_CONTEXT_ARGUMENT , inverted_list_context
#else
#define FAISS_GMM_CONTEXT_PARAMETER
#define FAISS_GMM_CONTEXT_ARGUMENT
#endif

// IndexIVF::range_search_preassigned is virtual since 1.7.4; copy_subset_to aborts before where rows that no
// list took (NaN) are counted in ntotal.
#if FAISS_VERSION_MAJOR > 1 || FAISS_VERSION_MINOR > 7 || FAISS_VERSION_PATCH >= 4
#define FAISS_GMM_RANGE_SEARCH_PREASSIGNED_OVERRIDE override
#define FAISS_GMM_SUBSET_TYPE faiss::InvertedLists::subset_type_t
#define FAISS_GMM_SUBSETS_NEED_ALL_ROWS false
#else
#define FAISS_GMM_RANGE_SEARCH_PREASSIGNED_OVERRIDE
#define FAISS_GMM_SUBSET_TYPE int
#define FAISS_GMM_SUBSETS_NEED_ALL_ROWS true
#endif

namespace faiss_gmm::compat {

// What FAISS does with codes in blocks (FastScan). Where it does not: before 1.8 such an index has no
// scanner and searching given lists crashes; the lists throw inside of OpenMP regions, which ends the process.
constexpr bool searches_given_blocks = FAISS_GMM_FAISS_AT_LEAST(1, 8);
constexpr bool merges_blocks = FAISS_GMM_FAISS_AT_LEAST(1, 8);
constexpr bool removes_from_blocks = FAISS_GMM_FAISS_AT_LEAST(1, 9);

/// A scanner of the codec that returns ids; parameters of the codec are heeded since 1.11.
inline std::unique_ptr<faiss::InvertedListScanner> make_scanner(
        const faiss::IndexIVF& ivf,
        const faiss::IDSelector* selector,
        const faiss::SearchParameters* codec_parameters) {
#if FAISS_GMM_FAISS_AT_LEAST(1, 11)
    return std::unique_ptr<faiss::InvertedListScanner>(ivf.get_InvertedListScanner(
            false, selector, dynamic_cast<const faiss::IVFSearchParameters*>(codec_parameters)));
#else
    static_cast<void>(codec_parameters);
    return std::unique_ptr<faiss::InvertedListScanner>(
            ivf.get_InvertedListScanner(false, selector));
#endif
}

/// Lists in memory hold std::vectors, since 1.9 within a class that may own none.
template <class Vector> auto owned_vector(Vector& vector, int) -> decltype((vector.owned_data)) {
    return vector.owned_data;
}
template <class Vector> Vector& owned_vector(Vector& vector, long) {
    return vector;
}

template <class Vector>
auto owns_its_elements(const Vector& vector, int) -> decltype(vector.is_owned) {
    return vector.is_owned;
}
template <class Vector> bool owns_its_elements(const Vector&, long) {
    return true;
}

/// Room for `wanted` elements: exactly so many, or an eighth more than there was. Returns where a new
/// array begins and its bytes; none where there was room, or where the elements are a file's, mapped.
template <class Held> std::pair<uint8_t*, size_t> reserve(Held& held, size_t wanted) {
    auto& vector = owned_vector(held, 0);
    const size_t size = vector.size(), before = vector.capacity();
    if (wanted <= before || !owns_its_elements(held, 0)) {
        return {nullptr, 0};
    }
    vector.reserve(std::max(wanted, before + before / 8));
    held.resize(size); // the class around it looks up where it stands
    return {reinterpret_cast<uint8_t*>(vector.data()), vector.capacity() * sizeof(*vector.data())};
}
/// After its owned_vector() was filled: the class around it looks up where it stands.
template <class Held> void settle(Held& held) {
    held.resize(owned_vector(held, 0).size());
}
inline std::pair<uint8_t*, size_t>
reserve_codes(faiss::ArrayInvertedLists& lists, size_t list, size_t entries) {
    return reserve(lists.codes[list], entries * lists.code_size);
}
inline std::pair<uint8_t*, size_t>
reserve_ids(faiss::ArrayInvertedLists& lists, size_t list, size_t entries) {
    return reserve(lists.ids[list], entries);
}

/// Distances that HNSW graphs computed, level 0: n3 before 1.8, ndis since.
template <class Stats> auto hnsw_distances(const Stats& stats, int) -> decltype(stats.n3) {
    return stats.n3;
}
template <class Stats> size_t hnsw_distances(const Stats& stats, long) {
    return stats.ndis;
}
inline size_t hnsw_distances() {
    return hnsw_distances(faiss::hnsw_stats, 0);
}

} // namespace faiss_gmm::compat
