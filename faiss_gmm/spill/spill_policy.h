// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"

namespace faiss_gmm {

/// In which order further lists are considered, home first in every case.
enum class SpillOrder {
    responsibility, ///< by responsibility, largest first (Flash-GMM)
    air,            ///< least |r'|^2 + lambda r.r' (RAIRS, arXiv 2601.07183)
    soar,           ///< least |r'|^2 + lambda (r.r' / |r|)^2 (SOAR, arXiv 2404.00774)
};

/// How many further lists are taken.
enum class SpillRule {
    never,     ///< home alone
    threshold, ///< every list with responsibility > tau
    always,    ///< up to max_lists
    fraction,  ///< the share f of members with the largest border responsibility, up to max_lists
};

/// What is placed: runs, with codes stored once, or vectors, with a code in every list.
enum class SpillStorage { shared, copies };

/// The whole policy, a value. What each knob buys and costs stands beside it.
struct SpillPolicy {
    SpillOrder order = SpillOrder::responsibility;
    float lambda = 0.5f;   ///< weight of the angle in air and soar
    SpillRule rule = SpillRule::always;
    float tau = 0;         ///< threshold; 0 means 1 / K, the paper's
    float fraction = 0.5f; ///< share of members that spill
    size_t max_lists = 2;  ///< lists a member belongs to, home included: recall at equal probes against memory
    size_t m = 16;         ///< candidates looked at a member
    SpillStorage storage = SpillStorage::shared;
    float log_border_threshold = 0; ///< rule fraction: set by calibrate(), log responsibility

    bool operator==(const SpillPolicy& other) const;
    bool operator!=(const SpillPolicy& other) const {
        return !(*this == other);
    }
    /// Throws Error for values out of range (max_lists >= 1, m >= max_lists, 0 <= fraction <= 1, ...).
    void check() const;
};

/// The candidates of one member (a run's mean, or a vector), best responsibility first.
struct SpillCandidates {
    size_t m = 0;
    const int32_t* component = nullptr;        ///< [m], -1 ends the row early
    const float* log_responsibility = nullptr; ///< [m]
    const float* squared_distance = nullptr;   ///< [m], member to mean
};

/// Which lists a member belongs to: home first, then further ones by the policy's order, each once,
/// at most max_lists. `home` is the list that holds the code; it need not be candidate 0, nor a
/// candidate at all. home_squared_distance is |x - mu_home|^2. lists is cleared first.
void choose_lists(
        const SpillPolicy& policy,
        const GaussianMixture& mixture,
        int32_t home,
        float home_squared_distance,
        const SpillCandidates& candidates,
        std::vector<int32_t>& lists);

/// Sets policy.log_border_threshold so that the share policy.fraction of the members spills:
/// border_log_responsibility [n] is each member's largest log-responsibility outside its home.
void calibrate(SpillPolicy& policy, std::vector<float> border_log_responsibility);

} // namespace faiss_gmm
