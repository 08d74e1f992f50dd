// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The collecting pass (collect.h) on Hopper: one persistent block a multiprocessor, specialised warps.
// Reference: collect_plain.cu. Bounds: collect_bound.h. Test: tests/train/cuda/collect_test.cu.
#include <cuda.h>
#include <cuda_runtime.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_lists.cuh"
#include "faiss_gmm/train/cuda/detail/collect_rows.cuh"
#include "faiss_gmm/train/cuda/detail/hopper.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int threads = 384;      // a warpgroup that brings, two that multiply
constexpr int bringing_warps = 3; // of the first warpgroup; the fourth starts bulk copies
constexpr int slice = 64;         // columns of the operands that one stage holds: 128 bytes a row
constexpr int slice_row_bytes = 128;
constexpr int resident_slices = 2; // rows up to 128 columns wide stay in shared memory
constexpr int column_stages = 3;
// A block starts with 168 a thread, the most that 384 threads can have, and hands over no more than that.
constexpr int producer_registers = 104, consumer_registers = 200;
static_assert(producer_registers + 2 * consumer_registers <= 3 * 168, "more would wait forever");
constexpr int rows_barrier = 3; // named barriers: 1 and 2 are the turns

enum class RowsIn { shared, scratch };

template <RowsIn place> struct Shape {
    static constexpr bool resident = place == RowsIn::shared;
    static constexpr int strips = resident ? 2 : 1;         ///< of 64 rows a warpgroup
    static constexpr int rows = 128 * strips;               ///< of a row tile
    static constexpr int components = resident ? 128 : 256; ///< of a component tile
    static constexpr int stages = resident ? 5 : 4;
    static constexpr int row_slice_bytes = rows * slice_row_bytes;
    static constexpr int component_slice_bytes = components * slice_row_bytes;
    static constexpr int stage_bytes = component_slice_bytes + (resident ? 0 : row_slice_bytes);
    static constexpr int columns = components / collect_tile * collect_columns; ///< floats
    static constexpr int accumulators = components / 2;
};

template <RowsIn place> struct Shared {
    using S = Shape<place>;
    alignas(1024) unsigned char stage[S::stages][S::stage_bytes];
    alignas(1024) unsigned char rows[S::resident ? 2 : 1]
                                    [S::resident ? resident_slices * S::row_slice_bytes : 16];
    alignas(16) float columns[column_stages][S::columns];
    float f[2][S::rows], q[2][S::rows], threshold[2][S::rows];
    uint32_t count[2][S::rows];
    uint64_t full[S::stages], empty[S::stages];
    uint64_t columns_full[column_stages], columns_empty[column_stages];
    uint64_t rows_full[2], rows_done[2];
};

struct Arguments {
    CollectCall call;
    Rows rows;
    uint2* entries;  ///< [blocks, 2, rows, list_places]
    __half* scratch; ///< [blocks, 2, rows, padded_width]; RowsIn::scratch
};

