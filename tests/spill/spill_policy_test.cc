// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "faiss_gmm/mixture/error.h"
#include "tests/spill/random_member.h"

namespace faiss_gmm {
namespace {

using testing::Member;
using testing::test_seed;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

TEST(SpillPolicy, EqualInEveryField) {
    const std::vector<std::function<void(SpillPolicy&)>> changes = {
            [](SpillPolicy& p) { p.order = SpillOrder::air; },
            [](SpillPolicy& p) { p.lambda = 1; },
            [](SpillPolicy& p) { p.rule = SpillRule::never; },
            [](SpillPolicy& p) { p.tau = 0.5f; },
            [](SpillPolicy& p) { p.fraction = 0.25f; },
            [](SpillPolicy& p) { p.max_lists = 3; },
            [](SpillPolicy& p) { p.m = 17; },
            [](SpillPolicy& p) { p.storage = SpillStorage::copies; },
            [](SpillPolicy& p) { p.log_border_threshold = -1; },
    };
    EXPECT_TRUE(SpillPolicy() == SpillPolicy());
    EXPECT_FALSE(SpillPolicy() != SpillPolicy());
    for (const auto& change : changes) {
        SpillPolicy changed;
        change(changed);
        EXPECT_TRUE(changed != SpillPolicy());
        EXPECT_TRUE(SpillPolicy() != changed);
        EXPECT_TRUE(changed == SpillPolicy(changed));
        EXPECT_NO_THROW(changed.check());
    }
}

TEST(SpillPolicy, CheckNamesWhatIsWrong) {
    struct Wrong {
        const char* named;
        std::function<void(SpillPolicy&)> change;
    };
    const std::vector<Wrong> wrongs = {
            {"order number 7", [](SpillPolicy& p) { p.order = static_cast<SpillOrder>(7); }},
            {"order number -1", [](SpillPolicy& p) { p.order = static_cast<SpillOrder>(-1); }},
            {"rule number 4", [](SpillPolicy& p) { p.rule = static_cast<SpillRule>(4); }},
            {"storage number 2", [](SpillPolicy& p) { p.storage = static_cast<SpillStorage>(2); }},
            {"lambda = -1", [](SpillPolicy& p) { p.lambda = -1; }},
            {"lambda = inf", [](SpillPolicy& p) { p.lambda = infinity; }},
            {"lambda = nan", [](SpillPolicy& p) { p.lambda = not_a_number; }},
            {"tau = 1.5", [](SpillPolicy& p) { p.tau = 1.5f; }},
            {"tau = -0.5", [](SpillPolicy& p) { p.tau = -0.5f; }},
            {"tau = nan", [](SpillPolicy& p) { p.tau = not_a_number; }},
            {"fraction = 2", [](SpillPolicy& p) { p.fraction = 2; }},
            {"fraction = -1", [](SpillPolicy& p) { p.fraction = -1; }},
            {"fraction = nan", [](SpillPolicy& p) { p.fraction = not_a_number; }},
            {"max_lists = 0", [](SpillPolicy& p) { p.max_lists = 0; }},
            {"m = 1, max_lists = 2", [](SpillPolicy& p) { p.m = 1; }},
            {"log_border_threshold = NaN",
             [](SpillPolicy& p) { p.log_border_threshold = not_a_number; }},
    };
    for (const Wrong& wrong : wrongs) {
        SpillPolicy policy;
        wrong.change(policy);
        try {
            policy.check();
            ADD_FAILURE() << wrong.named << " passed";
        } catch (const Error& error) {
            const std::string message = error.what();
            EXPECT_NE(message.find(wrong.named), std::string::npos) << message;
            EXPECT_NE(message.find("allowed: "), std::string::npos) << message;
        }
    }
}

SpillPolicy calibrated(float fraction, const std::vector<float>& border) {
    SpillPolicy policy;
    policy.rule = SpillRule::fraction;
    policy.fraction = fraction;
    calibrate(policy, border);
    return policy;
}

size_t count_above(const std::vector<float>& values, float bound) {
    return static_cast<size_t>(
            std::count_if(values.begin(), values.end(), [&](float v) { return v > bound; }));
}

/// fraction * n rounded, less the members tied with the first that no longer fits.
size_t share_without_ties(std::vector<float> border, float fraction) {
    std::sort(border.begin(), border.end(), std::greater<float>());
    const size_t share = static_cast<size_t>(std::lround(fraction * border.size()));
    size_t untied = share;
    while (share < border.size() && untied > 0 && border[untied - 1] == border[share]) {
        untied--;
    }
    EXPECT_LE(share - untied, 2u) << "random members are hardly ever tied";
    return untied;
}

TEST(Calibrate, SpillsTheShareOfRealMembers) {
    std::mt19937_64 random(test_seed());
    const size_t n = 1000;
    const GaussianMixture mixture = testing::random_mixture(random, 12, 4, 0.3);
    std::normal_distribution<float> normal;
    std::vector<Member> members(n);
    std::vector<float> border;
    for (Member& member : members) {
        member.mixture = mixture;
        member.x.resize(mixture.d);
        std::generate(member.x.begin(), member.x.end(), [&] { return normal(random); });
        fill_row(member, 16);
        member.home = member.component[0];
        fill_row(member, 16);
        border.push_back(border_log_responsibility(member.home, member.row()));
        ASSERT_EQ(border.back(), member.log_responsibility[1]);
    }
    std::vector<bool> spilled_before(n, false);
    for (float fraction : {0.0f, 0.001f, 0.1f, 0.333f, 0.5f, 0.7f, 0.999f, 1.0f}) {
        const SpillPolicy policy = calibrated(fraction, border);
        size_t spilled = 0;
        for (size_t i = 0; i < n; i++) {
            const bool spills = members[i].choose(policy).size() == policy.max_lists;
            ASSERT_EQ(spills, members[i].choose(policy).size() > 1);
            ASSERT_TRUE(spills || !spilled_before[i]) << "a larger share dropped a member";
            spilled_before[i] = spills;
            spilled += spills;
        }
        EXPECT_EQ(spilled, share_without_ties(border, fraction)) << fraction;
    }
}

TEST(Calibrate, RoundsTheCountToTheNearest) {
    const std::vector<float> border = {-3, -1, -10, -2, -5, -4, -9, -8, -7, -6};
    EXPECT_EQ(count_above(border, calibrated(0.7f, border).log_border_threshold), 7u);
    EXPECT_EQ(count_above(border, calibrated(0.04f, border).log_border_threshold), 0u);
    EXPECT_EQ(count_above(border, calibrated(0.06f, border).log_border_threshold), 1u);
    EXPECT_EQ(calibrated(0.7f, border).log_border_threshold, -8);
}

TEST(Calibrate, TiesAtTheBorderStayHome) {
    const std::vector<float> border = {-1, -2, -2, -2, -2, -3};
    EXPECT_EQ(count_above(border, calibrated(0.5f, border).log_border_threshold), 1u);
    EXPECT_EQ(count_above(border, calibrated(5.0f / 6, border).log_border_threshold), 5u);
    const std::vector<float> equal(100, -0.5f);
    EXPECT_EQ(count_above(equal, calibrated(0.99f, equal).log_border_threshold), 0u);
    EXPECT_EQ(count_above(equal, calibrated(1, equal).log_border_threshold), 100u);
}

TEST(Calibrate, NoneAndAllHoldForUnseenMembers) {
    EXPECT_EQ(calibrated(0, {-1, -2}).log_border_threshold, infinity);
    EXPECT_EQ(calibrated(1, {-1, -2}).log_border_threshold, -infinity);
}

TEST(Calibrate, MembersWithoutABorderNeverSpill) {
    const std::vector<float> border = {-infinity, -infinity, -infinity, -1};
    EXPECT_EQ(count_above(border, calibrated(0.75f, border).log_border_threshold), 1u);
    EXPECT_EQ(count_above(border, calibrated(1, border).log_border_threshold), 1u);
}

TEST(Calibrate, RefusesWhatItCannotRank) {
    EXPECT_THROW(calibrated(0.5f, {}), Error);
    EXPECT_THROW(calibrated(0.5f, {-1, not_a_number}), Error);
    EXPECT_THROW(calibrated(2, {-1, -2}), Error);
}

} // namespace
} // namespace faiss_gmm
