// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "bench/common/search_bench.h"

namespace faiss_gmm::bench {

/// One row with everything that is needed to read it alone; counts are a query's averages.
nlohmann::ordered_json to_json(const SearchReport& report, const SearchRow& row);

/// A line a row.
std::string json_lines(const SearchReport& report);

} // namespace faiss_gmm::bench
