// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_gmm {

/// How far some bytes came.
enum class Reached {
    nothing, ///< no lists
    lists,   ///< read, written and read again
    index,   ///< an index over them was searched and changed
};

/// Once in a process.
void prepare_fuzzing();
/// Ends the process where there is a finding.
Reached fuzz_lists(const uint8_t* bytes, size_t size);

/// Replaces one of the numbers that a reader would meet in bytes [size] by another that it may believe.
void change_a_number(uint8_t* bytes, size_t size, unsigned seed);

} // namespace faiss_gmm
