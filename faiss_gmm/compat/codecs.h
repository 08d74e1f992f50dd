// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Codecs over IVF lists that not every version has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFAdditiveQuantizer.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexScalarQuantizer.h>
#if __has_include(<faiss/IndexIVFFlatPanorama.h>) // since 1.13
#include <faiss/IndexIVFFlatPanorama.h>
#define FAISS_GMM_HAS_PANORAMA 1
#else
#define FAISS_GMM_HAS_PANORAMA 0
#endif
#if __has_include(<faiss/IndexIVFRaBitQ.h>) // since 1.11
#include <faiss/IndexIVFRaBitQ.h>
#define FAISS_GMM_HAS_RABITQ 1
#define FAISS_GMM_RABITQ_CODEC , faiss::IndexIVFRaBitQ
#else
#define FAISS_GMM_HAS_RABITQ 0
#define FAISS_GMM_RABITQ_CODEC
#endif
#if __has_include(<faiss/IndexIVFRaBitQFastScan.h>) // since 1.13
#include <faiss/IndexIVFRaBitQFastScan.h>
#define FAISS_GMM_HAS_RABITQ_BLOCKS 1
#else
#define FAISS_GMM_HAS_RABITQ_BLOCKS 0
#endif
// Since 1.14 a block holds the factors of its entries too; 1.13 kept them beside the lists.
#if __has_include(<faiss/impl/CodePackerRaBitQ.h>)
#include <faiss/impl/RaBitQUtils.h>
#define FAISS_GMM_HOLDS_RABITQ_BLOCKS 1
#define FAISS_GMM_RABITQ_BLOCKS_CODEC , faiss::IndexIVFRaBitQFastScan
#else
#define FAISS_GMM_HOLDS_RABITQ_BLOCKS 0
#define FAISS_GMM_RABITQ_BLOCKS_CODEC
#endif
#if __has_include(<faiss/IndexIVFEDEN.h>) // since 1.15
#include <faiss/IndexIVFEDEN.h>
#define FAISS_GMM_HAS_EDEN 1
#define FAISS_GMM_EDEN_CODEC , faiss::IndexIVFEDEN
#else
#define FAISS_GMM_HAS_EDEN 0
#define FAISS_GMM_EDEN_CODEC
#endif
// What a list of codecs ends with.
#define FAISS_GMM_LATER_CODECS                                                                     \
    FAISS_GMM_RABITQ_CODEC FAISS_GMM_RABITQ_BLOCKS_CODEC FAISS_GMM_EDEN_CODEC

#include "faiss_gmm/compat/faiss_version.h"

