// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

#include "faiss_gmm/train/cuda/collect.h"

namespace faiss_gmm::cuda {

/// Bytes of a number.
constexpr size_t element_bytes(ElementType type) {
    return type == ElementType::f32                                ? 4
           : type == ElementType::f16 || type == ElementType::bf16 ? 2
                                                                   : 1;
}

/// Rows in device memory, as the kernels read them: rows.cuh.
struct Rows {
    const void* data = nullptr; ///< [n, d] of `type`
    ElementType type = ElementType::f32;
    /// [n, d] or null: what is left of numbers in fp64 when they are rounded to fp32. (Whitened rows.)
    const float* low = nullptr;
    bool aligned = false; ///< rows begin at multiples of four numbers, in memory too

    Rows() = default;
    Rows(const void* numbers, ElementType element, size_t d, const float* rest = nullptr)
            : data(numbers), type(element), low(rest),
              aligned(d % 4 == 0 &&
                      reinterpret_cast<uintptr_t>(numbers) % (4 * element_bytes(element)) == 0) {}
};

} // namespace faiss_gmm::cuda
