// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <stdexcept>
#include <string>

namespace faiss_gmm {

/// What went wrong, in the four parts every message of this library has.
struct Problem {
    std::string doing;   ///< what was being done, e.g. "training a mixture"
    std::string given;   ///< what was given, e.g. "n = 10 rows, K = 64 components"
    std::string allowed; ///< what is allowed, e.g. "n >= K"
    std::string next; ///< what to do next, e.g. "give at least 64 rows or ask for fewer components"
};

/// Thrown for input that cannot be used. The seams to FAISS turn it into a faiss::FaissException.
class Error : public std::runtime_error {
public:
    explicit Error(const Problem& problem);
};

} // namespace faiss_gmm
