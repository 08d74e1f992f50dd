// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Splits a list into runs of 32 neighbours.
//   (1) v <- sum_i ((y_i - m) . v) (y_i - m), normalised: power iterations to a part's main direction
//   (2) the part is cut where the order of y_i . v reaches the multiple of 32 nearest to its middle
// y [n, d] rows, m mean of the part, v [d] direction.
// Cost: n log2(n / 32) (d + sampled power iterations) multiply-adds; no memory beside three vectors
// of d and one key a row.
// Numerics: fp32 sums; a direction need not be exact, a cut need only be the same each time.
// Determinism: one thread, fixed order of sums, ties by row number: the same runs every time.
#include "faiss_gmm/runs/split.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "faiss_gmm/runs/block.h"
#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {
namespace {

constexpr size_t power_iterations = 6;
constexpr size_t direction_sample = 256; // rows a part's direction is estimated from

class Splitter {
public:
    Splitter(size_t d, const float* y, std::vector<uint32_t>& order)
            : d_(d), y_(y), order_(order), mean_(d), direction_(d), next_(d), keys_(order.size()) {}

    void split(size_t begin, size_t end) {
        const size_t size = end - begin;
        if (size <= run_size) {
            return;
        }
        find_direction(begin, end);
        for (size_t i = begin; i < end; i++) {
            const float projection = dot(d_, row(i), direction_.data());
            keys_[i] = {std::isfinite(projection) ? projection : 0, order_[i]}; // NaN has no order
        }
        const size_t runs = (size + run_size - 1) / run_size;
        const size_t cut = begin + runs / 2 * run_size;
        std::nth_element(keys_.begin() + begin, keys_.begin() + cut, keys_.begin() + end);
        for (size_t i = begin; i < end; i++) {
            order_[i] = keys_[i].second;
        }
        split(begin, cut);
        split(cut, end);
    }

private:
    const float* row(size_t i) const {
        return y_ + order_[i] * d_;
    }

    /// Power iterations from the row farthest from the mean, over an even sample of the part.
    void find_direction(size_t begin, size_t end) {
        const size_t step = std::max<size_t>(1, (end - begin) / direction_sample);
        std::fill(mean_.begin(), mean_.end(), 0.0f);
        size_t sampled = 0;
        for (size_t i = begin; i < end; i += step, sampled++) {
            add_scaled(d_, 1.0f, row(i), mean_.data());
        }
        for (float& m : mean_) {
            m /= static_cast<float>(sampled);
        }
        float farthest = -1;
        size_t start = begin;
        for (size_t i = begin; i < end; i += step) {
            const float distance = squared_distance(d_, row(i), mean_.data());
            if (distance > farthest) {
                farthest = distance;
                start = i;
            }
        }
        for (size_t t = 0; t < d_; t++) {
            direction_[t] = row(start)[t] - mean_[t];
        }
        for (size_t iteration = 0; iteration < power_iterations; iteration++) {
            const float offset = dot(d_, mean_.data(), direction_.data());
            std::fill(next_.begin(), next_.end(), 0.0f);
            float weight_sum = 0;
            for (size_t i = begin; i < end; i += step) {
                const float weight = dot(d_, row(i), direction_.data()) - offset;
                add_scaled(d_, weight, row(i), next_.data());
                weight_sum += weight;
            }
            add_scaled(d_, -weight_sum, mean_.data(), next_.data());
            const float norm = dot(d_, next_.data(), next_.data());
            if (!(norm > 1e-30f) || !std::isfinite(norm)) {
                return; // equal rows, or none left to tell apart: any direction will do
            }
            const float inverse = 1 / std::sqrt(norm);
            for (size_t t = 0; t < d_; t++) {
                direction_[t] = next_[t] * inverse;
            }
        }
    }

    size_t d_;
    const float* y_;
    std::vector<uint32_t>& order_;
    std::vector<float> mean_, direction_, next_;
    std::vector<std::pair<float, uint32_t>> keys_;
};

} // namespace

void balanced_split(size_t n, size_t d, const float* y, std::vector<uint32_t>& order) {
    order.resize(n);
    std::iota(order.begin(), order.end(), 0u);
    Splitter(d, y, order).split(0, n);
}

} // namespace faiss_gmm
