// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faiss_gmm {

/// How a codec stores a row: what our own loops need to know of it.
struct StoredRows {
    enum class Form {
        fp32,
        fp16,
        bytes, ///< component t is low[t] + (code + 1/2) / 255 * width[t]
    };
    Form form = Form::fp32;
    bool residual = false;        ///< the row is x less its list's mean
    const float* low = nullptr;   ///< [d], bytes only
    const float* width = nullptr; ///< [d], bytes only
};

/// Distances of one query to stored rows by our own loops, within rounding of what FAISS's scanners
/// give. Kept from query to query: allocates only while d grows.
class RowDistances {
public:
    RowDistances();

    /// |q - x|^2, or <q, x> for products. q [d]; where rows are residuals, less the data's mean, as the
    /// means of set_home() are.
    void set_query(const StoredRows& rows, bool products, size_t d, const float* q);
    /// The list whose rows follow, where rows are residuals: mean [d], and <q, mean> for products.
    void set_home(const float* mean, float product);

    /// To rows [n], into out [n]; `following` rows come after them: what lies prefetched_bytes ahead is
    /// asked for.
    void operator()(const uint8_t* const* rows, size_t n, size_t following, float* out) const {
        compare_(
                {form_, products_, d_, target_.data(), step_.data(), constant_},
                {rows, n, n + following},
                out);
    }

    /// What rows are compared with.
    struct Target {
        StoredRows::Form form;
        bool products;
        size_t d;
        const float* numbers; ///< [d]
        const float* step;    ///< [d], of a byte
        float constant;       ///< added to each result
    };
    /// The first n are compared, all `known` may be asked for.
    struct Rows {
        const uint8_t* const* row;
        size_t n, known;
    };

private:
    using Compare = void (*)(const Target& target, const Rows& rows, float* out);

    const Compare compare_;
    StoredRows::Form form_ = StoredRows::Form::fp32;
    bool products_ = false;
    size_t d_ = 0;
    std::vector<float> query_;  ///< q less what a row's zero stands for
    std::vector<float> target_; ///< what codes are compared with: query_ less the home's mean
    std::vector<float> step_;   ///< of a byte
    float query_constant_ = 0, constant_ = 0;
};

} // namespace faiss_gmm
