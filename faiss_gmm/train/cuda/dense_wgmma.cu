// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The dense tier (dense.cu) on Hopper, for tied_spherical rows of 16 to 128 dimensions: no score leaves the chip.
//   (1) to (3) as in dense.cu; scores twice: once for each row's normaliser, once for the sums.
// Phases of a chunk (up to 65,536 rows in pieces, as tiles of 128):
//   1 tile       y in halves, as the tiles that the products read; |y|^2
//   2 normalise  a block takes 256 rows and runs through all components: max, sum, likelihood
//   3 sum        a block takes 128 components, 64 a warpgroup, and runs through the rows of a piece:
//                scores transposed, so that responsibilities are in the registers in which the second
//                product wants its left operand; sums [64, d] stay in registers for 1,024 rows
//   4 add        pieces in order, fp64
// 2 and 3: a warp copies tiles, two warpgroups take turns: one multiplies while the other exponentiates.
// Cost: 9 products of 2 n K d flops; 64 KB from L2 a tile of 128 x 128 scores. (1M, 1024, 128) on an H100:
//   predicted 3.7 ms, measured 4.2 = 16 (.023 + .091 + .150 + .013); 2 runs at 570 TFLOP/s, 3 at 690
//   of cuBLAS's 775, at 1.65 GHz where 1 and 4 get 1.98: power. Lost: pieces of 1,024 rows (4: .028),
//   chunks of half the size (.4 ms more), turns handed over earlier (nothing) or not at all
//   (2: 3% more). Storing scores would cost more L2 time than computing them again costs tensor time.
// Numerics: as dense.cu's, but the small products come first and all stay in the tensor core's sum.
//   Hopper adds 16 products and the sum before with two bits behind the last, then cuts (Li et al. 2024,
//   "FTTN"; dense_test.cu looks): 17 cuts of 2^-25 and one of 2^-23 a step. Bound: (5.25 w / 16 + 8) 2^-23
//   |y| max|w|, 6e-6 at w = 128. Cuts add up over rows as roundings do not, 5e-8 of a score a step:
//   too much for likelihoods where d < 16, hence the portable form there. 192 cuts of growing sums
//   in 1,024 rows: some 4e-6 of a mean about the origin. Scores are in units of log 2.
// Determinism: gpu_to_gpu among Hopper's; pieces are constants of K and d.
// Reference and test: exact.cu, tests/train/cuda/{dense,cuda_estep_engine}_test.
#include <algorithm>

#include "faiss_gmm/train/cuda/detail/dense_tiles.cuh"
#include "faiss_gmm/train/cuda/detail/halves.cuh"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {

using namespace dense_tiles;

