// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/bench_index.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include <faiss/IVFlib.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/invlists/BlockInvertedLists.h>
#include <faiss/invlists/InvertedLists.h>
#include <fmt/format.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/index/written_bytes.h"
#include "faiss_gmm/mixture/clock.h"
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm::bench {

namespace {

using Json = nlohmann::ordered_json;

double seconds_of(const std::function<void()>& work) {
    const Clock::time_point start = Clock::now();
    work();
    return seconds_since(start);
}

faiss::IndexRefine* find_refine(faiss::Index* index) {
    if (auto* map = dynamic_cast<faiss::IndexIDMap*>(index)) {
        return find_refine(map->index);
    }
    if (auto* transform = dynamic_cast<faiss::IndexPreTransform*>(index)) {
        return find_refine(transform->index);
    }
    return dynamic_cast<faiss::IndexRefine*>(index);
}

/// As faiss::ivflib::try_extract_index_ivf, through refinement and any nesting, which FAISS before
/// 1.8 does not look through.
faiss::IndexIVF* find_ivf(faiss::Index* index) {
    if (auto* map = dynamic_cast<faiss::IndexIDMap*>(index)) {
        return find_ivf(map->index);
    }
    if (auto* transform = dynamic_cast<faiss::IndexPreTransform*>(index)) {
        return find_ivf(transform->index);
    }
    if (auto* refine = dynamic_cast<faiss::IndexRefine*>(index)) {
        return find_ivf(refine->base_index);
    }
    return faiss::ivflib::try_extract_index_ivf(index);
}

/// Bytes of codes and ids.
size_t list_bytes(const faiss::InvertedLists& lists) {
    const auto* blocks = dynamic_cast<const faiss::BlockInvertedLists*>(&lists);
    size_t bytes = 0;
    for (size_t i = 0; i < lists.nlist; ++i) {
        const size_t n = lists.list_size(i);
        // Blocks are filled up to whole ones: their size is that of the array.
        bytes += n * sizeof(int64_t);
        bytes += blocks != nullptr ? blocks->codes[i].size() : n * lists.code_size;
    }
    return bytes;
}

/// Bytes held by an index and everything in it. Linear transforms are left out: a matrix, no
/// vectors.
size_t memory_bytes(const faiss::Index& index) {
    if (const auto* map = dynamic_cast<const faiss::IndexIDMap*>(&index)) {
        return memory_bytes(*map->index) + map->id_map.size() * sizeof(int64_t);
    }
    if (const auto* transform = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
        return memory_bytes(*transform->index);
    }
    if (const auto* refine = dynamic_cast<const faiss::IndexRefine*>(&index)) {
        return memory_bytes(*refine->base_index) + written_bytes(*refine->refine_index);
    }
    if (const auto* gmm = dynamic_cast<const IndexIVFGMM*>(&index)) {
        return gmm->memory_use().total();
    }
    if (const auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) {
        return list_bytes(*ivf->invlists) + written_bytes(*ivf->quantizer);
    }
    return written_bytes(index);
}

const char* name_of(Covariance covariance) {
    static const char* const names[] = {"tied_spherical", "spherical", "diagonal", "tied", "full"};
    return names[static_cast<int>(covariance)];
}

const char* name_of(Mixing mixing) {
    static const char* const names[] = {"uniform", "free", "balanced"};
    return names[static_cast<int>(mixing)];
}

const char* name_of(EStep estep) {
    static const char* const names[] = {"automatic", "exact", "nearest_cells"};
    return names[static_cast<int>(estep)];
}

Json sketch_codes(const SketchParameters& sketch) {
    switch (sketch.mode) {
    case SketchParameters::Mode::none:
        return "none";
    case SketchParameters::Mode::automatic:
        return "auto";
    case SketchParameters::Mode::fixed:
        break;
    }
    return sketch.codes;
}

} // namespace

BenchIndex::BenchIndex(const std::string& description, size_t d, faiss::MetricType metric)
        : description_(description),
          index_(index_factory(static_cast<int>(d), description.c_str(), metric)),
          ivf_(find_ivf(index_.get())), refine_(find_refine(index_.get())) {
    if (ivf_ == nullptr) {
        throw Error(
                {"making an index to compare",
                 fmt::format("'{}'", description),
                 "a factory string with an IVF or IVFGMM in it, whose nprobe can be varied",
                 "name such an index, e.g. 'IVF1024,Flat'"});
    }
    gmm_ = dynamic_cast<IndexIVFGMM*>(ivf_);
    if (gmm_ != nullptr) {
        own_expansion_ = gmm_->probe_expansion;
        own_k_factor_ = gmm_->k_factor;
        by_parameters_ = static_cast<faiss::Index*>(ivf_) == index_.get();
    } else if (refine_ != nullptr) {
        own_k_factor_ = refine_->k_factor;
    }
}

BenchIndex::~BenchIndex() = default;
BenchIndex::BenchIndex(BenchIndex&&) noexcept = default;

void BenchIndex::train(const Dataset& set) {
    build_.train_s =
            seconds_of([&] { index_->train(static_cast<int64_t>(set.n), set.base.data()); });
}

void BenchIndex::add(const Dataset& set) {
    const auto n = static_cast<int64_t>(set.n);
    if (dynamic_cast<faiss::IndexIDMap*>(index_.get()) != nullptr) {
        std::vector<int64_t> ids(set.n); // an IDMap takes no vector without its id
        std::iota(ids.begin(), ids.end(), 0);
        build_.add_s = seconds_of([&] { index_->add_with_ids(n, set.base.data(), ids.data()); });
    } else {
        build_.add_s = seconds_of([&] { index_->add(n, set.base.data()); });
    }
    if (gmm_ != nullptr) {
        const BuildTimes times = gmm_->build_times();
        build_.split_s = times.split;
        build_.sketch_s = times.sketch;
    }
    build_.bytes_per_vector = double(memory_bytes(*index_)) / double(set.n);
}

size_t BenchIndex::nlist() const {
    return ivf_->nlist;
}

void BenchIndex::configure(const SearchSetting& setting) {
    const size_t nprobe = std::min(setting.nprobe, nlist());
    ivf_->nprobe = nprobe;
    const float k_factor = setting.k_factor > 0 ? setting.k_factor : own_k_factor_;
    if (gmm_ == nullptr) {
        if (refine_ != nullptr) {
            refine_->k_factor = k_factor;
        }
        return;
    }
    const float expansion =
            setting.lists > 0 ? float(setting.lists) / float(nprobe) : own_expansion_;
    gmm_->probe_expansion = expansion;
    gmm_->k_factor = k_factor;
    search_parameters_.nprobe = nprobe;
    search_parameters_.probe_expansion = expansion;
    search_parameters_.k_factor = k_factor;
}

void BenchIndex::search(
        size_t n, const float* query, size_t k, float* distances, int64_t* ids) const {
    index_->search(
            static_cast<int64_t>(n),
            query,
            static_cast<int64_t>(k),
            distances,
            ids,
            by_parameters_ ? &search_parameters_ : nullptr);
}

void BenchIndex::reset_counts() {
    faiss::indexIVF_stats.reset();
    faiss::hnsw_stats.reset();
    indexIVFGMM_stats.reset();
}

QueryCounts BenchIndex::counts(size_t nq) const {
    const double queries = double(nq);
    const double code_size = double(ivf_->code_size);
    const double mean_bytes = 4. * ivf_->d;
    const bool graph = dynamic_cast<const faiss::IndexHNSW*>(ivf_->quantizer) != nullptr;
    const double graph_means = graph ? double(compat::hnsw_distances()) / queries : 0;
    QueryCounts counts;
    if (gmm_ != nullptr) {
        const IVFGMMStats& stats = indexIVFGMM_stats;
        counts.lists = double(stats.nlist) / queries;
        counts.ndis = double(stats.ndis) / queries;
        counts.nvisited = double(stats.nvisited) / queries;
        counts.nscored = double(stats.nscored) / queries;
        counts.bytes_read = double(stats.bytes_read(ivf_->code_size, ivf_->d)) / queries +
                            mean_bytes * graph_means;
    } else {
        const faiss::IndexIVFStats& stats = faiss::indexIVF_stats;
        counts.lists = double(ivf_->nprobe); // FAISS does not count them alike in every codec
        counts.ndis = double(stats.ndis) / queries;
        counts.nvisited = counts.ndis;
        counts.bytes_read =
                counts.ndis * code_size + mean_bytes * (graph ? graph_means : double(nlist()));
    }
    return counts;
}

Json BenchIndex::parameters() const {
    Json json = Json::object();
    if (gmm_ == nullptr) {
        return json;
    }
    json["covariance"] = name_of(gmm_->training.covariance);
    json["mixing"] = name_of(gmm_->training.mixing);
    json["max_iter"] = gmm_->training.max_iter;
    json["n_init"] = gmm_->training.n_init;
    json["estep"] = name_of(gmm_->training.estep);
    json["seed"] = gmm_->training.seed;
    json["spill"] = to_string(gmm_->spill);
    json["sketch"] = sketch_codes(gmm_->sketch);
    json["exact_distances"] = gmm_->has_own_distances() ? "faiss_gmm" : "faiss";
    return json;
}

} // namespace faiss_gmm::bench
