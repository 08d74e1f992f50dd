// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/invlists/BlockInvertedLists.h>
#if __has_include(<faiss/impl/CodePacker.h>)
#include <faiss/impl/CodePacker.h>
#if __has_include(<faiss/impl/fast_scan/fast_scan.h>) // since 1.14.2
#include <faiss/impl/fast_scan/fast_scan.h>
#else
#include <faiss/impl/pq4_fast_scan.h>
#endif
#endif

namespace faiss_gmm::compat {

#if __has_include(<faiss/impl/CodePacker.h>)
/// There is one class of packers for blocks until they clone themselves.
template <class Packer>
auto clone_of_packer(const Packer& packer, int) -> decltype(packer.clone()) {
    return packer.clone();
}
template <class Packer> faiss::CodePacker* clone_of_packer(const Packer& packer, long) {
    return new faiss::CodePackerPQ4(dynamic_cast<const faiss::CodePackerPQ4&>(packer));
}
#endif

/// Lists in blocks own what packs codes into them since 1.8.
inline void copy_packer(
        [[maybe_unused]] const faiss::BlockInvertedLists& from,
        [[maybe_unused]] faiss::BlockInvertedLists& to) {
#if __has_include(<faiss/impl/CodePacker.h>)
    if (from.packer != nullptr) {
        delete to.packer;
        to.packer = nullptr;
        to.packer = clone_of_packer(*from.packer, 0);
    }
#endif
}

/// Lists that were read have nothing that packs codes into them: FAISS's reader of an index gives it, since 1.8.
template <class Index> auto give_packer(Index& index, int) -> decltype(index.init_code_packer()) {
    index.init_code_packer();
}
template <class Index> void give_packer(Index&, long) {}

/// An index over blocks points to the quantizer within it, since 1.8.
template <class Index, class Quantizer>
auto set_fine_quantizer(Index& index, Quantizer& quantizer, int)
        -> decltype(void(index.fine_quantizer = &quantizer)) {
    index.fine_quantizer = &quantizer;
}
template <class Index, class Quantizer> void set_fine_quantizer(Index&, Quantizer&, long) {}

} // namespace faiss_gmm::compat
