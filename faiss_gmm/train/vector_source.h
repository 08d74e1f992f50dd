// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faiss_gmm {

/// What the numbers of rows are stored as. Their values are what is trained on: nothing is scaled.
enum class RowElement {
    f32,
    f16,  ///< IEEE binary16
    bf16, ///< the upper half of an f32
    u8,
    i8,
};

/// Bytes of a number.
size_t bytes_of(RowElement element);

/// A piece of consecutive rows, ready to be read.
struct Chunk {
    enum class Memory { host, device };
    const void* x = nullptr;              ///< [n, d] of `element`, row-major, in `memory`
    size_t n = 0;                         ///< rows
    size_t first = 0;                     ///< number of the first row in its source
    RowElement element = RowElement::f32; ///< the same in all chunks of a source
    Memory memory = Memory::host;
    void* stream = nullptr; ///< device memory: the CUDA stream in whose order x is valid
    /// No rows follow in this pass: an engine need not keep any back to fill a block.
    bool last = false;
    /// Not 0: a number of the source's own. Rows of one number and place are the same rows in every
    /// pass, so an engine may keep a copy of them.
    uint64_t source = 0;

    /// x [n, d] of a chunk of f32.
    const float* floats() const {
        return static_cast<const float*>(x);
    }
};

/// Rows [first, first + n) of a chunk in host memory as f32: themselves, or converted into `buffer`,
/// where they stay until its next use.
Chunk as_f32(const Chunk& chunk, size_t d, size_t first, size_t n, std::vector<float>& buffer);

/// Hands out the rows of a data set, chunk by chunk, as often as it is asked.
/// Every pass gives the same rows in the same order.
class VectorSource {
public:
    virtual ~VectorSource() = default;
    virtual size_t rows() const = 0;
    virtual size_t dimensions() const = 0;
    /// Rows [first, first + n) as one chunk; valid until the next call. Throws Error past the end.
    virtual Chunk read(size_t first, size_t n) = 0;
    /// Chunk::source of its chunks.
    virtual uint64_t number() const {
        return 0;
    }
    /// A number that no other source has.
    static uint64_t new_number();
    /// Largest n that one read() may be asked for.
    virtual size_t max_chunk_rows() const = 0;
};

/// Rows that lie in memory (also in a mapped file); owns nothing.
class MemorySource : public VectorSource {
public:
    /// x [n, d], alive and unchanged while the source is.
    MemorySource(size_t n, size_t d, const void* x, RowElement element = RowElement::f32);
    size_t rows() const override;
    size_t dimensions() const override;
    Chunk read(size_t first, size_t n) override;
    size_t max_chunk_rows() const override;
    uint64_t number() const override {
        return number_;
    }

private:
    size_t n_, d_;
    const char* x_;
    RowElement element_;
    uint64_t number_ = new_number();
};

/// Chosen rows of an array in memory, gathered chunk by chunk: the training sample without its copy.
class SampledSource : public VectorSource {
public:
    /// x [*, d] and the row numbers, in the order in which they are handed out.
    SampledSource(
            size_t d,
            const void* x,
            std::vector<int64_t> rows,
            RowElement element = RowElement::f32);
    size_t rows() const override;
    size_t dimensions() const override;
    Chunk read(size_t first, size_t n) override;
    size_t max_chunk_rows() const override;
    uint64_t number() const override {
        return number_;
    }

private:
    size_t d_;
    const char* x_;
    std::vector<int64_t> rows_;
    RowElement element_;
    std::vector<char> buffer_;
    uint64_t number_ = new_number();
};

/// Another source's rows brought to unit length, chunk by chunk; a row of zeros stays.
class UnitLengthSource : public VectorSource {
public:
    /// `whole` is alive while this is. read() throws Error where it hands out device memory.
    explicit UnitLengthSource(VectorSource& whole);
    size_t rows() const override;
    size_t dimensions() const override;
    Chunk read(size_t first, size_t n) override;
    size_t max_chunk_rows() const override;
    uint64_t number() const override {
        return number_;
    }
    /// Whether a row of `whole` has another length than 1 or 0; reads until it finds one.
    bool changes_any();

private:
    Chunk read_whole(size_t first, size_t n);

    VectorSource& whole_;
    std::vector<float> converted_, buffer_;
    uint64_t number_ = new_number();
};

} // namespace faiss_gmm
