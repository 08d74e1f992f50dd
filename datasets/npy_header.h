// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace faiss_gmm {

/// What the header of a NumPy file says (numpy.lib.format, versions 1.0 and 2.0).
struct NpyHeader {
    std::string descr; ///< element type as NumPy writes it, e.g. "<f4"
    size_t rows = 0, dimensions = 0;
    size_t data_offset = 0; ///< bytes before the first row
};

/// Reads the header of a two-dimensional array in C order. `path` is for messages alone.
/// Throws Error for anything else: another version, a truncated or malformed header, Fortran order,
/// another number of dimensions, a shape that does not fit size_t.
NpyHeader parse_npy_header(const std::string& path, const uint8_t* data, size_t size);

} // namespace faiss_gmm
