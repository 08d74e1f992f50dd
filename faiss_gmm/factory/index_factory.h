// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/Index.h>

#include "faiss_gmm/compat/layout.h"

namespace faiss_gmm {

/// faiss::index_factory that also knows IVFGMM: `IVFGMM<n>[k][_HNSW<m>][(key=value,...)],<codec>`
/// with all stock prefixes and suffixes, e.g. "PCA64,IVFGMM1024(max_lists=3),Flat" or
/// "OPQ16,IVFGMM256,PQ16,RFlat". Every other string goes to the stock factory unchanged. Codecs are
/// the stock factory's but PQ<m>+<n>, FlatDedup and FlatPanorama; index/codecs.h says which have runs and which plain
/// lists.
///
/// Keys: covariance tied_spherical|spherical|diagonal; mixing uniform|free|balanced; max_iter;
/// n_init; seed; estep automatic|exact|nearest_cells; engine auto|cpu|cuda; device (number of the
/// GPU); gpu_memory and gpu_cache (MiB); order responsibility|air|soar; lambda; spill
/// never|threshold(t)|always|fraction(f); max_lists; m; storage shared|copies; by_residual
/// true|false (all codecs but Flat, SH, RaBitQ and EDEN; the default is the stock factory's); budget by_difficulty|even; sketch
/// auto|none|<codes>; probe_expansion; k_factor. The caller owns the result. Throws
/// faiss::FaissException; for a bad key or value the message repeats the string, marks the place
/// and lists what is valid.
faiss::Index*
index_factory(int d, const char* description, faiss::MetricType metric = faiss::METRIC_L2);

} // namespace faiss_gmm
