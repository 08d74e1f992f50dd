// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What FAISS's copy constructors copy as a pointer, codec by codec: the quantizers within a product of additive
// quantizers, the quantizer within it that an index points to, the transformation of spectral hashes. A copy
// first forgets them, and then takes the original's or clones them.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <faiss/IndexIVFAdditiveQuantizer.h>
#include <faiss/IndexIVFAdditiveQuantizerFastScan.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexIVFSpectralHash.h>
#include <faiss/clone_index.h>

#include "faiss_gmm/compat/block_lists.h"
#include "faiss_gmm/compat/codecs.h"

namespace faiss_gmm {

template <class Codec>
constexpr bool is_additive = std::is_base_of_v<faiss::IndexIVFAdditiveQuantizer, Codec> ||
                             std::is_base_of_v<faiss::IndexIVFAdditiveQuantizerFastScan, Codec>;
template <class Codec>
constexpr bool is_hashing = std::is_base_of_v<faiss::IndexIVFSpectralHash, Codec>;

/// The additive quantizer that stands within an index.
template <class Codec> auto additive_within(Codec& index) -> decltype((index.rq)) {
    return index.rq;
}
template <class Codec> auto additive_within(Codec& index) -> decltype((index.lsq)) {
    return index.lsq;
}
template <class Codec> auto additive_within(Codec& index) -> decltype((index.prq)) {
    return index.prq;
}
template <class Codec> auto additive_within(Codec& index) -> decltype((index.plsq)) {
    return index.plsq;
}
/// The quantizers within a product; null for others.
inline std::vector<faiss::AdditiveQuantizer*>* parts_of(faiss::AdditiveQuantizer& quantizer) {
    auto* product = dynamic_cast<faiss::ProductAdditiveQuantizer*>(&quantizer);
    return product != nullptr ? &product->quantizers : nullptr;
}

/// The copy points to the quantizer within it, not within its original.
template <class Codec> void point_within(Codec& copy) noexcept {
    if constexpr (is_additive<Codec>) {
        copy.aq = &additive_within(copy);
        compat::set_fine_quantizer(copy, *copy.aq, 0);
    } else if constexpr (std::is_base_of_v<faiss::IndexIVFPQFastScan, Codec>) {
        compat::set_fine_quantizer(copy, copy.pq, 0);
    } else {
        compat::point_to_own_rabitq(copy);
    }
}

/// The copy no longer owns what is its original's.
template <class Codec> void forget_parts(Codec& copy) noexcept {
    if constexpr (is_additive<Codec>) {
        if (auto* parts = parts_of(additive_within(copy))) {
            parts->clear();
        }
    } else if constexpr (is_hashing<Codec>) {
        copy.own_fields = false;
    }
}

/// The copy, which forgot them, owns the parts; the original is only good to be destroyed.
template <class Codec> void take_parts(Codec& copy, Codec& original) noexcept {
    point_within(copy);
    if constexpr (is_additive<Codec>) {
        if (auto* parts = parts_of(*copy.aq)) {
            std::swap(*parts, *parts_of(additive_within(original)));
        }
    } else if constexpr (is_hashing<Codec>) {
        std::swap(copy.own_fields, original.own_fields);
    }
}

/// The copy, which forgot them, gets parts of its own.
template <class Codec>
void clone_parts(Codec& copy, const Codec& original, [[maybe_unused]] faiss::Cloner& cloner) {
    point_within(copy);
    if constexpr (is_additive<Codec>) {
        if (auto* parts = parts_of(*copy.aq)) {
            const auto& theirs =
                    dynamic_cast<const faiss::ProductAdditiveQuantizer&>(*original.aq).quantizers;
            parts->reserve(theirs.size());
            for (const faiss::AdditiveQuantizer* part : theirs) {
                parts->push_back(
                        dynamic_cast<faiss::AdditiveQuantizer*>(faiss::clone_Quantizer(part)));
            }
        }
    } else if constexpr (is_hashing<Codec>) {
        copy.vt = cloner.clone_VectorTransform(original.vt);
        copy.own_fields = true;
    }
}

} // namespace faiss_gmm
