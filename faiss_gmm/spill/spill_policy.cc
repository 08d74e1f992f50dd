// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/spill/spill_policy.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

namespace {

void require(
        bool holds, const std::string& given, const std::string& allowed, const std::string& next) {
    if (!holds) {
        throw Error({"checking a spill policy", given, allowed, next});
    }
}

/// False for NaN.
bool in_unit_interval(float value) {
    return value >= 0 && value <= 1;
}

/// True for enumerators first .. last; a file may hold any number.
template <typename Enum> bool exists(Enum value, Enum last) {
    return static_cast<int>(value) >= 0 && static_cast<int>(value) <= static_cast<int>(last);
}

} // namespace

bool SpillPolicy::operator==(const SpillPolicy& other) const {
    return order == other.order && lambda == other.lambda && rule == other.rule &&
           tau == other.tau && fraction == other.fraction && max_lists == other.max_lists &&
           m == other.m && storage == other.storage &&
           log_border_threshold == other.log_border_threshold;
}

void SpillPolicy::check() const {
    require(exists(order, SpillOrder::soar),
            fmt::format("order number {}", static_cast<int>(order)),
            std::string(spill_order_words),
            "name one of these orders");
    require(exists(rule, SpillRule::fraction),
            fmt::format("rule number {}", static_cast<int>(rule)),
            std::string(spill_rule_words),
            "name one of these rules");
    require(exists(storage, SpillStorage::copies),
            fmt::format("storage number {}", static_cast<int>(storage)),
            std::string(spill_storage_words),
            "name one of these storages");
    require(std::isfinite(lambda) && lambda >= 0,
            fmt::format("lambda = {}", lambda),
            "a finite lambda >= 0",
            "use 0.5, or 0 for nearest first");
    require(in_unit_interval(tau),
            fmt::format("tau = {}", tau),
            "0 <= tau <= 1",
            "use 0 for 1 / K");
    require(in_unit_interval(fraction),
            fmt::format("fraction = {}", fraction),
            "0 <= fraction <= 1",
            "give the share of members that spill");
    require(max_lists >= 1,
            "max_lists = 0",
            "max_lists >= 1, home included",
            "use 1 for no spill, 2 for one further list");
    require(m >= max_lists,
            fmt::format("m = {}, max_lists = {}", m, max_lists),
            "m >= max_lists",
            "look at more candidates or ask for fewer lists");
    require(!std::isnan(log_border_threshold),
            "log_border_threshold = NaN",
            "a log-responsibility, -inf or +inf",
            "call calibrate()");
}

SpillCandidates candidates_of(const TopResponsibilities& top, size_t m, size_t i) {
    return {m,
            top.component.data() + i * m,
            top.log_responsibility.data() + i * m,
            top.squared_distance.data() + i * m};
}

void calibrate(SpillPolicy& policy, std::vector<float> border_log_responsibility) {
    policy.check();
    std::vector<float>& border = border_log_responsibility;
    const size_t n = border.size();
    const size_t not_numbers = static_cast<size_t>(
            std::count_if(border.begin(), border.end(), [](float b) { return std::isnan(b); }));
    if (n == 0 || not_numbers > 0) {
        throw Error(
                {"calibrating the share of members that spill",
                 fmt::format("n = {} members, {} of them NaN", n, not_numbers),
                 "n >= 1 log-responsibilities, -inf included",
                 "calibrate on the training sample with a mixture that passes check()"});
    }

    constexpr float infinity = std::numeric_limits<float>::infinity();
    if (policy.fraction == 0) {
        policy.log_border_threshold = infinity;
        return;
    }
    const double share = static_cast<double>(policy.fraction) * static_cast<double>(n);
    const size_t spilling = static_cast<size_t>(std::llround(share));
    if (spilling >= n) {
        policy.log_border_threshold = -infinity;
        return;
    }
    // The largest border that stays home: exceeding it is what spills.
    const auto first_at_home = border.begin() + static_cast<std::ptrdiff_t>(spilling);
    std::nth_element(border.begin(), first_at_home, border.end(), std::greater<float>());
    policy.log_border_threshold = *first_at_home;
}

} // namespace faiss_gmm
