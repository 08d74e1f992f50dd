// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>

#include <faiss/Index.h>

namespace faiss_gmm {

/// Bytes of an index as faiss::write_index would write it: what it holds, graphs included. Of a class
/// that FAISS cannot write, those of its vectors.
size_t written_bytes(const faiss::Index& index);

} // namespace faiss_gmm
