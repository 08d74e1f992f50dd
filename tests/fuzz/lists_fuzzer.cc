// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The fuzzer's target for the sections of our lists ("ilgm", "ilgb") and what they keep for their index, with the
// checksums taken as right. Around the lists stands an index that this file makes, sound for what they say of
// themselves: stock code parses nothing.
//   1 read: lists, or a FaissException;
//   2 put an index over them and promote it: the same;
//   3 check, search in every way; a fourth of the inputs, told by their last byte: change, and search again. Results, or
//     a FaissException;
//   4 write what was read and read that: the same bytes again.
// Anything else is a finding: another exception, what a sanitizer says, an allocation above libFuzzer's
// -malloc_limit_mb (allocations must follow the bytes).
#include "lists_fuzzer.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <omp.h>

#include <faiss/IndexFlat.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/index_io.h>

#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/io/index_io.h"
#include "lists_input.h"
#include "tests/index/index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t most_dimensions_made = 64; ///< where the lists do not say how many there are
constexpr size_t results = 5, added = 20;
constexpr uint8_t changed_share = 4; // changing takes longer than all the rest

using Lists = std::unique_ptr<faiss::InvertedLists>;
using Bytes = std::vector<uint8_t>;

[[noreturn]] void finding(const char* what) {
    std::fprintf(stderr, "finding: %s\n", what);
    std::abort();
}

std::vector<float> some_rows(size_t n, size_t d) {
    return float_rows(n, d, 7);
}

Lists read_lists(ListsInput& input, const uint8_t* bytes, size_t size) {
    const uint32_t kinds[] = {faiss::fourcc("ilgm"), faiss::fourcc("ilgb")};
    uint32_t kind = 0;
    if (size >= sizeof kind) {
        std::memcpy(&kind, bytes, sizeof kind);
    }
    if (kind != kinds[0] && kind != kinds[1]) {
        return nullptr;
    }
    Lists lists;
    refusal([&] { lists.reset(faiss::read_InvertedLists(&input)); });
    return lists;
}
Lists read_lists(const uint8_t* bytes, size_t size) {
    ListsInput input(bytes, size);
    return read_lists(input, bytes, size);
}

Bytes written(const faiss::InvertedLists& lists) {
    faiss::VectorIOWriter writer;
    faiss::write_InvertedLists(&lists, &writer);
    return writer.data;
}

/// What was read is written in bytes that hold it.
void expect_round_trip(const faiss::InvertedLists& lists) {
    const Bytes first = written(lists);
    const Lists again = read_lists(first.data(), first.size());
    if (!again) {
        finding("lists that were read are written, and not read again");
    }
    if (written(*again) != first) {
        finding("lists are written in other bytes after they were read again");
    }
}

/// d, where an index can be made over the lists; else 0.
size_t dimensions_of(const CoarseState& state, size_t code_size) {
    if (state.mixture.K > 0) {
        return state.mixture.d;
    }
    const size_t d = code_size % sizeof(float) == 0 ? code_size / sizeof(float) : code_size;
    return d <= most_dimensions_made ? d : 0;
}

std::unique_ptr<faiss::Index>
quantizer_of(const CoarseState& state, size_t nlist, size_t d, faiss::MetricType metric) {
    auto quantizer = std::make_unique<faiss::IndexFlat>(static_cast<int64_t>(d), metric);
    const std::vector<float> means =
            state.mixture.K > 0 ? state.mixture.means : some_rows(nlist, d);
    quantizer->add(static_cast<int64_t>(nlist), means.data());
    return quantizer;
}

/// A trained index of a stock class whose codes are as long as the lists say; null where none is.
std::unique_ptr<faiss::IndexIVF>
stock_index(faiss::Index* quantizer, size_t d, const faiss::InvertedLists& lists) {
    const size_t nlist = lists.nlist;
    const faiss::MetricType metric = quantizer->metric_type;
    std::unique_ptr<faiss::IndexIVF> index;
    if (const auto* blocks = dynamic_cast<const faiss::BlockInvertedLists*>(&lists)) {
        const size_t code_size = blocks->block_size / blocks->n_per_block;
        for (const size_t M : {2 * code_size, 2 * code_size - 1}) {
            if (!index && d % M == 0 && d <= most_dimensions_made) {
                auto pq = std::make_unique<faiss::IndexIVFPQFastScan>(
                        quantizer, d, nlist, M, 4, metric, static_cast<int>(blocks->n_per_block));
                pq->pq.centroids = some_rows(pq->pq.ksub, d);
                index = std::move(pq);
            }
        }
    } else if (lists.code_size == d * sizeof(float)) {
        index = std::make_unique<faiss::IndexIVFFlat>(quantizer, d, nlist, metric);
    } else if (lists.code_size == d) {
        auto sq = std::make_unique<faiss::IndexIVFScalarQuantizer>(
                quantizer, d, nlist, faiss::ScalarQuantizer::QT_8bit, metric);
        sq->sq.trained.assign(2 * d, 1.0f);
        index = std::move(sq);
    } else if (lists.code_size > 0 && d % lists.code_size == 0 && d <= most_dimensions_made) {
        auto pq = std::make_unique<faiss::IndexIVFPQ>(
                quantizer, d, nlist, lists.code_size, 8, metric);
        pq->pq.centroids = some_rows(pq->pq.ksub, d);
        index = std::move(pq);
    }
    if (index) {
        index->is_trained = true;
    }
    return index;
}

