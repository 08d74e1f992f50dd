// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The collecting pass (collect.h) on any tensor core from compute capability 8.0 on: mma.sync and
// asynchronous copies, at most 81 KB of shared memory a block. Formulas and bounds: collect_bound.h;
// reference: collect_plain.cu; test: tests/train/cuda/collect_test.cu.
// Phases, for each row tile of 128 rows, by a block of 4 warps with 32 rows each:
//   (1) a warp prepares its rows: centred, scaled, rounded to fp16; up to 128 columns into shared memory,
//       wider ones into the block's scratch, from which the slices below bring them back;
//   (2) for each tile of 128 components: start values, then slices of 64 columns through a ring of
//       stages; a warp multiplies its 32 rows with all 128 components (128 accumulators a thread);
//   (3) harvest into lists (detail/collect_lists.cuh); (4) after the last tile, write the rows.
// Only the components' slices are shared between warps. Two blocks a multiprocessor hide (1), (3), (4).
// Cost: 2 n K width flops; reads n d once, the operand n / 128 times through L2.
// Determinism: gpu_to_gpu for one path; see collect.h.
#include <algorithm>

#include <cuda_runtime.h>

#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_lists.cuh"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps;
constexpr int strips = 2; // of 16 rows a warp
constexpr int warp_rows = 16 * strips;
constexpr int tile_rows = warps * warp_rows;
constexpr int slice = 64; // columns: 128 bytes a row, the eight 16-byte parts of a row swizzled
constexpr int slice_bytes = 128 * slice * 2; // of 128 rows or components
constexpr int resident_slices = 2;
constexpr int blocks_per_multiprocessor = 2;
constexpr int survey_components = 1024;

template <bool resident> constexpr int stages = resident ? 3 : 2;

template <bool resident> struct Shared {
    static constexpr int stage_bytes = resident ? slice_bytes : 2 * slice_bytes;
    alignas(128) unsigned char stage[stages<resident>][stage_bytes]; ///< components, then rows
    alignas(128) unsigned char rows[resident ? resident_slices * slice_bytes : 16];
    float f[tile_rows], q[tile_rows], threshold[tile_rows];
    uint32_t counts[tile_rows];
};

struct Arguments {
    CollectCall call;
    Rows rows;
    uint2* entries;  ///< [blocks, tile_rows, list_places], on a multiple of 256 bytes
    __half* scratch; ///< [blocks, tile_rows, padded_width]; not resident
    int32_t surveyed;
};

__device__ inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Byte of 16-byte part `part` of a row in a slice.
__device__ inline int swizzled(int row, int part) {
    return row * 128 + ((part ^ (row % 8)) * 16);
}

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

/// (1) for a warp's rows; `first_row` is the tile's.
template <CollectForm form, bool resident>
__device__ void bring_rows(
        const Arguments& arguments,
        const ModelScale& model_scale,
        Shared<resident>& shared,
        int64_t first_row) {
    const int first = threadIdx.x / 32 * warp_rows, d = arguments.rows.d;
    const size_t width = arguments.call.model.padded_width;
    __half* scratch = arguments.scratch + static_cast<size_t>(blockIdx.x) * tile_rows * width;
    constexpr int batch = resident ? 8 : 4;
    for (int row = first; row < first + warp_rows; row += batch) {
        const int64_t own = first_row + row;
        const int there = own < arguments.rows.n
                                  ? static_cast<int>(min(int64_t{batch}, arguments.rows.n - own))
                                  : 0;
        prepare_rows<form, batch>(
                arguments.call,
                model_scale,
                own,
                [&](int group, float(&y)[row_places][4]) {
                    arguments.rows.visit([&](auto* elements) {
                        load_places<batch>(
                                elements + (there > 0 ? own : 0) * d,
                                there,
                                group,
                                d,
                                arguments.rows.aligned,
                                y);
                    });
                },
                [&](int b, int column, const uint2& halves) {
                    if (resident) {
                        *reinterpret_cast<uint2*>(
                                shared.rows + column / slice * slice_bytes +
                                swizzled(row + b, column % slice / 8) + column % 8 * 2) = halves;
                    } else {
                        *reinterpret_cast<uint2*>(scratch + (row + b) * width + column) = halves;
                    }
                },
                [&](int b, const RowScale& scale, float threshold) {
                    shared.f[row + b] = scale.f;
                    shared.q[row + b] = scale.q;
                    shared.threshold[row + b] = start_of_threshold(scale, threshold);
                });
    }
    __syncwarp();
}

