// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

namespace faiss_gmm {

/// FAISS_GMM_TEST_SEED, or else `otherwise`; printed, so that a failure can be had again.
inline uint64_t seed_or(uint64_t otherwise) {
    const char* given = std::getenv("FAISS_GMM_TEST_SEED");
    const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
    std::cout << "FAISS_GMM_TEST_SEED=" << seed << "\n";
    return seed;
}

/// The same, or else a random one.
inline uint64_t test_seed() {
    return seed_or(std::random_device()());
}

} // namespace faiss_gmm
