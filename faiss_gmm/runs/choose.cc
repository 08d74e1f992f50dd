// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The runs worth a visit.
//   (1) score(run) = 16-bit |q - c_home|^2 above the least + constant + look-ups (lookup.h)
//   (2) best first until their sizes reach the budget
// Phases: 1 blocks of a probed list's own runs, one base; 2 blocks that hold guests, a base a slot;
// 3 the best scores by a threshold, ordered by buckets; where the budget may end, exactly.
// Cost: a look-up of 16 codes bytes a block; a pass over the scores a step of the threshold. No sort but of
// the runs past the budget and of one bucket.
// Determinism: integers; equal scores stand in the order of lists and slots.
#include "faiss_gmm/runs/choose.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "faiss_gmm/runs/prefetch.h"
#include "faiss_gmm/runs/select.h"
#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {
namespace {

constexpr size_t buckets = 128;

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
              score_blocks_(block_kernels().score_blocks), scorer_{codec.summary.codes(),
                                                                   tables.summary.data(),
                                                                   tables.summary_scale},
              sketch_bytes_(codec.sketch_layout().bytes()),
              least_(probed.n > 0 ? probed.distance[0] : 0) {}

    void score_all() {
        scratch_.blocks.clear();
        scratch_.ranks.set(directory_.lists.size(), probed_);
        for (size_t p = 0; p < lists_ahead; p++) {
            prefetch_list(p);
        }
        for (size_t p = 0; p < blocks_ahead; p++) {
            prefetch_blocks(p);
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
        const size_t slots = counts_.blocks * run_size;
        scratch_.keys.resize(slots);
        // Runs hold at most 32: if they are full these many reach the budget, else more are looked at.
        const size_t full = budget / run_size;
        for (size_t want = full + 1;; want *= 2) {
            const size_t found =
                    select_scores(scratch_.scores.data(), slots, want, scratch_.keys.data());
            order(found, full > 0 ? full - 1 : 0); // no earlier run can be the last
            chosen.clear();
            counts_.vectors = 0;
            for (size_t i = 0; i < found && counts_.vectors < budget; i++) {
                take(scratch_.ordered[i], chosen);
            }
            if (counts_.vectors >= budget || found < want) {
                return counts_;
            }
        }
    }

private:
    static constexpr size_t lists_ahead = 12; // prefetched: the list's own numbers,
    static constexpr size_t blocks_ahead = 8; // and its summaries

    void prefetch_list(size_t p) const {
        if (p < probed_.n && probed_.list[p] >= 0) {
            const auto* list = reinterpret_cast<const char*>(&directory_.lists[probed_.list[p]]);
            __builtin_prefetch(list); // its own numbers, and its guests
            __builtin_prefetch(list + 64);
            __builtin_prefetch(list + 128);
        }
    }
    void prefetch_blocks(size_t p) const {
        if (p < probed_.n && probed_.list[p] >= 0) {
            const ListRuns& list = directory_.lists[probed_.list[p]];
            prefetch_bytes(
                    list.summaries.data(), std::min(list.summaries.size(), 2 * layout_.bytes()));
            __builtin_prefetch(list.guest_groups.data());
        }
    }

    uint16_t base_of(float distance) const {
        const float above = codec_.inner_product ? least_ - distance : distance - least_;
        return scaled_base(above, tables_.scale);
    }

    /// Scores the blocks of a list from slot `first` on; bases [32] of every block's slots.
    void score_blocks(int32_t list, size_t first, size_t count, const uint16_t* bases) {
        const size_t begin = scratch_.blocks.size() * run_size, end = begin + count * run_size;
        for (size_t i = 0; i < count; i++) {
            scratch_.blocks.push_back({list, static_cast<uint32_t>(first + i * run_size)});
        }
        if (scratch_.scores.size() < end) {
            scratch_.scores.resize(2 * end);
        }
        score_blocks_(
                scorer_,
                directory_.lists[list].summaries.data() + first / run_size * layout_.bytes(),
                count,
                bases,
                scratch_.scores.data() + begin);
    }

    void score_list(size_t p) {
        const auto l = static_cast<int32_t>(probed_.list[p]);
        const ListRuns& list = directory_.lists[l];
        const uint16_t base = base_of(probed_.distance[p]);
        const size_t runs = list.runs();
        size_t unmixed = 0; // blocks that hold no guest
        if (!list.stale) {
            counts_.summaries += runs;
            unmixed = list.guests.empty() ? (runs + run_size - 1) / run_size : runs / run_size;
            uint16_t bases[run_size];
            std::fill_n(bases, run_size, base);
            score_blocks(l, 0, unmixed, bases);
        }
        if (list.guests.empty()) {
            return;
        }
        // A base a slot; an empty mark for those that fall to another.
        const size_t first = unmixed * run_size;
        std::vector<uint16_t>& bases = scratch_.bases;
        bases.assign(list.slots() - first, empty_slot);
        if (!list.stale) {
            std::fill_n(bases.begin(), runs - first, base);
        }
        find_guest_bases(p, list, bases.data() + (runs - first));
        for (size_t slot = 0; slot < bases.size(); slot += run_size) {
            const uint16_t* of_block = bases.data() + slot;
            const bool all_elsewhere = std::all_of(
                    of_block, of_block + run_size, [](uint16_t b) { return b == empty_slot; });
            if (!all_elsewhere) {
                score_blocks(l, first + slot, 1, of_block);
            }
        }
    }

    void find_guest_bases(size_t p, const ListRuns& list, uint16_t* bases) {
        int32_t home = -1;
        uint16_t home_base = 0;
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
                    bases[guest] = home_base;
                    counts_.summaries++;
                });
    }

    /// keys [n] best first into ordered: by buckets of the score, and exactly from the bucket of number
    /// `exact_from` on.
    void order(size_t n, size_t exact_from) {
        scratch_.ordered.resize(n);
        if (n == 0) {
            return;
        }
        const uint64_t* keys = scratch_.keys.data();
        const auto [least, largest] = std::minmax_element(keys, keys + n);
        const uint64_t lowest = *least >> 32;
        unsigned shift = 0;
        while (((*largest >> 32) - lowest) >> shift >= buckets) {
            shift++;
        }
        const auto bucket_of = [&](uint64_t key) { return ((key >> 32) - lowest) >> shift; };
        uint32_t starts[buckets + 1] = {};
        for (size_t i = 0; i < n; i++) {
            starts[bucket_of(keys[i]) + 1]++;
        }
        std::partial_sum(starts, starts + buckets + 1, starts);
        const uint32_t exact =
                *(std::upper_bound(starts, starts + buckets + 1, std::min(exact_from, n - 1)) - 1);
        for (size_t i = 0; i < n; i++) {
            scratch_.ordered[starts[bucket_of(keys[i])]++] = keys[i];
        }
        std::sort(scratch_.ordered.begin() + exact, scratch_.ordered.end());
    }

    void take(uint64_t scored_slot, std::vector<ChosenRun>& chosen) {
        const size_t slot = static_cast<uint32_t>(scored_slot);
        const ChoiceScratch::ScoredBlock& block = scratch_.blocks[slot / run_size];
        const ListRuns& list = directory_.lists[block.list];
        const size_t number = block.first + slot % run_size, runs = list.runs();
        Guest member{block.list, static_cast<uint32_t>(number)};
        if (number >= runs) {
            member = list.guests[number - runs];
        }
        const ListRuns& home = directory_.lists[member.home];
        if (home.stale) {
            return;
        }
        // Written where it stands: a copy would wait for the parts it is made of.
        chosen.emplace_back();
        ChosenRun& run = chosen.back();
        run.home = member.home;
        run.run = member.run;
        run.size = static_cast<uint16_t>(home.size_of_run(run.run));
        run.score = static_cast<uint16_t>(scored_slot >> 32);
        if (directory_.sketched) {
            run.sketches = home.sketches.data() + run.run * sketch_bytes_;
        }
        counts_.vectors += run.size;
    }

    const RunDirectory& directory_;
    const RunCodec& codec_;
    const BlockLayout layout_;
    const QueryTables& tables_;
    const ProbedLists& probed_;
    const HomeDistances& distances_;
    ChoiceScratch& scratch_;
    const ScoreBlocks score_blocks_;
    const BlockScorer scorer_;
    const size_t sketch_bytes_;
    const float least_; ///< distance of the nearest list
    ChoiceCounts counts_;
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
