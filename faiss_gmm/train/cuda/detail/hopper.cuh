// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Hopper's own instructions (compute capability 9.0a) under names that say what they do here:
// barriers in shared memory, bulk tensor copies, asynchronous warpgroup products, register hand-over.
// PTX ISA 8.0, sections "mbarrier", "cp.async.bulk.tensor", "wgmma", "setmaxnreg".

#include <cstdint>

#include <cuda.h>

#include "faiss_gmm/train/cuda/detail/warp.cuh"

namespace faiss_gmm::cuda::hopper {

// ---- barriers

__device__ inline void init_barrier(uint64_t* barrier, uint32_t arrivals) {
    asm volatile(
            "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
            "r"(arrivals));
}
/// Makes initialised barriers visible to the copy engine.
__device__ inline void fence_barrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}
/// Arrives, and makes the phase wait for so many bytes from the copy engine.
__device__ inline void arrive_expecting(uint64_t* barrier, uint32_t bytes) {
    asm volatile(
            "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
            "r"(bytes)
            : "memory");
}
/// Until the phase of this parity is complete.
__device__ inline void wait(uint64_t* barrier, uint32_t parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra finished;\n"
                 "bra again;\n"
                 "finished:\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}
/// By every lane of a warp: it has read, or written, what it wanted.
__device__ inline void arrive_as_warp(uint64_t* barrier, int lane) {
    __syncwarp();
    if (lane == 0) {
        arrive(barrier);
    }
}
/// A place in a ring and the parity of its phase.
template <int places> struct Ring {
    int place = 0;
    uint32_t parity = 0;
    __device__ void advance() {
        if (++place == places) {
            place = 0;
            parity ^= 1;
        }
    }
    /// `steps` divide the places.
    __device__ void advance_by(int steps) {
        place += steps;
        if (place == places) {
            place = 0;
            parity ^= 1;
        }
    }
};
/// Named barriers of two warpgroups: one waits, the other only says that it has come.
__device__ inline void wait_for_turn(int name) {
    asm volatile("bar.sync %0, 256;" ::"r"(name) : "memory");
}
__device__ inline void give_turn(int name) {
    asm volatile("bar.arrive %0, 256;" ::"r"(name) : "memory");
}
/// Named barrier number `name` of so many threads.
template <int name, int threads> __device__ inline void meet() {
    asm volatile("bar.sync %0, %1;" ::"n"(name), "n"(threads) : "memory");
}

// ---- copies

/// What threads wrote so far is visible to the copy engine and the tensor cores.
__device__ inline void fence_for_async_proxy() {
    asm volatile("fence.proxy.async;" ::: "memory");
}
__device__ inline void prefetch_tensor_map(const CUtensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/// A box of the tensor, from (column, row) on.
__device__ inline void
copy_box(void* target, const CUtensorMap* map, int32_t column, int32_t row, uint64_t* barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(target)),
                 "l"(map),
                 "r"(column),
                 "r"(row),
                 "r"(shared_address(barrier))
                 : "memory");
}
/// `bytes` and both addresses are multiples of 16.
__device__ inline void
copy_bytes(void* target, const void* source, uint32_t bytes, uint64_t* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(shared_address(target)),
                 "l"(source),
                 "r"(bytes),
                 "r"(shared_address(barrier))
                 : "memory");
}

// ---- products

/// Of a tile of 64 fp16 columns (128 bytes a row, 8 rows an atom of 1,024 bytes, 128-byte swizzle).
__device__ inline uint64_t operand_descriptor(const void* tile) {
    return static_cast<uint64_t>((shared_address(tile) & 0x3ffff) >> 4) | uint64_t{1} << 16 |
           uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
/// Descriptor of the 16 columns `step` steps on.
__device__ inline uint64_t advanced(uint64_t descriptor, int step) {
    return descriptor + static_cast<uint64_t>(step * 32 >> 4);
}
__device__ inline void begin_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void close_group() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int groups> __device__ inline void wait_for_all_but() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
}
/// The compiler must not move what uses the sums of products across this.
template <int count> __device__ inline void hold(float (&sums)[count]) {
#pragma unroll
    for (float& value : sums) {
        asm volatile("" : "+f"(value)::"memory");
    }
}
template <int registers> __device__ inline void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers> __device__ inline void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

/// The frame of a kernel whose first warpgroup copies, by one thread, while the others multiply: init() the barriers,
/// by one thread; then copy(), and multiply(which of the others).
template <int producer_registers, int consumer_registers, class Init, class Copy, class Multiply>
__device__ __forceinline__ void
divide_work(const Init& init, const Copy& copy, const Multiply& multiply) {
    if (threadIdx.x == 0) {
        init();
        fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        give_registers<producer_registers>();
        if (threadIdx.x == 0) {
            copy();
        }
    } else {
        take_registers<consumer_registers>();
        // The shuffle tells the compiler that a warp has one group: no divergence around the products.
        multiply(__shfl_sync(whole_warp, static_cast<int>(threadIdx.x / 128) - 1, 0));
    }
}

// What the products below say of their sums: names in the instruction, and sixteen operands.
#define FAISS_GMM_NAMES_32                                                                         \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "                       \
    "%30, %31"
#define FAISS_GMM_NAMES_48                                                                         \
    FAISS_GMM_NAMES_32 ", "                                                                        \
                       "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "    \
                       "%46, %47"
#define FAISS_GMM_NAMES_64                                                                         \
    FAISS_GMM_NAMES_48 ", "                                                                        \
                       "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "    \
                       "%62, %63"
