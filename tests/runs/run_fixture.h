// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Lists in runs without an index around them: codes are the vectors, homes the nearest of a few
// means.
#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <faiss/invlists/InvertedLists.h>

#include "faiss_gmm/runs/choose.h"
#include "faiss_gmm/runs/run_inverted_lists.h"
#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {

inline std::vector<float> mixed_rows(size_t n, size_t d, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d);
    for (size_t i = 0; i < n; i++) {
        std::mt19937_64 centre(random() % 12); // twelve groups
        for (size_t t = 0; t < d; t++) {
            x[i * d + t] = static_cast<float>(centre() % 7) - 3 + 0.6f * normal(random);
        }
    }
    return x;
}

struct ListsOfRuns {
    ListsOfRuns(
            size_t dimensions, size_t nlist, size_t max_lists, bool inner_product, uint64_t seed)
            : d(dimensions) {
        auto state = std::make_shared<CoarseState>();
        const std::vector<float> sample = mixed_rows(2000, d, seed);
        GaussianMixture& mixture = state->mixture;
        mixture.d = d;
        mixture.K = nlist;
        mixture.means.assign(sample.begin(), sample.begin() + nlist * d);
        mixture.log_weights.assign(nlist, -std::log(static_cast<double>(nlist)));
        mixture.covariances.assign(1, 0.5);
        state->spill.rule = max_lists == 1 ? SpillRule::never : SpillRule::always;
        state->spill.max_lists = max_lists;
        const std::vector<float> data_mean(d, 0.25f);
        state->codec.set_means(d, nlist, mixture.means.data(), data_mean.data(), inner_product);
        means = mixture.means;
        std::vector<int32_t> homes(2000);
        for (size_t i = 0; i < homes.size(); i++) {
            homes[i] = home_of(sample.data() + i * d);
        }
        state->codec.train(2000, sample.data(), homes.data(), 0, 5, nullptr);
        state->sketched = true;
        lists = std::make_unique<RunInvertedLists>(
                std::make_unique<faiss::ArrayInvertedLists>(nlist, d * sizeof(float)));
        lists->set_state(state);
    }

    int32_t home_of(const float* x) const {
        size_t nearest = 0;
        for (size_t l = 1; l < means.size() / d; l++) {
            if (squared_distance(d, x, means.data() + l * d) <
                squared_distance(d, x, means.data() + nearest * d)) {
                nearest = l;
            }
        }
        return static_cast<int32_t>(nearest);
    }
    void add(const std::vector<float>& x, int64_t first_id) {
        for (size_t i = 0; i < x.size() / d; i++) {
            lists->add_entry(
                    home_of(x.data() + i * d),
                    first_id + static_cast<int64_t>(i),
                    reinterpret_cast<const uint8_t*>(x.data() + i * d));
        }
        OrganiseTimes times;
        lists->organise(decoder(), times);
    }
    DecodeEntries decoder() const {
        return [this](size_t list, size_t first, size_t n, float* x) {
            const size_t bytes = d * sizeof(float);
            std::memcpy(x, lists->get_codes(list) + first * bytes, n * bytes);
        };
    }
    const RunCodec& codec() const {
        return lists->state().codec;
    }

    size_t d;
    std::vector<float> means;
    std::unique_ptr<RunInvertedLists> lists;
};

/// One query on its way: what the search prepares before it chooses runs.
struct PreparedQuery {
    PreparedQuery(const ListsOfRuns& of, const float* query) {
        const RunCodec& codec = of.codec();
        centred.resize(of.d);
        for (size_t t = 0; t < of.d; t++) {
            centred[t] = query[t] - codec.data_mean[t];
        }
        rotated.resize(codec.kept);
        codec.rotate_queries(1, centred.data(), rotated.data());
        const RunDirectory& directory = of.lists->directory();
        codec.build_tables(rotated.data(), directory.summary_range, directory.sketch_range, tables);
    }
    /// Distances (inner product: products) to the means of these lists.
    std::vector<float>
    distances_to(const ListsOfRuns& of, const std::vector<int64_t>& probed) const {
        const HomeDistances homes(of.codec(), nullptr, centred.data());
        std::vector<float> distances;
        for (const int64_t l : probed) {
            distances.push_back(l < 0 ? 1e9f : homes(l));
        }
        return distances;
    }

    std::vector<float> centred, rotated;
    QueryTables tables;
};

} // namespace faiss_gmm
