// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/gmm_quantizer.h"

#include <algorithm>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "faiss_gmm/compat/layout.h"
#include "faiss_gmm/index/faiss_error.h"
#include "faiss_gmm/runs/component_ranking.h"
#include "faiss_gmm/train/finite_rows.h"

namespace faiss_gmm {
namespace {

void check_counts(const char* what, int64_t n, int64_t m) {
    if (n < 0 || m < 1) {
        throw_faiss(
                {what,
                 fmt::format("{} rows, {} lists a row", n, m),
                 "rows from 0, lists from 1",
                 "pass the number of rows, and ask for at least one list"});
    }
}

} // namespace

GMMQuantizer::GMMQuantizer(int64_t dimensions, faiss::MetricType metric)
        : faiss::IndexFlat(compat::checked(dimensions), metric) {}

void GMMQuantizer::set_state(std::shared_ptr<const CoarseState> state) {
    state_ = std::move(state);
}

bool GMMQuantizer::has_mixture() const {
    return state_ && ntotal > 0 && state_->mixture.K == static_cast<size_t>(ntotal);
}

void GMMQuantizer::assign(int64_t n, const float* x, int64_t* labels, int64_t k) const {
    check_counts("assigning rows to lists", n, k);
    if (!has_mixture()) {
        faiss::IndexFlat::assign(n, x, labels, k);
        return;
    }
    // Rows that hold NaN or Inf belong nowhere.
    const auto total = static_cast<size_t>(n);
    const bool all_sound = first_bad_row(total, d, x) == total;
    std::vector<int64_t> sound; // their numbers, where not all are
    std::vector<float> gathered;
    for (int64_t i = 0; i < n && !all_sound; i++) {
        const float* row = x + i * d;
        if (all_finite(d, row)) {
            sound.push_back(i);
            gathered.insert(gathered.end(), row, row + d);
        }
    }
    const size_t rows = all_sound ? total : sound.size();
    const float* finite = all_sound ? x : gathered.data();
    std::fill(labels, labels + n * k, -1);
    const size_t m = std::min<size_t>(k, state_->mixture.K);
    constexpr size_t at_once = 262144;
    at_faiss_seam([&] {
        ComponentRanking ranking(engine, state_->mixture, state_->codec, rows, Assignment::hard);
        TopResponsibilities top;
        for (size_t first = 0; first < rows; first += at_once) {
            const size_t count = std::min(at_once, rows - first);
            ranking.rank(count, finite + first * d, m, top);
            for (size_t i = 0; i < count; i++) {
                const size_t row = all_sound ? first + i : static_cast<size_t>(sound[first + i]);
                std::copy_n(&top.component[i * m], m, labels + row * k);
            }
        }
    });
}

void GMMQuantizer::responsibilities(
        int64_t n, const float* x, int64_t m, int64_t* labels, float* log_responsibilities) const {
    if (!has_mixture()) {
        throw_faiss(
                {"computing responsibilities",
                 "a quantizer that has no mixture yet",
                 "a trained index",
                 "call train() first"});
    }
    check_counts("computing responsibilities", n, m);
    const size_t best = std::min<size_t>(m, state_->mixture.K);
    std::fill(labels, labels + n * m, -1);
    std::fill(
            log_responsibilities,
            log_responsibilities + n * m,
            -std::numeric_limits<float>::infinity());
    at_faiss_seam([&] {
        ComponentRanking ranking(engine, state_->mixture, state_->codec, n);
        TopResponsibilities top;
        ranking.rank(n, x, best, top);
        for (int64_t i = 0; i < n; i++) {
            for (size_t j = 0; j < best; j++) {
                labels[i * m + j] = top.component[i * best + j];
                log_responsibilities[i * m + j] = top.log_responsibility[i * best + j];
            }
        }
    });
}

} // namespace faiss_gmm
