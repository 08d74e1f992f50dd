// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The decorator: stock calls pass through, and runs follow.
#include "faiss_gmm/runs/run_inverted_lists.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>
#include <omp.h>

#include "faiss_gmm/mixture/error.h"
#include "run_fixture.h"

namespace faiss_gmm {
namespace {

std::map<int64_t, std::vector<uint8_t>> contents(const faiss::InvertedLists& lists) {
    std::map<int64_t, std::vector<uint8_t>> all;
    for (size_t l = 0; l < lists.nlist; l++) {
        for (size_t i = 0; i < lists.list_size(l); i++) {
            const uint8_t* code = lists.get_single_code(l, i);
            all[lists.get_single_id(l, i)].assign(code, code + lists.code_size);
        }
    }
    return all;
}

bool same_bytes(const Blocks& a, const Blocks& b) {
    return std::equal(a.data(), a.data() + a.size(), b.data(), b.data() + b.size());
}

bool same_runs(const RunDirectory& a, const RunDirectory& b) {
    for (size_t l = 0; l < a.lists.size(); l++) {
        const ListRuns &x = a.lists[l], &y = b.lists[l];
        if (x.covered != y.covered || x.split_entries != y.split_entries ||
            !same_bytes(x.summaries, y.summaries) || !same_bytes(x.sketches, y.sketches) ||
            x.further != y.further || !(x.guests == y.guests)) {
            return false;
        }
    }
    return a.summary_range.low == b.summary_range.low &&
           a.summary_range.width == b.summary_range.width &&
           a.sketch_range.low == b.sketch_range.low && a.sketch_range.width == b.sketch_range.width;
}

TEST(RunLists, OrganisingKeepsEveryEntryInItsList) {
    const size_t d = 10;
    ListsOfRuns runs(d, 8, 2, false, 3);
    const std::vector<float> x = mixed_rows(3000, d, 4);
    for (size_t first = 0; first < 3000; first += 600) {
        runs.add({x.begin() + first * d, x.begin() + (first + 600) * d}, first);
        runs.lists->check(runs.decoder());
    }
    const auto all = contents(*runs.lists);
    ASSERT_EQ(all.size(), 3000u);
    for (const auto& [id, code] : all) {
        ASSERT_EQ(std::memcmp(code.data(), x.data() + id * d, runs.lists->code_size), 0) << id;
    }
    for (size_t l = 0; l < 8; l++) {
        for (size_t i = 0; i < runs.lists->list_size(l); i++) {
            const int64_t id = runs.lists->get_single_id(l, i);
            ASSERT_EQ(runs.home_of(x.data() + id * d), static_cast<int32_t>(l));
        }
    }
}

TEST(RunLists, CompactedRunsAreAFunctionOfTheSet) {
    const size_t d = 9, n = 1500;
    const std::vector<float> x = mixed_rows(n, d, 4);
    ListsOfRuns once(d, 8, 3, false, 3);
    once.add(x, 0);
    OrganiseTimes times;
    once.lists->compact(once.decoder(), times);
    for (const unsigned seed : {1, 2, 3}) {
        ListsOfRuns other(d, 8, 3, false, 3);
        std::mt19937 random(seed);
        std::vector<int64_t> order(n);
        for (size_t i = 0; i < n; i++) {
            order[i] = static_cast<int64_t>(i);
        }
        std::shuffle(order.begin(), order.end(), random);
        for (size_t i = 0; i < n; i++) {
            const float* row = x.data() + order[i] * d;
            other.lists->add_entry(
                    other.home_of(row), order[i], reinterpret_cast<const uint8_t*>(row));
            if (random() % 300 == 0) {
                other.lists->organise(other.decoder(), times);
                EXPECT_FALSE(same_runs(once.lists->directory(), other.lists->directory()));
            }
        }
        other.lists->compact(other.decoder(), times);
        other.lists->check(other.decoder());
        EXPECT_TRUE(same_runs(once.lists->directory(), other.lists->directory()));
        for (size_t l = 0; l < 8; l++) {
            for (size_t i = 0; i < once.lists->list_size(l); i++) {
                ASSERT_EQ(once.lists->get_single_id(l, i), other.lists->get_single_id(l, i));
            }
        }
        EXPECT_TRUE(other.lists->compact(other.decoder(), times).empty()) << "nothing left to do";
    }
}

TEST(RunLists, ThreadsDoNotShow) {
    // Guests are copied from lists whose own summaries grow at the same time.
    const size_t d = 8, nlist = 60;
    const int before = omp_get_max_threads();
    std::unique_ptr<ListsOfRuns> one;
    for (const int threads : {1, 7, 7, 7}) {
        omp_set_num_threads(threads);
        auto runs = std::make_unique<ListsOfRuns>(d, nlist, 5, false, 3);
        for (int part = 0; part < 12; part++) {
            runs->add(mixed_rows(700, d, 4 + part), part * 700);
            runs->lists->check(runs->decoder());
        }
        if (one) {
            EXPECT_TRUE(same_runs(one->lists->directory(), runs->lists->directory()));
        } else {
            one = std::move(runs);
        }
    }
    omp_set_num_threads(before);
}

TEST(RunLists, ReturnTheListsThatMoved) {
    const size_t d = 8;
    ListsOfRuns runs(d, 8, 2, false, 3);
    runs.add(mixed_rows(2000, d, 4), 0);
    size_t l = 0; // a list with several runs
    while (runs.lists->list_size(l) < 100) {
        l++;
    }
    OrganiseTimes times;
    EXPECT_TRUE(runs.lists->organise(runs.decoder(), times).empty());
    const std::vector<uint8_t> code(
            runs.lists->get_single_code(l, 40),
            runs.lists->get_single_code(l, 40) + runs.lists->code_size);
    runs.lists->update_entry(l, 3, 99999, code.data());
    EXPECT_TRUE(runs.lists->directory().lists[l].stale);
    EXPECT_EQ(runs.lists->organise(runs.decoder(), times), std::vector<size_t>{l});
    EXPECT_FALSE(runs.lists->directory().lists[l].stale);
    runs.lists->resize(l, runs.lists->list_size(l) - 1);
    EXPECT_TRUE(runs.lists->directory().lists[l].stale);
    EXPECT_EQ(runs.lists->compact(runs.decoder(), times), std::vector<size_t>{l});
    runs.lists->add_entry(l, 100000, code.data());
    EXPECT_FALSE(runs.lists->directory().lists[l].stale);
    EXPECT_EQ(runs.lists->organise(runs.decoder(), times), std::vector<size_t>{l})
            << "what came is put in an order of its own";
    runs.lists->check(runs.decoder());
    runs.lists->resize(l, 0);
    EXPECT_EQ(runs.lists->organise(runs.decoder(), times), std::vector<size_t>{l});
    runs.lists->check(runs.decoder());
    for (const ListRuns& list : runs.lists->directory().lists) {
        for (const Guest& guest : list.guests) {
            EXPECT_NE(guest.home, static_cast<int32_t>(l)) << "an emptied run is still a guest";
        }
    }
}

TEST(RunLists, RunsAreMembersOfAsManyListsAsAskedFor) {
    for (const size_t max_lists : {1, 2, 4}) {
        ListsOfRuns runs(8, 8, max_lists, false, 3);
        runs.add(mixed_rows(2000, 8, 4), 0);
        const RunDirectory& directory = runs.lists->directory();
        size_t guests = 0, all = 0;
        for (const ListRuns& list : directory.lists) {
            guests += list.guests.size();
            all += list.runs();
        }
        EXPECT_EQ(guests, all * (max_lists - 1));
        runs.lists->reset();
        runs.lists->check(runs.decoder());
        EXPECT_TRUE(runs.lists->has_runs());
        EXPECT_EQ(runs.lists->compute_ntotal(), 0u);
    }
}

TEST(RunLists, FailuresInDecodingComeOutOfTheThreads) {
    ListsOfRuns runs(8, 8, 2, false, 3);
    runs.add(mixed_rows(500, 8, 4), 0);
    runs.lists->resize(0, 0);
    runs.lists->resize(1, 1);
    OrganiseTimes times;
    const DecodeEntries broken = [](size_t, size_t, size_t, float*) {
        throw Error({"decoding", "a broken list", "a whole one", "mend it"});
    };
    EXPECT_THROW(runs.lists->check(broken), Error);
    EXPECT_THROW(runs.lists->organise(broken, times), Error);
    runs.lists->check(runs.decoder()); // no runs are left rather than half of them
    for (const ListRuns& list : runs.lists->directory().lists) {
        EXPECT_EQ(list.covered, 0u);
        EXPECT_TRUE(list.guests.empty());
    }
    EXPECT_EQ(runs.lists->organise(runs.decoder(), times).size(), 7u) << "list 0 is empty";
    runs.lists->check(runs.decoder());
}

} // namespace
} // namespace faiss_gmm