/// Asks for slice s of a component tile, and of this warp's rows where they are not in shared memory.
template <bool resident>
__device__ void
request_slice(const Arguments& arguments, Shared<resident>& shared, int stage, int tile, int s) {
    const CollectModel& model = arguments.call.model;
    const int width = model.padded_width;
    const __half* components = reinterpret_cast<const __half*>(model.operand) +
                               static_cast<size_t>(tile) * collect_tile * width;
    const uint32_t target = shared_address(shared.stage[stage]);
    const int part = threadIdx.x % 8, column = s * slice + part * 8;
    const bool exists = column < width;
#pragma unroll
    for (int row = threadIdx.x / 8; row < collect_tile; row += threads / 8) {
        copy_asynchronously(
                target + swizzled(row, part),
                exists ? components + static_cast<size_t>(row) * width + column : components,
                exists);
    }
    if (!resident) {
        const __half* rows =
                arguments.scratch + static_cast<size_t>(blockIdx.x) * tile_rows * width;
        const int first = threadIdx.x / 32 * warp_rows;
#pragma unroll
        for (int row = first + threadIdx.x % 32 / 8; row < first + warp_rows; row += 4) {
            copy_asynchronously(
                    target + slice_bytes + swizzled(row, part),
                    exists ? rows + static_cast<size_t>(row) * width + column : rows,
                    exists);
        }
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

template <CollectForm form, bool many, bool resident>
__global__ void __launch_bounds__(threads, blocks_per_multiprocessor)
        collect_by_warps(const __grid_constant__ Arguments arguments) {
    extern __shared__ __align__(128) unsigned char memory[];
    Shared<resident>& shared = *reinterpret_cast<Shared<resident>*>(memory);
    const CollectModel& model = arguments.call.model;
    const CollectInput& input = arguments.call.input;
    const ModelScale model_scale(model.scale);
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * warp_rows;
    const int row = first + lane / 4; // of strip 0, h = 0
    const int slices = (model.padded_width + slice - 1) / slice;
    const int last_steps = (model.padded_width - (slices - 1) * slice) / 16;
    const int tile_steps = arguments.surveyed + model.padded_K / collect_tile;
    const int all_slices = tile_steps * slices;
    const int64_t row_tiles = (input.n + tile_rows - 1) / tile_rows;
    const Lists lists{
            arguments.entries + static_cast<size_t>(blockIdx.x) * tile_rows * list_places,
            shared.counts,
            shared.threshold};
    const auto tile_of = [&](int step) {
        return step < arguments.surveyed ? step : step - arguments.surveyed;
    };
    for (int64_t row_tile = blockIdx.x; row_tile < row_tiles; row_tile += gridDim.x) {
        const int64_t first_row = row_tile * tile_rows;
        bring_rows<form>(arguments, model_scale, shared, first_row);
        const auto request = [&](int number) { // the slice of this number; none past the last
            if (number < all_slices) {
                request_slice(
                        arguments,
                        shared,
                        number % stages<resident>,
                        tile_of(number / slices),
                        number % slices);
            }
            close_copies();
        };
        for (int number = 0; number + 1 < stages<resident>; ++number) {
            request(number);
        }
        float f[strips][2], q[strips][2], threshold[strips][2];
        Part part[strips][2];
        Survey<many> survey[strips];
#pragma unroll
        for (int m = 0; m < strips; ++m) {
            survey[m].begin();
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int own = row + 16 * m + 8 * h;
                f[m][h] = shared.f[own];
                q[m][h] = shared.q[own];
                threshold[m][h] = shared.threshold[own];
                part[m][h].begin(lists.entry + own * list_places + lane % 4 * part_places);
            }
        }
        int number = 0;
        for (int step = 0; step < tile_steps; ++step) {
            // (2)
            const float* columns =
                    model.columns + static_cast<size_t>(tile_of(step)) * collect_columns;
            float score[strips][64];
#pragma unroll
            for (int j = 0; j < collect_tile / 8; ++j) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int place = 8 * j + 2 * (lane % 4) + i;
#pragma unroll
                    for (int m = 0; m < strips; ++m) {
#pragma unroll
                        for (int h = 0; h < 2; ++h) {
                            RowScale scale;
                            scale.f = f[m][h];
                            scale.q = q[m][h];
                            score[m][4 * j + 2 * h + i] = start_value<form>(columns, place, scale);
                        }
                    }
                }
            }
            for (int s = 0; s < slices; ++s, ++number) {
                wait_for_copies_but<stages<resident> - 2>();
                __syncthreads(); // this slice is here for all, the stage before it is free
                request(number + stages<resident> - 1);
                const unsigned char* stage = shared.stage[number % stages<resident>];
                multiply_slice(
                        score,
                        shared_address(
                                resident ? shared.rows + s * slice_bytes : stage + slice_bytes),
                        shared_address(stage),
                        s + 1 < slices ? slice / 16 : last_steps);
            }
            if (step < arguments.surveyed) {
#pragma unroll
                for (int m = 0; m < strips; ++m) {
                    survey[m].template see<collect_tile / 8>(score[m]);
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        if (step + 1 == arguments.surveyed) {
                            const float below =
                                    fmaf(input.margin,
                                         f[m][h],
                                         largest_gap<form>(model.scale, f[m][h], q[m][h]));
                            threshold[m][h] =
                                    fmaxf(threshold[m][h], survey[m].bound(h, input.rank) - below);
                        }
                    }
                }
                continue;
            }
            // (3)
            Errors errors;
#pragma unroll
            for (int e = 0; e < 3; ++e) {
                errors.factor[e] = columns[column_errors + e];
            }
#pragma unroll
            for (int m = 0; m < strips; ++m) {
                harvest<form, many, collect_tile / 8>(
                        score[m],
                        tile_of(step) * collect_tile,
                        errors,
                        input.margin,
                        f[m],
                        q[m],
                        threshold[m],
                        part[m]);
            }
        }
        // (4)
