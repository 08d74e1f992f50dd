// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "faiss_gmm/runs/block.h"

namespace faiss_gmm {

/// Scores the 32 slots of a block:
///   out[s] = min(65534, base + sum_m tables[m][code_m(s)] + floor(constant(s) constant_scale /
///   2^16)),
/// or 65535 where the slot holds nothing. Returns a bit a slot: set where out[s] <= threshold.
///
/// block: layout of BlockLayout, on a 64-byte boundary; rows = codes / 2, even. tables [codes, 16],
/// bytes of at most 63, on a 16-byte boundary. threshold < 65535. out [32], on a 64-byte boundary.
using ScoreBlock = uint32_t (*)(
        const uint8_t* block,
        size_t rows,
        const uint8_t* tables,
        uint16_t constant_scale,
        uint16_t base,
        uint16_t threshold,
        uint16_t* out);

/// The kernel for the best SIMD target of this machine. Ask once a query, not once a block.
ScoreBlock score_block_kernel();

/// The same, slot by slot, as it is defined: what the kernels are tested against.
uint32_t score_block_reference(
        const uint8_t* block,
        size_t rows,
        const uint8_t* tables,
        uint16_t constant_scale,
        uint16_t base,
        uint16_t threshold,
        uint16_t* out);

/// A kernel compiled for one SIMD target that this machine has.
struct NamedScoreBlock {
    const char* target;
    ScoreBlock kernel;
};
/// Every target compiled in that this machine has (for tests and benchmarks).
std::vector<NamedScoreBlock> score_block_kernels();

/// Name of the target that score_block_kernel() runs on, e.g. "AVX2".
const char* simd_target();

} // namespace faiss_gmm