#define FAISS_GMM_NAMES_96                                                                         \
    FAISS_GMM_NAMES_64 ", "                                                                        \
                       "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, "    \
                       "%78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "    \
                       "%92, %93, %94, %95"
#define FAISS_GMM_SUMS_4(kind, x, i) kind(x[i]), kind(x[i + 1]), kind(x[i + 2]), kind(x[i + 3])
#define FAISS_GMM_SUMS_16(kind, x, i)                                                              \
    FAISS_GMM_SUMS_4(kind, x, i), FAISS_GMM_SUMS_4(kind, x, i + 4),                                \
            FAISS_GMM_SUMS_4(kind, x, i + 8), FAISS_GMM_SUMS_4(kind, x, i + 12)

/// acc [64, 128] += A [64, 16] B [128, 16]^T, fp16 operands in shared memory.
__device__ inline void multiply_asynchronously(float (&acc)[64], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FAISS_GMM_NAMES_64
                 "}, %64, %65, 1, 1, 1, 0, 0;"
                 : FAISS_GMM_SUMS_16("+f", acc, 0),
                   FAISS_GMM_SUMS_16("+f", acc, 16),
                   FAISS_GMM_SUMS_16("+f", acc, 32),
                   FAISS_GMM_SUMS_16("+f", acc, 48)
                 : "l"(a), "l"(b));
}

/// The same for a product that starts: acc = A B^T.
__device__ inline void multiply_afresh(float (&acc)[64], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FAISS_GMM_NAMES_64
                 "}, %64, %65, 0, 1, 1, 0, 0;"
                 : FAISS_GMM_SUMS_16("=f", acc, 0),
                   FAISS_GMM_SUMS_16("=f", acc, 16),
                   FAISS_GMM_SUMS_16("=f", acc, 32),
                   FAISS_GMM_SUMS_16("=f", acc, 48)
                 : "l"(a), "l"(b));
}

/// Of a tile whose rows are summed over: slices of [rows, 64] as for operand_descriptor(), so many bytes
/// apart. The 16 rows `step` steps on: advanced_rows().
__device__ inline uint64_t transposed_descriptor(const void* tile, uint32_t slice_bytes) {
    return static_cast<uint64_t>((shared_address(tile) & 0x3ffff) >> 4) |
           static_cast<uint64_t>(slice_bytes >> 4) << 16 | uint64_t{1024 >> 4} << 32 |
           uint64_t{1} << 62;
}
__device__ inline uint64_t advanced_rows(uint64_t descriptor, int step) {
    return descriptor + static_cast<uint64_t>(step * 2048 >> 4);
}

/// sums [64, 64] += A [64, 16] B [16, 64]: A in registers, B a tile of transposed_descriptor().
__device__ inline void multiply_registers(float (&sums)[32], const uint32_t (&a)[4], uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" FAISS_GMM_NAMES_32
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : FAISS_GMM_SUMS_16("+f", sums, 0), FAISS_GMM_SUMS_16("+f", sums, 16)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/// sums [64, 96] += A [64, 16] B [16, 96]: A in registers, B a tile of transposed_descriptor().
__device__ inline void multiply_registers(float (&sums)[48], const uint32_t (&a)[4], uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32.f16.f16 {" FAISS_GMM_NAMES_48
                 "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 1;"
                 : FAISS_GMM_SUMS_16("+f", sums, 0),
                   FAISS_GMM_SUMS_16("+f", sums, 16),
                   FAISS_GMM_SUMS_16("+f", sums, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/// sums [64, 128] += A [64, 16] B [16, 128]: A in registers, B a tile of transposed_descriptor().
__device__ inline void multiply_registers(float (&sums)[64], const uint32_t (&a)[4], uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FAISS_GMM_NAMES_64
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : FAISS_GMM_SUMS_16("+f", sums, 0),
                   FAISS_GMM_SUMS_16("+f", sums, 16),
                   FAISS_GMM_SUMS_16("+f", sums, 32),
                   FAISS_GMM_SUMS_16("+f", sums, 48)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/// sums [64, 128] += A [16, 64]^T B [16, 128]: both of transposed_descriptor().
__device__ inline void multiply_transposed(float (&sums)[64], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FAISS_GMM_NAMES_64
                 "}, %64, %65, 1, 1, 1, 1, 1;"
                 : FAISS_GMM_SUMS_16("+f", sums, 0),
                   FAISS_GMM_SUMS_16("+f", sums, 16),
                   FAISS_GMM_SUMS_16("+f", sums, 32),
                   FAISS_GMM_SUMS_16("+f", sums, 48)
                 : "l"(a), "l"(b));
}

/// sums [64, 192] += A [16, 64]^T B [16, 192]: both of transposed_descriptor().
__device__ inline void multiply_transposed(float (&sums)[96], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.f16.f16 {" FAISS_GMM_NAMES_96
                 "}, %96, %97, 1, 1, 1, 1, 1;"
                 : FAISS_GMM_SUMS_16("+f", sums, 0),
                   FAISS_GMM_SUMS_16("+f", sums, 16),
                   FAISS_GMM_SUMS_16("+f", sums, 32),
                   FAISS_GMM_SUMS_16("+f", sums, 48),
                   FAISS_GMM_SUMS_16("+f", sums, 64),
                   FAISS_GMM_SUMS_16("+f", sums, 80)
                 : "l"(a), "l"(b));
}

#undef FAISS_GMM_NAMES_32
#undef FAISS_GMM_NAMES_48
#undef FAISS_GMM_NAMES_64
#undef FAISS_GMM_NAMES_96
#undef FAISS_GMM_SUMS_4
#undef FAISS_GMM_SUMS_16

} // namespace faiss_gmm::cuda::hopper
