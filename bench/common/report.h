// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A report for people: tables, savings, a picture.
#pragma once

#include <string>

#include "bench/common/search_bench.h"

namespace faiss_gmm::bench {

/// What was measured, where, and with what, in one line.
std::string caption(const SearchReport& report);

/// One line a row.
std::string rows_table(const SearchReport& report);

/// One line an nprobe, the indices side by side: recall, vectors visited, distances, time a query.
std::string side_by_side_table(const SearchReport& report);

/// Every series of ours against the first stock index at recall .90 and .95; empty without either.
std::string savings_table(const SearchReport& report);

/// How long building took and what it holds, one line an index.
std::string build_table(const SearchReport& report);

/// Recall against queries per second, vectors visited and distances, as an SVG.
std::string plot_svg(const SearchReport& report);

/// Throws Error where write_text_file() would fail for its path: asked before hours of work.
void require_writable(const std::string& path);

/// Writes the file whole or not at all. Throws Error.
void write_text_file(const std::string& path, const std::string& text);

} // namespace faiss_gmm::bench