namespace {

constexpr int run_tiles = 8; // of rows, between two visits of the sums to memory
constexpr int most_chunk_rows = 65536;

template <int width_> struct Shape {
    static constexpr int width = width_;
    static constexpr int slices = (width + slice - 1) / slice;
    static constexpr int part_bytes =
            slices * slice_bytes; ///< the high or the low halves of a tile
};

/// acc += A B^T over the dimensions from 16 first on, up to 16 last; descriptors of parts of tiles.
template <int width, int first = 0, int last = width / 16>
__device__ void multiply_parts(float (&acc)[64], uint64_t a, uint64_t b) {
#pragma unroll
    for (int step = first; step < last; ++step) {
        const uint64_t at = (step / 4 * slice_bytes + step % 4 * 32) >> 4;
        hopper::multiply_asynchronously(acc, a + at, b + at);
    }
}
/// acc = A B^T.
template <int width>
__device__ void multiply_parts_afresh(float (&acc)[64], uint64_t a, uint64_t b) {
    hopper::multiply_afresh(acc, a, b);
    multiply_parts<width, 1>(acc, a, b);
}

/// Phase 1: blockIdx.y: piece; 64 rows a block, 8 a warp; zeros behind the last row, to the end of a
/// pair of tiles.
__global__ void __launch_bounds__(256)
        tile_rows(Rows x, int d, const float* origin, const __grid_constant__ Arguments arguments) {
    const int piece = blockIdx.y, lane = threadIdx.x % 32, at = 4 * lane;
    const int rows = arguments.pieces.rows[piece];
    const int first = blockIdx.x * 64 + threadIdx.x / 32 * 8;
    if (first >= (rows + 2 * tile - 1) / (2 * tile) * (2 * tile)) {
        return;
    }
    const uint32_t* order = arguments.order + arguments.pieces.first[piece];
    const int width = arguments.shape.row_width;
    const float scale = arguments.buffers.scale[scale_rows];
    float o[4], y[8][4];
    load_four(origin, at, d, false, o);
    visit(x, [&](const auto* numbers) {
#pragma unroll
        for (int r = 0; r < 8; ++r) {
            if (first + r < rows) {
                load_four(
                        numbers + static_cast<size_t>(order[first + r]) * d,
                        at,
                        d,
                        x.aligned,
                        y[r]);
            }
        }
    });
    const size_t chunk_row = static_cast<size_t>(piece) * arguments.shape.piece_rows + first;
    uint16_t* high = arguments.buffers.rows_high + chunk_row / tile * tile * 2 * width;
    uint16_t* low = high + tile * width;
#pragma unroll
    for (int r = 0; r < 8; ++r) {
        float square = 0;
        uint2 h{0, 0}, l{0, 0};
        if (first + r < rows) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                y[r][i] -= o[i]; // zeros from d on
                square = fmaf(y[r][i], y[r][i], square);
                y[r][i] *= scale;
            }
            split(y[r][0], y[r][1], h.x, l.x);
            split(y[r][2], y[r][3], h.y, l.y);
        }
        square = warp_sum(square);
        if (lane == 0) {
            arguments.buffers.square[chunk_row + r] = square;
        }
        if (at < width) {
            const int place = place_in_part((first + r) % tile, at);
            *reinterpret_cast<uint2*>(high + place) = h;
            *reinterpret_cast<uint2*>(low + place) = l;
        }
    }
}

// ---- phase 2

template <int width> struct NormaliseShared {
    static constexpr int stages = 3;
    using S = Shape<width>;
    alignas(1024) unsigned char rows[2][2][S::part_bytes]; ///< warpgroup, high and low
    alignas(1024) unsigned char means[stages][S::part_bytes];
    alignas(16) float base[2][tile], constant[2][tile];
    RingBarriers<stages> means_there;
    RingBarriers<1> rows_there[2];
    RingBarriers<2> columns_there;
};

template <int width>
__device__ void bring_means(const Arguments& arguments, NormaliseShared<width>& shared) {
    using S = Shape<width>;
    constexpr uint32_t part = S::part_bytes, columns = tile * sizeof(float);
    const DenseShape& shape = arguments.shape;
    const DenseBuffers& buffers = arguments.buffers;
    const unsigned char* means = reinterpret_cast<const unsigned char*>(buffers.means_high);
    const unsigned char* rows = reinterpret_cast<const unsigned char*>(buffers.rows_high);
    const int tiles = shape.padded_K / tile;
    hopper::Ring<1> rows_ring[2];
    hopper::Ring<2> columns_ring;
    hopper::Ring<NormaliseShared<width>::stages> ring;
    UnitPlace<2 * tile> place;
    const int pairs = arguments.pieces.units_before[arguments.pieces.count];
    for (int pair = blockIdx.x; pair < pairs; pair += gridDim.x) {
        const int row = place.row(arguments.pieces, pair);
        const size_t first_tile =
                (static_cast<size_t>(place.piece) * shape.piece_rows + row) / tile;
        const auto bring_rows = [&](int group) {
            shared.rows_there[group].bring(
                    rows_ring[group],
                    shared.rows[group],
                    rows + (first_tile + group) * 2 * part,
                    2 * part);
        };
        const auto bring_part = [&](int k, int which) {
            shared.means_there.bring(
                    ring, shared.means[ring.place], means + (size_t{2} * k + which) * part, part);
        };
        bring_rows(0);
        for (int k = 0; k < tiles; ++k) {
            bring_part(k, 1);
            bring_part(k, 0);
            uint64_t* full = &shared.columns_there.full[columns_ring.place];
            hopper::wait(&shared.columns_there.empty[columns_ring.place], columns_ring.parity ^ 1);
            hopper::arrive_expecting(full, 2 * columns);
            hopper::copy_bytes(
                    shared.base[columns_ring.place], buffers.base + k * tile, columns, full);
            hopper::copy_bytes(
                    shared.constant[columns_ring.place],
                    buffers.constant + k * tile,
                    columns,
                    full);
            columns_ring.advance();
            if (k == 0) {
                bring_rows(1); // wanted a turn later than the first components
            }
        }
    }
}

