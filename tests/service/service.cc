// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "service.h"

#include <mutex>

#include <faiss/IndexIVF.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

// All that tells the two builds apart.
#ifdef SERVICE_OVER_FAISS_GMM
#include <faiss_gmm/factory/index_factory.h>
#include <faiss_gmm/io/index_io.h>
namespace engine = faiss_gmm;
#else
namespace engine = faiss;
#endif

namespace SERVICE {

SearchService::SearchService(int d, const std::string& description)
        : index_(engine::index_factory(d, description.c_str(), faiss::METRIC_L2)) {}

void SearchService::train(const std::vector<float>& x) {
    const std::unique_lock<std::shared_mutex> guard(lock_);
    index_->train(static_cast<int64_t>(x.size() / index_->d), x.data());
}

void SearchService::add(const std::vector<int64_t>& ids, const std::vector<float>& x) {
    const std::unique_lock<std::shared_mutex> guard(lock_);
    index_->add_with_ids(static_cast<int64_t>(ids.size()), x.data(), ids.data());
}

size_t SearchService::remove(const std::vector<int64_t>& ids) {
    const std::unique_lock<std::shared_mutex> guard(lock_);
    return index_->remove_ids(faiss::IDSelectorBatch(ids.size(), ids.data()));
}

std::vector<std::vector<SearchService::Hit>>
SearchService::search(const std::vector<float>& queries, size_t k, size_t nprobe) const {
    const std::shared_lock<std::shared_mutex> guard(lock_);
    const size_t n = queries.size() / index_->d;
    std::vector<float> distances(n * k);
    std::vector<int64_t> ids(n * k);
    faiss::SearchParametersIVF params;
    params.nprobe = nprobe;
    index_->search(
            static_cast<int64_t>(n),
            queries.data(),
            static_cast<int64_t>(k),
            distances.data(),
            ids.data(),
            &params);
    std::vector<std::vector<Hit>> hits(n);
    for (size_t i = 0; i < n * k; i++) {
        if (ids[i] >= 0) {
            hits[i / k].push_back({ids[i], distances[i]});
        }
    }
    return hits;
}

void SearchService::save(const std::string& path) const {
    const std::shared_lock<std::shared_mutex> guard(lock_);
    faiss::write_index(index_.get(), path.c_str());
}

void SearchService::load(const std::string& path) {
    std::unique_ptr<faiss::Index> read(engine::read_index(path.c_str()));
    const std::unique_lock<std::shared_mutex> guard(lock_);
    index_ = std::move(read);
}

size_t SearchService::size() const {
    const std::shared_lock<std::shared_mutex> guard(lock_);
    return static_cast<size_t>(index_->ntotal);
}

} // namespace SERVICE
