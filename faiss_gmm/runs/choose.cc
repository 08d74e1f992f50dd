// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The runs worth a visit.
//   (1) score(run) = 16-bit |q - c_home|^2 above the least + constant + look-ups (lookup.h)
//   (2) best first until their sizes reach the budget
// Phases: 1 blocks of a probed list's own runs, one base; 2 blocks that hold guests, a base a slot;
// 3 a histogram of the scores, and a counting sort of the buckets that the budget reaches; within
// the last one an exact order.
// Cost: a look-up of codes / 2 * 32 bytes a block; two passes over the scores. No sort but of one
// bucket.
// Determinism: integers; equal scores stand in the order of lists and slots.
#include "faiss_gmm/runs/choose.h"

#include <algorithm>
#include <cmath>

#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {
namespace {

constexpr size_t buckets = 1024;

uint16_t scaled_base(float above_least, float scale) {
    const float scaled = above_least * scale;
    return scaled < saturated_score ? static_cast<uint16_t>(std::max(scaled, 0.0f))
                                    : saturated_score;
}

} // namespace

HomeDistances::HomeDistances(const RunCodec& codec, const float* all, const float* centred_query)
        : codec_(codec), all_(all), query_(centred_query),
          query_norm_(all == nullptr ? dot(codec.d, centred_query, centred_query) : 0) {}

float HomeDistances::operator()(size_t list) const {
    if (all_ != nullptr) {
        return all_[list];
    }
    computed_++;
    const float product = dot(codec_.d, query_, codec_.centred_means.data() + list * codec_.d);
    return codec_.inner_product
                   ? product
                   : std::max(0.0f, query_norm_ + codec_.mean_norms[list] - 2 * product);
}

void ProbeRanks::set(size_t nlist, const ProbedLists& probed) {
    clear();
    rank_.resize(nlist, -1);
    ranked_.reserve(probed.n);
    for (size_t p = 0; p < probed.n; p++) {
        if (probed.list[p] >= 0 && rank_[probed.list[p]] < 0) {
            rank_[probed.list[p]] = static_cast<int32_t>(p);
            ranked_.push_back(probed.list[p]);
        }
    }
}

void ProbeRanks::clear() {
    for (const int64_t list : ranked_) {
        rank_[list] = -1;
    }
    ranked_.clear();
}

namespace {

/// One query's way through the summaries.
class RunChooser {
public:
    RunChooser(
            const RunDirectory& directory,
            const RunCodec& codec,
            const QueryTables& tables,
            const ProbedLists& probed,
            const HomeDistances& distances,
            ChoiceScratch& scratch)
            : directory_(directory), codec_(codec), layout_(codec.summary_layout()),
              tables_(tables), probed_(probed), distances_(distances), scratch_(scratch),
              score_block_(score_block_kernel()), least_(probed.n > 0 ? probed.distance[0] : 0) {}

    void score_all() {
        scratch_.blocks.clear();
        scratch_.ranks.set(directory_.lists.size(), probed_);
        for (size_t p = 0; p < lists_ahead; p++) {
            prefetch_list(p);
        }
        for (size_t p = 0; p < probed_.n; p++) {
            prefetch_list(p + lists_ahead);
            prefetch_blocks(p + blocks_ahead);
            const int64_t list = probed_.list[p];
            if (list >= 0 && scratch_.ranks[list] == static_cast<int32_t>(p)) {
                score_list(p);
            }
        }
        scratch_.ranks.clear();
        counts_.blocks = scratch_.blocks.size();
    }

