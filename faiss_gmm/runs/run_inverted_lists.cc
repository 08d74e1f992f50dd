// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Lists in runs. What the directory holds after organise(), list by list:
//   entries in split form | entries that came later, split among themselves: runs of 32, each with a
//   summary and a block of sketches; behind the summaries those of its guests, by value: runs of other lists that
//   spill into this one.
// Phases of bringing lists into order:
//   1 split the lists that need it (parallel over lists, a million vectors at a time), or append to their last runs:
//     codes only;
//   2 place the runs of what was split by the responsibilities of their means;
//   3 renew the ranges of the constants if one fell outside, and write constants (parallel);
//   4 exchange guests: lists that lose or gain some get their guest blocks made anew.
// Invariants: check().
// Determinism: a list's split form is a function of the set of its (id, code) pairs; guests stand
// in ascending order; ranges after compact() are those of all constants.
#include "faiss_gmm/runs/run_inverted_lists.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <numeric>
#include <optional>
#include <typeinfo>

#include <fmt/format.h>

#include <faiss/invlists/OnDiskInvertedLists.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/compat/layout.h"
#include "faiss_gmm/mixture/clock.h"
#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/runs/component_ranking.h"
#include "faiss_gmm/runs/large_array.h"
#include "faiss_gmm/runs/mapped.h"
#include "faiss_gmm/runs/parallel.h"
#include "faiss_gmm/runs/run_lists_io.h"
#include "faiss_gmm/runs/split.h"
#include "faiss_gmm/runs/vector_ops.h"
#include "faiss_gmm/train/finite_rows.h"

