// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/large_array.h"

#include <algorithm>
#include <fstream>
#include <new>
#include <string>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace faiss_gmm {
namespace {

constexpr size_t cache_line = 64, huge_page = size_t{2} << 20;

#ifdef __linux__
constexpr int bring_together = 25; // MADV_COLLAPSE, which older headers do not name

/// Whether the system lets programs ask: MADV_COLLAPSE alone would not heed its "never".
bool huge_pages_allowed() {
    static const bool allowed = [] {
        std::ifstream setting("/sys/kernel/mm/transparent_hugepage/enabled");
        std::string choices;
        return std::getline(setting, choices) && choices.find("[never]") == std::string::npos;
    }();
    return allowed;
}
#endif

} // namespace

std::shared_ptr<uint8_t> make_large_array(size_t bytes) {
    const std::align_val_t alignment{bytes < huge_page ? cache_line : huge_page};
    std::shared_ptr<uint8_t> array(
            static_cast<uint8_t*>(::operator new(bytes, alignment)),
            [alignment](uint8_t* p) { ::operator delete(p, alignment); });
    ask_for_huge_pages(array.get(), bytes, false); // not written yet: they come as it is
    return array;
}

void ask_for_huge_pages(void* first, size_t bytes, bool collapse) {
#ifdef __linux__
    const auto begin = reinterpret_cast<uintptr_t>(first);
    const uintptr_t from = (begin + huge_page - 1) / huge_page * huge_page;
    const uintptr_t to = (begin + bytes) / huge_page * huge_page;
    if (from < to) {
        void* const pages = static_cast<uint8_t*>(first) + (from - begin);
        const bool granted = madvise(pages, to - from, MADV_HUGEPAGE) == 0;
        if (collapse && granted && huge_pages_allowed()) {
            static_cast<void>(madvise(pages, to - from, bring_together));
        }
    }
#else
    static_cast<void>(first);
    static_cast<void>(bytes);
    static_cast<void>(collapse);
#endif
}

void return_freed_memory() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

Blocks::Blocks(const Blocks& other) {
    resize(other.size());
    std::copy_n(other.data(), other.size(), data_);
}

Blocks& Blocks::operator=(Blocks&& other) noexcept {
    own_ = std::move(other.own_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
}

void Blocks::move_to(uint8_t* slice) {
    std::copy_n(data_, size_, slice);
    data_ = slice;
    own_.reset();
}

void Blocks::resize(size_t bytes) {
    if (bytes == size_) {
        return;
    }
    std::unique_ptr<uint8_t, Free> own;
    if (bytes > 0) {
        own.reset(static_cast<uint8_t*>(::operator new (bytes, std::align_val_t{cache_line})));
        const size_t kept = std::min(bytes, size_);
        std::copy_n(data_, kept, own.get());
        std::fill(own.get() + kept, own.get() + bytes, uint8_t{0});
    }
    own_ = std::move(own);
    data_ = own_.get();
    size_ = bytes;
}

void Blocks::Free::operator()(uint8_t* bytes) const {
    ::operator delete (bytes, std::align_val_t{cache_line});
}

} // namespace faiss_gmm
