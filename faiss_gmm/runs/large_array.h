// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace faiss_gmm {

/// Bytes on a cache line, not set; on huge pages where there are 2 MiB of them or more and the system
/// gives such pages. Throws std::bad_alloc.
std::shared_ptr<uint8_t> make_large_array(size_t bytes);

/// Asks the system for huge pages under bytes [first, first + bytes): those that lie within, so that
/// nothing is taken which was not asked for. Where small pages stand there already (an allocator wrote
/// its marks), `collapse` brings them together at once, if the system lets programs ask for huge pages
/// and knows how (Linux 6.1). A refusal costs speed alone.
void ask_for_huge_pages(void* first, size_t bytes, bool collapse);

/// Gives freed memory that the allocator keeps back to the system, where it offers that (glibc).
void return_freed_memory();

/// The blocks of one list: an array of its own, or, once the directory is packed, a slice of the array
/// of all lists. Copies have arrays of their own.
class Blocks {
public:
    Blocks() = default;
    Blocks(Blocks&& other) noexcept {
        *this = std::move(other);
    }
    Blocks(const Blocks& other);
    Blocks& operator=(Blocks&& other) noexcept;
    Blocks& operator=(const Blocks& other) {
        return *this = Blocks(other);
    }

    uint8_t* data() {
        return data_;
    }
    const uint8_t* data() const {
        return data_;
    }
    size_t size() const {
        return size_;
    }
    /// New bytes are zero. A slice becomes an array of its own.
    void resize(size_t bytes);
    /// Moves the bytes to where `slice` points, which must outlive this or the next resize().
    void move_to(uint8_t* slice);
    /// Bytes of its own array.
    size_t own_bytes() const {
        return own_ ? size_ : 0;
    }

private:
    struct Free {
        void operator()(uint8_t* bytes) const;
    };
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
    std::unique_ptr<uint8_t, Free> own_;
};

} // namespace faiss_gmm
