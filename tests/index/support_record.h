// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What a test saw of a piece of FAISS around an index: properties of the test, which contrib/support_table.py makes
// tables of.
#pragma once

#include <string>

#include <gtest/gtest.h>

#include "faiss_gmm/index/index_ivf_gmm.h"
#include "tests/index/stock_twin.h"

namespace faiss_gmm {

/// Which lists a test's index has: the rows of a piece are put together from them.
inline std::string lists_asked_for(const IndexIVFGMM& index) {
    if (index.spill.storage == SpillStorage::copies) {
        return "copies";
    }
    return index.sketch.mode == SketchParameters::Mode::none ? "runs" : "sketches";
}

/// `piece`: a name of letters, digits, dots, dashes and colons. Its last record in a test counts.
inline void
record_piece(const std::string& piece, const std::string& lists, const std::string& seen) {
    testing::Test::RecordProperty("over", lists);
    testing::Test::RecordProperty("piece." + piece, seen);
}

/// How the searches counted in indexIVFGMM_stats came to their results.
inline std::string way_of_search(const IndexIVFGMM& index) {
    if (indexIVFGMM_stats.nq == 0) {
        return "plain lists, by FAISS";
    }
    if (indexIVFGMM_stats.nscored > 0) {
        return kind_of_lists(index);
    }
    if (index.stores_copies()) {
        return "copies";
    }
    return indexIVFGMM_stats.nvisited > 0 ? "the lists and their guests" : "nothing visited";
}

/// "given" of our four parts.
inline std::string reason_of(const std::string& message) {
    const std::string begin = ": given ", end = "; allowed: ";
    const size_t at = message.find(begin) + begin.size();
    return message.substr(at, message.find(end) - at);
}

} // namespace faiss_gmm
