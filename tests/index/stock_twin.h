// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <algorithm>
#include <memory>
#include <typeinfo>
#include <vector>

#include <gtest/gtest.h>

#include "faiss_gmm/index/codecs.h"
#include "tests/index/index_fixture.h"

namespace faiss_gmm {

template <class Codec>
bool make_stock_twin(const faiss::IndexIVF& ours, std::unique_ptr<faiss::IndexIVF>& made) {
    if (typeid(ours) != typeid(IndexIVFGMMOf<Codec>)) {
        return false;
    }
    auto twin = std::make_unique<Codec>(dynamic_cast<const Codec&>(ours));
    forget_parts(*twin);
    made = std::move(twin);
    made->own_fields = made->own_invlists = false;
    return true;
}
template <class... Codecs>
std::unique_ptr<faiss::IndexIVF> first_twin(const faiss::IndexIVF& ours, CodecList<Codecs...>) {
    std::unique_ptr<faiss::IndexIVF> made;
    const bool known = (make_stock_twin<Codecs>(ours, made) || ...);
    EXPECT_TRUE(known) << "a codec that codecs.h does not list";
    return made;
}

/// A stock index over the very lists, codec and quantizer of ours, which must outlive it.
inline std::unique_ptr<faiss::IndexIVF> stock_twin(const faiss::IndexIVF& ours) {
    return first_twin(ours, StockCodecs());
}

/// How the lists hold vectors, in the words of contrib/support_table.py.
inline const char* kind_of_lists(const IndexIVFGMM& index) {
    const RunInvertedLists* lists = index.run_lists();
    if (lists == nullptr || !lists->has_runs()) {
        return index.stores_copies() ? "copies, no runs" : "plain lists";
    }
    return lists->directory().sketched ? "runs and sketches" : "runs";
}

/// Makes an additive quantizer train and code in fewer rounds than a user would ask for.
inline void hurry_quantizer(faiss::AdditiveQuantizer& quantizer) {
    if (auto* lsq = dynamic_cast<faiss::LocalSearchQuantizer*>(&quantizer)) {
        lsq->train_iters = 4;
        lsq->encode_ils_iters = 4;
    }
    if (auto* rq = dynamic_cast<faiss::ResidualQuantizer*>(&quantizer)) {
        rq->max_beam_size = 2;
    }
    if (auto* product = dynamic_cast<faiss::ProductAdditiveQuantizer*>(&quantizer)) {
        for (faiss::AdditiveQuantizer* part : product->quantizers) {
            hurry_quantizer(*part);
        }
    }
}
/// The same for the codec of an index.
inline void hurry_codec(faiss::IndexIVF& index) {
    static faiss::PolysemousTraining short_training = [] {
        faiss::PolysemousTraining training;
        training.n_iter = 5000;
        return training;
    }();
    if (auto* pq = dynamic_cast<faiss::IndexIVFPQ*>(&index)) {
        pq->polysemous_training = &short_training;
    } else if (auto* blocks = dynamic_cast<faiss::IndexIVFAdditiveQuantizerFastScan*>(&index)) {
        hurry_quantizer(*blocks->aq);
    } else if (auto* lists = dynamic_cast<faiss::IndexIVFAdditiveQuantizer*>(&index)) {
        hurry_quantizer(*lists->aq);
    }
}

/// The first k results of each query that the selector lets pass.
inline Results selected(const Results& all, const faiss::IDSelector& selector, size_t k) {
    Results some(all.n, k);
    for (size_t i = 0; i < all.n; i++) {
        size_t kept = 0;
        for (size_t j = 0; j < all.k && kept < k; j++) {
            const int64_t id = all.labels[i * all.k + j];
            if (id >= 0 && selector.is_member(id)) {
                some.distances[i * k + kept] = all.distances[i * all.k + j];
                some.labels[i * k + kept++] = id;
            }
        }
        EXPECT_EQ(kept, k) << "query " << i << " has too few results that are selected";
    }
    return some;
}

/// Share of the wanted results that were got; of results with distances like the last wanted any will do.
inline double share_found(const Results& wanted, const Results& got, faiss::MetricType metric) {
    size_t found = 0;
    for (size_t i = 0; i < wanted.n; i++) {
        const float last = wanted.distances[(i + 1) * wanted.k - 1];
        const float slack = 1e-4f * (1 + std::abs(last));
        for (size_t j = 0; j < wanted.k; j++) {
            const float distance = got.distances[i * got.k + j];
            found += got.labels[i * got.k + j] >= 0 &&
                     (metric == faiss::METRIC_L2 ? distance <= last + slack
                                                 : distance >= last - slack);
        }
    }
    return static_cast<double>(found) / static_cast<double>(wanted.n * wanted.k);
}

} // namespace faiss_gmm
