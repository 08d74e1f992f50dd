// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/git_commit.h"

#include "compiled_commit.h"

namespace faiss_gmm::bench {

const char* git_commit() {
    return FAISS_GMM_GIT_COMMIT;
}

} // namespace faiss_gmm::bench
