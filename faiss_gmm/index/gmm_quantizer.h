// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <memory>

#include <faiss/IndexFlat.h>

#include "faiss_gmm/runs/run_inverted_lists.h"
#include "faiss_gmm/train/engine.h"

namespace faiss_gmm {

/// The mixture as a coarse quantizer. Stock code sees an IndexFlat over the means.
///
/// search() is IndexFlat's: lists in metric order with true distances. assign() goes by
/// responsibility: with one variance and equal weights both agree. For inner products responsibilities
/// are those of a row's direction, whatever its length.
class GMMQuantizer : public faiss::IndexFlat {
public:
    explicit GMMQuantizer(int64_t d, faiss::MetricType metric = faiss::METRIC_L2);

    /// The k components of largest responsibility of each row x [n, d] into labels [n, k], best
    /// first; -1 for rows that hold NaN or Inf, and past the last component. Without a mixture that
    /// fits: metric order.
    void assign(int64_t n, const float* x, int64_t* labels, int64_t k = 1) const override;

    /// The m best components of each row x [n, d] into labels [n, m] and their log-responsibilities
    /// (natural logarithm) into log_responsibilities [n, m]; -1 and -inf past the last component.
    /// Throws faiss::FaissException for NaN or Inf (naming the row), and before training.
    void responsibilities(
            int64_t n,
            const float* x,
            int64_t m,
            int64_t* labels,
            float* log_responsibilities) const;

    /// Where assign() and responsibilities() compute; an index sets it before it adds. Never stored.
    EngineParameters engine = exact_engine();

    /// Shares the state of the index, which sets it after training.
    void set_state(std::shared_ptr<const CoarseState> state);

private:
    bool has_mixture() const;
    std::shared_ptr<const CoarseState> state_;
};

} // namespace faiss_gmm