namespace faiss_gmm {
namespace {

constexpr size_t arrivals_share = 16;    // a list is split again when over 1/16 of it came since
constexpr size_t most_between = 8192;    // bytes of the allocator's between neighbouring arrays
constexpr size_t placed_at_once = 32768; // run means whose responsibilities are asked for together

size_t blocks_for(size_t slots) {
    return (slots + run_size - 1) / run_size;
}

/// Grows an array of blocks to hold `slots`, new ones empty.
void resize_blocks(Blocks& blocks, const BlockLayout& layout, size_t count) {
    const size_t before = blocks.size() / layout.bytes();
    blocks.resize(count * layout.bytes());
    for (size_t b = before; b < count; b++) {
        layout.clear(blocks.data() + b * layout.bytes());
    }
}

/// The block that holds a slot.
uint8_t* block_of(Blocks& blocks, const BlockLayout& layout, size_t slot) {
    return blocks.data() + slot / run_size * layout.bytes();
}
const uint8_t* block_of(const Blocks& blocks, const BlockLayout& layout, size_t slot) {
    return blocks.data() + slot / run_size * layout.bytes();
}

[[noreturn]] void broken_runs(const std::string& what) {
    throw Error(
            {"checking the runs of an index",
             what,
             "a directory that agrees with its lists",
             "rebuild the index, and report how it came to this"});
}

} // namespace

/// What splitting a list leaves for the later phases.
struct RunInvertedLists::SplitList {
    size_t list = 0;
    std::vector<int32_t> further_before;
    std::vector<float> run_means; ///< [runs, d]; empty where nothing spills
};

RunInvertedLists::RunInvertedLists(std::unique_ptr<faiss::InvertedLists> inner)
        : faiss::InvertedLists(compat::checked(inner->nlist), inner->code_size),
          inner_(std::move(inner)) {
    directory_.lists.resize(nlist);
}

RunInvertedLists::~RunInvertedLists() = default;

size_t RunInvertedLists::list_size(size_t list_no) const {
    return inner_->list_size(list_no);
}
const uint8_t* RunInvertedLists::get_codes(size_t list_no) const {
    return inner_->get_codes(list_no);
}
const int64_t* RunInvertedLists::get_ids(size_t list_no) const {
    return inner_->get_ids(list_no);
}
void RunInvertedLists::release_codes(size_t list_no, const uint8_t* codes) const {
    inner_->release_codes(list_no, codes);
}
void RunInvertedLists::release_ids(size_t list_no, const int64_t* ids) const {
    inner_->release_ids(list_no, ids);
}
int64_t RunInvertedLists::get_single_id(size_t list_no, size_t offset) const {
    return inner_->get_single_id(list_no, offset);
}
const uint8_t* RunInvertedLists::get_single_code(size_t list_no, size_t offset) const {
    return inner_->get_single_code(list_no, offset);
}
/// Stock searches begin with it; ours do not need it.
void RunInvertedLists::prefetch_lists(const int64_t* list_nos, int n) const {
    const bool holds_copies =
            state_->mixture.K > 0 && state_->spill.storage == SpillStorage::copies;
    // Over plain lists a stock index finds what ours does.
    if (!has_index() && (has_runs() || holds_copies) && stock_search_warning()) {
        std::call_once(told_, [&] {
            stock_search_warning()("a stock index searches lists of an IVFGMM index: it finds what "
                                   "a plain IVF finds; "
                                   "promote() makes an IVFGMM index of it");
        });
    }
    inner_->prefetch_lists(list_nos, n);
}
size_t RunInvertedLists::add_entries(
        size_t list_no, size_t n_entry, const int64_t* ids, const uint8_t* code) {
    return inner_->add_entries(list_no, n_entry, ids, code);
}
void RunInvertedLists::update_entries(
        size_t list_no, size_t offset, size_t n_entry, const int64_t* ids, const uint8_t* code) {
    inner_->update_entries(list_no, offset, n_entry, ids, code);
    if (offset < directory_.lists[list_no].covered && n_entry > 0) {
        directory_.lists[list_no].stale = true;
    }
}
void RunInvertedLists::resize(size_t list_no, size_t new_size) {
    inner_->resize(list_no, new_size);
    if (new_size < directory_.lists[list_no].covered) {
        directory_.lists[list_no].stale = true;
    }
}
void RunInvertedLists::reset() {
    inner_->reset();
    forget_runs();
}

void RunInvertedLists::make_room(const std::vector<size_t>& arriving) {
    auto* lists = dynamic_cast<faiss::ArrayInvertedLists*>(inner_.get());
    if (lists == nullptr) {
        return; // not in memory
    }
    // All codes first: so those of one list stand next to those of another.
    std::vector<std::pair<uint8_t*, size_t>> taken; // address, bytes
    for (const auto reserve : {compat::reserve_codes, compat::reserve_ids}) {
        for (size_t l = 0; l < nlist; l++) {
            if (arriving[l] > 0) {
                taken.push_back(reserve(*lists, l, lists->list_size(l) + arriving[l]));
            }
        }
    }
    std::sort(taken.begin(), taken.end());
    size_t i = 0;
    while (i < taken.size() && taken[i].second == 0) { // nothing new
        i++;
    }
    while (i < taken.size()) {
        uint8_t* const first = taken[i].first;
        uint8_t* end = first;
        for (; i < taken.size() && taken[i].first <= end + most_between; i++) {
            end = taken[i].first + taken[i].second;
        }
        ask_for_huge_pages(first, end - first, true);
    }
}

void RunInvertedLists::set_state(std::shared_ptr<const CoarseState> state) {
    MixtureLists::set_state(std::move(state));
    forget_runs();
    directory_.take_shape(state_->spill, state_->sketched);
}

std::unique_ptr<faiss::InvertedLists> RunInvertedLists::copy() const {
    const auto* in_memory = dynamic_cast<const faiss::ArrayInvertedLists*>(inner_.get());
    if (in_memory == nullptr || typeid(*in_memory) != typeid(faiss::ArrayInvertedLists)) {
        throw Error(
                {"copying inverted lists",
                 "lists of another class than faiss::ArrayInvertedLists",
                 "lists in memory",
                 "write the index, and read it again"});
    }
    auto lists = std::make_unique<RunInvertedLists>(
            std::make_unique<faiss::ArrayInvertedLists>(*in_memory));
    lists->state_ = state_;
    lists->directory_ = directory_;
    lists->directory_.pack(); // out of the array that it shares with this one
    lists->keep_for_index(kept_for_index());
    lists->engine = engine;
    return lists;
}

void RunInvertedLists::restore(std::shared_ptr<const CoarseState> state, RunDirectory directory) {
    state_ = std::move(state);
    directory_ = std::move(directory);
    directory_.lists.resize(nlist);
    try {
        if (has_runs()) {
            check_guests(); // before anything is made of them
            parallel_for(nlist, [&](size_t l) { make_room_for_guests(l); });
            parallel_for(nlist, [&](size_t l) { write_guests(l); });
        }
        check_structure();
        directory_.pack();
    } catch (...) {
        forget_runs();
        throw;
    }
}

bool RunInvertedLists::is_run(const Guest& guest) const {
    return guest.home >= 0 && static_cast<size_t>(guest.home) < nlist &&
           guest.run < directory_.lists[guest.home].runs();
}

void RunInvertedLists::forget_runs() noexcept {
    directory_.clear();
}

bool RunInvertedLists::has_runs() const {
    return state_->codec.trained && state_->spill.storage == SpillStorage::shared;
}

bool RunInvertedLists::is_writable() const {
    const auto* on_disk = dynamic_cast<const faiss::OnDiskInvertedLists*>(inner_.get());
    return on_disk == nullptr || !on_disk->read_only;
}

std::vector<size_t> RunInvertedLists::organise(const DecodeEntries& decode, OrganiseTimes& times) {
    if (!has_runs()) {
        return {};
    }
    std::vector<size_t> to_split, to_append;
    for (size_t l = 0; l < nlist; l++) {
        const ListRuns& list = directory_.lists[l];
        const size_t size = inner_->list_size(l);
        if (!list.stale && size == list.covered) {
            continue;
        }
        const size_t arrivals = size - std::min(size, list.split_entries);
        const bool grown = arrivals * arrivals_share > size;
        if (list.stale || list.split_entries == 0 || grown) {
            to_split.push_back(l);
        } else {
            to_append.push_back(l);
        }
    }
    return bring_into_order(to_split, to_append, false, decode, times);
}

std::vector<size_t> RunInvertedLists::compact(const DecodeEntries& decode, OrganiseTimes& times) {
    if (!has_runs()) {
        return {};
    }
    std::vector<size_t> to_split;
    for (size_t l = 0; l < nlist; l++) {
        const ListRuns& list = directory_.lists[l];
        if (list.stale || inner_->list_size(l) != list.split_entries) {
            to_split.push_back(l);
        }
    }
    return bring_into_order(to_split, {}, true, decode, times);
}

std::vector<size_t> RunInvertedLists::bring_into_order(
        const std::vector<size_t>& to_split,
        const std::vector<size_t>& to_append,
        bool exact_range,
        const DecodeEntries& decode,
        OrganiseTimes& times) {
    try {
        return split_and_append(to_split, to_append, exact_range, decode, times);
    } catch (...) {
        forget_runs(); // plain lists, rather than a directory half made
        throw;
    }
}

std::vector<size_t> RunInvertedLists::split_and_append(
        const std::vector<size_t>& to_split,
        const std::vector<size_t>& to_append,
        bool exact_range,
        const DecodeEntries& decode,
        OrganiseTimes& times) {
    std::vector<SplitList> splits(to_split.size());
    std::vector<OrganiseTimes> spent(to_split.size());
    const Clock::time_point begin = Clock::now();
    double wall = 0; // of splitting
    const auto runs_of = [&](size_t i) { return blocks_for(inner_->list_size(to_split[i])); };
    size_t to_place = 0;
    for (size_t i = 0; i < to_split.size(); i++) {
        to_place += runs_of(i);
    }
    std::optional<ComponentRanking> ranking;
    if (directory_.stride() > 0 && to_place > 0) {
        ranking.emplace(engine, state_->mixture, state_->codec, to_place);
    }
    // Some lists at a time: what a split leaves to be placed is as large as a 32nd of its vectors.
    for (size_t first = 0, end = 0; first < to_split.size(); first = end) {
        for (size_t runs = 0; end < to_split.size() && runs < placed_at_once; end++) {
            runs += runs_of(end);
        }
        const Clock::time_point begin_split = Clock::now();
        parallel_for(end - first, [&](size_t i) {
            split(to_split[first + i], decode, splits[first + i], spent[first + i]);
        });
        wall += seconds_since(begin_split);
        if (ranking) {
            place(*ranking, splits.data() + first, splits.data() + end);
        }
    }
    std::vector<size_t> first_new(to_append.size());
    for (size_t i = 0; i < to_append.size(); i++) {
        first_new[i] = directory_.lists[to_append[i]].open_run() * run_size;
    }
    parallel_for(to_append.size(), [&](size_t i) { append(to_append[i], decode); });

    parallel_for(to_split.size(), [&](size_t i) { measure_constants(to_split[i], 0); });
    parallel_for(
            to_append.size(), [&](size_t i) { measure_constants(to_append[i], first_new[i]); });
    if (renew_ranges(exact_range)) {
        parallel_for(nlist, [&](size_t l) { write_constants(l, 0); });
        exchange_guests(splits, to_append);
        parallel_for(nlist, [&](size_t l) { write_guests(l); });
    } else {
        parallel_for(to_split.size(), [&](size_t i) { write_constants(to_split[i], 0); });
        parallel_for(
                to_append.size(), [&](size_t i) { write_constants(to_append[i], first_new[i]); });
        exchange_guests(splits, to_append);
    }

    directory_.pack();

    // Threads share the wall time of the first phase in the proportion of their own times.
    OrganiseTimes sums;
    for (const OrganiseTimes& t : spent) {
        sums.split += t.split;
        sums.sketch += t.sketch;
    }
    const double sum = sums.split + sums.sketch;
    const double split_wall = sum > 0 ? wall * sums.split / sum : wall;
    times.split += split_wall;
    times.sketch += seconds_since(begin) - split_wall;
    std::vector<size_t> moved = to_split;
    moved.insert(moved.end(), to_append.begin(), to_append.end());
    return moved;
}

void RunInvertedLists::split(
        size_t l, const DecodeEntries& decode, SplitList& result, OrganiseTimes& times) {
    const Clock::time_point begin = Clock::now();
    const CoarseState& state = *state_;
    const size_t d = state.codec.d, kept = state.codec.kept;
    ListRuns& list = directory_.lists[l];
    const size_t n = inner_->list_size(l);
    result.list = l;
    result.further_before = std::move(list.further);

    const std::vector<uint32_t> by_id = order_by_id(l, 0, n);
    std::vector<float> stored(n * d), x(n * d), y(n * kept);
    if (n > 0) {
        decode_rows(l, 0, n, decode, stored.data());
    }
    for (size_t i = 0; i < n; i++) {
        std::copy_n(stored.data() + by_id[i] * d, d, x.data() + i * d);
    }
    state.codec.rotate_residuals(n, x.data(), l, y.data());
    std::vector<uint32_t> order;
    balanced_split(n, kept, y.data(), order);
    reorder_entries(l, 0, by_id, order);
    const double split_seconds = seconds_since(begin);

    list.stale = false;
    list.covered = list.split_entries = n;
    const size_t runs = list.runs();
    list.further.assign(runs * directory_.stride(), -1);
    list.summaries = Blocks();
    list.sketches = Blocks();
    resize_blocks(list.summaries, state.codec.summary_layout(), blocks_for(runs));
    if (directory_.sketched) {
        resize_blocks(list.sketches, state.codec.sketch_layout(), runs);
    }
    const bool spills = directory_.stride() > 0;
    if (spills) {
        result.run_means.assign(runs * d, 0.0f);
    }
    std::vector<float> mean(kept), rows(run_size * kept);
    for (size_t run = 0; run < runs; run++) {
        const size_t first = run * run_size, size = list.size_of_run(run);
        for (size_t i = 0; i < size; i++) {
            const size_t member = order[first + i];
            std::copy_n(y.data() + member * kept, kept, rows.data() + i * kept);
            if (spills) {
                const float* row = x.data() + member * d;
                const float share = state.codec.weight_in_mean(row) / static_cast<float>(size);
                add_scaled(d, share, row, result.run_means.data() + run * d);
            }
        }
        mean_of_rows(size, kept, rows.data(), mean.data());
        encode_run(l, run, mean.data());
        encode_sketches(l, run, rows.data());
    }
    times.split += split_seconds;
    times.sketch += seconds_since(begin) - split_seconds;
}

/// Decodes entries [first, first + n) of a list into x [n, d]. Rows that hold NaN or Inf (stock code may
/// have stored some) stand at their list's mean: they are nobody's neighbours, and must not spoil runs.
void RunInvertedLists::decode_rows(
        size_t l, size_t first, size_t n, const DecodeEntries& decode, float* x) const {
    const size_t d = state_->codec.d;
    decode(l, first, n, x);
    for (size_t i = 0; i < n; i++) {
        if (!all_finite(d, x + i * d)) {
            std::copy_n(state_->mixture.means.data() + l * d, d, x + i * d);
        }
    }
}

/// Gives the entries that came since the last split their runs: those nearest to the last run fill it
/// up, the others are split among themselves. That run is coded anew: its other hosts learn of it in
/// exchange_guests().
void RunInvertedLists::append(size_t l, const DecodeEntries& decode) {
    const RunCodec& codec = state_->codec;
    const size_t d = codec.d, kept = codec.kept;
    ListRuns& list = directory_.lists[l];
    const size_t first = list.split_entries, after = inner_->list_size(l);
    const size_t open_run = list.open_run(), begin = open_run * run_size;
    // Entries [begin, after) as they are to stand: members of the open run, then the arrivals.
    const size_t members = first - begin, n = after - begin, arrivals = after - first;
    std::vector<float> stored(n * d), x(n * d), y(n * kept), mean(kept);
    decode_rows(l, begin, n, decode, stored.data());
    const std::vector<uint32_t> by_id = order_by_id(l, first, arrivals);
    std::copy_n(stored.data(), members * d, x.data());
    for (size_t i = 0; i < arrivals; i++) {
        std::copy_n(stored.data() + (members + by_id[i]) * d, d, x.data() + (members + i) * d);
    }
    codec.rotate_residuals(n, x.data(), l, y.data());
    const float* arrived = y.data() + members * kept;

    // The open run takes the arrivals nearest to it.
    std::vector<uint32_t> order(arrivals);
    std::iota(order.begin(), order.end(), 0u);
    const size_t open = members > 0 ? std::min(arrivals, run_size - members) : 0;
    if (open > 0) {
        mean_of_rows(members, kept, y.data(), mean.data());
        std::vector<std::pair<float, uint32_t>> nearest(arrivals);
        for (uint32_t i = 0; i < arrivals; i++) {
            const float distance = squared_distance(kept, arrived + i * kept, mean.data());
            nearest[i] = {std::isfinite(distance) ? distance : 0, i};
        }
        std::nth_element(nearest.begin(), nearest.begin() + (open - 1), nearest.end());
        for (size_t i = 0; i < arrivals; i++) {
            order[i] = nearest[i].second;
        }
    }
    std::vector<float> rest((arrivals - open) * kept);
    for (size_t i = open; i < arrivals; i++) {
        std::copy_n(arrived + order[i] * kept, kept, rest.data() + (i - open) * kept);
    }
    std::vector<uint32_t> split_order;
    balanced_split(arrivals - open, kept, rest.data(), split_order);
    const std::vector<uint32_t> unsplit(order.begin() + open, order.end());
    for (size_t i = open; i < arrivals; i++) {
        order[i] = unsplit[split_order[i - open]];
    }
    reorder_entries(l, first, by_id, order);
    std::vector<float> ordered(y.begin(), y.begin() + members * kept);
    ordered.reserve(n * kept);
    for (size_t i = 0; i < arrivals; i++) {
        const float* row = arrived + order[i] * kept;
        ordered.insert(ordered.end(), row, row + kept);
    }

    list.covered = after;
    const size_t runs = list.runs();
    list.further.resize(runs * directory_.stride(), -1);
    const BlockLayout layout = codec.summary_layout();
    resize_blocks(
            list.summaries,
            layout,
            std::max(blocks_for(runs), list.summaries.size() / layout.bytes()));
    if (directory_.sketched) {
        resize_blocks(list.sketches, codec.sketch_layout(), runs);
    }
    for (size_t run = open_run; run < runs; run++) {
        const float* rows = ordered.data() + (run - open_run) * run_size * kept;
        mean_of_rows(list.size_of_run(run), kept, rows, mean.data());
        encode_run(l, run, mean.data());
        encode_sketches(l, run, rows);
    }
}

/// The sketches of a run whose summary is coded; rows: its members' residuals [size, kept].
void RunInvertedLists::encode_sketches(size_t l, size_t run, const float* rows) {
    if (!directory_.sketched) {
        return;
    }
    const RunCodec& codec = state_->codec;
    const BlockLayout layout = codec.summary_layout();
    const ListRuns& list = directory_.lists[l];
    std::vector<uint8_t> code(layout.codes);
    std::vector<float> decoded(codec.kept);
    layout.get_codes(block_of(list.summaries, layout, run), run % run_size, code.data());
    codec.summary.decode(codec.kept, code.data(), decoded.data());
    for (size_t i = 0; i < list.size_of_run(run); i++) {
        encode_sketch(l, run * run_size + i, rows + i * codec.kept, decoded.data());
    }
}

/// Entries [first, first + n) of a list in an order that depends on their set alone: by id, then by code.
std::vector<uint32_t> RunInvertedLists::order_by_id(size_t l, size_t first, size_t n) const {
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    const ScopedIds ids(inner_.get(), l);
    const ScopedCodes codes(inner_.get(), l);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        const int64_t id_a = number_at(ids.ids, first + a), id_b = number_at(ids.ids, first + b);
        if (id_a != id_b) {
            return id_a < id_b;
        }
        return std::memcmp(
                       codes.codes + (first + a) * code_size,
                       codes.codes + (first + b) * code_size,
                       code_size) < 0;
    });
    return order;
}

