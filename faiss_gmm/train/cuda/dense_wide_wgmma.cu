// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The dense tier (dense.cu) on Hopper, for tied_spherical rows of 129 to 2,048 dimensions, whose sums do not fit
// into a block's registers, and spherical and diagonal ones from 16 on: scores of a chunk lie in memory, and
// become responsibilities where they stand.
//   (1) to (3) as in dense.cu; w: columns, of diagonal twice as many as dimensions.
// Phases of a chunk (some 8,192 rows, at K = 1,024 32 MiB of scores: mostly in L2):
//   1 tile      y, diagonal y^2 too, in halves, as the tiles that the products read; |y|^2
//   2 score     tiles of 128 rows x 128 components, 64 columns of y a step
//   3 share     a warp a row: max, sum, likelihood; scores become halves of responsibilities
//   4 mass      sums of those over the rows of a piece, fp64; spherical: with |y|^2 too
//   5 sum       tiles of 128 components x 128 or 192 dimensions, 32 rows a step, a piece; then pieces in
//               order, fp64 (dense_wgmma.cu)
// 2 and 5: a thread copies, two warpgroups multiply; in 2 each has two sums: one is added up, and a tile that
//   is done is written, while the other is multiplied.
// Cost: 6 products of 2 n K d flops; from L2 64 KB a step of 2 (1,536 cycles of the tensor cores at their
//   peak), 40 KB of 5 (1,152). On an H200: (122,597, 1024, 384) predicted 1.8, measured 1.96 ms;
//   (165,996, 1024, 960) predicted 4.7, measured 4.7; (1M, 1024, 384) 15.8: 38, 54 and 39% of
//   cuBLAS's 768 TFLOP/s, counted over the 6 products.
// Numerics: as dense.cu's, in units of log 2; bound: rounding_of_scores(), 3.6e-6 at w = 384, 4.1e-6 at 960. A step of
//   2 starts afresh, the small products first, then leaves the tensor core for an fp32 addition. Diagonal, whose rows
//   are twice as wide: 32 columns a step, and sums of 8 steps before they join the others; beside the other sum there
//   is no room for products under way: each warpgroup waits for its own, while the other's are multiplied. Sums (3)
//   leave the tensor core every 512 rows; where variances come of them every 128: at 10 sigma from o in one of 16 axes
//   these are off by 1.5e-5.
// Determinism: gpu_to_gpu among Hopper's; pieces are constants of K and d.
// Reference and test: exact.cu, tests/train/cuda/{dense,cuda_estep_engine}_test.
#include <algorithm>
#include <climits>

#include <cuda_fp16.h>

#include "faiss_gmm/train/cuda/detail/dense_tiles.cuh"
#include "faiss_gmm/train/cuda/detail/halves.cuh"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {

using namespace dense_tiles;

