// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A query's look-up tables.
//   (1) T_mj = <y_m, c_mj> - min_i <y_m, c_mi>, two dimensions a sub-quantizer
//   (2) table = round(T s), at most 63
// Cost: two loads, two multiplications and a minimum of lanes a vector of entries; all of it stays in the
// nearest cache.
// Determinism: rounding of the products differs between targets with and without fused multiply-add.
// Test: tests/runs/tables_test.cc.
#include "faiss_gmm/runs/tables.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_gmm/runs/tables.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Entries = hn::CappedTag<float, table_entries>;

float unscaled_tables(
        size_t codes,
        const float* HWY_RESTRICT y,
        const float* HWY_RESTRICT centroids,
        float* HWY_RESTRICT tables) {
    const Entries entries;
    const size_t lanes = hn::Lanes(entries);
    auto largest = hn::Zero(entries);
    for (size_t m = 0; m < codes; m++) {
        const auto y0 = hn::Set(entries, y[2 * m]), y1 = hn::Set(entries, y[2 * m + 1]);
        const float* centroid = centroids + m * table_entries * 2;
        float* row = tables + m * table_entries;
        auto least = hn::Set(entries, hwy::HighestValue<float>());
        for (size_t j = 0; j < table_entries; j += lanes) {
            hn::Vec<Entries> c0, c1;
            hn::LoadInterleaved2(entries, centroid + 2 * j, c0, c1);
            const auto products = hn::MulAdd(y0, c0, hn::Mul(y1, c1));
            hn::StoreU(products, entries, row + j);
            least = hn::Min(least, products);
        }
        least = hn::MinOfLanes(entries, least);
        for (size_t j = 0; j < table_entries; j += lanes) {
            const auto above = hn::Sub(hn::LoadU(entries, row + j), least);
            hn::StoreU(above, entries, row + j);
            largest = hn::Max(largest, above);
        }
    }
    return hn::GetLane(hn::MaxOfLanes(entries, largest));
}

void scale_tables(
        size_t n, const float* HWY_RESTRICT values, float scale, uint8_t* HWY_RESTRICT tables) {
    const Entries entries;
    const hn::Rebind<int32_t, Entries> integers;
    const hn::Rebind<uint8_t, Entries> bytes;
    const auto factor = hn::Set(entries, scale), half = hn::Set(entries, 0.5f);
    const auto most = hn::Set(entries, largest_entry);
    for (size_t i = 0; i < n; i += hn::Lanes(entries)) {
        const auto scaled = hn::MulAdd(hn::LoadU(entries, values + i), factor, half);
        const auto rounded = hn::ConvertTo(integers, hn::Min(scaled, most));
        hn::StoreU(hn::DemoteTo(bytes, rounded), bytes, tables + i);
    }
}

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm {
HWY_EXPORT(unscaled_tables);
HWY_EXPORT(scale_tables);

float unscaled_tables(size_t codes, const float* y, const float* centroids, float* tables) {
    return HWY_DYNAMIC_DISPATCH(unscaled_tables)(codes, y, centroids, tables);
}
void scale_tables(size_t n, const float* values, float scale, uint8_t* tables) {
    HWY_DYNAMIC_DISPATCH(scale_tables)(n, values, scale, tables);
}

} // namespace faiss_gmm
#endif // HWY_ONCE