/// Puts entry first + by_id[order[i]] at first + i.
void RunInvertedLists::reorder_entries(
        size_t l,
        size_t first,
        const std::vector<uint32_t>& by_id,
        const std::vector<uint32_t>& order) {
    const size_t n = order.size();
    if (n == 0) {
        return;
    }
    std::vector<int64_t> ids(n);
    std::vector<uint8_t> codes(n * code_size);
    {
        const ScopedIds stored_ids(inner_.get(), l);
        const ScopedCodes stored_codes(inner_.get(), l);
        for (size_t i = 0; i < n; i++) {
            const size_t from = first + by_id[order[i]];
            ids[i] = number_at(stored_ids.ids, from);
            std::copy_n(
                    stored_codes.codes + from * code_size, code_size, codes.data() + i * code_size);
        }
    }
    inner_->update_entries(l, first, n, ids.data(), codes.data());
}

void RunInvertedLists::encode_run(size_t l, size_t run, const float* mean) {
    const RunCodec& codec = state_->codec;
    const BlockLayout layout = codec.summary_layout();
    thread_local std::vector<uint8_t> code;
    thread_local std::vector<float> decoded;
    code.resize(layout.codes);
    decoded.resize(codec.kept);
    codec.summary.encode(codec.kept, mean, code.data(), decoded.data());
    uint8_t* block = block_of(directory_.lists[l].summaries, layout, run);
    layout.put_codes(block, run % run_size, code.data());
    layout.put_constant(
            block, run % run_size, 0); // holds something; its value comes with the ranges
}

