// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/dataset.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "datasets/vector_file.h"
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

namespace {

namespace fs = std::filesystem;

constexpr size_t searched_neighbours = 100; // as many as the sets' own files hold

std::string opening(const fs::path& folder) {
    return fmt::format("opening the data set '{}'", folder.string());
}

void check_folder(const fs::path& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) {
        throw Error(
                {opening(folder),
                 "no folder of this name",
                 "a folder with base.*, query.* and gt.ibin",
                 "check the path"});
    }
}

/// The one vector file `stem`.* of the folder.
fs::path find_vectors(const fs::path& folder, const std::string& stem) {
    std::vector<std::string> found;
    for (const std::string& extension : vector_file_extensions()) {
        if (fs::exists(folder / (stem + extension))) {
            found.push_back(stem + extension);
        }
    }
    if (found.size() == 1) {
        return folder / found[0];
    }
    throw Error(
            {opening(folder),
             found.empty() ? fmt::format("no {}.*", stem)
                           : fmt::format("more than one: {}", fmt::join(found, ", ")),
             fmt::format("one file {}.* ({})", stem, fmt::join(vector_file_extensions(), " ")),
             found.empty() ? "put it there, or unpack the set again"
                           : "keep the one that is meant"});
}

fs::path find_truth(const fs::path& folder) {
    fs::path path = folder / "gt.ibin";
    if (!fs::exists(path)) {
        throw Error(
                {opening(folder),
                 "no gt.ibin",
                 "u32 queries, u32 k, int32 ids [queries, k], and float32 distances or nothing",
                 "put it there, or unpack the set again"});
    }
    return path;
}

/// Brings every row to unit length.
void normalise(const VectorFile& file, size_t n, size_t d, float* rows) {
    for (size_t i = 0; i < n; ++i) {
        float* row = rows + i * d;
        double squared = 0;
        for (size_t j = 0; j < d; ++j) {
            squared += double(row[j]) * row[j];
        }
        if (!(squared > 0) || !std::isfinite(squared)) {
            throw Error(
                    {fmt::format("bringing the rows of '{}' to unit length", file.path()),
                     fmt::format("row {}, whose squared length is {}", i, squared),
                     "rows with a direction",
                     "remove the row, or use the metric l2 or ip"});
        }
        const double scale = 1 / std::sqrt(squared);
        for (size_t j = 0; j < d; ++j) {
            row[j] = static_cast<float>(row[j] * scale);
        }
    }
}

std::vector<float> read_rows(const VectorFile& file, size_t n, Metric metric) {
    std::vector<float> rows(n * file.dimensions());
    file.to_float(0, n, rows.data());
    if (metric == Metric::cosine || metric == Metric::cosine_ip) {
        normalise(file, n, file.dimensions(), rows.data());
    }
    return rows;
}

} // namespace

const std::vector<std::string>& metric_names() {
    static const std::vector<std::string> names = {"l2", "ip", "cosine", "cosine-ip"};
    return names;
}

Metric parse_metric(const std::string& name) {
    const std::vector<std::string>& names = metric_names();
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
        throw Error(
                {"choosing a metric",
                 fmt::format("'{}'", name),
                 fmt::format("{}", fmt::join(names, ", ")),
                 "choose one of these"});
    }
    return static_cast<Metric>(found - names.begin());
}

const std::string& metric_name(Metric metric) {
    return metric_names().at(static_cast<size_t>(metric));
}

faiss::MetricType faiss_metric(Metric metric) {
    return metric == Metric::ip || metric == Metric::cosine_ip ? faiss::METRIC_INNER_PRODUCT
                                                               : faiss::METRIC_L2;
}

RecallMeasure Dataset::recall_measure(size_t k) const {
    return {d, n, base.data(), nq, query.data(), truth, k, faiss_metric(metric)};
}

Dataset load_dataset(const std::string& folder, Metric metric, size_t max_rows) {
    const fs::path path = fs::path(folder).lexically_normal();
    check_folder(path);
    // All three are looked for before the first is read: a missing one is said at once.
    const fs::path base_path = find_vectors(path, "base");
    const fs::path query_path = find_vectors(path, "query");
    const fs::path truth_path = find_truth(path);
    const VectorFile base(base_path.string());
    const VectorFile query(query_path.string());
    if (base.dimensions() != query.dimensions()) {
        throw Error(
                {opening(path),
                 fmt::format(
                         "d = {} in {} and d = {} in {}",
                         base.dimensions(),
                         base_path.filename().string(),
                         query.dimensions(),
                         query_path.filename().string()),
                 "the same d in both",
                 "use the queries that belong to this base"});
    }
    Dataset set;
    set.name = (path.has_filename() ? path : path.parent_path()).filename().string();
    set.metric = metric;
    set.d = base.dimensions();
    set.nq = query.rows();
    set.n = max_rows == 0 ? base.rows() : std::min(max_rows, base.rows());
    set.base = read_rows(base, set.n, metric);
    set.query = read_rows(query, set.nq, metric);
    if (set.n < base.rows()) {
        set.truth = exact_ground_truth(
                set.d,
                set.n,
                set.base.data(),
                set.nq,
                set.query.data(),
                std::min(searched_neighbours, set.n),
                faiss_metric(metric));
        return set;
    }
    set.truth = load_ground_truth(truth_path.string(), set.n);
    if (set.truth.nq != set.nq) {
        throw Error(
                {opening(path),
                 fmt::format("{} queries and true neighbours of {}", set.nq, set.truth.nq),
                 "true neighbours of every query",
                 "use the gt.ibin that belongs to these queries"});
    }
    return set;
}

std::string embedded_dataset_folder() {
    return FAISS_GMM_EMBEDDED_DIR;
}

} // namespace faiss_gmm
