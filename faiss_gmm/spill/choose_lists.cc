// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Which lists a member belongs to.
//   (1) rule:  one bound b a member; candidate s qualifies where log r_s > b
//              never +inf | always -inf | threshold log(tau) | fraction -inf or +inf by the border
//   (2) order: a cost a candidate, least first; equals keep the row's order
//              responsibility -log r_s
//              air            |r'|^2 + lambda r.r'
//              soar           |r'|^2 + lambda (r.r' / |r|)^2
//   (3) r.r' = (D0 + Ds - L) / 2
// x member [d], c home mean [d], s candidate mean [d]; r = x - c, r' = x - s;
// D0 = |x-c|^2, Ds = |x-s|^2 (given, fp32), L = |s-c|^2 (from the means, fp64).
// Source: (2) RAIRS arXiv 2601.07183, SOAR arXiv 2404.00774; (3) the law of cosines.
// Cost: O(m log m), and d a qualifying candidate for air and soar.
// Numerics: logs only. tau's log is rounded to fp32 as the responsibilities' logs are, so that
//   r = tau does not exceed tau. (3) cancels: see angle_is_noise for |r| near 0.
// Promised by the caller: see the header. Reference: tests/spill/choose_lists_test.cc, from
// vectors.
#include "faiss_gmm/spill/spill_policy.h"

#include <algorithm>
#include <cmath>

namespace faiss_gmm {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A qualifying candidate.
struct Ranked {
    double cost;
    size_t position; ///< in the row

    bool operator<(const Ranked& other) const {
        return cost != other.cost ? cost < other.cost : position < other.position;
    }
};

/// Entries of the row before a -1.
size_t row_length(const SpillCandidates& candidates) {
    size_t length = 0;
    while (length < candidates.m && candidates.component[length] >= 0) {
        length++;
    }
    return length;
}

/// log tau in fp32.
float log_threshold(float tau, size_t K) {
    const double log_tau = tau == 0 ? -std::log(static_cast<double>(K)) : std::log(double(tau));
    return static_cast<float>(log_tau);
}

/// The log-responsibility that a candidate of this member must exceed (1).
float qualifying_bound(
        const SpillPolicy& policy, size_t K, int32_t home, const SpillCandidates& candidates) {
    switch (policy.rule) {
    case SpillRule::never:
        break;
    case SpillRule::threshold:
        return log_threshold(policy.tau, K);
    case SpillRule::always:
        return -infinity;
    case SpillRule::fraction: {
        const float border = border_log_responsibility(home, candidates);
        return border > policy.log_border_threshold ? -infinity : infinity;
    }
    }
    return infinity;
}

/// |a - b|^2 for a, b [d].
double squared_distance(size_t d, const float* a, const float* b) {
    double sum = 0;
    for (size_t j = 0; j < d; j++) {
        const double difference = static_cast<double>(a[j]) - b[j];
        sum += difference * difference;
    }
    return sum;
}

/// Whether rounding decides the angle between r and r': r.r' carries an error of about eps Ds
/// from fp32 distances, (r.r' / |r|)^2 one of eps^2 Ds^2 / D0, which must stay below Ds.
bool angle_is_noise(double D0, double Ds) {
    constexpr double eps = std::numeric_limits<float>::epsilon();
    return D0 <= eps * eps * Ds;
}

/// (r.r' / |r|)^2, the squared part of r' along r; 0 for a member on its home mean.
double squared_parallel_part(double D0, double Ds, double dot) {
    if (angle_is_noise(D0, Ds)) {
        return 0;
    }
    return std::min(dot * dot / D0, Ds); // Cauchy-Schwarz, against rounding
}

/// The cost of one candidate (2), (3).
double
cost(const SpillPolicy& policy,
     const GaussianMixture& mixture,
     int32_t home,
     float home_squared_distance,
     const SpillCandidates& candidates,
     size_t position) {
    if (policy.order == SpillOrder::responsibility) {
        return -static_cast<double>(candidates.log_responsibility[position]);
    }
    const size_t s = static_cast<size_t>(candidates.component[position]);
    const float* home_mean = mixture.means.data() + static_cast<size_t>(home) * mixture.d;
    const float* candidate_mean = mixture.means.data() + s * mixture.d;
    const double D0 = home_squared_distance;
    const double Ds = candidates.squared_distance[position];
    const double L = squared_distance(mixture.d, candidate_mean, home_mean);
    const double dot = (D0 + Ds - L) / 2;
    const double angle = policy.order == SpillOrder::air ? dot : squared_parallel_part(D0, Ds, dot);
    return Ds + static_cast<double>(policy.lambda) * angle;
}

bool contains(const std::vector<int32_t>& lists, int32_t list) {
    return std::find(lists.begin(), lists.end(), list) != lists.end();
}

} // namespace

float border_log_responsibility(int32_t home, const SpillCandidates& candidates) {
    float border = -infinity;
    const size_t length = row_length(candidates);
    for (size_t j = 0; j < length; j++) {
        if (candidates.component[j] != home) {
            border = std::max(border, candidates.log_responsibility[j]); // passes over NaN
        }
    }
    return border;
}

void choose_lists(
        const SpillPolicy& policy,
        const GaussianMixture& mixture,
        int32_t home,
        float home_squared_distance,
        const SpillCandidates& candidates,
        std::vector<int32_t>& lists) {
    lists.clear();
    lists.push_back(home);
    const float bound = qualifying_bound(policy, mixture.K, home, candidates);
    if (policy.max_lists == 1 || bound == infinity) {
        return;
    }

    thread_local std::vector<Ranked> ranked;
    ranked.clear();
    const size_t length = std::min(row_length(candidates), policy.m);
    for (size_t j = 0; j < length; j++) {
        if (candidates.component[j] == home || !(candidates.log_responsibility[j] > bound)) {
            continue;
        }
        const double c = cost(policy, mixture, home, home_squared_distance, candidates, j);
        if (std::isfinite(c)) {
            ranked.push_back({c, j});
        }
    }
    std::sort(ranked.begin(), ranked.end());

    for (const Ranked& r : ranked) {
        if (lists.size() == policy.max_lists) {
            break;
        }
        const int32_t list = candidates.component[r.position];
        if (!contains(lists, list)) {
            lists.push_back(list);
        }
    }
}

} // namespace faiss_gmm
