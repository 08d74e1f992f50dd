// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>

#include <faiss/utils/Heap.h>

namespace faiss_gmm {

/// The k best results of one query in the caller's arrays: FAISS's heap, of the kind that the
/// metric asks for.
class ResultHeap {
public:
    ResultHeap(bool inner_product, size_t k, float* distances, int64_t* labels)
            : inner_product_(inner_product), k_(k), distances_(distances), labels_(labels) {}

    /// Empties it: worst distances, labels -1.
    void start() {
        if (inner_product_) {
            faiss::heap_heapify<Smallest>(k_, distances_, labels_);
        } else {
            faiss::heap_heapify<Largest>(k_, distances_, labels_);
        }
    }
    /// Takes a result in if it is among the k best; equal distances by label, as FAISS's heaps order
    /// them, so what is kept does not depend on the order of calls.
    void push(float distance, int64_t label) {
        if (inner_product_) {
            push_to<Smallest>(distance, label);
        } else {
            push_to<Largest>(distance, label);
        }
    }
    /// Sorts it, best first.
    void finish() {
        if (inner_product_) {
            faiss::heap_reorder<Smallest>(k_, distances_, labels_);
        } else {
            faiss::heap_reorder<Largest>(k_, distances_, labels_);
        }
    }
    size_t size() const {
        return k_;
    }
    float* distances() {
        return distances_;
    }
    int64_t* labels() {
        return labels_;
    }

private:
    using Largest = faiss::CMax<float, int64_t>;
    using Smallest = faiss::CMin<float, int64_t>;

    template <class Order> void push_to(float distance, int64_t label) {
        if (k_ > 0 && Order::cmp2(distances_[0], distance, labels_[0], label)) {
            faiss::heap_replace_top<Order>(k_, distances_, labels_, distance, label);
        }
    }

    bool inner_product_;
    size_t k_;
    float* distances_;
    int64_t* labels_;
};

/// What the results are called.
enum class Labels { ids, list_and_offset };

/// The caller's arrays [n, k] for the k best of each of n queries.
struct ResultArrays {
    int64_t k;
    float* distances;
    int64_t* labels;
    Labels meaning = Labels::ids;
    /// They hold heaps, which are added to and left as heaps; else they are started and sorted.
    bool keep_heap = false;

    ResultHeap heap_of(size_t query, bool inner_product) const {
        const size_t first = query * k;
        return {inner_product, static_cast<size_t>(k), distances + first, labels + first};
    }
};

} // namespace faiss_gmm