template <int width>
__device__ void
normalise_rows(const Arguments& arguments, NormaliseShared<width>& shared, int group) {
    using S = Shape<width>;
    const DenseShape& shape = arguments.shape;
    const DenseBuffers& buffers = arguments.buffers;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % warps_a_group;
    const int tiles = shape.padded_K / tile;
    const float factor = score_factor(buffers);
    const uint64_t high = hopper::operand_descriptor(shared.rows[group][0]);
    const uint64_t low = hopper::operand_descriptor(shared.rows[group][1]);
    constexpr uint64_t strip = strip_bytes >> 4;
    hopper::Ring<1> rows_ring;
    hopper::Ring<2> columns_ring;
    hopper::Ring<NormaliseShared<width>::stages> ring;
    UnitPlace<2 * tile> place;
    const int pairs = arguments.pieces.units_before[arguments.pieces.count];
    float acc[2][64];
    int shared_rows = 0;
    if (group == 1) {
        hopper::give_turn(1);
    }
    for (int pair = blockIdx.x; pair < pairs; pair += gridDim.x) {
        // One dimension: nvcc 13.0 leaves members of the second row of an array of arrays at 0.
        Normaliser state[4];
        shared.rows_there[group].wait_for(rows_ring);
        for (int k = 0; k < tiles; ++k) {
            hopper::wait_for_turn(1 + group);
            shared.means_there.wait_for(ring);
            const int low_stage = ring.place;
            hopper::begin_products();
            uint64_t c = hopper::operand_descriptor(shared.means[ring.place]);
            multiply_parts_afresh<width>(acc[0], high, c);
            multiply_parts_afresh<width>(acc[1], high + strip, c);
            hopper::close_group();
            ring.advance();
            shared.means_there.wait_for(ring);
            hopper::begin_products();
            c = hopper::operand_descriptor(shared.means[ring.place]);
            multiply_parts<width>(acc[0], low, c);
            hopper::close_group();
            hopper::wait_for_all_but<1>();
            hopper::arrive_as_warp(
                    &shared.means_there.empty[low_stage],
                    lane); // the next ones need all the time they get
            hopper::begin_products();
            multiply_parts<width>(acc[1], low + strip, c);
            multiply_parts<width>(acc[0], high, c);
            multiply_parts<width>(acc[1], high + strip, c);
            hopper::close_group();
            hopper::give_turn(2 - group);
            hopper::wait_for_all_but<0>();
            hopper::arrive_as_warp(&shared.means_there.empty[ring.place], lane);
            ring.advance();
            if (k + 1 == tiles) {
                hopper::arrive_as_warp(&shared.rows_there[group].empty[0], lane);
                rows_ring.advance();
            }
            shared.columns_there.wait_for(columns_ring);
            const float2* base = reinterpret_cast<const float2*>(shared.base[columns_ring.place]);
            const float2* constant =
                    reinterpret_cast<const float2*>(shared.constant[columns_ring.place]);
            float before[2][2];
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                before[m][0] = state[2 * m].best;
                before[m][1] = state[2 * m + 1].best;
            }
#pragma unroll
            for (int n = 0; n < tile / 8; ++n) {
                const float2 b = base[4 * n + lane % 4];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        float(&s)[64] = acc[m];
                        const int i = 4 * n + 2 * h;
                        s[i] = fmaf(s[i], factor, b.x);
                        s[i + 1] = fmaf(s[i + 1], factor, b.y);
                        state[2 * m + h].see(s[i]);
                        state[2 * m + h].see(s[i + 1]);
                    }
                }
            }
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                state[2 * m].rescale(before[m][0]);
                state[2 * m + 1].rescale(before[m][1]);
            }
