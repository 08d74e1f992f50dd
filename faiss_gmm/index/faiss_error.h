// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <faiss/impl/FaissException.h>

#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm {

/// Calls body() at a seam to FAISS: our errors leave as faiss::FaissException, with the same words.
template <class Body> auto at_faiss_seam(Body body) {
    try {
        return body();
    } catch (const Error& error) {
        throw faiss::FaissException(error.what());
    }
}

/// A faiss::FaissException whose message has the four parts.
[[noreturn]] inline void throw_faiss(const Problem& problem) {
    throw faiss::FaissException(Error(problem).what());
}

} // namespace faiss_gmm
