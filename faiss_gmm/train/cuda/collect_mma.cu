// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The collecting products (collect.h) on any tensor core from compute capability 8.0 on: mma.sync and
// asynchronous copies, at most 81 KB of shared memory a block. Formulas and bounds: collect_bound.h;
// reference: collect_plain.cu; test: tests/train/cuda/collect_test.cu.
// For each row tile of 128 rows, by a block of 4 warps with 32 rows each, and each tile of 128
// components: start values, slices of 64 columns through a ring of stages (up to 128 columns the rows
// stay in shared memory, wider ones come again with every component tile), a warp multiplies its 32
// rows with all 128 components (128 accumulators a thread), then detail/collect_tile.cuh.
// Only the components' slices are shared between warps. Two blocks a multiprocessor hide the rest.
// Cost: 2 n K width flops; 2 n width bytes read once, the operand n / 128 times through L2. On an H100 1.12 ms for
//   (1M, 1024, 128), 235 TFLOP/s: 30% of what cuBLAS reaches there by wgmma.
// Determinism: gpu_to_gpu for one path; see collect.h.
#include <algorithm>

#include <cuda_runtime.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_tile.cuh"
#include "faiss_gmm/train/cuda/detail/copies.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps;
constexpr int strips = 2; // of 16 rows a warp
constexpr int warp_rows = 16 * strips;
constexpr int tile_rows = warps * warp_rows;
static_assert(wave_tile_rows % tile_rows == 0, "");
constexpr int slice = 64; // columns: 128 bytes a row, the eight 16-byte parts of a row swizzled
constexpr int slice_bytes = 128 * slice * 2; // of 128 rows or components
constexpr int resident_slices = 2;
constexpr int blocks_per_multiprocessor = 2;

template <bool resident> constexpr int stages = resident ? 3 : 2;

/// Two blocks a multiprocessor from 164 KB on (compute capability 8.0), 1 KB of each taken by the system.
constexpr int most_shared = (164 / 2 - 1) * 1024;

template <bool resident> struct Shared {
    static constexpr int stage_bytes = resident ? slice_bytes : 2 * slice_bytes;
    alignas(128) unsigned char stage[stages<resident>][stage_bytes]; ///< components, then rows
    alignas(128) unsigned char rows[resident ? resident_slices * slice_bytes : 16];
    float2 widest[warps];
};

struct Arguments {
    CollectCall call;
    CollectWave wave;
    int row_tiles, tiles, slices, last_steps;
};

/// Byte of 16-byte part `part` of a row in a slice.
__device__ inline int swizzled(int row, int part) {
    return row * 128 + ((part ^ (row % 8)) * 16);
}

__device__ inline void load_matrices(uint32_t (&registers)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
}