/// A stage of a ring and the parity of its phase.
template <int stages> struct Ring {
    int stage = 0;
    uint32_t parity = 0;
    __device__ void advance() {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

template <RowsIn place>
__device__ Lists lists_of(const Arguments& arguments, Shared<place>& shared, int buffer) {
    constexpr size_t rows = Shape<place>::rows;
    return {arguments.entries + (size_t{2} * blockIdx.x + buffer) * rows * list_places,
            shared.count[buffer],
            shared.threshold[buffer]};
}

// ---- the warp that starts copies

/// Asks for a row tile to be in L2 by the time it is read.
__device__ void prefetch_rows(const Rows& rows, int64_t first_row, int64_t count) {
    if (first_row >= rows.n) {
        return;
    }
    const int64_t last_row = first_row + count < rows.n ? first_row + count : rows.n;
    const uintptr_t data = reinterpret_cast<uintptr_t>(rows.data);
    const uintptr_t row_bytes = static_cast<uintptr_t>(rows.d) * rows.element_bytes;
    uintptr_t from = (data + first_row * row_bytes + 15) & ~uintptr_t{15};
    const uintptr_t to = (data + last_row * row_bytes) & ~uintptr_t{15};
    constexpr uintptr_t piece = 16384;
    for (; from < to; from += piece) {
        hopper::prefetch_bytes(
                reinterpret_cast<const void*>(from),
                static_cast<uint32_t>(to - from < piece ? to - from : piece));
    }
}

template <RowsIn place>
__device__ void copy_operands(
        const Arguments& arguments,
        Shared<place>& shared,
        const CUtensorMap* component_map,
        const CUtensorMap* row_map,
        int64_t row_tiles) {
    using S = Shape<place>;
    const CollectModel& model = arguments.call.model;
    const int slices = (model.padded_width + slice - 1) / slice;
    const int tiles = model.padded_K / S::components;
    Ring<S::stages> ring;
    Ring<column_stages> columns;
    hopper::prefetch_tensor_map(component_map);
    int iteration = 0;
    for (int64_t row_tile = blockIdx.x; row_tile < row_tiles; row_tile += gridDim.x, ++iteration) {
        const int buffer = iteration % 2;
        prefetch_rows(arguments.rows, (row_tile + 2 * gridDim.x) * S::rows, S::rows);
        if (!S::resident) {
            hopper::wait(&shared.rows_full[buffer], iteration / 2 % 2);
            hopper::fence_for_async_proxy();
        }
        for (int tile = 0; tile < tiles; ++tile) {
            hopper::wait(&shared.columns_empty[columns.stage], columns.parity ^ 1);
            uint64_t* columns_full = &shared.columns_full[columns.stage];
            hopper::arrive_expecting(columns_full, S::columns * sizeof(float));
            hopper::copy_bytes(
                    shared.columns[columns.stage],
                    model.columns + static_cast<size_t>(tile) * S::columns,
                    S::columns * sizeof(float),
                    columns_full);
            columns.advance();
            for (int s = 0; s < slices; ++s) {
                hopper::wait(&shared.empty[ring.stage], ring.parity ^ 1);
                uint64_t* full = &shared.full[ring.stage];
                unsigned char* stage = shared.stage[ring.stage];
                hopper::arrive_expecting(full, S::stage_bytes);
                hopper::copy_box(stage, component_map, s * slice, tile * S::components, full);
                if (!S::resident) {
                    hopper::copy_box(
                            stage + S::component_slice_bytes,
                            row_map,
                            s * slice,
                            (2 * blockIdx.x + buffer) * S::rows,
                            full);
                }
                ring.advance();
            }
        }
    }
}

// ---- the warps that bring rows and take lists away

/// What the warps that multiply must know of a row.
template <CollectForm form, RowsIn place>
__device__ void publish_row(
        const Arguments& arguments,
        Shared<place>& shared,
        int buffer,
        int row,
        const RowScale& scale,
        bool hinted,
        uint32_t hint,
        float product) {
    float threshold = open;
    if (scale.f == 0) {
        threshold = closed;
    } else if (hinted) {
        const float found = threshold_from_hint<form>(
                hint, product, scale, arguments.call.input.margin, arguments.call.model.columns);
        threshold = fmaxf(open, found); // a hint of weight zero: -infinity
    }
    shared.f[buffer][row] = scale.f;
    shared.q[buffer][row] = scale.q;
    shared.threshold[buffer][row] = threshold;
    shared.count[buffer][row] = 0;
}

__device__ inline bool hint_of(const CollectCall& call, int64_t i, uint32_t& hint) {
    hint = 0;
    if (call.input.hint == nullptr || call.input.rank != 1 || i >= call.input.n) {
        return false;
    }
    hint = call.input.hint[i];
    const bool valid = hint < static_cast<uint32_t>(call.model.K);
    hint = valid ? hint : 0;
    return valid;
}

/// Rows up to 128 columns wide, eight at a time: lane l holds dimensions 4 l .. 4 l + 3.
template <CollectForm form>
__device__ void bring_rows(
        const Arguments& arguments,
        Shared<RowsIn::shared>& shared,
        int buffer,
        int64_t first_row,
        int bringing_warp) {
    using S = Shape<RowsIn::shared>;
    constexpr int batch = 8;
    const CollectModel& model = arguments.call.model;
    const Rows& source = arguments.rows;
    const __half* operand = reinterpret_cast<const __half*>(model.operand);
    const int lane = threadIdx.x % 32, at = 4 * lane, d = model.d;
    const int second = squares_offset(d), width = model.padded_width;
    const float ratio = form == CollectForm::squares ? model.scale[scale_squares_ratio] : 0.0f;
    float origin[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        origin[i] = at + i < d ? model.origin[at + i] : 0.0f;
    }
    unsigned char* target = shared.rows[buffer];
    for (int row = bringing_warp * batch; row < S::rows; row += bringing_warps * batch) {
        float y[batch][4];
        source.visit([&](auto* elements) {
#pragma unroll
            for (int b = 0; b < batch; ++b) {
                const int64_t i = first_row + row + b;
                if (i < source.n) {
                    load_four(elements + i * d, at, d, source.aligned, y[b]);
                } else {
                    y[b][0] = y[b][1] = y[b][2] = y[b][3] = CUDART_NAN_F;
                }
            }
        });
        // Lane l looks after row l / 4 of the eight.
        uint32_t hint = 0;
        const bool hinted = hint_of(arguments.call, first_row + row + lane / 4, hint);
        float squares[batch], products[batch], fourths[batch];
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            float w[4] = {0, 0, 0, 0}, w2[4] = {0, 0, 0, 0};
            const uint32_t k = __shfl_sync(all_lanes, hint, 4 * b);
            if (arguments.call.input.hint != nullptr && at < d) {
                const __half* component = operand + static_cast<size_t>(k) * width;
                load_four_halves(component + at, w);
                if (form == CollectForm::squares) {
                    load_four_halves(component + second + at, w2);
                }
            }
            squares[b] = products[b] = fourths[b] = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float v = y[b][i] - origin[i];
                y[b][i] = v;
                squares[b] = fmaf(v, v, squares[b]);
                if (form == CollectForm::squares) {
                    // Past d, and within the same four, stand the squares: v is 0 there.
                    products[b] = fmaf(v, w[i], products[b]);
                    products[b] = fmaf(v * v * ratio, w2[i], products[b]);
                    fourths[b] = fmaf(v * v, v * v, fourths[b]);
                } else {
                    products[b] = fmaf(v, w[i], products[b]);
                }
            }
        }
        const float sum_of_squares = warp_sums(squares), product = warp_sums(products);
        const float sum_of_fourths = form == CollectForm::squares ? warp_sums(fourths) : 0.0f;
        const RowScale scale = row_scale<form>(sum_of_squares, sum_of_fourths, model.scale);
        if (lane % 4 == 0) {
            publish_row<form>(
                    arguments, shared, buffer, row + lane / 4, scale, hinted, hint, product);
        }
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            const float F = __shfl_sync(all_lanes, scale.F, 4 * b);
            const bool usable = F != 0;
            const auto store = [&](int column, const uint2& halves) {
                const int place = (row + b) * slice_row_bytes +
                                  ((column % slice / 8 * 16) ^ (b * 16)) + column % 8 * 2;
                *reinterpret_cast<uint2*>(target + column / slice * S::row_slice_bytes + place) =
                        halves;
            };
            const uint2 nothing = make_uint2(0, 0);
            if (at < (form == CollectForm::squares ? second : width)) {
                store(at, usable ? four_halves(y[b], F) : nothing);
            }
            if (form == CollectForm::squares) {
                const float F2 = __shfl_sync(all_lanes, scale.F2, 4 * b);
                if (second + at < width) {
                    const float squared[4] = {
                            y[b][0] * y[b][0],
                            y[b][1] * y[b][1],
                            y[b][2] * y[b][2],
                            y[b][3] * y[b][3]};
                    store(second + at, usable ? four_halves(squared, F2) : nothing);
                }
            }
        }
    }
    hopper::fence_for_async_proxy();
}

