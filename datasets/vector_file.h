// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "datasets/mapped_file.h"

namespace faiss_gmm {

enum class ElementType { float32, uint8, int8, int32 };

/// Bytes an element.
size_t element_size(ElementType type);
/// "float32", "uint8", ...
const char* element_name(ElementType type);

/// Every extension that VectorFile reads, with its dot, in the order in which they are listed to
/// users.
const std::vector<std::string>& vector_file_extensions();

/// Rows of a vector file, mapped; its format is told by the extension:
/// - .fvecs .bvecs .ivecs (texmex): int32 d before each row of float32, uint8, int32;
/// - .fbin .u8bin .i8bin .ibin (big-ann): u32 n, u32 d, then the rows of float32, uint8, int8,
/// int32;
/// - .npy: two dimensions, C order, '<f4', '|u1', '|i1' or '<i4', format versions 1.0 and 2.0.
/// All are little-endian. Opening checks the header and that the size is exactly what the header
/// says; a texmex row's own d is checked whenever the row is handed out, so that a part of a very
/// large file costs no pass over all of it.
class VectorFile {
public:
    /// Throws Error: unknown extension, truncated, longer than its header says, 0 rows, d = 0 or
    /// beyond 2^31 - 1, sizes that overflow, an element type or byte order that is not read.
    explicit VectorFile(const std::string& path);

    size_t rows() const {
        return rows_;
    }
    size_t dimensions() const {
        return dimensions_;
    }
    ElementType type() const {
        return type_;
    }
    const std::string& path() const {
        return path_;
    }

    /// Row i as T = float, uint8_t, int8_t or int32_t: [d], valid while the file is mapped. Throws
    /// Error when T is not the file's type, i is not below rows(), or the row's own d is wrong.
    template <class T> const T* row(size_t i) const;

    /// Rows [first, first + n) as floats: out [n, d]. Throws Error past the end, for int32 (ids,
    /// which float32 cannot hold), and for a row whose own d is wrong.
    void to_float(size_t first, size_t n, float* out) const;

private:
    void open_texmex();
    void open_big_ann();
    void open_npy();
    void locate_texmex_fault() const;
    size_t texmex_header(size_t i) const;
    void check_shape(size_t rows, size_t dimensions) const;
    void check_range(size_t first, size_t n) const;
    const uint8_t* row_bytes(size_t i) const;

    std::string path_;
    MappedFile file_;
    ElementType type_ = ElementType::float32;
    size_t rows_ = 0, dimensions_ = 0;
    size_t first_ = 0;         ///< bytes before the first row's elements
    size_t stride_ = 0;        ///< bytes from row to row
    bool row_headers_ = false; ///< texmex: an int32 d stands before each row
};

} // namespace faiss_gmm
