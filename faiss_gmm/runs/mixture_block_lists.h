// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <memory>

#include <faiss/invlists/BlockInvertedLists.h>

#include "faiss_gmm/runs/mixture_lists.h"

namespace faiss_gmm {

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
