// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/common/search_bench.h"

namespace faiss_gmm::bench {

/// One measured point: what it found and what it cost.
struct CostPoint {
    double recall = 0;
    double cost = 0; ///< a count or a time, > 0
};

/// The cost at a given recall: between the two neighbouring points around it recall is taken as
/// linear in log(cost). Points in the order of nprobe; the first crossing counts. Nothing when no
/// two neighbours have it between them: there is no extrapolation.
std::optional<double> cost_at_recall(const std::vector<CostPoint>& points, double recall);

/// The costs that are compared at equal recall.
enum class Figure { visited, distances, bytes_read, time_us };
constexpr Figure all_figures[] = {
        Figure::visited, Figure::distances, Figure::bytes_read, Figure::time_us};
/// "vectors visited", "distances", "bytes read", "time us".
const char* figure_name(Figure figure);
double figure_of(const SearchRow& row, Figure figure);

/// The rows of one (index, lists, k_factor), by nprobe.
struct RowSeries {
    std::string label; ///< the factory string, and lists and k_factor where they were given
    bool is_gmm = false;
    std::vector<const SearchRow*> rows; ///< into the report
};
std::vector<RowSeries> series_of(const SearchReport& report);

std::optional<double> figure_at_recall(const RowSeries& series, Figure figure, double recall);

/// One of ours against the first stock index, at one recall.
struct Saving {
    double recall = 0;
    Figure figure = Figure::visited;
    std::string stock_label, label;
    std::optional<double> stock,
            ours; ///< nothing where the measured nprobe do not bracket the recall
    /// 1 - ours / stock.
    std::optional<double> share() const;
};

/// By recall (.90, .95), then series of ours, then figure. Empty without a stock index or without
/// ours.
std::vector<Saving> savings(const SearchReport& report);

} // namespace faiss_gmm::bench
