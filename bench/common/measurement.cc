// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/measurement.h"

#include <algorithm>

#include "bench/common/environment.h"
#include "bench/common/search_bench.h"
#include "faiss_gmm/mixture/clock.h"

namespace faiss_gmm::bench {

namespace {

/// The first searches after a turn find other data in the caches and are not recorded.
constexpr size_t warm_up_queries = 20;

} // namespace

Measurement::Measurement(const Dataset& set)
        : set_(set), recall_(set.recall_measure(neighbours)), distances_(set.nq * neighbours),
          ids_(set.nq * neighbours) {}

void Measurement::search(const BenchIndex& index, size_t first, size_t n) {
    index.search(
            n,
            set_.query.data() + first * set_.d,
            neighbours,
            distances_.data() + first * neighbours,
            ids_.data() + first * neighbours);
}

void Measurement::search_all(const BenchIndex& index) {
    for (size_t first = 0; first < set_.nq; first += batch_size) {
        search(index, first, std::min(batch_size, set_.nq - first));
    }
}

double Measurement::recall() const {
    return recall_.recall(ids_.data());
}

TimedQueries Measurement::time_batches(const BenchIndex& index, double shortest_s) {
    TimedQueries timed;
    const Clock::time_point start = Clock::now();
    do {
        search_all(index);
        timed.queries += set_.nq;
        timed.seconds = seconds_since(start);
    } while (timed.seconds < shortest_s);
    return timed;
}

std::vector<double>
Measurement::time_single_queries(const BenchIndex& index, size_t round, size_t rounds) {
    const ThreadScope one(1);
    for (size_t q = 0; q < std::min(warm_up_queries, set_.nq); ++q) {
        search(index, q, 1);
    }
    std::vector<double> latencies_us;
    for (size_t q = round; q < set_.nq; q += rounds) {
        const Clock::time_point start = Clock::now();
        search(index, q, 1);
        latencies_us.push_back(1e6 * seconds_since(start));
    }
    return latencies_us;
}

ThreadScope::ThreadScope(int threads) : before_(default_threads()) {
    set_threads(threads);
}

ThreadScope::~ThreadScope() {
    set_threads(before_);
}

} // namespace faiss_gmm::bench