/// score[0 .. 3] += A [16, 16] B [8, 16]^T
__device__ inline void multiply(float* score, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(score[0]), "+f"(score[1]), "+f"(score[2]), "+f"(score[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Asks for slice s of rows [first, first + 128) of an operand.
__device__ inline void
request_slice(unsigned char* target, const __half* operand, int width, size_t first, int s) {
    const uint32_t shared = shared_address(target);
    const int part = threadIdx.x % 8, column = s * slice + part * 8;
    const bool exists = column < width;
    operand += first * width;
#pragma unroll
    for (int row = threadIdx.x / 8; row < 128; row += threads / 8) {
        copy_asynchronously(
                shared + swizzled(row, part),
                exists ? operand + static_cast<size_t>(row) * width + column : operand,
                exists);
    }
}

/// Products of one slice: `steps` times 16 columns.
__device__ inline void
multiply_slice(float (&score)[strips][64], uint32_t rows, uint32_t components, int steps) {
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * warp_rows;
#pragma unroll
    for (int step = 0; step < slice / 16; ++step) {
        if (step >= steps) {
            break;
        }
        uint32_t a[strips][4];
#pragma unroll
        for (int m = 0; m < strips; ++m) {
            load_matrices(a[m], rows + swizzled(first + 16 * m + lane % 16, 2 * step + lane / 16));
        }
#pragma unroll
        for (int pair = 0; pair < 8; ++pair) { // of eight components each
            uint32_t b[4];
            load_matrices(
                    b,
                    components +
                            swizzled(
                                    16 * pair + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < strips; ++m) {
                multiply(&score[m][8 * pair], a[m], b[0], b[1]);
                multiply(&score[m][8 * pair + 4], a[m], b[2], b[3]);
            }
        }
    }
}

template <CollectForm form, CollectStep step, bool resident>
__global__ void __launch_bounds__(threads, blocks_per_multiprocessor)
        multiply_by_warps(const __grid_constant__ Arguments arguments) {
    extern __shared__ __align__(128) unsigned char memory[];
    Shared<resident>& shared = *reinterpret_cast<Shared<resident>*>(memory);
    constexpr bool lists = step == CollectStep::list, grows = step == CollectStep::list_many;
    constexpr int all_stages = stages<resident>;
    const CollectCall& call = arguments.call;
    const CollectModel& model = call.model;
    const CollectWave& wave = arguments.wave;
    const __half* components = reinterpret_cast<const __half*>(model.operand);
    const __half* row_operand = reinterpret_cast<const __half*>(wave.operand);
    const int width = model.padded_width, slices = arguments.slices;
    const int lane = threadIdx.x % 32, own_rows = threadIdx.x / 32 * warp_rows;
    const int all_slices = arguments.tiles * slices;
    WarpLists own_lists[strips];
#pragma unroll
    for (int m = 0; m < strips; ++m) {
        const int strip = own_rows + 16 * m;
        own_lists[m] = {wave, static_cast<size_t>(blockIdx.x) * tile_rows + strip, false};
    }
    if (lists && form == CollectForm::linear && call.output.rest != nullptr) {
        shared.widest[threadIdx.x / 32] = widest_errors(model);
    }
    for (int row_tile = blockIdx.x; row_tile < arguments.row_tiles; row_tile += gridDim.x) {
        const size_t tile_first = static_cast<size_t>(row_tile) * tile_rows;
        const int first = row_tile * tile_rows + own_rows;
        const auto request = [&](int number) { // the slice of this number; none past the last
            if (number < all_slices) {
                unsigned char* stage = shared.stage[number % all_stages];
                const size_t component = static_cast<size_t>(number / slices) * collect_tile;
                const int s = number % slices;
                request_slice(stage, components, width, component, s);
                if (!resident) {
                    request_slice(stage + slice_bytes, row_operand, width, tile_first, s);
                } else if (number < slices) {
                    request_slice(shared.rows + s * slice_bytes, row_operand, width, tile_first, s);
                }
            }
            close_copies();
        };
        for (int number = 0; number + 1 < all_stages; ++number) {
            request(number);
        }
        TwoRows rows[strips];
        Survey<step == CollectStep::survey_many> survey[strips];
        GrowingLists growing[strips];
        TwoLists listed[strips];
#pragma unroll
        for (int m = 0; m < strips; ++m) {
            rows[m].load(wave, first + 16 * m + lane / 4);
            survey[m].begin();
        }
        int number = 0;
        for (int tile = 0; tile < arguments.tiles; ++tile) {
            const float* columns = model.columns + static_cast<size_t>(tile) * collect_columns;
            float errors[3] = {};
            if (lists && form != CollectForm::squares) {
#pragma unroll
                for (int e = 0; e < 3; ++e) {
                    errors[e] = columns[column_errors + e];
                }
            }
            float score[strips][64];
#pragma unroll
            for (int m = 0; m < strips; ++m) {
                start_scores<form>(columns, rows[m], score[m]);
            }
            for (int s = 0; s < slices; ++s, ++number) {
                wait_for_copies_but<all_stages - 2>();
                __syncthreads(); // this slice is here for all, the stage before it is free
                request(number + all_stages - 1);
                const unsigned char* stage = shared.stage[number % all_stages];
                multiply_slice(
                        score,
                        shared_address(
                                resident ? shared.rows + s * slice_bytes : stage + slice_bytes),
                        shared_address(stage),
                        s + 1 < slices ? slice / 16 : arguments.last_steps);
            }
#pragma unroll
            for (int m = 0; m < strips; ++m) {
                if (lists) {
                    listed[m].template list_candidates<form>(
                            model,
                            score[m],
                            tile,
                            common_scale<form>(columns),
                            errors,
                            rows[m],
                            own_lists[m]);
                } else if (grows) {
                    growing[m].template grow<form>(
                            call,
                            wave,
                            score[m],
                            tile,
                            common_scale<form>(columns),
                            rows[m],
                            first + 16 * m + lane / 4);
                } else {
                    survey[m].template see_tile<form>(
                            score[m],
                            columns + column_errors,
                            own_columns(model, tile),
                            rows[m],
                            arguments.tiles);
                }
            }
        }
        // In the stage that the slice before the last one has left.
        auto* const work = reinterpret_cast<ListWork*>(shared.stage[number % all_stages]);
#pragma unroll
        for (int m = 0; m < strips; ++m) {
            if (lists) {
                write_lists<form>(
                        call,
                        wave,
                        first + 16 * m,
                        rows[m],
                        listed[m].of_quad(),
                        own_lists[m],
                        nullptr,
                        own_lists[m],
                        true,
                        shared.widest[threadIdx.x / 32],
                        work + 16 * (threadIdx.x / 32));
            } else if (grows) {
                growing[m].end(call, wave, rows[m], first + 16 * m + lane / 4);
            } else {
                survey[m].end();
                const float bound[2] = {
                        survey[m].bound(0, call.input.rank), survey[m].bound(1, call.input.rank)};
                raise_thresholds<form>(call, wave, first + 16 * m + lane / 4, rows[m], bound);
            }
        }
        __syncthreads(); // no warp still reads stages that the next tile's requests fill
    }
}

// ---- host

template <CollectForm form, CollectStep step, bool resident>
void launch(const Arguments& arguments, Stream stream) {
    const auto kernel = multiply_by_warps<form, step, resident>;
    constexpr int bytes = sizeof(Shared<resident>);
    static_assert(!resident || bytes <= most_shared, "two blocks on compute capability 8.0");
    static_assert(bytes <= 99 * 1024, "a block's shared memory on compute capability 8.6 and 8.9");
    check_collect(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
            "asking for shared memory");
    const int blocks = std::min(arguments.row_tiles, multiprocessors() * blocks_per_multiprocessor);
    kernel<<<blocks, threads, bytes, stream>>>(arguments);
}

} // namespace

void multiply_portable(
        const CollectCall& call, CollectStep step, const CollectWave& wave, Stream stream) {
    Arguments arguments{};
    arguments.call = call;
    arguments.wave = wave;
    arguments.row_tiles = (wave.rows + tile_rows - 1) / tile_rows;
    arguments.tiles = call.model.padded_K / collect_tile;
    arguments.slices = (call.model.padded_width + slice - 1) / slice;
    arguments.last_steps = (call.model.padded_width - (arguments.slices - 1) * slice) / 16;
    with_form_and_step(call.model.form, step, [&](auto form, auto of_step) {
        if (arguments.slices <= resident_slices) {
            launch<form(), of_step(), true>(arguments, stream);
        } else {
            launch<form(), of_step(), false>(arguments, stream);
        }
    });
}

} // namespace faiss_gmm::cuda
