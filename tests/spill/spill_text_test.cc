// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "faiss_gmm/spill/spill_policy.h"

namespace faiss_gmm {
namespace {

TEST(SpillText, OrdersAndStoragesReadBack) {
    for (SpillOrder order : {SpillOrder::responsibility, SpillOrder::air, SpillOrder::soar}) {
        EXPECT_EQ(parse_spill_order(to_string(order)), order);
        EXPECT_NE(spill_order_words.find(to_string(order)), std::string_view::npos);
    }
    for (SpillStorage storage : {SpillStorage::shared, SpillStorage::copies}) {
        EXPECT_EQ(parse_spill_storage(to_string(storage)), storage);
        EXPECT_NE(spill_storage_words.find(to_string(storage)), std::string_view::npos);
    }
    EXPECT_EQ(to_string(SpillOrder::soar), "soar");
    for (const char* wrong : {"", "Air", "air ", "soa", "soars", "unknown"}) {
        EXPECT_FALSE(parse_spill_order(wrong)) << wrong;
        EXPECT_FALSE(parse_spill_storage(wrong)) << wrong;
    }
}

TEST(SpillText, RulesAreRead) {
    SpillPolicy policy;
    ASSERT_TRUE(parse_spill_rule("never", policy));
    EXPECT_EQ(policy.rule, SpillRule::never);
    ASSERT_TRUE(parse_spill_rule("threshold(0.001)", policy));
    EXPECT_EQ(policy.rule, SpillRule::threshold);
    EXPECT_EQ(policy.tau, 0.001f);
    ASSERT_TRUE(parse_spill_rule("threshold(1/K)", policy));
    EXPECT_EQ(policy.tau, 0);
    ASSERT_TRUE(parse_spill_rule("threshold(1e-30)", policy));
    EXPECT_EQ(policy.tau, 1e-30f);
    ASSERT_TRUE(parse_spill_rule("always", policy));
    EXPECT_EQ(policy.rule, SpillRule::always);
    policy.log_border_threshold = -1;
    ASSERT_TRUE(parse_spill_rule("fraction(0.25)", policy));
    EXPECT_EQ(policy.rule, SpillRule::fraction);
    EXPECT_EQ(policy.fraction, 0.25f);
    EXPECT_EQ(policy.log_border_threshold, SpillPolicy().log_border_threshold);
    EXPECT_TRUE(parse_spill_rule("fraction(0)", policy));
    EXPECT_TRUE(parse_spill_rule("fraction(1)", policy));
}

TEST(SpillText, WrongRulesLeaveThePolicy) {
    SpillPolicy before;
    before.rule = SpillRule::fraction;
    before.tau = 0.5f;
    before.log_border_threshold = -2;
    for (const char* wrong :
         {"",
          "Never",
          "never()",
          "always(2)",
          "threshold",
          "threshold(",
          "threshold)",
          "threshold()",
          "threshold(0)",
          "threshold(1.5)",
          "threshold(-0.1)",
          "threshold(nan)",
          "threshold(inf)",
          "threshold(0.1",
          "threshold(0.1))",
          "threshold(0.1 )",
          "threshold(0,1)",
          "threshold(1/k)",
          "threshold(1e-99)",
          "fraction(1/K)",
          "fraction(nan)",
          "fraction(1.01)",
          "fraction[0.5]",
          "fractions(0.5)"}) {
        SpillPolicy policy = before;
        EXPECT_FALSE(parse_spill_rule(wrong, policy)) << wrong;
        EXPECT_EQ(policy, before) << wrong;
    }
}

TEST(SpillText, PolicyIsWrittenAsKeys) {
    SpillPolicy policy;
    EXPECT_EQ(
            to_string(policy),
            "order=responsibility,lambda=0.5,spill=fraction(0.05),max_lists=2,m=16,storage=shared");
    policy.order = SpillOrder::air;
    policy.lambda = 0.75f;
    policy.rule = SpillRule::threshold;
    policy.max_lists = 4;
    policy.m = 32;
    policy.storage = SpillStorage::copies;
    EXPECT_EQ(
            to_string(policy),
            "order=air,lambda=0.75,spill=threshold(1/K),max_lists=4,m=32,storage=copies");
}

std::string rule_of(const SpillPolicy& policy) {
    const std::string text = to_string(policy);
    const size_t start = text.find("spill=") + 6;
    return text.substr(start, text.find(',', start) - start);
}

TEST(SpillText, RulesReadBackToTheSameFloat) {
    for (float value : {1.0f, 0.1f, 1.0f / 3, std::nextafter(0.5f, 0.0f), 1e-30f}) {
        SpillPolicy threshold;
        threshold.rule = SpillRule::threshold;
        threshold.tau = value;
        SpillPolicy fraction;
        fraction.rule = SpillRule::fraction;
        fraction.fraction = value;
        for (const SpillPolicy& policy : {threshold, fraction}) {
            SpillPolicy read;
            ASSERT_TRUE(parse_spill_rule(rule_of(policy), read)) << rule_of(policy);
            EXPECT_EQ(read, policy) << rule_of(policy);
        }
    }
}

} // namespace
} // namespace faiss_gmm
