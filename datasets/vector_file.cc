// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/vector_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "datasets/npy_header.h"
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

static_assert(
        __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
        "rows are handed out as they lie in the file, which is little-endian");

namespace {

enum class Layout { texmex, big_ann, npy };

struct Format {
    const char* extension;
    Layout layout;
    ElementType type; ///< not used for .npy, whose header says it
};

constexpr Format formats[] = {
        {".fvecs", Layout::texmex, ElementType::float32},
        {".bvecs", Layout::texmex, ElementType::uint8},
        {".ivecs", Layout::texmex, ElementType::int32},
        {".fbin", Layout::big_ann, ElementType::float32},
        {".u8bin", Layout::big_ann, ElementType::uint8},
        {".i8bin", Layout::big_ann, ElementType::int8},
        {".ibin", Layout::big_ann, ElementType::int32},
        {".npy", Layout::npy, ElementType::float32},
};

constexpr size_t max_dimensions = std::numeric_limits<int32_t>::max(); // FAISS's d is an int
constexpr const char* fetch_again = "fetch or write the file again";

const Format& format_of(const std::string& path) {
    const std::string extension = std::filesystem::path(path).extension().string();
    for (const Format& format : formats) {
        if (extension == format.extension) {
            return format;
        }
    }
    throw Error(
            {fmt::format("opening '{}'", path),
             extension.empty() ? "no extension" : fmt::format("the extension '{}'", extension),
             fmt::format("{}", fmt::join(vector_file_extensions(), " ")),
             "rename the file to what it holds, or convert it"});
}

std::string reading(const std::string& path) {
    return fmt::format("reading '{}'", path);
}

template <class T> constexpr ElementType type_of();
template <> constexpr ElementType type_of<float>() {
    return ElementType::float32;
}
template <> constexpr ElementType type_of<uint8_t>() {
    return ElementType::uint8;
}
template <> constexpr ElementType type_of<int8_t>() {
    return ElementType::int8;
}
template <> constexpr ElementType type_of<int32_t>() {
    return ElementType::int32;
}

/// header + rows * row_bytes; throws where that does not fit size_t.
size_t checked_size(const std::string& path, size_t header, size_t rows, size_t row_bytes) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(rows, row_bytes, &bytes) ||
        __builtin_add_overflow(bytes, header, &bytes)) {
        throw Error(
                {reading(path),
                 fmt::format("{} rows of {} bytes, a size that overflows", rows, row_bytes),
                 fmt::format("at most {} bytes", std::numeric_limits<size_t>::max()),
                 fmt::format("the header is damaged or of another format; {}", fetch_again)});
    }
    return bytes;
}

void check_size(const std::string& path, size_t actual, size_t expected, size_t rows, size_t d) {
    if (actual == expected) {
        return;
    }
    throw Error(
            {reading(path),
             fmt::format(
                     "{}, {} bytes where the header says {} rows of d = {}",
                     actual < expected ? "a truncated file" : "bytes after the last row",
                     actual,
                     rows,
                     d),
             fmt::format("exactly {} bytes", expected),
             actual < expected ? fetch_again
                               : "write the true number of rows into the header, or cut the file"});
}

} // namespace

size_t element_size(ElementType type) {
    return type == ElementType::float32 || type == ElementType::int32 ? 4 : 1;
}

const char* element_name(ElementType type) {
    switch (type) {
    case ElementType::float32:
        return "float32";
    case ElementType::uint8:
        return "uint8";
    case ElementType::int8:
        return "int8";
    case ElementType::int32:
        return "int32";
    }
    return "unknown";
}

const std::vector<std::string>& vector_file_extensions() {
    static const std::vector<std::string> extensions = [] {
        std::vector<std::string> all;
        for (const Format& format : formats) {
            all.emplace_back(format.extension);
        }
        return all;
    }();
    return extensions;
}

VectorFile::VectorFile(const std::string& path)
        : path_(path), file_(path), type_(format_of(path).type) {
    switch (format_of(path).layout) {
    case Layout::texmex:
        open_texmex();
        break;
    case Layout::big_ann:
        open_big_ann();
        break;
    case Layout::npy:
        open_npy();
        break;
    }
}

void VectorFile::check_shape(size_t rows, size_t dimensions) const {
    if (dimensions == 0 || dimensions > max_dimensions) {
        throw Error(
                {reading(path_),
                 fmt::format("d = {}", dimensions),
                 fmt::format("1 <= d <= {}", max_dimensions),
                 fmt::format("the header is damaged or of another format; {}", fetch_again)});
    }
    if (rows == 0) {
        throw Error({reading(path_), "0 rows", "at least 1 row", fetch_again});
    }
}

void VectorFile::open_texmex() {
    constexpr size_t header = sizeof(int32_t);
    row_headers_ = true;
    first_ = header;
    if (file_.size() == 0) {
        throw Error({reading(path_), "an empty file, 0 rows", "at least 1 row", fetch_again});
    }
    if (file_.size() < header) {
        throw Error(
                {reading(path_),
                 fmt::format("a truncated file, {} bytes", file_.size()),
                 "a whole first row: an int32 d, then d elements",
                 fetch_again});
    }
    int32_t d = 0;
    std::memcpy(&d, file_.data(), header);
    if (d <= 0) {
        throw Error(
                {reading(path_),
                 fmt::format("d = {} before the first row", d),
                 fmt::format("1 <= d <= {}", max_dimensions),
                 fmt::format("the file is damaged or of another format; {}", fetch_again)});
    }
    dimensions_ = static_cast<size_t>(d);
    stride_ = header + dimensions_ * element_size(type_); // d < 2^31: cannot overflow 64 bits
    rows_ = file_.size() / stride_;
    if (file_.size() % stride_ != 0) {
        locate_texmex_fault();
    }
}

