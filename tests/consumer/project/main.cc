// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
// Trains, fills and asks an index of each factory string given; fails unless each vector finds
// itself.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include <faiss/Index.h>
#include <faiss/index_factory.h>

#include <faiss_gmm/mixture/error.h>
#ifdef CONSUMER_WITH_INDEX_FACTORY
#include <faiss_gmm/factory/index_factory.h>
namespace factory = faiss_gmm;
#else
namespace factory = faiss;
#endif

int main(int argc, char** argv) {
    const int d = 16;
    const int64_t n = 2000;
    std::vector<float> x(n * d);
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (float& value : x) {
        value = normal(random);
    }
    std::printf("%s\n", faiss_gmm::Error({"a", "b", "c", "d"}).what());
    for (int i = 1; i < argc; ++i) {
        const std::unique_ptr<faiss::Index> index(
                factory::index_factory(d, argv[i], faiss::METRIC_L2));
        index->train(n, x.data());
        index->add(n, x.data());
        std::vector<float> distances(n);
        std::vector<int64_t> labels(n);
        index->search(n, x.data(), 1, distances.data(), labels.data());
        int64_t found = 0;
        for (int64_t row = 0; row < n; ++row) {
            found += labels[row] == row;
        }
        std::printf("%s: %ld of %ld vectors find themselves\n", argv[i], long(found), long(n));
        if (found * 10 < n * 9) {
            return 1;
        }
    }
}