#pragma unroll
            for (int n = 0; n < tile / 8; ++n) {
                const float2 b = constant[4 * n + lane % 4];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        const float s0 = acc[m][4 * n + 2 * h], s1 = acc[m][4 * n + 2 * h + 1];
                        Normaliser& row = state[2 * m + h];
                        const float e0 = power_of_two(s0 - row.best);
                        const float e1 = power_of_two(s1 - row.best);
                        row.sum += e0 + e1;
                        row.distance = fmaf(e0, b.x - s0, row.distance);
                        row.distance = fmaf(e1, b.y - s1, row.distance);
                    }
                }
            }
            hopper::arrive_as_warp(&shared.columns_there.empty[columns_ring.place], lane);
            columns_ring.advance();
        }
        const int pair_row = place.row(arguments.pieces, pair) + group * tile;
        const int rows = arguments.pieces.rows[place.piece];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                Normaliser& row = state[2 * m + h];
                row.merge<4>();
                const int i = pair_row + 64 * m + 16 * warp + 8 * h + lane / 4;
                if (lane % 4 != 0) {
                    continue;
                }
                const size_t at = static_cast<size_t>(place.piece) * shape.piece_rows + i;
                const bool there = i < rows;
                buffers.norm[at] = float2{row.best, there ? r_scale / row.sum : 0.0f};
                if (there) {
                    const uint32_t x = arguments.order[arguments.pieces.first[place.piece] + i];
                    const double hp = arguments.half_precision[0], square = buffers.square[at];
                    arguments.output.log_likelihood[x] =
                            reference_constant(arguments.constant, arguments.buffers.scale) -
                            hp * square + (static_cast<double>(row.best) + log2f(row.sum)) / log2_e;
                    arguments.output.moment[x] = // |x - mu_k|^2 = |y|^2 + |c_k|^2 - 2 y.c_k
                            square + row.distance / row.sum / (hp * log2_e);
                    if (power_of_two(row.second - row.best) * arguments.K > row.sum) {
                        ++shared_rows;
                    }
                }
            }
        }
    }
    shared_rows = warp_sum(shared_rows);
    if (lane == 0 && shared_rows > 0) {
        atomicAdd(arguments.output.shared_rows, static_cast<unsigned long long>(shared_rows));
    }
}

template <int width>
__global__ void __launch_bounds__(threads, 1)
        normalise_by_warpgroups(const __grid_constant__ Arguments arguments) {
    extern __shared__ __align__(1024) unsigned char memory[];
    auto& shared = *reinterpret_cast<NormaliseShared<width>*>(memory);
    hopper::divide_work<producer_registers, consumer_registers>(
            [&] {
                shared.means_there.init(consuming_warps);
                shared.rows_there[0].init(warps_a_group);
                shared.rows_there[1].init(warps_a_group);
                shared.columns_there.init(consuming_warps);
            },
            [&] { bring_means(arguments, shared); },
            [&](int group) { normalise_rows(arguments, shared, group); });
}

// ---- phase 3

