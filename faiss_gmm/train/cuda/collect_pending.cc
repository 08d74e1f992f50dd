// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/cuda/detail/collect_launch.h"

namespace faiss_gmm::cuda {

void collect_portable(const CollectCall& call, void* workspace, Stream stream) {
    collect_plain(call, workspace, stream);
}
size_t collect_portable_workspace(const CollectModel& model) {
    return collect_plain_workspace(model);
}

} // namespace faiss_gmm::cuda
