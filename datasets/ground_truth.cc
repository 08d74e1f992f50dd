// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/ground_truth.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <faiss/IndexFlat.h>
#include <fmt/format.h>

#include "datasets/mapped_file.h"
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

namespace {

constexpr size_t header_bytes = 2 * sizeof(uint32_t);

void check_ids(const std::string& path, const GroundTruth& truth, size_t n) {
    for (size_t i = 0; i < truth.ids.size(); ++i) {
        if (truth.ids[i] < 0 || static_cast<size_t>(truth.ids[i]) >= n) {
            throw Error(
                    {fmt::format("reading true neighbours from '{}'", path),
                     fmt::format("id {} for query {}", truth.ids[i], i / truth.k),
                     fmt::format("ids of base vectors, 0 to {}", n - 1),
                     "use the file that was made for this base"});
        }
    }
}

void check_metric(faiss::MetricType metric) {
    if (metric != faiss::METRIC_L2 && metric != faiss::METRIC_INNER_PRODUCT) {
        throw Error(
                {"comparing with true neighbours",
                 fmt::format("metric {}", static_cast<int>(metric)),
                 "METRIC_L2 and METRIC_INNER_PRODUCT",
                 "choose one of these"});
    }
}

} // namespace

GroundTruth load_ground_truth(const std::string& path, size_t n) {
    const MappedFile file(path);
    const std::string doing = fmt::format("reading true neighbours from '{}'", path);
    if (file.size() < header_bytes) {
        throw Error(
                {doing,
                 fmt::format("a truncated file, {} bytes", file.size()),
                 "a header of 8 bytes (u32 queries, u32 k), then int32 ids",
                 "fetch or write the file again"});
    }
    uint32_t shape[2] = {0, 0};
    std::memcpy(shape, file.data(), header_bytes);
    // Two u32 multiply to less than 2^64, but times four bytes they may not fit: compare by
    // division.
    const uint64_t entries = uint64_t(shape[0]) * shape[1];
    if (entries == 0) {
        throw Error(
                {doing,
                 fmt::format("{} queries with k = {}", shape[0], shape[1]),
                 "at least 1 query and k >= 1",
                 "fetch or write the file again"});
    }
    const size_t body = file.size() - header_bytes;
    const bool whole = body % sizeof(int32_t) == 0;
    const bool ids_alone = whole && body / sizeof(int32_t) == entries;
    const bool ids_and_distances =
            whole && body % (2 * sizeof(int32_t)) == 0 && body / (2 * sizeof(int32_t)) == entries;
    if (!ids_alone && !ids_and_distances) {
        throw Error(
                {doing,
                 fmt::format(
                         "{} bytes where the header says {} queries with k = {}",
                         file.size(),
                         shape[0],
                         shape[1]),
                 "8 + 4 * queries * k bytes (ids alone) or 8 + 8 * queries * k (ids, then "
                 "distances)",
                 "the file is truncated or of another format; fetch or write it again"});
    }
    GroundTruth truth;
    truth.nq = shape[0];
    truth.k = shape[1];
    truth.ids.resize(entries);
    std::memcpy(truth.ids.data(), file.data() + header_bytes, entries * sizeof(int32_t));
    if (ids_and_distances) {
        truth.distances.resize(entries);
        std::memcpy(
                truth.distances.data(),
                file.data() + header_bytes + entries * sizeof(int32_t),
                entries * sizeof(float));
    }
    check_ids(path, truth, n);
    return truth;
}

GroundTruth exact_ground_truth(
        size_t d,
        size_t n,
        const float* base,
        size_t nq,
        const float* query,
        size_t k,
        faiss::MetricType metric) {
    check_metric(metric);
    if (d == 0 || nq == 0 || k == 0 || k > n || n > size_t(std::numeric_limits<int32_t>::max())) {
        throw Error(
                {"searching true neighbours",
                 fmt::format("n = {}, d = {}, {} queries, k = {}", n, d, nq, k),
                 "1 <= k <= n < 2^31, at least 1 query, d >= 1",
                 "give more base vectors or ask for fewer neighbours"});
    }
    faiss::IndexFlat index(static_cast<int>(d), metric);
    index.add(static_cast<int64_t>(n), base);
    GroundTruth truth{nq, k, {}, std::vector<float>(nq * k)};
    std::vector<int64_t> ids(nq * k);
    index.search(
            static_cast<int64_t>(nq),
            query,
            static_cast<int64_t>(k),
            truth.distances.data(),
            ids.data());
    truth.ids.assign(ids.begin(), ids.end());
    return truth;
}

