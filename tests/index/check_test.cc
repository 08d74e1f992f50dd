// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// check() sees every kind of damage: each is done to a sound index, seen, and undone.
#include <functional>

#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

struct Damage {
    const char* name;
    const char* expected; ///< in the message
    std::function<void(CountingIndex& index, RunDirectory& directory)> act;
};

void PrintTo(const Damage& damage, std::ostream* out) {
    *out << damage.name;
}

/// A list with at least two guests of different homes, and more than one run.
ListRuns& host(RunDirectory& directory) {
    for (ListRuns& list : directory.lists) {
        if (list.guest_groups.size() >= 2 && list.runs() >= 2) {
            return list;
        }
    }
    throw std::logic_error("no list has guests of two homes");
}

uint8_t* slot_block(CountingIndex& index, ListRuns& list, size_t slot) {
    return list.summaries.data() +
           slot / run_size * index.run_lists()->state().codec.summary_layout().bytes();
}

/// Calls act(layout, block, slot) for the summary of the host's second run at its home and at every list
/// it is a guest of: so damaged the copies agree, and which list is checked first does not matter.
void for_every_copy(
        CountingIndex& index,
        RunDirectory& directory,
        const std::function<void(const BlockLayout&, uint8_t* block, size_t slot)>& act) {
    constexpr uint32_t run = 1;
    const BlockLayout layout = index.run_lists()->state().codec.summary_layout();
    ListRuns& home = host(directory);
    act(layout, slot_block(index, home, run), run % run_size);
    for (ListRuns& list : directory.lists) {
        for (size_t g = 0; g < list.guests.size(); g++) {
            if (&directory.lists[list.guests[g].home] == &home && list.guests[g].run == run) {
                const size_t slot = list.runs() + g;
                act(layout, slot_block(index, list, slot), slot % run_size);
            }
        }
    }
}

class Check : public testing::TestWithParam<Damage> {};

TEST_P(Check, SeesTheDamage) {
    const size_t rows = 2000;
    IndexSetup setup;
    setup.max_lists = 3;
    setup.rule = SpillRule::threshold; // so that some runs belong to two lists and some to three
    setup.tau = 1e-12f;
    const auto base = float_rows(rows, setup.d, 5);
    const auto index = setup.trained(base);
    if (std::string(GetParam().name) == "direct_map") {
        index->set_direct_map_type(faiss::DirectMap::Hashtable);
    }
    std::vector<int64_t> ids(rows);
    for (size_t i = 0; i < rows; i++) {
        ids[i] = static_cast<int64_t>(i);
    }
    index->add_with_ids(rows, base.data(), ids.data());
    index->check();
    auto& directory = const_cast<RunDirectory&>(index->run_lists()->directory());
    const RunDirectory sound = directory;
    GetParam().act(*index, directory);
    const std::string message = refusal([&] { index->check(); });
    ASSERT_NE(message, "") << "not seen";
    expect_four_parts(message, "");
    EXPECT_NE(message.find(GetParam().expected), std::string::npos) << message;
    directory = sound;
}

