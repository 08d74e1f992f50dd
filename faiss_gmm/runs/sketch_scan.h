// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <faiss/impl/IDSelector.h>
#include <faiss/invlists/InvertedLists.h>

#include "faiss_gmm/runs/choose.h"

namespace faiss_gmm {

/// A vector whose sketch is among the best.
struct Candidate {
    int32_t home = -1;
    uint32_t entry = 0; ///< offset in its home list
    uint16_t score = 0;
};

/// What a thread keeps between queries for scanning.
struct ScanScratch {
    std::vector<BasedBlock> blocks; ///< of the chosen runs
    std::vector<uint32_t> counts;   ///< of scores, in buckets
    std::vector<uint64_t> keys;     ///< as slot_key(): what reached the threshold
};

struct ScanCounts {
    size_t sketches = 0; ///< scored
    size_t skipped = 0;  ///< refused by the selector
};

/// Scores the sketches of the chosen runs, best run first, and leaves the `keep` best vectors in
/// candidates (fewer if there are fewer), in no order. What beats the running threshold is shown to
/// the selector (null: all pass) before it is counted, so only selected vectors move the threshold.
ScanCounts scan_sketches(
        const RunCodec& codec,
        const QueryTables& tables,
        const std::vector<ChosenRun>& chosen,
        size_t keep,
        const faiss::IDSelector* selector,
        const faiss::InvertedLists& lists,
        ScanScratch& scratch,
        std::vector<Candidate>& candidates);

} // namespace faiss_gmm
