// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <algorithm>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "faiss_gmm/runs/large_array.h"
#include "faiss_gmm/runs/run_directory.h"

namespace faiss_gmm {
namespace {

void fill(Blocks& blocks, size_t bytes, uint8_t first) {
    blocks.resize(bytes);
    std::iota(blocks.data(), blocks.data() + bytes, first);
}
std::vector<uint8_t> bytes_of(const Blocks& blocks) {
    return {blocks.data(), blocks.data() + blocks.size()};
}
bool on_line(const void* p) {
    return reinterpret_cast<uintptr_t>(p) % 64 == 0;
}

TEST(LargeArray, StandsOnACacheLineAndIsWritable) {
    for (const size_t bytes : {size_t{1}, size_t{64}, size_t{2} << 20, (size_t{5} << 20) + 17}) {
        const auto array = make_large_array(bytes);
        EXPECT_TRUE(on_line(array.get())) << bytes;
        std::fill_n(array.get(), bytes, uint8_t{7});
        EXPECT_EQ(std::count(array.get(), array.get() + bytes, 7), bytes);
    }
}

TEST(Blocks, GrowAndShrinkOutOfASliceWithoutTouchingIt) {
    Blocks blocks;
    fill(blocks, 128, 1);
    const std::vector<uint8_t> before = bytes_of(blocks);
    std::vector<uint8_t> slice(128, 0);
    blocks.move_to(slice.data());
    EXPECT_EQ(blocks.data(), slice.data());
    EXPECT_EQ(blocks.own_bytes(), 0);
    EXPECT_EQ(bytes_of(blocks), before);

    blocks.resize(128);
    EXPECT_EQ(blocks.data(), slice.data()) << "nothing to do";
    Blocks shorter = blocks;
    EXPECT_NE(shorter.data(), slice.data()) << "a copy has an array of its own";
    shorter.resize(64);
    EXPECT_EQ(bytes_of(shorter), std::vector<uint8_t>(before.begin(), before.begin() + 64));
    blocks.resize(192);
    EXPECT_NE(blocks.data(), slice.data());
    std::vector<uint8_t> grown = before;
    grown.resize(192, 0);
    EXPECT_EQ(bytes_of(blocks), grown);
    std::fill_n(blocks.data(), 192, uint8_t{0});
    EXPECT_EQ(slice, before);

    fill(blocks, 64, 9);
    blocks.move_to(slice.data());
    const Blocks moved = std::move(blocks);
    EXPECT_EQ(moved.data(), slice.data());
    EXPECT_EQ(moved.size(), 64);
}

/// A directory of lists of different sizes, and what their blocks hold.
struct Packed {
    RunDirectory directory;
    std::vector<std::vector<uint8_t>> summaries, sketches;

    explicit Packed(size_t lists) {
        directory.lists.resize(lists);
        for (size_t l = 0; l < lists; l++) {
            set(l, 64 * (l % 5), 128 * (l % 7));
        }
        summaries.resize(lists);
        sketches.resize(lists);
        remember();
    }
    void set(size_t l, size_t summary_bytes, size_t sketch_bytes) {
        fill(directory.lists[l].summaries, summary_bytes, static_cast<uint8_t>(l));
        fill(directory.lists[l].sketches, sketch_bytes, static_cast<uint8_t>(100 + l));
    }
    void remember() {
        for (size_t l = 0; l < directory.lists.size(); l++) {
            summaries[l] = bytes_of(directory.lists[l].summaries);
            sketches[l] = bytes_of(directory.lists[l].sketches);
        }
    }
    void expect_unchanged() const {
        for (size_t l = 0; l < directory.lists.size(); l++) {
            EXPECT_EQ(bytes_of(directory.lists[l].summaries), summaries[l]) << "list " << l;
            EXPECT_EQ(bytes_of(directory.lists[l].sketches), sketches[l]) << "list " << l;
            EXPECT_TRUE(on_line(directory.lists[l].summaries.data()));
        }
    }
    size_t own_bytes() const {
        size_t bytes = 0;
        for (const ListRuns& list : directory.lists) {
            bytes += list.summaries.own_bytes() + list.sketches.own_bytes();
        }
        return bytes;
    }
};

TEST(Pack, BringsAllBlocksTogetherUnchanged) {
    Packed packed(100);
    const size_t before = packed.directory.memory_bytes();
    packed.directory.pack();
    packed.expect_unchanged();
    EXPECT_EQ(packed.own_bytes(), 0);
    EXPECT_EQ(packed.directory.memory_bytes(), before) << "not a byte more";
    const RunDirectory moved = std::move(packed.directory);
    packed.directory = moved;
    packed.expect_unchanged();
}

TEST(Pack, WaitsUntilAnEighthStandsOutside) {
    Packed packed(100);
    packed.directory.pack();
    size_t changed = 0, repacked = 0, most_outside = 0;
    for (size_t l = 0; l < 100; l++) {
        packed.set(l, 64 * (l % 5) + 64, 128 * (l % 7));
        packed.remember();
        changed++;
        const size_t outside = packed.own_bytes();
        packed.directory.pack();
        repacked += outside > 0 && packed.own_bytes() == 0;
        most_outside = std::max(most_outside, packed.own_bytes());
        packed.expect_unchanged();
    }
    size_t total = 0;
    for (size_t l = 0; l < 100; l++) {
        total += packed.summaries[l].size() + packed.sketches[l].size();
    }
    EXPECT_GT(repacked, 0);
    EXPECT_LT(repacked, changed / 4);
    EXPECT_LE(most_outside, total / 8);
}

TEST(Pack, OfAClearedOrEmptyDirectory) {
    Packed packed(10);
    packed.directory.pack();
    packed.directory.clear();
    packed.remember();
    EXPECT_EQ(
            packed.directory.memory_bytes(), RunDirectory().memory_bytes() + 10 * sizeof(ListRuns));
    packed.directory.pack();
    packed.expect_unchanged();
}

} // namespace
} // namespace faiss_gmm
