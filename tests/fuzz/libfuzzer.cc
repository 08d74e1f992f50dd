// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What libFuzzer calls.
#include "lists_fuzzer.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* bytes, size_t size, size_t most);

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    faiss_gmm::prepare_fuzzing();
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    faiss_gmm::fuzz_lists(bytes, size);
    return 0;
}

/// Few of the bytes are numbers that a parser acts upon: of four mutations one is of these.
extern "C" size_t
LLVMFuzzerCustomMutator(uint8_t* bytes, size_t size, size_t most, unsigned int seed) {
    constexpr unsigned share = 4;
    if (seed % share != 0) {
        return LLVMFuzzerMutate(bytes, size, most);
    }
    faiss_gmm::change_a_number(bytes, size, seed);
    return size;
}
