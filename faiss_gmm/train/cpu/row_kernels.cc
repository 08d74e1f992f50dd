// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/cpu/row_kernels.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_gmm/train/cpu/row_kernels.cc"
#include <hwy/foreach_target.h> // must come before highway.h

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Float = hn::ScalableTag<float>;
using Double = hn::ScalableTag<double>;
using HalfFloat = hn::Rebind<float, Double>; // as many floats as doubles fit a vector

// The two forms of ScoreBounds, so that the common one (one addition a score) pays for nothing else.
struct OneTerm {
    Float f;
    const float* dot;
    const float* base;
    OneTerm(const float* products, const ScoreBounds& bounds)
            : dot(products), base(bounds.upper0) {}
    HWY_INLINE hn::Vec<Float> lower(size_t k) const {
        return hn::Add(hn::LoadU(f, dot + k), hn::LoadU(f, base + k));
    }
    HWY_INLINE hn::Vec<Float> upper(size_t k) const {
        return lower(k);
    }
};

struct ThreeTerms {
    Float f;
    const float* dot;
    const ScoreBounds& bounds;
    ThreeTerms(const float* products, const ScoreBounds& row_bounds)
            : dot(products), bounds(row_bounds) {}
    HWY_INLINE hn::Vec<Float> sum(const float* a, const float* b, const float* c, size_t k) const {
        auto s = hn::Add(hn::LoadU(f, dot + k), hn::LoadU(f, a + k));
        s = hn::MulAdd(hn::Set(f, bounds.p), hn::LoadU(f, b + k), s);
        return hn::MulAdd(hn::Set(f, bounds.q), hn::LoadU(f, c + k), s);
    }
    HWY_INLINE hn::Vec<Float> lower(size_t k) const {
        return sum(bounds.lower0, bounds.lower1, bounds.lower2, k);
    }
    HWY_INLINE hn::Vec<Float> upper(size_t k) const {
        return sum(bounds.upper0, bounds.upper1, bounds.upper2, k);
    }
};

template <class Terms> float largest_lower_bound_of(const Terms& terms, size_t columns) {
    const Float f;
    const size_t N = hn::Lanes(f);
    // score_padding is a multiple of 4 N for vectors of up to 512 bits; longer ones use fewer.
    auto a = hn::Set(f, -HUGE_VALF), b = a, c = a, e = a;
    size_t k = 0;
    for (; k + 4 * N <= columns; k += 4 * N) {
        a = hn::Max(a, terms.lower(k));
        b = hn::Max(b, terms.lower(k + N));
        c = hn::Max(c, terms.lower(k + 2 * N));
        e = hn::Max(e, terms.lower(k + 3 * N));
    }
    for (; k < columns; k += N) {
        a = hn::Max(a, terms.lower(k));
    }
    return hn::GetLane(hn::MaxOfLanes(f, hn::Max(hn::Max(a, b), hn::Max(c, e))));
}

float largest_lower_bound(const float* dot, const ScoreBounds& bounds, size_t columns) {
    return bounds.upper1 == nullptr ? largest_lower_bound_of(OneTerm(dot, bounds), columns)
                                    : largest_lower_bound_of(ThreeTerms(dot, bounds), columns);
}

template <class Terms>
void raise_group_bounds_of(const Terms& terms, size_t columns, float* groups) {
    const Float f;
    const size_t N = hn::Lanes(f);
    for (size_t k = 0; k < columns; k += score_padding) {
        for (size_t g = 0; g < score_padding; g += N) {
            hn::StoreU(hn::Max(hn::LoadU(f, groups + g), terms.lower(k + g)), f, groups + g);
        }
    }
}

void raise_group_bounds(
        const float* dot, const ScoreBounds& bounds, size_t columns, float* groups) {
    if (bounds.upper1 == nullptr) {
        raise_group_bounds_of(OneTerm(dot, bounds), columns, groups);
    } else {
        raise_group_bounds_of(ThreeTerms(dot, bounds), columns, groups);
    }
}

template <class Terms>
size_t collect_above_of(
        const Terms& terms,
        size_t columns,
        float threshold,
        uint32_t first,
        uint32_t* index,
        float* upper) {
    const Float f;
    const hn::RebindToUnsigned<Float> u;
    const size_t N = hn::Lanes(f);
    const auto limit = hn::Set(f, threshold);
    size_t count = 0;
    const auto store = [&](size_t k, hn::Vec<Float> value) HWY_ATTR {
        const auto mask = hn::Ge(value, limit);
        if (hn::AllFalse(f, mask)) {
            return;
        }
        // A whole vector is stored, for the buffers have room: compressing stores to memory are
        // microcode on some processors.
        const auto numbers = hn::Iota(u, static_cast<uint32_t>(first + k));
        hn::StoreU(hn::Compress(numbers, hn::RebindMask(u, mask)), u, index + count);
        hn::StoreU(hn::Compress(value, mask), f, upper + count);
        count += hn::CountTrue(f, mask);
    };
    size_t k = 0;
    for (; k + 4 * N <= columns; k += 4 * N) {
        const auto a = terms.upper(k);
        const auto b = terms.upper(k + N);
        const auto c = terms.upper(k + 2 * N);
        const auto e = terms.upper(k + 3 * N);
        // Hits are rare: one test for four vectors.
        if (hn::AllFalse(f, hn::Ge(hn::Max(hn::Max(a, b), hn::Max(c, e)), limit))) {
            continue;
        }
        store(k, a);
        store(k + N, b);
        store(k + 2 * N, c);
        store(k + 3 * N, e);
    }
    for (; k < columns; k += N) {
        store(k, terms.upper(k));
    }
    return count;
}

