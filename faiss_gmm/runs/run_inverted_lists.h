// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <faiss/invlists/InvertedLists.h>

#include "faiss_gmm/runs/mixture_lists.h"
#include "faiss_gmm/runs/run_directory.h"
#include "faiss_gmm/train/engine.h"

namespace faiss_gmm {

/// Decodes entries [first, first + n) of a list into x [n, d].
using DecodeEntries = std::function<void(size_t list, size_t first, size_t n, float* x)>;

class ComponentRanking;

/// Seconds that organising took.
struct OrganiseTimes {
    double split = 0, sketch = 0;
};

/// Inverted lists with runs: a decorator over any stock lists. Stock calls pass through unchanged;
/// the directory learns of what they wrote at the next organise().
///
/// Threads: as faiss::InvertedLists (reads together; writes to different lists together);
/// organise(), compact(), set_state() and forget_runs() alone.
class RunInvertedLists : public faiss::InvertedLists, public MixtureLists {
public:
    /// Over empty or filled lists, owned from here on.
    explicit RunInvertedLists(std::unique_ptr<faiss::InvertedLists> inner);
    ~RunInvertedLists() override;

    size_t list_size(size_t list_no) const override;
    const uint8_t* get_codes(size_t list_no) const override;
    const int64_t* get_ids(size_t list_no) const override;
    void release_codes(size_t list_no, const uint8_t* codes) const override;
    void release_ids(size_t list_no, const int64_t* ids) const override;
    int64_t get_single_id(size_t list_no, size_t offset) const override;
    const uint8_t* get_single_code(size_t list_no, size_t offset) const override;
    void prefetch_lists(const int64_t* list_nos, int n) const override;
    size_t
    add_entries(size_t list_no, size_t n_entry, const int64_t* ids, const uint8_t* code) override;
    void update_entries(
            size_t list_no,
            size_t offset,
            size_t n_entry,
            const int64_t* ids,
            const uint8_t* code) override;
    void resize(size_t list_no, size_t new_size) override;
    void reset() override;

    /// Room for arriving[l] further entries in each list, before they come. What a list in memory holds
    /// room for is then at most an eighth more than it needs, and lists that are filled at once stand
    /// next to each other, on huge pages where the system gives them. Throws std::bad_alloc; entries stay
    /// as they were.
    void make_room(const std::vector<size_t>& arriving);

    /// Where runs are placed; an index sets it before it organises. Never stored.
    EngineParameters engine = exact_engine();

    /// The directory starts empty.
    void set_state(std::shared_ptr<const CoarseState> state) override;
    /// Leaves plain lists, until organise().
    void forget_runs() noexcept;
    const RunDirectory& directory() const {
        return directory_;
    }
    const faiss::InvertedLists& inner() const {
        return *inner_;
    }

    /// Whether lists are kept in runs: a trained codec, and codes stored once.
    bool has_runs() const;
    /// Whether entries may be changed: not those that are mapped read-only from a file.
    bool is_writable() const;

    /// Gives what was written since the last time its runs: entries that came fill their list's last
    /// run and form further ones, or the list is split anew where it has no split form, was
    /// overwritten, or over a sixteenth of it came since. Returns the lists whose entries stand in
    /// another order now.
    std::vector<size_t> organise(const DecodeEntries& decode, OrganiseTimes& times);
    /// Splits every list that is not in split form and renews the constants; returns those lists.
    /// What is found afterwards depends on the set of vectors alone.
    std::vector<size_t> compact(const DecodeEntries& decode, OrganiseTimes& times);
    /// Throws Error naming the first invariant of the directory that does not hold.
    void check(const DecodeEntries& decode) const;
    /// The part of check() that a search relies on to stay within the lists: no codes are decoded.
    void check_structure() const;

    /// Takes a state and a directory that came from elsewhere: of its guests, the list of them alone; what
    /// follows from it is made anew. Throws Error for a directory that does not pass check_structure(); the
    /// lists are then plain.
    void restore(std::shared_ptr<const CoarseState> state, RunDirectory directory);
    std::unique_ptr<faiss::InvertedLists> copy() const override;

private:
    struct SplitList;
    std::vector<size_t> bring_into_order(
            const std::vector<size_t>& to_split,
            const std::vector<size_t>& to_append,
            bool exact_range,
            const DecodeEntries& decode,
            OrganiseTimes& times);
    std::vector<size_t> split_and_append(
            const std::vector<size_t>& to_split,
            const std::vector<size_t>& to_append,
            bool exact_range,
            const DecodeEntries& decode,
            OrganiseTimes& times);
    void split(size_t list, const DecodeEntries& decode, SplitList& result, OrganiseTimes& times);
    void append(size_t list, const DecodeEntries& decode);
    std::vector<uint32_t> order_by_id(size_t list, size_t first, size_t n) const;
    void reorder_entries(
            size_t list,
            size_t first,
            const std::vector<uint32_t>& by_id,
            const std::vector<uint32_t>& order);
    void place(ComponentRanking& ranking, SplitList* first, SplitList* end);
    void measure_constants(size_t list, size_t first_entry);
    void write_constants(size_t list, size_t first_entry);
    template <class Visit> void visit_constants(size_t list, size_t first_entry, Visit visit) const;
    bool renew_ranges(bool exact);
    void exchange_guests(const std::vector<SplitList>& splits, const std::vector<size_t>& appended);
    void make_room_for_guests(size_t list);
    void write_guests(size_t list);
    void encode_run(size_t list, size_t run, const float* mean);
    void
    decode_rows(size_t list, size_t first, size_t n, const DecodeEntries& decode, float* x) const;
    void encode_sketches(size_t list, size_t run, const float* rows);
    void encode_sketch(size_t list, size_t entry, const float* y, const float* decoded_run);
    bool is_run(const Guest& guest) const;
    void check_guests() const;
    void check_guest_groups(size_t list) const;
    void check_list_structure(size_t list) const;
    void check_list(size_t list, const DecodeEntries& decode) const;

    std::unique_ptr<faiss::InvertedLists> inner_;
    RunDirectory directory_;
    mutable std::once_flag told_; ///< of a search without an index of ours
};

} // namespace faiss_gmm
