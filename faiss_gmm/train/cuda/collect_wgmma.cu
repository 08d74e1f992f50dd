// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The collecting products (collect.h) on Hopper: one persistent block a multiprocessor, one thread
// that starts bulk copies, four warpgroups that multiply. Formulas and bounds: collect_bound.h;
// reference: collect_plain.cu; test: tests/train/cuda/collect_test.cu.
// Operands come in slices of 64 columns. Components come slice by slice through a ring of stages, a
//   tile's start values with its first slice. Two shapes:
//   slots   up to 128 columns: 256 rows, 64 a warpgroup, times 128 components; the rows' slices stay in
//           shared memory, two tiles': the next one comes while this one is multiplied. A kernel for each
//           number of columns where an E-step needs it, for descriptors and waits between products are issue slots.
//   stages  wider, and surveys that no E-step with hints needs: 128 rows times 256 components, two warpgroups a half of
//           either; the rows' slices come again with every tile. (256 rows a block, 65 MB of them at d = 960, leave L2:
//           5.3 ms.)
// Each warpgroup by itself, for each component tile: start values, 64 x 128 products, what
//   detail/collect_tile.cuh does with the scores. Four of them share the tensor cores.
// Measured on an H200 at (1M, 1024, 128), where cuBLAS reaches 763 TFLOP/s: survey .40 ms (655), list
//   .485 (540); K = 4,096: 1.55 (690) and 1.90; d = 960: 2.7 (720) and 3.3. On an H100, where it reaches 776: survey .40
//   (655, 84%), list .53 (495, 64%) with one candidate a row and .88 with 12 (of 120 places), settle .47.
//   bench/results/bench_estep.md.
// Cost: 2 n K width flops, 2 n width bytes read once, the operand n / 256 times through L2 (wide rows:
//   n / 128 times, and the rows K / 256 times).
// Determinism: gpu_to_gpu for one path; a row's list depends on the row, its threshold and the model.
// Lost: rows brought, cast and their lists taken away by warps of this kernel (three of them could not
//   keep up: half of the time was waiting for rows; 1.58 ms for (1M, 1024, 128)); two warpgroups of 128
//   x 128 that took turns by barriers; turns of these four (a turn ends when a tile's products are issued, or
//   done): 5 and 8% more time, 10 and 14% at K = 4,096; turns of two pairs, handed over when 1, 2 or 3 of
//   eight products are left: 5%; two warpgroups with the scores of two halves each, one looked at while the
//   other is multiplied: no better, whichever way. A survey takes .40 ms in all of them.
#include <algorithm>
#include <string>

#include <cuda.h>
#include <cuda_runtime.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_tile.cuh"
#include "faiss_gmm/train/cuda/detail/hopper.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int groups = 4;                   // warpgroups that multiply
constexpr int threads = 128 * (1 + groups); // the first one's first thread copies
constexpr int slice = 64;                   // columns of the operands
constexpr int slice_row_bytes = 2 * slice;
constexpr int column_bytes = collect_columns * sizeof(float);
constexpr int consumers_barrier = 1;
constexpr int consumer_warps = 4 * groups;
// A block starts with 96 a thread, the most that 640 threads can have, and hands over no more than that.
constexpr int producer_registers = 24, consumer_registers = 112;
static_assert(producer_registers + groups * consumer_registers <= (1 + groups) * 96, "");

/// `steps`: of 16 columns, of rows that stay in slots; 0: any number, of rows in stages.
template <int steps> struct Shape {
    static constexpr bool resident = steps > 0;
    static constexpr int slices = (steps + 3) / 4;            ///< slots of a row tile
    static constexpr int component_groups = resident ? 1 : 2; ///< of warpgroups, a tile each
    static constexpr int row_groups = groups / component_groups;
    static constexpr int tile_rows = 64 * row_groups;
    static constexpr int components = collect_tile * component_groups;
    static constexpr int row_slice_bytes = tile_rows * slice_row_bytes;
    static constexpr int component_slice_bytes = components * slice_row_bytes;
    static constexpr int row_slots = resident ? 2 * slices : 1;
    static constexpr int row_slot_bytes = resident ? row_slice_bytes : 1024;
    static constexpr int stages = resident ? 5 : 4;
    static constexpr int stage_bytes = component_slice_bytes + (resident ? 0 : row_slice_bytes);
    static_assert(wave_tile_rows % tile_rows == 0, "");
};

