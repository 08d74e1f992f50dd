// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/vector_source.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/unit_length.h"

namespace faiss_gmm {
namespace {

void require_range(size_t first, size_t n, size_t rows, size_t most) {
    if (first > rows || n > rows - first || n > most) {
        throw Error(
                {"reading rows",
                 fmt::format("rows {} to {} of {}", first, first + n, rows),
                 fmt::format("ranges within the source, at most {} rows at once", most),
                 "ask for fewer rows"});
    }
}

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float from_f16(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, magnitude = (half & 0x7fffu) << 13;
    const bool finite = (half & 0x7c00u) != 0x7c00u;
    // Exponents are biased by 15 there and by 127 here; the product brings subnormal numbers along.
    const float value =
            finite ? from_bits(magnitude) * 0x1.0p112f : from_bits(magnitude | 0x7f800000u);
    return sign != 0 ? -value : value;
}

float from_bf16(uint16_t upper) {
    return from_bits(static_cast<uint32_t>(upper) << 16);
}

/// out [count] = convert(numbers [count]), which need not be aligned.
template <class T, class Convert>
void convert_numbers(const void* numbers, size_t count, float* out, const Convert& convert) {
#pragma omp parallel for if (count > 65536)
    for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) {
        T value;
        std::memcpy(&value, static_cast<const char*>(numbers) + i * sizeof(T), sizeof value);
        out[i] = convert(value);
    }
}

/// 8 MiB: long enough for an engine's threads, short enough to stay in a last-level cache.
size_t rows_of_a_buffer(size_t row_bytes) {
    const size_t rows = (size_t{8} << 20) / std::max<size_t>(1, row_bytes);
    return std::max<size_t>(1024, rows);
}

} // namespace

size_t bytes_of(RowElement element) {
    switch (element) {
    case RowElement::f32:
        return 4;
    case RowElement::f16:
    case RowElement::bf16:
        return 2;
    default:
        return 1;
    }
}

Chunk as_f32(const Chunk& chunk, size_t d, size_t first, size_t n, std::vector<float>& buffer) {
    Chunk rows = chunk;
    rows.x = static_cast<const char*>(chunk.x) + first * d * bytes_of(chunk.element);
    rows.n = n;
    rows.first = chunk.first + first;
    if (chunk.element == RowElement::f32) {
        return rows;
    }
    const size_t count = n * d;
    buffer.resize(std::max(buffer.size(), count));
    const auto plain = [](auto value) { return static_cast<float>(value); };
    switch (chunk.element) {
    case RowElement::f16:
        convert_numbers<uint16_t>(rows.x, count, buffer.data(), from_f16);
        break;
    case RowElement::bf16:
        convert_numbers<uint16_t>(rows.x, count, buffer.data(), from_bf16);
        break;
    case RowElement::u8:
        convert_numbers<uint8_t>(rows.x, count, buffer.data(), plain);
        break;
    default:
        convert_numbers<int8_t>(rows.x, count, buffer.data(), plain);
        break;
    }
    rows.x = buffer.data();
    rows.element = RowElement::f32;
    return rows;
}

uint64_t VectorSource::new_number() {
    static std::atomic<uint64_t> last{0};
    return ++last;
}

MemorySource::MemorySource(size_t n, size_t d, const void* x, RowElement element)
        : n_(n), d_(d), x_(static_cast<const char*>(x)), element_(element) {}

size_t MemorySource::rows() const {
    return n_;
}

size_t MemorySource::dimensions() const {
    return d_;
}

size_t MemorySource::max_chunk_rows() const {
    return std::max<size_t>(1, n_);
}

Chunk MemorySource::read(size_t first, size_t n) {
    require_range(first, n, n_, max_chunk_rows());
    Chunk chunk;
    chunk.x = x_ + first * d_ * bytes_of(element_);
    chunk.element = element_;
    chunk.n = n;
    chunk.first = first;
    chunk.last = first + n == n_;
    chunk.source = number_;
    return chunk;
}

SampledSource::SampledSource(size_t d, const void* x, std::vector<int64_t> rows, RowElement element)
        : d_(d), x_(static_cast<const char*>(x)), rows_(std::move(rows)), element_(element) {}

size_t SampledSource::rows() const {
    return rows_.size();
}

size_t SampledSource::dimensions() const {
    return d_;
}

size_t SampledSource::max_chunk_rows() const {
    return rows_of_a_buffer(d_ * bytes_of(element_));
}

Chunk SampledSource::read(size_t first, size_t n) {
    require_range(first, n, rows_.size(), max_chunk_rows());
    const size_t bytes = d_ * bytes_of(element_);
    buffer_.resize(std::max(buffer_.size(), n * bytes));
#pragma omp parallel for if (n * d_ > 65536)
    for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
        std::memcpy(&buffer_[i * bytes], x_ + rows_[first + i] * bytes, bytes);
    }
    Chunk chunk;
    chunk.x = buffer_.data();
    chunk.element = element_;
    chunk.n = n;
    chunk.first = first;
    chunk.last = first + n == rows_.size();
    chunk.source = number_;
    return chunk;
}

UnitLengthSource::UnitLengthSource(VectorSource& whole) : whole_(whole) {}

size_t UnitLengthSource::rows() const {
    return whole_.rows();
}

size_t UnitLengthSource::dimensions() const {
    return whole_.dimensions();
}

size_t UnitLengthSource::max_chunk_rows() const {
    return std::min(whole_.max_chunk_rows(), rows_of_a_buffer(dimensions() * sizeof(float)));
}

Chunk UnitLengthSource::read_whole(size_t first, size_t n) {
    const Chunk chunk = whole_.read(first, n);
    if (chunk.memory != Chunk::Memory::host) {
        throw Error(
                {"bringing rows to unit length",
                 "a source in device memory",
                 "sources in host memory",
                 "copy the rows to the host"});
    }
    return as_f32(chunk, dimensions(), 0, n, converted_);
}

bool UnitLengthSource::changes_any() {
    const size_t n = rows(), most = max_chunk_rows();
    for (size_t first = 0; first < n; first += most) {
        const Chunk chunk = read_whole(first, std::min(most, n - first));
        if (!of_unit_length(chunk.n, dimensions(), chunk.floats())) {
            return true;
        }
    }
    return false;
}

Chunk UnitLengthSource::read(size_t first, size_t n) {
    require_range(first, n, rows(), max_chunk_rows());
    const size_t d = dimensions();
    Chunk chunk = read_whole(first, n);
    chunk.source = number_;
    if (of_unit_length(n, d, chunk.floats())) {
        return chunk; // where it lies
    }
    buffer_.resize(std::max(buffer_.size(), n * d));
    to_unit_length(n, d, chunk.floats(), buffer_.data());
    chunk.x = buffer_.data();
    return chunk;
}

} // namespace faiss_gmm
