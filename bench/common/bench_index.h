// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <faiss/Index.h>
#include <faiss/IndexIVF.h>
#include <nlohmann/json.hpp>

#include "datasets/dataset.h"
#include "faiss_gmm/index/search_parameters.h"

namespace faiss {
struct IndexRefine;
}

namespace faiss_gmm {
class IndexIVFGMM;
}

namespace faiss_gmm::bench {

/// What building cost.
struct BuildFigures {
    double train_s = 0, add_s = 0;    ///< wall clock
    double split_s = 0, sketch_s = 0; ///< within the first two; 0 for a stock index
    double bytes_per_vector = 0;      ///< codes, ids, directory, quantizer, refinement; measured
};

/// What a query touched, on average. Words as in the README.
struct QueryCounts {
    double lists = 0; ///< probed
    double ndis = 0, nvisited = 0, nscored = 0, bytes_read = 0;
};

/// How one search is done.
struct SearchSetting {
    size_t nprobe = 1;
    size_t lists = 0;   ///< lists probed; 0: the index's own rule; stock probes nprobe
    float k_factor = 0; ///< exact distances / k; 0: the index's own
};

/// One index under test, ours or stock, alone or behind IDMap, transforms and refinement.
class BenchIndex {
public:
    /// Makes the index by faiss_gmm::index_factory. Throws Error when there is no IVF in it.
    BenchIndex(const std::string& description, size_t d, faiss::MetricType metric);
    ~BenchIndex();
    BenchIndex(BenchIndex&&) noexcept;

    void train(const Dataset& set);
    void add(const Dataset& set);

    /// Settings of the searches that follow; nprobe is cut to nlist.
    void configure(const SearchSetting& setting);
    /// query [n, d] -> distances [n, k], ids [n, k].
    void search(size_t n, const float* query, size_t k, float* distances, int64_t* ids) const;

    /// Forgets what FAISS's and our statistics have counted.
    static void reset_counts();
    /// What nq queries since then touched, a query.
    QueryCounts counts(size_t nq) const;

    const std::string& description() const {
        return description_;
    }
    const BuildFigures& build() const {
        return build_;
    }
    size_t nlist() const;
    bool is_gmm() const {
        return gmm_ != nullptr;
    }
    /// Whether SearchSetting::lists means something to it.
    bool takes_lists() const {
        return is_gmm();
    }
    /// Whether SearchSetting::k_factor means something to it: ours, or an index with refinement.
    bool takes_k_factor() const {
        return is_gmm() || refine_ != nullptr;
    }
    /// How it trains, spills and searches; empty for a stock index, whose string says it all.
    nlohmann::ordered_json parameters() const;

private:
    std::string description_;
    std::unique_ptr<faiss::Index> index_;
    faiss::IndexIVF* ivf_ = nullptr;
    IndexIVFGMM* gmm_ = nullptr;           ///< null for a stock index
    faiss::IndexRefine* refine_ = nullptr; ///< null without refinement
    IVFGMMSearchParameters search_parameters_;
    bool by_parameters_ = false; ///< else by fields: FAISS's wrappers do not pass parameters on
    float own_expansion_ = 0, own_k_factor_ = 0;
    BuildFigures build_;
};

} // namespace faiss_gmm::bench
