// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the golden files hold: 150 rows of whole numbers, 4 dimensions, 4 lists; in runs with guests and sketches, or in
// blocks.
#pragma once

#include <memory>

#include "faiss_gmm/index/codecs.h"
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

inline std::unique_ptr<IndexIVFGMMPQFastScan> golden_index_in_blocks() {
    constexpr size_t codes = 2, bits = 4;
    auto index =
            std::make_unique<IndexIVFGMMPQFastScan>(golden_d, 4, codes, bits, faiss::METRIC_L2);
    index->training.seed = 42;
    index->training.covariance = Covariance::diagonal;
    const std::vector<float> x = whole_rows(1000, golden_d, 12);
    index->train(1000, x.data());
    index->add(golden_rows, golden_vectors().data());
    index->nprobe = 2;
    return index;
}

} // namespace faiss_gmm
