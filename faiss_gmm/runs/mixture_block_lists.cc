// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/mixture_block_lists.h"

#include "faiss_gmm/compat/block_lists.h"
#include "faiss_gmm/compat/layout.h"

namespace faiss_gmm {
namespace {

void copy_entries(const faiss::BlockInvertedLists& from, faiss::BlockInvertedLists& to) {
    to.codes = from.codes;
    to.ids = from.ids;
    compat::copy_packer(from, to);
}

} // namespace

MixtureBlockLists::MixtureBlockLists(size_t nlist, size_t n_per_block, size_t block_size)
        : faiss::BlockInvertedLists(compat::checked(nlist), n_per_block, block_size) {}

MixtureBlockLists::MixtureBlockLists(const faiss::BlockInvertedLists& lists)
        : MixtureBlockLists(lists.nlist, lists.n_per_block, lists.block_size) {
    copy_entries(lists, *this);
}

std::unique_ptr<faiss::InvertedLists> MixtureBlockLists::copy() const {
    auto lists = std::make_unique<MixtureBlockLists>(*static_cast<const BlockInvertedLists*>(this));
    lists->set_state(state_);
    lists->keep_for_index(kept_for_index());
    return lists;
}

std::unique_ptr<faiss::InvertedLists> MixtureBlockLists::stock_copy() const {
    auto lists = std::make_unique<faiss::BlockInvertedLists>(nlist, n_per_block, block_size);
    copy_entries(*this, *lists);
    return lists;
}

} // namespace faiss_gmm
