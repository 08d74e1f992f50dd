// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Scores of blocks of 32 codes by byte shuffles.
//   (1) score(s) = base + sum_m T_m[code_m(s)] + floor(k(s) f / 2^16), saturating at 65,534
// T_m [16] bytes of at most 63: four of them add in a byte. k(s) 16-bit constant, 65,535 marks an
// empty slot.
// Source: Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough", VLDB 2015 (4-bit look-ups
// in registers); the layout is BlockLayout's.
// Phases a block: 1 look-ups of as many codes as 16-byte rows fit a vector, low and high halves apart,
// four vectors added in bytes; 2 even and odd bytes gathered in 16-bit lanes: even + 256 odd in one sum,
// odd in another, one subtraction parts them; 3 the vector's 16-byte pieces, each the sum of other codes,
// added up; 4 base and constants; 5 comparison with the threshold.
// Cost a block: 16 codes + 64 bytes read; a vector of codes takes 2 loads, 2 shuffles and 5 other
// instructions.
// Determinism: integers only, the same on every target.
// Caller promises: see BlockScorer in the header.
// Reference: reference_block_kernels(); test: tests/runs/lookup_test.cc, on every target of the machine.
#include "faiss_gmm/runs/lookup.h"

#include <cstring>
#include <vector>

#include "faiss_gmm/runs/prefetch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_gmm/runs/lookup.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR // one lane: nothing to shuffle
void score_blocks(
        const BlockScorer& scorer,
        const uint8_t* blocks,
        size_t n,
        const uint16_t* bases,
        uint16_t* out) {
    reference_block_kernels().score_blocks(scorer, blocks, n, bases, out);
}
size_t collect_slots(
        const BlockScorer& scorer,
        const BasedBlock* blocks,
        size_t n,
        size_t readable,
        uint16_t threshold,
        uint64_t first_number,
        uint64_t* keys) {
    return reference_block_kernels().collect_slots(
            scorer, blocks, n, readable, threshold, first_number, keys);
}
#else
namespace hn = hwy::HWY_NAMESPACE;

// Scalable targets take 16 bytes: their vectors cannot be cut into pieces of 16 at compile time.
#if HWY_HAVE_SCALABLE
constexpr size_t width = 16;
#else
constexpr size_t width = HWY_MAX_BYTES < 64 ? HWY_MAX_BYTES : 64;
#endif
using Bytes = hn::FixedTag<uint8_t, width>;
using Words = hn::FixedTag<uint16_t, width / 2>;
using ByteVector = hn::Vec<Bytes>;
using WordVector = hn::Vec<Words>;

/// Adds look-ups to sums in 16-bit lanes: both = even bytes + 256 odd bytes, modulo 2^16; odd.
/// (No struct of the two: scalable vectors cannot be members.)
HWY_INLINE void add_look_ups(ByteVector look_ups, WordVector& both, WordVector& odd) {
    const auto words = hn::BitCast(Words(), look_ups);
    both = hn::Add(both, words);
    odd = hn::Add(odd, hn::ShiftRight<8>(words));
}
HWY_INLINE WordVector even_sums(WordVector both, WordVector odd) {
    return hn::Sub(both, hn::ShiftLeft<8>(odd));
}

