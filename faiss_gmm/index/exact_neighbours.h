// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <faiss/IndexIVF.h>

namespace faiss_gmm {

/// Where the entries of lists stand, as faiss::lo_build(list, offset).
std::vector<uint64_t> stored_places(const faiss::InvertedLists& lists);
/// The same of lists that hold copies: of each id the first place.
std::vector<uint64_t> stored_places_once_an_id(const faiss::InvertedLists& lists);

/// The vectors at places [n], decoded: [n, d].
std::vector<float> decode_places(const faiss::IndexIVF& ivf, const uint64_t* places, size_t n);

/// The k best of the stored vectors for each query, nearest first up to rounding.
struct ExactNeighbours {
    std::vector<int64_t> ids;     ///< [nq, k]; -1 where distances are beyond fp32
    std::vector<float> distances; ///< [nq, k], between the query and the decoded vector
};

/// Exact search of the vectors at `places` (at least k) for queries x [nq, d], whatever lists and
/// quantizer say: products of all queries with blocks of decoded vectors. nq * places * d
/// multiplications; memory: a block of 16,384 vectors. Throws faiss::FaissException where FAISS's
/// interrupt callback asks for it.
ExactNeighbours exact_neighbours(
        const faiss::IndexIVF& ivf,
        const std::vector<uint64_t>& places,
        size_t nq,
        const float* x,
        size_t k);

} // namespace faiss_gmm
