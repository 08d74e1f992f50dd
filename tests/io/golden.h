// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the golden files hold: 150 rows of whole numbers, 4 dimensions, 4 lists, runs with guests and sketches.
#pragma once

#include <memory>

#include "tests/index/index_fixture.h"

namespace faiss_gmm {

constexpr size_t golden_rows = 150, golden_d = 4;

inline std::vector<float> golden_vectors() {
    return whole_rows(golden_rows, golden_d, 11);
}

inline std::unique_ptr<IndexIVFGMMFlat> golden_index() {
    auto index = std::make_unique<IndexIVFGMMFlat>(golden_d, 4, faiss::METRIC_L2);
    index->spill.rule = SpillRule::always;
    index->spill.max_lists = 3;
    index->sketch.mode = SketchParameters::Mode::fixed;
    index->k_factor = 5;
    index->training.seed = 42;
    const std::vector<float> x = whole_rows(1000, golden_d, 12);
    index->train(1000, x.data());
    index->add(golden_rows, golden_vectors().data());
    index->nprobe = 2;
    return index;
}

} // namespace faiss_gmm
