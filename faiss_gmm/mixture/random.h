// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cmath>
#include <cstdint>
#include <random>

namespace faiss_gmm {

/// Random numbers that are the same with every standard library: its engines are specified to the
/// bit, its distributions are not.
class Random {
public:
    explicit Random(uint64_t seed) : engine_(seed) {}
    /// Uniform in [0, 1), 53 bits.
    double uniform() {
        return static_cast<double>(engine_() >> 11) * 0x1.0p-53;
    }
    /// Uniform among 0 .. n - 1 (bias below n / 2^64).
    uint64_t below(uint64_t n) {
        return engine_() % n;
    }
    /// Standard normal (Box and Muller 1958).
    double normal() {
        const double radius = std::sqrt(-2 * std::log1p(-uniform()));
        return radius * std::cos(6.283185307179586476925 * uniform());
    }

private:
    std::mt19937_64 engine_;
};

} // namespace faiss_gmm