namespace {

constexpr int slices_together =
        4;                    ///< of diagonal's scores: of 2 sums each, before they join the others
constexpr int step_rows = 32; // of phase 5
constexpr int box_bytes = step_rows * slice * 2; // of a slice

/// Steps between two additions in fp32. Variances are what is left of sums about the origin: these take more.
__device__ int run_steps(Covariance form) {
    return form == Covariance::tied_spherical ? 16 : 4;
}

/// Scores of 128 rows and 64 components: two halves of [128, 32]; responsibilities: a slice of high halves,
/// then of low ones. Row i has bytes 128 i to 128 i + 127 of either half, whatever it holds.
constexpr int block_bytes = 2 * slice_bytes;

__device__ unsigned char* score_block(const Arguments& arguments, size_t row_tile, int k_slice) {
    const size_t slices = arguments.shape.padded_K / slice;
    return reinterpret_cast<unsigned char*>(arguments.buffers.score) +
           (row_tile * slices + k_slice) * block_bytes;
}

__device__ size_t row_tile_of(const Arguments& arguments, int piece, int row) {
    return (static_cast<size_t>(piece) * arguments.shape.piece_rows + row) / tile;
}

/// Phase 1: blockIdx.y: piece; a warp a row, zeros behind the last one, to the end of its tile.
__global__ void __launch_bounds__(256) tile_wide_rows(
        Rows x, int d, const float* origin, const __grid_constant__ Arguments arguments) {
    constexpr int together = 4; // loads under way
    const int piece = blockIdx.y, lane = threadIdx.x % 32;
    const int i = blockIdx.x * 8 + threadIdx.x / 32, rows = arguments.pieces.rows[piece];
    if (i >= arguments.pieces.tiles(piece) * tile) {
        return;
    }
    const bool there = i < rows;
    const size_t from =
            there ? static_cast<size_t>(arguments.order[arguments.pieces.first[piece] + i]) * d : 0;
    const DenseShape& shape = arguments.shape;
    const int width = shape.row_width, squares = shape.squares, columns = half_width(shape);
    const float* scales = arguments.buffers.scale;
    const float scale = scales[scale_rows], scale2 = scales[scale_squares];
    const bool diagonal = shape.form == Covariance::diagonal;
    uint16_t* high =
            arguments.buffers.rows_high + row_tile_of(arguments, piece, i) * tile * 2 * width;
    uint16_t* low = high + static_cast<size_t>(tile) * width;
    double square = 0;
    const auto write = [&](int at, const float(&values)[4]) {
        uint2 h, l;
        split(values[0], values[1], h.x, l.x);
        split(values[2], values[3], h.y, l.y);
        const int place = place_in_part(i % tile, at);
        *reinterpret_cast<uint2*>(high + place) = h;
        *reinterpret_cast<uint2*>(low + place) = l;
    };
    visit(x, [&](const auto* numbers) {
        for (int first = 4 * lane; first < columns; first += together * 128) {
            float y[together][4] = {};
#pragma unroll
            for (int t = 0; t < together; ++t) {
                if (there) {
                    load_four(numbers + from, first + 128 * t, d, x.aligned, y[t]);
                }
            }
#pragma unroll
            for (int t = 0; t < together; ++t) {
                const int at = first + 128 * t;
                if (at >= columns) {
                    break;
                }
                float squared[4] = {};
                if (there) {
                    float o[4], sum = 0;
                    load_four(origin, at, d, false, o);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        y[t][j] -= o[j]; // zeros from d on
                        if (diagonal && at + j < d) {
                            y[t][j] *= axis_scale(Covariance::diagonal, scales, at + j);
                        }
                        squared[j] = y[t][j] * y[t][j];
                        sum = fmaf(y[t][j], y[t][j], sum);
                        squared[j] *= scale2;
                        y[t][j] *= scale;
                    }
                    square += sum;
                }
                if (!diagonal || at < squares) {
                    write(at, y[t]);
                }
                if (diagonal) {
                    write(squares + at, squared);
                }
            }
        }
    });
    square = warp_sum(square);
    if (lane == 0) {
        arguments.buffers.square[static_cast<size_t>(piece) * shape.piece_rows + i] =
                static_cast<float>(square);
    }
}

// ---- phase 2

/// A step takes two stages: high rows and low means, low rows and high means.
struct ScoreShared {
    static constexpr int stages = 7;
    alignas(1024) unsigned char stage[stages][2][slice_bytes]; ///< of rows, of means
    RingBarriers<stages> there;
};

/// This block's tiles: number blockIdx.x and every gridDim.x-th from there, components first.
struct ScorePlace {
    int item, tiles; ///< of components
    UnitPlace<tile> rows;

    __device__ explicit ScorePlace(const Arguments& arguments)
            : item(blockIdx.x), tiles(arguments.shape.padded_K / tile) {}
    __device__ static int count(const Arguments& arguments) {
        return arguments.pieces.units_before[arguments.pieces.count] *
               (arguments.shape.padded_K / tile);
    }
    __device__ int component_tile() const {
        return item % tiles;
    }
    __device__ size_t row_tile(const Arguments& arguments) {
        const int row = rows.row(arguments.pieces, item / tiles);
        return row_tile_of(arguments, rows.piece, row);
    }
    __device__ void advance() {
        item += gridDim.x;
    }
};

__device__ void bring_operands(const Arguments& arguments, ScoreShared& shared) {
    const int slices = arguments.shape.row_width / slice, count = ScorePlace::count(arguments);
    const size_t part = static_cast<size_t>(slices) * slice_bytes;
    const unsigned char* rows = reinterpret_cast<const unsigned char*>(arguments.buffers.rows_high);
    const unsigned char* means =
            reinterpret_cast<const unsigned char*>(arguments.buffers.means_high);
    hopper::Ring<ScoreShared::stages> ring;
    const auto bring = [&](const unsigned char* y, const unsigned char* c) {
        uint64_t* full = &shared.there.full[ring.place];
        hopper::wait(&shared.there.empty[ring.place], ring.parity ^ 1);
        hopper::arrive_expecting(full, 2 * slice_bytes);
        hopper::copy_bytes(shared.stage[ring.place][0], y, slice_bytes, full);
        hopper::copy_bytes(shared.stage[ring.place][1], c, slice_bytes, full);
        ring.advance();
    };
    for (ScorePlace place(arguments); place.item < count; place.advance()) {
        const unsigned char* y = rows + place.row_tile(arguments) * 2 * part;
        const unsigned char* c = means + place.component_tile() * 2 * part;
        for (int s = 0; s < slices; ++s) {
            bring(y, c + part);
            bring(y + part, c);
            y += slice_bytes;
            c += slice_bytes;
        }
    }
}

