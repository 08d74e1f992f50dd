// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Scores of a block of 32 codes by byte shuffles.
//   (1) score(s) = base + sum_m T_m[code_m(s)] + floor(k(s) f / 2^16), saturating at 65,534
// T_m [16] bytes of at most 63: four of them add in a byte. k(s) 16-bit constant, 65,535 marks an
// empty slot.
// Source: Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough", VLDB 2015 (4-bit look-ups
// in registers); the layout is BlockLayout's.
// Phases: 1 look-ups, two rows (four codes) a step, added in bytes; 2 even bytes and odd bytes
// gathered in 16-bit lanes: even + 256 odd in one sum, odd in another, one subtraction parts them;
// 3 base and constants; 4 comparison with the threshold.
// Cost: codes / 2 * 32 + 64 bytes read, 2 shuffles a row and 16-byte half.
// Determinism: integers only, the same on every target.
// Caller promises: see ScoreBlock in the header.
// Reference: score_block_reference; test: tests/runs/lookup_test.cc, on every target of the
// machine.
#include "faiss_gmm/runs/lookup.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_gmm/runs/lookup.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR // one lane: nothing to shuffle
uint32_t score_block(
        const uint8_t* block,
        size_t rows,
        const uint8_t* tables,
        uint16_t constant_scale,
        uint16_t base,
        uint16_t threshold,
        uint16_t* out) {
    return score_block_reference(block, rows, tables, constant_scale, base, threshold, out);
}
#else
uint32_t score_block(
        const uint8_t* HWY_RESTRICT block,
        size_t rows,
        const uint8_t* HWY_RESTRICT tables,
        uint16_t constant_scale,
        uint16_t base,
        uint16_t threshold,
        uint16_t* HWY_RESTRICT out) {
    // 32 bytes at most: a row is 32 bytes, and narrower targets take it in pieces.
    const hn::CappedTag<uint8_t, run_size> bytes;
    const hn::Repartition<uint16_t, decltype(bytes)> words;
    const size_t width = hn::Lanes(bytes);
    const size_t lanes = hn::Lanes(words);
    const auto low_half = hn::Set(bytes, 15);
    const uint16_t* constants = reinterpret_cast<const uint16_t*>(block + rows * run_size);

    const auto finish = [&](auto sum, size_t slot) HWY_ATTR {
        const auto constant = hn::LoadU(words, constants + slot);
        const auto scaled = hn::MulHigh(constant, hn::Set(words, constant_scale));
        sum = hn::SaturatedAdd(sum, hn::SaturatedAdd(scaled, hn::Set(words, base)));
        sum = hn::Min(sum, hn::Set(words, saturated_score));
        const auto empty = hn::Eq(constant, hn::Set(words, empty_slot));
        sum = hn::IfThenElse(empty, constant, sum);
        hn::StoreU(sum, words, out + slot);
        uint8_t bits[8] = {};
        // sum <= threshold, in the one form that all targets have for unsigned lanes
        const auto below = hn::Eq(hn::Min(sum, hn::Set(words, threshold)), sum);
        hn::StoreMaskBits(words, below, bits);
        uint32_t mask = 0;
        for (size_t i = 0; i < (lanes + 7) / 8; i++) {
            mask |= static_cast<uint32_t>(bits[i]) << (8 * i);
        }
        return mask << slot;
    };

    uint32_t mask = 0;
    for (size_t piece = 0; piece < run_size; piece += width) {
        auto both = hn::Zero(words); // even bytes + 256 * odd bytes, modulo 2^16
        auto odd = hn::Zero(words);
        const uint8_t* row = block + piece;
        const uint8_t* table = tables;
        for (size_t r = 0; r < rows; r += 2, row += 2 * run_size, table += 64) {
            const auto c0 = hn::LoadU(bytes, row);
            const auto c1 = hn::LoadU(bytes, row + run_size);
            const auto s0 =
                    hn::TableLookupBytes(hn::LoadDup128(bytes, table), hn::And(c0, low_half));
            const auto s1 = hn::TableLookupBytes(
                    hn::LoadDup128(bytes, table + 16),
                    hn::And(hn::BitCast(bytes, hn::ShiftRight<4>(hn::BitCast(words, c0))),
                            low_half));
            const auto s2 =
                    hn::TableLookupBytes(hn::LoadDup128(bytes, table + 32), hn::And(c1, low_half));
            const auto s3 = hn::TableLookupBytes(
                    hn::LoadDup128(bytes, table + 48),
                    hn::And(hn::BitCast(bytes, hn::ShiftRight<4>(hn::BitCast(words, c1))),
                            low_half));
            const auto sum = hn::BitCast(words, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
            both = hn::Add(both, sum);
            odd = hn::Add(odd, hn::ShiftRight<8>(sum));
        }
        const auto even = hn::Sub(both, hn::ShiftLeft<8>(odd));
        mask |= finish(even, piece / 2);
        mask |= finish(odd, piece / 2 + 16);
    }
    return mask;
}
#endif

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm {
HWY_EXPORT(score_block);

ScoreBlock score_block_kernel() {
    // The first call through the table finds the machine's targets and replaces itself.
    static const bool chosen = [] {
        hwy::GetChosenTarget().Update(hwy::SupportedTargets());
        return true;
    }();
    static_cast<void>(chosen);
    return &HWY_DYNAMIC_DISPATCH(score_block);
}

std::vector<NamedScoreBlock> score_block_kernels() {
    std::vector<NamedScoreBlock> kernels;
    const int64_t supported = hwy::SupportedTargets();
    for (int64_t target = supported & HWY_TARGETS; target != 0; target &= target - 1) {
        const int64_t one = target & -target;
        hwy::SetSupportedTargetsForTest(one);
        hwy::GetChosenTarget().Update(one);
        kernels.push_back({hwy::TargetName(one), &HWY_DYNAMIC_DISPATCH(score_block)});
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return kernels;
}

const char* simd_target() {
    const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
    return hwy::TargetName(usable & -usable); // the lowest bit is the best target
}

uint32_t score_block_reference(
        const uint8_t* block,
        size_t rows,
        const uint8_t* tables,
        uint16_t constant_scale,
        uint16_t base,
        uint16_t threshold,
        uint16_t* out) {
    const BlockLayout layout{2 * rows};
    std::vector<uint8_t> codes(layout.codes);
    uint32_t mask = 0;
    for (size_t slot = 0; slot < run_size; slot++) {
        const uint32_t constant = layout.get_constant(block, slot);
        uint32_t score = empty_slot;
        if (constant != empty_slot) {
            layout.get_codes(block, slot, codes.data());
            score = base + (constant * constant_scale >> 16);
            for (size_t m = 0; m < layout.codes; m++) {
                score += tables[m * 16 + codes[m]];
            }
            score = score < saturated_score ? score : saturated_score;
        }
        out[slot] = static_cast<uint16_t>(score);
        mask |= static_cast<uint32_t>(score <= threshold) << slot;
    }
    return mask;
}

} // namespace faiss_gmm
#endif // HWY_ONCE