template <int width> struct SumShared {
    static constexpr int stages = 5;
    using S = Shape<width>;
    alignas(1024) unsigned char means[2][S::part_bytes]; ///< high and low
    alignas(1024) unsigned char rows[stages][S::part_bytes];
    alignas(16) float2 norm[2][tile];
    RingBarriers<1> means_there;
    RingBarriers<stages> rows_there;
    RingBarriers<2> norms_there;
};

/// A block's share of (component tile, piece), in that order: pieces that meet one component tile.
struct Stretch {
    int k = 0, first = 0, last = 0; ///< component tile; pieces
};

/// Calls visit(stretch) for every stretch of this block.
template <class Visit> __device__ void visit_stretches(const Arguments& arguments, Visit visit) {
    const int pieces = arguments.pieces.count;
    const long long items = static_cast<long long>(arguments.shape.padded_K / tile) * pieces;
    int at = static_cast<int>(items * blockIdx.x / gridDim.x);
    const int end = static_cast<int>(items * (blockIdx.x + 1) / gridDim.x);
    while (at < end) {
        Stretch stretch;
        stretch.k = at / pieces;
        stretch.first = at % pieces;
        stretch.last = min(pieces, stretch.first + end - at);
        visit(stretch);
        at += stretch.last - stretch.first;
    }
}

template <int width>
__device__ void bring_rows(const Arguments& arguments, SumShared<width>& shared) {
    constexpr uint32_t part = Shape<width>::part_bytes, norms = tile * sizeof(float2);
    const DenseBuffers& buffers = arguments.buffers;
    const unsigned char* means = reinterpret_cast<const unsigned char*>(buffers.means_high);
    const unsigned char* rows = reinterpret_cast<const unsigned char*>(buffers.rows_high);
    hopper::Ring<1> means_ring;
    hopper::Ring<2> norms_ring;
    hopper::Ring<SumShared<width>::stages> ring;
    visit_stretches(arguments, [&](const Stretch& stretch) {
        shared.means_there.bring(
                means_ring,
                shared.means,
                means + static_cast<size_t>(stretch.k) * 2 * part,
                2 * part);
        for (int p = stretch.first; p < stretch.last; ++p) {
            const int tiles = arguments.pieces.tiles(p);
            for (int t = 0; t < tiles; ++t) {
                const size_t at = static_cast<size_t>(p) * (arguments.shape.piece_rows / tile) + t;
                for (int which = 0; which < 2; ++which) {
                    shared.rows_there.bring(
                            ring, shared.rows[ring.place], rows + (2 * at + which) * part, part);
                }
                shared.norms_there.bring(
                        norms_ring, shared.norm[norms_ring.place], buffers.norm + at * tile, norms);
            }
        }
    });
}