/// acc += A B^T over a slice's steps of 16 columns from `first` on, up to `last`.
template <int first = 0, int last = slice / 16>
__device__ void multiply_slice(float (&acc)[64], uint64_t a, uint64_t b) {
#pragma unroll
    for (int step = first; step < last; ++step) {
        hopper::multiply_asynchronously(acc, hopper::advanced(a, step), hopper::advanced(b, step));
    }
}

template <Covariance form>
__device__ void score_rows(const Arguments& arguments, ScoreShared& shared, int group) {
    constexpr bool spherical = form == Covariance::spherical;
    using Ring = hopper::Ring<ScoreShared::stages>;
    const DenseBuffers& buffers = arguments.buffers;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % warps_a_group;
    const int slices = arguments.shape.row_width / slice, count = ScorePlace::count(arguments);
    const float factor = score_factor(buffers);
    Ring ring, used; // the next step's stages, those of the step that is done next
    ScorePlace place(arguments);
    int slices_done = 0;
    float sum[64], even[64], odd[64];
#pragma unroll
    for (float& value : sum) {
        value = 0;
    }
    // A step's operands, high and low, low and high.
    const auto wait_for_step = [&](uint64_t(&y)[2], uint64_t(&c)[2]) {
#pragma unroll
        for (int stage = 0; stage < 2; ++stage) {
            shared.there.wait_for(ring);
            y[stage] =
                    hopper::operand_descriptor(shared.stage[ring.place][0] + group * strip_bytes);
            c[stage] = hopper::operand_descriptor(shared.stage[ring.place][1]);
            ring.advance();
        }
    };
    const auto release_step = [&] {
#pragma unroll
        for (int stage = 0; stage < 2; ++stage) {
            hopper::arrive_as_warp(&shared.there.empty[used.place], lane);
            used.advance();
        }
    };
    const auto start = [&](float(&products)[64]) {
        uint64_t y[2], c[2];
        wait_for_step(y, c);
        hopper::begin_products();
        hopper::multiply_afresh(products, y[0], c[0]);
        multiply_slice<1>(products, y[0], c[0]);
        multiply_slice(products, y[1], c[1]);
        multiply_slice(products, y[0], c[1]);
        hopper::close_group();
    };
    const auto write = [&] {
        const int k = place.component_tile();
        const float2* base = reinterpret_cast<const float2*>(buffers.base + k * tile) + lane % 4;
        const size_t row_tile = place.row_tile(arguments);
        const int row = 64 * group + 16 * warp + lane / 4; // and 8 behind
        unsigned char* out =
                score_block(arguments, row_tile, k * (tile / slice)) + row * 128 + lane % 4 * 8;
        const float2* excess = nullptr;
        float square[2] = {0, 0};
        if (spherical) {
            excess = reinterpret_cast<const float2*>(buffers.excess + k * tile) + lane % 4;
            square[0] = buffers.square[row_tile * tile + row];
            square[1] = buffers.square[row_tile * tile + row + 8];
        }
#pragma unroll
        for (int n = 0; n < tile / 8; ++n) {
            const float2 b = base[4 * n];
            const float2 e = spherical ? excess[4 * n] : float2{0, 0};
            unsigned char* at = out + n / 8 * block_bytes + n % 8 / 4 * slice_bytes + n % 4 * 32;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float rest_x = spherical ? fmaf(-e.x, square[h], b.x) : b.x;
                const float rest_y = spherical ? fmaf(-e.y, square[h], b.y) : b.y;
                *reinterpret_cast<float2*>(at + 8 * 128 * h) =
                        float2{fmaf(sum[4 * n + 2 * h], factor, rest_x),
                               fmaf(sum[4 * n + 2 * h + 1], factor, rest_y)};
            }
        }
    };
    const auto add = [](float(&to)[64], const float(&from)[64]) {
#pragma unroll
        for (int i = 0; i < 64; ++i) {
            to[i] += from[i];
        }
    };
    const auto clear = [](float(&values)[64]) {
#pragma unroll
        for (float& value : values) {
            value = 0;
        }
    };
    const auto close_slice = [&] {
        if (++slices_done == slices) {
            write();
            slices_done = 0;
            place.advance();
            clear(sum);
        }
    };
    const auto finish = [&](float(&products)[64]) {
        hopper::hold(products);
        release_step();
        add(sum, products);
        close_slice();
    };
    const int steps = (count - blockIdx.x + gridDim.x - 1) / gridDim.x * slices; // at least two
    if constexpr (form == Covariance::diagonal) {
        float(&products)[64] = even, (&together)[64] = odd;
        const auto multiply_half = [&](auto half, const uint64_t(&y)[2], const uint64_t(&c)[2]) {
            constexpr int first = half() * slice / 32, last = first + slice / 32;
            hopper::begin_products();
            hopper::multiply_afresh(
                    products, hopper::advanced(y[0], first), hopper::advanced(c[0], first));
            multiply_slice<first + 1, last>(products, y[0], c[0]);
            multiply_slice<first, last>(products, y[1], c[1]);
            multiply_slice<first, last>(products, y[0], c[1]);
            hopper::close_group();
            hopper::wait_for_all_but<0>();
            hopper::hold(products);
        };
        clear(together);
#pragma unroll 1
        for (int step = 0; step < steps; ++step) {
            uint64_t y[2], c[2];
            wait_for_step(y, c);
            multiply_half(std::integral_constant<int, 0>(), y, c);
            add(together, products);
            multiply_half(std::integral_constant<int, 1>(), y, c);
            release_step();
            add(together, products);
            if (slices_done % slices_together == slices_together - 1 || slices_done + 1 == slices) {
                add(sum, together);
                clear(together);
            }
            close_slice();
        }
    } else {
        start(even);
        int step = 1;
#pragma unroll 1
        for (; step + 1 < steps; step += 2) {
            start(odd);
            hopper::wait_for_all_but<1>();
            finish(even);
            start(even);
            hopper::wait_for_all_but<1>();
            finish(odd);
        }
        if (step < steps) {
            start(odd);
            hopper::wait_for_all_but<1>();
            finish(even);
            hopper::wait_for_all_but<0>();
            finish(odd);
        } else {
            hopper::wait_for_all_but<0>();
            finish(even);
        }
    }
}

