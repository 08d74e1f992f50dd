// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

Error::Error(const Problem& problem)
        : std::runtime_error(
                  problem.doing + ": given " + problem.given + "; allowed: " + problem.allowed +
                  "; " + problem.next + ".") {}

} // namespace faiss_gmm
