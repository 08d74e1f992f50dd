// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Asynchronous copies from device to shared memory, 16 bytes a thread; each thread's in groups, of which it
// can wait for all but the last few.

#include <cstdint>

namespace faiss_gmm::cuda {

/// 16 bytes, or zeros.
__device__ inline void copy_asynchronously(uint32_t target, const void* source, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target),
                 "l"(source),
                 "r"(exists ? 16 : 0)
                 : "memory");
}
__device__ inline void close_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int groups> __device__ inline void wait_for_copies_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

} // namespace faiss_gmm::cuda
