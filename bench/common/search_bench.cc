// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// 1 purpose: recall, counts and times of several indices on one data set, comparable with each
// other. 5 phases: build every index; then for every nprobe: counts and recall from one pass over
// the
//   queries (which also warms up), then five rounds in which the indices take turns.
// 7 numerics: queries per second are the median of the rounds. A round's latencies come from its
// own
//   fifth of the queries, so every query is timed once and no index has all of its latencies taken
//   in one moment.
// 9 the caller leaves the statistics of FAISS and of this library alone meanwhile.
// 10 test: tests/bench/search_bench_test.cc.
#include "bench/common/search_bench.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "bench/common/measurement.h"
#include "bench/common/progress.h"
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm::bench {

namespace {

/// One (index, lists, k_factor): a line of the plot.
struct Series {
    size_t index;
    size_t lists;
    float k_factor;
};

/// One row while it is being measured.
struct Trial {
    size_t index;
    SearchRow row;
    std::vector<double> round_qps;
    std::vector<double> latencies_us;
};

void check(const SearchBenchOptions& options) {
    const bool bad_nprobe =
            options.nprobe.empty() ||
            std::find(options.nprobe.begin(), options.nprobe.end(), 0) != options.nprobe.end();
    if (options.indices.empty() || options.lists.empty() || options.k_factor.empty() ||
        bad_nprobe || options.threads < 1 || options.build_threads < 0) {
        throw Error(
                {"preparing a search benchmark",
                 fmt::format(
                         "{} indices, {} nprobe, {} lists, {} k_factor, {} threads, {} "
                         "build_threads",
                         options.indices.size(),
                         options.nprobe.size(),
                         options.lists.size(),
                         options.k_factor.size(),
                         options.threads,
                         options.build_threads),
                 "at least one of each, every nprobe and threads >= 1, build_threads >= 0",
                 "name an index and an nprobe"});
    }
}

std::vector<BenchIndex>
build_indices(const Dataset& set, const SearchBenchOptions& options, Progress& progress) {
    std::vector<BenchIndex> indices;
    indices.reserve(options.indices.size());
    // Made before any is trained: a mistake in the last string shows at once.
    for (const std::string& description : options.indices) {
        indices.emplace_back(description, set.d, faiss_metric(set.metric));
    }
    for (BenchIndex& index : indices) {
        progress.show(fmt::format("training {}", index.description()));
        index.train(set);
        progress.show(fmt::format("adding {} vectors to {}", set.n, index.description()));
        index.add(set);
    }
    return indices;
}

std::vector<Series>
list_series(const std::vector<BenchIndex>& indices, const SearchBenchOptions& options) {
    std::vector<Series> all;
    for (size_t i = 0; i < indices.size(); ++i) {
        const std::vector<size_t> lists =
                indices[i].takes_lists() ? options.lists : std::vector<size_t>{0};
        const std::vector<float> k_factor =
                indices[i].takes_k_factor() ? options.k_factor : std::vector<float>{0};
        for (const size_t l : lists) {
            for (const float f : k_factor) {
                all.push_back({i, l, f});
            }
        }
    }
    return all;
}

/// The trials of one nprobe, one a series; none twice where nprobe was cut to nlist.
std::vector<Trial> trials_at(
        size_t nprobe,
        const std::vector<BenchIndex>& indices,
        const std::vector<Series>& series,
        const std::vector<SearchRow>& done) {
    std::vector<Trial> trials;
    for (size_t s = 0; s < series.size(); ++s) {
        const BenchIndex& index = indices[series[s].index];
        SearchRow row;
        row.series = s;
        row.index = index.description();
        row.is_gmm = index.is_gmm();
        row.setting = {std::min(nprobe, index.nlist()), series[s].lists, series[s].k_factor};
        row.parameters = index.parameters();
        row.build = index.build();
        const bool known = std::any_of(done.begin(), done.end(), [&](const SearchRow& other) {
            return other.series == s && other.setting.nprobe == row.setting.nprobe;
        });
        if (!known) {
            trials.push_back({series[s].index, std::move(row), {}, {}});
        }
    }
    return trials;
}

} // namespace

double quantile_of(const std::vector<double>& values, double quantile) {
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const double last = double(sorted.size()) - 1;
    const double rank = std::ceil(quantile * double(sorted.size())) - 1;
    return sorted[static_cast<size_t>(std::clamp(rank, 0., last))];
}

SearchReport run_search_bench(const Dataset& set, const SearchBenchOptions& options) {
    check(options);
    const int build_threads = options.build_threads > 0 ? options.build_threads : options.threads;
    Progress progress;
    SearchReport report{
            set.name,
            metric_name(set.metric),
            set.n,
            set.d,
            set.nq,
            options.threads,
            build_threads,
            describe_environment(),
            {}};
    std::vector<BenchIndex> indices = [&] {
        const ThreadScope scope(build_threads);
        return build_indices(set, options, progress);
    }();
    const ThreadScope scope(options.threads);
    const std::vector<Series> series = list_series(indices, options);
    Measurement measurement(set);
    std::vector<size_t> nprobes = options.nprobe;
    std::sort(nprobes.begin(), nprobes.end());
    for (const size_t nprobe : nprobes) {
        std::vector<Trial> trials = trials_at(nprobe, indices, series, report.rows);
        for (Trial& trial : trials) {
            progress.show(fmt::format("nprobe {}: counting, {}", nprobe, trial.row.index));
            indices[trial.index].configure(trial.row.setting);
            BenchIndex::reset_counts();
            measurement.search_all(indices[trial.index]);
            trial.row.counts = indices[trial.index].counts(set.nq);
            trial.row.recall = measurement.recall();
        }
        for (size_t round = 0; round < timing_rounds; ++round) {
            progress.show(
                    fmt::format("nprobe {}: round {} of {}", nprobe, round + 1, timing_rounds));
            for (Trial& trial : trials) {
                indices[trial.index].configure(trial.row.setting);
                const BenchIndex& index = indices[trial.index];
                trial.round_qps.push_back(
                        measurement.time_batches(index, options.shortest_round_s).per_second());
                const std::vector<double> latencies =
                        measurement.time_single_queries(index, round, timing_rounds);
                trial.latencies_us.insert(
                        trial.latencies_us.end(), latencies.begin(), latencies.end());
            }
        }
        for (Trial& trial : trials) {
            trial.row.qps = quantile_of(trial.round_qps, .5);
            trial.row.p50_us = quantile_of(trial.latencies_us, .5);
            trial.row.p99_us = quantile_of(trial.latencies_us, .99);
            report.rows.push_back(std::move(trial.row));
        }
    }
    std::stable_sort(
            report.rows.begin(), report.rows.end(), [](const SearchRow& a, const SearchRow& b) {
                return a.series < b.series;
            });
    return report;
}

} // namespace faiss_gmm::bench
