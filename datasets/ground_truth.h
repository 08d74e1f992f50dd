// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <faiss/MetricType.h>

namespace faiss_gmm {

/// The true neighbours of every query, nearest first.
struct GroundTruth {
    size_t nq = 0, k = 0;
    std::vector<int32_t> ids;     ///< [nq, k]
    std::vector<float> distances; ///< [nq, k], or empty where the file holds ids alone
};

/// Reads a gt.ibin: u32 nq, u32 k, int32 ids [nq, k], and float32 distances [nq, k] or nothing,
/// which the file's size tells. Throws Error: truncated, another size, nq or k = 0, an id outside
/// [0, n).
GroundTruth load_ground_truth(const std::string& path, size_t n);

/// Exact search, for sets that have no file of true neighbours (a cropped set, a synthetic one).
/// base [n, d], query [nq, d]; k is at most n. Throws Error for sizes out of range.
GroundTruth exact_ground_truth(
        size_t d,
        size_t n,
        const float* base,
        size_t nq,
        const float* query,
        size_t k,
        faiss::MetricType metric);

/// Recall@k, the one definition of this project: the share of the k returned ids, each counted
/// once, whose exact distance is at most the true k-th distance (ties count). Distances are
/// computed again here, from the vectors, in double precision; -1 is a miss. With
/// METRIC_INNER_PRODUCT "at most" reads "at least".
class RecallMeasure {
public:
    /// base [n, d] and query [nq, d] must stay alive. Throws Error when the truth is for another
    /// number of queries or has fewer than k neighbours, when it does not stand in the order of
    /// this metric (so it was made for another metric or another base), and for other metrics than
    /// L2, IP.
    RecallMeasure(
            size_t d,
            size_t n,
            const float* base,
            size_t nq,
            const float* query,
            const GroundTruth& truth,
            size_t k,
            faiss::MetricType metric);

    /// ids [nq, k] -> the mean share over all queries. Throws Error for an id outside [-1, n).
    double recall(const int64_t* ids) const;

    size_t k() const {
        return k_;
    }

private:
    double distance(size_t query, int64_t id) const;
    void check_order(const GroundTruth& truth) const;

    size_t d_, n_, nq_, k_;
    const float* base_;
    const float* query_;
    faiss::MetricType metric_;
    std::vector<double> kth_; ///< [nq], true k-th distances
};

} // namespace faiss_gmm