template <int steps> struct Shared {
    using S = Shape<steps>;
    alignas(1024) unsigned char stage[S::stages][S::stage_bytes]; ///< components, then rows
    alignas(1024) unsigned char rows[S::row_slots][S::row_slot_bytes];
    /// With a tile's first slice.
    alignas(16) float columns[S::stages][S::component_groups][collect_columns];
    int marked[S::component_groups][S::tile_rows]; ///< tiles, of each half of the components
    struct OfLists {
        ListWork work[consumer_warps][16];
        float2 widest[consumer_warps];
        Listed listed[S::component_groups][S::component_groups == 1 ? 1 : S::tile_rows];
    };
    union {
        OfLists of_lists;
        /// A survey's, of the second half of the components.
        float seen[S::component_groups == 1 ? 1 : S::tile_rows][Survey<true>::seen_values];
    };
    uint64_t full[S::stages], empty[S::stages];
    uint64_t rows_full[S::row_slots], rows_empty[S::row_slots];
};

struct Arguments {
    CollectCall call;
    CollectWave wave;
    CollectWave open; ///< settling: where open rows go
    int tiles, slices;
    bool half_slice; ///< the last slice has at most 32 columns
};

/// Row tiles of a wave's rows.
template <int steps> FAISS_GMM_ON_BOTH int tiles_of(const CollectWave& wave) {
    using S = Shape<steps>;
    const int tiles = (wave.rows + S::tile_rows - 1) / S::tile_rows;
    return wave.number == nullptr ? tiles : std::min(wave.rows, wave.open_tiles);
}

template <CollectStep step, int steps>
__device__ void copy_operands(
        const Arguments& arguments,
        Shared<steps>& shared,
        const CUtensorMap* component_map,
        const CUtensorMap* row_map) {
    using S = Shape<steps>;
    hopper::Ring<S::stages> ring;
    hopper::Ring<S::row_slots> slots;
    hopper::prefetch_tensor_map(component_map);
    hopper::prefetch_tensor_map(row_map);
    CollectWave wave = arguments.wave;
    wave.rows = rows_at_work<step>(wave);
    const int row_tiles = tiles_of<steps>(wave);
    for (int row_tile = blockIdx.x; row_tile < row_tiles; row_tile += gridDim.x) {
        if (S::resident) {
            for (int s = 0; s < arguments.slices; ++s) {
                hopper::wait(&shared.rows_empty[slots.place], slots.parity ^ 1);
                uint64_t* full = &shared.rows_full[slots.place];
                hopper::arrive_expecting(full, S::row_slice_bytes);
                hopper::copy_box(
                        shared.rows[slots.place],
                        row_map,
                        s * slice,
                        row_tile * S::tile_rows,
                        full);
                slots.advance();
            }
        }
        for (int tile = 0; tile < arguments.tiles; tile += S::component_groups) {
            const int column_sets = min(S::component_groups, arguments.tiles - tile);
            for (int s = 0; s < arguments.slices; ++s) {
                hopper::wait(&shared.empty[ring.place], ring.parity ^ 1);
                uint64_t* full = &shared.full[ring.place];
                unsigned char* stage = shared.stage[ring.place];
                const int with_columns = s == 0 ? column_sets * column_bytes : 0;
                hopper::arrive_expecting(full, S::stage_bytes + with_columns);
                hopper::copy_box(stage, component_map, s * slice, tile * collect_tile, full);
                if (s == 0) {
                    hopper::copy_bytes(
                            shared.columns[ring.place],
                            arguments.call.model.columns +
                                    static_cast<size_t>(tile) * collect_columns,
                            with_columns,
                            full);
                }
                if (!S::resident) {
                    hopper::copy_box(
                            stage + S::component_slice_bytes,
                            row_map,
                            s * slice,
                            row_tile * S::tile_rows,
                            full);
                }
                ring.advance();
            }
        }
    }
}

/// `steps` times 16 columns.
template <int steps>
__device__ inline void multiply_slice(float (&score)[64], uint64_t rows, uint64_t components) {
#pragma unroll
    for (int step = 0; step < steps; ++step) {
        hopper::multiply_asynchronously(
                score, hopper::advanced(rows, step), hopper::advanced(components, step));
    }
}

