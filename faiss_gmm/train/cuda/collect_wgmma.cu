// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The collecting pass (collect.h) on Hopper: one persistent block a multiprocessor, specialised warps.
// Reference: collect_plain.cu. Bounds: collect_bound.h. Test: tests/train/cuda/collect_test.cu.
#include <algorithm>
#include <string>

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
constexpr int column_stages = 2;
constexpr int feed_bytes = 8192;        // of rows on their way, a bringing warp
constexpr int survey_components = 1024; // enough for a threshold that few later ones exceed
// A block starts with 168 a thread, the most that 384 threads can have, and hands over no more than that.
constexpr int producer_registers = 120, consumer_registers = 192;
static_assert(producer_registers + 2 * consumer_registers <= 3 * 168, "more would wait forever");
constexpr int rows_barrier = 3; // named barriers: 1 and 2 are the turns

enum class RowsIn { shared, scratch };

template <RowsIn place> struct Shape {
    static constexpr bool resident = place == RowsIn::shared;
    static constexpr int strips = resident ? 2 : 1;         ///< of 64 rows a warpgroup
    static constexpr int rows = 128 * strips;               ///< of a row tile
    static constexpr int components = resident ? 128 : 256; ///< of a component tile
    static constexpr int stages = 4;
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
    alignas(16) unsigned char feed[bringing_warps][feed_bytes];
    alignas(16) float columns[column_stages][S::columns];
    float f[2][S::rows], q[2][S::rows], threshold[2][S::rows];
    uint32_t counts[2][S::rows];
    uint64_t full[S::stages], empty[S::stages];
    uint64_t columns_full[column_stages], columns_empty[column_stages];
    uint64_t rows_full[2], rows_done[2];
    uint64_t feed_full[bringing_warps][2];
};

struct Arguments {
    CollectCall call;
    Rows rows;
    uint2* entries;   ///< [blocks, 2, rows, list_places], on a multiple of 256 bytes
    __half* scratch;  ///< [blocks, 2, rows, padded_width]; RowsIn::scratch
    int32_t surveyed; ///< component tiles that are multiplied once before, for thresholds
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
            shared.counts[buffer],
            shared.threshold[buffer]};
}

