// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The runs worth a visit.
//   (1) score(run) = 16-bit |q - c_home|^2 above the least + constant + look-ups (lookup.h)
//   (2) best first until their sizes reach the budget
// Phases: 1 blocks of the probed lists' own runs, a base a block; 2 blocks of their guests, a base
// a slot; 3 a histogram of the scores, and a counting sort of the buckets that the budget reaches;
// within the last one an exact order. Cost: a look-up of codes / 2 * 32 bytes a block; two passes
// over the scores. No sort but of one bucket. Determinism: integers; equal scores stand in the
// order of lists and slots.
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
    rank_.resize(nlist, -1);
    for (size_t p = 0; p < probed.n; p++) {
        if (probed.list[p] >= 0 && rank_[probed.list[p]] < 0) {
            rank_[probed.list[p]] = static_cast<int32_t>(p);
        }
    }
}

void ProbeRanks::clear(const ProbedLists& probed) {
    for (size_t p = 0; p < probed.n; p++) {
        if (probed.list[p] >= 0) {
            rank_[probed.list[p]] = -1;
        }
    }
}

ChoiceCounts choose_runs(
        const RunDirectory& directory,
        const RunCodec& codec,
        const QueryTables& tables,
        const ProbedLists& probed,
        const HomeDistances& distances,
        size_t budget,
        ChoiceScratch& scratch,
        std::vector<ChosenRun>& chosen) {
    ChoiceCounts counts;
    chosen.clear();
    scratch.blocks.clear();
    scratch.ranks.set(directory.lists.size(), probed);
    const ScoreBlock score_block = score_block_kernel();
    const BlockLayout layout = codec.summary_layout();
    const auto base_of = [&](float distance, float least) {
        const float above = codec.inner_product ? least - distance : distance - least;
        return scaled_base(above, tables.scale);
    };
    const float least = probed.n > 0 ? probed.distance[0] : 0;

    const auto new_block = [&](int32_t list, size_t first, bool guests) {
        scratch.blocks.push_back({list, static_cast<uint32_t>(first), guests});
        const size_t slots = scratch.blocks.size() * run_size;
        if (scratch.scores.size() < slots) {
            scratch.scores.resize(2 * slots);
        }
        return scratch.scores.data() + slots - run_size;
    };
    for (size_t p = 0; p < probed.n; p++) {
        if (probed.list[p] < 0 || scratch.ranks[probed.list[p]] != static_cast<int32_t>(p)) {
            continue;
        }
        const auto l = static_cast<int32_t>(probed.list[p]);
        const ListRuns& list = directory.lists[l];
        const uint16_t base = base_of(probed.distance[p], least);
        const size_t runs = list.usable_runs();
        for (size_t first = 0; first < runs; first += run_size) {
            const uint8_t* block = list.own.data() + first / run_size * layout.bytes();
            score_block(
                    block,
                    layout.rows(),
                    tables.summary.data(),
                    tables.summary_scale,
                    base,
                    saturated_score,
                    new_block(l, first, false));
        }
        counts.summaries += runs;
        for (size_t first = 0; first < list.guests.size(); first += run_size) {
            const uint8_t* block = list.guest_blocks.data() + first / run_size * layout.bytes();
            uint16_t* scores = new_block(l, first, true);
            score_block(
                    block,
                    layout.rows(),
                    tables.summary.data(),
                    tables.summary_scale,
                    0,
                    saturated_score,
                    scores);
            const size_t slots = std::min(run_size, list.guests.size() - first);
            for (size_t s = 0; s < slots; s++) {
                const auto rank = static_cast<int32_t>(p);
                if (passed_over(directory, list, first + s, scratch.ranks, rank)) {
                    scores[s] = empty_slot;
                    continue;
                }
                const int32_t home = list.guests[first + s].home;
                const uint32_t score = scores[s] + base_of(distances(home), least);
                scores[s] = static_cast<uint16_t>(std::min<uint32_t>(score, saturated_score));
                counts.summaries++;
            }
        }
    }
    scratch.ranks.clear(probed);
    counts.blocks = scratch.blocks.size();

    // Histogram of the scores that are there.
    const size_t slots = counts.blocks * run_size;
    uint16_t lowest = empty_slot, highest = 0;
    for (size_t i = 0; i < slots; i++) {
        const uint16_t score = scratch.scores[i];
        lowest = std::min(lowest, score);
        highest = std::max(highest, score == empty_slot ? uint16_t{0} : score);
    }
    if (lowest == empty_slot) {
        return counts;
    }
    unsigned shift = 0;
    while ((static_cast<unsigned>(highest - lowest) >> shift) >= buckets) {
        shift++;
    }
    scratch.histogram.assign(buckets + 1, 0);
    for (size_t i = 0; i < slots; i++) {
        const uint16_t score = scratch.scores[i];
        const size_t bucket = score == empty_slot ? buckets : (score - lowest) >> shift;
        scratch.histogram[bucket]++;
    }
    // Runs hold at most 32, so these many of the best hold the budget if they are full; the walk
    // below takes more buckets where they are not.
    const size_t wanted = budget / run_size + 1;
    scratch.ordered.resize(slots);
    scratch.bucket_start.resize(buckets);
    size_t from_bucket = 0;
    while (counts.vectors < budget && from_bucket < buckets) {
        size_t to_bucket = from_bucket, found = 0;
        while (to_bucket < buckets && found < wanted) {
            scratch.bucket_start[to_bucket] = static_cast<uint32_t>(found);
            found += scratch.histogram[to_bucket++];
        }
        for (size_t i = 0; i < slots; i++) {
            const uint16_t score = scratch.scores[i];
            if (score == empty_slot) {
                continue;
            }
            const size_t bucket = (score - lowest) >> shift;
            if (bucket >= from_bucket && bucket < to_bucket) {
                scratch.ordered[scratch.bucket_start[bucket]++] =
                        static_cast<uint64_t>(score) << 32 | i;
            }
        }
        const size_t last = found - scratch.histogram[to_bucket - 1];
        std::sort(scratch.ordered.begin() + last, scratch.ordered.begin() + found);
        for (size_t i = 0; i < found && counts.vectors < budget; i++) {
            const size_t slot = static_cast<uint32_t>(scratch.ordered[i]);
            const ChoiceScratch::ScoredBlock& block = scratch.blocks[slot / run_size];
            const size_t number = block.first + slot % run_size;
            ChosenRun run;
            run.home = block.list;
            run.run = static_cast<uint32_t>(number);
            if (block.guests) {
                const Guest& guest = directory.lists[block.list].guests[number];
                run.home = guest.home;
                run.run = guest.run;
            }
            run.size = static_cast<uint16_t>(directory.lists[run.home].size_of_run(run.run));
            run.score = static_cast<uint16_t>(scratch.ordered[i] >> 32);
            counts.vectors += run.size;
            chosen.push_back(run);
        }
        from_bucket = to_bucket;
    }
    return counts;
}

} // namespace faiss_gmm
