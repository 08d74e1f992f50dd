// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// 1 purpose: reads the header of a .npy file, trusting nothing in it.
// 2 layout: "\x93NUMPY", u8 major, u8 minor, header length (u16 little-endian in version 1, u32 in
//   version 2), then a Python dictionary literal in ASCII with exactly the keys 'descr',
//   'fortran_order' and 'shape', padded with blanks to a newline.
// 4 source: numpy.lib.format.
// 9 what NumPy itself writes is accepted, in any order of keys; other literals are refused.
// 10 test: tests/datasets/vector_file_test.cc.
#include "datasets/npy_header.h"

#include <cstring>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

namespace {

constexpr std::string_view magic("\x93NUMPY", 6);
constexpr const char* save_again =
        "save it again with numpy.save(PATH, numpy.ascontiguousarray(x))";

/// Reads the dictionary literal from left to right.
class Parser {
public:
    Parser(const std::string& path, std::string_view text) : path_(path), text_(text) {}

    NpyHeader parse() {
        NpyHeader header;
        bool has_descr = false, has_order = false, has_shape = false;
        expect('{');
        while (!accept('}')) {
            const std::string key = quoted();
            expect(':');
            if (key == "descr" && !has_descr) {
                header.descr = quoted();
                has_descr = true;
            } else if (key == "fortran_order" && !has_order) {
                read_order();
                has_order = true;
            } else if (key == "shape" && !has_shape) {
                read_shape(header);
                has_shape = true;
            } else {
                throw malformed(fmt::format("the key '{}' where it does not belong", key));
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        if (!has_descr || !has_order || !has_shape) {
            throw malformed("a header without one of 'descr', 'fortran_order', 'shape'");
        }
        return header;
    }

private:
    void skip_blanks() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) {
            ++at_;
        }
    }

    bool accept(char wanted) {
        skip_blanks();
        if (at_ < text_.size() && text_[at_] == wanted) {
            ++at_;
            return true;
        }
        return false;
    }

    void expect(char wanted) {
        if (!accept(wanted)) {
            throw malformed(fmt::format("no '{}' at byte {} of the header's text", wanted, at_));
        }
    }

    std::string quoted() {
        if (accept('[')) {
            throw malformed("a structured element type");
        }
        const char quote = accept('"') ? '"' : '\'';
        if (quote == '\'') {
            expect('\'');
        }
        const size_t end = text_.find(quote, at_);
        if (end == std::string_view::npos) {
            throw malformed("a string without its end");
        }
        std::string value(text_.substr(at_, end - at_));
        at_ = end + 1;
        return value;
    }

    void read_order() {
        skip_blanks();
        const std::string_view rest = text_.substr(at_);
        if (rest.substr(0, 5) == "False") {
            at_ += 5;
        } else if (rest.substr(0, 4) == "True") {
            throw Error(
                    {reading(),
                     "rows in Fortran order (column by column)",
                     "C order (row by row)",
                     save_again});
        } else {
            throw malformed("a 'fortran_order' that is neither True nor False");
        }
    }

    void read_shape(NpyHeader& header) {
        const size_t start = at_;
        expect('(');
        size_t shape[2] = {0, 0};
        size_t count = 0;
        while (!accept(')')) {
            const size_t value = integer();
            if (count < 2) {
                shape[count] = value;
            }
            ++count;
            if (!accept(',')) {
                expect(')');
                break;
            }
        }
        if (count != 2) {
            throw Error(
                    {reading(),
                     fmt::format("the shape{}", text_.substr(start, at_ - start)),
                     "two dimensions, (rows, d)",
                     "reshape it and save it again"});
        }
        header.rows = shape[0];
        header.dimensions = shape[1];
    }

    size_t integer() {
        skip_blanks();
        const size_t start = at_;
        size_t value = 0;
        for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
            const auto digit = static_cast<size_t>(text_[at_] - '0');
            if (__builtin_mul_overflow(value, size_t(10), &value) ||
                __builtin_add_overflow(value, digit, &value)) {
                throw Error(
                        {reading(),
                         "a shape whose numbers do not fit 64 bits",
                         "the shape of the array that follows",
                         "fetch or write the file again"});
            }
        }
        if (at_ == start) {
            throw malformed("a shape with something that is no whole number");
        }
        return value;
    }

    std::string reading() const {
        return fmt::format("reading the header of '{}'", path_);
    }

    Error malformed(const std::string& what) const {
        return Error({reading(), what, "the dictionary that numpy.save writes", save_again});
    }

    const std::string& path_;
    std::string_view text_;
    size_t at_ = 0;
};

std::optional<size_t> header_length(const uint8_t* data, size_t size, unsigned major) {
    if (major == 1 && size >= 10) {
        return size_t(data[8]) | size_t(data[9]) << 8;
    }
    if (major == 2 && size >= 12) {
        return size_t(data[8]) | size_t(data[9]) << 8 | size_t(data[10]) << 16 |
               size_t(data[11]) << 24;
    }
    return std::nullopt;
}

} // namespace

NpyHeader parse_npy_header(const std::string& path, const uint8_t* data, size_t size) {
    const std::string doing = fmt::format("reading the header of '{}'", path);
    const auto truncated = [&](size_t needed) {
        return Error(
                {doing,
                 fmt::format("a truncated file, {} bytes", size),
                 fmt::format("at least {} bytes", needed),
                 "fetch or write the file again"});
    };
    if (size < magic.size() + 2) {
        throw truncated(magic.size() + 2);
    }
    if (std::memcmp(data, magic.data(), magic.size()) != 0) {
        throw Error(
                {doing, "no NumPy signature", "a file that begins with \\x93NUMPY", save_again});
    }
    const unsigned major = data[6];
    if (major != 1 && major != 2) {
        throw Error(
                {doing,
                 fmt::format("NumPy format version {}.{}", major, unsigned(data[7])),
                 "versions 1.0 and 2.0",
                 save_again});
    }
    const size_t prefix = major == 1 ? 10 : 12;
    const std::optional<size_t> length = header_length(data, size, major);
    if (!length) {
        throw truncated(prefix);
    }
    if (*length > size - prefix) {
        throw truncated(prefix + *length);
    }
    NpyHeader header =
            Parser(path, {reinterpret_cast<const char*>(data) + prefix, *length}).parse();
    header.data_offset = prefix + *length;
    return header;
}

} // namespace faiss_gmm
