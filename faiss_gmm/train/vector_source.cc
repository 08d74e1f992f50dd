// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/vector_source.h"

#include <algorithm>
#include <atomic>
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

/// 8 MiB: long enough for an engine's threads, short enough to stay in a last-level cache.
size_t rows_of_a_buffer(size_t d) {
    const size_t rows = (size_t{8} << 20) / (sizeof(float) * std::max<size_t>(1, d));
    return std::max<size_t>(1024, rows);
}

} // namespace

uint64_t VectorSource::new_number() {
    static std::atomic<uint64_t> last{0};
    return ++last;
}

MemorySource::MemorySource(size_t n, size_t d, const float* x) : n_(n), d_(d), x_(x) {}

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
    chunk.x = x_ + first * d_;
    chunk.n = n;
    chunk.first = first;
    chunk.last = first + n == n_;
    chunk.source = number_;
    return chunk;
}

SampledSource::SampledSource(size_t d, const float* x, std::vector<int64_t> rows)
        : d_(d), x_(x), rows_(std::move(rows)) {}

size_t SampledSource::rows() const {
    return rows_.size();
}

size_t SampledSource::dimensions() const {
    return d_;
}

size_t SampledSource::max_chunk_rows() const {
    return rows_of_a_buffer(d_);
}

Chunk SampledSource::read(size_t first, size_t n) {
    require_range(first, n, rows_.size(), max_chunk_rows());
    buffer_.resize(std::max(buffer_.size(), n * d_));
#pragma omp parallel for if (n * d_ > 65536)
    for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
        std::copy_n(x_ + rows_[first + i] * d_, d_, buffer_.begin() + i * d_);
    }
    Chunk chunk;
    chunk.x = buffer_.data();
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
    return std::min(whole_.max_chunk_rows(), rows_of_a_buffer(dimensions()));
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
    return chunk;
}

bool UnitLengthSource::changes_any() {
    const size_t n = rows(), most = max_chunk_rows();
    for (size_t first = 0; first < n; first += most) {
        const Chunk chunk = read_whole(first, std::min(most, n - first));
        if (!of_unit_length(chunk.n, dimensions(), chunk.x)) {
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
    if (of_unit_length(n, d, chunk.x)) {
        return chunk; // where it lies
    }
    buffer_.resize(std::max(buffer_.size(), n * d));
    to_unit_length(n, d, chunk.x, buffer_.data());
    chunk.x = buffer_.data();
    return chunk;
}

} // namespace faiss_gmm
