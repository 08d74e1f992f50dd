// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

namespace {

/// Closes the descriptor at the end of the scope; the mapping outlives it.
struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) {
            close(fd);
        }
    }
};

Error cannot_map(const std::string& path, const std::string& why, const std::string& next) {
    return Error({fmt::format("opening '{}'", path), why, "a regular file that can be read", next});
}

} // namespace

MappedFile::MappedFile(const std::string& path) {
    // O_NONBLOCK: a named pipe must be refused below, not waited for.
    const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.fd < 0) {
        throw cannot_map(path, std::strerror(errno), "check the path and its permissions");
    }
    struct stat status {};
    if (fstat(file.fd, &status) != 0) {
        throw cannot_map(path, std::strerror(errno), "check the file system");
    }
    if (!S_ISREG(status.st_mode)) {
        throw cannot_map(
                path, "a folder, pipe or device", "name the file itself, or copy it to disk first");
    }
    if (status.st_size == 0) {
        return; // mmap refuses length 0; the formats' own checks say what is missing
    }
    const auto size = static_cast<size_t>(status.st_size);
    void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (data == MAP_FAILED) {
        throw cannot_map(
                path,
                fmt::format("{} bytes, {}", size, std::strerror(errno)),
                "free address space or raise the limit (ulimit -v)");
    }
    data_ = static_cast<const uint8_t*>(data);
    size_ = size;
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) {
        munmap(const_cast<uint8_t*>(data_), size_);
    }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

} // namespace faiss_gmm
