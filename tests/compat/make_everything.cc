// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Makes one of each class that derives from one of FAISS's and has its members, or says who refuses.
#include <cstdio>
#include <functional>
#include <iterator>
#include <memory>
#include <utility>

#include <faiss/IndexFlat.h>
#include <faiss/impl/FaissException.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/runs/run_lists_io.h"

int main() {
    using namespace faiss_gmm;
    faiss::IndexFlat flat(8);
    faiss::Index* const quantizer = &flat;
    const std::pair<const char*, std::function<void()>> ways[] = {
            {"index_factory",
             [] { std::unique_ptr<faiss::Index>(index_factory(8, "IVFGMM4,Flat")); }},
            {"GMMQuantizer", [] { GMMQuantizer(8); }},
            {"IndexIVFGMMFlat", [] { IndexIVFGMMFlat(8, 4); }},
            {"IndexIVFGMMFlat over a quantizer", [&] { IndexIVFGMMFlat(quantizer, 8, 4); }},
            {"IndexIVFGMMOf<IndexIVFPQ>", [] { IndexIVFGMMOf<faiss::IndexIVFPQ>(8, 4, 2, 4); }},
            {"MixtureBlockLists", [] { MixtureBlockLists(4, 32, 64); }},
            {"register_lists_io", [] { register_lists_io(); }}};
    size_t made = 0;
    for (const auto& [name, make] : ways) {
        try {
            make();
            made++;
        } catch (const faiss::FaissException& error) {
            std::printf("%s: %s\n", name, error.what());
        }
    }
    std::printf("\n%zu of %zu made\n", made, std::size(ways));
}
