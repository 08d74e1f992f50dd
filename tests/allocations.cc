// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "tests/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FAISS_GMM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FAISS_GMM_SANITIZED 1
#endif
#endif

namespace {
std::atomic<size_t> counter{0}, largest{0};

[[maybe_unused]] void count(size_t size) {
    counter++;
    size_t before = largest;
    while (before < size && !largest.compare_exchange_weak(before, size)) {
    }
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
        return memory;
    }
    throw std::bad_alloc();
}
void* operator new(size_t size, std::align_val_t alignment) {
    count(size);
    const auto unit = static_cast<size_t>(alignment);
    if (void* memory = std::aligned_alloc(unit, (size / unit + 1) * unit)) {
        return memory;
    }
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    std::free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
    std::free(memory);
}
#endif