/// Calls take(sums, first slot) for the sums of look-ups of all slots, a vector at a time.
template <class Take>
HWY_INLINE void
sum_look_ups(const BlockScorer& scorer, const uint8_t* HWY_RESTRICT block, Take take) {
    const Bytes bytes;
    const Words words;
    const auto low_half = hn::Set(bytes, 15);
    auto low_both = hn::Zero(words), low_odd = hn::Zero(words);
    auto high_both = hn::Zero(words), high_odd = hn::Zero(words);
    const uint8_t* HWY_RESTRICT table = scorer.tables;
    const uint8_t* const end = block + scorer.codes * BlockLayout::row_bytes;
    const auto look_up = [&](size_t at, ByteVector& l, ByteVector& h) HWY_ATTR {
        const auto codes = hn::LoadU(bytes, block + at);
        const auto entries = hn::LoadU(bytes, table + at);
        const auto upper = hn::BitCast(bytes, hn::ShiftRight<4>(hn::BitCast(words, codes)));
        l = hn::TableLookupBytes(entries, hn::And(codes, low_half));
        h = hn::TableLookupBytes(entries, hn::And(upper, low_half));
    };
    for (; block + 4 * width <= end; block += 4 * width, table += 4 * width) {
        ByteVector l0, l1, l2, l3, h0, h1, h2, h3;
        look_up(0, l0, h0);
        look_up(width, l1, h1);
        look_up(2 * width, l2, h2);
        look_up(3 * width, l3, h3);
        add_look_ups(hn::Add(hn::Add(l0, l1), hn::Add(l2, l3)), low_both, low_odd);
        add_look_ups(hn::Add(hn::Add(h0, h1), hn::Add(h2, h3)), high_both, high_odd);
    }
    for (; block < end; block += width, table += width) {
        ByteVector l, h;
        look_up(0, l, h);
        add_look_ups(l, low_both, low_odd);
        add_look_ups(h, high_both, high_odd);
    }
    // a, b, c, d: slots 0, 8, 16, 24 and the seven that follow, in every 16-byte piece.
    const auto a = even_sums(low_both, low_odd), b = low_odd;
    const auto c = even_sums(high_both, high_odd), d = high_odd;
    if constexpr (width == 64) {
        const auto ac =
                hn::Add(hn::ConcatLowerLower(words, c, a), hn::ConcatUpperUpper(words, c, a));
        const auto bd =
                hn::Add(hn::ConcatLowerLower(words, d, b), hn::ConcatUpperUpper(words, d, b));
        take(hn::Add(hn::OddEvenBlocks(bd, ac), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(ac, bd))),
             0);
    } else if constexpr (width == 32) {
        take(hn::Add(hn::ConcatLowerLower(words, b, a), hn::ConcatUpperUpper(words, b, a)), 0);
        take(hn::Add(hn::ConcatLowerLower(words, d, c), hn::ConcatUpperUpper(words, d, c)), 16);
    } else {
        take(a, 0);
        take(b, 8);
        take(c, 16);
        take(d, 24);
    }
}

/// Scores from sums: base and constants added, empty slots marked.
HWY_INLINE WordVector
score(WordVector sums, const uint16_t* HWY_RESTRICT constants, WordVector scale, WordVector base) {
    const Words words;
    const auto constant = hn::LoadU(words, constants);
    const auto above = hn::SaturatedAdd(hn::MulHigh(constant, scale), base);
    const auto sum = hn::Min(hn::SaturatedAdd(sums, above), hn::Set(words, saturated_score));
    return hn::IfThenElse(hn::Eq(constant, hn::Set(words, empty_slot)), constant, sum);
}

void score_blocks(
        const BlockScorer& scorer,
        const uint8_t* HWY_RESTRICT blocks,
        size_t n,
        const uint16_t* HWY_RESTRICT bases,
        uint16_t* HWY_RESTRICT out) {
    const Words words;
    const auto scale = hn::Set(words, scorer.constant_scale), none = hn::Set(words, empty_slot);
    const BlockLayout layout{scorer.codes};
    const size_t bytes = layout.bytes(), constants_at = layout.constants_at();
    for (size_t i = 0; i < n; i++) {
        const uint8_t* block = blocks + i * bytes;
        const auto* constants = reinterpret_cast<const uint16_t*>(block + constants_at);
        sum_look_ups(scorer, block, [&](WordVector sums, size_t slot) HWY_ATTR {
            const auto base = hn::LoadU(words, bases + slot);
            const auto scores = score(sums, constants + slot, scale, base);
            hn::StoreU(
                    hn::IfThenElse(hn::Eq(base, none), none, scores),
                    words,
                    out + i * run_size + slot);
        });
    }
}

