// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// How many threads there are, OpenMP's or the caller's, shows in no result.
#include <thread>

#include <omp.h>

#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 3000, queries = 100, k = 10;

class Threads : public testing::TestWithParam<IndexSetup> {
protected:
    void TearDown() override {
        omp_set_num_threads(threads_before_);
    }
    const int threads_before_ = omp_get_max_threads();
    const uint64_t seed_ = test_seed();
    std::vector<float> base_ = float_rows(rows, GetParam().d, seed_);
    std::vector<float> queries_ = float_rows(queries, GetParam().d, seed_ + 1);
};

TEST_P(Threads, OfOpenMPShowInNoResult) {
    const auto one = GetParam().trained(base_);
    std::vector<float> means(GetParam().nlist * GetParam().d);
    one->quantizer->reconstruct_n(0, static_cast<int64_t>(GetParam().nlist), means.data());
    std::vector<Results> expected;
    for (const int threads : {1, 2, 7}) {
        omp_set_num_threads(threads);
        // Around the same means: what training does with threads is its own test.
        CountingIndex index(GetParam().d, GetParam().nlist, GetParam().metric);
        GetParam().apply(index);
        index.quantizer->add(static_cast<int64_t>(GetParam().nlist), means.data());
        index.train(rows, base_.data());
        add_in_batches(index, base_, 1000, seed_);
        size_t next = 0;
        for (const size_t nprobe : {size_t{1}, size_t{4}, GetParam().nlist}) {
            index.nprobe = nprobe;
            const Results got = search(index, queries_, k);
            if (threads == 1) {
                expected.push_back(got);
                continue;
            }
            EXPECT_EQ(got.labels, expected[next].labels) << threads << " threads, " << nprobe;
            EXPECT_EQ(got.distances, expected[next].distances);
            next++;
        }
    }
}

TEST_P(Threads, OfTheCallerGetWhatOneGets) {
    const auto index = GetParam().trained(base_);
    add_in_batches(*index, base_, 1000, seed_);
    index->nprobe = 3;
    const Results expected = search(*index, queries_, k);
    faiss::RangeSearchResult near(queries);
    const float radius = expected.distances[k - 1];
    index->range_search(queries, queries_.data(), radius, &near);
    indexIVFGMM_stats.reset();
    std::vector<std::thread> threads;
    std::vector<int> agreed(5, 0);
    for (size_t t = 0; t < agreed.size(); t++) {
        threads.emplace_back([&, t] {
            omp_set_num_threads(t % 2 == 0 ? 1 : 2);
            bool same = true;
            for (int repeat = 0; repeat < 4; repeat++) {
                const Results got = search(*index, queries_, k);
                same = same && got.labels == expected.labels && got.distances == expected.distances;
                faiss::RangeSearchResult again(queries);
                index->range_search(queries, queries_.data(), radius, &again);
                for (size_t i = 0; i <= queries; i++) {
                    same = same && again.lims[i] == near.lims[i];
                }
            }
            agreed[t] = same ? 1 : 0;
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(agreed, std::vector<int>(agreed.size(), 1));
    if (GetParam().storage == SpillStorage::shared) {
        EXPECT_EQ(indexIVFGMM_stats.nq, agreed.size() * 4 * 2 * queries) << "lost between threads";
    }
}

TEST_P(Threads, AQueryAloneFindsWhatItFindsAmongOthers) {
    const auto index = GetParam().trained(base_);
    index->add(rows, base_.data());
    const size_t d = GetParam().d;
    for (const size_t nprobe : {size_t{1}, size_t{3}, GetParam().nlist}) {
        index->nprobe = nprobe;
        const Results together = search(*index, queries_, k);
        size_t same = 0;
        for (size_t i = 0; i < queries; i++) {
            const Results alone =
                    search(*index, {queries_.begin() + i * d, queries_.begin() + (i + 1) * d}, k);
            for (size_t j = 0; j < k; j++) {
                same += alone.labels[j] == together.labels[i * k + j] &&
                        alone.distances[j] == together.distances[i * k + j];
            }
        }
        // The product with the means may round otherwise for one query, and turn a close choice.
        const size_t at_least = nprobe == GetParam().nlist ? queries * k : queries * k * 99 / 100;
        EXPECT_GE(same, at_least) << "nprobe " << nprobe;
    }
}

TEST_P(Threads, SearchInsideAParallelRegion) {
    const auto index = GetParam().trained(base_);
    index->add(rows, base_.data());
    index->nprobe = 2;
    const Results expected = search(*index, queries_, k);
    std::vector<int> agreed(4, 0);
#pragma omp parallel for num_threads(2)
    for (int t = 0; t < 4; t++) {
        const Results got = search(*index, queries_, k);
        agreed[t] = got.labels == expected.labels && got.distances == expected.distances;
    }
    EXPECT_EQ(agreed, std::vector<int>(4, 1));
}

INSTANTIATE_TEST_SUITE_P(All, Threads, testing::ValuesIn(all_setups()), setup_name);

} // namespace
} // namespace faiss_gmm
