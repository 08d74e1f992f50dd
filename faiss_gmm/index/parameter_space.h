// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>

#include <faiss/AutoTune.h>

namespace faiss_gmm {

/// FAISS's ParameterSpace with the parameters of an IndexIVFGMM beside stock's: `probe_expansion` and
/// `k_factor` (search_parameters.h), through every wrapper that stock passes parameters through. Explored by
/// faiss::ParameterSpace::explore as any other; tune() (tune.h) is the shorter way to a recall.
///
/// Prints nothing unless `verbose` is set.
struct ParameterSpace : faiss::ParameterSpace {
    ParameterSpace() {
        verbose = 0;
    }
    using faiss::ParameterSpace::set_index_parameter;

    /// Stock's ranges for this index; for an IndexIVFGMM, wrapped or not, its own beside, where they change a
    /// search: not of plain lists or copies, k_factor of sketches alone. Ranges ascend in what they cost.
    /// Throws faiss::FaissException for null.
    void initialize(const faiss::Index* index) override;
    /// Throws faiss::FaissException: null, names that neither knows, and own values that are negative or not
    /// finite (0: by the measured rule).
    void
    set_index_parameter(faiss::Index* index, const std::string& name, double value) const override;
};

} // namespace faiss_gmm
