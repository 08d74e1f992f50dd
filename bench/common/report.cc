// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/report.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include <fmt/format.h>
#include <unistd.h>

#include "bench/common/series.h"
#include "bench/common/svg_plot.h"
#include "bench/common/table.h"
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm::bench {

namespace {

std::string recall_text(double recall) {
    return fmt::format("{:.4f}", recall);
}

const SearchRow* row_at(const RowSeries& series, size_t nprobe) {
    const auto found =
            std::find_if(series.rows.begin(), series.rows.end(), [&](const SearchRow* row) {
                return row->setting.nprobe == nprobe;
            });
    return found == series.rows.end() ? nullptr : *found;
}

std::string or_dash(const std::optional<double>& value) {
    return value ? grouped(*value) : "-";
}

/// "1,234 (-56%)"; the minus sign is the saving.
std::string with_change(const Saving& saving) {
    const std::optional<double> share = saving.share();
    return share ? fmt::format("{} ({:+.0f}%)", grouped(*saving.ours), -100 * *share)
                 : or_dash(saving.ours);
}

} // namespace

std::string caption(const SearchReport& report) {
    const Environment& environment = report.environment;
    return fmt::format(
            "{}: n = {}, d = {}, {}, {} queries; {}, {} thread{}; FAISS {} (SIMD {}), our loops "
            "{}; "
            "commit {}, {}",
            report.dataset,
            grouped(double(report.n)),
            report.d,
            report.metric,
            grouped(double(report.nq)),
            environment.cpu,
            report.threads,
            report.threads == 1 ? "" : "s",
            environment.faiss_version,
            environment.faiss_simd,
            environment.simd,
            environment.git_commit,
            environment.date.substr(0, 10));
}

std::string rows_table(const SearchReport& report) {
    Table table(
            {"index",
             "nprobe",
             "lists",
             "k_factor",
             "recall@10",
             "visited",
             "distances",
             "scored",
             "bytes read",
             "queries/s",
             "p50 us",
             "p99 us"});
    for (const SearchRow& row : report.rows) {
        table.add_row(
                {row.index,
                 fmt::format("{}", row.setting.nprobe),
                 grouped(row.counts.lists),
                 row.setting.k_factor > 0 ? fmt::format("{}", row.setting.k_factor) : "-",
                 recall_text(row.recall),
                 grouped(row.counts.nvisited),
                 grouped(row.counts.ndis),
                 grouped(row.counts.nscored),
                 grouped(row.counts.bytes_read),
                 grouped(row.qps),
                 grouped(row.p50_us),
                 grouped(row.p99_us)});
    }
    return table.text();
}

std::string side_by_side_table(const SearchReport& report) {
    const std::vector<RowSeries> all = series_of(report);
    std::vector<std::string> header = {"nprobe"};
    std::set<size_t> nprobes;
    for (const RowSeries& series : all) {
        header.insert(header.end(), {"recall@10", "visited", "distances", "us"});
        for (const SearchRow* row : series.rows) {
            nprobes.insert(row->setting.nprobe);
        }
    }
    Table table(header);
    table.add_group("", 1);
    for (const RowSeries& series : all) {
        table.add_group(series.label, 4);
    }
    for (const size_t nprobe : nprobes) {
        std::vector<std::string> cells = {fmt::format("{}", nprobe)};
        for (const RowSeries& series : all) {
            const SearchRow* row = row_at(series, nprobe);
            if (row == nullptr) {
                cells.insert(cells.end(), 4, "-");
                continue;
            }
            cells.insert(
                    cells.end(),
                    {recall_text(row->recall),
                     grouped(row->counts.nvisited),
                     grouped(row->counts.ndis),
                     grouped(row->time_us())});
        }
        table.add_row(std::move(cells));
    }
    return table.text();
}

std::string savings_table(const SearchReport& report) {
    const std::vector<Saving> all = savings(report);
    if (all.empty()) {
        return "";
    }
    std::vector<std::string> header = {"index", "at recall@10"};
    for (const Figure figure : all_figures) {
        header.emplace_back(figure_name(figure));
    }
    Table table(header);
    bool incomplete = false;
    double recall = 0;
    constexpr size_t figures = std::size(all_figures);
    for (size_t first = 0; first < all.size(); first += figures) {
        const std::string at = fmt::format("{:.2f}", all[first].recall);
        std::vector<std::string> stock = {all[first].stock_label, at};
        std::vector<std::string> ours = {all[first].label, at};
        for (size_t i = first; i < first + figures; ++i) {
            stock.push_back(or_dash(all[i].stock));
            ours.push_back(with_change(all[i]));
            incomplete = incomplete || !all[i].share();
        }
        if (all[first].recall != recall) {
            table.add_row(std::move(stock));
            recall = all[first].recall;
        }
        table.add_row(std::move(ours));
    }
    return table.text() +
           (incomplete
                    ? "-: no two neighbouring nprobe have this recall between them; measure more.\n"
                    : "");
}

std::string build_table(const SearchReport& report) {
    Table table({"index", "train s", "add s", "of it split s", "sketch s", "bytes/vector"});
    std::set<std::string> done;
    for (const SearchRow& row : report.rows) {
        if (done.insert(row.index).second) {
            table.add_row(
                    {row.index,
                     fmt::format("{:.2f}", row.build.train_s),
                     fmt::format("{:.2f}", row.build.add_s),
                     fmt::format("{:.2f}", row.build.split_s),
                     fmt::format("{:.2f}", row.build.sketch_s),
                     grouped(row.build.bytes_per_vector)});
        }
    }
    return table.text();
}

std::string plot_svg(const SearchReport& report) {
    PlotFigure figure;
    figure.title = fmt::format("Recall and cost of a query, {}", report.dataset);
    figure.caption = caption(report);
    figure.panels = {
            {"Speed (up is better)", "recall@10", "queries per second", {}},
            {"Vectors visited (down is better)", "recall@10", "vectors a query", {}},
            {"Exact distances (down is better)", "recall@10", "distances a query", {}}};
    for (const RowSeries& series : series_of(report)) {
        figure.series.push_back(series.label);
        for (PlotPanel& panel : figure.panels) {
            panel.lines.emplace_back();
        }
        for (const SearchRow* row : series.rows) {
            const double values[] = {row->qps, row->counts.nvisited, row->counts.ndis};
            for (size_t p = 0; p < figure.panels.size(); ++p) {
                if (values[p] > 0) {
                    figure.panels[p].lines.back().push_back({row->recall, values[p]});
                }
            }
        }
    }
    return render_svg(figure);
}

namespace {

/// Beside the target, so that renaming replaces it in one step.
std::string part_of(const std::string& path) {
    return fmt::format("{}.{}.part", path, getpid());
}

[[noreturn]] void refuse_path(const std::string& path, const std::string& why) {
    throw Error(
            {fmt::format("writing '{}'", path),
             why,
             "a path in a folder that can be written to, with room left",
             "choose another path"});
}

} // namespace

void require_writable(const std::string& path) {
    if (std::filesystem::is_directory(path)) {
        refuse_path(path, "a folder");
    }
    const std::string part = part_of(path);
    const std::ofstream file(part, std::ios::binary);
    const std::string why = std::strerror(errno);
    std::remove(part.c_str());
    if (!file) {
        refuse_path(path, why);
    }
}

void write_text_file(const std::string& path, const std::string& text) {
    const std::string part = part_of(path);
    std::ofstream file(part, std::ios::binary);
    file << text;
    file.close();
    if (!file || std::rename(part.c_str(), path.c_str()) != 0) {
        const std::string why = std::strerror(errno);
        std::remove(part.c_str());
        refuse_path(path, fmt::format("{} bytes, {}", text.size(), why));
    }
}

} // namespace faiss_gmm::bench
