// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/io/atomic_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "faiss_gmm/index/faiss_error.h"

namespace faiss_gmm {
namespace {

constexpr size_t buffer_bytes = size_t{1} << 20;
constexpr mode_t ordinary_permissions = 0666; // less what the process takes away

/// What a link, or a chain of them, points to.
std::string behind_links(const std::string& path) {
    std::error_code failed;
    const std::filesystem::path target = std::filesystem::weakly_canonical(path, failed);
    const bool is_link = std::filesystem::is_symlink(path, failed);
    return is_link && !target.empty() ? target.string() : path;
}

std::string folder_of(const std::string& path) {
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    return folder.empty() ? "." : folder.string();
}

} // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(behind_links(path)) {
    static std::atomic<unsigned> number{0};
    name = path;
    buffer_.reserve(buffer_bytes);
    struct stat present;
    const bool replaces = ::stat(path_.c_str(), &present) == 0;
    if (replaces && !S_ISREG(present.st_mode)) {
        throw_faiss(
                {"writing an index file",
                 fmt::format("{}, which is no ordinary file", path),
                 "the name of a file, new or to be replaced",
                 "choose another name"});
    }
    do { // names of a process of the same number that was killed
        temporary_ = fmt::format("{}.{}-{}.tmp", path_, ::getpid(), number++);
        file_ = ::open(
                temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, ordinary_permissions);
    } while (file_ < 0 && errno == EEXIST);
    if (file_ < 0) {
        refuse(fmt::format("{} that cannot be made", temporary_), errno);
    }
    if (replaces) {
        static_cast<void>(::fchmod(file_, present.st_mode & 07777)); // as well as may be
    }
}

AtomicFile::~AtomicFile() {
    if (file_ >= 0) {
        ::close(file_);
        ::unlink(temporary_.c_str());
    }
}

size_t AtomicFile::operator()(const void* bytes, size_t size, size_t n) {
    const size_t total = size * n;
    const auto* first = static_cast<const char*>(bytes);
    if (buffer_.size() + total > buffer_bytes) {
        write_out(buffer_.data(), buffer_.size());
        buffer_.clear();
    }
    if (total > buffer_bytes) {
        write_out(bytes, total);
    } else {
        buffer_.insert(buffer_.end(), first, first + total);
    }
    return n;
}

int AtomicFile::FAISS_GMM_FILENO() {
    return file_;
}

void AtomicFile::write_out(const void* bytes, size_t n) {
    const auto* first = static_cast<const char*>(bytes);
    while (n > 0) {
        const ssize_t done = ::write(file_, first, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            refuse("bytes that the disk does not take", done < 0 ? errno : ENOSPC);
        }
        first += done;
        n -= static_cast<size_t>(done);
        written_ += static_cast<size_t>(done);
    }
}

void AtomicFile::commit() {
    write_out(buffer_.data(), buffer_.size());
    buffer_.clear();
    if (::fsync(file_) != 0) {
        refuse("bytes that do not reach the disk", errno);
    }
    const int file = file_;
    file_ = -1;
    if (::close(file) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
        const int reason = errno;
        ::unlink(temporary_.c_str());
        refuse("a file that cannot be given its name", reason);
    }
    const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        // The file is there as a whole already. Some file systems have no fsync of folders.
        const int failed = ::fsync(folder) != 0 ? errno : 0;
        ::close(folder);
        if (failed == EIO || failed == ENOSPC || failed == EDQUOT) {
            throw_faiss(
                    {"writing an index file",
                     fmt::format(
                             "the folder of {}, whose names do not reach the disk: {}",
                             name,
                             std::strerror(failed)),
                     "a disk that keeps what it is given",
                     "look after the disk: the new file is whole, but may be the old one again "
                     "after a crash"});
        }
    }
}

void AtomicFile::refuse(const std::string& what, int reason) const {
    throw_faiss(
            {"writing an index file",
             fmt::format("{} at byte {} of {}: {}", what, written_, name, std::strerror(reason)),
             "a folder that may be written to, with room for the whole file",
             "make room or choose another folder; what stood at this name before is unchanged"});
}

} // namespace faiss_gmm
