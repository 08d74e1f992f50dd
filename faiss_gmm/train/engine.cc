// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/engine.h"

#include "faiss_gmm/mixture/error.h"
#ifdef FAISS_GMM_HAS_CUDA
#include "faiss_gmm/train/cuda/cuda_estep_engine.h"
#endif

namespace faiss_gmm {

#ifdef FAISS_GMM_HAS_CUDA

bool built_with_cuda() {
    return true;
}

namespace {

std::unique_ptr<EStepEngine> on_gpu(const EngineParameters& parameters) {
    CudaOptions options;
    options.device = parameters.device;
    options.gpu_memory = parameters.gpu_memory << 20;
    options.gpu_cache =
            parameters.gpu_cache == automatic_cache ? automatic_cache : parameters.gpu_cache << 20;
    return make_cuda_engine(options);
}

} // namespace

std::unique_ptr<EStepEngine>
make_engine(const EngineParameters& parameters, const EngineTask& task) {
    if (parameters.kind == EngineKind::cuda) {
        const std::string refused = cuda_refuses(task.covariance, task.K, task.d);
        if (!refused.empty()) {
            throw Error(
                    {"choosing the engine",
                     "engine=cuda and " + refused,
                     cuda_limits(),
                     "choose engine=cpu or auto"});
        }
        return on_gpu(parameters);
    }
    if (parameters.kind == EngineKind::cpu || parameters.estep == EStep::nearest_cells) {
        return make_cpu_engine(parameters.estep);
    }
    std::string obstacle = cuda_refuses(task.covariance, task.K, task.d);
    if (!obstacle.empty()) {
        obstacle = "given " + obstacle + "; a GPU takes " + cuda_limits();
    } else {
        obstacle = cuda_obstacle(parameters.device);
        if (!obstacle.empty()) {
            obstacle = "found " + obstacle + "; needed " + cuda_requirements(parameters.device);
        }
    }
    if (obstacle.empty()) {
        try {
            return on_gpu(parameters);
        } catch (const Error& error) { // e.g. no memory left at all
            obstacle = error.what();
        }
    }
    if (parameters.note) {
        parameters.note("engine=auto takes the CPU: " + obstacle);
    }
    return make_cpu_engine(parameters.estep);
}

#else

bool built_with_cuda() {
    return false;
}

std::unique_ptr<EStepEngine>
make_engine(const EngineParameters& parameters, const EngineTask& task) {
    static_cast<void>(task);
    if (parameters.kind == EngineKind::cuda) {
        throw Error(
                {"choosing the engine",
                 "engine=cuda in a build without CUDA",
                 "engine=auto, engine=cpu",
                 "build with FAISS_GMM_CUDA=ON (preset cuda), or choose engine=cpu"});
    }
    return make_cpu_engine(parameters.estep);
}

#endif

std::unique_ptr<EStepEngine>
make_engine_after(const OutOfMemory& error, const EngineParameters& parameters) {
    if (parameters.kind != EngineKind::automatic) {
        throw error;
    }
    if (parameters.note) {
        parameters.note(std::string("engine=auto goes on with the CPU: ") + error.what());
    }
    return make_cpu_engine(parameters.estep);
}

} // namespace faiss_gmm
