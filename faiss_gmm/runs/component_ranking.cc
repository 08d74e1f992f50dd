// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/component_ranking.h"

namespace faiss_gmm {
namespace {

/// n K d from which engine=auto takes a GPU: starting an engine there takes tenths of a second, in which a
/// few cores do about as much.
constexpr double worth_a_gpu = 3e10;

EngineParameters
for_rows(EngineParameters parameters, const GaussianMixture& mixture, size_t rows) {
    const double work = static_cast<double>(rows) * static_cast<double>(mixture.means.size());
    if (parameters.kind == EngineKind::automatic && work < worth_a_gpu) {
        parameters.kind = EngineKind::cpu;
    }
    return parameters;
}

} // namespace

ComponentRanking::ComponentRanking(
        const EngineParameters& parameters,
        const GaussianMixture& mixture,
        const RunCodec& codec,
        size_t rows,
        Assignment assignment)
        : parameters_(for_rows(parameters, mixture, rows)), mixture_(mixture), codec_(codec),
          assignment_(assignment),
          engine_(make_engine(parameters_, {mixture.covariance, mixture.K, mixture.d})) {
    try {
        engine_->begin(mixture_, assignment_);
    } catch (const OutOfMemory& error) {
        go_on_after(error);
    }
}

void ComponentRanking::go_on_after(const OutOfMemory& error) {
    engine_ = make_engine_after(error, parameters_);
    engine_->begin(mixture_, assignment_);
}

void ComponentRanking::rank(size_t n, const float* x, size_t m, TopResponsibilities& out) {
    rank_modelled(n, codec_.as_modelled(n, x, buffer_), m, out);
}

void ComponentRanking::rank_modelled(size_t n, const float* x, size_t m, TopResponsibilities& out) {
    const Chunk chunk{x, n, ranked_};
    try {
        engine_->top_responsibilities(chunk, m, out);
    } catch (const OutOfMemory& error) {
        go_on_after(error);
        engine_->top_responsibilities(chunk, m, out);
    }
    ranked_ += n;
}

} // namespace faiss_gmm
