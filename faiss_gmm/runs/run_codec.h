// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <faiss/VectorTransform.h>
#include <faiss/impl/ProductQuantizer.h>

#include "faiss_gmm/runs/block.h"

namespace faiss_gmm {

/// The 4-bit quantizer of one kind of code: `codes` sub-quantizers of two dimensions each over the
/// first dimensions of the rotated space, dealt out in snake order (sub-quantizer i takes
/// dimensions i and 2 codes - 1 - i), so that each gets a like share of the variance. Dimensions
/// past the ones kept are 0.
struct FourBitQuantizer {
    faiss::ProductQuantizer pq; ///< 2 codes dimensions, `codes` sub-quantizers, 4 bits

    size_t codes() const {
        return pq.M;
    }
    /// kept dimensions y [kept] into the quantizer's order [2 codes].
    void deal(size_t kept, const float* y, float* dealt) const;
    /// The code [codes], a byte each, of y [kept], and its decoded form [kept].
    void encode(size_t kept, const float* y, uint8_t* code, float* decoded) const;
    void decode(size_t kept, const uint8_t* code, float* decoded) const;
    /// Trains on n rows y [n, kept].
    void train(size_t codes, size_t n, size_t kept, const float* y, uint64_t seed);
};

/// Look-up tables of one query, for both kinds of codes on one scale.
struct QueryTables {
    std::vector<uint8_t, CacheLineAllocator<uint8_t>> summary; ///< [codes, 16], at most 63 each
    std::vector<uint8_t, CacheLineAllocator<uint8_t>> sketch;  ///< [codes, 16]
    float scale = 1; ///< units of a 16-bit score a unit of distance (or of inner product)
    uint16_t summary_scale = 0; ///< constant_scale of the summaries' constants
    uint16_t sketch_scale = 0;
    std::vector<float> values; ///< scratch [codes, 16] of both
};

/// Range of the constants of one kind of code; a 16-bit constant k stands for low + k width /
/// 65534.
struct ConstantRange {
    float low = 0, width = 0;
    bool known = false;

    bool holds(float constant) const {
        return known && constant >= low && constant <= low + width;
    }
    void widen(float constant);
    uint16_t code(float constant) const;
};

/// How run means and vectors are coded, and scored against a query (design: summary and sketch).
///
/// Everything lives in the space of A: x -> A (x - data_mean), A [kept, d] the leading principal
/// directions of the residuals to the means (orthonormal rows); what the cut drops is left out.
///   run:    r = decode(code(A (mean_of_run - c)));  constant |r|^2 + 2 <A c, r>
///   vector: e = decode(code(A (x - c) - r));        constant |e|^2 + 2 <A c + r, e>
///   |q - x|^2 is close to |q - c|^2 + constant(run) - 2 <A q, r> + constant(vector) - 2 <A q, e>.
/// Inner product: <q, c> + <A q, r> + <A q, e>, no constants, larger is better.
class RunCodec {
public:
    bool trained = false;
    bool inner_product = false;
    /// The mixture is one of directions, and asked about rows of length 1: inner product, around means of
    /// length 1.
    bool by_direction = false;
    size_t d = 0, kept = 0, nlist = 0;
    std::vector<float> data_mean;     ///< [d]; zero for inner product
    std::vector<float> centred_means; ///< [nlist, d], c - data_mean
    std::vector<float> mean_norms;    ///< [nlist], |c - data_mean|^2
    faiss::PCAMatrix rotation;        ///< A; bias cleared
    std::vector<float> rotated_means; ///< [nlist, kept], A (c - data_mean)
    FourBitQuantizer summary, sketch;

    /// Sets the means; the rest stays. means [nlist, d].
    void set_means(size_t d, size_t nlist, const float* means, const float* data_mean, bool ip);

    /// What the mixture is asked about rows x [n, d]: x itself, or where it goes by direction, buffer
    /// with these rows brought to unit length.
    const float* as_modelled(size_t n, const float* x, std::vector<float>& buffer) const;
    /// What a row x [d] counts in the mean of its run, by which that is placed.
    float weight_in_mean(const float* x) const;

    /// Means of runs (of the directions of their rows where the mixture goes by these), and the lists
    /// that they are of.
    struct RunMeans {
        std::vector<float> mean; ///< [runs, d]
        std::vector<int32_t> home;
    };

    /// Trains rotation and quantizers on n rows x [n, d] whose homes are given; returns the means
    /// of the runs that these rows form. sketch_codes: 0 for clamp(d / 4, 1, 256). Where there is
    /// too little to learn from (fewer than 16 runs or fewer than d residuals) it leaves `trained`
    /// false, tells `warning` why, and returns none.
    RunMeans
    train(size_t n,
          const float* x,
          const int32_t* home,
          size_t sketch_codes,
          uint64_t seed,
          const std::function<void(const std::string&)>& warning);

    BlockLayout summary_layout() const {
        return {summary.codes()};
    }
    BlockLayout sketch_layout() const {
        return {sketch.codes()};
    }

    /// Residuals A (x - c) of n rows of one list into y [n, kept].
    void rotate_residuals(size_t n, const float* x, size_t list, float* y) const;
    float summary_constant(size_t list, const float* decoded_run) const;
    float sketch_constant(size_t list, const float* decoded_run, const float* decoded) const;

    /// factor <q, c - data_mean> for all means, by one product: centred queries [n, d] into out [n, nlist].
    void multiply_means(size_t n, const float* centred, float factor, float* out) const;
    /// A (q - data_mean) for n queries centred already: q [n, d] into out [n, kept].
    void rotate_queries(size_t n, const float* centred, float* out) const;
    /// Tables of one rotated query [kept] under the ranges of the constants.
    void build_tables(
            const float* rotated_query,
            const ConstantRange& summary_range,
            const ConstantRange& sketch_range,
            QueryTables& tables) const;

    size_t memory_bytes() const;
};

/// Number of 4-bit codes for d dimensions when none is asked for: clamp(d / 4, 1, 256).
size_t automatic_codes(size_t d);

/// Training vectors that RunCodec::train() never finds too few.
size_t enough_training_vectors(size_t d);

} // namespace faiss_gmm
