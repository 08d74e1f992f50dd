// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Around the lines that the README shows of files.
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include <faiss_gmm/factory/index_factory.h>
#include <faiss_gmm/io/clone.h>
#include <faiss_gmm/io/export_faiss.h>
#include <faiss_gmm/io/index_io.h>

int main() {
    const int d = 32, n = 5000;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d);
    for (float& v : x) {
        v = normal(random);
    }
    std::unique_ptr<faiss::Index> index(faiss_gmm::index_factory(d, "IVFGMM16,Flat"));
    index->train(n, x.data());
    index->add(n, x.data());
#include "files.inc"
    for (const auto* each : {&again, &twin, &plain}) {
        float distance = -1;
        int64_t id = -1;
        (*each)->search(1, x.data(), 1, &distance, &id);
        std::printf("nearest is %ld\n", long(id));
    }
}