INSTANTIATE_TEST_SUITE_P(
        All,
        Check,
        testing::Values(
                Damage{"covered",
                       "in runs",
                       [](CountingIndex&, RunDirectory& directory) {
                           // One more entry than there is, within the last run.
                           for (ListRuns& list : directory.lists) {
                               if (list.covered % run_size != 0) {
                                   list.covered++;
                                   return;
                               }
                           }
                       }},
                Damage{"split_entries",
                       "in split form",
                       [](CountingIndex&, RunDirectory& directory) {
                           directory.lists[1].split_entries = directory.lists[1].covered + 1;
                       }},
                Damage{"guests_order",
                       "out of order",
                       [](CountingIndex&, RunDirectory& directory) {
                           ListRuns& list = host(directory);
                           std::swap(list.guests[0], list.guests[1]);
                           std::swap_ranges(
                                   list.guest_further.begin(),
                                   list.guest_further.begin() + 2,
                                   list.guest_further.begin() + 2);
                       }},
                Damage{"guest_twice",
                       "out of order",
                       [](CountingIndex&, RunDirectory& directory) {
                           auto& guests = host(directory).guests;
                           guests[1] = guests[0];
                       }},
                Damage{"guest_home",
                       "is run",
                       [](CountingIndex&, RunDirectory& directory) {
                           host(directory).guests.back().home = 16;
                       }},
                Damage{"guest_run",
                       "is run",
                       [](CountingIndex&, RunDirectory& directory) {
                           host(directory).guests.back().run = 100000;
                       }},
                Damage{"guest_not_named",
                       "does not name it",
                       [](CountingIndex&, RunDirectory& directory) {
                           ListRuns& list = host(directory);
                           const Guest guest = list.guests[0];
                           auto& further = directory.lists[guest.home].further;
                           const auto l = static_cast<int32_t>(&list - directory.lists.data());
                           for (size_t j = 0; j < directory.stride(); j++) {
                               int32_t& entry = further[guest.run * directory.stride() + j];
                               entry = entry == l ? -1 : entry;
                           }
                       }},
                Damage{"guest_memberships",
                       "old memberships",
                       [](CountingIndex&, RunDirectory& directory) {
                           int32_t& entry = host(directory).guest_further[0];
                           entry = entry == 3 ? 4 : 3;
                       }},
                Damage{"guest_groups_home",
                       "not one home's",
                       [](CountingIndex&, RunDirectory& directory) {
                           host(directory).guest_groups[1].home++;
                       }},
                Damage{"guest_groups_missing",
                       "in groups",
                       [](CountingIndex&, RunDirectory& directory) {
                           host(directory).guest_groups.pop_back();
                       }},
                Damage{"membership_not_held",
                       "named by runs",
                       [](CountingIndex&, RunDirectory& directory) {
                           // The last guest of a list goes, groups and all.
                           ListRuns& list = host(directory);
                           list.guests.pop_back();
                           list.guest_further.resize(list.guest_further.size() - 2);
                           GuestGroup& group = list.guest_groups.back();
                           if (--group.end == group.begin) {
                               list.guest_groups.pop_back();
                           }
                       }},
                Damage{"summaries_size",
                       "arrays of another size",
                       [](CountingIndex&, RunDirectory& directory) {
                           Blocks& blocks = host(directory).summaries;
                           blocks.resize(blocks.size() - 1);
                       }},
                Damage{"sketches_size",
                       "arrays of another size",
                       [](CountingIndex&, RunDirectory& directory) {
                           Blocks& blocks = host(directory).sketches;
                           blocks.resize(blocks.size() - 1);
                       }},
                Damage{"further_gap",
                       "belongs to list",
                       [](CountingIndex&, RunDirectory& directory) {
                           // -1 before a list; the host's copy of the row too, so that only the gap
                           // shows
                           for (ListRuns& list : directory.lists) {
                               for (size_t run = 0; run < list.runs(); run++) {
                                   int32_t* row = list.further.data() + 2 * run;
                                   if (row[0] < 0 || row[1] >= 0) {
                                       continue;
                                   }
                                   std::swap(row[0], row[1]);
                                   ListRuns& held_by = directory.lists[row[1]];
                                   for (size_t g = 0; g < held_by.guests.size(); g++) {
                                       const Guest& guest = held_by.guests[g];
                                       if (&directory.lists[guest.home] == &list &&
                                           guest.run == run) {
                                           std::copy_n(row, 2, &held_by.guest_further[2 * g]);
                                           return;
                                       }
                                   }
                               }
                           }
                           throw std::logic_error("no run with one further list");
                       }},
                Damage{"run_slot_emptied",
                       "is empty",
                       [](CountingIndex& index, RunDirectory& directory) {
                           for_every_copy(
                                   index,
                                   directory,
                                   [](const BlockLayout& layout, uint8_t* block, size_t slot) {
                                       layout.put_constant(block, slot, empty_slot);
                                   });
                       }},
                Damage{"spare_slot_taken",
                       "is taken",
                       [](CountingIndex& index, RunDirectory& directory) {
                           for (ListRuns& list : directory.lists) {
                               const size_t slot = list.runs() + list.guests.size();
                               if (slot < list.slots()) {
                                   index.run_lists()->state().codec.summary_layout().put_constant(
                                           slot_block(index, list, slot), slot % run_size, 0);
                                   return;
                               }
                           }
                       }},
                Damage{"sketch_slot_emptied",
                       "is empty",
                       [](CountingIndex& index, RunDirectory& directory) {
                           index.run_lists()->state().codec.sketch_layout().put_constant(
                                   host(directory).sketches.data(), 9, empty_slot);
                       }},
                Damage{"summary_constant",
                       "a summary's constant",
                       [](CountingIndex& index, RunDirectory& directory) {
                           for_every_copy(
                                   index,
                                   directory,
                                   [](const BlockLayout& layout, uint8_t* block, size_t slot) {
                                       const uint16_t sound = layout.get_constant(block, slot);
                                       layout.put_constant(block, slot, sound ^ 1);
                                   });
                       }},
                Damage{"sketch_constant",
                       "a sketch's constant",
                       [](CountingIndex& index, RunDirectory& directory) {
                           const BlockLayout layout =
                                   index.run_lists()->state().codec.sketch_layout();
                           uint8_t* block = host(directory).sketches.data();
                           layout.put_constant(block, 4, layout.get_constant(block, 4) ^ 1);
                       }},
                Damage{"constant_range",
                       "constant is",
                       [](CountingIndex&, RunDirectory& directory) {
                           directory.sketch_range.width *= 0.9f;
                       }},
                Damage{"guest_summary",
                       "differs from run",
                       [](CountingIndex& index, RunDirectory& directory) {
                           ListRuns& list = host(directory);
                           const size_t slot = list.runs();
                           const BlockLayout layout =
                                   index.run_lists()->state().codec.summary_layout();
                           std::vector<uint8_t> code(layout.codes);
                           layout.get_codes(
                                   slot_block(index, list, slot), slot % run_size, code.data());
                           code[0] ^= 1;
                           layout.put_codes(
                                   slot_block(index, list, slot), slot % run_size, code.data());
                       }},
                Damage{"sketches_exchanged",
                       "the sketch of another vector",
                       [](CountingIndex& index, RunDirectory& directory) {
                           // With their constants, as if two vectors had changed places.
                           const BlockLayout layout =
                                   index.run_lists()->state().codec.sketch_layout();
                           ListRuns& list = host(directory);
                           std::vector<uint8_t> a(layout.codes), b(layout.codes);
                           for (size_t slot = 1; slot < run_size; slot++) {
                               uint8_t* block = list.sketches.data();
                               layout.get_codes(block, 0, a.data());
                               layout.get_codes(block, slot, b.data());
                               if (a != b) {
                                   const uint16_t constant = layout.get_constant(block, 0);
                                   layout.put_codes(block, 0, b.data());
                                   layout.put_codes(block, slot, a.data());
                                   layout.put_constant(block, 0, layout.get_constant(block, slot));
                                   layout.put_constant(block, slot, constant);
                                   return;
                               }
                           }
                       }},
                Damage{"codes_exchanged",
                       "the sketch of another vector",
                       [](CountingIndex& index, RunDirectory& directory) {
                           // Past the decorator: nothing was marked stale.
                           auto& inner =
                                   const_cast<faiss::InvertedLists&>(index.run_lists()->inner());
                           const size_t l = &host(directory) - directory.lists.data();
                           const std::vector<uint8_t> first(
                                   inner.get_codes(l), inner.get_codes(l) + index.code_size);
                           const int64_t id = inner.get_single_id(l, 0);
                           inner.update_entry(
                                   l, 0, inner.get_single_id(l, 40), inner.get_single_code(l, 40));
                           inner.update_entry(l, 40, id, first.data());
                       }},
                Damage{"lists_longer_than_ntotal",
                       "each vector counted once",
                       [](CountingIndex& index, RunDirectory&) { index.ntotal -= 1; }},
                Damage{"quantizer_grew",
                       "means in the quantizer",
                       [](CountingIndex& index, RunDirectory&) {
                           const std::vector<float> mean(index.d);
                           index.quantizer->add(1, mean.data());
                       }},
                Damage{"direct_map",
                       "elsewhere in the direct map",
                       [](CountingIndex& index, RunDirectory&) {
                           std::swap(index.direct_map.hashtable[3], index.direct_map.hashtable[4]);
                       }}),
        [](const auto& info) { return std::string(info.param.name); });

TEST(CheckOfNothing, OfAnIndexWithoutRunsSeesRuns) {
    IndexIVFGMMFlat index(8, 4);
    index.check();
    auto& directory = const_cast<RunDirectory&>(index.run_lists()->directory());
    directory.lists[2].covered = 5;
    expect_four_parts(refusal([&] { index.check(); }), "runs in an index that keeps none");
    directory.lists[2].covered = 0;
}

} // namespace
} // namespace faiss_gmm
