// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace faiss_gmm {

/// A regular file mapped read-only; pages are read when they are touched. The file must not be
/// shortened while it is mapped: the system then ends the program (SIGBUS).
class MappedFile {
public:
    /// Throws Error when the file cannot be opened, is no regular file, or cannot be mapped.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const uint8_t* data() const { ///< page-aligned; null for an empty file
        return data_;
    }
    size_t size() const { ///< bytes
        return size_;
    }

private:
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

} // namespace faiss_gmm
