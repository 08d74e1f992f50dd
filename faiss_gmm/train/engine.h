// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "faiss_gmm/mixture/gaussian_mixture.h"
#include "faiss_gmm/train/estep_engine.h"

namespace faiss_gmm {

/// Of gpu_cache: what the device has free.
constexpr size_t automatic_cache = std::numeric_limits<size_t>::max();

/// Where the heavy part of EM runs.
enum class EngineKind {
    automatic, ///< a usable GPU that can do what is asked, or else the CPU
    cpu,
    cuda, ///< a GPU, or an error
};

/// Which engine, and with what. Of this machine, not of a model: never stored in a file.
struct EngineParameters {
    EngineKind kind = EngineKind::automatic;
    int device = 0; ///< number of the GPU
    /// MiB of its memory that training may take beside the rows; 0: what is free.
    size_t gpu_memory = 0;
    size_t gpu_cache = automatic_cache; ///< MiB for rows that stay there between passes
    EStep estep = EStep::automatic;     ///< of the CPU engine; nearest_cells is the CPU's alone
    /// Told why `automatic` takes the CPU where a build with CUDA does so. Empty: dropped.
    std::function<void(const std::string&)> note;
};

/// Whichever engine, with every component compared: of vectors that an index stores.
inline EngineParameters exact_engine(EngineParameters parameters = {}) {
    parameters.estep = EStep::exact;
    return parameters;
}

/// What the engine will be given.
struct EngineTask {
    Covariance covariance = Covariance::tied_spherical;
    size_t K = 0, d = 0;
};

/// The engine that the parameters ask for. Throws Error where `cuda` is asked for and this build has
/// none, or there is no usable GPU, or it cannot do the task.
std::unique_ptr<EStepEngine>
make_engine(const EngineParameters& parameters, const EngineTask& task);

/// The CPU engine where `automatic` had a GPU whose memory did not do, and tells the note why; where a GPU
/// was asked for by name, throws `error` again.
std::unique_ptr<EStepEngine>
make_engine_after(const OutOfMemory& error, const EngineParameters& parameters);

/// Whether this build has the CUDA engine.
bool built_with_cuda();

} // namespace faiss_gmm