/// An index of ours over the lists, as read_index would leave it; null where none can be.
std::unique_ptr<faiss::Index> index_over(Lists lists) {
    const auto& kept = dynamic_cast<const MixtureLists&>(*lists);
    const CoarseState& state = kept.state();
    const auto* blocks = dynamic_cast<const faiss::BlockInvertedLists*>(lists.get());
    const size_t d = dimensions_of(
            state, blocks != nullptr ? blocks->block_size / blocks->n_per_block : lists->code_size);
    if (d == 0) {
        return nullptr;
    }
    std::unique_ptr<faiss::Index> quantizer = quantizer_of(
            state,
            lists->nlist,
            d,
            state.codec.inner_product ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2);
    std::unique_ptr<faiss::IndexIVF> stock = stock_index(quantizer.get(), d, *lists);
    if (!stock) {
        return nullptr;
    }
    stock->own_fields = true;
    static_cast<void>(quantizer.release());
    stock->ntotal = static_cast<int64_t>(lists->compute_ntotal());
    stock->replace_invlists(lists.release(), true);
    std::unique_ptr<faiss::Index> index = std::move(stock);
    const std::string refused = refusal([&] {
        faiss::Index* const ours = promote(index.get());
        static_cast<void>(index.release());
        index.reset(ours);
    });
    return refused.empty() ? std::move(index) : nullptr;
}

void search_in_every_way(const faiss::Index& index) {
    const auto& ivf = dynamic_cast<const faiss::IndexIVF&>(index);
    const std::vector<float> queries = some_rows(3, index.d);
    refusal([&] { search(index, queries, results); });
    if (has_code_blocks(ivf)) {
        return;
    }
    faiss::IDSelectorRange some(3, 20);
    IVFGMMSearchParameters params;
    for (const size_t nprobe : {size_t{1}, size_t{3}, ivf.nlist}) {
        for (const bool selected : {false, true}) {
            params.nprobe = nprobe;
            params.sel = selected ? &some : nullptr;
            refusal([&] { search(index, queries, results, &params); });
        }
    }
    refusal([&] {
        Results found(3, results);
        std::vector<float> rows(3 * results * index.d);
        index.search_and_reconstruct(
                3,
                queries.data(),
                results,
                found.distances.data(),
                found.labels.data(),
                rows.data());
    });
    refusal([&] {
        faiss::RangeSearchResult found(3);
        index.range_search(3, queries.data(), 1, &found);
    });
}

void change(faiss::Index& index) {
    auto& ours = dynamic_cast<IndexIVFGMM&>(index);
    // How long a training takes is what the file asks for: here, little.
    ours.training.max_iter = ours.training.n_init = 1;
    ours.training.warm_start_iterations = 1;
    refusal([&] { index.add(added, some_rows(added, index.d).data()); });
    refusal([&] { index.remove_ids(faiss::IDSelectorRange(5, 12)); });
    refusal([&] { ours.compact(); });
    search_in_every_way(index);
    refusal([&] { ours.check(); });
}

} // namespace

void prepare_fuzzing() {
    omp_set_num_threads(1); // runs of next to nothing
    register_lists_io();
}

Reached fuzz_lists(const uint8_t* bytes, size_t size) {
    Lists lists = read_lists(bytes, size);
    if (!lists) {
        return Reached::nothing;
    }
    expect_round_trip(*lists);
    const auto index = index_over(std::move(lists));
    if (!index) {
        return Reached::lists;
    }
    refusal([&] { dynamic_cast<const IndexIVFGMM&>(*index).check(); });
    search_in_every_way(*index);
    if (bytes[size - 1] % changed_share == 0) {
        change(*index);
    }
    return Reached::index;
}

void change_a_number(uint8_t* bytes, size_t size, unsigned seed) {
    std::mt19937 random(seed);
    ListsInput input(bytes, size);
    read_lists(input, bytes, size);
    if (input.numbers().empty()) {
        return;
    }
    const ListsInput::Number place = input.numbers()[random() % input.numbers().size()];
    const size_t there = std::min(place.size, size - place.at);
    uint64_t number = 0;
    std::memcpy(&number, bytes + place.at, there);
    const uint64_t powers = uint64_t{1} << random() % 64;
    switch (random() % 6) {
    case 0:
        number = powers;
        break;
    case 1:
        number = powers - 1;
        break;
    case 2:
        number += powers;
        break;
    case 3:
        number -= powers;
        break;
    case 4:
        number = random() % 64;
        break;
    default: // NaN, in either size
        number = place.size == sizeof(float) ? 0x7fc00000 : 0x7ff8000000000000;
    }
    std::memcpy(bytes + place.at, &number, there);
}

} // namespace faiss_gmm
