// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_gmm {

/// Centroids of a sub-quantizer, and entries of its table.
constexpr size_t table_entries = 16;
/// Largest entry of a scaled table: four add in a byte.
constexpr float largest_entry = 63;

/// tables [codes, 16] = <y_m, centroid_mj> less the row's least; y [codes, 2], centroids [codes, 16, 2].
/// Returns the largest of them.
float unscaled_tables(size_t codes, const float* y, const float* centroids, float* tables);

/// tables [n] = values [n] * scale, rounded, at most largest_entry. n a multiple of 16, values from 0 on.
void scale_tables(size_t n, const float* values, float scale, uint8_t* tables);

} // namespace faiss_gmm
