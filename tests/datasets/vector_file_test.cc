// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/vector_file.h"

#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/datasets/files.h"

using namespace faiss_gmm;
using namespace faiss_gmm::test;

namespace {

constexpr size_t n = 3, d = 5;

template <class T> std::vector<T> some_rows() {
    std::vector<T> rows(n * d);
    std::iota(rows.begin(), rows.end(), T(std::numeric_limits<T>::is_signed ? -7 : 0));
    return rows;
}

/// One whole file of each format, by extension.
struct Sample {
    std::string name, bytes;
    ElementType type;
};

template <class T> std::string npy(const std::string& descr, int major = 1) {
    return npy_header(npy_dictionary(descr, "(3, 5)"), major) + bytes_of(some_rows<T>());
}

std::vector<Sample> samples() {
    const auto f = some_rows<float>();
    const auto u = some_rows<uint8_t>();
    const auto s = some_rows<int8_t>();
    const auto i = some_rows<int32_t>();
    return {
            {"x.fvecs", texmex(d, f), ElementType::float32},
            {"x.bvecs", texmex(d, u), ElementType::uint8},
            {"x.ivecs", texmex(d, i), ElementType::int32},
            {"x.fbin", big_ann(n, d, f), ElementType::float32},
            {"x.u8bin", big_ann(n, d, u), ElementType::uint8},
            {"x.i8bin", big_ann(n, d, s), ElementType::int8},
            {"x.ibin", big_ann(n, d, i), ElementType::int32},
            {"f4.npy", npy<float>("<f4"), ElementType::float32},
            {"u1.npy", npy<uint8_t>("|u1"), ElementType::uint8},
            {"i1.npy", npy<int8_t>("|i1"), ElementType::int8},
            {"i4.npy", npy<int32_t>("<i4"), ElementType::int32},
            {"v2.npy", npy<float>("<f4", 2), ElementType::float32},
    };
}

template <class T> void expect_rows(const VectorFile& file) {
    const std::vector<T> rows = some_rows<T>();
    for (size_t i = 0; i < n; ++i) {
        const T* row = file.row<T>(i);
        EXPECT_EQ(std::vector<T>(row, row + d), std::vector<T>(&rows[i * d], &rows[i * d] + d));
    }
    if (file.type() == ElementType::int32) {
        return;
    }
    std::vector<float> out((n - 1) * d);
    file.to_float(1, n - 1, out.data());
    EXPECT_EQ(out, std::vector<float>(rows.begin() + d, rows.end()));
}

std::string
open_error(const TemporaryFolder& folder, const std::string& name, const std::string& bytes) {
    const std::string path = folder.write(name, bytes);
    const std::string text = error_of([&] { VectorFile file(path); });
    EXPECT_NE(text.find(path), std::string::npos) << text;
    return text;
}

void expect_in(const std::string& part, const std::string& text) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

} // namespace

TEST(VectorFile, RoundTripsEveryFormat) {
    const TemporaryFolder folder;
    for (const Sample& sample : samples()) {
        SCOPED_TRACE(sample.name);
        const VectorFile file(folder.write(sample.name, sample.bytes));
        EXPECT_EQ(file.rows(), n);
        EXPECT_EQ(file.dimensions(), d);
        ASSERT_EQ(file.type(), sample.type);
        switch (sample.type) {
        case ElementType::float32:
            expect_rows<float>(file);
            break;
        case ElementType::uint8:
            expect_rows<uint8_t>(file);
            break;
        case ElementType::int8:
            expect_rows<int8_t>(file);
            break;
        case ElementType::int32:
            expect_rows<int32_t>(file);
            break;
        }
    }
}

TEST(VectorFile, EveryTruncationIsRefused) {
    const TemporaryFolder folder;
    for (const Sample& sample : samples()) {
        const bool is_texmex = sample.name.find("vecs") != std::string::npos;
        const size_t row_bytes = 4 + d * element_size(sample.type);
        for (size_t length = 0; length < sample.bytes.size(); ++length) {
            SCOPED_TRACE(sample.name + " cut to " + std::to_string(length));
            const std::string bytes = sample.bytes.substr(0, length);
            if (is_texmex && length > 0 && length % row_bytes == 0) {
                // Whole rows: the format has no way to tell, so this is a good, shorter file.
                EXPECT_EQ(VectorFile(folder.write(sample.name, bytes)).rows(), length / row_bytes);
            } else {
                open_error(folder, sample.name, bytes);
            }
        }
    }
}

TEST(VectorFile, BytesAfterTheLastRowAreRefused) {
    const TemporaryFolder folder;
    for (const Sample& sample : samples()) {
        open_error(folder, sample.name, sample.bytes + "x");
    }
    expect_in("after the last row", open_error(folder, "x.fbin", samples()[3].bytes + "x"));
}

TEST(VectorFile, EveryByteChangedInAHeaderThrowsOrOpens) {
    const TemporaryFolder folder;
    for (const Sample& sample : samples()) {
        for (size_t at = 0; at < std::min<size_t>(sample.bytes.size(), 128); ++at) {
            for (const char value : {'\0', '\1', '\x7f', '\xff', '9', '(', '\''}) {
                std::string bytes = sample.bytes;
                bytes[at] = value;
                const std::string path = folder.write(sample.name, bytes);
                try {
                    const VectorFile file(path);
                    std::vector<float> out(file.rows() * file.dimensions());
                    file.to_float(0, file.rows(), out.data());
                } catch (const Error&) {
                }
            }
        }
    }
}

