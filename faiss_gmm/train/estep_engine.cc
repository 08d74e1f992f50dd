// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/estep_engine.h"

#include <utility>

namespace faiss_gmm {

bool EStepEngine::holds(const Chunk&) {
    return false;
}

PassSummary EStepEngine::advance(double reg_covar) {
    SufficientStatistics statistics = finish();
    advanced_ = maximize(statistics, reg_covar);
    return PassSummary(std::move(statistics));
}

void EStepEngine::begin_again(Assignment assignment) {
    begin(advanced_, assignment);
}

GaussianMixture EStepEngine::mixture() {
    return advanced_;
}

} // namespace faiss_gmm