    ChoiceCounts choose(size_t budget, std::vector<ChosenRun>& chosen) {
        chosen.clear();
        if (!count_scores()) {
            return counts_;
        }
        // Runs hold at most 32: the budget is reached by these many if they are full. Where they
        // are not, the next buckets follow.
        const size_t wanted = budget / run_size + 1;
        size_t bucket = 0;
        while (counts_.vectors < budget && bucket < buckets) {
            const size_t from = bucket;
            size_t found = 0;
            while (bucket < buckets && found < wanted) {
                scratch_.bucket_start[bucket] = static_cast<uint32_t>(found);
                found += scratch_.histogram[bucket++];
            }
            order_buckets(from, bucket);
            const size_t last = found - scratch_.histogram[bucket - 1];
            std::sort(scratch_.ordered.begin() + last, scratch_.ordered.begin() + found);
            for (size_t i = 0; i < found && counts_.vectors < budget; i++) {
                take(scratch_.ordered[i], chosen);
            }
        }
        return counts_;
    }

private:
    static constexpr size_t lists_ahead = 4;  // prefetched: the list's own numbers,
    static constexpr size_t blocks_ahead = 2; // and its summaries

    static void prefetch_lines(const void* from, size_t bytes) {
        for (size_t b = 0; b < bytes; b += 64) {
            __builtin_prefetch(static_cast<const char*>(from) + b);
        }
    }
    void prefetch_list(size_t p) const {
        if (p < probed_.n && probed_.list[p] >= 0) {
            prefetch_lines(&directory_.lists[probed_.list[p]], sizeof(ListRuns));
        }
    }
    void prefetch_blocks(size_t p) const {
        if (p < probed_.n && probed_.list[p] >= 0) {
            const ListRuns& list = directory_.lists[probed_.list[p]];
            prefetch_lines(
                    list.summaries.data(), std::min(list.summaries.size(), 2 * layout_.bytes()));
            __builtin_prefetch(list.guest_groups.data());
        }
    }

    uint16_t base_of(float distance) const {
        const float above = codec_.inner_product ? least_ - distance : distance - least_;
        return scaled_base(above, tables_.scale);
    }

    /// Scores a block with one base for all its slots; its scores, to be corrected where slots
    /// differ.
    uint16_t* score_block(int32_t list, size_t first, uint16_t base) {
        scratch_.blocks.push_back({list, static_cast<uint32_t>(first)});
        const size_t slots = scratch_.blocks.size() * run_size;
        if (scratch_.scores.size() < slots) {
            scratch_.scores.resize(2 * slots);
        }
        uint16_t* scores = scratch_.scores.data() + slots - run_size;
        score_block_(
                directory_.lists[list].summaries.data() + first / run_size * layout_.bytes(),
                layout_.rows(),
                tables_.summary.data(),
                tables_.summary_scale,
                base,
                saturated_score,
                scores);
        return scores;
    }

    void score_list(size_t p) {
        const auto l = static_cast<int32_t>(probed_.list[p]);
        const ListRuns& list = directory_.lists[l];
        const uint16_t base = base_of(probed_.distance[p]);
        const size_t runs = list.runs();
        size_t first = 0;
        if (!list.stale) {
            counts_.summaries += runs;
            const size_t unmixed = list.guests.empty() ? runs : runs / run_size * run_size;
            for (; first < unmixed; first += run_size) {
                score_block(l, first, base);
            }
        }
        if (list.guests.empty()) {
            return;
        }
        // A base a slot; an empty mark for those that fall to another.
        std::vector<uint16_t>& bases = scratch_.bases;
        bases.assign(list.slots(), empty_slot);
        if (!list.stale) {
            std::fill(bases.begin() + first, bases.begin() + runs, base);
        }
        find_guest_bases(p, list, bases);
        for (; first < bases.size(); first += run_size) {
            const uint16_t* of_block = bases.data() + first;
            const bool all_elsewhere = std::all_of(
                    of_block, of_block + run_size, [](uint16_t b) { return b == empty_slot; });
            if (!all_elsewhere) {
                add_bases(of_block, score_block(l, first, 0));
            }
        }
    }

    void find_guest_bases(size_t p, const ListRuns& list, std::vector<uint16_t>& bases) {
        int32_t home = -1;
        uint16_t home_base = 0;
        const size_t runs = list.runs();
        for_each_guest(
                directory_,
                list,
                scratch_.ranks,
                static_cast<int32_t>(p),
                [&](const GuestGroup& group, size_t guest) {
                    if (group.home != home) {
                        home = group.home;
                        home_base = base_of(distances_(home));
                        // Needed once one of its runs is chosen.
                        __builtin_prefetch(&list.guests[guest]);
                        __builtin_prefetch(&directory_.lists[home]);
                    }
                    bases[runs + guest] = home_base;
                    counts_.summaries++;
                });
    }