size_t collect_above(
        const float* dot,
        const ScoreBounds& bounds,
        size_t columns,
        float threshold,
        uint32_t first,
        uint32_t* index,
        float* upper) {
    return bounds.upper1 == nullptr
                   ? collect_above_of(OneTerm(dot, bounds), columns, threshold, first, index, upper)
                   : collect_above_of(
                             ThreeTerms(dot, bounds), columns, threshold, first, index, upper);
}

HWY_INLINE hn::Vec<Double> load_double(const float* x) {
    return hn::PromoteTo(Double(), hn::LoadU(HalfFloat(), x));
}

double centre_row(const float* x, const float* origin, size_t d, float* y) {
    const Double f;
    const size_t N = hn::Lanes(f);
    auto a = hn::Zero(f);
    size_t j = 0;
    for (; j + N <= d; j += N) {
        const auto difference = hn::Sub(load_double(x + j), load_double(origin + j));
        hn::StoreU(hn::DemoteTo(HalfFloat(), difference), HalfFloat(), y + j);
        a = hn::MulAdd(difference, difference, a);
    }
    double sum = hn::GetLane(hn::SumOfLanes(f, a));
    for (; j < d; ++j) {
        const double difference = static_cast<double>(x[j]) - origin[j];
        y[j] = static_cast<float>(difference);
        sum += difference * difference;
    }
    return sum;
}

double squared_distance_f32(const float* x, const float* mu, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    auto a = hn::Zero(f), b = hn::Zero(f);
    size_t j = 0;
    for (; j + 2 * N <= d; j += 2 * N) {
        const auto s = hn::Sub(load_double(x + j), load_double(mu + j));
        const auto t = hn::Sub(load_double(x + j + N), load_double(mu + j + N));
        a = hn::MulAdd(s, s, a);
        b = hn::MulAdd(t, t, b);
    }
    double sum = hn::GetLane(hn::SumOfLanes(f, hn::Add(a, b)));
    for (; j < d; ++j) {
        const double s = static_cast<double>(x[j]) - mu[j];
        sum += s * s;
    }
    return sum;
}

double squared_distance_f64(const double* z, const double* m, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    auto a = hn::Zero(f);
    size_t j = 0;
    for (; j + N <= d; j += N) {
        const auto s = hn::Sub(hn::LoadU(f, z + j), hn::LoadU(f, m + j));
        a = hn::MulAdd(s, s, a);
    }
    double sum = hn::GetLane(hn::SumOfLanes(f, a));
    for (; j < d; ++j) {
        sum += (z[j] - m[j]) * (z[j] - m[j]);
    }
    return sum;
}

double weighted_squared_distance(const float* x, const float* mu, const double* weight, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    auto a = hn::Zero(f);
    size_t j = 0;
    for (; j + N <= d; j += N) {
        const auto s = hn::Sub(load_double(x + j), load_double(mu + j));
        a = hn::MulAdd(hn::Mul(s, s), hn::LoadU(f, weight + j), a);
    }
    double sum = hn::GetLane(hn::SumOfLanes(f, a));
    for (; j < d; ++j) {
        const double s = static_cast<double>(x[j]) - mu[j];
        sum += weight[j] * s * s;
    }
    return sum;
}

void add_scaled_f32(double* sum, double r, const float* x, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    const auto factor = hn::Set(f, r);
    size_t j = 0;
    for (; j + N <= d; j += N) {
        hn::StoreU(hn::MulAdd(factor, load_double(x + j), hn::LoadU(f, sum + j)), f, sum + j);
    }
    for (; j < d; ++j) {
        sum[j] += r * x[j];
    }
}

void add_four_scaled(double* sum, const double* r, const float* const* x, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    const auto r0 = hn::Set(f, r[0]), r1 = hn::Set(f, r[1]);
    const auto r2 = hn::Set(f, r[2]), r3 = hn::Set(f, r[3]);
    size_t j = 0;
    for (; j + N <= d; j += N) {
        // The order of four single calls, so that how rows are grouped leaves no trace.
        auto a = hn::LoadU(f, sum + j);
        a = hn::MulAdd(r0, load_double(x[0] + j), a);
        a = hn::MulAdd(r1, load_double(x[1] + j), a);
        a = hn::MulAdd(r2, load_double(x[2] + j), a);
        a = hn::MulAdd(r3, load_double(x[3] + j), a);
        hn::StoreU(a, f, sum + j);
    }
    for (; j < d; ++j) {
        for (size_t i = 0; i < 4; ++i) {
            sum[j] += r[i] * x[i][j];
        }
    }
}