template <int width>
__device__ void sum_rows(const Arguments& arguments, SumShared<width>& shared, int group) {
    using S = Shape<width>;
    using RowRing = hopper::Ring<SumShared<width>::stages>;
    const DenseShape& shape = arguments.shape;
    const DenseBuffers& buffers = arguments.buffers;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % warps_a_group;
    const int own = 64 * group + 16 * warp + lane / 4; // and 8 behind: components of this thread
    const float factor = score_factor(buffers);
    const uint64_t c_high = hopper::operand_descriptor(shared.means[0] + group * strip_bytes);
    const uint64_t c_low = hopper::operand_descriptor(shared.means[1] + group * strip_bytes);
    hopper::Ring<1> means_ring;
    hopper::Ring<2> norms_ring;
    RowRing ring; // of the rows whose scores come next
    float score[64], sums[width / 2];
#pragma unroll
    for (int i = 0; i < width / 2; ++i) {
        sums[i] = 0;
    }
    double mass[2] = {0, 0};
    // Waits for the rows behind `ring` and starts their scores; what was started before is done when
    // between() is called.
    const auto start_scores = [&](auto between) {
        const int high = ring.place;
        shared.rows_there.wait_for(ring);
        ring.advance();
        const uint64_t y_high = hopper::operand_descriptor(shared.rows[high]);
        hopper::begin_products();
        multiply_parts_afresh<width>(score, c_low, y_high);
        hopper::close_group();
        hopper::wait_for_all_but<1>();
        between();
        const int low = ring.place;
        shared.rows_there.wait_for(ring);
        ring.advance();
        const uint64_t y_low = hopper::operand_descriptor(shared.rows[low]);
        hopper::begin_products();
        multiply_parts<width>(score, c_high, y_low);
        multiply_parts<width>(score, c_high, y_high);
        hopper::close_group();
    };
    if (group == 1) {
        hopper::give_turn(1);
    }
    visit_stretches(arguments, [&](const Stretch& stretch) {
        shared.means_there.wait_for(means_ring);
        const int k = stretch.k * tile + own;
        const float base[2] = {buffers.base[k], buffers.base[k + 8]};
        RowRing used = ring; // of the rows that are added up
        start_scores([] {});
        hopper::wait_for_all_but<0>();
        int piece = stretch.first, t = 0, tiles = arguments.pieces.tiles(piece);
        while (true) {
            uint32_t high[tile / 16][4], low[tile / 16][4];
            float tile_mass[2] = {0, 0};
            shared.norms_there.wait_for(norms_ring);
            const float4* norm = reinterpret_cast<const float4*>(shared.norm[norms_ring.place]);
#pragma unroll
            for (int n = 0; n < tile / 8; ++n) {
                const float4 both = norm[4 * n + lane % 4]; // of two rows
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const float s0 = fmaf(score[4 * n + 2 * h], factor, base[h]);
                    const float s1 = fmaf(score[4 * n + 2 * h + 1], factor, base[h]);
                    const float r0 = power_of_two(s0 - both.x) * both.y;
                    const float r1 = power_of_two(s1 - both.z) * both.w;
                    tile_mass[h] += r0 + r1;
                    split(r0, r1, high[n / 2][n % 2 * 2 + h], low[n / 2][n % 2 * 2 + h]);
                }
            }
            mass[0] += tile_mass[0];
            mass[1] += tile_mass[1];
            hopper::arrive_as_warp(&shared.norms_there.empty[norms_ring.place], lane);
            norms_ring.advance();
            const bool piece_ends = t + 1 == tiles;
            const bool more = !piece_ends || piece + 1 < stretch.last;
            const int high_stage = used.place;
            used.advance();
            const int low_stage = used.place;
            used.advance();
            const uint64_t y_high =
                    hopper::transposed_descriptor(shared.rows[high_stage], slice_bytes);
            const uint64_t y_low =
                    hopper::transposed_descriptor(shared.rows[low_stage], slice_bytes);
            hopper::wait_for_turn(1 + group);
            hopper::begin_products();
#pragma unroll
            for (int step = 0; step < tile / 16; ++step) {
                hopper::multiply_registers(sums, high[step], hopper::advanced_rows(y_low, step));
                hopper::multiply_registers(sums, low[step], hopper::advanced_rows(y_high, step));
                hopper::multiply_registers(sums, high[step], hopper::advanced_rows(y_high, step));
            }
            hopper::close_group();
            const auto release_rows = [&] {
                hopper::arrive_as_warp(&shared.rows_there.empty[high_stage], lane);
                hopper::arrive_as_warp(&shared.rows_there.empty[low_stage], lane);
            };
            if (more) {
                start_scores(release_rows);
            }
            hopper::give_turn(2 - group);
            hopper::wait_for_all_but<0>();
            if (!more) {
                release_rows();
            }
            if (piece_ends || (t + 1) % run_tiles == 0) {
                float* out = buffers.partial +
                             (static_cast<size_t>(piece) * shape.padded_K + k) * width +
                             lane % 4 * 2;
                if (t >= run_tiles) {
#pragma unroll
                    for (int i = 0; i < width / 2; i += 2) {
                        const float2 before = *reinterpret_cast<const float2*>(
                                out + i / 2 % 2 * 8 * width + i / 4 * 8);
                        sums[i] += before.x;
                        sums[i + 1] += before.y;
                    }
                }
#pragma unroll
                for (int i = 0; i < width / 2; i += 2) {
                    *reinterpret_cast<float2*>(out + i / 2 % 2 * 8 * width + i / 4 * 8) =
                            float2{sums[i], sums[i + 1]};
                    sums[i] = sums[i + 1] = 0;
                }
            }
            if (piece_ends) {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    mass[h] += __shfl_xor_sync(whole_warp, mass[h], 1);
                    mass[h] += __shfl_xor_sync(whole_warp, mass[h], 2);
                    if (lane % 4 == 0) {
                        buffers.mass[static_cast<size_t>(piece) * shape.padded_K + k + 8 * h] =
                                mass[h] / r_scale;
                    }
                    mass[h] = 0;
                }
                ++piece;
                t = -1;
            }
            ++t;
            if (!more) {
                break;
            }
            tiles = arguments.pieces.tiles(piece);
        }
        hopper::arrive_as_warp(&shared.means_there.empty[0], lane);
        means_ring.advance();
    });
}

