// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <memory>

#include <faiss/invlists/BlockInvertedLists.h>

#include "faiss_gmm/runs/mixture_lists.h"

namespace faiss_gmm {

/// Stock code searches blocks of 32, 64, 96, 128 or 160 entries. Others it fills, but their first search ends
/// the process: it throws within a parallel region.
constexpr size_t most_entries_a_block = 160, block_grain = 32;
constexpr bool can_search_blocks_of(size_t entries) {
    return entries > 0 && entries <= most_entries_a_block && entries % block_grain == 0;
}

/// Lists of a mixture whose codes stand in blocks, which stock code alone fills and searches: those of
/// FastScan codecs. No runs, nothing spills.
class MixtureBlockLists : public faiss::BlockInvertedLists, public MixtureLists {
public:
    /// Empty.
    MixtureBlockLists(size_t nlist, size_t n_per_block, size_t block_size);
    /// With the entries of others.
    explicit MixtureBlockLists(const faiss::BlockInvertedLists& lists);

    std::unique_ptr<faiss::InvertedLists> copy() const override;
    /// The same entries in the stock class.
    std::unique_ptr<faiss::InvertedLists> stock_copy() const;
};

} // namespace faiss_gmm
