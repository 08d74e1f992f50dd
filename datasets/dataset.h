// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <faiss/MetricType.h>

#include "datasets/ground_truth.h"

namespace faiss_gmm {

/// How the vectors of a set are compared.
enum class Metric {
    l2,        ///< squared distance
    ip,        ///< inner product
    cosine,    ///< rows and queries brought to unit length, then squared distance
    cosine_ip, ///< rows and queries brought to unit length, then inner product (the same truth)
};

/// The words "l2", "ip", "cosine", "cosine-ip", in this order.
const std::vector<std::string>& metric_names();
/// Throws Error for any other word.
Metric parse_metric(const std::string& name);
const std::string& metric_name(Metric metric);
/// The metric that an index for such a set is made with.
faiss::MetricType faiss_metric(Metric metric);

/// A benchmark set in memory, as floats.
struct Dataset {
    std::string name; ///< the folder's name
    Metric metric = Metric::l2;
    size_t n = 0, nq = 0, d = 0;
    std::vector<float> base;  ///< [n, d]
    std::vector<float> query; ///< [nq, d]
    GroundTruth truth;

    RecallMeasure recall_measure(size_t k) const;
};

/// Reads the set in `folder`: base.* and query.* (any vector file format, one of each) and gt.ibin.
/// With max_rows below the number of base rows only the first max_rows are kept, and 100 true
/// neighbours (or max_rows of them) are searched anew. Throws Error saying what is missing,
/// ambiguous or does not fit together; under cosine a row of zeros is refused.
Dataset load_dataset(const std::string& folder, Metric metric, size_t max_rows = 0);

/// The folder of the set that comes with the sources (20,000 SIFT descriptors, metric l2).
std::string embedded_dataset_folder();

} // namespace faiss_gmm
