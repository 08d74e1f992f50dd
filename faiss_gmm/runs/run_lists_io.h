// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

namespace faiss_gmm {

/// Makes faiss::write_index, read_index, write_InvertedLists and read_InvertedLists know RunInvertedLists
/// (key "ilgm") and MixtureBlockLists ("ilgb"), once for the process. Whatever makes such lists calls it; a program that reads with FAISS's
/// own read_index, and made no index of this library before, calls it itself. Any thread may; but, as
/// FAISS has it, none may read or write other indices at the time of the first call.
void register_lists_io();

} // namespace faiss_gmm
