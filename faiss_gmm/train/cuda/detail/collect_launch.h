// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What the implementations of collect.h share on the host.

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/collect.h"

namespace faiss_gmm::cuda {

/// Throws Error naming what was done and what the runtime answered; nothing for success.
void check_collect(cudaError_t status, const char* doing);

int multiprocessors();

struct CollectCall {
    CollectModel model;
    CollectInput input;
    CollectOutput output;
};

void collect_plain(const CollectCall& call, void* workspace, Stream stream);
void collect_portable(const CollectCall& call, void* workspace, Stream stream);
void collect_hopper(const CollectCall& call, void* workspace, Stream stream);
size_t collect_plain_workspace(const CollectModel& model);
size_t collect_portable_workspace(const CollectModel& model);
size_t collect_hopper_workspace(const CollectModel& model);

} // namespace faiss_gmm::cuda
