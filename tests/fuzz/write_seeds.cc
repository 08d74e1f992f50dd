// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// write_seeds FOLDER: the sections of small real indices, a file each: what lists_fuzzer begins from.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <omp.h>

#include <faiss/impl/io.h>
#include <faiss/index_io.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "tests/index/index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t trained_on = 600, rows = 90;

struct Seed {
    const char* name;
    const char* description;
    faiss::MetricType metric = faiss::METRIC_L2;
    size_t rows = faiss_gmm::rows;
    size_t trained_on = faiss_gmm::trained_on;
    float unit = 1; ///< factor of all numbers
    size_t d = 4;
};

const Seed seeds[] = {
        {"shared", "IVFGMM4(spill=always,max_lists=3,sketch=2),Flat"},
        {"shared_diagonal", "IVFGMM4(covariance=diagonal,mixing=free,spill=always,sketch=2),Flat"},
        {"shared_ip", "IVFGMM4(spill=always,sketch=2),Flat", faiss::METRIC_INNER_PRODUCT},
        {"fraction", "IVFGMM4(spill=fraction(.3),order=soar,sketch=none),Flat"},
        {"never", "IVFGMM4(spill=never),Flat"},
        {"never_unsketched", "IVFGMM2(spill=never,sketch=none),SQ8"},
        {"bytes", "IVFGMM4(spill=always,sketch=1),SQ8"},
        {"product", "IVFGMM3(spill=always),PQ2x4"},
        {"copies", "IVFGMM4(storage=copies,spill=always,max_lists=3),Flat"},
        {"copies_never", "IVFGMM4(storage=copies,spill=never),Flat"},
        {"blocks", "IVFGMM4,PQ2x4fs"},
        {"blocks_64", "IVFGMM3,PQ4x4fs_64", faiss::METRIC_INNER_PRODUCT},
        {"empty", "IVFGMM4(spill=always),Flat", faiss::METRIC_L2, 0},
        {"untrained", "IVFGMM4(spill=always),Flat", faiss::METRIC_L2, 0, 0},
        {"huge", "IVFGMM4(spill=always,sketch=2),Flat", faiss::METRIC_L2, rows, trained_on, 3e18f},
        {"tiny", "IVFGMM2(spill=always,sketch=1),Flat", faiss::METRIC_L2, 40, trained_on, 1, 2},
        {"untrained_blocks", "IVFGMM4,PQ2x4fs", faiss::METRIC_L2, 0, 0},
};

std::unique_ptr<faiss::Index> index_of(const Seed& seed) {
    std::unique_ptr<faiss::Index> index(
            index_factory(static_cast<int>(seed.d), seed.description, seed.metric));
    std::vector<float> x = float_rows(std::max(seed.trained_on, seed.rows), seed.d, 5);
    for (float& number : x) {
        number *= seed.unit;
    }
    if (seed.trained_on > 0) {
        index->train(static_cast<int64_t>(seed.trained_on), x.data());
    }
    if (seed.rows > 0) { // and later ones, which have runs of their own
        const auto first = static_cast<int64_t>(seed.rows - 3);
        index->add(first, x.data());
        index->add(3, x.data() + first * seed.d);
    }
    return index;
}

void write(const faiss::InvertedLists& lists, const std::filesystem::path& path) {
    faiss::VectorIOWriter writer;
    faiss::write_InvertedLists(&lists, &writer);
    std::ofstream file(path, std::ios::binary);
    file.write(
            reinterpret_cast<const char*>(writer.data.data()),
            static_cast<std::streamsize>(writer.data.size()));
    if (!file.flush()) {
        throw std::runtime_error("cannot write " + path.string());
    }
}

} // namespace
} // namespace faiss_gmm

int main(int argc, char** argv) try {
    if (argc != 2) {
        std::fprintf(stderr, "usage: write_seeds FOLDER\n");
        return 2;
    }
    omp_set_num_threads(1);
    const std::filesystem::path folder = argv[1];
    std::filesystem::create_directories(folder);
    for (const faiss_gmm::Seed& seed : faiss_gmm::seeds) {
        const auto index = faiss_gmm::index_of(seed);
        faiss_gmm::write(
                *dynamic_cast<const faiss::IndexIVF&>(*index).invlists, folder / seed.name);
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