/// Wider rows, one at a time, into this block's scratch; rows wider than the registers are read twice.
template <CollectForm form>
__device__ void bring_rows(
        const Arguments& arguments,
        Shared<RowsIn::scratch>& shared,
        int buffer,
        int64_t first_row,
        int bringing_warp) {
    using S = Shape<RowsIn::scratch>;
    constexpr int kept = 4; // chunks of 128 dimensions that stay in registers
    const CollectModel& model = arguments.call.model;
    const Rows& source = arguments.rows;
    const __half* operand = reinterpret_cast<const __half*>(model.operand);
    const int lane = threadIdx.x % 32, d = model.d, width = model.padded_width;
    const int second = squares_offset(d);
    const bool read_once = d <= kept * 128;
    const bool origin_aligned = d % 4 == 0 && reinterpret_cast<uintptr_t>(model.origin) % 16 == 0;
    const float ratio = form == CollectForm::squares ? model.scale[scale_squares_ratio] : 0.0f;
    __half* target =
            arguments.scratch + (size_t{2} * blockIdx.x + buffer) * S::rows * model.padded_width;
    // Dimensions group + 128 c + 4 lane .. of row i, zero from d on.
    const auto load_centred = [&](int64_t i, int group, float(&y)[kept][4]) {
        source.visit([&](auto* elements) {
#pragma unroll
            for (int c = 0; c < kept; ++c) {
                load_four(elements + i * d, group + 128 * c + 4 * lane, d, source.aligned, y[c]);
            }
        });
#pragma unroll
        for (int c = 0; c < kept; ++c) {
            float origin[4];
            load_four(model.origin, group + 128 * c + 4 * lane, d, origin_aligned, origin);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                y[c][j] -= origin[j];
            }
        }
    };
    for (int row = bringing_warp; row < S::rows; row += bringing_warps) {
        const int64_t i = first_row + row;
        const bool exists = i < source.n;
        uint32_t hint = 0;
        const bool hinted = hint_of(arguments.call, i, hint);
        const __half* component = operand + static_cast<size_t>(hint) * width;
        float y[kept][4];
        float squares = exists ? 0.0f : CUDART_NAN_F, fourths = 0, product = 0;
        for (int group = 0; exists && group < d; group += kept * 128) {
            load_centred(i, group, y);
#pragma unroll
            for (int c = 0; c < kept; ++c) {
                const int at = group + 128 * c + 4 * lane;
                float w[4] = {0, 0, 0, 0}, w2[4] = {0, 0, 0, 0};
                if (hinted && at < width) {
                    load_four_halves(component + at, w);
                    if (form == CollectForm::squares && second + at < width) {
                        load_four_halves(component + second + at, w2);
                    }
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float v = y[c][j]; // zero from d on
                    squares = fmaf(v, v, squares);
                    product = fmaf(v, w[j], product);
                    if (form == CollectForm::squares) {
                        product = fmaf(v * v * ratio, w2[j], product);
                        fourths = fmaf(v * v, v * v, fourths);
                    }
                }
            }
        }
        squares = warp_sum_of(squares);
        product = warp_sum_of(product);
        fourths = form == CollectForm::squares ? warp_sum_of(fourths) : 0.0f;
        const RowScale scale = row_scale<form>(squares, fourths, model.scale);
        if (lane == 0) {
            publish_row<form>(arguments, shared, buffer, row, scale, hinted, hint, product);
        }
        __half* out = target + static_cast<size_t>(row) * width;
        const bool usable = scale.F != 0;
        for (int group = 0; group < width; group += kept * 128) {
            if (!read_once && usable) {
                load_centred(i, group, y);
            }
#pragma unroll
            for (int c = 0; c < kept; ++c) {
                const int at = group + 128 * c + 4 * lane;
                const bool inside = usable && at < d; // of no use, or past a row read once: zeros
                const uint2 nothing = make_uint2(0, 0);
                if (at < (form == CollectForm::squares ? second : width)) {
                    *reinterpret_cast<uint2*>(out + at) =
                            inside ? four_halves(y[c], scale.F) : nothing;
                }
                if (form == CollectForm::squares && second + at < width) {
                    const float squared[4] = {
                            y[c][0] * y[c][0],
                            y[c][1] * y[c][1],
                            y[c][2] * y[c][2],
                            y[c][3] * y[c][3]};
                    *reinterpret_cast<uint2*>(out + second + at) =
                            inside ? four_halves(squared, scale.F2) : nothing;
                }
            }
        }
    }
    hopper::fence_for_async_proxy();
}

