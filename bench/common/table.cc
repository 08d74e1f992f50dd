// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm::bench {

namespace {

constexpr size_t gap = 2;

std::string without_trailing_blanks(std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    return line + '\n';
}

} // namespace

Table::Table(std::vector<std::string> header) : rows_{std::move(header)} {}

void Table::add_group(const std::string& heading, size_t columns) {
    groups_.push_back({heading, columns});
}

void Table::add_row(std::vector<std::string> cells) {
    if (cells.size() != rows_.front().size()) {
        throw Error(
                {"adding a row to a table",
                 fmt::format("{} cells", cells.size()),
                 fmt::format("{} cells, as in the header", rows_.front().size()),
                 "give one cell a column"});
    }
    rows_.push_back(std::move(cells));
}

std::string Table::text() const {
    std::vector<size_t> width(rows_.front().size(), 0);
    for (const std::vector<std::string>& row : rows_) {
        for (size_t c = 0; c < row.size(); ++c) {
            width[c] = std::max(width[c], row[c].size());
        }
    }
    // A heading wider than its columns widens the last of them.
    size_t column = 0;
    for (const Group& group : groups_) {
        const auto first = width.begin() + static_cast<std::ptrdiff_t>(column);
        const auto last = first + static_cast<std::ptrdiff_t>(group.columns);
        const size_t space = std::accumulate(first, last, gap * (group.columns - 1));
        if (group.heading.size() > space) {
            *(last - 1) += group.heading.size() - space;
        }
        column += group.columns;
    }
    std::string text;
    if (!groups_.empty()) {
        std::string line;
        column = 0;
        for (const Group& group : groups_) {
            size_t space = gap * (group.columns - 1);
            for (size_t c = column; c < column + group.columns; ++c) {
                space += width[c];
            }
            const std::string_view fill = group.heading.empty() ? " " : "-";
            std::string cell = group.heading;
            if (space >= cell.size() + 4 && !cell.empty()) {
                cell = fmt::format(" {} ", cell);
            }
            const size_t left = (space - cell.size()) / 2;
            for (size_t i = 0; i < left; ++i) {
                line += fill;
            }
            line += cell;
            for (size_t i = left + cell.size(); i < space; ++i) {
                line += fill;
            }
            line += std::string(gap, ' ');
            column += group.columns;
        }
        text += without_trailing_blanks(line);
    }
    for (size_t r = 0; r < rows_.size(); ++r) {
        std::string line = fmt::format("{:<{}}", rows_[r][0], width[0]);
        for (size_t c = 1; c < width.size(); ++c) {
            line += std::string(gap, ' ') + fmt::format("{:>{}}", rows_[r][c], width[c]);
        }
        text += without_trailing_blanks(line);
        if (r == 0) {
            const size_t total =
                    std::accumulate(width.begin(), width.end(), gap * (width.size() - 1));
            text += std::string(total, '-') + '\n';
        }
    }
    return text;
}

std::string grouped(double value) {
    if (!std::isfinite(value)) {
        return "-";
    }
    if (std::abs(value) < 99.95) {
        return value == std::floor(value) ? fmt::format("{:.0f}", value)
                                          : fmt::format("{:.1f}", value);
    }
    std::string digits = fmt::format("{:.0f}", value);
    const size_t first = value < 0 ? 1 : 0;
    for (size_t at = digits.size(); at > first + 3;) {
        at -= 3;
        digits.insert(at, ",");
    }
    return digits;
}

} // namespace faiss_gmm::bench
