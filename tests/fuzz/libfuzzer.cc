// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What libFuzzer calls.
#include "lists_fuzzer.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    faiss_gmm::prepare_fuzzing();
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    faiss_gmm::fuzz_lists(bytes, size);
    return 0;
}