#pragma unroll
        for (int m = 0; m < strips; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int own = row + 16 * m + 8 * h;
                reinterpret_cast<uint8_t*>(&lists.counts[own])[lane % 4] = part[m][h].byte();
                if (lane % 4 == 0) {
                    lists.threshold[own] = threshold[m][h];
                }
            }
        }
        __syncwarp();
        if (many) {
            for (int own = first; own < first + warp_rows; ++own) {
                tighten(lists,
                        own,
                        input.rank,
                        fmaf(input.margin,
                             shared.f[own],
                             largest_gap<form>(model.scale, shared.f[own], shared.q[own])));
            }
        }
        if (first_row + first + lane < input.n) {
            write_row(arguments.call.output, first_row + first + lane, lists, first + lane);
        }
        __syncthreads(); // no warp still reads stages that the next tile's requests fill
    }
}

// ---- host

bool fits_shared(const CollectModel& model) {
    return model.padded_width <= resident_slices * slice;
}

size_t list_bytes() {
    return static_cast<size_t>(multiprocessors()) * blocks_per_multiprocessor * tile_rows *
           list_places * sizeof(uint2);
}

template <CollectForm form, bool many, bool resident>
void launch(const CollectCall& call, void* workspace, Stream stream) {
    const int64_t row_tiles = (call.input.n + tile_rows - 1) / tile_rows;
    const int64_t blocks =
            std::min<int64_t>(row_tiles, int64_t{multiprocessors()} * blocks_per_multiprocessor);
    Arguments arguments{};
    arguments.call = call;
    arguments.rows = rows_of(call);
    arguments.entries = static_cast<uint2*>(workspace);
    arguments.scratch =
            reinterpret_cast<__half*>(static_cast<unsigned char*>(workspace) + list_bytes());
    const int tiles = call.model.padded_K / collect_tile;
    if (many) {
        arguments.surveyed = tiles;
    } else if (call.input.hint == nullptr && call.model.K > collect_tile) {
        arguments.surveyed = std::min(tiles, survey_components / collect_tile);
    }
    const auto kernel = collect_by_warps<form, many, resident>;
    constexpr int bytes = sizeof(Shared<resident>);
    static_assert(bytes <= 99 * 1024, "a block's shared memory on compute capability 8.6 and 8.9");
    check_collect(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
            "asking for shared memory");
    kernel<<<static_cast<unsigned>(blocks), threads, bytes, stream>>>(arguments);
}

template <CollectForm form, bool many>
void launch(const CollectCall& call, void* workspace, Stream stream) {
    if (fits_shared(call.model)) {
        launch<form, many, true>(call, workspace, stream);
    } else {
        launch<form, many, false>(call, workspace, stream);
    }
}

template <CollectForm form> void launch(const CollectCall& call, void* workspace, Stream stream) {
    if (call.input.rank > 1) {
        launch<form, true>(call, workspace, stream);
    } else {
        launch<form, false>(call, workspace, stream);
    }
}

} // namespace

size_t collect_portable_workspace(const CollectModel& model) {
    const size_t blocks = static_cast<size_t>(multiprocessors()) * blocks_per_multiprocessor;
    return list_bytes() +
           (fits_shared(model) ? 0 : blocks * tile_rows * model.padded_width * sizeof(__half));
}

void collect_portable(const CollectCall& call, void* workspace, Stream stream) {
    switch (call.model.form) {
    case CollectForm::linear:
        launch<CollectForm::linear>(call, workspace, stream);
        break;
    case CollectForm::quadratic:
        launch<CollectForm::quadratic>(call, workspace, stream);
        break;
    case CollectForm::squares:
        launch<CollectForm::squares>(call, workspace, stream);
        break;
    }
}

} // namespace faiss_gmm::cuda