void RunInvertedLists::encode_sketch(
        size_t l, size_t entry, const float* y, const float* decoded_run) {
    const RunCodec& codec = state_->codec;
    const BlockLayout layout = codec.sketch_layout();
    thread_local std::vector<uint8_t> code;
    thread_local std::vector<float> leftover, decoded;
    code.resize(layout.codes);
    leftover.resize(codec.kept);
    decoded.resize(codec.kept);
    for (size_t t = 0; t < codec.kept; t++) {
        leftover[t] = y[t] - decoded_run[t];
    }
    codec.sketch.encode(codec.kept, leftover.data(), code.data(), decoded.data());
    uint8_t* block = block_of(directory_.lists[l].sketches, layout, entry);
    layout.put_codes(block, entry % run_size, code.data());
    layout.put_constant(block, entry % run_size, 0);
}

/// Says which further lists the runs of these splits belong to, and lets go of their means.
void RunInvertedLists::place(ComponentRanking& ranking, SplitList* first, SplitList* end) {
    const CoarseState& state = *state_;
    const size_t d = state.codec.d;
    const size_t m = std::min(state.spill.m, state.mixture.K);
    std::vector<float> means;
    std::vector<std::pair<size_t, size_t>> owners; // (list, run)
    for (SplitList* split = first; split < end; split++) {
        means.insert(means.end(), split->run_means.begin(), split->run_means.end());
        for (size_t run = 0; run < split->run_means.size() / d; run++) {
            owners.emplace_back(split->list, run);
        }
        std::vector<float>().swap(split->run_means); // not "= {}", which keeps the memory
    }
    if (owners.empty()) {
        return;
    }
    TopResponsibilities top;
    ranking.rank_modelled(owners.size(), means.data(), m, top);
    parallel_for(owners.size(), [&](size_t i) {
        const size_t l = owners[i].first;
        const float* mean = means.data() + i * d;
        const float* home_mean = state.mixture.means.data() + l * d;
        thread_local std::vector<int32_t> lists;
        choose_lists(
                state.spill,
                state.mixture,
                static_cast<int32_t>(l),
                squared_distance(d, mean, home_mean),
                candidates_of(top, m, i),
                lists);
        int32_t* row = directory_.lists[l].further.data() + owners[i].second * directory_.stride();
        std::copy(lists.begin() + 1, lists.end(), row);
    });
}