template <RowsIn place>
__device__ void take_lists(
        const Arguments& arguments,
        Shared<place>& shared,
        int buffer,
        int64_t first_row,
        int thread) {
    const Lists lists = lists_of(arguments, shared, buffer);
    for (int row = thread; row < Shape<place>::rows; row += bringing_warps * 32) {
        if (first_row + row < arguments.rows.n) {
            write_row(arguments.call.output, first_row + row, lists, row);
        }
    }
}

template <CollectForm form, RowsIn place>
__device__ void serve_rows(const Arguments& arguments, Shared<place>& shared, int64_t row_tiles) {
    constexpr int rows = Shape<place>::rows;
    const int thread = threadIdx.x - 32, warp = thread / 32;
    const auto sync_bringing = [] {
        asm volatile("bar.sync %0, %1;" ::"n"(rows_barrier), "n"(bringing_warps * 32) : "memory");
    };
    int iteration = 0;
    int64_t row_tile = blockIdx.x;
    const int64_t step = gridDim.x;
    for (; row_tile < row_tiles; row_tile += step, ++iteration) {
        const int buffer = iteration % 2;
        if (iteration >= 2) {
            hopper::wait(&shared.rows_done[buffer], (iteration / 2 - 1) % 2);
            take_lists(arguments, shared, buffer, (row_tile - 2 * step) * rows, thread);
            sync_bringing(); // thresholds and counts are read: they may be overwritten
        }
        bring_rows<form>(arguments, shared, buffer, row_tile * rows, warp);
        __syncwarp();
        if (thread % 32 == 0) {
            hopper::arrive(&shared.rows_full[buffer]);
        }
    }
    for (int left = min(iteration, 2); left > 0; --left) {
        const int past = iteration - left, buffer = past % 2;
        hopper::wait(&shared.rows_done[buffer], past / 2 % 2);
        take_lists(arguments, shared, buffer, (row_tile - left * step) * rows, thread);
    }
}