template <CollectForm form, CollectStep step, int steps>
__device__ void multiply_rows(const Arguments& arguments, Shared<steps>& shared, int group) {
    using S = Shape<steps>;
    constexpr bool lists = step == CollectStep::list, settles = step == CollectStep::settle;
    constexpr bool many = step == CollectStep::list_many, marks = many && S::component_groups > 1;
    constexpr bool surveys = !lists && !many && !settles;
    const CollectCall& call = arguments.call;
    CollectWave wave = arguments.wave;
    wave.rows = rows_at_work<step>(wave);
    const int row_tiles = tiles_of<steps>(wave);
    const int lane = threadIdx.x % 32, row_group = group % S::row_groups;
    const int component_group = group / S::row_groups;
    const int strip = row_group * 4 + threadIdx.x % 128 / 32;
    const size_t first_at_once = static_cast<size_t>(blockIdx.x) * S::tile_rows + 16 * strip;
    const WarpLists own_lists{wave, first_at_once, component_group > 0};
    const auto meet = [&] { // the other half of the components
        if (S::component_groups > 1) {
            hopper::meet<consumers_barrier, 128 * groups>();
        }
    };
    const int warp = S::component_groups * strip + component_group;
    if (lists && form == CollectForm::linear && call.output.rest != nullptr) {
        shared.of_lists.widest[warp] = widest_errors(call.model);
    }
    hopper::Ring<S::stages> ring;
    hopper::Ring<S::row_slots> slots; // of the row tile's first slice
    float score[64];
    for (int row_tile = blockIdx.x; row_tile < row_tiles; row_tile += gridDim.x) {
        const int first = row_tile * S::tile_rows + 16 * strip;
        TwoRows rows;
        rows.load(wave, first + lane / 4);
        Survey<step == CollectStep::survey_many> survey;
        survey.begin();
        MarkedTiles marked;
        GrowingLists growing;
        LoneSurvey lone_survey;
        lone_survey.begin();
        TwoLists listed;
        for (int tile = component_group; tile < arguments.tiles + component_group;
             tile += S::component_groups) {
            hopper::wait(&shared.full[ring.place], ring.parity);
            const float* columns = shared.columns[ring.place][component_group];
            start_scores<form>(columns, rows, score);
            float errors[3] = {};
            if ((surveys || lists) && form != CollectForm::squares) {
#pragma unroll
                for (int e = 0; e < 3; ++e) {
                    errors[e] = columns[column_errors + e];
                }
            }
            const float scale = surveys ? 1.0f : common_scale<form>(columns);
            hopper::hold(score);
            if constexpr (S::resident) {
                hopper::Ring<S::stages> at[S::slices];
#pragma unroll
                for (int s = 0; s < S::slices; ++s) {
                    at[s] = ring;
                    ring.advance();
                    if (s > 0) {
                        hopper::wait(&shared.full[at[s].place], at[s].parity);
                    }
                    if (tile == 0) {
                        hopper::wait(&shared.rows_full[slots.place + s], slots.parity);
                    }
                }
                hopper::begin_products();
#pragma unroll
                for (int s = 0; s < S::slices; ++s) {
                    const uint64_t a = hopper::operand_descriptor(
                            shared.rows[slots.place + s] + row_group * 64 * slice_row_bytes);
                    const uint64_t b = hopper::operand_descriptor(shared.stage[at[s].place]);
                    if (steps % 4 == 2 && s + 1 == S::slices) {
                        multiply_slice<2>(score, a, b);
                    } else {
                        multiply_slice<4>(score, a, b);
                    }
                }
                hopper::close_group();
                hopper::wait_for_all_but<0>();
#pragma unroll
                for (int s = 0; s < S::slices; ++s) {
                    hopper::arrive_as_warp(&shared.empty[at[s].place], lane);
                }
                if (tile + 1 == arguments.tiles) {
#pragma unroll
                    for (int s = 0; s < S::slices; ++s) {
                        hopper::arrive_as_warp(&shared.rows_empty[slots.place + s], lane);
                    }
                    slots.advance_by(S::slices);
                }
            } else {
                int previous = ring.place;
#pragma unroll 1
                for (int s = 0; s < arguments.slices; ++s) {
                    if (s > 0) {
                        hopper::wait(&shared.full[ring.place], ring.parity);
                    }
                    const unsigned char* stage = shared.stage[ring.place];
                    const uint64_t a = hopper::operand_descriptor(
                            stage + S::component_slice_bytes + row_group * 64 * slice_row_bytes);
                    const uint64_t b = hopper::operand_descriptor(
                            stage + component_group * collect_tile * slice_row_bytes);
                    hopper::begin_products();
                    if (arguments.half_slice && s + 1 == arguments.slices) {
                        multiply_slice<2>(score, a, b);
                    } else {
                        multiply_slice<4>(score, a, b);
                    }
                    hopper::close_group();
                    if (s > 0) {
                        hopper::wait_for_all_but<1>();
                        hopper::arrive_as_warp(&shared.empty[previous], lane);
                    }
                    previous = ring.place;
                    ring.advance();
                }
                hopper::wait_for_all_but<0>();
                hopper::arrive_as_warp(&shared.empty[previous], lane);
            }
            hopper::hold(score);
            if (S::component_groups > 1 && tile >= arguments.tiles) {
                break; // the last half tile, beyond the components
            }
            if (lists) {
                listed.template list_candidates<form>(
                        call.model, score, tile, scale, errors, rows, own_lists);
            } else if (marks) {
                constexpr int places = mark_places / S::component_groups;
                marked.template mark_candidates<form>(
                        call.model,
                        score,
                        tile,
                        scale,
                        rows,
                        own_lists.marks(),
                        places * component_group,
                        places);
            } else if (many) {
                growing.template grow<form>(call, wave, score, tile, scale, rows, first + lane / 4);
            } else if (settles) {
                lone_survey.see(score, tile);
            } else {
                survey.template see_tile<form>(
                        score, errors, own_columns(call.model, tile), rows, arguments.tiles);
            }
        }
        if constexpr (settles) {
            settle_rows<form>(call, wave, arguments.open, first, rows, lone_survey);
            continue;
        }
        if (surveys) {
            survey.end();
            float bound[2] = {0, 0}; // the second half's are told
            if (S::component_groups > 1) {
                float* other = shared.seen[16 * strip + lane / 4];
                float* other8 = shared.seen[16 * strip + lane / 4 + 8];
                if (component_group == 1) {
                    survey.tell(0, other);
                    survey.tell(1, other8);
                }
                meet();
                if (component_group == 0) {
                    bound[0] = survey.bound_with(0, call.input.rank, other);
                    bound[1] = survey.bound_with(1, call.input.rank, other8);
                }
                meet();
            } else {
                bound[0] = survey.bound(0, call.input.rank);
                bound[1] = survey.bound(1, call.input.rank);
            }
            if (component_group == 0) {
                raise_thresholds<form>(call, wave, first + lane / 4, rows, bound);
            }
            continue;
        }
        if (many && !marks) {
            growing.end(call, wave, rows, first + lane / 4);
            continue;
        }
        if (marks) {
            marked.tell(shared.marked[component_group] + 16 * strip);
            meet();
            if (component_group == 0) {
                constexpr int last_half = S::component_groups - 1;
                write_marked(
                        call,
                        wave,
                        first,
                        own_lists.marks(),
                        shared.marked[0] + 16 * strip,
                        shared.marked[last_half] + 16 * strip);
            }
            meet();
            continue;
        }
        const Listed of_quad = listed.of_quad();
        const Listed* others =
                nullptr; // what the warp of the other half of the components has listed
        if (S::component_groups > 1) {
            if (lane % 4 < 2) {
                shared.of_lists.listed[component_group][16 * strip + row_of_lane()] = of_quad;
            }
            others = shared.of_lists.listed[S::component_groups - 1 - component_group] + 16 * strip;
        }
        meet();
        write_lists<form>(
                call,
                wave,
                first,
                rows,
                of_quad,
                own_lists,
                others,
                WarpLists{wave, first_at_once, component_group == 0},
                component_group == 0,
                shared.of_lists.widest[warp],
                shared.of_lists.work[warp]);
        meet();
    }
}