template <Covariance form>
__global__ void __launch_bounds__(threads, 1)
        score_by_warpgroups(const __grid_constant__ Arguments arguments) {
    extern __shared__ __align__(1024) unsigned char memory[];
    ScoreShared& shared = *reinterpret_cast<ScoreShared*>(memory);
    hopper::divide_work<producer_registers, consumer_registers>(
            [&] { shared.there.init(consuming_warps); },
            [&] { bring_operands(arguments, shared); },
            [&](int group) { score_rows<form>(arguments, shared, group); });
}

// ---- phases 3 and 4

/// A warp's look at a row's scores, four a lane of every 128.
struct RowScores {
    unsigned char* place; ///< of the row in its first block
    int lane, swizzle;

    __device__ RowScores(const Arguments& arguments, size_t chunk_row, int own_lane)
            : place(score_block(arguments, chunk_row / tile, 0) + chunk_row % tile * 128),
              lane(own_lane), swizzle(chunk_row % 8) {}
    __device__ unsigned char* block(int k) const {
        return place + static_cast<size_t>(2 * k + lane / 16) * block_bytes;
    }
    /// Components 128 k + 4 lane and the three behind it.
    __device__ float4 read(int k) const {
        return *reinterpret_cast<const float4*>(
                block(k) + lane % 16 / 8 * slice_bytes + lane % 8 * 16);
    }
    __device__ void write(int k, uint2 high, uint2 low) const {
        unsigned char* at = block(k) + ((lane % 16 / 2) ^ swizzle) * 16 + lane % 2 * 8;
        *reinterpret_cast<uint2*>(at) = high;
        *reinterpret_cast<uint2*>(at + slice_bytes) = low;
    }
};

