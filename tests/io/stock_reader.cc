// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A program that knows FAISS alone: stock_reader INDEX QUERIES NPROBE K LABELS. QUERIES: fp32 rows; LABELS: int64,
// K a query.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include <faiss/IVFlib.h>
#include <faiss/IndexIVF.h>
#include <faiss/index_io.h>

int main(int argc, char** argv) try {
    if (argc != 6) {
        return 2;
    }
    const std::unique_ptr<faiss::Index> index(faiss::read_index(argv[1]));
    faiss::ivflib::extract_index_ivf(index.get())->nprobe = std::strtoul(argv[3], nullptr, 10);
    std::ifstream file(argv[2], std::ios::binary);
    const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
    const auto* queries = reinterpret_cast<const float*>(bytes.data());
    const size_t n = bytes.size() / sizeof(float) / index->d;
    const size_t k = std::strtoul(argv[4], nullptr, 10);
    std::vector<float> distances(n * k);
    std::vector<int64_t> labels(n * k);
    index->search(
            static_cast<int64_t>(n),
            queries,
            static_cast<int64_t>(k),
            distances.data(),
            labels.data());
    std::ofstream out(argv[5], std::ios::binary);
    out.write(
            reinterpret_cast<const char*>(labels.data()),
            static_cast<std::streamsize>(labels.size() * sizeof(int64_t)));
    return out ? 0 : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
