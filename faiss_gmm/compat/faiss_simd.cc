// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/compat/faiss_simd.h"

#include <faiss/utils/utils.h>

namespace faiss_gmm::compat {

std::string faiss_simd_level() {
    std::string options = faiss::get_compile_options(); // "OPTIMIZE AVX2", "AVX512", "GENERIC", ...
    const std::string prefix = "OPTIMIZE ";
    if (options.rfind(prefix, 0) == 0) {
        options.erase(0, prefix.size());
    }
    while (!options.empty() && options.back() == ' ') {
        options.pop_back();
    }
    return options.empty() || options == "GENERIC" ? "none" : options;
}

} // namespace faiss_gmm::compat
