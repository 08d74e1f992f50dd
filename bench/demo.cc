// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The demo: on the embedded set, a stock IVF index beside ours, in one table and one picture.
#include <cstdio>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "bench/common/program.h"
#include "bench/common/report.h"
#include "bench/common/search_bench.h"
#include "datasets/dataset.h"

namespace {

using namespace faiss_gmm;
using namespace faiss_gmm::bench;

void run(const std::string& picture) {
    require_writable(picture);
    const Dataset set = load_dataset(embedded_dataset_folder(), Metric::l2);
    SearchBenchOptions options;
    options.indices = {"IVF128,Flat", "IVFGMM128,Flat"};
    options.nprobe = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    options.threads = default_threads();
    const SearchReport report = run_search_bench(set, options);
    fmt::print(
            "{}\n\n{}\n{}\nvisited, distances, us: a query's averages.\n",
            caption(report),
            side_by_side_table(report),
            savings_table(report));
    write_text_file(picture, plot_svg(report));
    fmt::print("Wrote {}.\n", picture);
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"Trains a stock IVF index and an IVFGMM index on the embedded set of 20,000 SIFT "
                 "vectors, and shows side by side what their searches find and cost."};
    std::string picture = "demo.svg";
    app.add_option("--plot", picture, "The picture (SVG)")->capture_default_str();
    return run_program("demo", app, argc, argv, [&] { run(picture); });
}
