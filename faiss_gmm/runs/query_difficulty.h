// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "faiss_gmm/runs/run_codec.h"

namespace faiss_gmm {

/// How many vectors a query is worth, as a multiple of what queries visit on average. Head card in
/// query_difficulty.cc.
class QueryDifficulty {
public:
    static constexpr double least_share = 0.3, largest_share = 3.3;
    static constexpr size_t most_lists = 512; ///< probed, of which something is known

    QueryDifficulty() = default;
    /// As another's typical().
    explicit QueryDifficulty(std::vector<double> typical) : typical_(std::move(typical)) {}

    /// Learns what is typical from rows x [n, d], taken as queries, of which it looks at two thousand.
    /// rows_a_list: of those that trained the means, x among them.
    void learn(const RunCodec& codec, size_t n, const float* x, double rows_a_list);

    /// For a query that probes so many lists: the least and the mean of its squared distances to their
    /// means (inner product: of the query brought to length 1). Between least_share and largest_share,
    /// about 1 on average over queries like the rows learnt from; 1 where nothing is known: for more
    /// than 512 lists.
    double share(double least, double mean, size_t lists) const;

    /// What was learnt, an entry a number of lists probed from 1 on.
    const std::vector<double>& typical() const {
        return typical_;
    }
    size_t memory_bytes() const {
        return typical_.size() * sizeof(double);
    }

private:
    std::vector<double> typical_; ///< [p - 1] for p lists probed
};

} // namespace faiss_gmm
