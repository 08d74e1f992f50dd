// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>

namespace faiss_gmm::bench {

/// Where and with what numbers were measured.
struct Environment {
    std::string faiss_version; ///< of the headers that were compiled against, e.g. "1.7.3"
    std::string simd;       ///< our loops: the target compiled in that fits best here, e.g. "AVX3"
    std::string faiss_simd; ///< what FAISS was compiled for; "none" for a generic build
    std::string cpu;        ///< model name, or "unknown"
    std::string git_commit; ///< of the sources that were compiled, "-dirty" with changes
    std::string date;       ///< UTC, ISO 8601
};

Environment describe_environment();

/// Threads for FAISS, our library and OpenBLAS.
void set_threads(int threads);
/// What OpenMP would use now.
int default_threads();

} // namespace faiss_gmm::bench
