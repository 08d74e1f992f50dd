// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>

#include <faiss/Index.h>

namespace faiss_gmm {

/// What an index is, in lines for people: its wrappers from the outside in; then, of an IVF index, its class,
/// sizes and metric, how its lists hold vectors (runs and sketches, runs, copies, plain), the bytes it holds, and what
/// its searches use. A stock index over lists of ours, which faiss::read_index makes of a file of ours, is told from an
/// IndexIVFGMM, with what goes unused. Any index has a description; the words may change. O(lists).
std::string describe(const faiss::Index& index);

} // namespace faiss_gmm
