// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/mixture/cholesky.h"

#include <algorithm>
#include <cmath>

namespace faiss_gmm {

bool cholesky(size_t d, double* a) {
    // Row by row; the inner loops run along rows of L, which lie contiguous in memory.
    for (size_t i = 0; i < d; ++i) {
        double* row = a + i * d;
        for (size_t j = 0; j <= i; ++j) {
            const double* other = a + j * d;
            double s[4] = {}; // four partial sums: a single one would wait for every addition
            size_t l = 0;
            for (; l + 4 <= j; l += 4) {
                for (size_t t = 0; t < 4; ++t) {
                    s[t] += row[l + t] * other[l + t];
                }
            }
            double sum = (s[0] + s[1]) + (s[2] + s[3]);
            for (; l < j; ++l) {
                sum += row[l] * other[l];
            }
            const double rest = row[j] - sum;
            if (j < i) {
                row[j] = rest / other[j];
            } else if (rest > 0 && std::isfinite(rest)) {
                row[j] = std::sqrt(rest);
            } else {
                return false;
            }
        }
    }
    return true;
}

void invert_lower(size_t d, const double* lower, double* inverse) {
    std::fill_n(inverse, d * d, 0.0);
    for (size_t i = 0; i < d; ++i) {
        double* row = inverse + i * d;
        // Row i of L^-1 is (e_i - sum_{l < i} L_il (row l of L^-1)) / L_ii.
        for (size_t l = 0; l < i; ++l) {
            const double factor = lower[i * d + l];
            const double* other = inverse + l * d;
            for (size_t j = 0; j <= l; ++j) {
                row[j] -= factor * other[j];
            }
        }
        row[i] = 1;
        for (size_t j = 0; j <= i; ++j) {
            row[j] /= lower[i * d + i];
        }
    }
}

double log_determinant(size_t d, const double* lower) {
    double sum = 0;
    for (size_t j = 0; j < d; ++j) {
        sum += std::log(lower[j * d + j]);
    }
    return 2 * sum;
}

} // namespace faiss_gmm
