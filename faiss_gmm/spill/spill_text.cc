// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A spill policy's words, both ways. Numbers are read and written without regard to the locale;
// what is written is the shortest text that reads back to the same float.
#include "faiss_gmm/spill/spill_policy.h"

#include <charconv>

#include <fmt/format.h>

namespace faiss_gmm {

namespace {

/// "name(inside)" -> inside.
std::optional<std::string_view> argument_of(std::string_view name, std::string_view text) {
    const size_t brackets = 2;
    if (text.size() < name.size() + brackets || text.substr(0, name.size()) != name ||
        text[name.size()] != '(' || text.back() != ')') {
        return std::nullopt;
    }
    return text.substr(name.size() + 1, text.size() - name.size() - brackets);
}

/// A number in [0, 1] that fills the whole text.
std::optional<float> parse_share(std::string_view text) {
    float value = 0;
    const char* end = text.data() + text.size();
    const std::from_chars_result read = std::from_chars(text.data(), end, value);
    const bool whole = read.ec == std::errc() && read.ptr == end;
    if (!whole || !(value >= 0 && value <= 1)) {
        return std::nullopt;
    }
    return value;
}

/// TAU of threshold(TAU), 0 standing for 1/K.
std::optional<float> parse_tau(std::string_view text) {
    if (text == "1/K") {
        return 0.0f;
    }
    const std::optional<float> tau = parse_share(text);
    return tau && *tau > 0 ? tau : std::nullopt;
}

void set_rule(SpillPolicy& policy, SpillRule rule) {
    policy.rule = rule;
    policy.log_border_threshold = SpillPolicy().log_border_threshold;
}

std::string rule_text(const SpillPolicy& policy) {
    switch (policy.rule) {
    case SpillRule::never:
        return "never";
    case SpillRule::threshold:
        return policy.tau == 0 ? "threshold(1/K)" : fmt::format("threshold({})", policy.tau);
    case SpillRule::always:
        return "always";
    case SpillRule::fraction:
        return fmt::format("fraction({})", policy.fraction);
    }
    return "unknown";
}

} // namespace

std::string_view to_string(SpillOrder order) {
    switch (order) {
    case SpillOrder::responsibility:
        return "responsibility";
    case SpillOrder::air:
        return "air";
    case SpillOrder::soar:
        return "soar";
    }
    return "unknown";
}

std::string_view to_string(SpillStorage storage) {
    switch (storage) {
    case SpillStorage::shared:
        return "shared";
    case SpillStorage::copies:
        return "copies";
    }
    return "unknown";
}

std::optional<SpillOrder> parse_spill_order(std::string_view text) {
    for (SpillOrder order : {SpillOrder::responsibility, SpillOrder::air, SpillOrder::soar}) {
        if (text == to_string(order)) {
            return order;
        }
    }
    return std::nullopt;
}

std::optional<SpillStorage> parse_spill_storage(std::string_view text) {
    for (SpillStorage storage : {SpillStorage::shared, SpillStorage::copies}) {
        if (text == to_string(storage)) {
            return storage;
        }
    }
    return std::nullopt;
}

bool parse_spill_rule(std::string_view text, SpillPolicy& policy) {
    if (text == "never") {
        set_rule(policy, SpillRule::never);
        return true;
    }
    if (text == "always") {
        set_rule(policy, SpillRule::always);
        return true;
    }
    if (const auto inside = argument_of("threshold", text)) {
        if (const std::optional<float> tau = parse_tau(*inside)) {
            set_rule(policy, SpillRule::threshold);
            policy.tau = *tau;
            return true;
        }
    }
    if (const auto inside = argument_of("fraction", text)) {
        if (const std::optional<float> fraction = parse_share(*inside)) {
            set_rule(policy, SpillRule::fraction);
            policy.fraction = *fraction;
            return true;
        }
    }
    return false;
}

std::string to_string(const SpillPolicy& policy) {
    return fmt::format(
            "order={},lambda={},spill={},max_lists={},m={},storage={}",
            to_string(policy.order),
            policy.lambda,
            rule_text(policy),
            policy.max_lists,
            policy.m,
            to_string(policy.storage));
}

} // namespace faiss_gmm