/// Calls visit(block, slot, constant, kind) with the constants, from codes, of runs made from
/// first_entry on and of the sketches from first_entry on.
template <class Visit>
void RunInvertedLists::visit_constants(size_t l, size_t first_entry, Visit visit) const {
    const RunCodec& codec = state_->codec;
    const ListRuns& list = directory_.lists[l];
    const BlockLayout summaries = codec.summary_layout(), sketches = codec.sketch_layout();
    std::vector<uint8_t> code(std::max(summaries.codes, sketches.codes));
    std::vector<float> run_decoded(codec.kept), decoded(codec.kept);
    for (size_t run = first_entry / run_size; run < list.runs(); run++) {
        const size_t block = run / run_size * summaries.bytes();
        summaries.get_codes(list.summaries.data() + block, run % run_size, code.data());
        codec.summary.decode(codec.kept, code.data(), run_decoded.data());
        const float constant = codec.summary_constant(l, run_decoded.data());
        visit(true, block, run % run_size, constant);
        if (!directory_.sketched) {
            continue;
        }
        const size_t begin = std::max(first_entry, run * run_size);
        for (size_t i = begin; i < run * run_size + list.size_of_run(run); i++) {
            sketches.get_codes(
                    list.sketches.data() + run * sketches.bytes(), i % run_size, code.data());
            codec.sketch.decode(codec.kept, code.data(), decoded.data());
            visit(false,
                  run * sketches.bytes(),
                  i % run_size,
                  codec.sketch_constant(l, run_decoded.data(), decoded.data()));
        }
    }
}

