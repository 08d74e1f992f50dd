// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <faiss/impl/io.h>

namespace faiss_gmm {

/// The bytes of one run of the target, read as a file. While it lives any checksum in them is right, and inner lists
/// that stock code would parse are cut off: both by any_checksum.cc, which stands in for the library's.
class ListsInput : public faiss::IOReader {
public:
    ListsInput(const uint8_t* bytes, size_t size) : bytes_(bytes), size_(size) {
        name = "fuzzed lists";
        current_ = this;
    }
    ~ListsInput() override {
        current_ = nullptr;
    }
    ListsInput(const ListsInput&) = delete;
    ListsInput& operator=(const ListsInput&) = delete;

    size_t operator()(void* to, size_t size, size_t n) override {
        if (size == 0) {
            return 0;
        }
        if (size * n <= sizeof(uint64_t)) {
            numbers_.push_back({at_, size * n});
        }
        const size_t whole = std::min(n, (size_ - at_) / size);
        std::memcpy(to, bytes_ + at_, whole * size);
        at_ += whole * size;
        return whole;
    }

    /// A read of at most 8 bytes: one number, as a size is.
    struct Number {
        size_t at, size;
    };
    const std::vector<Number>& numbers() const {
        return numbers_;
    }

    /// The one that lives; null: none.
    static ListsInput* current() {
        return current_;
    }
    /// A checksum is read next: what it must be. Behind the first one of lists in runs stands the kind of the inner lists.
    uint64_t right_checksum() {
        uint64_t written = 0;
        if (size_ - at_ < sizeof written) {
            return 0;
        }
        std::memcpy(&written, bytes_ + at_, sizeof written);
        const bool in_runs = size_ >= 4 && std::memcmp(bytes_, "ilgm", 4) == 0;
        if (in_runs && checksums_++ == 0) {
            keep_out_stock_code(at_ + sizeof written);
        }
        return written;
    }

private:
    /// Kinds whose parser is the library's own stay.
    void keep_out_stock_code(size_t kind_at) {
        const auto is = [&](const char* kind) {
            return size_ - kind_at >= 4 && std::memcmp(bytes_ + kind_at, kind, 4) == 0;
        };
        if (!is("ilar") && !is("ilgm") && !is("ilgb")) {
            size_ = std::min(size_, kind_at);
        }
    }

    static inline ListsInput* current_ = nullptr;
    const uint8_t* bytes_;
    size_t size_, at_ = 0, checksums_ = 0;
    std::vector<Number> numbers_;
};

} // namespace faiss_gmm
