// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/run_directory.h"

namespace faiss_gmm {
namespace {

template <class T, class A> size_t held(const std::vector<T, A>& v) {
    return v.capacity() * sizeof(T);
}

} // namespace

size_t ListRuns::memory_bytes() const {
    return sizeof *this + held(summaries) + held(sketches) + held(further) + held(guests) +
           held(guest_groups) + held(guest_further);
}

size_t RunDirectory::memory_bytes() const {
    size_t bytes = sizeof *this;
    for (const ListRuns& list : lists) {
        bytes += list.memory_bytes();
    }
    return bytes;
}

} // namespace faiss_gmm