/// Phase 3: blockIdx.y: piece; a warp a row, zeros behind the last one, to the end of its tile.
__global__ void __launch_bounds__(256) share_rows(const __grid_constant__ Arguments arguments) {
    constexpr int together = 4; // of 128 components
    const int piece = blockIdx.y, lane = threadIdx.x % 32;
    const int i = blockIdx.x * 8 + threadIdx.x / 32;
    if (i >= arguments.pieces.tiles(piece) * tile) {
        return;
    }
    const size_t at = static_cast<size_t>(piece) * arguments.shape.piece_rows + i;
    const int tiles = arguments.shape.padded_K / tile;
    const RowScores scores(arguments, at, lane);
    if (i >= arguments.pieces.rows[piece]) {
        for (int k = 0; k < tiles; ++k) {
            scores.write(k, uint2{0, 0}, uint2{0, 0});
        }
        return;
    }
    const float4 none{impossible, impossible, impossible, impossible};
    const float4* constants = reinterpret_cast<const float4*>(arguments.buffers.constant) + lane;
    Normaliser row;
    for (int k = 0; k < tiles; k += together) {
        float4 s[together];
#pragma unroll
        for (int t = 0; t < together; ++t) {
            s[t] = k + t < tiles ? scores.read(k + t) : none;
        }
        const float before = row.best;
#pragma unroll
        for (int t = 0; t < together; ++t) {
            row.see(s[t].x);
            row.see(s[t].y);
            row.see(s[t].z);
            row.see(s[t].w);
        }
        row.rescale(before);
#pragma unroll
        for (int t = 0; t < together; ++t) {
            const float4 constant = k + t < tiles ? constants[32 * (k + t)] : none;
            const auto add = [&](float score, float of_component) {
                const float e = power_of_two(score - row.best);
                row.sum += e;
                row.distance = fmaf(e, of_component - score, row.distance);
            };
            add(s[t].x, constant.x);
            add(s[t].y, constant.y);
            add(s[t].z, constant.z);
            add(s[t].w, constant.w);
        }
    }
    row.merge<32>();
    const float share = r_scale / row.sum;
    for (int k = 0; k < tiles; k += together) {
        float4 s[together];
#pragma unroll
        for (int t = 0; t < together; ++t) {
            s[t] = k + t < tiles ? scores.read(k + t) : none;
        }
        __syncwarp(); // what some lanes write was others' scores
#pragma unroll
        for (int t = 0; t < together; ++t) {
            if (k + t < tiles) {
                uint2 high, low;
                split(power_of_two(s[t].x - row.best) * share,
                      power_of_two(s[t].y - row.best) * share,
                      high.x,
                      low.x);
                split(power_of_two(s[t].z - row.best) * share,
                      power_of_two(s[t].w - row.best) * share,
                      high.y,
                      low.y);
                scores.write(k + t, high, low);
            }
        }
    }
    if (lane == 0) {
        const uint32_t x = arguments.order[arguments.pieces.first[piece] + i];
        const Covariance form = arguments.shape.form;
        const double h = common_precision(form, arguments.half_precision, arguments.buffers.scale);
        const double square = arguments.buffers.square[at];
        arguments.output.log_likelihood[x] =
                reference_constant(arguments.constant, arguments.buffers.scale) - h * square +
                (static_cast<double>(row.best) + log2f(row.sum)) / log2_e;
        if (form == Covariance::tied_spherical) {
            arguments.output.moment[x] = // |x - mu_k|^2 = |y|^2 + |c_k|^2 - 2 y.c_k
                    square + row.distance / row.sum / (h * log2_e);
        }
        if (power_of_two(row.second - row.best) * arguments.K > row.sum) {
            atomicAdd(arguments.output.shared_rows, 1ull);
        }
    }
}

/// Phase 4: blockIdx: slice of components, piece. A thread takes eight components of every 32nd row.
template <bool with_squares>
__global__ void __launch_bounds__(256) add_masses(const __grid_constant__ Arguments arguments) {
    constexpr int kinds = with_squares ? 2 : 1; // r, r |y|^2
    __shared__ double partial[kinds][8][slice];
    const int piece = blockIdx.y, eight = threadIdx.x % 8, lane = threadIdx.x % 32;
    double sum[kinds][8] = {};
    for (int t = 0; t < arguments.pieces.tiles(piece); ++t) {
        const size_t row_tile = row_tile_of(arguments, piece, t * tile);
        const unsigned char* block = score_block(arguments, row_tile, blockIdx.x);
        float of_tile[kinds][8] = {};
#pragma unroll
        for (int i = threadIdx.x / 8; i < tile; i += 32) {
            const unsigned char* at = block + i * 128 + (eight ^ (i % 8)) * 16;
            const uint4 both[2] = {
                    *reinterpret_cast<const uint4*>(at),
                    *reinterpret_cast<const uint4*>(at + slice_bytes)};
            const __half2* high = reinterpret_cast<const __half2*>(&both[0]);
            const __half2* low = reinterpret_cast<const __half2*>(&both[1]);
            const float square = with_squares ? arguments.buffers.square[row_tile * tile + i] : 0;
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float2 h = __half22float2(high[e]), l = __half22float2(low[e]);
                const float r[2] = {h.x + l.x, h.y + l.y};
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    of_tile[0][2 * e + c] += r[c];
                    if constexpr (with_squares) {
                        of_tile[1][2 * e + c] = fmaf(r[c], square, of_tile[1][2 * e + c]);
                    }
                }
            }
        }
