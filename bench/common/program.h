// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

namespace faiss_gmm::bench {

/// Adds DATA and --metric, which the programs over a data set share.
void add_dataset_options(CLI::App& app, std::string& data, std::string& metric);

/// Reads the command line and runs the program; returns its exit status: 0, 1 where run() throws (after
/// "NAME: what()" on stderr), 2 for wrong usage.
int run_program(
        const char* name, CLI::App& app, int argc, char** argv, const std::function<void()>& run);

} // namespace faiss_gmm::bench
