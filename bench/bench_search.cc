// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// bench_search: recall, counts and times of indices on one data set. See --help.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "bench/common/json_lines.h"
#include "bench/common/program.h"
#include "bench/common/report.h"
#include "bench/common/search_bench.h"
#include "datasets/dataset.h"

namespace {

using namespace faiss_gmm;
using namespace faiss_gmm::bench;

struct Arguments {
    std::string data, metric, json, plot;
    size_t max_rows = 0;
    SearchBenchOptions options;
};

void describe(CLI::App& app, Arguments& arguments) {
    SearchBenchOptions& options = arguments.options;
    app.description(
            "Measures recall@10, what a query touches and how long it takes, for any number of "
            "indices on one data set. Indices take turns; times are medians of five rounds.");
    app.footer("Example: bench_search datasets/embedded --metric l2 --index IVF128,Flat "
               "IVFGMM128,Flat --nprobe 1,2,4,8,16 --json - --plot recall.svg");
    add_dataset_options(app, arguments.data, arguments.metric);
    app.add_option("--index", options.indices, "Factory strings, stock or IVFGMM, one or more")
            ->required()
            ->expected(1, -1);
    app.add_option("--nprobe", options.nprobe, "Comma-separated; cut to the index's nlist")
            ->delimiter(',')
            ->check(CLI::PositiveNumber)
            ->capture_default_str();
    app.add_option("--lists", options.lists, "Lists probed by IVFGMM, comma-separated; 0: its rule")
            ->delimiter(',')
            ->check(CLI::NonNegativeNumber);
    app.add_option(
               "--k-factor",
               options.k_factor,
               "Exact distances / k, comma-separated, for IVFGMM and refined indices; 0: their own")
            ->delimiter(',')
            ->check(CLI::NonNegativeNumber);
    app.add_option("--threads", options.threads, "Threads of building and of batches")
            ->check(CLI::PositiveNumber)
            ->capture_default_str();
    app.add_option(
               "--build-threads", options.build_threads, "Threads of building, if not --threads")
            ->check(CLI::PositiveNumber);
    app.add_option(
            "--max-rows", arguments.max_rows, "Use the first N base rows, with their own truth");
    app.add_option("--json", arguments.json, "Write a JSON line a result; - for stdout");
    app.add_option("--plot", arguments.plot, "Write a picture (SVG)");
}

void run(const Arguments& arguments) {
    const bool json_to_stdout = arguments.json == "-";
    if (!arguments.json.empty() && !json_to_stdout) {
        require_writable(arguments.json);
    }
    if (!arguments.plot.empty()) {
        require_writable(arguments.plot);
    }
    const Dataset set =
            load_dataset(arguments.data, parse_metric(arguments.metric), arguments.max_rows);
    const SearchReport report = run_search_bench(set, arguments.options);
    // Results on stdout are for programs, and the table must not be mixed with them.
    std::FILE* table_to = json_to_stdout ? stderr : stdout;
    fmt::print(table_to, "{}\n\n{}\n{}", caption(report), rows_table(report), build_table(report));
    const std::string saved = savings_table(report);
    if (!saved.empty()) {
        fmt::print(table_to, "\n{}", saved);
    }
    if (json_to_stdout) {
        fmt::print("{}", json_lines(report));
    } else if (!arguments.json.empty()) {
        write_text_file(arguments.json, json_lines(report));
    }
    if (!arguments.plot.empty()) {
        write_text_file(arguments.plot, plot_svg(report));
    }
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app;
    Arguments arguments;
    arguments.options.threads = default_threads();
    describe(app, arguments);
    return run_program("bench_search", app, argc, argv, [&] { run(arguments); });
}
