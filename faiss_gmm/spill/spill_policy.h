// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm {

/// In which order further lists are considered, home first in every case.
/// x the member, c its home mean, s a candidate's mean; r = x - c, r' = x - s.
enum class SpillOrder {
    responsibility, ///< by responsibility, largest first (Flash-GMM)
    air,            ///< least |r'|^2 + lambda r.r' (RAIRS, arXiv 2601.07183)
    soar,           ///< least |r'|^2 + lambda (r.r' / |r|)^2 (SOAR, arXiv 2404.00774)
};

/// Which candidates qualify as further lists. A list of responsibility zero (log -inf) never does.
enum class SpillRule {
    never,     ///< home alone
    threshold, ///< every list with responsibility > tau
    always,    ///< every candidate
    fraction,  ///< every candidate of the share f of members with the largest border responsibility
};

/// What is placed: runs, with codes stored once, or vectors, with a code in every list (copies: ids must differ, for
/// entries of one id are taken for one vector).
enum class SpillStorage { shared, copies };

/// The whole policy, a value. What each knob buys and costs stands beside it.
struct SpillPolicy {
    /// Which neighbours are preferred; air and soar favour lists on the far side of the home's
    /// residual and cost d operations a candidate, responsibility costs none.
    SpillOrder order = SpillOrder::responsibility;
    /// Weight of the angle in air and soar, >= 0: more spreads lists around x, 0 is nearest first.
    float lambda = 0.5f;
    /// Which candidates qualify: more memberships buy recall at equal probes for memory and, where
    /// probing a list is cheap, for queries per second: what shares cost is measured in
    /// bench/results/spill-default.md.
    SpillRule rule = SpillRule::fraction;
    /// Rule threshold: responsibility to exceed, in [0, 1]; 0 means 1 / K, the paper's. Lower
    /// spills more.
    float tau = 0;
    /// Rule fraction: share of members that spill, in [0, 1]; bounds the memory at
    /// 1 + fraction * (max_lists - 1) memberships a member.
    float fraction = 0.05f;
    /// Lists a member belongs to, home included, >= 1: recall at equal probes against memory.
    size_t max_lists = 2;
    /// Candidates looked at a member, >= max_lists: choice for air and soar against time in add.
    size_t m = 16;
    /// shared costs a reference a membership, copies a code; see SpillStorage.
    SpillStorage storage = SpillStorage::shared;
    /// Rule fraction: log responsibility that a member's border must exceed. Set by calibrate();
    /// +inf until then, and nobody spills.
    float log_border_threshold = std::numeric_limits<float>::infinity();

    /// Equal in every field, the calibrated threshold included.
    bool operator==(const SpillPolicy& other) const;
    bool operator!=(const SpillPolicy& other) const {
        return !(*this == other);
    }
    /// Throws Error for values out of the ranges above, NaN, and enumerators that do not exist.
    void check() const;
};

/// The candidates of one member (a run's mean, or a vector), best responsibility first.
struct SpillCandidates {
    size_t m = 0;
    const int32_t* component = nullptr;        ///< [m], in [0, K); -1 ends the row early
    const float* log_responsibility = nullptr; ///< [m], natural log
    const float* squared_distance = nullptr;   ///< [m], member to mean; read by air and soar only
};

/// Row i of what an engine found, m components a row; valid while `top` is unchanged.
SpillCandidates candidates_of(const TopResponsibilities& top, size_t m, size_t i);

/// Which lists a member belongs to: home first, then the qualifying candidates by the policy's
/// order, each once, at most policy.max_lists. `home` is the list that holds the code; it need not
/// be candidate 0, nor a candidate at all. home_squared_distance is |x - mu_home|^2 (air, soar).
/// lists is cleared first. With a larger max_lists the result only gets longer at its end.
///
/// The caller promises a policy that passes check(), and home and components in [0, K): neither is
/// looked at again here. Candidates whose numbers are not finite are passed over. Throws nothing
/// of its own; allocates only while lists and a thread's scratch grow.
void choose_lists(
        const SpillPolicy& policy,
        const GaussianMixture& mixture,
        int32_t home,
        float home_squared_distance,
        const SpillCandidates& candidates,
        std::vector<int32_t>& lists);

/// The member's largest log-responsibility outside its home, -inf if there is no such candidate:
/// what rule fraction compares and calibrate() takes.
float border_log_responsibility(int32_t home, const SpillCandidates& candidates);

/// Sets policy.log_border_threshold so that the share policy.fraction of the members spills:
/// border_log_responsibility [n] is each member's largest log-responsibility outside its home.
/// The count is fraction * n rounded to the nearest; members tied with the first that no longer
/// fits stay home, so it is never exceeded. fraction 0 and 1 hold for unseen members too.
/// Throws Error for a policy that fails check(), for n = 0 and for NaN.
void calibrate(SpillPolicy& policy, std::vector<float> border_log_responsibility);

/// What the parsers below accept, for messages.
inline constexpr std::string_view spill_order_words = "responsibility, air, soar";
inline constexpr std::string_view spill_rule_words =
        "never, always, threshold(TAU) with 0 < TAU <= 1, threshold(1/K), "
        "fraction(F) with 0 <= F <= 1";
inline constexpr std::string_view spill_storage_words = "shared, copies";

/// The enumerator of that very name (no blanks, lower case), or nothing.
std::optional<SpillOrder> parse_spill_order(std::string_view text);
std::optional<SpillStorage> parse_spill_storage(std::string_view text);

/// Reads spill_rule_words into rule, tau and fraction; a new rule is not calibrated. False, and
/// policy as it was, for anything else. threshold(0) is refused: tau = 0 would mean 1 / K.
bool parse_spill_rule(std::string_view text, SpillPolicy& policy);

/// The name of an enumerator, as the parsers accept it.
std::string_view to_string(SpillOrder order);
std::string_view to_string(SpillStorage storage);

/// The settings as a factory string's keys, which parse back to the same values, e.g.
/// "order=air,lambda=0.5,spill=threshold(1/K),max_lists=2,m=16,storage=shared".
/// Of tau and fraction only what the rule uses is written; the calibrated threshold is not.
std::string to_string(const SpillPolicy& policy);

} // namespace faiss_gmm
