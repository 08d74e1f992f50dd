// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Counts what a program takes from operator new, its libraries included: for programs of their own, which
// compile allocations.cc in.
#pragma once

#include <cstddef>
#include <functional>

namespace faiss_gmm {

/// False under a sanitizer, which has its own operator new.
bool allocations_are_counted();
/// Calls of operator new so far, all forms and threads. (C libraries' malloc is not counted.)
size_t allocations();
/// Bytes of the largest since the last forget_largest_allocation().
size_t largest_allocation();
void forget_largest_allocation();

/// The most bytes from operator new that were held at once while body() ran, beyond those held before.
size_t most_held_during(const std::function<void()>& body);

/// Those of body().
template <class Body> size_t allocations_of(Body body) {
    const size_t before = allocations();
    body();
    return allocations() - before;
}

} // namespace faiss_gmm
