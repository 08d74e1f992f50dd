// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Exact distances to stored rows, where the linked FAISS has scalar loops (compat::faiss_has_simd).
// A row decodes to x_t = z_t + s_t v_t, with v_t its number in memory, s_t its step and z_t what zero
// stands for (bytes: low + width / 510; and a residual's list mean c_t in every form).
//   (1) |q - x|^2 = sum_t (a_t - s_t v_t)^2,   a = q - z
//   (2) <q, x>    = <q, z> + sum_t (q_t s_t) v_t
// fp32 and fp16 rows have s = 1. So a query is prepared once, for L2 and residuals once a home, and a
// row costs a load, a conversion and a multiplication or two a vector.
// Test: tests/index/row_distances_test.cc, against fp64; tests/index/codecs_test.cc, against FAISS's scanners.
#include "faiss_gmm/index/row_distances.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_gmm/index/row_distances.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "faiss_gmm/runs/sum_terms-inl.h"

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using FloatVector = hn::Vec<Floats>;

/// Numbers of a row as floats, a vector of them or one.
struct Fp32Row {
    const float* numbers;
    explicit Fp32Row(const uint8_t* row) : numbers(reinterpret_cast<const float*>(row)) {}
    FloatVector load(size_t t) const {
        return hn::LoadU(Floats(), numbers + t);
    }
    float get(size_t t) const {
        return numbers[t];
    }
};
struct Fp16Row {
    const hwy::float16_t* numbers;
    explicit Fp16Row(const uint8_t* row) : numbers(reinterpret_cast<const hwy::float16_t*>(row)) {}
    FloatVector load(size_t t) const {
        const hn::Rebind<hwy::float16_t, Floats> halves;
        return hn::PromoteTo(Floats(), hn::LoadU(halves, numbers + t));
    }
    float get(size_t t) const {
        const hn::CappedTag<float, 1> one;
        const hn::Rebind<hwy::float16_t, decltype(one)> half;
        return hn::GetLane(hn::PromoteTo(one, hn::LoadU(half, numbers + t)));
    }
};
struct ByteRow {
    const uint8_t* numbers;
    explicit ByteRow(const uint8_t* row) : numbers(row) {}
    FloatVector load(size_t t) const {
        const hn::Rebind<uint8_t, Floats> bytes;
        const hn::Rebind<int32_t, Floats> integers;
        return hn::ConvertTo(Floats(), hn::PromoteTo(integers, hn::LoadU(bytes, numbers + t)));
    }
    float get(size_t t) const {
        return static_cast<float>(numbers[t]);
    }
};

template <class Row>
HWY_INLINE float product(size_t d, const float* HWY_RESTRICT target, const Row& row) {
    return sum_terms(
            d,
            [&](size_t t, FloatVector sum) HWY_ATTR {
                return hn::MulAdd(hn::LoadU(Floats(), target + t), row.load(t), sum);
            },
            [&](size_t t) HWY_ATTR { return target[t] * row.get(t); });
}

template <class Row>
HWY_INLINE float squared_distance(size_t d, const float* HWY_RESTRICT target, const Row& row) {
    return sum_terms(
            d,
            [&](size_t t, FloatVector sum) HWY_ATTR {
                const auto difference = hn::Sub(hn::LoadU(Floats(), target + t), row.load(t));
                return hn::MulAdd(difference, difference, sum);
            },
            [&](size_t t) HWY_ATTR {
                const float difference = target[t] - row.get(t);
                return difference * difference;
            });
}

HWY_INLINE float squared_distance_of_steps(
        size_t d,
        const float* HWY_RESTRICT target,
        const float* HWY_RESTRICT step,
        const ByteRow& row) {
    return sum_terms(
            d,
            [&](size_t t, FloatVector sum) HWY_ATTR {
                const auto difference = hn::NegMulAdd(
                        hn::LoadU(Floats(), step + t),
                        row.load(t),
                        hn::LoadU(Floats(), target + t));
                return hn::MulAdd(difference, difference, sum);
            },
            [&](size_t t) HWY_ATTR {
                const float difference = target[t] - step[t] * row.get(t);
                return difference * difference;
            });
}

float compare_row(
        StoredRows::Form form,
        bool products,
        size_t d,
        const float* HWY_RESTRICT target,
        const float* HWY_RESTRICT step,
        const uint8_t* HWY_RESTRICT row) {
    switch (form) {
    case StoredRows::Form::fp32:
        return products ? product(d, target, Fp32Row(row))
                        : squared_distance(d, target, Fp32Row(row));
    case StoredRows::Form::fp16:
        return products ? product(d, target, Fp16Row(row))
                        : squared_distance(d, target, Fp16Row(row));
    case StoredRows::Form::bytes:
        return products ? product(d, target, ByteRow(row))
                        : squared_distance_of_steps(d, target, step, ByteRow(row));
    }
    return 0;
}

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm {
HWY_EXPORT(compare_row);

RowDistances::RowDistances()
        : compare_([] {
              hwy::GetChosenTarget().Update(hwy::SupportedTargets());
              return HWY_DYNAMIC_DISPATCH(compare_row);
          }()) {}

void RowDistances::set_query(const StoredRows& rows, bool products, size_t d, const float* q) {
    form_ = rows.form;
    products_ = products;
    d_ = d;
    query_.assign(q, q + d);
    query_constant_ = 0;
    step_.resize(d);
    for (size_t t = 0; t < d && form_ == StoredRows::Form::bytes; t++) {
        const float zero = rows.low[t] + rows.width[t] / 510;
        step_[t] = rows.width[t] / 255;
        if (products) {
            query_constant_ += q[t] * zero;
            query_[t] = q[t] * step_[t];
        } else {
            query_[t] = q[t] - zero;
        }
    }
    target_ = query_;
    constant_ = query_constant_;
}

void RowDistances::set_home(const float* mean, float product) {
    if (products_) {
        constant_ = query_constant_ + product;
        return;
    }
    for (size_t t = 0; t < d_; t++) {
        target_[t] = query_[t] - mean[t];
    }
}

} // namespace faiss_gmm
#endif // HWY_ONCE
