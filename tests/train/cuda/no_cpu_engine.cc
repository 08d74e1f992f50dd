// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// In place of the CPU engine, whose libraries (OpenBLAS, Highway) do not all come as static ones: the
// GPU's test programs must run where they are not installed.
#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm {

std::unique_ptr<EStepEngine> make_cpu_engine(EStep) {
    throw Error(
            {"making the CPU engine",
             "a test program of the GPU, which has none",
             "engine=cuda",
             "run the test on a machine with a GPU"});
}

} // namespace faiss_gmm