RecallMeasure::RecallMeasure(
        size_t d,
        size_t n,
        const float* base,
        size_t nq,
        const float* query,
        const GroundTruth& truth,
        size_t k,
        faiss::MetricType metric)
        : d_(d), n_(n), nq_(nq), k_(k), base_(base), query_(query), metric_(metric), kth_(nq) {
    check_metric(metric);
    if (truth.nq != nq || k == 0 || truth.k < k || nq == 0) {
        throw Error(
                {fmt::format("measuring recall@{}", k),
                 fmt::format(
                         "{} queries and the {} true neighbours of {} queries",
                         nq,
                         truth.k,
                         truth.nq),
                 fmt::format("at least {} true neighbours of each query", std::max<size_t>(k, 1)),
                 "use the true neighbours that belong to these queries"});
    }
    check_order(truth);
    for (size_t q = 0; q < nq; ++q) {
        // The farthest of the first k, not the k-th: rounding where the truth was made may have
        // put two neighbours in the other order.
        double kth = distance(q, truth.ids[q * truth.k]);
        for (size_t j = 1; j < k; ++j) {
            kth = std::max(kth, distance(q, truth.ids[q * truth.k + j]));
        }
        kth_[q] = kth;
    }
}

/// Smaller is nearer in both metrics.
double RecallMeasure::distance(size_t query, int64_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= n_) {
        throw Error(
                {fmt::format("measuring recall@{}", k_),
                 fmt::format("id {} for query {}", id, query),
                 fmt::format("ids of base vectors, 0 to {}, or -1 for none", n_ - 1),
                 "compare with the base that the index was built from"});
    }
    const float* x = base_ + static_cast<size_t>(id) * d_;
    const float* y = query_ + query * d_;
    double sum = 0;
    if (metric_ == faiss::METRIC_INNER_PRODUCT) {
        for (size_t i = 0; i < d_; ++i) {
            sum -= double(x[i]) * y[i];
        }
    } else {
        for (size_t i = 0; i < d_; ++i) {
            const double difference = double(x[i]) - y[i];
            sum += difference * difference;
        }
    }
    return sum;
}

/// Rounding may swap close neighbours; a query in twenty with neighbours clearly out of order means
/// that the truth belongs to something else, and every recall would be too high.
void RecallMeasure::check_order(const GroundTruth& truth) const {
    constexpr double tolerance = 1e-4, allowed_share = .05;
    size_t out_of_order = 0;
    for (size_t q = 0; q < nq_; ++q) {
        double before = distance(q, truth.ids[q * truth.k]);
        for (size_t j = 1; j < k_; ++j) {
            const double now = distance(q, truth.ids[q * truth.k + j]);
            if (now < before - tolerance * std::abs(before)) {
                ++out_of_order;
                break;
            }
            before = now;
        }
    }
    if (double(out_of_order) > allowed_share * double(nq_)) {
        throw Error(
                {fmt::format("measuring recall@{}", k_),
                 fmt::format(
                         "true neighbours that are not nearest first for {} of {} queries",
                         out_of_order,
                         nq_),
                 "true neighbours of these queries in this base under this metric",
                 "choose the metric that the truth was made with"});
    }
}

double RecallMeasure::recall(const int64_t* ids) const {
    size_t found = 0;
    for (size_t q = 0; q < nq_; ++q) {
        const int64_t* row = ids + q * k_;
        for (size_t j = 0; j < k_; ++j) {
            const bool first_time = std::find(row, row + j, row[j]) == row + j;
            if (row[j] != -1 && first_time && distance(q, row[j]) <= kth_[q]) {
                ++found;
            }
        }
    }
    return double(found) / double(nq_ * k_);
}

} // namespace faiss_gmm
