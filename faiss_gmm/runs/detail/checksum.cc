// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/detail/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace faiss_gmm {

struct Checksum::State {
    XXH3_state_t xxh3;
};

Checksum::Checksum() : state_(std::make_unique<State>()) {
    XXH3_64bits_reset(&state_->xxh3);
}

Checksum::~Checksum() = default;
Checksum::Checksum(Checksum&& other) noexcept = default;
Checksum& Checksum::operator=(Checksum&& other) noexcept = default;

void Checksum::add(const void* bytes, size_t n) {
    XXH3_64bits_update(&state_->xxh3, bytes, n);
}

uint64_t Checksum::value() const {
    return XXH3_64bits_digest(&state_->xxh3);
}

} // namespace faiss_gmm
