// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/detail/mixture_view.h"
#include "faiss_gmm/train/cuda/detail/order.h"
#include "faiss_gmm/train/cuda/detail/weigh.h"

namespace faiss_gmm::cuda {

/// Buffers of the exact tier for `rows` rows at once; device memory.
struct ExactBuffers {
    int rows = 0;
    double* joint = nullptr; ///< [rows, K]
    double* share = nullptr; ///< [rows, K]
};

struct Scatter;

/// Rows of a wave without a usable list: `row` [count] are their numbers in x.
struct ExactRows {
    Rows x;
    const uint32_t* row = nullptr;
    int count = 0;
};

/// log-joints of all components, shares, and their sums, exactly: see exact.cu. Adds to `sums`, in the
/// order of the rows, and writes log_likelihood [wave rows] of these rows. `full`: all but the
/// likelihoods goes to `scatter`, and rows are all of the wave's.
void sum_exactly(
        const MixtureView& mixture,
        const PairRule& rule,
        const ExactRows& rows,
        const ExactBuffers& buffers,
        unsigned long long first_row,
        const PassSums& sums,
        const Scatter& scatter,
        double* log_likelihood,
        unsigned long long* shared_rows,
        unsigned long long* bad_row,
        cudaStream_t stream);

/// Adds each of values [2, stride], of a wave's rows, to sums [2]: block by block (of 1,024 to 262,144
/// rows), so the bits do not depend on waves. `tiles` [2 (rows / 1024 + 1)] is scratch.
void add_row_values(
        const double* values,
        size_t stride,
        int rows,
        int block_rows,
        double* tiles,
        double* sums,
        cudaStream_t stream);

/// The best m of all components for these rows, into rows `row` of out.
void rank_exactly(
        const MixtureView& mixture,
        const PairRule& rule,
        const ExactRows& rows,
        const ExactBuffers& buffers,
        int m,
        unsigned long long first_row,
        unsigned long long* bad_row,
        const TopOutput& out,
        cudaStream_t stream);

} // namespace faiss_gmm::cuda
