// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/invlists/BlockInvertedLists.h>
#if __has_include(<faiss/impl/CodePacker.h>)
#include <faiss/impl/CodePacker.h>
#include <faiss/impl/pq4_fast_scan.h>
#endif

namespace faiss_gmm::compat {

/// Lists in blocks own what packs codes into them since 1.8.
inline void copy_packer(
        [[maybe_unused]] const faiss::BlockInvertedLists& from,
        [[maybe_unused]] faiss::BlockInvertedLists& to) {
#if __has_include(<faiss/impl/CodePacker.h>)
    if (const auto* packer = dynamic_cast<const faiss::CodePackerPQ4*>(from.packer)) {
        delete to.packer;
        to.packer = new faiss::CodePackerPQ4(*packer);
    }
#endif
}

} // namespace faiss_gmm::compat
