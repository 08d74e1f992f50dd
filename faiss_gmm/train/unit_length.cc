// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/unit_length.h"

#include <cmath>
#include <cstdint>

namespace faiss_gmm {
namespace {

constexpr double rounding = 1e-5; // of a squared length that was summed up in fp32
constexpr size_t worth_threads = 65536;

} // namespace

double unit_length_factor(size_t d, const float* x) {
    double square = 0;
    for (size_t j = 0; j < d; ++j) {
        square += static_cast<double>(x[j]) * x[j];
    }
    return square > 0 && std::abs(square - 1) > rounding ? 1 / std::sqrt(square) : 1.0;
}

bool of_unit_length(size_t n, size_t d, const float* x) {
    bool all = true;
#pragma omp parallel for reduction(&& : all) if (n * d > worth_threads)
    for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
        all = all && unit_length_factor(d, x + i * d) == 1;
    }
    return all;
}

void to_unit_length(size_t n, size_t d, const float* x, float* out) {
#pragma omp parallel for if (n * d > worth_threads)
    for (int64_t i = 0; i < static_cast<int64_t>(n); ++i) {
        const double factor = unit_length_factor(d, x + i * d);
        for (size_t j = 0; j < d; ++j) {
            out[i * d + j] = static_cast<float>(x[i * d + j] * factor);
        }
    }
}

} // namespace faiss_gmm
