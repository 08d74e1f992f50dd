// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// write_golden lists|blocks FILE: an index of golden.h in the present format.
#include <cstdio>
#include <memory>
#include <string>

#include "faiss_gmm/io/index_io.h"
#include "golden.h"

int main(int argc, char** argv) {
    const std::string what = argc == 3 ? argv[1] : "";
    std::unique_ptr<faiss::Index> index;
    if (what == "lists") {
        index = faiss_gmm::golden_index();
    } else if (what == "blocks") {
        index = faiss_gmm::golden_index_in_blocks();
    } else {
        std::fprintf(stderr, "usage: write_golden lists|blocks FILE\n");
        return 2;
    }
    faiss_gmm::write_index(*index, argv[2]);
    return 0;
}