void RunInvertedLists::measure_constants(size_t l, size_t first_entry) {
    ListRuns& list = directory_.lists[l];
    if (first_entry == 0) {
        list.summary_constants = list.sketch_constants = ConstantRange();
    }
    visit_constants(l, first_entry, [&](bool summary, size_t, size_t, float constant) {
        (summary ? list.summary_constants : list.sketch_constants).widen(constant);
    });
}

void RunInvertedLists::write_constants(size_t l, size_t first_entry) {
    ListRuns& list = directory_.lists[l];
    const BlockLayout summaries = state_->codec.summary_layout();
    const BlockLayout sketches = state_->codec.sketch_layout();
    visit_constants(l, first_entry, [&](bool summary, size_t block, size_t slot, float constant) {
        if (summary) {
            summaries.put_constant(
                    list.summaries.data() + block, slot, directory_.summary_range.code(constant));
        } else {
            sketches.put_constant(
                    list.sketches.data() + block, slot, directory_.sketch_range.code(constant));
        }
    });
}

bool RunInvertedLists::renew_ranges(bool exact) {
    ConstantRange summary, sketch;
    if (!exact) {
        summary = directory_.summary_range;
        sketch = directory_.sketch_range;
    }
    const auto take_in = [](ConstantRange& range, const ConstantRange& part) {
        if (part.known) {
            range.widen(part.low);
            range.widen(part.low + part.width);
        }
    };
    for (const ListRuns& list : directory_.lists) {
        if (!list.stale) {
            take_in(summary, list.summary_constants);
            take_in(sketch, list.sketch_constants);
        }
    }
    const auto same = [](const ConstantRange& a, const ConstantRange& b) {
        return a.known == b.known && a.low == b.low && a.width == b.width;
    };
    if (same(summary, directory_.summary_range) && same(sketch, directory_.sketch_range)) {
        return false;
    }
    directory_.summary_range = summary;
    directory_.sketch_range = sketch;
    return true;
}

void RunInvertedLists::exchange_guests(
        const std::vector<SplitList>& splits, const std::vector<size_t>& appended) {
    const size_t stride = directory_.stride();
    if (stride == 0) {
        return;
    }
    std::vector<uint8_t> was_split(nlist, 0), dirty(nlist, 0);
    std::vector<std::vector<Guest>> arriving(nlist);
    for (const size_t l : appended) {
        dirty[l] = 1; // its guests stand behind its own runs, and give way
        const ListRuns& list = directory_.lists[l];
        const int32_t* row = list.further.data() + list.open_run() * stride;
        for (size_t j = 0; j < stride && row[j] >= 0; j++) {
            dirty[row[j]] = 1; // holds the summary that was coded anew
        }
    }
    for (const SplitList& s : splits) {
        was_split[s.list] = dirty[s.list] = 1;
        for (const int32_t l : s.further_before) {
            if (l >= 0) {
                dirty[l] = 1;
            }
        }
        const std::vector<int32_t>& further = directory_.lists[s.list].further;
        for (size_t i = 0; i < further.size(); i++) {
            if (further[i] >= 0) {
                dirty[further[i]] = 1;
                arriving[further[i]].push_back(
                        {static_cast<int32_t>(s.list), static_cast<uint32_t>(i / stride)});
            }
        }
    }
    parallel_for(nlist, [&](size_t l) {
        if (!dirty[l]) {
            return;
        }
        std::vector<Guest>& guests = directory_.lists[l].guests;
        guests.erase(
                std::remove_if(
                        guests.begin(),
                        guests.end(),
                        [&](const Guest& guest) { return was_split[guest.home] != 0; }),
                guests.end());
        guests.insert(guests.end(), arriving[l].begin(), arriving[l].end());
        std::sort(guests.begin(), guests.end());
        guests.shrink_to_fit();
        make_room_for_guests(l);
    });
    // Only now: a list is read here by those that hold its runs, so none may move any more.
    parallel_for(nlist, [&](size_t l) {
        if (dirty[l]) {
            write_guests(l);
        }
    });
}

void RunInvertedLists::make_room_for_guests(size_t l) {
    const BlockLayout layout = state_->codec.summary_layout();
    ListRuns& list = directory_.lists[l];
    const size_t blocks = list.slots() / run_size;
    resize_blocks(list.summaries, layout, blocks);
}

