// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstring>

namespace faiss_gmm {

/// Number i of an array within lists, which begins at any byte where the lists are mapped from a file.
template <class Number> Number number_at(const Number* numbers, size_t i) {
    Number number;
    std::memcpy(
            &number, reinterpret_cast<const char*>(numbers) + i * sizeof(Number), sizeof number);
    return number;
}

} // namespace faiss_gmm