template <int width>
__global__ void __launch_bounds__(threads, 1)
        sum_by_warpgroups(const __grid_constant__ Arguments arguments) {
    extern __shared__ __align__(1024) unsigned char memory[];
    auto& shared = *reinterpret_cast<SumShared<width>*>(memory);
    hopper::divide_work<producer_registers, consumer_registers>(
            [&] {
                shared.means_there.init(consuming_warps);
                shared.rows_there.init(consuming_warps);
                shared.norms_there.init(consuming_warps);
            },
            [&] { bring_rows(arguments, shared); },
            [&](int group) { sum_rows(arguments, shared, group); });
}

// ---- host

template <int width> void multiply(const Arguments& arguments, cudaStream_t stream) {
    const Pieces& pieces = arguments.pieces;
    launch<NormaliseShared<width>>(
            normalise_by_warpgroups<width>, arguments, pieces.units_before[pieces.count], stream);
    launch<SumShared<width>>(
            sum_by_warpgroups<width>,
            arguments,
            pieces.count * (arguments.shape.padded_K / tile),
            stream);
}

} // namespace

void shape_for_warpgroups(int K, int d, DenseShape& shape) {
    constexpr int run = run_tiles * tile,
                  blocks_aimed_at = 512; // of phase 3: four a multiprocessor
    shape.path = CollectPath::hopper;
    shape.padded_K = (K + tile - 1) / tile * tile;
    shape.padded_width = d <= 64 ? 64 : d <= 96 ? 96 : 128;
    shape.row_width = d <= 64 ? 64 : 128;
    const int pieces = std::clamp(blocks_aimed_at * tile / shape.padded_K, 1, most_pieces);
    shape.piece_rows = most_chunk_rows / pieces / run * run;
    shape.chunk_rows = shape.piece_rows * pieces;
    shape.rounding = (5.25f * shape.padded_width / 16 + 8) * 0x1.0p-23f;
}

void sum_by_warpgroups(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream) {
    Arguments arguments = dense_arguments(mixture, shape, buffers, rows, output);
    visit_chunks<2 * tile>(arguments, rows, [&] {
        const dim3 grid(shape.piece_rows / 64, arguments.pieces.count);
        tile_rows<<<grid, 256, 0, stream>>>(rows.x, mixture.d, origin, arguments);
        switch (shape.padded_width) {
        case 64:
            multiply<64>(arguments, stream);
            break;
        case 96:
            multiply<96>(arguments, stream);
            break;
        default:
            multiply<128>(arguments, stream);
        }
        add_pieces(mixture, origin, shape, buffers, arguments.pieces.count, sums, stream);
        check_launch("adding up rows densely");
    });
}

} // namespace faiss_gmm::cuda
