// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Small files for tests: byte strings built field by field, and a folder that cleans up after
// itself.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm::test {

/// A fresh folder, removed with everything in it.
class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "faiss_gmm_XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("cannot make a temporary folder");
        }
        path_ = name;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    std::string path() const {
        return path_.string();
    }
    /// Writes `bytes` as a file of the folder; returns its path.
    std::string write(const std::string& name, const std::string& bytes) const {
        const std::string path = (path_ / name).string();
        std::ofstream(path, std::ios::binary) << bytes;
        return path;
    }

private:
    std::filesystem::path path_;
};

/// The bytes of values, as they lie in memory.
template <class T> std::string bytes_of(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// .fbin and its kin: u32 n, u32 d, rows.
template <class T> std::string big_ann(uint32_t n, uint32_t d, const std::vector<T>& rows) {
    return bytes_of<uint32_t>({n, d}) + bytes_of(rows);
}

/// .fvecs and its kin: int32 d before each row.
template <class T> std::string texmex(size_t d, const std::vector<T>& rows) {
    std::string bytes;
    for (size_t i = 0; i + d <= rows.size(); i += d) {
        bytes += bytes_of<int32_t>({static_cast<int32_t>(d)});
        bytes += bytes_of(std::vector<T>(rows.begin() + i, rows.begin() + i + d));
    }
    return bytes;
}

/// .npy with the given dictionary, padded as NumPy does.
inline std::string npy_header(const std::string& dictionary, int major = 1) {
    const size_t prefix = major == 1 ? 10 : 12;
    std::string text = dictionary;
    while ((prefix + text.size() + 1) % 64 != 0) {
        text += ' ';
    }
    text += '\n';
    std::string bytes = "\x93NUMPY";
    bytes += static_cast<char>(major);
    bytes += '\0';
    const auto length = static_cast<uint32_t>(text.size());
    for (size_t i = 0; i < prefix - 8; ++i) {
        bytes += static_cast<char>(length >> (8 * i) & 255);
    }
    return bytes + text;
}

inline std::string npy_dictionary(const std::string& descr, const std::string& shape) {
    return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
}

/// The message of the Error that `call` throws, after checking that it has all four parts.
template <class Call> std::string error_of(Call&& call) {
    try {
        call();
    } catch (const Error& error) {
        const std::string text = error.what();
        const size_t given = text.find(": given ");
        const size_t allowed = text.find("; allowed: ");
        const size_t next = allowed == std::string::npos ? allowed : text.find("; ", allowed + 11);
        EXPECT_TRUE(given != std::string::npos && given > 0) << text;
        EXPECT_TRUE(allowed != std::string::npos && allowed > given + 8) << text;
        EXPECT_TRUE(next != std::string::npos && next > allowed + 11 && next + 3 < text.size())
                << text;
        return text;
    }
    ADD_FAILURE() << "no Error was thrown";
    return "";
}

} // namespace faiss_gmm::test
