// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace faiss_gmm {

/// XXH3, 64 bits, of bytes that come in pieces; the same however they are cut. Tells damage, not
/// forgery.
class Checksum {
public:
    Checksum();
    ~Checksum();
    Checksum(Checksum&& other) noexcept;
    Checksum& operator=(Checksum&& other) noexcept;

    void add(const void* bytes, size_t n);
    /// Of what was added so far.
    uint64_t value() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

} // namespace faiss_gmm
