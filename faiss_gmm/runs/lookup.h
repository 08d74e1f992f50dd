// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "faiss_gmm/runs/block.h"

namespace faiss_gmm {

/// What the blocks of one kind are scored with, for one query. Score of a slot of a block:
///   min(65534, base + sum_m tables[m][code_m(slot)] + floor(constant(slot) constant_scale / 2^16)),
/// or 65535 where the slot holds nothing.
struct BlockScorer {
    size_t codes = 0;                ///< of a slot, a multiple of 4
    const uint8_t* tables = nullptr; ///< [codes, 16], bytes of at most 63
    uint16_t constant_scale = 0;
};

/// A block on a 64-byte boundary, and what the scores of its slots start from.
struct BasedBlock {
    const uint8_t* block;
    uint16_t base;
};

/// out [n, 32] = the scores of n blocks that stand one behind the other. bases [32]: what each slot of
/// every block starts from, 65535 where it is to count as empty. out on a 64-byte boundary.
using ScoreBlocks = void (*)(
        const BlockScorer& scorer,
        const uint8_t* blocks,
        size_t n,
        const uint16_t* bases,
        uint16_t* out);

/// Appends to keys, for the blocks 0 .. n - 1 in order and their slots of score <= threshold, what
/// slot_key() says; returns how many. threshold < 65535; keys has room for 32 n. Blocks up to
/// `readable` >= n stand behind them, and are prefetched.
using CollectSlots = size_t (*)(
        const BlockScorer& scorer,
        const BasedBlock* blocks,
        size_t n,
        size_t readable,
        uint16_t threshold,
        uint64_t first_number,
        uint64_t* keys);

/// A slot of block number `block` (below 2^43) with its score: ascending by score, then block, then
/// slot.
inline uint64_t slot_key(uint16_t score, uint64_t block, unsigned slot) {
    return static_cast<uint64_t>(score) << 48 | block << 5 | slot;
}
inline uint16_t score_of_key(uint64_t key) {
    return static_cast<uint16_t>(key >> 48);
}
inline uint64_t block_of_key(uint64_t key) {
    return (key & 0xffffffffffff) >> 5;
}
inline unsigned slot_of_key(uint64_t key) {
    return static_cast<unsigned>(key & 31);
}

/// The kernels of one SIMD target.
struct BlockKernels {
    const char* target; ///< e.g. "AVX2"
    ScoreBlocks score_blocks;
    CollectSlots collect_slots;
};

/// Those of the best target of this machine.
const BlockKernels& block_kernels();
/// Those of every target compiled in that this machine has (for tests and benchmarks).
std::vector<BlockKernels> all_block_kernels();
/// The same, slot by slot, as it is defined: what the kernels are tested against.
BlockKernels reference_block_kernels();

} // namespace faiss_gmm
