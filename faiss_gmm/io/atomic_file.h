// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>
#include <vector>

#include <faiss/impl/io.h>

#include "faiss_gmm/compat/io.h"

namespace faiss_gmm {

/// A file that is there as a whole or not at all: written under another name in the same folder
/// (`<path>.<process>-<number>.tmp`), and given its own by commit(). Without commit() that name goes with this
/// object; a killed process leaves it behind, to be deleted, and `path` as it was. A file that stood at
/// `path` leaves its permissions to the new one; where `path` is a link, what it points to is replaced.
///
/// Throws faiss::FaissException naming file, place and the system's reason.
class AtomicFile : public faiss::IOWriter {
public:
    explicit AtomicFile(const std::string& path);
    ~AtomicFile() override;
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    size_t operator()(const void* bytes, size_t size, size_t n) override;
    int FAISS_GMM_FILENO() override;
    /// Brings all bytes to the disk, then the file to its name, then that to the disk.
    void commit();
    /// Where the bytes stand until commit().
    const std::string& temporary_path() const {
        return temporary_;
    }

private:
    void write_out(const void* bytes, size_t n);
    [[noreturn]] void refuse(const std::string& what, int reason) const;

    std::string path_, temporary_;
    int file_ = -1;
    size_t written_ = 0;
    std::vector<char> buffer_;
};

} // namespace faiss_gmm
