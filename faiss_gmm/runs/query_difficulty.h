// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <vector>

namespace faiss_gmm {

/// How many vectors a query is worth, as a multiple of what queries visit on average. Head card in
/// query_difficulty.cc.
class QueryDifficulty {
public:
    static constexpr double least_share = 0.3, largest_share = 3.3;

    /// Learns what is typical from rows x [n, d], taken as queries, of which it looks at a few
    /// thousand; means [K, d].
    void learn(size_t K, size_t d, const float* means, size_t n, const float* x);

    /// For a query that probes so many lists: the least and the mean of its squared distances to their
    /// means. Between least_share and largest_share, about 1 on average over queries like the rows
    /// learnt from; 1 where nothing is known.
    double share(double least, double mean, size_t lists) const;

    size_t memory_bytes() const {
        return typical_.size() * sizeof(double);
    }

private:
    std::vector<double> typical_; ///< [p - 1] for p lists probed
};

} // namespace faiss_gmm
