// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Sets an index to the cheapest search that reaches a recall: what faiss::ParameterSpace and
// OperatingPoints are for other indices, with the truth computed from the index itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace faiss_gmm {

class IndexIVFGMM;

/// One setting of a search and what it was measured to do; all figures are means a query.
struct TuningPoint {
    size_t nprobe = 0;
    size_t lists = 0;   ///< lists probed; 0: left as it is, for it changes nothing here
    float k_factor = 0; ///< exact distances / k; 0: left as it is, for it changes nothing here

    /// Share of the k results, each id once, that are as near as the true k-th (recall@k).
    double recall = 0;
    double standard_error = 0; ///< of recall, over the queries; 0 for a single query
    /// Microseconds, of all queries in one search() with the threads there are. Of the cheapest settings
    /// the median of rounds taken in turns; of the others a single pass.
    double us = 0;
    double ndis = 0, nscored = 0, nvisited = 0, bytes_read = 0; ///< words as in the README

    float probe_expansion() const {
        return static_cast<float>(lists) / static_cast<float>(nprobe);
    }
};

struct TuningParameters {
    int64_t k = 10;       ///< results a query
    double recall = 0.95; ///< target for recall@k, in (0, 1]
    /// A setting meets the target when recall - standard_errors * standard_error does: at 1.645 all but
    /// one in twenty samples of queries would agree. 0: when the measured recall does.
    double standard_errors = 1.645;
    size_t sample = 1000;     ///< vectors of the index that are asked where no queries are given
    uint64_t seed = 1234;     ///< of that sample
    size_t max_settings = 64; ///< so many are measured at most
    double max_seconds = 60;  ///< none is begun later than this after the truth is known
    /// Called after each setting, from the calling thread; false stops: the best so far is taken.
    std::function<bool(const TuningPoint&)> progress;
};

struct TuningReport {
    std::vector<TuningPoint> points; ///< every setting measured, each once, in order
    TuningPoint chosen;              ///< what the index is set to
    bool reached = false; ///< whether it meets the target; if not, it has the highest recall of all
    bool complete = false;           ///< not stopped by max_settings, max_seconds or the callback
    size_t nq = 0;                   ///< queries measured with
    double truth_s = 0, total_s = 0; ///< seconds for the true neighbours, and for everything
};

/// Sets nprobe, probe_expansion and k_factor of the index to the cheapest setting measured that meets
/// the target on queries [nq, d], and says what was measured. The queries should be like those to come
/// and not among the vectors of the index; some hundred of them tell recall to about a hundredth.
///
/// The truth is what an exact search of the stored (decoded) vectors finds: nq * ntotal * d
/// multiplications. Settings are found by bisection over nprobe, on rays of lists and exact distances
/// that are multiples of the defaults. Where all lists have to be scanned exactly (nprobe = nlist), 16
/// queries time that. max_codes, the quantizer's own settings and the number of threads count as they
/// are. Nothing else may search meanwhile: counts come from indexIVFGMM_stats.
///
/// Throws faiss::FaissException, the index as it was: not trained, fewer vectors than k, k < 1, a target
/// outside (0, 1], no queries, a query with NaN or Inf (the first is named), parallel_mode without heap
/// initialisation, FAISS's interrupt callback.
TuningReport
tune(IndexIVFGMM& index, int64_t nq, const float* queries, const TuningParameters& parameters = {});

/// The same on parameters.sample vectors of the index itself, each left out of its own truth and
/// results; needs more vectors than k. Where queries are like the vectors of the index both choose alike
/// (measured: bench/results/tune.md); where they are not, only queries tell.
TuningReport tune(IndexIVFGMM& index, const TuningParameters& parameters = {});

} // namespace faiss_gmm
