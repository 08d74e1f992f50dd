// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "faiss_gmm/runs/lookup.h"
#include "faiss_gmm/runs/run_codec.h"
#include "faiss_gmm/runs/run_directory.h"

namespace faiss_gmm {

/// Distances (inner product: products) of one query to the means of any list.
class HomeDistances {
public:
    /// Where a flat quantizer computed all: all [nlist], else null and each is computed when asked
    /// for, from centred_query [d].
    HomeDistances(const RunCodec& codec, const float* all, const float* centred_query);
    /// |q - c|^2, or <q, c>, to rounding; counts what it had to compute.
    float operator()(size_t list) const;
    size_t computed() const {
        return computed_;
    }

private:
    const RunCodec& codec_;
    const float* all_;
    const float* query_;
    float query_norm_;
    mutable size_t computed_ = 0;
};

/// The lists of one query, the nearest at the front. Keys of -1 are passed over.
struct ProbedLists {
    size_t n = 0;
    const int64_t* list = nullptr;   ///< [n]
    const float* distance = nullptr; ///< [n], |q - c|^2 or <q, c>
};

/// A run to be visited.
struct ChosenRun {
    int32_t home = -1;
    uint32_t run = 0;
    uint16_t size = 0;
    uint16_t score = 0;
    const uint8_t* sketches = nullptr; ///< its block, where vectors are sketched
};

/// Rank of each list among the probed ones of the present query; -1: not probed. Kept between
/// queries of a thread, all -1 outside of a call.
class ProbeRanks {
public:
    /// Forgets what was set before, also where an exception kept clear() from being called.
    void set(size_t nlist, const ProbedLists& probed);
    void clear();
    int32_t operator[](size_t list) const {
        return rank_[list];
    }

private:
    std::vector<int32_t> rank_;
    std::vector<int64_t> ranked_; ///< lists whose rank is not -1
};

/// Whether a guest of the list of this rank is left to another probed list of better rank that
/// holds it too.
inline bool left_to_better(
        const RunDirectory& directory,
        const ListRuns& host,
        size_t guest,
        const ProbeRanks& ranks,
        int32_t rank) {
    const size_t stride = directory.stride();
    if (stride == 1) {
        return false; // no list beside its home and this one
    }
    const int32_t* row = host.guest_further.data() + guest * stride;
    for (size_t j = 0; j < stride && row[j] >= 0; j++) {
        if (ranks[row[j]] >= 0 && ranks[row[j]] < rank) {
            return true;
        }
    }
    return false;
}

/// Calls visit(group, guest) for the guests of a list of this rank that fall to it: those whose
/// home is not probed itself, and which no list of better rank has. So every run is met once,
/// whatever is probed. A home may be stale: the caller looks when it comes there anyway.
template <class Visit>
void for_each_guest(
        const RunDirectory& directory,
        const ListRuns& host,
        const ProbeRanks& ranks,
        int32_t rank,
        Visit visit) {
    for (const GuestGroup& group : host.guest_groups) {
        if (ranks[group.home] >= 0) {
            continue;
        }
        for (size_t guest = group.begin; guest < group.end; guest++) {
            if (!left_to_better(directory, host, guest, ranks, rank)) {
                visit(group, guest);
            }
        }
    }
}

/// What a thread keeps between queries for choosing runs.
struct ChoiceScratch {
    ProbeRanks ranks;
    std::vector<uint16_t, CacheLineAllocator<uint16_t>> scores; ///< [blocks, 32]
    struct ScoredBlock {
        int32_t list;
        uint32_t first; ///< number of its first slot among the list's
    };
    std::vector<ScoredBlock> blocks;
    std::vector<uint16_t> bases;         ///< of a list's slots; empty_slot: left to another
    std::vector<uint64_t> keys, ordered; ///< score << 32 | slot
};

struct ChoiceCounts {
    size_t summaries = 0; ///< scored, each run once
    size_t blocks = 0;    ///< read
    size_t vectors = 0;   ///< in the runs chosen
};

/// The best runs of the probed lists and of their guests, best first, until they hold `budget`
/// vectors (at most a run more). Each run is scored at most once.
ChoiceCounts choose_runs(
        const RunDirectory& directory,
        const RunCodec& codec,
        const QueryTables& tables,
        const ProbedLists& probed,
        const HomeDistances& distances,
        size_t budget,
        ChoiceScratch& scratch,
        std::vector<ChosenRun>& chosen);

} // namespace faiss_gmm
