// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/written_bytes.h"

#include <faiss/impl/FaissException.h>
#include <faiss/impl/io.h>
#include <faiss/index_io.h>

namespace faiss_gmm {
namespace {

struct CountingWriter : faiss::IOWriter {
    size_t bytes = 0;
    size_t operator()(const void*, size_t size, size_t nitems) override {
        bytes += size * nitems;
        return nitems;
    }
};

} // namespace

size_t written_bytes(const faiss::Index& index) {
    CountingWriter writer;
    try {
        faiss::write_index(&index, &writer);
    } catch (const faiss::FaissException&) { // no writer for this class
        return static_cast<size_t>(index.ntotal) * index.d * sizeof(float);
    }
    return writer.bytes;
}

} // namespace faiss_gmm
