// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What comparing, weighing and ranking share: a component as a warp sees it, a row against it, and the
// choice of the instance for a form and a width.
//   (1) l_k = constant_k - sum_j hp_kj (x_j - mu_kj)^2, hp = 1 / (2 s2);  r_k = exp(l_k - L), L = log sum exp l

#include "faiss_gmm/train/cuda/detail/rows.cuh"
#include "faiss_gmm/train/cuda/detail/weigh.h"

namespace faiss_gmm::cuda {

constexpr float unit_roundoff = 5.9604645e-8f;
/// Squared distance, in variances a dimension, from which a row's likelihood is left to fp64.
constexpr float far_row = 64;
constexpr float infinity = __builtin_huge_valf();

/// The kernels' form `tied`: whitened rows and means, a tied_spherical mixture of numbers with low parts.
constexpr bool has_low_parts(Covariance form) {
    return form == Covariance::tied;
}
/// By (2), otherwise by (1).
constexpr bool compares_by_products(Covariance form) {
    return form == Covariance::tied_spherical || form == Covariance::tied;
}

template <Covariance form, int chunks> struct Component {
    int k;
    const float* mean;      ///< [d]
    const float* mean_low;  ///< [d] where rows have low parts
    const float* precision; ///< [d], diagonal only
    float half_precision;   ///< not diagonal
    double constant;

    __device__ Component(const MixtureView& mixture, int component) : k(component) {
        mean = mixture.means + first_number(k, mixture.d);
        mean_low = mixture.means_low + first_number(k, mixture.d);
        precision = mixture.half_precision32 + first_number(k, mixture.d);
        half_precision = form == Covariance::diagonal    ? 0.0f
                         : form == Covariance::spherical ? mixture.half_precision32[k]
                                                         : mixture.half_precision32[0];
        constant = mixture.constant[k];
    }
};

template <Covariance form>
__device__ inline double half_precision(const MixtureView& mixture, int k, int j) {
    return form == Covariance::diagonal    ? mixture.half_precision[first_number(k, mixture.d) + j]
           : form == Covariance::spherical ? mixture.half_precision[k]
                                           : mixture.half_precision[0];
}

/// constant_k - constant_c, as comparing adds it.
__device__ inline float constants_between(const MixtureView& mixture, int k, int c) {
    return static_cast<float>(mixture.constant[k] - mixture.constant[c]);
}

/// Below it fp32 does for the row's likelihood; NaN is not.
__device__ inline bool is_near(const AgainstHome& against, int d) {
    return against.weighted <= far_row / 2 * d;
}

/// What the low parts add to x - mu.
template <int chunks>
__device__ void
add_low_parts(const float* x, const float* mean, int d, int lane, float (&difference)[4 * chunks]) {
#pragma unroll
    for (int i = 0; i < chunks; ++i) {
        float a[4], b[4];
        load_four(x, chunk_width * i + 4 * lane, d, d % 4 == 0, a);
        load_four(mean, chunk_width * i + 4 * lane, d, d % 4 == 0, b);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            difference[4 * i + j] += a[j] - b[j];
        }
    }
}

/// Rows of which a warp has the numbers under way at once.
constexpr int rows_ahead(int chunks) {
    return chunks == 1 ? 4 : chunks == 2 ? 2 : 1;
}

template <Covariance form, int chunks>
__device__ AgainstHome against_c(
        const MixtureView& mixture,
        const Component<form, chunks>& c,
        const float (&difference)[4 * chunks],
        int lane) {
    float square = 0;
    if constexpr (form == Covariance::diagonal) {
#pragma unroll
        for (int i = 0; i < chunks; ++i) {
            float p[4];
            load_four(c.precision, chunk_width * i + 4 * lane, mixture.d, mixture.d % 4 == 0, p);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float e = difference[4 * i + j];
                square = fmaf(p[j] * e, e, square);
            }
        }
        return {0, warp_sum(square)};
    } else {
#pragma unroll
        for (int i = 0; i < 4 * chunks; ++i) {
            square = fmaf(difference[i], difference[i], square);
        }
        square = warp_sum(square);
        return {square, c.half_precision * square};
    }
}

template <int chunks>
__device__ inline void
subtract_mean(const float* mean, int d, int lane, float (&values)[4 * chunks]) {
#pragma unroll
    for (int i = 0; i < chunks; ++i) {
        float mu[4];
        load_four(mean, chunk_width * i + 4 * lane, d, d % 4 == 0, mu);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            values[4 * i + j] -= mu[j];
        }
    }
}

/// A row, which begins at number `first`, less mu_c.
template <Covariance form, int chunks>
__device__ inline void centre_at(
        const Component<form, chunks>& c,
        const Rows& x,
        size_t first,
        int d,
        int lane,
        float (&values)[4 * chunks]) {
    subtract_mean<chunks>(c.mean, d, lane, values);
    if constexpr (has_low_parts(form)) {
        add_low_parts<chunks>(x.low + first, c.mean_low, d, lane, values);
    }
}

template <template <Covariance, int> class Launch, Covariance form, class... Arguments>
void launch_for_width(int d, const Arguments&... arguments) {
    if (d <= 128) {
        Launch<form, 1>::go(arguments...);
    } else if (d <= 256) {
        Launch<form, 2>::go(arguments...);
    } else if (d <= 512) {
        Launch<form, 4>::go(arguments...);
    } else if (d <= 1024) {
        Launch<form, 8>::go(arguments...);
    } else {
        Launch<form, 16>::go(arguments...);
    }
}

/// Launch<form, chunks>::go(arguments...) for the mixture's form and width.
template <template <Covariance, int> class Launch, class... Arguments>
void launch_for(const MixtureView& mixture, const Arguments&... arguments) {
    switch (mixture.covariance) {
    case Covariance::spherical:
        launch_for_width<Launch, Covariance::spherical>(mixture.d, mixture, arguments...);
        break;
    case Covariance::diagonal:
        launch_for_width<Launch, Covariance::diagonal>(mixture.d, mixture, arguments...);
        break;
    default:
        if (mixture.means_low != nullptr) {
            launch_for_width<Launch, Covariance::tied>(mixture.d, mixture, arguments...);
        } else {
            launch_for_width<Launch, Covariance::tied_spherical>(mixture.d, mixture, arguments...);
        }
        break;
    }
}

} // namespace faiss_gmm::cuda
