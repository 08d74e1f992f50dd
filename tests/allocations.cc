// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "tests/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include <malloc.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FAISS_GMM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAISS_GMM_SANITIZED 1
#endif
#endif

namespace {
std::atomic<size_t> counter{0}, largest{0}, held{0}, most_held{0};

void raise(std::atomic<size_t>& most, size_t value) {
    size_t before = most;
    while (before < value && !most.compare_exchange_weak(before, value)) {
    }
}

[[maybe_unused]] void count(size_t size) {
    counter++;
    raise(largest, size);
}
[[maybe_unused]] void* hold(void* memory) {
    const size_t size = malloc_usable_size(memory);
    raise(most_held, held.fetch_add(size) + size);
    return memory;
}
[[maybe_unused]] void release(void* memory) {
    held -= malloc_usable_size(memory); // 0 for null
    std::free(memory);
}
} // namespace

namespace faiss_gmm {

size_t allocations() {
    return counter;
}

size_t largest_allocation() {
    return largest;
}

void forget_largest_allocation() {
    largest = 0;
}

size_t most_held_during(const std::function<void()>& body) {
    const size_t before = held;
    most_held = before;
    body();
    return most_held - before;
}

bool allocations_are_counted() {
#ifdef FAISS_GMM_SANITIZED
    return false;
#else
    return true;
#endif
}

} // namespace faiss_gmm

#ifndef FAISS_GMM_SANITIZED
// The standard's own forms for arrays, and those that do not throw, call these.
void* operator new(size_t size) {
    count(size);
    if (void* memory = std::malloc(size > 0 ? size : 1)) {
        return hold(memory);
    }
    throw std::bad_alloc();
}
void* operator new(size_t size, std::align_val_t alignment) {
    count(size);
    const auto unit = static_cast<size_t>(alignment);
    if (void* memory = std::aligned_alloc(unit, (size / unit + 1) * unit)) {
        return hold(memory);
    }
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
    release(memory);
}
void operator delete(void* memory, size_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    release(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
    release(memory);
}
#endif
