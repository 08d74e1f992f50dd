// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Look-ups on every SIMD target of this machine against the scalar definition, bit for bit. (tests/arm
// runs this on machines that are emulated.)
#include "faiss_gmm/runs/lookup.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/seed.h"

namespace faiss_gmm {
namespace {

struct Case {
    size_t codes;
    uint16_t constant_scale, base, threshold;
    int empty_share; // per cent
    bool largest;    // all tables and constants at their largest
};

void fill(const Case& c, std::mt19937_64& random, BlockBytes& block, BlockBytes& tables) {
    const BlockLayout layout{c.codes};
    block.assign(layout.bytes(), 0);
    tables.resize(c.codes * 16);
    std::vector<uint8_t> codes(c.codes);
    for (size_t slot = 0; slot < run_size; slot++) {
        for (uint8_t& code : codes) {
            code = random() % 16;
        }
        layout.put_codes(block.data(), slot, codes.data());
        const bool empty = static_cast<int>(random() % 100) < c.empty_share;
        const uint16_t constant = c.largest ? 65534 : random() % 65535;
        layout.put_constant(block.data(), slot, empty ? empty_slot : constant);
    }
    for (uint8_t& entry : tables) {
        entry = c.largest ? 63 : random() % 64;
    }
}

TEST(Lookup, EveryTargetEqualsTheDefinition) {
    std::mt19937_64 random(test_seed());
    const auto kernels = all_block_kernels();
    const BlockKernels reference = reference_block_kernels();
    ASSERT_FALSE(kernels.empty());
    size_t checked = 0;
    for (const size_t codes : {4, 8, 12, 32, 96, 100, 256}) {
        for (int repeat = 0; repeat < 40; repeat++) {
            const Case c{
                    codes,
                    static_cast<uint16_t>(random()),
                    static_cast<uint16_t>(repeat % 3 == 0 ? 65535 - random() % 100 : random()),
                    static_cast<uint16_t>(random() % 65535),
                    repeat % 4 * 30,
                    repeat % 5 == 0};
            constexpr size_t n = 3;
            BlockBytes blocks, block, tables;
            for (size_t i = 0; i < n; i++) {
                fill(c, random, block, tables);
                blocks.insert(blocks.end(), block.begin(), block.end());
            }
            const BlockScorer scorer{codes, tables.data(), c.constant_scale};
            alignas(64) uint16_t expected[n * run_size], got[n * run_size];
            std::vector<uint64_t> expected_keys(n * run_size), keys(n * run_size);
            std::vector<BasedBlock> based;
            for (size_t i = 0; i < n; i++) { // last first: they may stand anywhere
                based.push_back(
                        {blocks.data() + (n - 1 - i) * block.size(),
                         static_cast<uint16_t>(c.base + i)});
            }
            std::vector<uint16_t> bases(run_size, c.base);
            for (size_t s = 0; s < bases.size() && repeat % 2 == 0; s++) {
                bases[s] = random() % 3 == 0 ? empty_slot : static_cast<uint16_t>(c.base + s);
            }
            reference.score_blocks(scorer, blocks.data(), n, bases.data(), expected);
            expected_keys.resize(reference.collect_slots(
                    scorer, based.data(), n, n, c.threshold, 1000, expected_keys.data()));
            for (const BlockKernels& kernel : kernels) {
                kernel.score_blocks(scorer, blocks.data(), n, bases.data(), got);
                for (size_t s = 0; s < n * run_size; s++) {
                    ASSERT_EQ(got[s], expected[s]) << kernel.target << ", slot " << s;
                }
                keys.resize(n * run_size);
                keys.resize(kernel.collect_slots(
                        scorer, based.data(), n, n, c.threshold, 1000, keys.data()));
                ASSERT_EQ(keys, expected_keys) << kernel.target << ", codes " << codes;
                checked++;
            }
        }
    }
    EXPECT_EQ(checked, 7 * 40 * kernels.size());
}

TEST(Lookup, SaturatesBelowTheEmptyMark) {
    const BlockLayout layout{256};
    BlockBytes block(layout.bytes()), tables(256 * 16, 63);
    layout.clear(block.data());
    layout.put_constant(block.data(), 5, 65534);
    const BlockScorer scorer{256, tables.data(), 65535};
    alignas(64) uint16_t scores[run_size];
    const std::vector<uint16_t> bases(run_size, 65000);
    block_kernels().score_blocks(scorer, block.data(), 1, bases.data(), scores);
    EXPECT_EQ(scores[5], saturated_score);
    EXPECT_EQ(scores[6], empty_slot);
    const BasedBlock based{block.data(), 65000};
    uint64_t keys[run_size];
    ASSERT_EQ(block_kernels().collect_slots(scorer, &based, 1, 1, saturated_score, 7, keys), 1u);
    EXPECT_EQ(keys[0], slot_key(saturated_score, 7, 5));
}

TEST(Lookup, ReferenceIsTheFormula) {
    const BlockLayout layout{4};
    BlockBytes block(layout.bytes()), tables(64);
    layout.clear(block.data());
    const uint8_t codes[4] = {1, 2, 3, 15};
    layout.put_codes(block.data(), 20, codes);
    layout.put_constant(block.data(), 20, 32768);
    for (size_t i = 0; i < 64; i++) {
        tables[i] = static_cast<uint8_t>(i);
    }
    alignas(64) uint16_t scores[run_size];
    const std::vector<uint16_t> bases(run_size, 7);
    reference_block_kernels().score_blocks(
            {4, tables.data(), 1000}, block.data(), 1, bases.data(), scores);
    EXPECT_EQ(scores[20], 7 + 500 + 1 + (16 + 2) + (32 + 3) + (48 + 15));
    EXPECT_EQ(scores[19], empty_slot);
}

TEST(SlotKey, GivesBackWhatItHolds) {
    const uint64_t key = slot_key(54321, uint64_t{1} << 42, 31);
    EXPECT_EQ(score_of_key(key), 54321);
    EXPECT_EQ(block_of_key(key), uint64_t{1} << 42);
    EXPECT_EQ(slot_of_key(key), 31u);
    EXPECT_LT(slot_key(1, 99, 31), slot_key(2, 0, 0));
}

TEST(Block, CodesAndConstantsOfASlotAreItsOwn) {
    std::mt19937 random(1);
    const BlockLayout layout{12};
    BlockBytes block(layout.bytes());
    layout.clear(block.data());
    std::vector<std::vector<uint8_t>> codes(run_size, std::vector<uint8_t>(12));
    for (size_t s = 0; s < run_size; s++) {
        for (uint8_t& code : codes[s]) {
            code = random() % 16;
        }
        layout.put_codes(block.data(), s, codes[s].data());
        layout.put_constant(block.data(), s, static_cast<uint16_t>(s * 1000));
    }
    std::vector<uint8_t> got(12);
    for (size_t s = 0; s < run_size; s++) {
        layout.get_codes(block.data(), s, got.data());
        EXPECT_EQ(got, codes[s]);
        EXPECT_EQ(layout.get_constant(block.data(), s), s * 1000);
    }
}

} // namespace
} // namespace faiss_gmm
