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
    return sizeof *this + summaries.own_bytes() + sketches.own_bytes() + held(further) +
           held(guests) + held(guest_groups) + held(guest_further);
}

void RunDirectory::clear() noexcept {
    for (ListRuns& list : lists) {
        list = ListRuns();
    }
    packed_.reset();
    packed_bytes_ = 0;
    summary_range = sketch_range = ConstantRange();
}

void RunDirectory::pack() {
    constexpr size_t share_outside = 8; // packed again when over 1/8 stands outside
    constexpr size_t worth_returning = size_t{2} << 20;
    size_t total = 0, outside = 0;
    for (const ListRuns& list : lists) {
        total += list.summaries.size() + list.sketches.size();
        outside += list.summaries.own_bytes() + list.sketches.own_bytes();
    }
    if (outside * share_outside <= total) {
        return;
    }
    const std::shared_ptr<uint8_t> array = make_large_array(total);
    uint8_t* next = array.get();
    for (const auto blocks : {&ListRuns::summaries, &ListRuns::sketches}) {
        for (ListRuns& list : lists) {
            const size_t bytes = (list.*blocks).size();
            (list.*blocks).move_to(next);
            next += bytes;
        }
    }
    packed_ = array;
    packed_bytes_ = total;
    if (outside >= worth_returning) {
        return_freed_memory(); // what stood outside, and what splitting took
    }
}

size_t RunDirectory::memory_bytes() const {
    size_t bytes = sizeof *this + packed_bytes_;
    for (const ListRuns& list : lists) {
        bytes += list.memory_bytes();
    }
    return bytes;
}

} // namespace faiss_gmm
