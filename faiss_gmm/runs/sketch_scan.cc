// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The vectors worth an exact distance.
//   (1) score(x) = score(its run) + constant + look-ups, 16 bits (lookup.h)
// Phases: 1 a block a run, prefetched ahead; slots that reach the threshold go into a buffer; 2 a
// full buffer (4 times what is kept) is cut to the best, whose worst is the new threshold.
// Cost: codes / 2 * 32 + 64 bytes a run; the cuts are O(candidates).
// Determinism: integers; equal scores by the order of visit.
#include "faiss_gmm/runs/sketch_scan.h"

#include <algorithm>

namespace faiss_gmm {
namespace {

constexpr size_t prefetch_ahead = 4; // runs; measured on lists of 1,000

/// The `keep` smallest keys at the front; returns the score that a further one must stay below.
uint16_t cut(std::vector<uint64_t>& keys, size_t keep) {
    std::nth_element(keys.begin(), keys.begin() + (keep - 1), keys.end());
    const auto worst = static_cast<uint16_t>(keys[keep - 1] >> 48);
    keys.resize(keep);
    return worst;
}

} // namespace

ScanCounts scan_sketches(
        const RunDirectory& directory,
        const RunCodec& codec,
        const QueryTables& tables,
        const std::vector<ChosenRun>& chosen,
        size_t keep,
        const faiss::IDSelector* selector,
        const faiss::InvertedLists& lists,
        std::vector<uint64_t>& keys,
        std::vector<Candidate>& candidates) {
    ScanCounts counts;
    candidates.clear();
    keys.clear();
    if (keep == 0) {
        return counts;
    }
    const ScoreBlock score_block = score_block_kernel();
    const BlockLayout layout = codec.sketch_layout();
    const size_t bytes = layout.bytes();
    const auto block_of = [&](const ChosenRun& run) {
        return directory.lists[run.home].sketches.data() + run.run * bytes;
    };
    const auto prefetch = [&](size_t i) {
        if (i < chosen.size()) {
            const uint8_t* block = block_of(chosen[i]);
            for (size_t b = 0; b < bytes; b += 64) {
                __builtin_prefetch(block + b);
            }
        }
    };
    for (size_t i = 0; i < prefetch_ahead; i++) {
        prefetch(i);
    }
    alignas(64) uint16_t scores[run_size];
    uint16_t threshold = saturated_score;
    const size_t full = 4 * keep;
    // A key is score << 48 | number of the chosen run << 5 | slot.
    for (size_t i = 0; i < chosen.size(); i++) {
        prefetch(i + prefetch_ahead);
        const ChosenRun& run = chosen[i];
        counts.sketches += run.size;
        uint32_t below = score_block(
                block_of(run),
                layout.rows(),
                tables.sketch.data(),
                tables.sketch_scale,
                run.score,
                threshold,
                scores);
        if (selector != nullptr && below != 0) {
            const faiss::InvertedLists::ScopedIds ids(&lists, run.home);
            for (uint32_t rest = below; rest != 0; rest &= rest - 1) {
                const unsigned slot = __builtin_ctz(rest);
                if (!selector->is_member(ids.ids[run.run * run_size + slot])) {
                    below &= ~(1u << slot);
                    counts.skipped++;
                }
            }
        }
        for (; below != 0; below &= below - 1) {
            const unsigned slot = __builtin_ctz(below);
            keys.push_back(static_cast<uint64_t>(scores[slot]) << 48 | i << 5 | slot);
        }
        if (keys.size() >= full) {
            threshold = cut(keys, keep);
        }
    }
    if (keys.size() > keep) {
        cut(keys, keep);
    }
    candidates.reserve(keys.size());
    for (const uint64_t key : keys) {
        const ChosenRun& run = chosen[(key & 0xffffffffffff) >> 5];
        candidates.push_back(
                {run.home,
                 run.run * static_cast<uint32_t>(run_size) + static_cast<uint32_t>(key & 31),
                 static_cast<uint16_t>(key >> 48)});
    }
    return counts;
}

} // namespace faiss_gmm