#pragma unroll
        for (int kind = 0; kind < kinds; ++kind) {
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                sum[kind][e] += of_tile[kind][e];
            }
        }
    }
#pragma unroll
    for (int kind = 0; kind < kinds; ++kind) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            sum[kind][e] += __shfl_xor_sync(whole_warp, sum[kind][e], 8);
            sum[kind][e] += __shfl_xor_sync(whole_warp, sum[kind][e], 16);
            if (lane < 8) {
                partial[kind][threadIdx.x / 32][8 * eight + e] = sum[kind][e];
            }
        }
    }
    __syncthreads();
    if (threadIdx.x < kinds * slice) {
        const int kind = threadIdx.x / slice, k = threadIdx.x % slice;
        double all = 0;
        for (int warp = 0; warp < 8; ++warp) {
            all += partial[kind][warp][k];
        }
        double* out = kind == 0 ? arguments.buffers.mass : arguments.buffers.square_sum;
        out[static_cast<size_t>(piece) * arguments.shape.padded_K + blockIdx.x * slice + k] =
                all / r_scale;
    }
}

// ---- phase 5

template <int dims_> struct SumShared {
    static constexpr int dims = dims_, slices = dims / slice;
    static constexpr int stages = dims == 192 ? 5 : 7;
    /// High and low halves.
    alignas(1024) unsigned char shares[stages][2][2][box_bytes]; ///< of 64 components a warpgroup
    alignas(1024) unsigned char rows[stages][2][slices][box_bytes];
    RingBarriers<stages> there;
};

/// A tile of sums over a piece.
template <int dims> struct SumPlace {
    int k, j, piece; ///< tile of components, tile of dimensions

    __device__ SumPlace(const Arguments& arguments, int item) {
        const int tiles = arguments.shape.padded_K / tile, across = tiles_across(arguments.shape);
        k = item % tiles;
        j = item / tiles % across;
        piece = item / tiles / across;
    }
    __host__ __device__ static int tiles_across(const DenseShape& shape) {
        return (shape.row_width + dims - 1) / dims;
    }
    __host__ __device__ static int count(const Arguments& arguments) {
        return arguments.pieces.count * (arguments.shape.padded_K / tile) *
               tiles_across(arguments.shape);
    }
    __device__ int steps(const Arguments& arguments) const {
        return (arguments.pieces.rows[piece] + step_rows - 1) / step_rows;
    }
};

template <int dims>
__device__ void bring_shares(const Arguments& arguments, SumShared<dims>& shared) {
    using Shared = SumShared<dims>;
    constexpr int steps_a_tile = tile / step_rows;
    const int slices = arguments.shape.row_width / slice;
    const size_t part = static_cast<size_t>(slices) * slice_bytes;
    const unsigned char* rows = reinterpret_cast<const unsigned char*>(arguments.buffers.rows_high);
    hopper::Ring<Shared::stages> ring;
    const int count = SumPlace<dims>::count(arguments);
    for (int item = blockIdx.x; item < count; item += gridDim.x) {
        const SumPlace<dims> place(arguments, item);
        // Of the last tile's slices beyond the rows' width nothing is read: columns of sums do not meet.
        const int first_slice = place.j * Shared::slices;
        const int live = min(Shared::slices, slices - first_slice);
        const int steps = place.steps(arguments);
        for (int step = 0; step < steps; ++step) {
            const size_t row_tile = row_tile_of(arguments, place.piece, step / steps_a_tile * tile);
            const size_t within = static_cast<size_t>(step % steps_a_tile) * box_bytes;
            const unsigned char* r = score_block(arguments, row_tile, 2 * place.k) + within;
            const unsigned char* y = rows + row_tile * 2 * part +
                                     static_cast<size_t>(first_slice) * slice_bytes + within;
            uint64_t* full = &shared.there.full[ring.place];
            hopper::wait(&shared.there.empty[ring.place], ring.parity ^ 1);
            hopper::arrive_expecting(full, (4 + 2 * live) * box_bytes);
            for (int which = 0; which < 2; ++which) {
                for (int g = 0; g < 2; ++g) {
                    hopper::copy_bytes(
                            shared.shares[ring.place][which][g],
                            r + g * block_bytes + which * slice_bytes,
                            box_bytes,
                            full);
                }
                for (int s = 0; s < live; ++s) {
                    hopper::copy_bytes(
                            shared.rows[ring.place][which][s],
                            y + which * part + s * slice_bytes,
                            box_bytes,
                            full);
                }
            }
            ring.advance();
        }
    }
}

