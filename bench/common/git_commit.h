// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

namespace faiss_gmm::bench {

/// Commit of the sources that were compiled, "-dirty" with changes; "unknown" without git.
const char* git_commit();

} // namespace faiss_gmm::bench
