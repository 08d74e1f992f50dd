// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The demo: on the embedded set, a stock IVF index beside ours, in one table and one picture.
#include <exception>

#include <fmt/format.h>

#include "bench/common/report.h"
#include "bench/common/search_bench.h"
#include "datasets/dataset.h"

int main() {
    using namespace faiss_gmm;
    using namespace faiss_gmm::bench;
    try {
        const Dataset set = load_dataset(embedded_dataset_folder(), Metric::l2);
        SearchBenchOptions options;
        options.indices = {"IVF128,Flat", "IVFGMM128,Flat"};
        options.nprobe = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
        options.threads = default_threads();
        const SearchReport report = run_search_bench(set, options);
        write_text_file("demo.svg", plot_svg(report));
        fmt::print(
                "{}\n\n{}\n{}\nvisited, distances, us: a query's averages. Wrote demo.svg.\n",
                caption(report),
                side_by_side_table(report),
                savings_table(report));
    } catch (const std::exception& error) {
        fmt::print(stderr, "demo: {}\n", error.what());
        return 1;
    }
    return 0;
}