/// Guests' summaries, by value from their homes, behind the list's own.
void RunInvertedLists::write_guests(size_t l) {
    const BlockLayout layout = state_->codec.summary_layout();
    const size_t stride = directory_.stride();
    ListRuns& list = directory_.lists[l];
    const size_t runs = list.runs(), slots = list.slots();
    list.guest_groups.clear();
    list.guest_further.clear();
    std::vector<uint8_t> code(layout.codes);
    for (size_t slot = runs + list.guests.size(); slot < slots; slot++) {
        layout.put_constant(block_of(list.summaries, layout, slot), slot % run_size, empty_slot);
    }
    for (size_t g = 0; g < list.guests.size(); g++) {
        const Guest& guest = list.guests[g];
        const ListRuns& home = directory_.lists[guest.home];
        const uint8_t* from = block_of(home.summaries, layout, guest.run);
        uint8_t* to = block_of(list.summaries, layout, runs + g);
        const size_t slot = (runs + g) % run_size;
        layout.get_codes(from, guest.run % run_size, code.data());
        layout.put_codes(to, slot, code.data());
        layout.put_constant(to, slot, layout.get_constant(from, guest.run % run_size));
        const int32_t* row = home.further.data() + guest.run * stride;
        list.guest_further.insert(list.guest_further.end(), row, row + stride);
        const auto number = static_cast<uint32_t>(g);
        if (list.guest_groups.empty() || list.guest_groups.back().home != guest.home) {
            list.guest_groups.push_back({guest.home, number, number});
        }
        list.guest_groups.back().end = number + 1;
    }
    list.guest_groups.shrink_to_fit();
    list.guest_further.shrink_to_fit();
}

void RunInvertedLists::check(const DecodeEntries& decode) const {
    check_structure();
    if (has_runs()) {
        parallel_for(nlist, [&](size_t l) { check_list(l, decode); });
    }
}

void RunInvertedLists::check_structure() const {
    if (!has_runs()) {
        for (const ListRuns& list : directory_.lists) {
            if (list.covered != 0 || !list.guests.empty()) {
                broken_runs("runs in an index that keeps none");
            }
        }
        return;
    }
    check_guests();
    for (size_t l = 0; l < nlist; l++) {
        check_guest_groups(l);
    }
    parallel_for(nlist, [&](size_t l) { check_list_structure(l); });
}

/// That runs name the lists that hold them, and these hold no others.
void RunInvertedLists::check_guests() const {
    const size_t stride = directory_.stride();
    size_t placed = 0, held = 0;
    for (size_t l = 0; l < nlist; l++) {
        const ListRuns& list = directory_.lists[l];
        for (const int32_t further : list.further) {
            placed += further >= 0;
        }
        held += list.guests.size();
        for (size_t g = 0; g < list.guests.size(); g++) {
            const Guest& guest = list.guests[g];
            if (g > 0 && !(list.guests[g - 1] < guest)) {
                broken_runs(fmt::format("list {}: guests {} and {} out of order", l, g - 1, g));
            }
            if (!is_run(guest) || static_cast<size_t>(guest.home) == l) {
                broken_runs(fmt::format(
                        "list {}: guest {} is run {} of list {}", l, g, guest.run, guest.home));
            }
            const int32_t* row = directory_.lists[guest.home].further.data() + guest.run * stride;
            if (std::find(row, row + stride, static_cast<int32_t>(l)) == row + stride) {
                broken_runs(fmt::format(
                        "list {}: holds run {} of list {}, which does not name it",
                        l,
                        guest.run,
                        guest.home));
            }
        }
    }
    if (placed != held) {
        broken_runs(fmt::format("{} memberships named by runs, {} held by lists", placed, held));
    }
}

/// What is kept beside a list's guests to be found quickly.
void RunInvertedLists::check_guest_groups(size_t l) const {
    const size_t stride = directory_.stride();
    const ListRuns& list = directory_.lists[l];
    if (list.guest_further.size() != list.guests.size() * stride) {
        broken_runs(fmt::format("list {}: memberships of another number of guests", l));
    }
    for (size_t g = 0; g < list.guests.size(); g++) {
        const Guest& guest = list.guests[g];
        const int32_t* row = directory_.lists[guest.home].further.data() + guest.run * stride;
        if (!std::equal(row, row + stride, list.guest_further.data() + g * stride)) {
            broken_runs(fmt::format("list {}: guest {} has old memberships", l, g));
        }
    }
    size_t grouped = 0;
    for (const GuestGroup& group : list.guest_groups) {
        const bool follows = group.begin == grouped && group.end > group.begin &&
                             group.end <= list.guests.size();
        for (size_t g = group.begin; follows && g < group.end; g++) {
            grouped += list.guests[g].home == group.home;
        }
        if (!follows || grouped != group.end) {
            broken_runs(
                    fmt::format("list {}: guests from {} on are not one home's", l, group.begin));
        }
    }
    if (grouped != list.guests.size()) {
        broken_runs(
                fmt::format("list {}: {} guests, {} in groups", l, list.guests.size(), grouped));
    }
}

