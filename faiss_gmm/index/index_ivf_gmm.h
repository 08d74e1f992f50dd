// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFlat.h>

#include "faiss_gmm/index/search_parameters.h"
#include "faiss_gmm/index/statistics.h"
#include "faiss_gmm/spill/spill_policy.h"
#include "faiss_gmm/train/gmm_trainer.h"

namespace faiss_gmm {

/// Whether and how finely vectors are sketched inside their runs.
struct SketchParameters {
    enum class Mode { automatic, none, fixed };
    Mode mode = Mode::automatic; ///< automatic: where the codec's code is over twice a sketch's size
    size_t codes = 0;            ///< 4-bit codes a sketch; 0: clamp(d / 4, 1, 256)
};

/// Seconds spent building, by part; split and sketch lie within train and add.
struct BuildTimes {
    double train = 0, add = 0, split = 0, sketch = 0;
};

/// Bytes held, measured.
struct MemoryUse {
    size_t codes = 0, ids = 0, directory = 0, quantizer = 0;
    size_t total() const {
        return codes + ids + directory + quantizer;
    }
};

/// The face that every IndexIVFGMMOf<Codec> shows beside its stock class: dynamic_cast to it to reach
/// the mixture, the policy and the directory.
class IndexIVFGMM {
public:
    virtual ~IndexIVFGMM();

    TrainingParameters training; ///< read by train()
    SpillPolicy spill;           ///< read by train()
    SketchParameters sketch;     ///< read by train()
    float probe_expansion = 0;   ///< lists probed / nprobe; 0: by the measured rule
    float k_factor = 0;          ///< exact distances / k; 0: by the measured rule

    /// The mixture; K = 0 before train().
    const GaussianMixture& mixture() const;
    /// History of the last train(), an entry an EM iteration.
    const std::vector<TrainingProgress>& training_history() const;
    /// Splits every list that is not in split form, so that what is found no longer depends on the
    /// order in which vectors were added.
    void compact();
    /// Verifies every invariant of lists and directory; throws faiss::FaissException naming the first
    /// that does not hold. O(n d).
    void check() const;
    BuildTimes build_times() const;
    MemoryUse memory_use() const;
    /// This index as the stock class it also is.
    virtual faiss::IndexIVF& ivf() = 0;
    virtual const faiss::IndexIVF& ivf() const = 0;
};

} // namespace faiss_gmm
