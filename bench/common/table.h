// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace faiss_gmm::bench {

/// A table for people: plain text, columns as wide as they need to be; the first column stands
/// left, the others right.
class Table {
public:
    explicit Table(std::vector<std::string> header);
    /// A heading over the next `columns` columns that have none; with any there is one more line on
    /// top.
    void add_group(const std::string& heading, size_t columns);
    /// As many cells as the header has.
    void add_row(std::vector<std::string> cells);
    std::string text() const;

private:
    struct Group {
        std::string heading;
        size_t columns;
    };
    std::vector<std::vector<std::string>> rows_; ///< the header first
    std::vector<Group> groups_;
};

/// 1234567.8 -> "1,234,568"; below 100 with one decimal; NaN as "-".
std::string grouped(double value);

} // namespace faiss_gmm::bench
