// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/parameter_space.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "faiss_gmm/index/faiss_error.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/index/wrappers.h"

namespace faiss_gmm {

namespace {

void require(const faiss::Index* index) {
    if (index == nullptr) {
        throw_faiss(
                {"reading or setting search parameters",
                 "no index (a null pointer)",
                 "an index",
                 "pass the index that is to be searched"});
    }
}

} // namespace

void ParameterSpace::initialize(const faiss::Index* index) {
    require(index);
    faiss::ParameterSpace::initialize(index);
    auto* outer = const_cast<faiss::Index*>(index); // only looked into
    const faiss::Index* inner = *innermost_slot(&outer);
    const auto* ours = dynamic_cast<const IndexIVFGMM*>(inner);
    if (ours == nullptr) {
        return;
    }
    const bool seen =
            std::any_of(parameter_ranges.begin(), parameter_ranges.end(), [](const auto& range) {
                return range.name == "nprobe";
            });
    if (!seen) { // stock looks into some wrappers only
        faiss::ParameterSpace::initialize(inner);
    }
    if (ours->chooses_runs()) {
        add_range("probe_expansion").values = {1, 2, 4, 8, 16};
    }
    if (ours->chooses_by_sketches()) {
        add_range("k_factor").values = {2, 5, 10, 20, 40};
    }
}

void ParameterSpace::set_index_parameter(
        faiss::Index* index, const std::string& name, double value) const {
    require(index);
    auto* ours = dynamic_cast<IndexIVFGMM*>(index);
    if (ours == nullptr || (name != "probe_expansion" && name != "k_factor")) {
        faiss::ParameterSpace::set_index_parameter(
                index, name, value); // comes back for what it wraps
        return;
    }
    if (!(value >= 0) || std::isinf(value)) {
        throw_faiss(
                {"setting a search parameter",
                 fmt::format("{} = {}", name, value),
                 "finite numbers from 0",
                 "use 0 for the index's own rule"});
    }
    (name == "k_factor" ? ours->k_factor : ours->probe_expansion) = static_cast<float>(value);
}

} // namespace faiss_gmm
