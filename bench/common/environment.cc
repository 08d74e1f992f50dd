// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/environment.h"

#include <ctime>
#include <fstream>

#include <cblas.h>
#include <faiss/Index.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <omp.h>

#include "bench/common/git_commit.h"
#include "faiss_gmm/compat/faiss_simd.h"
#include "faiss_gmm/runs/lookup.h"

namespace faiss_gmm::bench {

namespace {

std::string cpu_model() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        const size_t colon = line.find(": ");
        if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
            return line.substr(colon + 2);
        }
    }
    return "unknown"; // Arm kernels name no model
}

} // namespace

Environment describe_environment() {
    return {fmt::format("{}.{}.{}", FAISS_VERSION_MAJOR, FAISS_VERSION_MINOR, FAISS_VERSION_PATCH),
            block_kernels().target,
            compat::faiss_simd_level(),
            cpu_model(),
            git_commit(),
            fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))};
}

void set_threads(int threads) {
    omp_set_num_threads(threads);
    openblas_set_num_threads(threads);
}

int default_threads() {
    return omp_get_max_threads();
}

} // namespace faiss_gmm::bench
