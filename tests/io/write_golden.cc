// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// write_golden FILE: the index of golden.h in the present format.
#include <cstdio>

#include "faiss_gmm/io/index_io.h"
#include "golden.h"

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: write_golden FILE\n");
        return 2;
    }
    faiss_gmm::write_index(*faiss_gmm::golden_index(), argv[1]);
    return 0;
}
