// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/IndexIVF.h>

namespace faiss_gmm {

/// How nprobe * ntotal / nlist vectors a query are handed out.
enum class VisitBudget {
    /// That many on average over queries like the training vectors, from .3 to 3.3 times as many by how
    /// far the nearest mean stands out (runs/query_difficulty.h): more recall for the same time. Even
    /// all the same with a selector, below 16 runs (512 vectors) and above 512 lists probed; the nearer to
    /// it, the fewer lists beyond nprobe are probed. Queries unlike the training vectors may visit more or
    /// fewer on average.
    by_difficulty,
    even, ///< to every query that many: times differ less from query to query
};

/// Search parameters of one call; wherever FAISS takes SearchParametersIVF it takes these.
struct IVFGMMSearchParameters : faiss::SearchParametersIVF {
    /// Lists probed are probe_expansion * nprobe; vectors visited stay nprobe * ntotal / nlist on
    /// average. More lists: better runs for the same budget, more summaries scored. 0: the index's
    /// own setting.
    float probe_expansion = 0;
    /// Exact distances a query: k * k_factor. More: higher recall, more rows read. 0: the index's
    /// own.
    float k_factor = 0;
    /// Parameters of the codec's scanner where it has some (owned by the caller).
    faiss::SearchParameters* codec_params = nullptr;
};

} // namespace faiss_gmm
