// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Sources hand out the rows they should, and nothing past their end.
#include "faiss_gmm/train/vector_source.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {
namespace {

constexpr size_t huge = std::numeric_limits<size_t>::max();

/// Row i is (10 i, 10 i + 1, ...).
std::vector<float> numbered(size_t n, size_t d) {
    std::vector<float> x(n * d);
    for (size_t i = 0; i < n * d; ++i) {
        x[i] = static_cast<float>(10 * (i / d) + i % d);
    }
    return x;
}

std::string message_of(VectorSource& source, size_t first, size_t n) {
    try {
        source.read(first, n);
    } catch (const Error& error) {
        return error.what();
    }
    return "nothing thrown";
}

TEST(RowElement, EveryTypeBecomesItsValues) {
    const std::vector<uint16_t> f16 = {
            0x3c00, 0xc000, 0x0001, 0x8400, 0x7bff, 0x7c00, 0xfe00, 0x3555};
    const std::vector<uint16_t> bf16 = {0x3f80, 0xc000, 0x0000, 0x7f80};
    const std::vector<uint8_t> u8 = {0, 1, 128, 255};
    const std::vector<int8_t> i8 = {-128, -1, 0, 127};
    std::vector<float> buffer;
    const auto values = [&](const void* numbers, RowElement element, size_t first, size_t n) {
        Chunk chunk;
        chunk.x = numbers;
        chunk.element = element;
        chunk.n = first + n;
        const Chunk rows = as_f32(chunk, 1, first, n, buffer);
        EXPECT_EQ(rows.n, n);
        EXPECT_EQ(rows.first, first);
        EXPECT_EQ(rows.element, RowElement::f32);
        return std::vector<float>(rows.floats(), rows.floats() + n);
    };
    const auto halves = values(f16.data(), RowElement::f16, 0, f16.size());
    EXPECT_EQ(halves[0], 1.0f);
    EXPECT_EQ(halves[1], -2.0f);
    EXPECT_EQ(halves[2], 0x1p-24f); // the least one
    EXPECT_EQ(halves[3], -0x1p-14f);
    EXPECT_EQ(halves[4], 65504.0f);
    EXPECT_EQ(halves[5], std::numeric_limits<float>::infinity());
    EXPECT_TRUE(std::isnan(halves[6]));
    EXPECT_EQ(halves[7], 0.333251953125f);
    EXPECT_EQ(
            values(bf16.data(), RowElement::bf16, 1, 3),
            (std::vector<float>{-2, 0, std::numeric_limits<float>::infinity()}));
    EXPECT_EQ(values(u8.data(), RowElement::u8, 0, 4), (std::vector<float>{0, 1, 128, 255}));
    EXPECT_EQ(values(i8.data(), RowElement::i8, 1, 3), (std::vector<float>{-1, 0, 127}));
}

TEST(SampledSource, GathersRowsOfEveryType) {
    const std::vector<uint8_t> x = {0, 1, 10, 11, 20, 21};
    SampledSource source(2, x.data(), {2, 0}, RowElement::u8);
    const Chunk chunk = source.read(0, 2);
    EXPECT_EQ(chunk.element, RowElement::u8);
    const auto* numbers = static_cast<const uint8_t*>(chunk.x);
    EXPECT_EQ(std::vector<uint8_t>(numbers, numbers + 4), (std::vector<uint8_t>{20, 21, 0, 1}));
}

TEST(MemorySource, HandsOutTheRowsWhereTheyLie) {
    const std::vector<float> x = numbered(7, 3);
    MemorySource source(7, 3, x.data());
    EXPECT_EQ(source.rows(), 7u);
    EXPECT_EQ(source.dimensions(), 3u);
    EXPECT_GE(source.max_chunk_rows(), 7u);
    for (size_t first = 0; first <= 7; ++first) {
        for (size_t n = 0; n <= 7 - first; ++n) {
            const Chunk chunk = source.read(first, n);
            EXPECT_EQ(chunk.floats(), x.data() + 3 * first); // no copy
            EXPECT_EQ(chunk.n, n);
            EXPECT_EQ(chunk.first, first);
            EXPECT_EQ(chunk.memory, Chunk::Memory::host);
        }
    }
}

TEST(MemorySource, RefusesReadsPastTheEnd) {
    const std::vector<float> x = numbered(7, 3);
    MemorySource source(7, 3, x.data());
    EXPECT_EQ(
            message_of(source, 5, 3),
            "reading rows: given rows 5 to 8 of 7; allowed: ranges within the source, at most 7 "
            "rows at once; ask for fewer rows.");
    EXPECT_THROW(source.read(0, 8), Error);
    EXPECT_THROW(source.read(7, 1), Error);
    EXPECT_THROW(source.read(8, 0), Error);
    EXPECT_THROW(source.read(1, huge), Error); // first + n wraps around to 0
    EXPECT_THROW(source.read(huge, 1), Error);
}

TEST(MemorySource, MayBeEmpty) {
    MemorySource source(0, 3, nullptr);
    EXPECT_EQ(source.rows(), 0u);
    EXPECT_EQ(source.read(0, 0).n, 0u);
    EXPECT_THROW(source.read(0, 1), Error);
}

TEST(SampledSource, GathersItsRowsInTheirOrder) {
    const std::vector<float> x = numbered(9, 2);
    const std::vector<int64_t> rows = {8, 0, 3, 3, 5};
    SampledSource source(2, x.data(), rows);
    EXPECT_EQ(source.rows(), 5u);
    EXPECT_EQ(source.dimensions(), 2u);
    // The longest read comes first, so that later ones find a buffer with old rows in it.
    for (size_t n = 5; n > 0; --n) {
        for (size_t first = 0; first + n <= 5; ++first) {
            const Chunk chunk = source.read(first, n);
            ASSERT_EQ(chunk.n, n);
            EXPECT_EQ(chunk.first, first);
            EXPECT_EQ(chunk.memory, Chunk::Memory::host);
            for (size_t i = 0; i < n; ++i) {
                EXPECT_EQ(chunk.floats()[2 * i], 10.0f * rows[first + i]);
                EXPECT_EQ(chunk.floats()[2 * i + 1], 10.0f * rows[first + i] + 1);
            }
        }
    }
}

TEST(SampledSource, RefusesReadsPastTheEnd) {
    const std::vector<float> x = numbered(9, 2);
    SampledSource source(2, x.data(), {8, 0, 3, 3, 5});
    EXPECT_NE(message_of(source, 4, 2).find("given rows 4 to 6 of 5;"), std::string::npos);
    EXPECT_THROW(source.read(5, 1), Error);
    EXPECT_THROW(source.read(6, 0), Error);
    EXPECT_THROW(source.read(1, huge), Error);
    EXPECT_THROW(source.read(huge, 1), Error);
    EXPECT_EQ(source.read(5, 0).n, 0u);
}

TEST(SampledSource, BoundsItsChunksAndGathersLongOnes) {
    // 4096 dimensions: 8 MiB are 512 rows, but no chunk need be shorter than 1024.
    const size_t d = 4096;
    const std::vector<float> x = numbered(3, d);
    std::vector<int64_t> rows(1100);
    for (size_t i = 0; i < rows.size(); ++i) {
        rows[i] = static_cast<int64_t>(i % 3);
    }
    SampledSource source(d, x.data(), rows);
    ASSERT_EQ(source.max_chunk_rows(), 1024u);
    EXPECT_NE(message_of(source, 0, 1025).find("at most 1024 rows at once"), std::string::npos);
    const Chunk chunk = source.read(76, 1024);
    for (size_t i = 0; i < 1024; ++i) {
        ASSERT_EQ(chunk.floats()[i * d], 10.0f * ((76 + i) % 3)) << i;
        ASSERT_EQ(chunk.floats()[i * d + d - 1], 10.0f * ((76 + i) % 3) + (d - 1)) << i;
    }
}

TEST(UnitLengthSource, BringsRowsToUnitLengthAndLeavesZeros) {
    const size_t n = 5000, d = 3;
    std::vector<float> x(n * d);
    for (size_t i = 0; i < n * d; ++i) {
        x[i] = std::ldexp(static_cast<float>(i % 7) - 3, static_cast<int>(i / d % 60) - 30);
    }
    std::fill_n(x.begin() + 17 * d, d, 0.0f);
    MemorySource whole(n, d, x.data());
    UnitLengthSource source(whole);
    EXPECT_EQ(source.rows(), n);
    EXPECT_EQ(source.dimensions(), d);
    EXPECT_TRUE(source.changes_any());
    const Chunk all = source.read(0, n);
    EXPECT_EQ(all.n, n);
    EXPECT_TRUE(all.last);
    EXPECT_NE(all.source, 0u);
    EXPECT_NE(
            all.source,
            whole.read(0, n).source); // other rows: no engine may take one for the other
    const std::vector<float> unit(all.floats(), all.floats() + n * d);
    for (size_t i = 0; i < n; ++i) {
        double square = 0, along = 0, length = 0;
        for (size_t j = 0; j < d; ++j) {
            square += double(unit[i * d + j]) * unit[i * d + j];
            along += double(unit[i * d + j]) * x[i * d + j];
            length += double(x[i * d + j]) * x[i * d + j];
        }
        ASSERT_NEAR(square, i == 17 ? 0 : 1, 1e-6) << i;
        ASSERT_NEAR(along, std::sqrt(length), 1e-6 * std::sqrt(length)) << i;
    }
    for (const size_t first :
         {size_t{0}, size_t{16}, n - 10}) { // rows do not depend on their chunk
        const Chunk piece = source.read(first, 10);
        EXPECT_EQ(piece.first, first);
        for (size_t i = 0; i < 10 * d; ++i) {
            EXPECT_EQ(piece.floats()[i], unit[first * d + i]);
        }
    }
    EXPECT_THROW(source.read(n - 1, 2), Error);
}

TEST(UnitLengthSource, HandsOnRowsOfUnitLengthWhereTheyLie) {
    std::vector<float> x = {0.6f, 0.8f, 0, 0, 1.0000001f, 0};
    MemorySource whole(3, 2, x.data());
    UnitLengthSource source(whole);
    EXPECT_FALSE(source.changes_any());
    EXPECT_EQ(source.read(0, 3).x, x.data());
    x[4] = 1.001f;
    EXPECT_TRUE(source.changes_any());
    EXPECT_EQ(source.read(0, 2).x, x.data());
    const Chunk chunk = source.read(0, 3);
    EXPECT_EQ(
            std::vector<float>(chunk.floats(), chunk.floats() + 6),
            std::vector<float>({0.6f, 0.8f, 0, 0, 1, 0}));
}

TEST(UnitLengthSource, RefusesDeviceMemory) {
    class DeviceSource : public MemorySource {
    public:
        using MemorySource::MemorySource;
        Chunk read(size_t first, size_t n) override {
            Chunk chunk = MemorySource::read(first, n);
            chunk.memory = Chunk::Memory::device;
            return chunk;
        }
    };
    DeviceSource whole(2, 1, nullptr);
    UnitLengthSource source(whole);
    EXPECT_EQ(
            message_of(source, 0, 1),
            "bringing rows to unit length: given a source in device memory; allowed: sources in "
            "host "
            "memory; copy the rows to the host.");
    EXPECT_THROW(source.changes_any(), Error);
}

} // namespace
} // namespace faiss_gmm