namespace faiss_gmm::compat {

constexpr bool has_panorama = FAISS_GMM_HAS_PANORAMA != 0;
constexpr bool has_rabitq = FAISS_GMM_HAS_RABITQ != 0;
constexpr bool has_rabitq_blocks = FAISS_GMM_HAS_RABITQ_BLOCKS != 0;
constexpr bool holds_rabitq_blocks = FAISS_GMM_HOLDS_RABITQ_BLOCKS != 0;
constexpr bool has_eden = FAISS_GMM_HAS_EDEN != 0;

template <class Codec> constexpr auto knows_bf16(int) -> decltype(Codec::QT_bf16, true) {
    return true;
}
template <class Codec> constexpr bool knows_bf16(long) {
    return false;
}
template <class Codec> constexpr auto knows_turbo_quant(int) -> decltype(Codec::QT_2bit_tq, true) {
    return true;
}
template <class Codec> constexpr bool knows_turbo_quant(long) {
    return false;
}
template <class Codec> constexpr auto knows_bits(int) -> decltype(Codec().rabitq.nb_bits, true) {
    return true;
}
template <class Codec> constexpr bool knows_bits(long) {
    return false;
}
/// Scalar quantizers of bfloat16, and of bytes as they come (which the factory does not know before).
constexpr bool has_bf16 = knows_bf16<faiss::ScalarQuantizer>(0);
/// TurboQuant's scalar quantizers, and that of no bits.
constexpr bool has_turbo_quant = knows_turbo_quant<faiss::ScalarQuantizer>(0);
/// RaBitQ with more bits a dimension than the sign.
#if FAISS_GMM_HAS_RABITQ
constexpr bool has_rabitq_bits = knows_bits<faiss::IndexIVFRaBitQ>(0);
#else
constexpr bool has_rabitq_bits = false;
#endif

/// A copy of search parameters of one of FAISS's own classes for lists, or of the further ones; null for others.
template <class... Classes>
std::unique_ptr<faiss::SearchParametersIVF>
copied_as_one_of(const faiss::SearchParameters& parameters) {
    std::unique_ptr<faiss::SearchParametersIVF> copy;
    const auto is_this = [&](const auto* null) {
        using Class = std::remove_const_t<std::remove_pointer_t<decltype(null)>>;
        if (typeid(parameters) != typeid(Class)) {
            return false;
        }
        copy = std::make_unique<Class>(dynamic_cast<const Class&>(parameters));
        return true;
    };
    static_cast<void>((is_this(static_cast<const Classes*>(nullptr)) || ...));
    return copy;
}
template <class... Further>
std::unique_ptr<faiss::SearchParametersIVF> copied(const faiss::SearchParameters& parameters) {
    return copied_as_one_of<
            faiss::SearchParametersIVF,
            faiss::IVFPQSearchParameters,
#if FAISS_GMM_HAS_RABITQ
            faiss::IVFRaBitQSearchParameters,
#endif
            Further...>(parameters);
}

/// Whether this is an IndexIVFFlatPanorama, which there is since 1.13.
inline bool is_panorama([[maybe_unused]] const faiss::IndexIVF& index) {
#if FAISS_GMM_HAS_PANORAMA
    return dynamic_cast<const faiss::IndexIVFFlatPanorama*>(&index) != nullptr;
#else
    return false;
#endif
}

/// Whether this is RaBitQ's FastScan form, and so by_residual no choice.
inline bool is_rabitq_in_blocks([[maybe_unused]] const faiss::IndexIVF& index) {
#if FAISS_GMM_HAS_RABITQ_BLOCKS
    return dynamic_cast<const faiss::IndexIVFRaBitQFastScan*>(&index) != nullptr;
#else
    return false;
#endif
}

/// Bytes of an entry's factors, which stand behind the codes of its block.
template <class Codec> size_t bytes_of_factors([[maybe_unused]] const Codec& index) {
#if FAISS_GMM_HOLDS_RABITQ_BLOCKS
    if constexpr (std::is_base_of_v<faiss::IndexIVFRaBitQFastScan, Codec>) {
        return index.compute_per_vector_storage_size();
    }
#endif
    return 0;
}

/// A copy of such an index points to the quantizer within it.
template <class Codec> void point_to_own_rabitq([[maybe_unused]] Codec& copy) noexcept {
#if FAISS_GMM_HOLDS_RABITQ_BLOCKS
    if constexpr (std::is_base_of_v<faiss::IndexIVFRaBitQFastScan, Codec>) {
        copy.fine_quantizer = &copy.rabitq;
    }
#endif
}

/// Adds to x, the mean of an entry's list, what a RaBitQ code of several bits a dimension says of the entry: all
/// that its distances read, where FAISS's own decoding takes the signs alone. The code is the signs, their
/// factors, the further bits, and the scale by which a query's product with them is taken: a distance takes it twice, and
/// off; an inner product once.
#if FAISS_GMM_HOLDS_RABITQ_BLOCKS
inline void
add_rabitq_residual(const faiss::RaBitQuantizer& rabitq, const uint8_t* code, float* x) {
    using namespace faiss::rabitq_utils;
    const size_t d = rabitq.d, bits = rabitq.nb_bits - 1;
    const uint8_t* further = code + (d + 7) / 8 + sizeof(SignBitFactorsWithError);
    ExtraBitsFactors factors;
    std::memcpy(&factors, further + (d * bits + 7) / 8, sizeof factors);
    const float scale = factors.f_rescale_ex < 0 ? -factors.f_rescale_ex / 2 : factors.f_rescale_ex;
    const auto middle = static_cast<float>(1 << bits) - 0.5f;
    for (size_t t = 0; t < d; t++) {
        const int sign = code[t / 8] >> (t % 8) & 1;
        const int value = (sign << bits) + extract_code_inline(further, t, bits);
        x[t] += scale * (static_cast<float>(value) - middle);
    }
}
#endif

/// An entry decoded by the codec's own reconstruct_from_offset; where there is none (additive quantizers have it since
/// 1.9) or where it leaves out most of a code (RaBitQ of several bits), by ours.
template <class Codec>
void reconstruct_from_offset(const Codec& index, int64_t list, int64_t offset, float* x) {
#if !FAISS_GMM_FAISS_AT_LEAST(1, 9)
    if constexpr (std::is_base_of_v<faiss::IndexIVFAdditiveQuantizer, Codec>) {
        faiss::InvertedLists::ScopedCodes code(index.invlists, list, offset);
        index.aq->decode(code.get(), x, 1);
        if (index.by_residual) {
            std::vector<float> mean(index.d);
            index.quantizer->reconstruct(list, mean.data());
            for (int t = 0; t < index.d; t++) {
                x[t] += mean[t];
            }
        }
        return;
    }
#endif
#if FAISS_GMM_HOLDS_RABITQ_BLOCKS
    if constexpr (std::is_base_of_v<faiss::IndexIVFRaBitQ, Codec>) {
        if (index.rabitq.nb_bits > 1) {
            faiss::InvertedLists::ScopedCodes code(index.invlists, list, offset);
            index.quantizer->reconstruct(list, x);
            add_rabitq_residual(index.rabitq, code.get(), x);
            return;
        }
    }
#endif
    index.Codec::reconstruct_from_offset(list, offset, x);
}

} // namespace faiss_gmm::compat