void RunInvertedLists::check_list_structure(size_t l) const {
    const RunCodec& codec = state_->codec;
    const ListRuns& list = directory_.lists[l];
    const auto broken = [&](const std::string& what) {
        broken_runs(fmt::format("list {}: {}", l, what));
    };
    const size_t size = inner_->list_size(l), stride = directory_.stride();
    for (size_t run = 0; stride > 0 && run < list.further.size() / stride; run++) {
        const int32_t* row = list.further.data() + run * stride;
        for (size_t j = 0; j < stride; j++) {
            const bool outside = row[j] < -1 || row[j] >= static_cast<int64_t>(nlist);
            if (outside || row[j] == static_cast<int64_t>(l) ||
                (row[j] >= 0 && std::find(row, row + j, row[j]) != row + j) ||
                (j > 0 && row[j] >= 0 && row[j - 1] < 0)) {
                broken(fmt::format("run {} belongs to list {}", run, row[j]));
            }
        }
    }
    if (list.stale) {
        return; // its runs are not used until it is split again
    }
    if (list.covered > size || list.split_entries > list.covered) {
        broken(fmt::format(
                "{} entries, {} in runs, {} in split form",
                size,
                list.covered,
                list.split_entries));
    }
    const BlockLayout summaries = codec.summary_layout(), sketches = codec.sketch_layout();
    const size_t runs = list.runs();
    if (list.summaries.size() != list.slots() / run_size * summaries.bytes() ||
        list.sketches.size() != (directory_.sketched ? runs * sketches.bytes() : 0) ||
        list.further.size() != runs * stride) {
        broken("arrays of another size than its runs ask for");
    }
    const auto check_slots = [&](const Blocks& blocks, const BlockLayout& layout, size_t slots) {
        for (size_t s = 0; s < blocks.size() / layout.bytes() * run_size; s++) {
            const bool empty = layout.get_constant(
                                       blocks.data() + s / run_size * layout.bytes(),
                                       s % run_size) == empty_slot;
            if (empty != (s >= slots)) {
                broken(fmt::format("slot {} of {} is {}", s, slots, empty ? "empty" : "taken"));
            }
        }
    };
    check_slots(list.summaries, summaries, runs + list.guests.size());
    if (directory_.sketched) {
        check_slots(list.sketches, sketches, list.covered);
    }
}

void RunInvertedLists::check_list(size_t l, const DecodeEntries& decode) const {
    const RunCodec& codec = state_->codec;
    const ListRuns& list = directory_.lists[l];
    if (list.stale) {
        return;
    }
    const auto broken = [&](const std::string& what) {
        broken_runs(fmt::format("list {}: {}", l, what));
    };
    const BlockLayout summaries = codec.summary_layout(), sketches = codec.sketch_layout();
    const size_t runs = list.runs();
    visit_constants(l, 0, [&](bool summary, size_t block, size_t slot, float constant) {
        const uint16_t written =
                summary ? summaries.get_constant(list.summaries.data() + block, slot)
                        : sketches.get_constant(list.sketches.data() + block, slot);
        const ConstantRange& range = summary ? directory_.summary_range : directory_.sketch_range;
        if (!range.holds(constant) || written != range.code(constant)) {
            broken(fmt::format(
                    "a {}'s constant is {}, written as {}",
                    summary ? "summary" : "sketch",
                    constant,
                    written));
        }
    });
    for (size_t g = 0; g < list.guests.size(); g++) {
        const ListRuns& home = directory_.lists[list.guests[g].home];
        const size_t run = list.guests[g].run;
        std::vector<uint8_t> theirs(summaries.codes), ours(summaries.codes);
        const uint8_t* from = block_of(home.summaries, summaries, run);
        const uint8_t* to = block_of(list.summaries, summaries, runs + g);
        const size_t slot = (runs + g) % run_size;
        summaries.get_codes(from, run % run_size, theirs.data());
        summaries.get_codes(to, slot, ours.data());
        if (!home.stale && (theirs != ours || summaries.get_constant(from, run % run_size) !=
                                                      summaries.get_constant(to, slot))) {
            broken(fmt::format("guest {} differs from run {} of its home", g, run));
        }
    }
    if (!directory_.sketched || list.covered == 0) {
        return;
    }
    // A sketch must be about as near to its vector as the best code is: rounding may turn a close
    // choice.
    std::vector<float> x(list.covered * codec.d), y(list.covered * codec.kept);
    std::vector<float> run_decoded(codec.kept), leftover(codec.kept), best(codec.kept),
            decoded(codec.kept);
    std::vector<uint8_t> code(std::max(summaries.codes, sketches.codes));
    decode_rows(l, 0, list.covered, decode, x.data());
    codec.rotate_residuals(list.covered, x.data(), l, y.data());
    for (size_t i = 0; i < list.covered; i++) {
        const size_t run = i / run_size;
        summaries.get_codes(block_of(list.summaries, summaries, run), run % run_size, code.data());
        codec.summary.decode(codec.kept, code.data(), run_decoded.data());
        for (size_t t = 0; t < codec.kept; t++) {
            leftover[t] = y[i * codec.kept + t] - run_decoded[t];
        }
        codec.sketch.encode(codec.kept, leftover.data(), code.data(), best.data());
        sketches.get_codes(
                list.sketches.data() + run * sketches.bytes(), i % run_size, code.data());
        codec.sketch.decode(codec.kept, code.data(), decoded.data());
        const float error = squared_distance(codec.kept, leftover.data(), decoded.data());
        const float least = squared_distance(codec.kept, leftover.data(), best.data());
        const float norm = dot(codec.kept, leftover.data(), leftover.data());
        if (!(error <= least + 1e-3f * (least + norm) + 1e-12f)) {
            broken(fmt::format("entry {} has the sketch of another vector", i));
        }
    }
}

} // namespace faiss_gmm
