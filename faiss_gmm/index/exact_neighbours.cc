// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/exact_neighbours.h"

#include <algorithm>
#include <unordered_set>

#include <faiss/IndexFlat.h>
#include <faiss/impl/AuxIndexStructures.h>

#include "faiss_gmm/index/result_heap.h"
#include "faiss_gmm/runs/parallel.h"
#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {
namespace {

constexpr size_t block = 16384; // vectors decoded at a time

/// Subtracts a row [d] from each of x [n, d].
void subtract(std::vector<float>& x, const std::vector<float>& row) {
    const size_t d = row.size();
    parallel_for(x.size() / d, [&](size_t i) { add_scaled(d, -1, row.data(), x.data() + i * d); });
}

} // namespace

std::vector<uint64_t> stored_places(const faiss::InvertedLists& lists) {
    std::vector<uint64_t> places;
    for (size_t l = 0; l < lists.nlist; l++) {
        for (size_t i = 0; i < lists.list_size(l); i++) {
            places.push_back(faiss::lo_build(l, i));
        }
    }
    return places;
}

std::vector<uint64_t> stored_places_once_an_id(const faiss::InvertedLists& lists) {
    std::vector<uint64_t> places;
    std::unordered_set<int64_t> seen;
    for (const uint64_t place : stored_places(lists)) {
        if (seen.insert(lists.get_single_id(faiss::lo_listno(place), faiss::lo_offset(place)))
                    .second) {
            places.push_back(place);
        }
    }
    return places;
}

std::vector<float> decode_places(const faiss::IndexIVF& ivf, const uint64_t* places, size_t n) {
    std::vector<float> x(n * ivf.d);
    parallel_for(n, [&](size_t i) {
        ivf.reconstruct_from_offset(
                static_cast<int64_t>(faiss::lo_listno(places[i])),
                static_cast<int64_t>(faiss::lo_offset(places[i])),
                x.data() + i * ivf.d);
    });
    return x;
}

ExactNeighbours exact_neighbours(
        const faiss::IndexIVF& ivf,
        const std::vector<uint64_t>& places,
        size_t nq,
        const float* x,
        size_t k) {
    const size_t d = ivf.d;
    const bool inner_product = ivf.metric_type == faiss::METRIC_INNER_PRODUCT;
    // FAISS takes |q|^2 - 2 <q, x> + |x|^2, which far from the origin cancels.
    std::vector<float> centre(d);
    if (!inner_product) {
        mean_of_rows(nq, d, x, centre.data());
    }
    std::vector<float> queries(x, x + nq * d);
    subtract(queries, centre);
    ExactNeighbours best{std::vector<int64_t>(nq * k), std::vector<float>(nq * k)};
    const ResultArrays results{static_cast<int64_t>(k), best.distances.data(), best.ids.data()};
    for (size_t i = 0; i < nq; i++) {
        results.heap_of(i, inner_product).start();
    }
    for (size_t first = 0; first < places.size(); first += block) {
        faiss::InterruptCallback::check();
        const size_t n = std::min(block, places.size() - first), found = std::min(k, n);
        std::vector<float> rows = decode_places(ivf, places.data() + first, n);
        subtract(rows, centre);
        faiss::IndexFlat flat(static_cast<int64_t>(d), ivf.metric_type);
        flat.add(static_cast<int64_t>(n), rows.data());
        std::vector<float> distances(nq * found);
        std::vector<int64_t> rows_found(nq * found);
        flat.search(
                static_cast<int64_t>(nq),
                queries.data(),
                static_cast<int64_t>(found),
                distances.data(),
                rows_found.data());
        parallel_for(nq, [&](size_t i) {
            ResultHeap heap = results.heap_of(i, inner_product);
            for (size_t j = i * found; j < (i + 1) * found; j++) {
                if (rows_found[j] >= 0) {
                    heap.push(distances[j], static_cast<int64_t>(first) + rows_found[j]);
                }
            }
        });
    }
    parallel_for(nq, [&](size_t i) {
        results.heap_of(i, inner_product).finish();
        std::vector<float> row(d);
        for (size_t j = i * k; j < (i + 1) * k; j++) {
            if (best.ids[j] < 0) { // distances beyond fp32
                continue;
            }
            const uint64_t place = places[best.ids[j]];
            const auto list = static_cast<int64_t>(faiss::lo_listno(place));
            const auto offset = static_cast<int64_t>(faiss::lo_offset(place));
            ivf.reconstruct_from_offset(list, offset, row.data());
            best.distances[j] = inner_product ? dot(d, x + i * d, row.data())
                                              : squared_distance(d, x + i * d, row.data());
            best.ids[j] = ivf.invlists->get_single_id(list, offset);
        }
    });
    return best;
}

} // namespace faiss_gmm