    static void add_bases(const uint16_t* bases, uint16_t* scores) {
        for (size_t s = 0; s < run_size; s++) {
            const uint32_t score = std::min<uint32_t>(scores[s] + bases[s], saturated_score);
            scores[s] = bases[s] == empty_slot ? empty_slot : static_cast<uint16_t>(score);
        }
    }

    /// The histogram of the scores that are there; false if there are none.
    bool count_scores() {
        const size_t slots = counts_.blocks * run_size;
        uint16_t highest = 0;
        lowest_ = empty_slot;
        for (size_t i = 0; i < slots; i++) {
            const uint16_t score = scratch_.scores[i];
            lowest_ = std::min(lowest_, score);
            highest = std::max(highest, score == empty_slot ? uint16_t{0} : score);
        }
        if (lowest_ == empty_slot) {
            return false;
        }
        shift_ = 0;
        while ((static_cast<unsigned>(highest - lowest_) >> shift_) >= buckets) {
            shift_++;
        }
        scratch_.histogram.assign(buckets + 1, 0);
        for (size_t i = 0; i < slots; i++) {
            const uint16_t score = scratch_.scores[i];
            scratch_.histogram[score == empty_slot ? buckets : (score - lowest_) >> shift_]++;
        }
        scratch_.ordered.resize(slots);
        scratch_.bucket_start.resize(buckets);
        return true;
    }

    /// Counting sort of the slots whose scores lie in buckets [from, to).
    void order_buckets(size_t from, size_t to) {
        for (size_t i = 0; i < counts_.blocks * run_size; i++) {
            const uint16_t score = scratch_.scores[i];
            const size_t bucket = static_cast<uint16_t>(score - lowest_) >> shift_;
            if (score != empty_slot && bucket >= from && bucket < to) {
                scratch_.ordered[scratch_.bucket_start[bucket]++] =
                        static_cast<uint64_t>(score) << 32 | i;
            }
        }
    }

    void take(uint64_t scored_slot, std::vector<ChosenRun>& chosen) {
        const size_t slot = static_cast<uint32_t>(scored_slot);
        const ChoiceScratch::ScoredBlock& block = scratch_.blocks[slot / run_size];
        const ListRuns& list = directory_.lists[block.list];
        const size_t number = block.first + slot % run_size, runs = list.runs();
        ChosenRun run;
        run.home = block.list;
        run.run = static_cast<uint32_t>(number);
        if (number >= runs) {
            run.home = list.guests[number - runs].home;
            run.run = list.guests[number - runs].run;
        }
        const ListRuns& home = directory_.lists[run.home];
        if (home.stale) {
            return;
        }
        run.size = static_cast<uint16_t>(home.size_of_run(run.run));
        run.score = static_cast<uint16_t>(scored_slot >> 32);
        counts_.vectors += run.size;
        chosen.push_back(run);
    }

    const RunDirectory& directory_;
    const RunCodec& codec_;
    const BlockLayout layout_;
    const QueryTables& tables_;
    const ProbedLists& probed_;
    const HomeDistances& distances_;
    ChoiceScratch& scratch_;
    const ScoreBlock score_block_;
    const float least_; ///< distance of the nearest list
    ChoiceCounts counts_;
    uint16_t lowest_ = empty_slot;
    unsigned shift_ = 0;
};

} // namespace

ChoiceCounts choose_runs(
        const RunDirectory& directory,
        const RunCodec& codec,
        const QueryTables& tables,
        const ProbedLists& probed,
        const HomeDistances& distances,
        size_t budget,
        ChoiceScratch& scratch,
        std::vector<ChosenRun>& chosen) {
    RunChooser chooser(directory, codec, tables, probed, distances, scratch);
    chooser.score_all();
    return chooser.choose(budget, chosen);
}

} // namespace faiss_gmm
