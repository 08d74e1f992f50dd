// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

#include <faiss/IndexIVF.h>
#include <faiss/impl/AuxIndexStructures.h>

#include "faiss_gmm/index/budgeted_search.h"
#include "faiss_gmm/index/result_heap.h"

namespace faiss_gmm {

struct ScanTotals {
    size_t ndis = 0;    ///< distances computed
    size_t skipped = 0; ///< entries that the selector refused
};

/// Queries x [n, d] and the lists that each is searched in.
struct PreassignedQueries {
    int64_t n;
    const float* x;
    const int64_t* keys;     ///< [n, nprobe] lists; -1 for none; may repeat
    const float* coarse_dis; ///< [n, nprobe] distances of the query to their means
};

/// Throws faiss::FaissException, as one that is doing `what`, for keys [count] that name no list; -1 stands for none.
void check_keys(const char* what, size_t nlist, size_t count, const int64_t* keys);

/// The codec's distances of entries [from, to) of a list into the heap. The scanner has its query
/// and list, and no selector of its own.
ScanTotals scan_entries(
        const RunInvertedLists& lists,
        faiss::InvertedListScanner& scanner,
        size_t list,
        size_t from,
        size_t to,
        const faiss::IDSelector* selector,
        Labels meaning,
        ResultHeap& heap);

/// Exact search of given lists and of the guests they hold, each run once: what stock callers reach
/// with their own keys. No budget but max_codes (entries scanned). Where results.keep_heap is set,
/// guests stay out: their homes may come in another call of the same heaps.
void search_given_lists(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        const PreassignedQueries& queries,
        const ResultArrays& results,
        faiss::IndexIVFStats* stats);

/// The same by radius: every entry nearer than it (inner product: larger), in no order, each once;
/// with_copies: lists may hold a vector several times, its id is reported once.
void range_search_given_lists(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        const PreassignedQueries& queries,
        float radius,
        faiss::RangeSearchResult* result,
        Labels meaning,
        bool with_copies,
        faiss::IndexIVFStats* stats);

} // namespace faiss_gmm