// ---- the warp that starts copies

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
    const int steps = arguments.surveyed + model.padded_K / S::components;
    Ring<S::stages> ring;
    Ring<column_stages> columns;
    hopper::prefetch_tensor_map(component_map);
    int iteration = 0;
    for (int64_t row_tile = blockIdx.x; row_tile < row_tiles; row_tile += gridDim.x, ++iteration) {
        const int buffer = iteration % 2;
        if (!S::resident) {
            hopper::wait(&shared.rows_full[buffer], iteration / 2 % 2);
            hopper::fence_for_async_proxy();
        }
        for (int step = 0; step < steps; ++step) {
            const int tile = step < arguments.surveyed ? step : step - arguments.surveyed;
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

__device__ inline void sync_bringing_warps() {
    asm volatile("bar.sync %0, %1;" ::"n"(rows_barrier), "n"(bringing_warps * 32) : "memory");
}

/// Rows of one bringing warp, batch after batch and row tile after row tile, copied to shared memory
/// while earlier ones are worked on. Batches that a bulk copy cannot bring (odd addresses, the last
/// rows) are left to ordinary loads.
template <RowsIn place> class Feed {
    using S = Shape<place>;

public:
    __device__ Feed(const Rows& rows, Shared<place>& shared, int warp, int batch)
            : rows_(rows), bytes_(shared.feed[warp]), full_(shared.feed_full[warp]), batch_(batch),
              batch_bytes_(batch * rows.d * rows.element_bytes),
              slots_(2 * batch_bytes_ <= feed_bytes ? 2 : 1), first_offset_(warp * batch),
              offset_(first_offset_), row_tile_(blockIdx.x) {
        possible_ = batch_bytes_ <= feed_bytes && batch_bytes_ % 16 == 0 &&
                    reinterpret_cast<uintptr_t>(rows.data) % 16 == 0;
        for (int slot = 0; slot < slots_; ++slot) {
            request();
        }
    }
    __device__ bool brings(int64_t first_row) const {
        return possible_ && first_row + batch_ <= rows_.n;
    }
    /// Waits for the next batch and says which half of the feed it is in; only where brings().
    __device__ int slot() const {
        hopper::wait(&full_[used_.stage], used_.parity);
        return used_.stage;
    }
    /// All lanes have read the batch, or did without.
    __device__ void next(bool brought) {
        __syncwarp();
        if (brought) {
            advance(used_);
        }
        request();
    }

private:
    __device__ void advance(Ring<2>& ring) {
        ring.advance();
        if (slots_ == 1 && ring.stage == 1) {
            ring.advance();
        }
    }
    __device__ void request() {
        const int64_t first_row = row_tile_ * S::rows + offset_;
        if (brings(first_row)) {
            if (threadIdx.x % 32 == 0) {
                uint64_t* full = &full_[requested_.stage];
                hopper::arrive_expecting(full, batch_bytes_);
                hopper::copy_bytes(
                        bytes_ + requested_.stage * (feed_bytes / 2),
                        static_cast<const unsigned char*>(rows_.data) +
                                first_row * rows_.d * rows_.element_bytes,
                        batch_bytes_,
                        full);
            }
            advance(requested_);
        }
        offset_ += bringing_warps * batch_;
        if (offset_ >= S::rows) {
            offset_ = first_offset_;
            row_tile_ += gridDim.x;
        }
    }

    const Rows& rows_;
    unsigned char* bytes_;
    uint64_t* full_;
    int batch_, batch_bytes_, slots_, first_offset_, offset_;
    int64_t row_tile_;
    bool possible_;
    Ring<2> requested_, used_;
};

/// What the warps that multiply must know of a row.
template <RowsIn place>
__device__ void
publish_row(Shared<place>& shared, int buffer, int row, const RowScale& scale, float threshold) {
    shared.f[buffer][row] = scale.f;
    shared.q[buffer][row] = scale.q;
    shared.threshold[buffer][row] = start_of_threshold(scale, threshold);
}

constexpr int batch_in_shared = 8;

/// Rows up to 128 columns wide, eight at a time: lane l holds dimensions 4 l .. 4 l + 3.
template <CollectForm form>
__device__ void bring_rows(
        const Arguments& arguments,
        const ModelScale& model_scale,
        Shared<RowsIn::shared>& shared,
        Feed<RowsIn::shared>& feed,
        int buffer,
        int64_t first_row,
        int bringing_warp) {
    using S = Shape<RowsIn::shared>;
    constexpr int batch = batch_in_shared;
    const CollectCall& call = arguments.call;
    const CollectModel& model = call.model;
    const Rows& source = arguments.rows;
    const __half* operand = reinterpret_cast<const __half*>(model.operand);
    const int lane = threadIdx.x % 32, at = 4 * lane, d = model.d;
    const int second = squares_offset(d), width = model.padded_width;
    const uint32_t none = static_cast<uint32_t>(model.K);
    const bool with_hints = call.input.hint != nullptr;
    float origin[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        origin[i] = at + i < d ? model.origin[at + i] : 0.0f;
    }
    unsigned char* target = shared.rows[buffer];
    // Lane l looks after row l / 4 of the eight.
    uint32_t next_hint = hint_of(call, first_row + bringing_warp * batch + lane / 4);
    for (int row = bringing_warp * batch; row < S::rows; row += bringing_warps * batch) {
        const uint32_t hint = next_hint;
        next_hint = hint_of(call, first_row + row + bringing_warps * batch + lane / 4);
        // Loaded whether or not there is a hint: see prepare_rows().
        const uint32_t component = hint < none ? hint : 0;
        HintedComponent<form> hinted;
        uint2 w[batch], w2[batch];
        if (with_hints) {
            hinted.load(model.columns, component);
#pragma unroll
            for (int b = 0; b < batch; ++b) {
                const uint32_t k = __shfl_sync(all_lanes, component, 4 * b);
                const __half* from = operand + static_cast<size_t>(k) * width + (at < d ? at : 0);
                w[b] = *reinterpret_cast<const uint2*>(from);
                if (form == CollectForm::squares) {
                    w2[b] = *reinterpret_cast<const uint2*>(from + second);
                }
            }
        }
        float y[batch][4];
        const bool brought = feed.brings(first_row + row);
        if (brought) {
            const unsigned char* bytes =
                    shared.feed[bringing_warp] + feed.slot() * (feed_bytes / 2);
            source.visit([&](auto* elements) {
                using Element = decltype(elements);
#pragma unroll
                for (int b = 0; b < batch; ++b) {
                    load_four(reinterpret_cast<Element>(bytes) + b * d, at, d, d % 4 == 0, y[b]);
                }
            });
        } else {
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
        }
        feed.next(brought);
        float squares[batch], products[batch], fourths[batch];
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            float own[4] = {0, 0, 0, 0}, own2[4] = {0, 0, 0, 0};
            if (with_hints) {
                split_halves(w[b], own);
                if (form == CollectForm::squares) {
                    split_halves(w2[b], own2);
                }
            }
            squares[b] = products[b] = fourths[b] = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float v = y[b][i] - origin[i]; // zero from d on
                y[b][i] = v;
                squares[b] = fmaf(v, v, squares[b]);
                products[b] = fmaf(v, own[i], products[b]);
                if (form == CollectForm::squares) {
                    products[b] = fmaf(v * v * model_scale.ratio, own2[i], products[b]);
                    fourths[b] = fmaf(v * v, v * v, fourths[b]);
                }
            }
        }
        const float sum_of_squares = warp_sums(squares), product = warp_sums(products);
        const float sum_of_fourths = form == CollectForm::squares ? warp_sums(fourths) : 0.0f;
        const RowScale scale = row_scale<form>(sum_of_squares, sum_of_fourths, model_scale);
        if (lane % 4 == 0) {
            publish_row(
                    shared,
                    buffer,
                    row + lane / 4,
                    scale,
                    hint < none ? hinted.threshold(product, scale, call.input.margin) : open);
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

/// Rows of a batch where they go through the scratch: as many, up to four, as half the feed holds.
__device__ inline int batch_in_scratch(const Rows& rows) {
    const int fit = feed_bytes / 2 / (rows.d * rows.element_bytes);
    return fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

/// Wider rows into this block's scratch: read twice, from shared memory where the feed brings them.
template <CollectForm form, int batch>
__device__ void bring_batches(
        const Arguments& arguments,
        const ModelScale& model_scale,
        Shared<RowsIn::scratch>& shared,
        Feed<RowsIn::scratch>& feed,
        int buffer,
        int64_t first_row,
        int bringing_warp) {
    using S = Shape<RowsIn::scratch>;
    const CollectCall& call = arguments.call;
    const Rows& source = arguments.rows;
    const int d = source.d;
    const size_t width = call.model.padded_width;
    __half* target = arguments.scratch + (size_t{2} * blockIdx.x + buffer) * S::rows * width;
    for (int row = bringing_warp * batch; row < S::rows; row += bringing_warps * batch) {
        const int64_t first = first_row + row;
        const bool brought = feed.brings(first);
        const int slot = brought ? feed.slot() : 0;
        const int there =
                first < source.n ? static_cast<int>(min(int64_t{batch}, source.n - first)) : 0;
        prepare_rows<form, batch>(
                call,
                model_scale,
                first,
                [&](int group, float(&y)[row_places][4]) {
                    source.visit([&](auto* elements) {
                        using Element = decltype(elements);
                        if (brought) {
                            load_places<batch>(
                                    reinterpret_cast<Element>(
                                            shared.feed[bringing_warp] + slot * (feed_bytes / 2)),
                                    batch,
                                    group,
                                    d,
                                    d % 4 == 0,
                                    y);
                        } else {
                            load_places<batch>(
                                    elements + (there > 0 ? first : 0) * d,
                                    there,
                                    group,
                                    d,
                                    source.aligned,
                                    y);
                        }
                    });
                },
                [&](int b, int column, const uint2& halves) {
                    *reinterpret_cast<uint2*>(target + (row + b) * width + column) = halves;
                },
                [&](int b, const RowScale& scale, float threshold) {
                    publish_row(shared, buffer, row + b, scale, threshold);
                });
        feed.next(brought);
    }
}

template <CollectForm form>
__device__ void bring_rows(
        const Arguments& arguments,
        const ModelScale& model_scale,
        Shared<RowsIn::scratch>& shared,
        Feed<RowsIn::scratch>& feed,
        int buffer,
        int64_t first_row,
        int bringing_warp) {
    switch (batch_in_scratch(arguments.rows)) {
    case 4:
        bring_batches<form, 4>(
                arguments, model_scale, shared, feed, buffer, first_row, bringing_warp);
        break;
    case 2:
        bring_batches<form, 2>(
                arguments, model_scale, shared, feed, buffer, first_row, bringing_warp);
        break;
    default:
        bring_batches<form, 1>(
                arguments, model_scale, shared, feed, buffer, first_row, bringing_warp);
        break;
    }
    hopper::fence_for_async_proxy();
}

template <CollectForm form, bool many, RowsIn place>
__device__ void take_lists(
        const Arguments& arguments,
        Shared<place>& shared,
        int buffer,
        int64_t first_row,
        int thread) {
    constexpr int rows = Shape<place>::rows;
    const CollectInput& input = arguments.call.input;
    const Lists lists = lists_of(arguments, shared, buffer);
    if (many) {
        for (int row = thread / 32; row < rows; row += bringing_warps) {
            const float f = shared.f[buffer][row], q = shared.q[buffer][row];
            const float below =
                    fmaf(input.margin, f, largest_gap<form>(arguments.call.model.scale, f, q));
            tighten(lists, row, input.rank, below);
        }
        sync_bringing_warps();
    }
    for (int row = thread; row < rows; row += bringing_warps * 32) {
        if (first_row + row < arguments.rows.n) {
            write_row(arguments.call.output, first_row + row, lists, row);
        }
    }
}

template <CollectForm form, bool many, RowsIn place>
__device__ void serve_rows(const Arguments& arguments, Shared<place>& shared, int64_t row_tiles) {
    constexpr int rows = Shape<place>::rows;
    const int thread = threadIdx.x - 32, warp = thread / 32;
    const ModelScale model_scale(arguments.call.model.scale);
    Feed<place> feed(
            arguments.rows,
            shared,
            warp,
            Shape<place>::resident ? batch_in_shared : batch_in_scratch(arguments.rows));
    int iteration = 0;
    int64_t row_tile = blockIdx.x;
    const int64_t step = gridDim.x;
    for (; row_tile < row_tiles; row_tile += step, ++iteration) {
        const int buffer = iteration % 2;
        if (iteration >= 2) {
            hopper::wait(&shared.rows_done[buffer], (iteration / 2 - 1) % 2);
            take_lists<form, many>(arguments, shared, buffer, (row_tile - 2 * step) * rows, thread);
            sync_bringing_warps(); // thresholds are read: they may be overwritten
        }
        bring_rows<form>(arguments, model_scale, shared, feed, buffer, row_tile * rows, warp);
        __syncwarp();
        if (thread % 32 == 0) {
            hopper::arrive(&shared.rows_full[buffer]);
        }
    }
    for (int left = min(iteration, 2); left > 0; --left) {
        const int past = iteration - left, buffer = past % 2;
        hopper::wait(&shared.rows_done[buffer], past / 2 % 2);
        take_lists<form, many>(arguments, shared, buffer, (row_tile - left * step) * rows, thread);
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

template <CollectForm form, bool many, RowsIn place>
__device__ void
multiply_rows(const Arguments& arguments, Shared<place>& shared, int64_t row_tiles, int group) {
    using S = Shape<place>;
    constexpr bool in_turns = S::resident;
    const CollectModel& model = arguments.call.model;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int row = group * 64 * S::strips + warp * 16 + lane / 4;
    const int slices = (model.padded_width + slice - 1) / slice;
    const int last_steps = (model.padded_width - (slices - 1) * slice) / 16;
    const int steps = arguments.surveyed + model.padded_K / S::components;
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
        Part part[S::strips][2];
        Survey<many> survey[S::strips];
#pragma unroll
        for (int m = 0; m < S::strips; ++m) {
            survey[m].begin();
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int own = row + 64 * m + 8 * h;
                part[m][h].begin(lists.entry + own * list_places + lane % 4 * part_places);
            }
        }
        for (int step = 0; step < steps; ++step) {
            const bool surveying = step < arguments.surveyed;
            const int tile = surveying ? step : step - arguments.surveyed;
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
                const auto multiply = [&](int part) {
#pragma unroll
                    for (int m = 0; m < S::strips; ++m) {
                        hopper::multiply_asynchronously(
                                score[m],
                                hopper::advanced(a, part) +
                                        static_cast<uint64_t>(m * 64 * slice_row_bytes >> 4),
                                hopper::advanced(b, part));
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
                    if (in_turns && s + 1 == slices) {
                        hopper::close_group();
                    }
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
            // The others' products start when little is left of these: both at once would end together,
            // and so would leave the tensor cores idle together.
            if (in_turns && !(group == 1 && last_row_tile && step + 1 == steps)) {
                hopper::give_turn(2 - group);
            }
            hopper::wait_for_all_but<0>();
            release(&shared.empty[previous]);
#pragma unroll
            for (int m = 0; m < S::strips; ++m) {
                hold(score[m]);
            }
            if (surveying) {
#pragma unroll
                for (int m = 0; m < S::strips; ++m) {
                    survey[m].template see<S::components / 8>(score[m]);
                }
                if (step + 1 == arguments.surveyed) {
#pragma unroll
                    for (int m = 0; m < S::strips; ++m) {
#pragma unroll
                        for (int h = 0; h < 2; ++h) {
                            const float below =
                                    fmaf(margin,
                                         f[m][h],
                                         largest_gap<form>(model.scale, f[m][h], q[m][h]));
                            threshold[m][h] =
                                    fmaxf(threshold[m][h], survey[m].bound(h, rank) - below);
                        }
                    }
                }
                continue;
            }
#pragma unroll
            for (int m = 0; m < S::strips; ++m) {
                harvest<form, many, S::components / 8>(
                        score[m],
                        tile * S::components,
                        errors,
                        margin,
                        f[m],
                        q[m],
                        threshold[m],
                        part[m]);
            }
        }
#pragma unroll
        for (int m = 0; m < S::strips; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int own = row + 64 * m + 8 * h;
                reinterpret_cast<uint8_t*>(&lists.counts[own])[lane % 4] = part[m][h].byte();
                if (lane % 4 == 0) {
                    lists.threshold[own] = threshold[m][h];
                }
            }
        }
        release(&shared.rows_done[buffer]);
    }
}

template <CollectForm form, bool many, RowsIn place>
__global__ void __launch_bounds__(threads, 1) collect_by_warpgroups(
        const __grid_constant__ Arguments arguments,
        const __grid_constant__ CUtensorMap component_map,
        const __grid_constant__ CUtensorMap row_map) {
    // The swizzle of copies and products repeats every 1,024 bytes.
    extern __shared__ __align__(1024) unsigned char memory[];
    using S = Shape<place>;
    Shared<place>& shared = *reinterpret_cast<Shared<place>*>(memory);
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
            for (int warp = 0; warp < bringing_warps; ++warp) {
                hopper::init_barrier(&shared.feed_full[warp][i], 1);
            }
        }
        hopper::fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        hopper::give_registers<producer_registers>();
        if (threadIdx.x >= 32) {
            serve_rows<form, many>(arguments, shared, row_tiles);
        } else if (threadIdx.x == 0) {
            copy_operands(arguments, shared, &component_map, &row_map, row_tiles);
        }
    } else {
        hopper::take_registers<consumer_registers>();
        // The shuffle tells the compiler that a warp has one group: no divergence around the products.
        const int group = __shfl_sync(all_lanes, static_cast<int>(threadIdx.x / 128) - 1, 0);
        multiply_rows<form, many>(arguments, shared, row_tiles, group);
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

template <CollectForm form, bool many, RowsIn place>
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
    const int tiles = model.padded_K / S::components;
    if (many) {
        arguments.surveyed = tiles;
    } else if (call.input.hint == nullptr && model.K > S::components) {
        arguments.surveyed = std::min(tiles, survey_components / S::components);
    }
    const CUtensorMap components =
            tensor_map(model.operand, model.padded_width, model.padded_K, S::components);
    const CUtensorMap rows = S::resident ? components
                                         : tensor_map(
                                                   arguments.scratch,
                                                   model.padded_width,
                                                   uint64_t{2} * blocks * S::rows,
                                                   S::rows);
    const auto kernel = collect_by_warpgroups<form, many, place>;
    constexpr int bytes = sizeof(Shared<place>);
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

template <CollectForm form, bool many>
void launch(const CollectCall& call, void* workspace, Stream stream) {
    if (fits_shared(call.model)) {
        launch<form, many, RowsIn::shared>(call, workspace, stream);
    } else {
        launch<form, many, RowsIn::scratch>(call, workspace, stream);
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
