// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/program.h"

#include <cstdio>
#include <exception>

#include <fmt/format.h>

#include "datasets/dataset.h"

namespace faiss_gmm::bench {

namespace {

constexpr int failed = 1, wrong_usage = 2;

} // namespace

void add_dataset_options(CLI::App& app, std::string& data, std::string& metric) {
    app.add_option("DATA", data, "Folder with base.*, query.* and gt.ibin")
            ->required()
            ->check(CLI::ExistingDirectory);
    app.add_option("--metric", metric, "l2, ip, cosine (unit length, then l2), cosine-ip")
            ->required()
            ->check(CLI::IsMember(metric_names()));
}

int run_program(
        const char* name, CLI::App& app, int argc, char** argv, const std::function<void()>& run) {
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : wrong_usage;
    }
    try {
        run();
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}: {}\n", name, error.what());
        return failed;
    }
    return 0;
}

} // namespace faiss_gmm::bench
