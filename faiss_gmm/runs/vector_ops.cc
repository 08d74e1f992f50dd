// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Dot products, distances and sums of short vectors by Highway with run-time dispatch.
#include "faiss_gmm/runs/vector_ops.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_gmm/runs/vector_ops.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "faiss_gmm/runs/sum_terms-inl.h"

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

float dot(size_t d, const float* HWY_RESTRICT a, const float* HWY_RESTRICT b) {
    const hn::ScalableTag<float> floats;
    return sum_terms(
            d,
            [&](size_t i, auto sum) HWY_ATTR {
                return hn::MulAdd(hn::LoadU(floats, a + i), hn::LoadU(floats, b + i), sum);
            },
            [&](size_t i) HWY_ATTR { return a[i] * b[i]; });
}

float squared_distance(size_t d, const float* HWY_RESTRICT a, const float* HWY_RESTRICT b) {
    const hn::ScalableTag<float> floats;
    return sum_terms(
            d,
            [&](size_t i, auto sum) HWY_ATTR {
                const auto difference = hn::Sub(hn::LoadU(floats, a + i), hn::LoadU(floats, b + i));
                return hn::MulAdd(difference, difference, sum);
            },
            [&](size_t i) HWY_ATTR { return (a[i] - b[i]) * (a[i] - b[i]); });
}

void add_scaled(size_t d, float weight, const float* HWY_RESTRICT x, float* HWY_RESTRICT y) {
    const hn::ScalableTag<float> floats;
    const size_t lanes = hn::Lanes(floats);
    const auto factor = hn::Set(floats, weight);
    size_t i = 0;
    for (; i + lanes <= d; i += lanes) {
        hn::StoreU(
                hn::MulAdd(factor, hn::LoadU(floats, x + i), hn::LoadU(floats, y + i)),
                floats,
                y + i);
    }
    for (; i < d; i++) {
        y[i] += weight * x[i];
    }
}

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm {
HWY_EXPORT(dot);
HWY_EXPORT(squared_distance);
HWY_EXPORT(add_scaled);

float dot(size_t d, const float* a, const float* b) {
    return HWY_DYNAMIC_DISPATCH(dot)(d, a, b);
}
float squared_distance(size_t d, const float* a, const float* b) {
    return HWY_DYNAMIC_DISPATCH(squared_distance)(d, a, b);
}
void add_scaled(size_t d, float weight, const float* x, float* y) {
    HWY_DYNAMIC_DISPATCH(add_scaled)(d, weight, x, y);
}

void mean_of_rows(size_t n, size_t d, const float* rows, float* mean) {
    std::fill_n(mean, d, 0.0f);
    for (size_t i = 0; i < n; i++) {
        add_scaled(d, 1.0f / static_cast<float>(n), rows + i * d, mean);
    }
}

} // namespace faiss_gmm
#endif // HWY_ONCE
