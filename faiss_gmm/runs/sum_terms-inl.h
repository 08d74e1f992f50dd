// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Included once an instruction set, as Highway's own -inl.h files are.
#if defined(FAISS_GMM_RUNS_SUM_TERMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FAISS_GMM_RUNS_SUM_TERMS_INL_H_
#undef FAISS_GMM_RUNS_SUM_TERMS_INL_H_
#else
#define FAISS_GMM_RUNS_SUM_TERMS_INL_H_
#endif

#include <cstddef>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm {
namespace HWY_NAMESPACE {

/// Sums term(i) over i < d: two accumulators over whole vectors, then the rest one by one.
template <class VectorTerm, class ScalarTerm>
HWY_INLINE float sum_terms(size_t d, VectorTerm vector_term, ScalarTerm scalar_term) {
    namespace hn = hwy::HWY_NAMESPACE;
    const hn::ScalableTag<float> floats;
    const size_t lanes = hn::Lanes(floats);
    auto first = hn::Zero(floats), second = hn::Zero(floats);
    size_t i = 0;
    for (; i + 2 * lanes <= d; i += 2 * lanes) {
        first = vector_term(i, first);
        second = vector_term(i + lanes, second);
    }
    if (i + lanes <= d) {
        first = vector_term(i, first);
        i += lanes;
    }
    float sum = hn::GetLane(hn::SumOfLanes(floats, hn::Add(first, second)));
    for (; i < d; i++) {
        sum += scalar_term(i);
    }
    return sum;
}

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#endif // per-target include guard
