// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>

namespace faiss_gmm::compat {

/// Instruction sets that the linked FAISS was compiled for, or chose at run time, in its own words
/// ("AVX2", "AVX512", ...); "none" where its loops are scalar, as in Debian's packages.
std::string faiss_simd_level();

} // namespace faiss_gmm::compat
