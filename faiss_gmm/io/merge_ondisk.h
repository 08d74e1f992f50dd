// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>
#include <vector>

#include <faiss/Index.h>

namespace faiss_gmm {

/// Fills a trained, empty index from indices in files ("shards"), as contrib/ondisk.py of FAISS does: codes and ids go to the
/// file at `path`, where faiss::OnDiskInvertedLists map them, so that neither the shards nor the result need fit in
/// memory; runs, summaries and sketches are made list by list, and these stand in memory. write_index() then
/// writes the index, which names `path` as it is given here.
///
/// shards: written by write_index of this library or of FAISS; of indices that were trained as this one was, so read
/// from one file or cloned. Ids stay as they are: give each shard its own (add_with_ids). Both sides may lie inside
/// IndexPreTransform; the transformations of a shard are not looked at.
///
/// `path` is there as a whole or as it was, like any file of this library, and takes bytes for all entries. The index stays
/// as it was where this throws: faiss::FaissException naming the file, or the shard, and place; but for std::bad_alloc while
/// runs are made, which leaves plain lists (compact() makes runs of them).
///
/// Changes of the index go to the file at once, those of its sizes to the next write_index: after add, remove_ids,
/// update_vectors, compact or reset the index file of before does not fit any more.
void merge_ondisk(
        faiss::Index& index, const std::vector<std::string>& shards, const std::string& path);

} // namespace faiss_gmm
