// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>

#include <faiss/Index.h>
#include <faiss/impl/io.h>

#include "faiss_gmm/runs/run_lists_io.h"

namespace faiss_gmm {

/// Writes any index that FAISS can write, IndexIVFGMM or not, wrapped or not: FAISS's own bytes, then 24 bytes
/// with their number and checksum, which FAISS's readers do not look at. The file is there as a whole or, where
/// this throws or the process ends before, as it was (atomic_file.h).
///
/// Of an IndexIVFGMM a file holds what stock holds of its codec (so not max_codes, parallel_mode nor polysemous_ht), the
/// mixture, the runs with their summaries and sketches, the policy, and the parameters but for
/// training.engine, device, gpu_memory, gpu_cache, means_init and the callbacks. training_history() and
/// build_times() are not kept.
///
/// Throws faiss::FaissException naming file and place; std::bad_alloc.
void write_index(const faiss::Index& index, const std::string& path);
/// The same into a stream, checksum included; what is written when it throws is the stream's affair.
void write_index(const faiss::Index& index, faiss::IOWriter& writer);

/// Reads what either write_index wrote, or FAISS's own of any version; where the file has a checksum it is verified
/// before anything is made of the bytes. A stock index over lists of ours becomes an IndexIVFGMM again,
/// inside its wrappers too; anything else comes as faiss::read_index gives it. The caller owns the index.
///
/// io_flags: as FAISS's; with IO_FLAG_MMAP codes stay in the file, which must then outlive the index unchanged (write_index
/// of this library leaves it so, and writes such an index with its codes). Lists that
/// stand in a file of their own (merge_ondisk.h) are mapped from there: with IO_FLAG_MMAP or IO_FLAG_READ_ONLY for reading
/// alone, with IO_FLAG_ONDISK_SAME_DIR from the folder of `path`. An index that is mapped read-only refuses to be changed.
/// Throws faiss::FaissException naming file and place for whatever is no whole index; std::bad_alloc.
faiss::Index* read_index(const std::string& path, int io_flags = 0);

/// Makes an IndexIVFGMM again of what FAISS's own read_index made of one: a stock IVF over our lists, which
/// may lie inside wrappers. Returns what stands in place of `index`, which is gone if that is another. The
/// same index where there is nothing to do. Throws faiss::FaissException where the parts do not fit
/// together; `index` is then as it was.
///
/// A program that reads by faiss::read_index calls register_lists_io() before.
faiss::Index* promote(faiss::Index* index);

} // namespace faiss_gmm
