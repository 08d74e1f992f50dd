// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/cuda/collect.h"

#include <string>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"

namespace faiss_gmm::cuda {

void check_collect(cudaError_t status, const char* doing) {
    if (status != cudaSuccess) {
        throw Error(
                {std::string("collecting candidates on the GPU: ") + doing,
                 std::string("CUDA error ") + cudaGetErrorName(status) + " (" +
                         cudaGetErrorString(status) + ")",
                 "a working device and driver",
                 "look at nvidia-smi, or choose engine=cpu"});
    }
}

int multiprocessors() {
    int device = 0, count = 0;
    check_collect(cudaGetDevice(&device), "asking for the current device");
    check_collect(
            cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
            "asking for the number of multiprocessors");
    return count;
}

CollectPath best_collect_path(CollectForm form) {
    int device = 0, major = 0;
    check_collect(cudaGetDevice(&device), "asking for the current device");
    check_collect(
            cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
            "asking for the compute capability");
    return major == 9 && form != CollectForm::quadratic ? CollectPath::hopper
                                                        : CollectPath::portable;
}

size_t collect_workspace_bytes(const CollectModel& model, CollectPath path) {
    switch (path) {
    case CollectPath::plain:
        return collect_plain_workspace(model);
    case CollectPath::portable:
        return collect_portable_workspace(model);
    default:
        return collect_hopper_workspace(model);
    }
}

void collect_candidates(
        const CollectModel& model,
        const CollectInput& input,
        const CollectOutput& output,
        CollectPath path,
        void* workspace,
        Stream stream) {
    if (output.capacity < 8 || output.capacity > collect_max_capacity || output.capacity % 8 != 0) {
        throw Error(
                {"collecting candidates on the GPU",
                 "capacity = " + std::to_string(output.capacity),
                 "multiples of 8 from 8 to " + std::to_string(collect_max_capacity),
                 "choose a capacity of 16"});
    }
    if (input.rank < 1 || input.rank > collect_max_rank) {
        throw Error(
                {"collecting candidates on the GPU",
                 "rank = " + std::to_string(input.rank),
                 "1 to " + std::to_string(collect_max_rank),
                 "score all components of a row where more are wanted"});
    }
    if (input.n <= 0) {
        return;
    }
    const CollectCall call{model, input, output};
    switch (path) {
    case CollectPath::plain:
        collect_plain(call, workspace, stream);
        break;
    case CollectPath::portable:
        collect_portable(call, workspace, stream);
        break;
    case CollectPath::hopper:
        collect_hopper(call, workspace, stream);
        break;
    }
    check_collect(cudaGetLastError(), "launching the pass");
}

} // namespace faiss_gmm::cuda
