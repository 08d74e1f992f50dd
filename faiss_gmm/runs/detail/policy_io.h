// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include "faiss_gmm/spill/spill_policy.h"

namespace faiss_gmm {

/// Writes (SectionWriter) or reads (SectionReader) a policy, unchecked.
template <class Section, class Policy> void transfer_policy(Section& section, Policy& policy) {
    section.choice(policy.order, SpillOrder::soar, "spill order");
    section.number(policy.lambda, "lambda");
    section.choice(policy.rule, SpillRule::fraction, "spill rule");
    section.number(policy.tau, "tau");
    section.number(policy.fraction, "fraction");
    section.number(policy.max_lists, "max_lists");
    section.number(policy.m, "m");
    section.choice(policy.storage, SpillStorage::copies, "storage");
    section.number(policy.log_border_threshold, "the border threshold");
}

} // namespace faiss_gmm