// ---- the warpgroups that multiply

template <int registers> __device__ void hold(float (&accumulator)[registers]) {
#pragma unroll
    for (int i = 0; i < registers; ++i) {
        asm volatile("" : "+f"(accumulator[i])::"memory");
    }
}

/// U without the product, for both rows of a thread and all its columns.
template <CollectForm form, RowsIn place>
__device__ void start_scores(
        const float* __restrict__ columns,
        const float (&f)[Shape<place>::strips][2],
        const float (&q)[Shape<place>::strips][2],
        float (&score)[Shape<place>::strips][Shape<place>::accumulators]) {
    using S = Shape<place>;
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int j = 0; j < S::components / 8; ++j) {
        const float* tile = columns + j / 16 * collect_columns;
        const int place_in_tile = j % 16 * 8 + first;
        const float2 base = *reinterpret_cast<const float2*>(tile + column_base + place_in_tile);
        const float bound = tile[column_bound + j % 16];
        float2 quadratic = make_float2(0, 0);
        if (form == CollectForm::quadratic) {
            quadratic = *reinterpret_cast<const float2*>(tile + column_quadratic + place_in_tile);
        }
#pragma unroll
        for (int m = 0; m < S::strips; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float low = fmaf(base.x, f[m][h], bound), high = fmaf(base.y, f[m][h], bound);
                if (form == CollectForm::quadratic) {
                    low = fmaf(-quadratic.x, q[m][h], low);
                    high = fmaf(-quadratic.y, q[m][h], high);
                }
                score[m][4 * j + 2 * h] = low;
                score[m][4 * j + 2 * h + 1] = high;
            }
        }
    }
}

