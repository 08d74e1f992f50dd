// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "faiss_gmm/runs/run_codec.h"
#include "faiss_gmm/train/engine.h"
#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm {

/// From rows to the components of a mixture, on the engine that the parameters ask for. One thread.
///
/// engine=auto takes a GPU where it pays for so many rows, and goes on with the CPU where its memory does
/// not do, telling the parameters' note; engine=cuda throws Error where there is no usable GPU.
class ComponentRanking {
public:
    /// For about `rows` rows. mixture and codec (of that mixture's means) are alive while this is.
    /// Assignment::hard: components and distances alone.
    ComponentRanking(
            const EngineParameters& parameters,
            const GaussianMixture& mixture,
            const RunCodec& codec,
            size_t rows,
            Assignment assignment = Assignment::soft);
    /// The m <= K best components of rows x [n, d].
    void rank(size_t n, const float* x, size_t m, TopResponsibilities& out);
    /// The same of rows that are as the codec's as_modelled() leaves them, or means of such.
    void rank_modelled(size_t n, const float* x, size_t m, TopResponsibilities& out);

private:
    void go_on_after(const OutOfMemory& error);

    EngineParameters parameters_;
    const GaussianMixture& mixture_;
    const RunCodec& codec_;
    Assignment assignment_;
    std::unique_ptr<EStepEngine> engine_;
    std::vector<float> buffer_;
    size_t ranked_ = 0; ///< rows so far, for messages that number them
};

} // namespace faiss_gmm
