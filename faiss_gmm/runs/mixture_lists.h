// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <faiss/invlists/InvertedLists.h>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/runs/query_difficulty.h"
#include "faiss_gmm/runs/run_codec.h"
#include "faiss_gmm/spill/spill_policy.h"

namespace faiss_gmm {

/// What is learnt once and shared by the index, its quantizer and its lists.
struct CoarseState {
    GaussianMixture mixture; ///< K = 0 until trained
    SpillPolicy spill;
    RunCodec codec;
    QueryDifficulty difficulty;
    bool sketched = false; ///< vectors have sketches inside their runs
};

/// What every class of lists of this library holds beside entries, and is written with them: the state that was
/// learnt, and what the index over the lists wants to find again. Making one registers how they are
/// written (run_lists_io.h).
class MixtureLists {
public:
    MixtureLists();
    virtual ~MixtureLists();

    const CoarseState& state() const {
        return *state_;
    }
    /// The same, to be shared with the quantizer.
    const std::shared_ptr<const CoarseState>& shared_state() const {
        return state_;
    }
    /// Takes a newly learnt state.
    virtual void set_state(std::shared_ptr<const CoarseState> state);

    /// The same lists again, entries and all; the state is shared. Throws Error where they cannot be copied.
    virtual std::unique_ptr<faiss::InvertedLists> copy() const = 0;

    /// What the index over the lists wants to find again after they were written and read, in a form of
    /// its own; the lists only keep it.
    using IndexMemo = std::function<std::string()>;
    void keep_for_index(std::string memo) {
        memo_ = std::move(memo);
    }
    /// Asked for it when it is needed, as long as the index lives.
    void ask_index(std::weak_ptr<const IndexMemo> index) {
        index_ = std::move(index);
    }
    std::string kept_for_index() const;
    /// Whether an index of this library is over the lists.
    bool has_index() const {
        return !index_.expired();
    }

protected:
    std::shared_ptr<const CoarseState> state_;

private:
    std::string memo_;
    std::weak_ptr<const IndexMemo> index_;
};

} // namespace faiss_gmm
