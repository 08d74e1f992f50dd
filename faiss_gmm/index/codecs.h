// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Which stock codecs lists of a mixture hold, and how:
//   in runs: Flat, ScalarQuantizer, PQ, the additive quantizers, and RaBitQ and EDEN where FAISS has them. Selectors
//     work for all of them, also where FAISS's scanner takes none (additive quantizers), and all of them reconstruct;
//   in plain lists: FastScan, whose blocks runs would cut and which the stock class fills and searches, so that
//     nprobe, selectors and the like are what they are there; SpectralHash, which does not decode; scalar quantizers of
//     no bits, whose entries differ in nothing. Lists are those of the mixture; nothing spills, nothing is sketched;
//   not at all: IVFPQR, FlatDedup, FlatPanorama; RaBitQ's FastScan form of 1.13.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <faiss/IndexIVFAdditiveQuantizer.h>
#include <faiss/IndexIVFAdditiveQuantizerFastScan.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexIVFSpectralHash.h>

#include "faiss_gmm/compat/codecs.h"
#include "faiss_gmm/index/index_ivf_gmm.h"

namespace faiss_gmm {

/// Why a mixture's lists do not hold a codec, and what does instead.
struct CodecRefusal {
    std::string why, instead;
};
/// Of this stock index's codec; none where they hold it.
std::optional<CodecRefusal> refusal_of_codec(const faiss::IndexIVF& index);

/// Whether codes stand in blocks, which stock code alone reads and writes.
bool has_code_blocks(const faiss::IndexIVF& index);
/// Whether the codec's lists stay plain.
bool keeps_plain_lists(const faiss::IndexIVF& index);

/// The codec's choice to code what a vector's list mean leaves of it; null where it has none.
bool* by_residual_of(faiss::IndexIVF& index);

/// The stock classes that an index of this library can be, each as IndexIVFGMMOf: the one list of them.
template <class... Codecs> struct CodecList {};
using StockCodecs = CodecList<
        faiss::IndexIVFFlat,
        faiss::IndexIVFScalarQuantizer,
        faiss::IndexIVFPQ,
        faiss::IndexIVFResidualQuantizer,
        faiss::IndexIVFLocalSearchQuantizer,
        faiss::IndexIVFProductResidualQuantizer,
        faiss::IndexIVFProductLocalSearchQuantizer,
        faiss::IndexIVFPQFastScan,
        faiss::IndexIVFResidualQuantizerFastScan,
        faiss::IndexIVFLocalSearchQuantizerFastScan,
        faiss::IndexIVFProductResidualQuantizerFastScan,
        faiss::IndexIVFProductLocalSearchQuantizerFastScan,
        faiss::IndexIVFSpectralHash FAISS_GMM_LATER_CODECS>;

/// Ours in place of an untrained stock index of one of these very classes, whose quantizer and codec it takes: it is
/// only good to be destroyed then. Null for another class.
std::unique_ptr<faiss::IndexIVF> in_place_of(faiss::IndexIVF& stock);
/// Ours over the parts of a stock index of one of these very classes, whose lists are of this library. Null for
/// another class; throws faiss::FaissException where parts do not fit together, `stock` is then as it was.
std::unique_ptr<faiss::IndexIVF> taken_over(faiss::IndexIVF& stock);

using IndexIVFGMMPQ = IndexIVFGMMOf<faiss::IndexIVFPQ>;
using IndexIVFGMMResidualQuantizer = IndexIVFGMMOf<faiss::IndexIVFResidualQuantizer>;
using IndexIVFGMMLocalSearchQuantizer = IndexIVFGMMOf<faiss::IndexIVFLocalSearchQuantizer>;
using IndexIVFGMMProductResidualQuantizer = IndexIVFGMMOf<faiss::IndexIVFProductResidualQuantizer>;
using IndexIVFGMMProductLocalSearchQuantizer =
        IndexIVFGMMOf<faiss::IndexIVFProductLocalSearchQuantizer>;

using IndexIVFGMMPQFastScan = IndexIVFGMMOf<faiss::IndexIVFPQFastScan>;
using IndexIVFGMMResidualQuantizerFastScan =
        IndexIVFGMMOf<faiss::IndexIVFResidualQuantizerFastScan>;
using IndexIVFGMMLocalSearchQuantizerFastScan =
        IndexIVFGMMOf<faiss::IndexIVFLocalSearchQuantizerFastScan>;
using IndexIVFGMMProductResidualQuantizerFastScan =
        IndexIVFGMMOf<faiss::IndexIVFProductResidualQuantizerFastScan>;
using IndexIVFGMMProductLocalSearchQuantizerFastScan =
        IndexIVFGMMOf<faiss::IndexIVFProductLocalSearchQuantizerFastScan>;
using IndexIVFGMMSpectralHash = IndexIVFGMMOf<faiss::IndexIVFSpectralHash>;

#if FAISS_GMM_HAS_RABITQ
using IndexIVFGMMRaBitQ = IndexIVFGMMOf<faiss::IndexIVFRaBitQ>;
#endif
#if FAISS_GMM_HOLDS_RABITQ_BLOCKS
using IndexIVFGMMRaBitQFastScan = IndexIVFGMMOf<faiss::IndexIVFRaBitQFastScan>;
#endif
#if FAISS_GMM_HAS_EDEN
using IndexIVFGMMEDEN = IndexIVFGMMOf<faiss::IndexIVFEDEN>;
#endif

} // namespace faiss_gmm