void add_scaled_f64(double* sum, double r, const double* v, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    const auto factor = hn::Set(f, r);
    size_t j = 0;
    for (; j + N <= d; j += N) {
        hn::StoreU(hn::MulAdd(factor, hn::LoadU(f, v + j), hn::LoadU(f, sum + j)), f, sum + j);
    }
    for (; j < d; ++j) {
        sum[j] += r * v[j];
    }
}

void add_scaled_squares(double* sum, double r, const float* x, const float* mu, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    const auto factor = hn::Set(f, r);
    size_t j = 0;
    for (; j + N <= d; j += N) {
        const auto s = hn::Sub(load_double(x + j), load_double(mu + j));
        hn::StoreU(hn::MulAdd(hn::Mul(s, s), factor, hn::LoadU(f, sum + j)), f, sum + j);
    }
    for (; j < d; ++j) {
        const double s = static_cast<double>(x[j]) - mu[j];
        sum[j] += r * s * s;
    }
}

double dot_f64(const double* a, const double* b, size_t d) {
    const Double f;
    const size_t N = hn::Lanes(f);
    auto s = hn::Zero(f), t = hn::Zero(f);
    size_t j = 0;
    for (; j + 2 * N <= d; j += 2 * N) {
        s = hn::MulAdd(hn::LoadU(f, a + j), hn::LoadU(f, b + j), s);
        t = hn::MulAdd(hn::LoadU(f, a + j + N), hn::LoadU(f, b + j + N), t);
    }
    double sum = hn::GetLane(hn::SumOfLanes(f, hn::Add(s, t)));
    for (; j < d; ++j) {
        sum += a[j] * b[j];
    }
    return sum;
}

} // namespace faiss_gmm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm::cpu {

HWY_EXPORT(largest_lower_bound);
HWY_EXPORT(raise_group_bounds);
HWY_EXPORT(collect_above);
HWY_EXPORT(centre_row);
HWY_EXPORT(squared_distance_f32);
HWY_EXPORT(squared_distance_f64);
HWY_EXPORT(weighted_squared_distance);
HWY_EXPORT(add_scaled_f32);
HWY_EXPORT(add_four_scaled);
HWY_EXPORT(add_scaled_f64);
HWY_EXPORT(add_scaled_squares);
HWY_EXPORT(dot_f64);

float largest_lower_bound(const float* dot, const ScoreBounds& bounds, size_t columns) {
    return HWY_DYNAMIC_DISPATCH(largest_lower_bound)(dot, bounds, columns);
}

void raise_group_bounds(
        const float* dot, const ScoreBounds& bounds, size_t columns, float* groups) {
    HWY_DYNAMIC_DISPATCH(raise_group_bounds)(dot, bounds, columns, groups);
}

size_t collect_above(
        const float* dot,
        const ScoreBounds& bounds,
        size_t columns,
        float threshold,
        uint32_t first,
        uint32_t* index,
        float* upper) {
    return HWY_DYNAMIC_DISPATCH(collect_above)(
            dot, bounds, columns, threshold, first, index, upper);
}

double centre_row(const float* x, const float* origin, size_t d, float* y) {
    return HWY_DYNAMIC_DISPATCH(centre_row)(x, origin, d, y);
}

double squared_distance(const float* x, const float* mu, size_t d) {
    return HWY_DYNAMIC_DISPATCH(squared_distance_f32)(x, mu, d);
}

double squared_distance(const double* z, const double* m, size_t d) {
    return HWY_DYNAMIC_DISPATCH(squared_distance_f64)(z, m, d);
}

double weighted_squared_distance(const float* x, const float* mu, const double* weight, size_t d) {
    return HWY_DYNAMIC_DISPATCH(weighted_squared_distance)(x, mu, weight, d);
}

void add_scaled(double* sum, double r, const float* x, size_t d) {
    HWY_DYNAMIC_DISPATCH(add_scaled_f32)(sum, r, x, d);
}

void add_four_scaled(double* sum, const double* r, const float* const* x, size_t d) {
    HWY_DYNAMIC_DISPATCH(add_four_scaled)(sum, r, x, d);
}

void add_scaled(double* sum, double r, const double* v, size_t d) {
    HWY_DYNAMIC_DISPATCH(add_scaled_f64)(sum, r, v, d);
}

void add_scaled_squares(double* sum, double r, const float* x, const float* mu, size_t d) {
    HWY_DYNAMIC_DISPATCH(add_scaled_squares)(sum, r, x, mu, d);
}

double dot(const double* a, const double* b, size_t d) {
    return HWY_DYNAMIC_DISPATCH(dot_f64)(a, b, d);
}

} // namespace faiss_gmm::cpu
#endif // HWY_ONCE
