// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What stands around the README's lines on tuning.
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include <faiss/Index.h>
#include <faiss_gmm/factory/index_factory.h>
#include <faiss_gmm/index/index_ivf_gmm.h>
#include <faiss_gmm/index/tune.h>

int main() {
    const int d = 16, n = 20000, nq = 500;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d), queries(nq * d);
    for (auto* rows : {&x, &queries}) {
        for (float& v : *rows) {
            v = normal(random);
        }
    }
    std::unique_ptr<faiss::Index> index(faiss_gmm::index_factory(d, "IVFGMM64,Flat"));
    index->train(n, x.data());
    index->add(n, x.data());
#include "tuning.inc"
}