size_t collect_slots(
        const BlockScorer& scorer,
        const BasedBlock* blocks,
        size_t n,
        size_t readable,
        uint16_t threshold,
        uint64_t first_number,
        uint64_t* HWY_RESTRICT keys) {
    const Words words;
    const auto scale = hn::Set(words, scorer.constant_scale), most = hn::Set(words, threshold);
    const BlockLayout layout{scorer.codes};
    const size_t bytes = layout.bytes(), constants_at = layout.constants_at();
    const size_t ahead = items_ahead(bytes);
    alignas(64) uint16_t scores[run_size];
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (i + ahead < readable) {
            prefetch_bytes(blocks[i + ahead].block, bytes);
        }
        const uint8_t* block = blocks[i].block;
        const auto* constants = reinterpret_cast<const uint16_t*>(block + constants_at);
        const auto base = hn::Set(words, blocks[i].base);
        uint32_t below = 0;
        sum_look_ups(scorer, block, [&](WordVector sums, size_t slot) HWY_ATTR {
            const auto s = score(sums, constants + slot, scale, base);
            hn::Store(s, words, scores + slot);
            // s <= threshold, in the one form that all targets have for unsigned lanes
            uint8_t bits[8] = {};
            hn::StoreMaskBits(words, hn::Eq(hn::Min(s, most), s), bits);
            uint32_t mask = 0;
            std::memcpy(&mask, bits, sizeof mask);
            below |= mask << slot;
        });
        for (; below != 0; below &= below - 1) {
            const auto slot = static_cast<unsigned>(__builtin_ctz(below));
            keys[count++] = slot_key(scores[slot], first_number + i, slot);
        }
    }
    return count;
}
#endif

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm {
HWY_EXPORT(score_blocks);
HWY_EXPORT(collect_slots);

namespace {

BlockKernels kernels_of(int64_t target) {
    hwy::GetChosenTarget().Update(target);
    const int64_t best = target & -target; // the lowest bit is the best target
    return {hwy::TargetName(best),
            HWY_DYNAMIC_DISPATCH(score_blocks),
            HWY_DYNAMIC_DISPATCH(collect_slots)};
}

/// The score of one slot, as it is defined.
uint16_t
reference_score(const BlockScorer& scorer, const uint8_t* block, size_t slot, uint16_t base) {
    const BlockLayout layout{scorer.codes};
    const uint32_t constant = layout.get_constant(block, slot);
    if (constant == empty_slot) {
        return empty_slot;
    }
    std::vector<uint8_t> codes(layout.codes);
    layout.get_codes(block, slot, codes.data());
    uint32_t score = base + (constant * scorer.constant_scale >> 16);
    for (size_t m = 0; m < layout.codes; m++) {
        score += scorer.tables[m * 16 + codes[m]];
    }
    return static_cast<uint16_t>(score < saturated_score ? score : saturated_score);
}

} // namespace

const BlockKernels& block_kernels() {
    static const BlockKernels best = kernels_of(hwy::SupportedTargets() & HWY_TARGETS);
    return best;
}

std::vector<BlockKernels> all_block_kernels() {
    std::vector<BlockKernels> kernels;
    for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
        kernels.push_back(kernels_of(rest & -rest));
    }
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return kernels;
}

BlockKernels reference_block_kernels() {
    return {"reference",
            [](const BlockScorer& scorer,
               const uint8_t* blocks,
               size_t n,
               const uint16_t* bases,
               uint16_t* out) {
                const size_t bytes = BlockLayout{scorer.codes}.bytes();
                for (size_t i = 0; i < n * run_size; i++) {
                    const uint8_t* block = blocks + i / run_size * bytes;
                    const uint16_t base = bases[i % run_size];
                    out[i] = base == empty_slot
                                     ? base
                                     : reference_score(scorer, block, i % run_size, base);
                }
            },
            [](const BlockScorer& scorer,
               const BasedBlock* blocks,
               size_t n,
               size_t,
               uint16_t threshold,
               uint64_t first_number,
               uint64_t* keys) {
                size_t count = 0;
                for (size_t i = 0; i < n; i++) {
                    for (unsigned slot = 0; slot < run_size; slot++) {
                        const uint16_t score =
                                reference_score(scorer, blocks[i].block, slot, blocks[i].base);
                        if (score <= threshold) {
                            keys[count++] = slot_key(score, first_number + i, slot);
                        }
                    }
                }
                return count;
            }};
}

} // namespace faiss_gmm
#endif // HWY_ONCE
