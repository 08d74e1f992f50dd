// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/invlists/InvertedListsIOHook.h>

namespace faiss_gmm {

/// Writes and reads MixtureBlockLists (key "ilgb"). Numbers as in run_lists_io.cc:
///   "ilgb" | version | lists: number, bytes a code, sizes | what the index over them asked to keep |
///   entries a block | state: mixture, policy, codec, difficulty | checksum of all this |
///   ids and blocks, list by list | checksum of these
class BlockListsIOHook : public faiss::InvertedListsIOHook {
public:
    BlockListsIOHook();
    void write(const faiss::InvertedLists* lists, faiss::IOWriter* out) const override;
    faiss::InvertedLists* read(faiss::IOReader* in, int io_flags) const override;
};

} // namespace faiss_gmm
