// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A file: FAISS's bytes, n of them | n, 64 bits | XXH3 of them, 64 bits | "gmmtrail".
#include "faiss_gmm/io/index_io.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

#include <sys/stat.h>

#include <fmt/format.h>

#include <faiss/index_io.h>

#include "faiss_gmm/compat/io.h"
#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/index/wrappers.h"
#include "faiss_gmm/io/atomic_file.h"
#include "faiss_gmm/runs/detail/checksum.h"

namespace faiss_gmm {
namespace {

struct Trailer {
    uint64_t bytes = 0, checksum = 0;
    std::array<char, 8> mark = {'g', 'm', 'm', 't', 'r', 'a', 'i', 'l'};
};
static_assert(sizeof(Trailer) == 24, "written as it stands");

/// Passes on, counts and sums up.
class SummingWriter : public faiss::IOWriter {
public:
    explicit SummingWriter(faiss::IOWriter& out) : out_(out) {
        name = out.name;
    }
    size_t operator()(const void* bytes, size_t size, size_t n) override {
        const size_t taken = out_(bytes, size, n);
        sum_.add(bytes, size * taken);
        trailer_.bytes += size * taken;
        return taken;
    }
    int FAISS_GMM_FILENO() override {
        return out_.FAISS_GMM_FILENO();
    }
    Trailer trailer() {
        trailer_.checksum = sum_.value();
        return trailer_;
    }

private:
    faiss::IOWriter& out_;
    Checksum sum_;
    Trailer trailer_;
};

[[noreturn]] void
refuse(const std::string& path, const std::string& given, const std::string& allowed) {
    throw_faiss(
            {"reading an index file",
             fmt::format("{}: {}", path, given),
             allowed,
             "give another file, or an undamaged copy of this one"});
}

/// A file open for reading, looked at once: what is verified is what is read.
class File {
public:
    explicit File(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "rb")) {
        struct stat status;
        if (!file_ || ::fstat(::fileno(file_.get()), &status) != 0) {
            refuse(path_, std::strerror(errno), "a file that may be read");
        }
        if (!S_ISREG(status.st_mode)) {
            refuse(path_, "no ordinary file", "an index file");
        }
        size_ = static_cast<uint64_t>(status.st_size);
    }
    FILE* get() const {
        return file_.get();
    }
    uint64_t size() const {
        return size_;
    }
    uint64_t at() const {
        return static_cast<uint64_t>(std::max<off_t>(0, ::ftello(file_.get())));
    }
    void go_to(uint64_t place) const {
        if (::fseeko(file_.get(), static_cast<off_t>(place), SEEK_SET) != 0) {
            refuse(path_, std::strerror(errno), "a file that may be read at any place");
        }
    }
    void read(void* bytes, size_t n) const {
        if (std::fread(bytes, 1, n, file_.get()) != n) {
            refuse(path_,
                   fmt::format("{} bytes cannot be read at byte {}", n, at()),
                   "a file that may be read to its end");
        }
    }

private:
    struct Close {
        void operator()(FILE* file) const {
            std::fclose(file);
        }
    };
    std::string path_;
    std::unique_ptr<FILE, Close> file_;
    uint64_t size_ = 0;
};

/// Bytes of the index itself: those before a trailer, which must then agree with them, or all.
uint64_t verified_bytes(const std::string& path, const File& file) {
    Trailer trailer;
    const std::array<char, 8> mark = trailer.mark;
    if (file.size() < sizeof trailer) {
        return file.size();
    }
    file.go_to(file.size() - sizeof trailer);
    file.read(&trailer, sizeof trailer);
    file.go_to(0);
    if (trailer.mark != mark) {
        return file.size(); // written by FAISS
    }
    const uint64_t body = file.size() - sizeof trailer;
    if (trailer.bytes != body) {
        refuse(path,
               fmt::format("{} bytes, where its end speaks of {}", body, trailer.bytes),
               "a whole file");
    }
    Checksum sum;
    std::vector<char> piece(size_t{1} << 20);
    for (uint64_t first = 0; first < body; first += piece.size()) {
        const size_t n = std::min<uint64_t>(piece.size(), body - first);
        file.read(piece.data(), n);
        sum.add(piece.data(), n);
    }
    file.go_to(0);
    if (sum.value() != trailer.checksum) {
        refuse(path,
               fmt::format(
                       "checksum {:016x} in bytes 0 to {}, written as {:016x}",
                       sum.value(),
                       body,
                       trailer.checksum),
               "bytes as they were written");
    }
    return body;
}

bool is_over_our_lists(const faiss::IndexIVF& index) {
    return dynamic_cast<const IndexIVFGMM*>(&index) == nullptr &&
           dynamic_cast<const MixtureLists*>(index.invlists) != nullptr;
}

} // namespace

void write_index(const faiss::Index& index, faiss::IOWriter& writer) {
    register_lists_io();
    SummingWriter summing(writer);
    faiss::write_index(&index, &summing);
    const Trailer trailer = summing.trailer();
    if (writer(&trailer, sizeof trailer, 1) != 1) {
        throw_faiss(
                {"writing an index",
                 fmt::format("a writer ({}) that takes no more bytes", writer.name),
                 "room for the whole index",
                 "make room, and write the index again"});
    }
}

void write_index(const faiss::Index& index, const std::string& path) {
    AtomicFile file(path);
    write_index(index, file);
    file.commit();
}

faiss::Index* read_index(const std::string& path, int io_flags) {
    register_lists_io();
    const File file(path);
    const uint64_t body = verified_bytes(path, file);
    faiss::FileIOReader reader(file.get());
    reader.name = path;
    const auto damaged = [&](const char* why) {
        refuse(path,
               fmt::format("no index that can be read at byte {} of {}: {}", file.at(), body, why),
               "a whole file that write_index wrote");
    };
    std::unique_ptr<faiss::Index> index;
    try {
        index.reset(faiss::read_index(&reader, io_flags));
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) { // FAISS's, or std::length_error for a size of its own
        damaged(error.what());
    }
    if (file.at() != body) {
        damaged("more bytes follow than the index has");
    }
    faiss::Index* const promoted = promote(index.get());
    static_cast<void>(index.release());
    return promoted;
}

faiss::Index* promote(faiss::Index* index) {
    register_lists_io();
    if (index == nullptr) {
        throw_faiss(
                {"making an IVFGMM index of a stock one",
                 "no index (a null pointer)",
                 "what faiss::read_index returned",
                 "read the index first"});
    }
    faiss::Index** const slot = innermost_slot(&index);
    auto* stock = dynamic_cast<faiss::IndexIVF*>(*slot);
    if (stock == nullptr || !is_over_our_lists(*stock)) {
        return index;
    }
    std::unique_ptr<faiss::IndexIVF> ours = taken_over(*stock);
    if (!ours) {
        throw_faiss(
                {"making an IVFGMM index of a stock one",
                 fmt::format("a {} over lists of this library", typeid(*stock).name()),
                 "the codecs of faiss_gmm/index/codecs.h",
                 "use the index as a stock one"});
    }
    delete *slot;
    *slot = ours.release();
    return index;
}

} // namespace faiss_gmm