template <int dims>
__device__ void sum_shares(const Arguments& arguments, SumShared<dims>& shared, int group) {
    const DenseShape& shape = arguments.shape;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % warps_a_group;
    hopper::Ring<SumShared<dims>::stages> ring;
    const int count = SumPlace<dims>::count(arguments), run = run_steps(shape.form);
    float acc[dims / 2], sums[dims / 2];
    for (int item = blockIdx.x; item < count; item += gridDim.x) {
        const SumPlace<dims> place(arguments, item);
        const int steps = place.steps(arguments);
#pragma unroll
        for (float& value : sums) {
            value = 0;
        }
#pragma unroll 1
        for (int first = 0; first < steps; first += run) {
#pragma unroll
            for (float& value : acc) {
                value = 0;
            }
            hopper::hold(acc);
            const int last = min(first + run, steps);
            int previous = ring.place;
#pragma unroll 1
            for (int step = first; step < last; ++step) {
                shared.there.wait_for(ring);
                const auto shares = [&](int which) {
                    return hopper::transposed_descriptor(
                            shared.shares[ring.place][which][group], box_bytes);
                };
                const auto rows = [&](int which) {
                    return hopper::transposed_descriptor(
                            shared.rows[ring.place][which][0], box_bytes);
                };
                const uint64_t r_high = shares(0), r_low = shares(1);
                const uint64_t y_high = rows(0), y_low = rows(1);
                hopper::begin_products();
#pragma unroll
                for (int i = 0; i < step_rows / 16; ++i) {
                    const uint64_t of_high = hopper::advanced_rows(y_high, i);
                    const uint64_t high = hopper::advanced_rows(r_high, i);
                    hopper::multiply_transposed(acc, high, hopper::advanced_rows(y_low, i));
                    hopper::multiply_transposed(acc, hopper::advanced_rows(r_low, i), of_high);
                    hopper::multiply_transposed(acc, high, of_high);
                }
                hopper::close_group();
                if (step > first) {
                    hopper::wait_for_all_but<1>();
                    hopper::arrive_as_warp(&shared.there.empty[previous], lane);
                }
                previous = ring.place;
                ring.advance();
            }
            hopper::wait_for_all_but<0>();
            hopper::arrive_as_warp(&shared.there.empty[previous], lane);
            hopper::hold(acc);
#pragma unroll
            for (int i = 0; i < dims / 2; ++i) {
                sums[i] += acc[i];
            }
        }
        const size_t k = place.k * tile + 64 * group + 16 * warp + lane / 4;
        const int width = shape.padded_width, j = place.j * dims + lane % 4 * 2;
        float* out = arguments.buffers.partial +
                     (static_cast<size_t>(place.piece) * shape.padded_K + k) * width + j;
#pragma unroll
        for (int n = 0; n < dims / 8; ++n) {
            if (j + 8 * n < width) {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    *reinterpret_cast<float2*>(out + 8 * h * width + 8 * n) =
                            float2{sums[4 * n + 2 * h], sums[4 * n + 2 * h + 1]};
                }
            }
        }
    }
}

template <int dims>
__global__ void __launch_bounds__(threads, 1)
        sum_wide_by_warpgroups(const __grid_constant__ Arguments arguments) {
    extern __shared__ __align__(1024) unsigned char memory[];
    auto& shared = *reinterpret_cast<SumShared<dims>*>(memory);
    hopper::divide_work<producer_registers, consumer_registers>(
            [&] { shared.there.init(consuming_warps); },
            [&] { bring_shares(arguments, shared); },
            [&](int group) { sum_shares(arguments, shared, group); });
}

// ---- host

/// Dimensions of a tile of sums: 192, but where 128 leave less of the last one empty.
int sum_dims(int width) {
    const auto padded = [&](int dims) { return (width + dims - 1) / dims * dims; };
    return 16 * padded(192) <= 17 * padded(128) ? 192 : 128;
}

template <int dims> void sum_pieces(const Arguments& arguments, cudaStream_t stream) {
    launch<SumShared<dims>>(
            sum_wide_by_warpgroups<dims>, arguments, SumPlace<dims>::count(arguments), stream);
}

