// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The truth by products: equal to brute force, whatever the metric, the storage and the place of the
// origin.
#include <gtest/gtest.h>

#include "faiss_gmm/index/exact_neighbours.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t queries = 25, k = 7;

/// Ids once each, with their own distances, the k best there are.
void expect_true(
        const Oracle& oracle,
        const std::vector<float>& asked,
        const ExactNeighbours& got,
        size_t d) {
    for (size_t i = 0; i < queries; i++) {
        const float* q = asked.data() + i * d;
        const std::vector<double> truth = oracle.sorted(q);
        std::set<int64_t> ids;
        std::vector<float> distances(
                got.distances.begin() + i * k, got.distances.begin() + (i + 1) * k);
        for (size_t j = 0; j < k; j++) {
            const int64_t id = got.ids[i * k + j];
            ASSERT_TRUE(ids.insert(id).second) << "query " << i << ": id " << id << " twice";
            ASSERT_EQ(distances[j], oracle.distance(q, id)) << "query " << i;
        }
        std::sort(distances.begin(), distances.end(), [&](float a, float b) {
            return oracle.better(a, b);
        });
        for (size_t j = 0; j < k; j++) {
            ASSERT_EQ(distances[j], truth[j]) << "query " << i << ", neighbour " << j;
        }
    }
}

TEST(ExactNeighbours, AreThoseOfBruteForceInBothMetricsFarFromTheOrigin) {
    const uint64_t seed = test_seed();
    const size_t d = 9, rows = 17000; // more than are decoded at a time
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        auto base = whole_rows(rows, d, seed), asked = whole_rows(queries, d, seed + 1);
        if (metric == faiss::METRIC_L2) {
            for (auto* x : {&base, &asked}) {
                for (float& v : *x) {
                    v += 20000; // squares of which have no room in fp32 for the differences
                }
            }
        }
        IndexIVFGMMFlat index(d, 16, metric);
        index.train(static_cast<int64_t>(rows), base.data());
        index.add(static_cast<int64_t>(rows), base.data());
        Oracle oracle(d, metric);
        oracle.add(rows, base.data());
        const std::vector<uint64_t> places = stored_places(*index.invlists);
        EXPECT_EQ(places.size(), rows);
        expect_true(oracle, asked, exact_neighbours(index, places, queries, asked.data(), k), d);
    }
}

TEST(ExactNeighbours, HaveEachIdOnceWhereListsHoldCopies) {
    const uint64_t seed = test_seed();
    IndexSetup setup;
    setup.storage = SpillStorage::copies;
    setup.max_lists = 3;
    const auto base = whole_rows(1000, setup.d, seed),
               asked = whole_rows(queries, setup.d, seed + 1);
    const auto index = setup.trained(base);
    index->add(1000, base.data());
    EXPECT_EQ(stored_places(*index->invlists).size(), 3000u);
    const std::vector<uint64_t> places = stored_places_once_an_id(*index->invlists);
    EXPECT_EQ(places.size(), 1000u);
    Oracle oracle(setup.d, setup.metric);
    oracle.add(1000, base.data());
    expect_true(oracle, asked, exact_neighbours(*index, places, queries, asked.data(), k), setup.d);
}

} // namespace
} // namespace faiss_gmm
