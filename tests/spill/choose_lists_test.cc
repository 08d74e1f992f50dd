// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "tests/spill/random_member.h"

namespace faiss_gmm {
namespace {

using testing::Member;
using testing::random_member;
using testing::test_seed;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr SpillOrder all_orders[] = {SpillOrder::responsibility, SpillOrder::air, SpillOrder::soar};
constexpr SpillRule all_rules[] = {
        SpillRule::never, SpillRule::threshold, SpillRule::always, SpillRule::fraction};

SpillPolicy policy_of(SpillOrder order, SpillRule rule, size_t max_lists) {
    SpillPolicy policy;
    policy.order = order;
    policy.rule = rule;
    policy.max_lists = max_lists;
    policy.m = std::max<size_t>(policy.m, max_lists);
    return policy;
}

/// The published costs, from the vectors.
double reference_cost(const Member& member, SpillOrder order, double lambda, int32_t s) {
    const double Ds = member.residual_product(s, s);
    const double dot = member.residual_product(member.home, s);
    const double D0 = member.residual_product(member.home, member.home);
    switch (order) {
    case SpillOrder::responsibility:
        return Ds / (2 * member.mixture.covariances[0]); // equal weights, one variance
    case SpillOrder::air:
        return Ds + lambda * dot;
    case SpillOrder::soar:
        return Ds + lambda * dot * dot / D0;
    }
    return 0;
}

/// What fp32 distances may add to a cost: 1e-6 relative in each, carried through its formula.
double cost_tolerance(const Member& member, SpillOrder order, double lambda, int32_t s) {
    const double Ds = member.residual_product(s, s);
    const double D0 = member.residual_product(member.home, member.home);
    if (order == SpillOrder::responsibility) {
        return 1e-6 * (1 + Ds / (2 * member.mixture.covariances[0]));
    }
    const double slope = order == SpillOrder::air ? 1 : 1 + 2 * std::sqrt(Ds / D0);
    return 1e-6 * (Ds + lambda * slope * (D0 + Ds));
}

TEST(ChooseLists, OrdersAgreeWithTheVectors) {
    std::mt19937_64 random(test_seed());
    size_t longer_than_two = 0;
    for (int trial = 0; trial < 3000; trial++) {
        SCOPED_TRACE(trial);
        const Member member = random_member(random);
        for (SpillOrder order : all_orders) {
            SpillPolicy policy = policy_of(order, SpillRule::always, 16);
            policy.lambda = std::uniform_real_distribution<float>(0, 2)(random);
            const std::vector<int32_t> lists = member.choose(policy);

            std::set<int32_t> expected = {member.home};
            for (int32_t k : member.component) {
                if (k >= 0 && expected.size() < policy.max_lists) {
                    expected.insert(k);
                }
            }
            // A row of 16 without the home offers 16 lists for 15 places.
            ASSERT_EQ(lists.size(), expected.size());
            for (size_t j = 2; j < lists.size(); j++) {
                const double before = reference_cost(member, order, policy.lambda, lists[j - 1]);
                const double after = reference_cost(member, order, policy.lambda, lists[j]);
                const double slack = cost_tolerance(member, order, policy.lambda, lists[j - 1]) +
                                     cost_tolerance(member, order, policy.lambda, lists[j]);
                ASSERT_LE(before, after + slack) << to_string(policy) << " place " << j;
            }
            // Whatever was left out costs no less than what was taken.
            for (int32_t k : member.component) {
                if (k >= 0 && std::find(lists.begin(), lists.end(), k) == lists.end()) {
                    const int32_t last = lists.back();
                    ASSERT_LE(
                            reference_cost(member, order, policy.lambda, last),
                            reference_cost(member, order, policy.lambda, k) +
                                    cost_tolerance(member, order, policy.lambda, last) +
                                    cost_tolerance(member, order, policy.lambda, k));
                }
            }
            longer_than_two += lists.size() > 2;
        }
    }
    EXPECT_GT(longer_than_two, 6000u) << "too few orders were put to the test";
}

/// x = (1, 0), home (0, 0), lambda 1/2. Behind: r' = (.98, 0). Beyond: r' = (-1, 0). Beside:
/// r' = (0, -1.05). Costs: distance .9604, 1, 1.1025; air 1.4504, .5, 1.1025;
/// soar 1.4406, 1.5, 1.1025.
Member member_with_three_neighbours() {
    Member member;
    member.mixture.d = 2;
    member.mixture.K = 4;
    member.mixture.means = {0, 0, 0.02f, 0, 2, 0, 1, 1.05f};
    member.mixture.log_weights.assign(4, std::log(0.25));
    member.mixture.covariances = {1};
    member.x = {1, 0};
    member.home = 0;
    fill_row(member, 16);
    return member;
}

TEST(ChooseLists, OrdersPreferWhatTheirPapersSay) {
    const Member member = member_with_three_neighbours();
    const int32_t home = 0, behind = 1, beyond = 2, beside = 3;
    using Lists = std::vector<int32_t>;
    EXPECT_EQ(
            member.choose(policy_of(SpillOrder::responsibility, SpillRule::always, 4)),
            (Lists{home, behind, beyond, beside}));
    EXPECT_EQ(
            member.choose(policy_of(SpillOrder::air, SpillRule::always, 4)),
            (Lists{home, beyond, beside, behind}));
    EXPECT_EQ(
            member.choose(policy_of(SpillOrder::soar, SpillRule::always, 4)),
            (Lists{home, beside, behind, beyond}));
}

TEST(ChooseLists, HomeFirstOnceAtMostInEveryCombination) {
    std::mt19937_64 random(test_seed());
    size_t spilled[4] = {};
    for (int trial = 0; trial < 400; trial++) {
        SCOPED_TRACE(trial);
        const Member member = random_member(random);
        for (SpillOrder order : all_orders) {
            for (SpillRule rule : all_rules) {
                for (size_t max_lists : {1, 2, 3, 8, 16}) {
                    SpillPolicy policy = policy_of(order, rule, max_lists);
                    policy.log_border_threshold = -1;
                    ASSERT_NO_THROW(policy.check());
                    const std::vector<int32_t> lists = member.choose(policy);
                    ASSERT_EQ(lists.front(), member.home);
                    ASSERT_LE(lists.size(), max_lists);
                    const std::set<int32_t> different(lists.begin(), lists.end());
                    ASSERT_EQ(different.size(), lists.size());
                    ASSERT_GE(*different.begin(), 0);
                    ASSERT_LT(*different.rbegin(), static_cast<int32_t>(member.mixture.K));
                    spilled[static_cast<int>(rule)] += lists.size() > 1;
                }
            }
        }
    }
    EXPECT_EQ(spilled[static_cast<int>(SpillRule::never)], 0u);
    EXPECT_GT(spilled[static_cast<int>(SpillRule::threshold)], 500u);
    EXPECT_GT(spilled[static_cast<int>(SpillRule::fraction)], 500u);
    EXPECT_GT(
            spilled[static_cast<int>(SpillRule::always)],
            spilled[static_cast<int>(SpillRule::threshold)]);
}

TEST(ChooseLists, ThresholdTakesExactlyWhatExceedsTau) {
    std::mt19937_64 random(test_seed());
    for (int trial = 0; trial < 1000; trial++) {
        SCOPED_TRACE(trial);
        const Member member = random_member(random, 24);
        for (float tau : {0.0f, 1e-30f, 0.001f, 0.3f}) {
            const double exceed = tau == 0 ? 1.0 / double(member.mixture.K) : double(tau);
            std::set<int32_t> expected = {member.home};
            bool at_the_border = false;
            for (size_t j = 0; j < 24 && member.component[j] >= 0; j++) {
                const double log_r = member.log_responsibility[j];
                at_the_border |= std::abs(log_r - std::log(exceed)) < 1e-5;
                if (log_r > std::log(exceed)) {
                    expected.insert(member.component[j]);
                }
            }
            if (at_the_border) {
                continue; // the next test's subject
            }
            for (SpillOrder order : all_orders) {
                SpillPolicy policy = policy_of(order, SpillRule::threshold, 25);
                policy.tau = tau;
                const std::vector<int32_t> lists = member.choose(policy);
                ASSERT_EQ(std::set<int32_t>(lists.begin(), lists.end()), expected);
            }
        }
    }
}

/// A row of one candidate, list 1, beside home 0, in a mixture of K components on a line.
Member member_with_one_candidate(size_t K, float log_responsibility) {
    Member member;
    member.mixture.d = 1;
    member.mixture.K = K;
    for (size_t k = 0; k < K; k++) {
        member.mixture.means.push_back(static_cast<float>(k));
    }
    member.x = {0.25f};
    member.home_squared_distance = 0.0625f;
    member.component = {0, 1};
    member.log_responsibility = {-0.5f, log_responsibility};
    member.squared_distance = {0.0625f, 0.5625f};
    return member;
}

TEST(ChooseLists, ResponsibilityEqualToTauDoesNotExceedIt) {
    for (float tau : {1e-30f, 0.001f, 0.1f, 0.25f, 0.5f, 1.0f}) {
        SpillPolicy policy = policy_of(SpillOrder::responsibility, SpillRule::threshold, 2);
        policy.tau = tau;
        const float at = static_cast<float>(std::log(double(tau)));
        EXPECT_EQ(member_with_one_candidate(4, at).choose(policy).size(), 1u) << tau;
        const float above = std::nextafter(at, infinity);
        EXPECT_EQ(member_with_one_candidate(4, above).choose(policy).size(), 2u) << tau;
    }
    for (size_t K = 2; K < 300; K++) { // tau = 0 is 1 / K, whichever way the engine rounds
        const SpillPolicy policy = policy_of(SpillOrder::responsibility, SpillRule::threshold, 2);
        const float at = static_cast<float>(-std::log(double(K)));
        EXPECT_EQ(member_with_one_candidate(K, at).choose(policy).size(), 1u) << K;
        const float above = std::nextafter(at, infinity);
        EXPECT_EQ(member_with_one_candidate(K, above).choose(policy).size(), 2u) << K;
    }
}

TEST(ChooseLists, LogsDoNotUnderflow) {
    // exp(-5000) is 0 in double precision, yet a largest of the further lists exists.
    Member member = member_with_three_neighbours();
    member.component = {0, 1, 2, 3};
    member.log_responsibility = {0, -5000, -5000.5f, -6000};
    member.squared_distance.resize(4);
    EXPECT_EQ(
            member.choose(policy_of(SpillOrder::responsibility, SpillRule::always, 3)),
            (std::vector<int32_t>{0, 1, 2}));
    SpillPolicy policy = policy_of(SpillOrder::responsibility, SpillRule::fraction, 2);
    policy.log_border_threshold = -5000.25f;
    EXPECT_EQ(member.choose(policy).size(), 2u);
    policy.log_border_threshold = -5000;
    EXPECT_EQ(member.choose(policy).size(), 1u);
}

TEST(ChooseLists, FractionSpillsToEveryCandidateOrNone) {
    Member member = member_with_three_neighbours();
    SpillPolicy policy = policy_of(SpillOrder::air, SpillRule::fraction, 4);
    EXPECT_EQ(member.choose(policy).size(), 1u) << "not calibrated";
    const float border = border_log_responsibility(member.home, member.row());
    policy.log_border_threshold = std::nextafter(border, -infinity);
    EXPECT_EQ(
            member.choose(policy), member.choose(policy_of(SpillOrder::air, SpillRule::always, 4)));
    policy.log_border_threshold = border;
    EXPECT_EQ(member.choose(policy).size(), 1u);
}

TEST(ChooseLists, MoreListsOnlyLengthen) {
    std::mt19937_64 random(test_seed());
    size_t lengthened = 0;
    for (int trial = 0; trial < 500; trial++) {
        const Member member = random_member(random);
        for (SpillOrder order : all_orders) {
            for (SpillRule rule : all_rules) {
                SpillPolicy policy = policy_of(order, rule, 1);
                policy.log_border_threshold = -3;
                std::vector<int32_t> shorter = member.choose(policy);
                for (policy.max_lists = 2; policy.max_lists <= 16; policy.max_lists++) {
                    const std::vector<int32_t> longer = member.choose(policy);
                    ASSERT_GE(longer.size(), shorter.size());
                    ASSERT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
                    lengthened += longer.size() > shorter.size();
                    shorter = longer;
                }
            }
        }
    }
    EXPECT_GT(lengthened, 5000u);
}

TEST(ChooseLists, LowerTauNeverTakesFewer) {
    std::mt19937_64 random(test_seed());
    size_t grew = 0;
    for (int trial = 0; trial < 500; trial++) {
        const Member member = random_member(random);
        for (SpillOrder order : all_orders) {
            SpillPolicy policy = policy_of(order, SpillRule::threshold, 5);
            size_t before = 1;
            for (float tau : {1.0f, 0.5f, 0.1f, 0.01f, 1e-4f, 1e-20f}) {
                policy.tau = tau;
                const size_t now = member.choose(policy).size();
                ASSERT_GE(now, before);
                grew += now > before;
                before = now;
            }
        }
    }
    EXPECT_GT(grew, 500u);
}

TEST(ChooseLists, LooksAtNoMoreThanMCandidates) {
    const Member member = member_with_three_neighbours(); // beside is last in the row
    SpillPolicy policy = policy_of(SpillOrder::soar, SpillRule::always, 2);
    EXPECT_EQ(member.choose(policy)[1], 3);
    policy.m = 3;
    EXPECT_EQ(member.choose(policy)[1], 1) << "beside, the fourth candidate, was looked at";
}

TEST(ChooseLists, MemberOnItsHomeMeanGoesToTheNearest) {
    std::mt19937_64 random(test_seed());
    for (int trial = 0; trial < 500; trial++) {
        SCOPED_TRACE(trial);
        Member member = random_member(random);
        const float* home_mean = member.mean(member.home);
        member.x.assign(home_mean, home_mean + member.mixture.d);
        fill_row(member, 16);
        ASSERT_EQ(member.home_squared_distance, 0);
        // 0, and what rounding of an fp32 distance may leave instead of it.
        for (float left : {0.0f, -1e-20f, 1e-30f, std::numeric_limits<float>::denorm_min()}) {
            member.home_squared_distance = left;
            for (SpillOrder order : {SpillOrder::air, SpillOrder::soar}) {
                const std::vector<int32_t> lists =
                        member.choose(policy_of(order, SpillRule::always, 16));
                ASSERT_EQ(lists.size(), std::min<size_t>(16, member.mixture.K));
                for (size_t j = 2; j < lists.size(); j++) {
                    ASSERT_LE(
                            member.residual_product(lists[j - 1], lists[j - 1]),
                            member.residual_product(lists[j], lists[j]) * (1 + 1e-6));
                }
            }
        }
    }
}

TEST(ChooseLists, SoarCannotCostMoreThanAParallelResidual) {
    // Beside the home mean, at distance 1e-6: an error of 1e-5 in list 1's distance, as an
    // expanded |x|^2 - 2 x.s + |s|^2 leaves, makes (r.r')^2 / |r|^2 = 25 where |r'|^2 = 1 bounds
    // it.
    Member member = member_with_one_candidate(3, -1);
    member.home_squared_distance = 1e-12f;
    member.component = {1, 2};
    member.log_responsibility = {-1, -2};
    member.squared_distance = {1 + 1e-5f, 4};
    EXPECT_EQ(
            member.choose(policy_of(SpillOrder::soar, SpillRule::always, 3)),
            (std::vector<int32_t>{0, 1, 2}));
}

TEST(ChooseLists, OneComponent) {
    Member member = member_with_one_candidate(1, 0);
    member.component = {0, -1};
    for (SpillOrder order : all_orders) {
        for (SpillRule rule : all_rules) {
            SpillPolicy policy = policy_of(order, rule, 4);
            policy.log_border_threshold = -infinity;
            EXPECT_EQ(member.choose(policy), std::vector<int32_t>{0});
        }
    }
}

TEST(ChooseLists, NothingIsReadAfterMinusOneNorOfAnEmptyRow) {
    Member member = member_with_three_neighbours();
    ASSERT_EQ(member.component[4], -1);
    member.component[5] = 1 << 30; // a mean far out of bounds
    member.component[1] = -1;
    for (SpillOrder order : all_orders) {
        const SpillPolicy policy = policy_of(order, SpillRule::always, 8);
        EXPECT_EQ(member.choose(policy), (std::vector<int32_t>{0, 1}));
        std::vector<int32_t> empty_row;
        choose_lists(policy, member.mixture, 2, 1, SpillCandidates(), empty_row);
        EXPECT_EQ(empty_row, std::vector<int32_t>{2});
    }
}

TEST(ChooseLists, ResponsibilityOrderNeedsNoDistances) {
    const Member member = member_with_three_neighbours();
    SpillCandidates row = member.row();
    row.squared_distance = nullptr;
    std::vector<int32_t> lists;
    const SpillPolicy policy = policy_of(SpillOrder::responsibility, SpillRule::always, 4);
    choose_lists(policy, member.mixture, member.home, not_a_number, row, lists);
    EXPECT_EQ(lists, member.choose(policy));
}

TEST(ChooseLists, ResponsibilityZeroQualifiesNowhere) {
    Member member = member_with_three_neighbours();
    std::fill(member.log_responsibility.begin(), member.log_responsibility.end(), -infinity);
    for (SpillOrder order : all_orders) {
        for (SpillRule rule : all_rules) {
            SpillPolicy policy = policy_of(order, rule, 4);
            policy.log_border_threshold = -infinity;
            policy.tau = std::numeric_limits<float>::denorm_min();
            EXPECT_EQ(member.choose(policy), std::vector<int32_t>{0});
        }
    }
}

TEST(ChooseLists, CandidatesThatAreNotFiniteArePassedOver) {
    for (float broken : {not_a_number, infinity}) {
        for (SpillOrder order : {SpillOrder::air, SpillOrder::soar}) {
            Member member = member_with_three_neighbours();
            const auto beyond = std::find(member.component.begin(), member.component.end(), 2);
            member.squared_distance[size_t(beyond - member.component.begin())] = broken;
            std::vector<int32_t> lists = member.choose(policy_of(order, SpillRule::always, 4));
            std::sort(lists.begin(), lists.end());
            EXPECT_EQ(lists, (std::vector<int32_t>{0, 1, 3}));

            member.home_squared_distance = broken;
            EXPECT_EQ(member.choose(policy_of(order, SpillRule::always, 4)).size(), 1u);
        }
    }
    Member member = member_with_three_neighbours();
    const auto behind = std::find(member.component.begin(), member.component.end(), 1);
    member.log_responsibility[size_t(behind - member.component.begin())] = not_a_number;
    for (SpillOrder order : all_orders) {
        std::vector<int32_t> lists = member.choose(policy_of(order, SpillRule::always, 4));
        std::sort(lists.begin(), lists.end());
        EXPECT_EQ(lists, (std::vector<int32_t>{0, 2, 3}));
    }
    EXPECT_FALSE(std::isnan(border_log_responsibility(0, member.row())));
}

TEST(ChooseLists, DuplicatesOfMeansAndOfCandidates) {
    Member member = member_with_three_neighbours();
    member.mixture.means = {0, 0, 0, 0, 0, 0, 1, 1}; // three means in one place
    fill_row(member, 16);
    for (SpillOrder order : all_orders) {
        std::vector<int32_t> lists = member.choose(policy_of(order, SpillRule::always, 4));
        EXPECT_EQ(lists.front(), 0);
        std::sort(lists.begin(), lists.end());
        EXPECT_EQ(lists, (std::vector<int32_t>{0, 1, 2, 3}));
    }
    member.component = {1, 1, 3, 1, 3};
    member.log_responsibility = {-1, -1, -2, -3, -4};
    member.squared_distance = {1, 1, 1, 1, 1};
    for (SpillOrder order : all_orders) {
        EXPECT_EQ(member.choose(policy_of(order, SpillRule::always, 8)).size(), 3u);
    }
}

TEST(ChooseLists, EqualCostsKeepTheOrderOfTheRow) {
    Member member = member_with_three_neighbours();
    member.mixture.means = {0, 0, 1, 1, 1, 1, 1, 1};
    member.component = {3, 1, 2};
    member.log_responsibility = {-1, -1, -1};
    member.squared_distance = {1, 1, 1};
    for (SpillOrder order : all_orders) {
        EXPECT_EQ(
                member.choose(policy_of(order, SpillRule::always, 4)),
                (std::vector<int32_t>{0, 3, 1, 2}));
    }
}

} // namespace
} // namespace faiss_gmm