/// Of a score, as in dense.cu. Hopper cuts 5.25 2^-23 for 16 products (dense_wgmma.cu). The sum of
///   21 2^-23             yh.wh of a step, relative to |y||w| of its columns, together at most |y||w|
///   42 2^-23 2^-10       yh.wl, yl.wh of a step
///   (w / 64 - 1) 2^-24   steps
///   2^-21 + 2^-29 + 4 2^-24  as in dense.cu
/// 3.6e-6 at w = 384, 4.1e-6 at 960, 5.1e-6 at 2,048. Diagonal: half as many cuts, (7 + w / 256) 2^-24 for steps:
/// 2.9e-6 at 960 dimensions, 2.5e-6 at 128.
float rounding_of_scores(const DenseShape& shape) {
    constexpr float cut = 0x1.0p-23f, rounded = 0x1.0p-24f;
    const int slices = shape.row_width / slice;
    const bool diagonal = shape.form == Covariance::diagonal;
    const float cuts = diagonal ? 10.5f : 21.0f;
    const int additions = diagonal ? 2 * std::min(slices, slices_together) - 1 +
                                             (slices + slices_together - 1) / slices_together
                                   : slices - 1;
    return cuts * (1 + 2 * 0x1.0p-10f) * cut + static_cast<float>(additions + 4) * rounded +
           0x1.0p-21f + 0x1.0p-29f;
}

} // namespace

void shape_for_wide_warpgroups(int K, int width, DenseShape& shape) {
    constexpr int scores = 1 << 23;       // of a chunk: 32 MiB
    constexpr int most_numbers = 5 << 22; // of its rows: 80 MiB
    constexpr int multiprocessors_aimed_at = 132;
    constexpr int piece_overhead = 160; // rows that writing and adding up a piece costs as much as
    shape.path = CollectPath::hopper;
    shape.padded_K = (K + tile - 1) / tile * tile;
    shape.padded_width = shape.row_width = (width + slice - 1) / slice * slice;
    const int most_rows = std::min(8192, most_numbers / shape.row_width / tile * tile);
    const int rows = std::clamp(scores / shape.padded_K / tile * tile, 512, most_rows);
    const int dims = sum_dims(shape.row_width);
    const int tiles = shape.padded_K / tile * ((shape.row_width + dims - 1) / dims);
    long long least = LLONG_MAX;
    for (int pieces = 1; pieces <= most_pieces; ++pieces) {
        const int piece_rows = (rows + pieces * tile - 1) / (pieces * tile) * tile;
        const long long turns =
                (tiles * pieces + multiprocessors_aimed_at - 1) / multiprocessors_aimed_at;
        const long long cost = turns * (piece_rows + piece_overhead);
        if (pieces * piece_rows <= rows + rows / 4 && cost < least) {
            least = cost;
            shape.piece_rows = piece_rows;
            shape.chunk_rows = piece_rows * pieces;
        }
    }
    shape.rounding = rounding_of_scores(shape);
}

void sum_wide_by_warpgroups(
        const MixtureView& mixture,
        const float* origin,
        const DenseShape& shape,
        const DenseBuffers& buffers,
        const DenseRows& rows,
        const PassSums& sums,
        const DenseOutput& output,
        cudaStream_t stream) {
    Arguments arguments = dense_arguments(mixture, shape, buffers, rows, output);
    const Pieces& pieces = arguments.pieces;
    visit_chunks<tile>(arguments, rows, [&] {
        const dim3 grid(shape.piece_rows / 8, pieces.count);
        const int k_tiles = shape.padded_K / tile;
        tile_wide_rows<<<grid, 256, 0, stream>>>(rows.x, mixture.d, origin, arguments);
        const bool spherical = shape.form == Covariance::spherical;
        launch<ScoreShared>(
                spherical ? score_by_warpgroups<Covariance::spherical>
                : shape.form == Covariance::diagonal
                        ? score_by_warpgroups<Covariance::diagonal>
                        : score_by_warpgroups<Covariance::tied_spherical>,
                arguments,
                pieces.units_before[pieces.count] * k_tiles,
                stream);
        share_rows<<<grid, 256, 0, stream>>>(arguments);
        const auto add = spherical ? add_masses<true> : add_masses<false>;
        add<<<dim3(shape.padded_K / slice, pieces.count), 256, 0, stream>>>(arguments);
        if (sum_dims(shape.row_width) == 192) {
            sum_pieces<192>(arguments, stream);
        } else {
            sum_pieces<128>(arguments, stream);
        }
        add_pieces(mixture, origin, shape, buffers, pieces.count, sums, stream);
        check_launch("adding up rows densely");
    });
}

} // namespace faiss_gmm::cuda
