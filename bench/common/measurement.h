// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bench/common/bench_index.h"
#include "datasets/dataset.h"

namespace faiss_gmm::bench {

/// How many queries took how long.
struct TimedQueries {
    size_t queries = 0;
    double seconds = 0;

    double per_second() const {
        return double(queries) / seconds;
    }
};

/// Searches the queries of a set, with the settings that the index has, and times it.
class Measurement {
public:
    /// The set must stay alive.
    explicit Measurement(const Dataset& set);

    /// All queries once, in batches of batch_size.
    void search_all(const BenchIndex& index);
    /// Recall of what the last search of each query found.
    double recall() const;
    /// search_all() again and again, until `shortest_s` have passed.
    TimedQueries time_batches(const BenchIndex& index, double shortest_s);
    /// Microseconds of single searches, on one thread, of the queries round, round + rounds, ...:
    /// after all rounds every query was timed once.
    std::vector<double> time_single_queries(const BenchIndex& index, size_t round, size_t rounds);

private:
    void search(const BenchIndex& index, size_t first, size_t n);

    const Dataset& set_;
    RecallMeasure recall_;
    std::vector<float> distances_; ///< [nq, neighbours]
    std::vector<int64_t> ids_;     ///< [nq, neighbours]
};

/// Threads for the scope, then what they were.
class ThreadScope {
public:
    explicit ThreadScope(int threads);
    ~ThreadScope();
    ThreadScope(const ThreadScope&) = delete;
    ThreadScope& operator=(const ThreadScope&) = delete;

private:
    int before_;
};

} // namespace faiss_gmm::bench
