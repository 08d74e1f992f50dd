// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/large_array.h"

#include <algorithm>
#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace faiss_gmm {
namespace {

constexpr size_t cache_line = 64, huge_page = size_t{2} << 20;

} // namespace

std::shared_ptr<uint8_t> make_large_array(size_t bytes) {
    const std::align_val_t alignment{bytes < huge_page ? cache_line : huge_page};
    std::shared_ptr<uint8_t> array(
            static_cast<uint8_t*>(::operator new(bytes, alignment)),
            [alignment](uint8_t* p) { ::operator delete(p, alignment); });
#ifdef MADV_HUGEPAGE
    // Whole pages only, so that nothing is taken which was not asked for. A refusal costs speed alone.
    if (const size_t whole = bytes / huge_page * huge_page; whole > 0) {
        static_cast<void>(madvise(array.get(), whole, MADV_HUGEPAGE));
    }
#endif
    return array;
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
