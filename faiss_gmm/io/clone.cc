// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/io/clone.h"

#include <memory>
#include <typeinfo>

#include <faiss/IndexHNSW.h>
#include <faiss/IndexRefine.h>
#include <faiss/VectorTransform.h>

#include "faiss_gmm/index/index_ivf_gmm.h"

namespace faiss_gmm {
namespace {

template <class Refine>
faiss::Index* cloned_refine(const faiss::IndexRefine& refine, Cloner& cloner) {
    auto clone = std::make_unique<Refine>();
    clone->d = refine.d;
    clone->ntotal = refine.ntotal;
    clone->verbose = refine.verbose;
    clone->is_trained = refine.is_trained;
    clone->metric_type = refine.metric_type;
    clone->metric_arg = refine.metric_arg;
    clone->k_factor = refine.k_factor;
    clone->own_fields = clone->own_refine_index = true;
    clone->base_index = clone->refine_index = nullptr;
    clone->base_index = cloner.clone_Index(refine.base_index);
    clone->refine_index = cloner.clone_Index(refine.refine_index);
    return clone.release();
}

/// Stock code up to 1.7.3 at least makes a plain IndexHNSW of it, which it cannot write then.
faiss::Index* cloned_graph(const faiss::IndexHNSWFlat& graph, Cloner& cloner) {
    std::unique_ptr<faiss::Index> storage(cloner.clone_Index(graph.storage));
    auto clone = std::make_unique<faiss::IndexHNSWFlat>(graph);
    clone->storage = storage.release();
    clone->own_fields = true;
    return clone.release();
}

} // namespace

faiss::Index* Cloner::clone_Index(const faiss::Index* index) {
    if (const auto* ours = dynamic_cast<const IndexIVFGMM*>(index)) {
        return ours->copy(*this).release();
    }
    if (const auto* refine = dynamic_cast<const faiss::IndexRefine*>(index)) {
        if (typeid(*refine) == typeid(faiss::IndexRefine)) {
            return cloned_refine<faiss::IndexRefine>(*refine, *this);
        }
        if (typeid(*refine) == typeid(faiss::IndexRefineFlat)) {
            return cloned_refine<faiss::IndexRefineFlat>(*refine, *this);
        }
    }
    if (index != nullptr && typeid(*index) == typeid(faiss::IndexHNSWFlat)) {
        return cloned_graph(dynamic_cast<const faiss::IndexHNSWFlat&>(*index), *this);
    }
    return faiss::Cloner::clone_Index(index);
}

faiss::VectorTransform* Cloner::clone_VectorTransform(const faiss::VectorTransform* transform) {
    if (const auto* itq = dynamic_cast<const faiss::ITQTransform*>(transform)) {
        return new faiss::ITQTransform(*itq);
    }
    if (const auto* unit = dynamic_cast<const faiss::NormalizationTransform*>(transform)) {
        return new faiss::NormalizationTransform(*unit);
    }
    if (const auto* centred = dynamic_cast<const faiss::CenteringTransform*>(transform)) {
        return new faiss::CenteringTransform(*centred);
    }
    return faiss::Cloner::clone_VectorTransform(transform);
}

faiss::Index* clone_index(const faiss::Index& index) {
    return Cloner().clone_Index(&index);
}

} // namespace faiss_gmm
