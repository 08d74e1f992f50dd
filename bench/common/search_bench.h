// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/common/bench_index.h"
#include "bench/common/environment.h"
#include "datasets/dataset.h"

namespace faiss_gmm::bench {

constexpr size_t neighbours = 10;   ///< k of every benchmark: recall@10
constexpr size_t batch_size = 1000; ///< queries handed to one search() when throughput is timed
constexpr size_t timing_rounds = 5; ///< the median counts

/// What is measured: every index at every nprobe; those that take them, at every `lists` and
/// `k_factor`.
struct SearchBenchOptions {
    std::vector<std::string> indices; ///< factory strings
    std::vector<size_t> nprobe = {1, 2, 4, 8, 16, 32, 64};
    std::vector<size_t> lists = {0};   ///< 0: the index's own rule
    std::vector<float> k_factor = {0}; ///< 0: the index's own
    int threads = 1;                   ///< of batches
    int build_threads = 0;             ///< of building; 0: as many as of batches
    /// A timed pass over the queries is repeated until it has taken this long. Tests lower it.
    double shortest_round_s = 0.05;
};

/// One line of results.
struct SearchRow {
    size_t series = 0; ///< number of its (index, lists, k_factor)
    std::string index; ///< factory string
    bool is_gmm = false;
    SearchSetting setting; ///< as asked for, nprobe cut to nlist
    nlohmann::ordered_json parameters;
    double recall = 0; ///< recall@10
    QueryCounts counts;
    double qps = 0;                ///< batches of batch_size, all threads
    double p50_us = 0, p99_us = 0; ///< single queries, one thread
    BuildFigures build;

    double time_us() const { ///< a query, in batches
        return 1e6 / qps;
    }
};

struct SearchReport {
    std::string dataset;
    std::string metric;
    size_t n = 0, d = 0, nq = 0;
    int threads = 1, build_threads = 1;
    Environment environment;
    std::vector<SearchRow> rows; ///< by series, then nprobe
};

/// Builds every index once, then measures. At each nprobe all indices take turns (A B A B ...), so
/// that what the machine does meanwhile falls on all of them. Shows its progress on a terminal.
SearchReport run_search_bench(const Dataset& set, const SearchBenchOptions& options);

/// The value below which the share `quantile` of the values lies (nearest rank); values not empty.
double quantile_of(const std::vector<double>& values, double quantile);

} // namespace faiss_gmm::bench
