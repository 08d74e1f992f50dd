// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <fmt/format.h>

#include <faiss/impl/io.h>

#include "faiss_gmm/compat/io.h"
#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/runs/detail/checksum.h"

namespace faiss_gmm {

/// Passes on what is written and sums it up. Throws Error where the writer behind takes less.
class SectionWriter : public faiss::IOWriter {
public:
    static constexpr bool reads = false;

    explicit SectionWriter(faiss::IOWriter& out) : out_(out) {
        name = out.name;
    }

    size_t operator()(const void* bytes, size_t size, size_t n) override {
        put(bytes, size * n);
        return n;
    }
    int FAISS_GMM_FILENO() override {
        return out_.FAISS_GMM_FILENO();
    }

    template <class T> void number(const T& value, const char*) {
        static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
        put(&value, sizeof value);
    }
    void flag(bool value, const char*) {
        const uint8_t byte = value ? 1 : 0;
        put(&byte, 1);
    }
    template <class Enum> void choice(Enum value, Enum, const char*) {
        const auto number = static_cast<uint32_t>(value);
        put(&number, sizeof number);
    }
    /// The count is not written: the reader knows it from what came before.
    template <class T, class A>
    void array(const std::vector<T, A>& values, size_t count, const char* what) {
        if (values.size() != count) {
            throw Error(
                    {"writing an IVFGMM index",
                     fmt::format("{} numbers of {}", values.size(), what),
                     fmt::format("{}, as the rest of the index asks for", count),
                     "call check() on the index, and report how it came to this"});
        }
        put(values.data(), count * sizeof(T));
    }
    void bytes(const uint8_t* first, size_t count) {
        put(first, count);
    }
    /// The checksum of all since the last one.
    void checksum(const char*) {
        const uint64_t value = sum_.value();
        sum_ = Checksum();
        if (out_(&value, sizeof value, 1) != 1) {
            refuse();
        }
    }

private:
    void put(const void* bytes, size_t n) {
        sum_.add(bytes, n);
        if (n > 0 && out_(bytes, 1, n) != n) {
            refuse();
        }
    }
    [[noreturn]] void refuse() const {
        throw Error(
                {"writing an IVFGMM index",
                 fmt::format("a writer ({}) that takes no more bytes", out_.name),
                 "room for the whole index",
                 "make room, and write the index again"});
    }

    faiss::IOWriter& out_;
    Checksum sum_;
};

/// Reads what SectionWriter wrote. Nothing that is read is believed: an array comes in pieces of at most
/// 16 MiB, so what is allocated never runs ahead of bytes that were there. Throws Error naming the reader
/// and the place.
class SectionReader : public faiss::IOReader {
public:
    static constexpr bool reads = true;
    static constexpr size_t piece = size_t{16} << 20;
    static constexpr size_t largest_count = size_t{1} << 40; ///< of any array

    /// part: what the place in a message is counted from the beginning of.
    explicit SectionReader(faiss::IOReader& in, const char* part = "the lists' section")
            : in_(in), part_(part) {
        name = in.name;
    }

    /// For the stock reader of what lies inside.
    size_t operator()(void* bytes, size_t size, size_t n) override {
        const size_t wanted = size * n, kept = std::min(wanted, pushed_.size());
        std::copy_n(pushed_.begin(), kept, static_cast<uint8_t*>(bytes));
        pushed_.erase(pushed_.begin(), pushed_.begin() + static_cast<std::ptrdiff_t>(kept));
        size_t got = 0;
        if (wanted > kept) {
            got = in_(static_cast<uint8_t*>(bytes) + kept, 1, wanted - kept);
            sum_.add(static_cast<uint8_t*>(bytes) + kept, got);
            at_ += got;
        }
        return size == 0 ? 0 : (kept + got) / size;
    }
    int FAISS_GMM_FILENO() override {
        return in_.FAISS_GMM_FILENO();
    }
    /// Gives bytes that were read back, to be read again.
    void push_back(const void* bytes, size_t n) {
        const auto* first = static_cast<const uint8_t*>(bytes);
        pushed_.insert(pushed_.begin(), first, first + n);
    }

    template <class T> void number(T& value, const char* what) {
        static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
        get(&value, sizeof value, what);
    }
    void flag(bool& value, const char* what) {
        uint8_t byte = 0;
        get(&byte, 1, what);
        if (byte > 1) {
            refuse(fmt::format("{} = {}", what, byte), "0 or 1");
        }
        value = byte == 1;
    }
    template <class Enum> void choice(Enum& value, Enum last, const char* what) {
        uint32_t number = 0;
        get(&number, sizeof number, what);
        if (number > static_cast<uint32_t>(last)) {
            refuse(fmt::format("{} number {}", what, number),
                   fmt::format("0 to {}", static_cast<uint32_t>(last)));
        }
        value = static_cast<Enum>(number);
    }
    template <class T, class A>
    void array(std::vector<T, A>& values, size_t count, const char* what) {
        if (count > largest_count) {
            refuse(fmt::format("{} numbers of {}", count, what),
                   fmt::format("up to {}", largest_count));
        }
        values.clear();
        constexpr size_t at_once = piece / sizeof(T);
        for (size_t first = 0; first < count; first += at_once) {
            const size_t n = std::min(at_once, count - first);
            values.resize(first + n);
            get(values.data() + first, n * sizeof(T), what);
        }
        if (count > at_once) {
            values.shrink_to_fit();
        }
    }
    void checksum(const char* what) {
        const uint64_t computed = sum_.value();
        uint64_t written = 0;
        get(&written, sizeof written, what);
        sum_ = Checksum();
        if (written != computed) {
            refuse(fmt::format("{} {:016x} over bytes that have {:016x}", what, written, computed),
                   "bytes as they were written");
        }
    }

    [[noreturn]] void refuse(const std::string& given, const std::string& allowed) const {
        throw Error(
                {"reading the lists of an IVFGMM index",
                 fmt::format(
                         "{}, in {} at byte {} of {}",
                         given,
                         name.empty() ? "a stream" : name,
                         at_,
                         part_),
                 allowed,
                 "read an undamaged copy of the file, or build the index again"});
    }
    void require(bool holds, const std::string& given, const std::string& allowed) const {
        if (!holds) {
            refuse(given, allowed);
        }
    }

private:
    void get(void* bytes, size_t n, const char* what) {
        if (n > 0 && (*this)(bytes, 1, n) != n) {
            refuse(fmt::format("an end within {}", what), "the whole of it");
        }
    }

    faiss::IOReader& in_;
    const char* part_;
    Checksum sum_;
    size_t at_ = 0;
    std::vector<uint8_t> pushed_;
};

} // namespace faiss_gmm
