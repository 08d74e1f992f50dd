// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// bench_tune: what tune() chooses, and whether its recall holds on queries it has not seen. See --help.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <faiss/Index.h>
#include <fmt/format.h>

#include "bench/common/environment.h"
#include "bench/common/program.h"
#include "bench/common/table.h"
#include "datasets/dataset.h"
#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/index/tune.h"
#include "faiss_gmm/mixture/error.h"

namespace {

using namespace faiss_gmm;
using namespace faiss_gmm::bench;

constexpr size_t k = 10;

struct Arguments {
    std::string data, metric, index;
    std::vector<double> recall = {.9, .95, .98};
    bool own = false;
    int threads = 1;
};

void describe(CLI::App& app, Arguments& arguments) {
    app.description("Tunes an IVFGMM index to each recall on the first half of the queries, and "
                    "measures recall@10 on the second.");
    app.footer("Example: bench_tune datasets/embedded --metric l2 --index IVFGMM128,Flat");
    add_dataset_options(app, arguments.data, arguments.metric);
    app.add_option("--index", arguments.index, "Factory string of an IVFGMM without wrappers")
            ->required();
    app.add_option("--recall", arguments.recall, "Targets, comma-separated")
            ->delimiter(',')
            ->capture_default_str();
    app.add_flag("--own", arguments.own, "Tune on vectors of the index, not on queries");
    app.add_option("--threads", arguments.threads, "Threads of building and of batches")
            ->check(CLI::PositiveNumber)
            ->capture_default_str();
}

/// The second half of the queries, with their truth.
RecallMeasure measure_second_half(const Dataset& set) {
    const size_t first = set.nq / 2;
    GroundTruth truth{set.nq - first, set.truth.k, {}, {}};
    truth.ids.assign(set.truth.ids.begin() + first * truth.k, set.truth.ids.end());
    return {set.d,
            set.n,
            set.base.data(),
            truth.nq,
            set.query.data() + first * set.d,
            truth,
            k,
            faiss_metric(set.metric)};
}

double
recall_on_second_half(const Dataset& set, const RecallMeasure& measure, const faiss::Index& index) {
    const size_t first = set.nq / 2, n = set.nq - first;
    std::vector<float> distances(n * k);
    std::vector<int64_t> ids(n * k);
    index.search(int64_t(n), set.query.data() + first * set.d, k, distances.data(), ids.data());
    return measure.recall(ids.data());
}

void run(const Arguments& arguments) {
    set_threads(arguments.threads);
    const Dataset set = load_dataset(arguments.data, parse_metric(arguments.metric));
    const std::unique_ptr<faiss::Index> index(
            index_factory(int(set.d), arguments.index.c_str(), faiss_metric(set.metric)));
    auto* gmm = dynamic_cast<IndexIVFGMM*>(index.get());
    if (gmm == nullptr) {
        throw Error(
                {"making an index to tune",
                 fmt::format("'{}'", arguments.index),
                 "an IVFGMM without wrappers, e.g. 'IVFGMM1024,Flat'",
                 "name such an index"});
    }
    index->train(int64_t(set.n), set.base.data());
    index->add(int64_t(set.n), set.base.data());
    const RecallMeasure measure = measure_second_half(set);
    Table table(
            {"target",
             "nprobe",
             "lists",
             "exact",
             "recall",
             "standard error",
             "recall, other half",
             "us",
             "settings",
             "truth s",
             "all s"});
    for (const double recall : arguments.recall) {
        TuningParameters parameters;
        parameters.recall = recall;
        const TuningReport report =
                arguments.own ? tune(*gmm, parameters)
                              : tune(*gmm, int64_t(set.nq / 2), set.query.data(), parameters);
        const TuningPoint& chosen = report.chosen;
        table.add_row(
                {fmt::format("{}{}", recall, report.reached ? "" : ", not reached"),
                 fmt::format("{}", chosen.nprobe),
                 fmt::format("{}", chosen.lists),
                 fmt::format("{:.0f}", chosen.ndis),
                 fmt::format("{:.4f}", chosen.recall),
                 fmt::format("{:.4f}", chosen.standard_error),
                 fmt::format("{:.4f}", recall_on_second_half(set, measure, *index)),
                 fmt::format("{:.1f}", chosen.us),
                 fmt::format("{}", report.points.size()),
                 fmt::format("{:.1f}", report.truth_s),
                 fmt::format("{:.1f}", report.total_s)});
    }
    fmt::print("{}", table.text());
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app;
    Arguments arguments;
    describe(app, arguments);
    return run_program("bench_tune", app, argc, argv, [&] { run(arguments); });
}
