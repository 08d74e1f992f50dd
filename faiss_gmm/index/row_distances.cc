// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Exact distances to stored rows.
// A row decodes to x_t = z_t + s_t v_t, with v_t its number in memory, s_t its step and z_t what zero
// stands for (bytes: low + width / 510; and a residual's list mean c_t in every form).
//   (1) |q - x|^2 = sum_t (a_t - s_t v_t)^2,   a = q - z
//   (2) <q, x>    = <q, z> + sum_t (q_t s_t) v_t
// fp32 and fp16 rows have s = 1. So a query is prepared once, for L2 and residuals once a home, and a
// row costs a load, a conversion and a multiplication or two a vector. A call takes
// many rows: 3 to 5% of a search less than one by one.
// Test: tests/index/row_distances_test.cc, against fp64; tests/index/codecs_test.cc, against FAISS's scanners.
#include "faiss_gmm/index/row_distances.h"

#include "faiss_gmm/runs/mapped.h"
#include "faiss_gmm/runs/prefetch.h"

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
    static constexpr size_t number_bytes = 4;
    const float* numbers;
    explicit Fp32Row(const uint8_t* row) : numbers(reinterpret_cast<const float*>(row)) {}
    FloatVector load(size_t t) const {
        return hn::LoadU(Floats(), numbers + t);
    }
    float get(size_t t) const {
        return number_at(numbers, t);
    }
};
struct Fp16Row {
    static constexpr size_t number_bytes = 2;
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
    static constexpr size_t number_bytes = 1;
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

template <class Distance>
HWY_INLINE void compare_each(
        float constant,
        const RowDistances::Rows& rows,
        size_t row_bytes,
        float* out,
        Distance distance) {
    const size_t ahead = items_ahead(row_bytes);
    for (size_t i = 0; i < rows.n; i++) {
        if (i + ahead < rows.known) {
            prefetch_bytes(rows.row[i + ahead], row_bytes);
        }
        out[i] = constant + distance(rows.row[i]);
    }
}

template <class Row>
HWY_INLINE void
compare_rows_of(const RowDistances::Target& target, const RowDistances::Rows& rows, float* out) {
    const size_t bytes = target.d * Row::number_bytes;
    if (target.products) {
        compare_each(target.constant, rows, bytes, out, [&](const uint8_t* row) HWY_ATTR {
            return product(target.d, target.numbers, Row(row));
        });
    } else {
        compare_each(target.constant, rows, bytes, out, [&](const uint8_t* row) HWY_ATTR {
            return squared_distance(target.d, target.numbers, Row(row));
        });
    }
}

void compare_rows(const RowDistances::Target& target, const RowDistances::Rows& rows, float* out) {
    switch (target.form) {
    case StoredRows::Form::fp32:
        return compare_rows_of<Fp32Row>(target, rows, out);
    case StoredRows::Form::fp16:
        return compare_rows_of<Fp16Row>(target, rows, out);
    case StoredRows::Form::bytes:
        if (target.products) { // the steps are within the target
            return compare_rows_of<ByteRow>(target, rows, out);
        }
        return compare_each(target.constant, rows, target.d, out, [&](const uint8_t* row) HWY_ATTR {
            return squared_distance_of_steps(target.d, target.numbers, target.step, ByteRow(row));
        });
    }
}

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm {
HWY_EXPORT(compare_rows);

RowDistances::RowDistances()
        : compare_([] {
              hwy::GetChosenTarget().Update(hwy::SupportedTargets());
              return HWY_DYNAMIC_DISPATCH(compare_rows);
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