/// rank > 1: thresholds from the lists themselves, where they have grown or (last) for all.
template <CollectForm form, RowsIn place>
__device__ void prune_lists(
        const Errors& errors,
        float margin,
        int rank,
        bool last,
        const float (&f)[Shape<place>::strips][2],
        const float (&q)[Shape<place>::strips][2],
        float (&threshold)[Shape<place>::strips][2],
        const Lists& lists,
        int row) {
    const int from = last ? rank : max(prune_from, rank);
#pragma unroll 1
    for (int e = 0; e < 2 * Shape<place>::strips; ++e) {
        const int own = row + 64 * (e / 2) + 8 * (e % 2);
        float own_threshold = 0, below = 0;
#pragma unroll
        for (int m = 0; m < Shape<place>::strips; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                if (e == 2 * m + h) {
                    own_threshold = threshold[m][h];
                    below = fmaf(margin, f[m][h], gap<form>(errors, f[m][h], q[m][h]));
                }
            }
        }
        if (threadIdx.x % 4 == 0) {
            lists.threshold[own] = own_threshold;
        }
        __syncwarp();
        unsigned long_lists = __ballot_sync(
                all_lanes, threadIdx.x % 4 == 0 && lists.count[own] > static_cast<unsigned>(from));
        while (long_lists != 0) {
            const int lane = __ffs(long_lists) - 1;
            long_lists &= long_lists - 1;
            prune(lists,
                  __shfl_sync(all_lanes, own, lane),
                  rank,
                  __shfl_sync(all_lanes, below, lane));
        }
        own_threshold = lists.threshold[own];
#pragma unroll
        for (int m = 0; m < Shape<place>::strips; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                threshold[m][h] = e == 2 * m + h ? own_threshold : threshold[m][h];
            }
        }
    }
}

template <CollectForm form, RowsIn place>
__device__ void
multiply_rows(const Arguments& arguments, Shared<place>& shared, int64_t row_tiles, int group) {
    using S = Shape<place>;
    constexpr bool in_turns = S::resident;
    const CollectModel& model = arguments.call.model;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int row = group * 64 * S::strips + warp * 16 + lane / 4;
    const int slices = (model.padded_width + slice - 1) / slice;
    const int last_steps = (model.padded_width - (slices - 1) * slice) / 16;
    const int tiles = model.padded_K / S::components;
    const float margin = arguments.call.input.margin;
    const int rank = arguments.call.input.rank;
    const auto release = [&](uint64_t* barrier) {
        __syncwarp();
        if (lane == 0) {
            hopper::arrive(barrier);
        }
    };
    Ring<S::stages> ring;
    Ring<column_stages> columns;
    float score[S::strips][S::accumulators];
    if (in_turns && group == 1) {
        hopper::give_turn(1);
    }
    int iteration = 0;
    for (int64_t row_tile = blockIdx.x; row_tile < row_tiles; row_tile += gridDim.x, ++iteration) {
        const int buffer = iteration % 2;
        const bool last_row_tile = row_tile + gridDim.x >= row_tiles;
        const Lists lists = lists_of(arguments, shared, buffer);
        hopper::wait(&shared.rows_full[buffer], iteration / 2 % 2);
        float f[S::strips][2], q[S::strips][2], threshold[S::strips][2];
#pragma unroll
        for (int m = 0; m < S::strips; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int own = row + 64 * m + 8 * h;
                f[m][h] = shared.f[buffer][own];
                q[m][h] = form == CollectForm::quadratic ? shared.q[buffer][own] : 0.0f;
                threshold[m][h] = shared.threshold[buffer][own];
            }
        }
        Errors largest; // of all tiles so far, rank > 1
        for (int tile = 0; tile < tiles; ++tile) {
            hopper::wait(&shared.columns_full[columns.stage], columns.parity);
            const float* tile_columns = shared.columns[columns.stage];
            Errors errors;
#pragma unroll
            for (int e = 0; e < 3; ++e) {
                errors.factor[e] = tile_columns[column_errors + e];
                if (S::components == 2 * collect_tile) {
                    errors.factor[e] = fmaxf(
                            errors.factor[e], tile_columns[collect_columns + column_errors + e]);
                }
                largest.factor[e] = fmaxf(largest.factor[e], errors.factor[e]);
            }
            start_scores<form, place>(tile_columns, f, q, score);
            release(&shared.columns_empty[columns.stage]);
            columns.advance();
#pragma unroll
            for (int m = 0; m < S::strips; ++m) {
                hold(score[m]);
            }
            if (in_turns) {
                hopper::wait_for_turn(1 + group);
            }
            int previous = 0;
#pragma unroll 1
            for (int s = 0; s < slices; ++s) {
                hopper::wait(&shared.full[ring.stage], ring.parity);
                const unsigned char* stage = shared.stage[ring.stage];
                const unsigned char* rows_at =
                        (S::resident ? shared.rows[buffer] + s * S::row_slice_bytes
                                     : stage + S::component_slice_bytes) +
                        group * 64 * S::strips * slice_row_bytes;
                const uint64_t a = hopper::operand_descriptor(rows_at);
                const uint64_t b = hopper::operand_descriptor(stage);
                const auto multiply = [&](int step) {
#pragma unroll
                    for (int m = 0; m < S::strips; ++m) {
                        hopper::multiply_asynchronously(
                                score[m],
                                hopper::advanced(a, step) +
                                        static_cast<uint64_t>(m * 64 * slice_row_bytes >> 4),
                                hopper::advanced(b, step));
                    }
                };
                // Straight lines: in a loop of unknown length products would wait for each other.
                switch (s + 1 < slices ? slice / 16 : last_steps) {
                case 1:
                    hopper::begin_products();
                    multiply(0);
                    break;
                case 2:
                    hopper::begin_products();
                    multiply(0);
                    multiply(1);
                    break;
                case 3:
                    hopper::begin_products();
                    multiply(0);
                    multiply(1);
                    multiply(2);
                    break;
                default:
                    hopper::begin_products();
                    multiply(0);
                    multiply(1);
                    multiply(2);
                    multiply(3);
                    break;
                }
                hopper::close_group();
                if (s > 0) {
                    hopper::wait_for_all_but<1>();
                    release(&shared.empty[previous]);
                }
                previous = ring.stage;
                ring.advance();
            }
            if (in_turns && !(group == 1 && last_row_tile && tile + 1 == tiles)) {
                hopper::give_turn(2 - group);
            }
            hopper::wait_for_all_but<0>();
            release(&shared.empty[previous]);
#pragma unroll
            for (int m = 0; m < S::strips; ++m) {
                hold(score[m]);
            }
#pragma unroll
            for (int m = 0; m < S::strips; ++m) {
                harvest<form, S::components / 8>(
                        score[m],
                        tile * S::components,
                        errors,
                        margin,
                        rank,
                        f[m],
                        q[m],
                        threshold[m],
                        lists,
                        row + 64 * m);
            }
            if (rank > 1) {
                prune_lists<form, place>(
                        largest, margin, rank, tile + 1 == tiles, f, q, threshold, lists, row);
            }
        }
        if (lane % 4 == 0) {
#pragma unroll
            for (int m = 0; m < S::strips; ++m) {
                lists.threshold[row + 64 * m] = threshold[m][0];
                lists.threshold[row + 64 * m + 8] = threshold[m][1];
            }
        }
        release(&shared.rows_done[buffer]);
    }
}

