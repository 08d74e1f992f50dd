// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Members of random mixtures, with candidate rows computed in double precision from the vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "faiss_gmm/spill/spill_policy.h"
#include "tests/seed.h"

namespace faiss_gmm::testing {

/// FAISS_GMM_TEST_SEED, or a fixed one; printed, so that a failure can be repeated.
inline uint64_t test_seed() {
    return seed_or(20260107);
}

/// One member x [d] of a tied spherical mixture and its row of candidates.
struct Member {
    GaussianMixture mixture;
    std::vector<float> x;
    int32_t home = 0;
    float home_squared_distance = 0;
    std::vector<int32_t> component;
    std::vector<float> log_responsibility;
    std::vector<float> squared_distance;

    SpillCandidates row() const {
        return {component.size(),
                component.data(),
                log_responsibility.data(),
                squared_distance.data()};
    }
    const float* mean(int32_t k) const {
        return mixture.means.data() + static_cast<size_t>(k) * mixture.d;
    }
    /// (x - mu_a).(x - mu_b)
    double residual_product(int32_t a, int32_t b) const {
        double sum = 0;
        for (size_t j = 0; j < mixture.d; j++) {
            sum += (double(x[j]) - mean(a)[j]) * (double(x[j]) - mean(b)[j]);
        }
        return sum;
    }
    std::vector<int32_t> choose(const SpillPolicy& policy) const {
        std::vector<int32_t> lists = {-7, -7, -7}; // must be cleared
        choose_lists(policy, mixture, home, home_squared_distance, row(), lists);
        return lists;
    }
};

/// Fills the m best candidates of member.x, -1 after the last, and the home's distance.
inline void fill_row(Member& member, size_t m) {
    const GaussianMixture& mixture = member.mixture;
    std::vector<double> log_joint(mixture.K);
    for (size_t k = 0; k < mixture.K; k++) {
        const int32_t list = static_cast<int32_t>(k);
        log_joint[k] = mixture.log_weights[k] -
                       member.residual_product(list, list) / (2 * mixture.covariances[0]);
    }
    const double largest = *std::max_element(log_joint.begin(), log_joint.end());
    double sum = 0;
    for (double l : log_joint) {
        sum += std::exp(l - largest);
    }
    std::vector<int32_t> by_responsibility(mixture.K);
    std::iota(by_responsibility.begin(), by_responsibility.end(), 0);
    std::stable_sort(by_responsibility.begin(), by_responsibility.end(), [&](int32_t a, int32_t b) {
        return log_joint[size_t(a)] > log_joint[size_t(b)];
    });
    member.component.assign(m, -1);
    member.log_responsibility.assign(m, 0);
    member.squared_distance.assign(m, 0);
    for (size_t j = 0; j < std::min(m, mixture.K); j++) {
        const int32_t k = by_responsibility[j];
        member.component[j] = k;
        member.log_responsibility[j] =
                static_cast<float>(log_joint[size_t(k)] - largest - std::log(sum));
        member.squared_distance[j] = static_cast<float>(member.residual_product(k, k));
    }
    member.home_squared_distance =
            static_cast<float>(member.residual_product(member.home, member.home));
}

/// K components of equal weight with standard normal means, variance s2.
inline GaussianMixture random_mixture(std::mt19937_64& random, size_t K, size_t d, double s2) {
    std::normal_distribution<float> normal;
    GaussianMixture mixture;
    mixture.d = d;
    mixture.K = K;
    mixture.means.resize(K * d);
    std::generate(mixture.means.begin(), mixture.means.end(), [&] { return normal(random); });
    mixture.log_weights.assign(K, -std::log(double(K)));
    mixture.covariances = {s2};
    return mixture;
}

/// A member of a random mixture with a row of m candidates; its home is any component.
inline Member random_member(std::mt19937_64& random, size_t m = 16) {
    const auto draw = [&](size_t low, size_t high) {
        return std::uniform_int_distribution<size_t>(low, high)(random);
    };
    const size_t K = draw(1, 24);
    const size_t d = draw(1, 24);
    const double s2 = std::pow(10.0, std::uniform_real_distribution<double>(-2, 1)(random));
    Member member;
    member.mixture = random_mixture(random, K, d, s2);
    std::normal_distribution<float> normal;
    member.x.resize(d);
    std::generate(member.x.begin(), member.x.end(), [&] { return normal(random); });
    member.home = static_cast<int32_t>(draw(0, K - 1));
    fill_row(member, m);
    return member;
}

} // namespace faiss_gmm::testing
