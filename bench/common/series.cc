// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/series.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace faiss_gmm::bench {

namespace {

constexpr double compared_recalls[] = {.90, .95};

std::string label_of(const SearchRow& row) {
    std::string label = row.index;
    if (row.setting.lists > 0) {
        label += fmt::format(" lists={}", row.setting.lists);
    }
    if (row.setting.k_factor > 0) {
        label += fmt::format(" k_factor={}", row.setting.k_factor);
    }
    return label;
}

} // namespace

std::optional<double> cost_at_recall(const std::vector<CostPoint>& points, double recall) {
    for (size_t i = 0; i + 1 < points.size(); ++i) {
        const CostPoint& low = points[i];
        const CostPoint& high = points[i + 1];
        if (low.recall <= recall && recall <= high.recall && low.recall < high.recall) {
            const double t = (recall - low.recall) / (high.recall - low.recall);
            return std::exp((1 - t) * std::log(low.cost) + t * std::log(high.cost));
        }
    }
    return std::nullopt;
}

const char* figure_name(Figure figure) {
    switch (figure) {
    case Figure::visited:
        return "vectors visited";
    case Figure::distances:
        return "distances";
    case Figure::bytes_read:
        return "bytes read";
    case Figure::time_us:
        return "time us";
    }
    return "unknown";
}

double figure_of(const SearchRow& row, Figure figure) {
    switch (figure) {
    case Figure::visited:
        return row.counts.nvisited;
    case Figure::distances:
        return row.counts.ndis;
    case Figure::bytes_read:
        return row.counts.bytes_read;
    case Figure::time_us:
        return row.time_us();
    }
    return 0;
}

std::vector<RowSeries> series_of(const SearchReport& report) {
    std::vector<RowSeries> all;
    for (const SearchRow& row : report.rows) {
        if (row.series >= all.size()) {
            all.resize(row.series + 1);
        }
        RowSeries& series = all[row.series];
        series.label = label_of(row);
        series.is_gmm = row.is_gmm;
        series.rows.push_back(&row);
    }
    return all;
}

std::optional<double> figure_at_recall(const RowSeries& series, Figure figure, double recall) {
    std::vector<CostPoint> points;
    for (const SearchRow* row : series.rows) {
        points.push_back({row->recall, figure_of(*row, figure)});
    }
    return cost_at_recall(points, recall);
}

std::optional<double> Saving::share() const {
    if (!stock || !ours) {
        return std::nullopt;
    }
    return 1 - *ours / *stock;
}

std::vector<Saving> savings(const SearchReport& report) {
    const std::vector<RowSeries> series = series_of(report);
    const auto stock = std::find_if(
            series.begin(), series.end(), [](const RowSeries& s) { return !s.is_gmm; });
    std::vector<Saving> all;
    if (stock == series.end()) {
        return all;
    }
    for (const double recall : compared_recalls) {
        for (const RowSeries& ours : series) {
            if (!ours.is_gmm) {
                continue;
            }
            for (const Figure figure : all_figures) {
                all.push_back(
                        {recall,
                         figure,
                         stock->label,
                         ours.label,
                         figure_at_recall(*stock, figure, recall),
                         figure_at_recall(ours, figure, recall)});
            }
        }
    }
    return all;
}

} // namespace faiss_gmm::bench