TEST(VectorFile, HostileBigAnnHeaders) {
    const TemporaryFolder folder;
    const auto open = [&](uint32_t rows, uint32_t dimensions) {
        return open_error(folder, "x.fbin", big_ann<float>(rows, dimensions, {1, 2, 3}));
    };
    expect_in("d = 0", open(3, 0));
    expect_in("0 rows", open(0, 3));
    expect_in("d = 2147483648", open(1, 1u << 31));
    expect_in("d = 4294967295", open(1, ~0u)); // -1 as another program might write it
    expect_in("truncated", open(~0u, 3));
    // 2^32 - 1 rows of (2^31 - 1) floats: 2^65 bytes.
    expect_in("overflows", open(~0u, 0x7fffffffu));
}

TEST(VectorFile, HostileTexmexHeaders) {
    const TemporaryFolder folder;
    const auto open = [&](int32_t dimensions) {
        return open_error(
                folder, "x.fvecs", bytes_of<int32_t>({dimensions}) + bytes_of<float>({1, 2}));
    };
    expect_in("d = 0", open(0));
    expect_in("d = -1", open(-1));
    expect_in("d = -2147483648", open(std::numeric_limits<int32_t>::min()));
    expect_in("truncated", open(std::numeric_limits<int32_t>::max()));
    expect_in("0 rows", open_error(folder, "x.fvecs", ""));
    expect_in("truncated", open_error(folder, "x.fvecs", "abc"));
}

TEST(VectorFile, AWrongDimensionInTheMiddleIsFound) {
    const TemporaryFolder folder;
    std::string bytes = texmex(d, some_rows<float>());
    // Another d, the size unchanged: rows before it are good, the row itself is refused.
    const std::string four = bytes_of<int32_t>({4});
    std::string changed = bytes;
    changed.replace(4 + 4 * d, 4, four);
    const VectorFile file(folder.write("x.fvecs", changed));
    EXPECT_EQ(file.row<float>(0)[0], -7);
    EXPECT_EQ(file.row<float>(2)[0], 3);
    expect_in("d = 4 before row 1", error_of([&] { file.row<float>(1); }));
    std::vector<float> out(n * d);
    expect_in("d = 4 before row 1", error_of([&] { file.to_float(0, n, out.data()); }));
    // A row that really has another length: opening says which.
    std::string shorter = bytes;
    shorter.replace(4 + 4 * d, 4 + 4, four);
    expect_in("d = 4 before row 1", open_error(folder, "y.fvecs", shorter));
}

TEST(VectorFile, NpyFilesThatAreRefused) {
    const TemporaryFolder folder;
    const auto open = [&](const std::string& dictionary) {
        return open_error(folder, "x.npy", npy_header(dictionary) + bytes_of(some_rows<float>()));
    };
    expect_in("big-endian", open(npy_dictionary(">f4", "(3, 5)")));
    expect_in("'<f8'", open(npy_dictionary("<f8", "(3, 5)")));
    expect_in(
            "structured",
            open("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 5)}"));
    expect_in("Fortran", open("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 5), }"));
    expect_in("neither True", open("{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 5), }"));
    expect_in("(15,)", open(npy_dictionary("<f4", "(15,)")));
    expect_in("(3, 5, 1)", open(npy_dictionary("<f4", "(3, 5, 1)")));
    expect_in("()", open(npy_dictionary("<f4", "()")));
    expect_in("0 rows", open(npy_dictionary("<f4", "(0, 5)")));
    expect_in("d = 0", open(npy_dictionary("<f4", "(3, 0)")));
    expect_in("d = 2147483648", open(npy_dictionary("<f4", "(1, 2147483648)")));
    expect_in("64 bits", open(npy_dictionary("<f4", "(99999999999999999999, 5)")));
    expect_in("overflows", open(npy_dictionary("<f4", "(9223372036854775807, 5)")));
    expect_in("no whole number", open(npy_dictionary("<f4", "(-3, 5)")));
    expect_in("without one of", open("{'descr': '<f4', 'shape': (3, 5), }"));
    expect_in("'more'", open("{'descr': '<f4', 'more': 1, 'shape': (3, 5), }"));
    expect_in("'descr' where", open("{'descr': '<f4', 'descr': '<f4', }"));
    expect_in("no '{'", open(""));
    expect_in("version 3.0", open_error(folder, "x.npy", std::string("\x93NUMPY\3\0\0\0", 10)));
    expect_in("signature", open_error(folder, "x.npy", "not a numpy file"));
    expect_in("truncated", open_error(folder, "x.npy", std::string("\x93NUMPY\1\0\xff\xff", 10)));
    // Rows at an odd address cannot be handed out as floats.
    const std::string text = npy_dictionary("<f4", "(1, 1)");
    std::string odd("\x93NUMPY\1\0", 8);
    odd += static_cast<char>(text.size() + (text.size() + 10 + 1) % 2);
    odd += '\0';
    odd += text + std::string((text.size() + 10 + 1) % 2, ' ') + bytes_of<float>({1});
    expect_in("begin at byte", open_error(folder, "x.npy", odd));
}

TEST(VectorFile, RequestsThatAreRefused) {
    const TemporaryFolder folder;
    const VectorFile bytes(folder.write("x.u8bin", big_ann(n, d, some_rows<uint8_t>())));
    expect_in("uint8", error_of([&] { bytes.row<float>(0); }));
    expect_in("rows 0 to 2", error_of([&] { bytes.row<uint8_t>(3); }));
    float out[d];
    expect_in("rows 0 to 2", error_of([&] { bytes.to_float(2, 2, out); }));
    expect_in("rows 0 to 2", error_of([&] { bytes.to_float(2, ~size_t(0), out); }));
    const VectorFile ids(folder.write("x.ibin", big_ann(n, d, some_rows<int32_t>())));
    expect_in("ids", error_of([&] { ids.to_float(0, 1, out); }));
    expect_in(".hdf5", open_error(folder, "x.hdf5", ""));
    expect_in("no extension", open_error(folder, "x", ""));
}
