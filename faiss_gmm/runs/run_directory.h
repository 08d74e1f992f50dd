// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "faiss_gmm/runs/block.h"
#include "faiss_gmm/runs/large_array.h"
#include "faiss_gmm/runs/run_codec.h"
#include "faiss_gmm/spill/spill_policy.h"

namespace faiss_gmm {

/// A run in a list that is not its home.
struct Guest {
    int32_t home = -1;
    uint32_t run = 0; ///< number within its home

    bool operator==(const Guest& other) const {
        return home == other.home && run == other.run;
    }
    bool operator<(const Guest& other) const {
        return home != other.home ? home < other.home : run < other.run;
    }
};

/// Guests [begin, end) of a list that share a home: decided upon, and given their distance,
/// together.
struct GuestGroup {
    int32_t home = -1;
    uint32_t begin = 0, end = 0;
};

/// The runs of one list, and the guests it holds.
///
/// Entries [0, covered) of the list stand in runs: run j is entries [32 j, min(32 j + 32,
/// covered)). Entries past them, and all entries of a stale list, have no run: they are scanned
/// whenever the list is probed.
struct alignas(64) ListRuns {
    // What every query asks of a probed list, in one cache line.
    size_t covered = 0; ///< entries in runs
    bool stale = false; ///< entries in runs were overwritten: the runs must not be used
    Blocks summaries;   ///< of its own runs, then of its guests by value: slots() in blocks of 32
    Blocks sketches;    ///< one block a run; none where the index has no sketches

    size_t split_entries = 0; ///< in split form; those from here to covered came later, in order
    std::vector<int32_t>
            further; ///< [runs, max_lists - 1] lists that hold the run beside its home; -1: none
    std::vector<Guest> guests;            ///< ascending
    std::vector<GuestGroup> guest_groups; ///< the guests by home
    std::vector<int32_t> guest_further;   ///< [guests, max_lists - 1] the guests' rows of `further`
    // Range of the constants of its own runs and vectors, before coding.
    ConstantRange summary_constants, sketch_constants;

    size_t runs() const {
        return (covered + run_size - 1) / run_size;
    }
    /// The run that arrivals fill up: the last of the split form if it is not full, else the next.
    size_t open_run() const {
        return split_entries / run_size;
    }
    /// Slots of its summaries' blocks: own runs, guests, and empty ones to the end of a block.
    size_t slots() const {
        return (runs() + guests.size() + run_size - 1) / run_size * run_size;
    }
    size_t usable_entries() const {
        return stale ? 0 : covered;
    }
    size_t size_of_run(size_t run) const {
        const size_t first = run * run_size;
        return covered - first < run_size ? covered - first : run_size;
    }
    size_t memory_bytes() const;
};

/// The runs of all lists: what the search walks through.
struct RunDirectory {
    std::vector<ListRuns> lists;
    size_t max_lists = 1; ///< stride of `further` is max_lists - 1
    bool sketched = false;
    ConstantRange summary_range, sketch_range; ///< what the 16-bit constants are relative to

    size_t stride() const {
        return max_lists - 1;
    }
    /// The stride and whether vectors are sketched, as a policy asks for them.
    void take_shape(const SpillPolicy& spill, bool with_sketches) {
        max_lists = spill.rule == SpillRule::never ? 1 : spill.max_lists;
        sketched = with_sketches;
    }
    /// No runs in any list.
    void clear() noexcept;
    /// Brings the blocks of all lists together in one large array, unless nearly all are there: so they
    /// share huge pages. Where that frees 2 MiB or more, the allocator is asked to give freed memory of
    /// the process back to the system.
    void pack();
    size_t memory_bytes() const;

private:
    std::shared_ptr<uint8_t> packed_;
    size_t packed_bytes_ = 0;
};

} // namespace faiss_gmm
