// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Whether the linked FAISS is the one of the headers that compat/layout.cc was compiled with, and nothing else of the
// library beside it.
#include <cstdio>

#include <faiss/impl/FaissException.h>

#include "faiss_gmm/compat/layout.h"

int main() {
    try {
        faiss_gmm::compat::require_matching_faiss();
        std::puts("one FAISS");
    } catch (const faiss::FaissException& error) {
        std::puts(error.what());
    }
}
