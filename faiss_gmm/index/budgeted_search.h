// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include <faiss/IndexIVF.h>

#include "faiss_gmm/index/result_heap.h"
#include "faiss_gmm/index/row_distances.h"
#include "faiss_gmm/index/search_parameters.h"
#include "faiss_gmm/index/statistics.h"
#include "faiss_gmm/runs/run_inverted_lists.h"

namespace faiss_gmm {

/// All that one call's parameters and the index's own settings come to.
struct SearchSettings {
    size_t nprobe = 1;    ///< at most nlist
    size_t max_codes = 0; ///< 0: no cap
    size_t lists = 1;     ///< lists probed, at most nlist
    float k_factor = 0;   ///< 0: the default
    VisitBudget visit_budget = VisitBudget::by_difficulty;
    const faiss::IDSelector* selector = nullptr;
    const faiss::SearchParameters* quantizer_params = nullptr;
    const faiss::SearchParameters* codec_params = nullptr;

    /// Exact distances by our own loops over rows stored so; nothing: by the codec's scanner.
    std::optional<StoredRows> own_distances;

    /// Vectors that queries may visit on average, before max_codes caps what each may: nprobe * ntotal / nlist.
    size_t average_budget(size_t ntotal, size_t nlist) const;
    /// The same, at most max_codes.
    size_t budget(size_t ntotal, size_t nlist) const;
    /// Exact distances for k results, at most ntotal unless k is more.
    size_t exact_distances(size_t k, size_t ntotal, size_t nlist) const;
    /// What of them a search of given lists takes.
    IVFGMMSearchParameters parameters_of_lists() const;
};

/// Settings from parameters that may be null, faiss::SearchParameters, SearchParametersIVF or ours,
/// over the index's own; throws faiss::FaissException for another type.
SearchSettings resolve_settings(
        const faiss::IndexIVF& ivf,
        const faiss::SearchParameters* params,
        float probe_expansion,
        float k_factor);

/// Throws faiss::FaissException for k < 1, as stock does.
void check_result_count(int64_t k);

/// The search of the index: runs under a budget, sketches, exact distances of the best (design:
/// section on search). Queries x [n, d]; results sorted, padded with -1.
///
/// Phases a query: 1 coarse: distances to the means, the nearest lists; 2 runs::choose_runs; 3
/// scan_sketches; 4 the codec's own distances of the best. Entries without a run in a probed list
/// are scanned whole. Threads: blocks of queries over OpenMP threads. Memory: a block's distances
/// to the means a thread.
void budgeted_search(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        int64_t n,
        const float* x,
        const ResultArrays& results);

} // namespace faiss_gmm