template <CollectForm form, RowsIn place>
__global__ void __launch_bounds__(threads, 1) collect_by_warpgroups(
        const __grid_constant__ Arguments arguments,
        const __grid_constant__ CUtensorMap component_map,
        const __grid_constant__ CUtensorMap row_map) {
    extern __shared__ unsigned char memory[];
    using S = Shape<place>;
    // The swizzle of copies and products repeats every 1,024 bytes.
    const uint32_t skipped = (0u - hopper::shared_address(memory)) % 1024;
    Shared<place>& shared = *reinterpret_cast<Shared<place>*>(memory + skipped);
    const int64_t row_tiles = (arguments.rows.n + S::rows - 1) / S::rows;
    if (S::resident) {
        for (size_t i = threadIdx.x; i < sizeof(shared.rows) / 16; i += threads) {
            reinterpret_cast<uint4*>(shared.rows)[i] = make_uint4(0, 0, 0, 0);
        }
        hopper::fence_for_async_proxy();
    }
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::stages; ++i) {
            hopper::init_barrier(&shared.full[i], 1);
            hopper::init_barrier(&shared.empty[i], 8);
        }
        for (int i = 0; i < column_stages; ++i) {
            hopper::init_barrier(&shared.columns_full[i], 1);
            hopper::init_barrier(&shared.columns_empty[i], 8);
        }
        for (int i = 0; i < 2; ++i) {
            hopper::init_barrier(&shared.rows_full[i], bringing_warps);
            hopper::init_barrier(&shared.rows_done[i], 8);
        }
        hopper::fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        hopper::give_registers<producer_registers>();
        if (threadIdx.x >= 32) {
            serve_rows<form>(arguments, shared, row_tiles);
        } else if (threadIdx.x == 0) {
            copy_operands(arguments, shared, &component_map, &row_map, row_tiles);
        }
    } else {
        hopper::take_registers<consumer_registers>();
        // The shuffle tells the compiler that a warp has one group: no divergence around the products.
        const int group = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x / 128) - 1, 0);
        multiply_rows<form>(arguments, shared, row_tiles, group);
    }
}