template <CollectForm form, CollectStep step, int steps>
__global__ void __launch_bounds__(threads, 1) multiply_by_warpgroups(
        const __grid_constant__ Arguments arguments,
        const __grid_constant__ CUtensorMap component_map,
        const __grid_constant__ CUtensorMap row_map) {
    // The swizzle of copies and products repeats every 1,024 bytes.
    extern __shared__ __align__(1024) unsigned char memory[];
    using S = Shape<steps>;
    Shared<steps>& shared = *reinterpret_cast<Shared<steps>*>(memory);
    hopper::divide_work<producer_registers, consumer_registers>(
            [&] {
                for (int i = 0; i < S::stages; ++i) {
                    hopper::init_barrier(&shared.full[i], 1);
                    hopper::init_barrier(&shared.empty[i], consumer_warps);
                }
                for (int i = 0; i < S::row_slots; ++i) {
                    hopper::init_barrier(&shared.rows_full[i], 1);
                    hopper::init_barrier(&shared.rows_empty[i], consumer_warps);
                }
            },
            [&] { copy_operands<step, steps>(arguments, shared, &component_map, &row_map); },
            [&](int group) { multiply_rows<form, step, steps>(arguments, shared, group); });
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

template <CollectForm form, CollectStep step, int steps>
void launch(Arguments arguments, Stream stream) {
    using S = Shape<steps>;
    const CollectModel& model = arguments.call.model;
    static_assert(
            step != CollectStep::settle || S::tile_rows == wave_tile_rows, "where open rows come");
    arguments.slices = S::resident ? S::slices : arguments.slices;
    const CUtensorMap component_map =
            tensor_map(model.operand, model.padded_width, model.padded_K, S::components);
    const CUtensorMap row_map =
            // Zeros behind the last row: what lies there may be of no use.
            tensor_map(
                    arguments.wave.operand, model.padded_width, arguments.wave.rows, S::tile_rows);
    const auto kernel = multiply_by_warpgroups<form, step, steps>;
    constexpr int bytes = sizeof(Shared<steps>);
    static_assert(bytes <= 227 * 1024, "a block's shared memory on compute capability 9.0");
    check_collect(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
            "asking for shared memory");
    const int blocks = std::min(tiles_of<steps>(arguments.wave), multiprocessors());
    kernel<<<blocks, threads, bytes, stream>>>(arguments, component_map, row_map);
}

/// Shape by the operand's width.
template <CollectForm form, CollectStep step>
void launch_for_width(
        const CollectCall& call, const CollectWave& wave, const CollectWave& open, Stream stream) {
    const int width = call.model.padded_width;
    Arguments arguments{};
    arguments.call = call;
    arguments.wave = wave;
    arguments.open = open;
    arguments.tiles = call.model.padded_K / collect_tile;
    arguments.slices = (width + slice - 1) / slice;
    arguments.half_slice = width - (arguments.slices - 1) * slice <= slice / 2;
    // The others multiply zeros too.
    constexpr bool by_width = form == CollectForm::linear && step == CollectStep::list;
    constexpr int steps = hopper_has_slots(form, step) ? hopper_slot_columns / 16 : 0;
    if (steps == 0 || width > hopper_slot_columns) {
        if constexpr (step != CollectStep::settle) {
            launch<form, step, 0>(arguments, stream);
        }
    } else if (by_width && width <= slice) {
        launch<form, step, by_width ? 4 : steps>(arguments, stream);
    } else if (by_width && width <= slice + slice / 2) {
        launch<form, step, by_width ? 6 : steps>(arguments, stream);
    } else {
        launch<form, step, steps>(arguments, stream);
    }
}

} // namespace

void multiply_hopper(
        const CollectCall& call, CollectStep step, const CollectWave& wave, Stream stream) {
    with_form_and_step(call.model.form, step, [&](auto form, auto of_step) {
        launch_for_width<form(), of_step()>(call, wave, {}, stream);
    });
}

void settle_hopper(
        const CollectCall& call, const CollectWave& wave, const CollectWave& open, Stream stream) {
    if (call.model.form == CollectForm::linear) {
        launch_for_width<CollectForm::linear, CollectStep::settle>(call, wave, open, stream);
    } else {
        launch_for_width<CollectForm::quadratic, CollectStep::settle>(call, wave, open, stream);
    }
}

} // namespace faiss_gmm::cuda