/// The size is no multiple of a row: says whether a row in the middle has another d or the end is
/// missing.
void VectorFile::locate_texmex_fault() const {
    for (size_t i = 0; i < rows_; ++i) {
        row_bytes(i);
    }
    throw Error(
            {reading(path_),
             fmt::format(
                     "a truncated file, {} bytes: {} whole rows of d = {} and {} bytes more",
                     file_.size(),
                     rows_,
                     dimensions_,
                     file_.size() % stride_),
             fmt::format("a multiple of {} bytes", stride_),
             fetch_again});
}

void VectorFile::open_big_ann() {
    constexpr size_t header = 2 * sizeof(uint32_t);
    if (file_.size() < header) {
        throw Error(
                {reading(path_),
                 fmt::format("a truncated file, {} bytes", file_.size()),
                 "a header of 8 bytes (u32 n, u32 d), then the rows",
                 fetch_again});
    }
    uint32_t shape[2] = {0, 0};
    std::memcpy(shape, file_.data(), header);
    check_shape(shape[0], shape[1]);
    rows_ = shape[0];
    dimensions_ = shape[1];
    first_ = header;
    stride_ = dimensions_ * element_size(type_);
    check_size(
            path_, file_.size(), checked_size(path_, header, rows_, stride_), rows_, dimensions_);
}

void VectorFile::open_npy() {
    const NpyHeader header = parse_npy_header(path_, file_.data(), file_.size());
    if (header.descr == "<f4") {
        type_ = ElementType::float32;
    } else if (header.descr == "<i4") {
        type_ = ElementType::int32;
    } else if (header.descr == "|u1" || header.descr == "<u1") {
        type_ = ElementType::uint8;
    } else if (header.descr == "|i1" || header.descr == "<i1") {
        type_ = ElementType::int8;
    } else {
        throw Error(
                {reading(path_),
                 fmt::format(
                         "the element type '{}'{}",
                         header.descr,
                         header.descr.substr(0, 1) == ">" ? ", which is big-endian" : ""),
                 "'<f4', '|u1', '|i1' or '<i4' (little-endian)",
                 "convert it in NumPy, e.g. numpy.save(PATH, x.astype('<f4'))"});
    }
    check_shape(header.rows, header.dimensions);
    rows_ = header.rows;
    dimensions_ = header.dimensions;
    first_ = header.data_offset;
    stride_ = dimensions_ * element_size(type_);
    if (first_ % element_size(type_) != 0) {
        throw Error(
                {reading(path_),
                 fmt::format("rows that begin at byte {}", first_),
                 fmt::format("a multiple of {}", element_size(type_)),
                 "save it again with numpy.save, which pads the header"});
    }
    check_size(
            path_, file_.size(), checked_size(path_, first_, rows_, stride_), rows_, dimensions_);
}

void VectorFile::check_range(size_t first, size_t n) const {
    if (first > rows_ || n > rows_ - first) {
        throw Error(
                {fmt::format("reading rows of '{}'", path_),
                 fmt::format("{} rows from row {}", n, first),
                 fmt::format("rows 0 to {}", rows_ - 1),
                 "ask for fewer rows"});
    }
}

const uint8_t* VectorFile::row_bytes(size_t i) const {
    const uint8_t* bytes = file_.data() + first_ + i * stride_;
    if (row_headers_) {
        int32_t d = 0;
        std::memcpy(&d, bytes - sizeof(d), sizeof(d)); // .bvecs rows stand at any address
        if (d < 0 || static_cast<size_t>(d) != dimensions_) {
            throw Error(
                    {reading(path_),
                     fmt::format("d = {} before row {}", d, i),
                     fmt::format("the first row's d = {} before every row", dimensions_),
                     fmt::format("the file is damaged or of another format; {}", fetch_again)});
        }
    }
    return bytes;
}

template <class T> const T* VectorFile::row(size_t i) const {
    if (type_of<T>() != type_) {
        throw Error(
                {fmt::format("reading rows of '{}'", path_),
                 fmt::format("a request for {}", element_name(type_of<T>())),
                 fmt::format("the file's type, {}", element_name(type_)),
                 "ask for that type, or for floats with to_float"});
    }
    check_range(i, 1);
    return reinterpret_cast<const T*>(row_bytes(i));
}

template const float* VectorFile::row<float>(size_t) const;
template const uint8_t* VectorFile::row<uint8_t>(size_t) const;
template const int8_t* VectorFile::row<int8_t>(size_t) const;
template const int32_t* VectorFile::row<int32_t>(size_t) const;

void VectorFile::to_float(size_t first, size_t n, float* out) const {
    check_range(first, n);
    for (size_t i = first; i < first + n; ++i, out += dimensions_) {
        switch (type_) {
        case ElementType::float32:
            std::copy_n(row<float>(i), dimensions_, out);
            break;
        case ElementType::uint8:
            std::copy_n(row<uint8_t>(i), dimensions_, out);
            break;
        case ElementType::int8:
            std::copy_n(row<int8_t>(i), dimensions_, out);
            break;
        case ElementType::int32:
            throw Error(
                    {fmt::format("reading vectors from '{}'", path_),
                     "int32 elements, which are ids",
                     "float32, uint8 or int8 elements",
                     "read them with row<int32_t>, or name the file that holds the vectors"});
        }
    }
}

} // namespace faiss_gmm
