// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The vectors worth an exact distance.
//   (1) score(x) = score(its run) + constant + look-ups, 16 bits (lookup.h)
// Phases: 1 some blocks, one a run; slots that reach the threshold go into a buffer; 2 those that the
// selector refuses leave it; 3 counts of the scores lower the threshold to that of the best so far; 4 the
// best of the buffer.
// Cost: codes / 2 * 32 + 64 bytes a run; the rest is O(what reached the threshold).
// Determinism: integers; equal scores by the order of visit.
#include "faiss_gmm/runs/sketch_scan.h"

#include <algorithm>

#include "faiss_gmm/runs/prefetch.h"

namespace faiss_gmm {
namespace {

constexpr size_t blocks_at_once = 8; // between two looks at the threshold

/// The threshold that the `keep` best scores seen so far stay at or below, by counts of the scores.
class RunningThreshold {
public:
    /// No score is below `floor`; those that matter are at most `range` above it.
    RunningThreshold(size_t keep, uint16_t floor, size_t range, std::vector<uint32_t>& counts)
            : keep_(keep), floor_(floor), counts_(counts) {
        counts_.assign(buckets, 0);
        while (range >> shift_ >= buckets) {
            shift_++;
        }
    }

    void count(uint16_t score) {
        const size_t bucket = std::min<size_t>((score - floor_) >> shift_, buckets - 1);
        counts_[bucket]++;
        seen_++;
        top_ = std::max(top_, bucket);
    }
    /// Its value after what was counted: saturated until `keep` scores were.
    uint16_t lower() {
        while (top_ > 0 && seen_ - counts_[top_] >= keep_) {
            seen_ -= counts_[top_--];
        }
        const size_t most = floor_ + ((top_ + 1) << shift_) - 1;
        const bool open = seen_ < keep_ || top_ == buckets - 1 || most > saturated_score;
        return open ? saturated_score : static_cast<uint16_t>(most);
    }

private:
    static constexpr size_t buckets = 2048;
    unsigned shift_ = 0;
    size_t keep_, seen_ = 0, top_ = 0; // top_: the last bucket that is still counted
    uint16_t floor_;
    std::vector<uint32_t>& counts_;
};

/// Takes those of keys [n] out whose vectors the selector refuses; returns how many stay.
size_t drop_refused(
        const faiss::IDSelector& selector,
        const faiss::InvertedLists& lists,
        const std::vector<ChosenRun>& chosen,
        uint64_t* keys,
        size_t n) {
    const auto refused = [&](uint64_t key) {
        const ChosenRun& run = chosen[block_of_key(key)];
        return !selector.is_member(
                lists.get_single_id(run.home, run.run * run_size + slot_of_key(key)));
    };
    return std::remove_if(keys, keys + n, refused) - keys;
}

} // namespace

ScanCounts scan_sketches(
        const RunCodec& codec,
        const QueryTables& tables,
        const std::vector<ChosenRun>& chosen,
        size_t keep,
        const faiss::IDSelector* selector,
        const faiss::InvertedLists& lists,
        ScanScratch& scratch,
        std::vector<Candidate>& candidates) {
    ScanCounts counts;
    candidates.clear();
    if (keep == 0) {
        return counts;
    }
    const CollectSlots collect_slots = block_kernels().collect_slots;
    const BlockScorer scorer{codec.sketch.codes(), tables.sketch.data(), tables.sketch_scale};
    const size_t bytes = codec.sketch_layout().bytes();
    std::vector<BasedBlock>& blocks = scratch.blocks;
    std::vector<uint64_t>& keys = scratch.keys;
    blocks.resize(chosen.size());
    uint16_t floor = saturated_score;
    for (size_t i = 0; i < chosen.size(); i++) {
        const ChosenRun& run = chosen[i];
        if (i < items_ahead(bytes)) { // the others are prefetched as the scan goes
            prefetch_bytes(run.sketches, bytes);
        }
        blocks[i].block = run.sketches; // part by part: a copy of the whole would wait for them
        blocks[i].base = run.score;
        counts.sketches += run.size;
        floor = std::min(floor, run.score);
    }
    // What look-ups (63 each at most) and a constant add to a run's score.
    const size_t range = 63 * scorer.codes + scorer.constant_scale;
    RunningThreshold running(keep, floor, range, scratch.counts);
    uint16_t threshold = saturated_score;
    size_t found = 0;
    for (size_t first = 0; first < blocks.size(); first += blocks_at_once) {
        const size_t n = std::min(blocks_at_once, blocks.size() - first);
        if (keys.size() < found + n * run_size) {
            keys.resize(2 * (found + n * run_size));
        }
        uint64_t* added = keys.data() + found;
        size_t more = collect_slots(
                scorer, blocks.data() + first, n, blocks.size() - first, threshold, first, added);
        if (selector != nullptr) {
            const size_t selected = drop_refused(*selector, lists, chosen, added, more);
            counts.skipped += more - selected;
            more = selected;
        }
        for (size_t i = 0; i < more; i++) {
            running.count(score_of_key(added[i]));
        }
        threshold = running.lower();
        found += more;
    }
    size_t kept = 0; // no branch: which keys stay nobody can predict
    for (size_t i = 0; i < found; i++) {
        const uint64_t key = keys[i];
        keys[kept] = key;
        kept += score_of_key(key) <= threshold;
    }
    auto end = keys.begin() + kept;
    if (static_cast<size_t>(end - keys.begin()) > keep) {
        std::nth_element(keys.begin(), keys.begin() + (keep - 1), end);
        end = keys.begin() + keep;
    }
    candidates.resize(end - keys.begin()); // keys stay as many as they were: scratch
    for (size_t i = 0; i < candidates.size(); i++) {
        const ChosenRun& run = chosen[block_of_key(keys[i])];
        candidates[i].home = run.home;
        candidates[i].entry = run.run * static_cast<uint32_t>(run_size) + slot_of_key(keys[i]);
        candidates[i].score = score_of_key(keys[i]);
    }
    return counts;
}

} // namespace faiss_gmm
