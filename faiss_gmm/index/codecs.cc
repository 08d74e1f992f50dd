// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/codecs.h"

#include <type_traits>
#include <typeinfo>

#include <faiss/IndexIVFFastScan.h>
#include <faiss/IndexIVFPQR.h>
#include <fmt/format.h>

#include "faiss_gmm/runs/mixture_block_lists.h"

namespace faiss_gmm {
namespace {

template <class Stock> bool is(const faiss::IndexIVF& index) {
    return dynamic_cast<const Stock*>(&index) != nullptr;
}

template <class Stock> bool* by_residual_where(faiss::IndexIVF& index) {
    auto* stock = dynamic_cast<Stock*>(&index);
    return stock != nullptr ? &stock->by_residual : nullptr;
}

/// Ours, constructed with the tag, for the one codec of the list that `stock` is, itself and not by descent.
template <class Tag, class... Codecs>
std::unique_ptr<faiss::IndexIVF> made(Tag tag, CodecList<Codecs...>, faiss::IndexIVF& stock) {
    std::unique_ptr<faiss::IndexIVF> ours;
    const auto is_this = [&](const auto* null) {
        using Codec = std::remove_const_t<std::remove_pointer_t<decltype(null)>>;
        if (typeid(stock) != typeid(Codec)) {
            return false;
        }
        ours = std::make_unique<IndexIVFGMMOf<Codec>>(tag, dynamic_cast<Codec&>(stock));
        return true;
    };
    static_cast<void>((is_this(static_cast<const Codecs*>(nullptr)) || ...));
    return ours;
}

} // namespace

std::optional<CodecRefusal> refusal_of_codec(const faiss::IndexIVF& index) {
    if (is<faiss::IndexIVFPQR>(index)) {
        return CodecRefusal{
                "IVFPQR, whose refining codes stand outside of the lists, by id, and which "
                "searches "
                "past the lists' scanner",
                "use PQ and refine by a wrapper: ...,PQ8,RFlat or ...,PQ8,Refine(PQ16)"};
    }
    if (is<faiss::IndexIVFFlatDedup>(index)) {
        return CodecRefusal{
                "IVFFlatDedup, where an entry stands for vectors kept outside of the lists, by id, "
                "and which searches past the lists' scanner",
                "use Flat, which stores each vector, or remove duplicates before adding"};
    }
    if (compat::is_panorama(index)) {
        return CodecRefusal{
                "IVFFlatPanorama, whose lists are laid out in levels that runs would cut",
                "use Flat: sketches leave out most of its distances too"};
    }
    const auto* blocks = dynamic_cast<const faiss::IndexIVFFastScan*>(&index);
    if (blocks != nullptr && !can_search_blocks_of(static_cast<size_t>(blocks->bbs))) {
        return CodecRefusal{
                fmt::format(
                        "FastScan in blocks of {} entries, whose first search ends the process",
                        blocks->bbs),
                "use blocks of 32 (no suffix), 64, 96, 128 or 160 entries: ...,PQ16x4fs_64"};
    }
    if (!compat::holds_rabitq_blocks && compat::is_rabitq_in_blocks(index)) {
        return CodecRefusal{
                "IVFRaBitQFastScan of this FAISS, which keeps factors of an entry outside of the "
                "lists, by id",
                "use RaBitQ, or FAISS 1.14 or newer, where blocks hold them"};
    }
    return std::nullopt;
}

bool has_code_blocks(const faiss::IndexIVF& index) {
    return is<faiss::IndexIVFFastScan>(index);
}

bool keeps_plain_lists(const faiss::IndexIVF& index) {
    // A code of no bytes (SQ's type of 0 bits) says nothing that runs could be chosen by.
    return has_code_blocks(index) || is<faiss::IndexIVFSpectralHash>(index) || index.code_size == 0;
}

bool* by_residual_of(faiss::IndexIVF& index) {
    if (compat::is_rabitq_in_blocks(index)) {
        return nullptr;
    }
    for (bool* found :
         {by_residual_where<faiss::IndexIVFScalarQuantizer>(index),
          by_residual_where<faiss::IndexIVFPQ>(index),
          by_residual_where<faiss::IndexIVFAdditiveQuantizer>(index),
          by_residual_where<faiss::IndexIVFFastScan>(index)}) {
        if (found != nullptr) {
            return found;
        }
    }
    return nullptr;
}

std::unique_ptr<faiss::IndexIVF> in_place_of(faiss::IndexIVF& stock) {
    return made(InPlaceOf(), StockCodecs(), stock);
}

std::unique_ptr<faiss::IndexIVF> taken_over(faiss::IndexIVF& stock) {
    return made(TakeOver(), StockCodecs(), stock);
}

} // namespace faiss_gmm