// ---- host

CUtensorMap tensor_map(const void* data, uint64_t columns, uint64_t rows, uint32_t box_rows) {
    static const auto encode = [] {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult result{};
        check_collect(
                cudaGetDriverEntryPointByVersion(
                        "cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result),
                "asking the driver for cuTensorMapEncodeTiled");
        return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
    }();
    CUtensorMap map;
    const cuuint64_t extent[2] = {columns, rows};
    const cuuint64_t stride[1] = {columns * sizeof(__half)};
    const cuuint32_t box[2] = {slice, box_rows}, step[2] = {1, 1};
    const CUresult result =
            encode(&map,
                   CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                   2,
                   const_cast<void*>(data),
                   extent,
                   stride,
                   box,
                   step,
                   CU_TENSOR_MAP_INTERLEAVE_NONE,
                   CU_TENSOR_MAP_SWIZZLE_128B,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS) {
        throw Error(
                {"collecting candidates on the GPU: describing an operand to the copy engine",
                 "driver error " + std::to_string(static_cast<int>(result)),
                 "operands on 16-byte boundaries",
                 "choose the portable path"});
    }
    return map;
}

bool fits_shared(const CollectModel& model) {
    return model.padded_width <= resident_slices * slice;
}

template <RowsIn place> size_t list_bytes(size_t blocks) {
    return blocks * 2 * Shape<place>::rows * list_places * sizeof(uint2);
}

template <CollectForm form, RowsIn place>
void launch(const CollectCall& call, void* workspace, Stream stream) {
    using S = Shape<place>;
    const int blocks = multiprocessors();
    const int64_t row_tiles = (call.input.n + S::rows - 1) / S::rows;
    Arguments arguments{};
    arguments.call = call;
    arguments.rows = rows_of(call);
    arguments.entries = static_cast<uint2*>(workspace);
    arguments.scratch = reinterpret_cast<__half*>(
            static_cast<unsigned char*>(workspace) + list_bytes<place>(blocks));
    const CollectModel& model = call.model;
    const CUtensorMap components =
            tensor_map(model.operand, model.padded_width, model.padded_K, S::components);
    const CUtensorMap rows = S::resident ? components
                                         : tensor_map(
                                                   arguments.scratch,
                                                   model.padded_width,
                                                   uint64_t{2} * blocks * S::rows,
                                                   S::rows);
    const auto kernel = collect_by_warpgroups<form, place>;
    constexpr int bytes = sizeof(Shared<place>) + 1024;
    static_assert(bytes <= 227 * 1024, "a block's shared memory on compute capability 9.0");
    check_collect(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
            "asking for shared memory");
    kernel<<<
            static_cast<unsigned>(row_tiles < blocks ? row_tiles : blocks),
            threads,
            bytes,
            stream>>>(arguments, components, rows);
}

template <CollectForm form> void launch(const CollectCall& call, void* workspace, Stream stream) {
    if (fits_shared(call.model)) {
        launch<form, RowsIn::shared>(call, workspace, stream);
    } else {
        launch<form, RowsIn::scratch>(call, workspace, stream);
    }
}

} // namespace

size_t collect_hopper_workspace(const CollectModel& model) {
    const size_t blocks = multiprocessors();
    if (fits_shared(model)) {
        return list_bytes<RowsIn::shared>(blocks);
    }
    return list_bytes<RowsIn::scratch>(blocks) +
           blocks * 2 * Shape<RowsIn::scratch>::rows * model.padded_width * sizeof(__half);
}

void collect_hopper(const CollectCall& call, void* workspace, Stream stream) {
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
