// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// From compared rows to the sums of an M-step.
//   a segment's sums: r, r (x - mu_c), r |x - mu_c|^2 (diagonal: r (x - mu_c)^2), L
//   c: the provisional home of the segment's rows; r, L: detail/judge.cuh.
// A warp takes a segment (at most 64 rows of one block and provisional home, neighbours in `order`).
//   weigh_kernel: rows of several candidates, a lane a row of up to four, two lanes a row of more; writes what
//     is c's, and the other shares that count into the row's list, for sum_pairs_kernel.
//   sum_homes_by_ring: reads x through a ring in shared memory (detail/row_ring.cuh), 128 columns of all rows after the
//     other; mu_c stays in registers. Rows of one candidate are c's.
//   sum_homes_directly: the same of rows with low parts (tied), whole, a few at once.
// Cost: n d 4 bytes read once, in the order of the homes; a few bytes a candidate. On an H200 the homes of (1M, 128)
//   take .165 ms, 3.1 TB/s, of 384 dimensions .435, 3.5, of 960 1.05, 3.7: 74 to 88% of what a copy reaches.
// Numerics: segments add at most 64 rows in fp32; r, likelihoods and the homes' |x - mu_c|^2 in fp64.
// What lists leave out (RowLists::rest) enters normalisers and likelihoods, and gets no share.
// A row's shares sum to one: home takes what the others leave (fp64).
// Determinism: gpu_to_gpu, but for the libm's expf and logf; a segment's sums depend on its rows in order.
// Reference and test: tests/train/naive_em.h, tests/train/cuda/cuda_estep_engine_test.cc.
// Lost: wide rows whole, through registers: .75 ms for 384 dimensions, too few under way. Rows of 130 dimensions, which
//   are no whole pieces of 16 bytes, took .36 so and take .54 by the ring, but would add up to other bits than where
//   they are whole pieces.
#include "faiss_gmm/train/cuda/detail/weigh.h"

#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/judge.cuh"
#include "faiss_gmm/train/cuda/detail/row_ring.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int warps_a_block = 4;
/// Of whitened rows' shares, in 1: matrices.cc subtracts sum r c c^T from what all rows make without r.
constexpr float share_steps = 0x1.0p24f;

/// Chunks of 128 dimensions whose means fit in registers beside the sums.
constexpr int most_held_chunks = 4;

/// A warp's running sums, by dimension.
template <Covariance form, int chunks> struct Moments {
    float first[4 * chunks] = {};
    float second[form == Covariance::diagonal ? 4 * chunks : 1] = {};

    __device__ void add(const float (&difference)[4 * chunks], float weight) {
#pragma unroll
        for (int i = 0; i < 4 * chunks; ++i) {
            first[i] = fmaf(weight, difference[i], first[i]);
            if (form == Covariance::diagonal) {
                second[i] = fmaf(weight * difference[i], difference[i], second[i]);
            }
        }
    }
    /// From column `column` on.
    __device__ void
    store(const SegmentSums& out, size_t segment, int d, int lane, int column = 0) const {
        const bool aligned = d % 4 == 0;
        const size_t at = segment * d + column;
        store_row<chunks>(out.first_moment + at, d - column, aligned, lane, first);
        if constexpr (form == Covariance::diagonal) {
            store_row<chunks>(out.second_moment + at, d - column, aligned, lane, second);
        }
    }
};

/// A lane's part of the other sums.
struct RowSums {
    double mass = 0, moment = 0, log_likelihood = 0;

    template <Covariance form>
    __device__ void store(const SegmentSums& out, size_t segment, int lane) const {
        const double all[3] = {warp_sum(mass), warp_sum(moment), warp_sum(log_likelihood)};
        if (lane == 0) {
            out.mass[segment] = all[0];
            if (form != Covariance::diagonal) {
                out.moment[segment] = all[1];
            }
            if (out.log_likelihood != nullptr) {
                out.log_likelihood[segment] = all[2];
            }
        }
    }
    /// What was stored, in the first lane.
    template <Covariance form>
    __device__ void load(const SegmentSums& out, size_t segment, int lane) {
        if (lane == 0) {
            mass = out.mass[segment];
            moment = form != Covariance::diagonal ? out.moment[segment] : 0;
            log_likelihood = out.log_likelihood[segment];
        }
    }
};

/// Rows less mu_c, for many rows: it is in registers where it fits there.
template <Covariance form, int chunks> class CentredAtC {
public:
    __device__ CentredAtC(
            const MixtureView& mixture, const Component<form, chunks>& c, const Rows& x, int lane)
            : mean_(c.mean), mean_low_(c.mean_low), x_low_(x.low), d_(mixture.d), lane_(lane) {
        if constexpr (held) {
            load_row<chunks>(mean_, d_, d_ % 4 == 0, lane, held_);
        }
    }
    __device__ void centre(size_t first, float (&values)[4 * chunks]) const {
        if constexpr (held) {
#pragma unroll
            for (int j = 0; j < 4 * chunks; ++j) {
                values[j] -= held_[j];
            }
        } else {
            subtract_mean<chunks>(mean_, d_, lane_, values);
        }
        if constexpr (has_low_parts(form)) {
            add_low_parts<chunks>(x_low_ + first, mean_low_, d_, lane_, values);
        }
    }

private:
    static constexpr bool held = chunks <= most_held_chunks;
    const float *mean_, *mean_low_, *x_low_;
    int d_, lane_;
    float held_[held ? 4 * chunks : 1];
};

/// Rows of at most so many candidates are one lane's work, in registers.
constexpr int few_candidates = 4;
/// Rows of about as many candidates are judged together: all wait for the one that has most.
constexpr int judging_classes = 3;
__device__ inline int judging_class(int count) {
    return count <= few_candidates ? 0 : count <= 2 * few_candidates ? 1 : 2;
}

/// What the segment's sums and the lists get of a row of few candidates, by one lane: as judge() and weigh_kernel
/// do it by two. False, and nothing is changed: fp32 does not settle it.
template <Covariance form>
__device__ bool weigh_few(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        uint32_t row,
        int count,
        int c,
        int position,
        const WeighOutput& out,
        RowSums& sums,
        unsigned& shared) {
    const AgainstHome against = lists.against[row];
    if (!is_near(against, mixture.d)) {
        return false;
    }
    const size_t list = static_cast<size_t>(row) * lists.capacity;
    float below[few_candidates], bound[few_candidates];
    int component[few_candidates];
    float best = -infinity;
    int home = most_candidates;
#pragma unroll
    for (int l = 0; l < few_candidates; ++l) {
        const bool exists = l < count;
        below[l] =
                exists ? lists.share[list + l] : -infinity; // less its own, until the best is known
        bound[l] = exists ? __uint_as_float(static_cast<uint32_t>(lists.error[list + l]) << 16) : 0;
        component[l] = exists ? lists.component[list + l] : -1;
    }
#pragma unroll
    for (int l = 0; l < few_candidates; ++l) {
        if (below[l] > best) {
            best = below[l];
            home = l;
        }
    }
    float r[few_candidates], sum = 0, home_error = 0;
#pragma unroll
    for (int l = 0; l < few_candidates; ++l) {
        below[l] = best - below[l];
        r[l] = below[l] <= rule.margin ? expf(-below[l]) : 0.0f;
        sum += r[l];
        home_error = l == home ? bound[l] : home_error;
    }
    sum = fmaf(rest_of(lists, row), expf(-best), sum); // in exp(l_c); c's own is 0
    bool settled = home < count;
#pragma unroll
    for (int l = 0; l < few_candidates; ++l) {
        r[l] /= sum;
        const bool fine = stays(r[l], below[l], bound[l] + home_error, l == home);
        settled = settled && (fine || l >= count);
    }
    if (!settled) {
        return false;
    }
    double others = 0;
    uint32_t emitted = 0;
    bool is_shared = false, has_c = false;
#pragma unroll
    for (int l = 0; l < few_candidates; ++l) {
        r[l] = rule.hard              ? 0.0f
               : !has_low_parts(form) ? r[l]
                                      : rintf(r[l] * share_steps) / share_steps;
        const bool gets = l != home && r[l] >= rule.threshold && r[l] > 0;
        others += gets ? static_cast<double>(r[l]) : 0.0;
        emitted |= gets || l == home ? 1u << l : 0;
        is_shared |= l != home && r[l] > 1.0f / mixture.K;
    }
    shared += is_shared;
    double weight_of_c = 0;
    size_t at = list;
#pragma unroll
    for (int l = 0; l < few_candidates; ++l) {
        if ((emitted >> l & 1) == 0) {
            continue;
        }
        const double weight = l == home ? 1.0 - others : static_cast<double>(r[l]);
        if (component[l] == c) {
            weight_of_c = weight;
            has_c = true;
        } else {
            lists.component[at] = static_cast<uint16_t>(component[l]);
            lists.share[at] = static_cast<float>(weight);
            ++at;
        }
    }
    sums.mass += weight_of_c;
    sums.moment += weight_of_c > 0 ? weight_of_c * against.square : 0;
    sums.log_likelihood +=
            mixture.constant[c] - against.weighted + best + (rule.hard ? 0.0f : logf(sum));
    out.kept[position] = static_cast<uint8_t>(__popc(emitted) - has_c);
    out.weight[position] = static_cast<float>(weight_of_c);
    return true;
}

/// A warp a segment, rows of several candidates.
template <Covariance form>
__global__ void __launch_bounds__(32 * warps_a_block, 8) weigh_kernel(
        const __grid_constant__ MixtureView mixture,
        PairRule rule,
        const __grid_constant__ RowLists lists,
        const uint32_t* __restrict__ order,
        SegmentTable table,
        unsigned long long first_row,
        WeighOutput out) {
    __shared__ uint8_t place[warps_a_block][segment_rows];
    const int s = blockIdx.x * warps_a_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32, half = lane % 2;
    if (s >= table.first[table.groups]) {
        return;
    }
    const Segment segment = find_segment(table, s);
    const int c = segment.group % mixture.K;
    RowSums sums;
    unsigned shared = 0;
    constexpr int halves = segment_rows / 32;
    int count[halves];
#pragma unroll
    for (int h = 0; h < halves; ++h) {
        const int position = segment.begin + 32 * h + lane;
        count[h] = position < segment.end ? lists.count[order[position]] : 0;
        if (count[h] == 1) {
            out.kept[position] = 0;
            out.weight[position] = 1;
        }
    }
    // Places of the others, by class.
    uint8_t* const places = place[threadIdx.x / 32];
    const unsigned lower_lanes = (1u << lane) - 1;
    int several_rows = 0, of_few = 0;
#pragma unroll
    for (int of_class = 0; of_class < judging_classes; ++of_class) {
#pragma unroll
        for (int h = 0; h < halves; ++h) {
            const bool mine = count[h] > 1 && judging_class(count[h]) == of_class;
            const unsigned all = __ballot_sync(whole_warp, mine);
            if (mine) {
                places[several_rows + __popc(all & lower_lanes)] =
                        static_cast<uint8_t>(32 * h + lane);
            }
            several_rows += __popc(all);
        }
        of_few = of_class == 0 ? several_rows : of_few;
    }
    // Those that a lane cannot settle go to the end of their class, before the rows of more candidates.
    int first = of_few;
    for (int begin = (of_few - 1) / 32 * 32; of_few > 0 && begin >= 0; begin -= 32) {
        __syncwarp();
        const bool exists = begin + lane < of_few;
        const int at = exists ? places[begin + lane] : 0;
        const int position = segment.begin + at;
        bool left = false;
        if (exists) {
            const uint32_t row = order[position];
            left = !weigh_few<form>(
                    mixture, rule, lists, row, lists.count[row], c, position, out, sums, shared);
        }
        const unsigned all =
                __ballot_sync(whole_warp, left); // and what they read of places is read
        first -= __popc(all);
        if (left) {
            places[first + __popc(all & lower_lanes)] = static_cast<uint8_t>(at);
        }
    }
    __syncwarp();
    for (int begin = first; begin < several_rows; begin += judged_at_once) {
        const bool several = begin + lane / 2 < several_rows;
        const int position = segment.begin + (several ? places[begin + lane / 2] : 0);
        const uint32_t row = order[position];
        JudgedRow mine = take_row<form>(mixture, lists, several, row);
        judge<form>(mixture, rule.margin, lists, first_row, out.bad_row, mine);
        const uint16_t* component = lists.component + static_cast<size_t>(row) * lists.capacity;
        // Whitened rows: shares that add up to one exactly, also where home's is stored in fp32.
        const auto share = [&](int l) {
            const float r = rule.hard ? 0.0f : mine.r(l, rule.margin);
            return has_low_parts(form) ? rintf(r * share_steps) / share_steps : r;
        };
        double others = 0;
        uint32_t kept = 0; // places of the others that get their share
        int place_of_c = most_candidates;
        bool is_shared = false;
#pragma unroll 1
        for (int l = half; l < mine.count; l += 2) {
            const float given = share(l);
            if (l != mine.home && given >= rule.threshold && given > 0) {
                others += static_cast<double>(given);
                kept |= 1u << l;
            }
            is_shared |= l != mine.home && given > 1.0f / mixture.K;
            place_of_c = component[l] == c ? l : place_of_c;
        }
        others += of_other_lane(others);
        kept |= of_other_lane(kept);
        place_of_c = min(place_of_c, of_other_lane(place_of_c));
        shared += (is_shared | of_other_lane(is_shared)) && half == 0;
        __syncwarp();
        if (half == 0 && several) {
            const auto weight = [&](int l) {
                return l == mine.home ? 1.0 - others : static_cast<double>(share(l));
            };
            uint32_t emitted = mine.count > 0 ? kept | 1u << mine.home : 0;
            double weight_of_c = 0;
            if (place_of_c < mine.count && (emitted >> place_of_c & 1) != 0) {
                weight_of_c = weight(place_of_c);
                emitted &= ~(1u << place_of_c);
            }
            if (mine.count > 0) {
                sums.mass += weight_of_c;
                sums.moment += weight_of_c > 0 ? weight_of_c * mine.square : 0;
                sums.log_likelihood +=
                        mine.reference + mine.best + (rule.hard ? 0.0f : logf(mine.sum));
            }
            size_t at = static_cast<size_t>(row) * lists.capacity;
            for (uint32_t left = emitted; left != 0; left &= left - 1, ++at) {
                const int l = __ffs(static_cast<int>(left)) - 1;
                const auto its = static_cast<float>(weight(l)); // before its place is taken
                lists.component[at] = component[l];
                lists.share[at] = its;
            }
            out.kept[position] = static_cast<uint8_t>(__popc(emitted));
            out.weight[position] = static_cast<float>(weight_of_c);
        }
    }
    sums.store<form>(out.sums, s, lane);
    const unsigned all_shared = __reduce_add_sync(whole_warp, shared);
    if (lane == 0 && all_shared > 0) {
        atomicAdd(out.shared_rows, static_cast<unsigned long long>(all_shared));
    }
}

/// Likelihoods of rows of one listed candidate k, one a lane, with the rest of each: those of no use to fp32 are
/// computed again in fp64.
template <Covariance form>
__device__ void add_likelihoods(
        const MixtureView& mixture,
        const RowLists& lists,
        int k,
        double constant,
        const AgainstHome& against,
        bool alone,
        float rest,
        uint32_t row,
        unsigned long long first_row,
        unsigned long long* bad_row,
        RowSums& sums) {
    const int lane = threadIdx.x % 32, d = mixture.d;
    const bool near = is_near(against, d);
    if (alone && near) {
        sums.mass += 1;
        sums.moment += against.square;
        sums.log_likelihood += constant - static_cast<double>(against.weighted) + log1pf(rest);
    }
    unsigned far = __ballot_sync(whole_warp, alone && !near); // or not finite
#pragma unroll 1
    for (; far != 0; far &= far - 1) {
        const int its_lane = __ffs(static_cast<int>(far)) - 1;
        const uint32_t its = __shfl_sync(whole_warp, row, its_lane);
        const float its_rest = __shfl_sync(whole_warp, rest, its_lane);
        const size_t first = first_number(its, d);
        double square = 0;
        const double joint = exact_joint<form>(mixture, lists.x, first, 1, k, lane, square);
        const bool is_row = all_finite_row(lists.x, first, d, lane);
        if (lane == 0 && !is_row) {
            atomicMin(bad_row, first_row + its);
        }
        if (lane == 0) {
            sums.mass += 1;
            sums.moment += square;
            sums.log_likelihood += joint + log1pf(its_rest);
        }
    }
}

/// Rows whose numbers come, and are taken, at once from the ring.
constexpr int ring_batch = 4;

/// A row of a segment.
struct WeightedRow {
    uint32_t row;
    float weight; ///< 0: nothing of it is its home's, and it may hold anything
};

/// A warp a segment: what its rows give to their provisional home. No low parts; rows of more than 128 dimensions,
/// which are `wide`, come 128 columns at a time.
template <Covariance form, bool whole_pieces, bool wide>
__global__ void __launch_bounds__(32 * warps_a_block, 6) sum_homes_by_ring(
        const __grid_constant__ MixtureView mixture,
        const __grid_constant__ RowLists lists,
        const uint32_t* __restrict__ order,
        SegmentTable table,
        unsigned long long first_row,
        WeighOutput out) {
    __shared__ RingSlots slots[warps_a_block];
    __shared__ WeightedRow weighted_rows[warps_a_block][segment_rows];
    const int s = blockIdx.x * warps_a_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32, d = mixture.d;
    if (s >= table.first[table.groups]) {
        return;
    }
    const Segment segment = find_segment(table, s);
    const int rows = segment.end - segment.begin;
    WeightedRow* const weighted = weighted_rows[threadIdx.x / 32];
    constexpr int halves = segment_rows / 32;
    WeightedRow mine[halves];
#pragma unroll
    for (int h = 0; h < halves; ++h) {
        const int i = 32 * h + lane;
        mine[h] = i < rows ? WeightedRow{order[segment.begin + i], out.weight[segment.begin + i]}
                           : WeightedRow{0, 0};
        weighted[i] = mine[h];
    }
    __syncwarp();
    const RowRing<whole_pieces> ring(lists.x, d, lane, slots[threadIdx.x / 32]);
    const int columns = wide ? d : 1; // a chunk of them is named by its first
    const auto bring_rows = [&](int first, int column) {
#pragma unroll
        for (int i = first; i < first + ring_batch; ++i) {
            const WeightedRow it = weighted[i];
            if (it.weight != 0) {
                ring.bring(i, it.row, column);
            }
        }
    };
    // Behind the rows, in the first slots again, come the next columns of the first ones.
    const auto bring_batch = [&](int first, int column) {
        if (first < rows) {
            bring_rows(first, column);
        } else if (wide && first >= rows + (-rows & 7) && column + chunk_width < columns) {
            bring_rows(0, column + chunk_width);
        }
        ring.close_batch();
    };
    bring_batch(0, 0);
    unsigned alone[halves]; // rows of one candidate
    float rest[halves];
#pragma unroll
    for (int h = 0; h < halves; ++h) {
        const bool exists = 32 * h + lane < rows;
        rest[h] = exists ? rest_of(lists, mine[h].row) : 0.0f;
        alone[h] = __ballot_sync(whole_warp, exists && lists.count[mine[h].row] == 1);
    }
    const Component<form, 1> c(mixture, segment.group % mixture.K);
    RowSums sums;
    sums.load<form>(out.sums, s, lane);
    float my_square[halves] = {}; // of row 8 (lane % 4) + lane / 4 of 32; diagonal: weighted
#pragma unroll 1
    for (int column = 0; column < columns; column += chunk_width) {
        float mean[4], precision[4];
        load_four(c.mean + column, 4 * lane, d - column, d % 4 == 0, mean);
        if (form == Covariance::diagonal) {
            load_four(c.precision + column, 4 * lane, d - column, d % 4 == 0, precision);
        }
        Moments<form, 1> moments;
        const bool are_last = column + chunk_width >= columns;
#pragma unroll 1
        for (int begin = 0; begin < rows; begin += 8) {
            float squares[8] = {};
#pragma unroll
            for (int b = 0; b < 8; b += ring_batch) {
                const int first = begin + b;
                __syncwarp(); // the batch before has been read
                bring_batch(first + ring_batch, column);
                ring.wait_for_all_but_last();
                float difference[ring_batch][4];
                ring.load(first, column, difference);
#pragma unroll
                for (int i = 0; i < ring_batch; ++i) {
                    const float weight = weighted[first + i].weight;
                    if (weight == 0) {
                        continue;
                    }
                    float square = 0;
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        float& e = difference[i][j];
                        e -= mean[j];
                        square = fmaf(
                                form == Covariance::diagonal ? precision[j] * e : e, e, square);
                    }
                    moments.add(difference[i], weight);
                    squares[b + i] = square;
                }
            }
            const float square = warp_sums(squares); // lane l has number l / 4
            float& of_half = my_square[wide && begin >= 32 ? 1 : 0];
            of_half = lane % 4 != begin / 8 % 4 ? of_half : wide ? of_half + square : square;
            if (are_last && ((begin + 8) % 32 == 0 || begin + 8 >= rows)) {
                const int i = 8 * (lane % 4) + lane / 4;
                const unsigned are_alone = begin < 32 ? alone[0] : alone[1];
                const AgainstHome against =
                        form == Covariance::diagonal
                                ? AgainstHome{0, of_half}
                                : AgainstHome{of_half, c.half_precision * of_half};
                add_likelihoods<form>(
                        mixture,
                        lists,
                        c.k,
                        c.constant,
                        against,
                        (are_alone >> i & 1) != 0,
                        __shfl_sync(whole_warp, begin < 32 ? rest[0] : rest[1], i),
                        weighted[begin / 32 * 32 + i].row,
                        first_row,
                        out.bad_row,
                        sums);
            }
        }
        moments.store(out.sums, s, d, lane, column);
    }
    static_assert(halves == 2, "alone, of_half");
    sums.store<form>(out.sums, s, lane);
}

/// Blocks that share a multiprocessor's registers: warps hide each other's waiting.
constexpr int sum_blocks(int chunks) {
    return chunks > 4 ? 2 : chunks > 1 ? 3 : 4;
}

/// The same of rows with low parts.
template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block, sum_blocks(chunks)) sum_homes_directly(
        const __grid_constant__ MixtureView mixture,
        const __grid_constant__ RowLists lists,
        const uint32_t* __restrict__ order,
        SegmentTable table,
        unsigned long long first_row,
        WeighOutput out) {
    const int s = blockIdx.x * warps_a_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32, d = mixture.d;
    if (s >= table.first[table.groups]) {
        return;
    }
    const Segment segment = find_segment(table, s);
    const Component<form, chunks> c(mixture, segment.group % mixture.K);
    const CentredAtC<form, chunks> at_c(mixture, c, lists.x, lane);
    constexpr int ahead = rows_ahead(chunks);
    Moments<form, chunks> moments;
    RowSums sums;
    sums.load<form>(out.sums, s, lane);
    for (int begin = segment.begin; begin < segment.end; begin += 32) {
        const int here = min(32, segment.end - begin);
        const uint32_t my_row = lane < here ? order[begin + lane] : 0;
        const float my_weight = lane < here ? out.weight[begin + lane] : 0;
        const float my_rest = lane < here ? rest_of(lists, my_row) : 0.0f;
        const unsigned alone = __ballot_sync(whole_warp, lane < here && lists.count[my_row] == 1);
        AgainstHome mine{0, 0}; // of this lane's row, if it has one candidate
        for (int i0 = 0; i0 < here; i0 += ahead) {
            float values[ahead][4 * chunks];
            size_t first[ahead];
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                first[i] = first_number(__shfl_sync(whole_warp, my_row, min(i0 + i, here - 1)), d);
            }
            load_rows<chunks>(lists.x, first, d, lane, values);
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const float weight = __shfl_sync(whole_warp, my_weight, min(i0 + i, 31));
                if (i0 + i >= here || weight == 0) {
                    continue;
                }
                at_c.centre(first[i], values[i]);
                moments.add(values[i], weight);
                if ((alone >> (i0 + i) & 1) != 0) {
                    const AgainstHome against =
                            against_c<form, chunks>(mixture, c, values[i], lane);
                    mine = lane == i0 + i ? against : mine;
                }
            }
        }
        add_likelihoods<form>(
                mixture,
                lists,
                c.k,
                c.constant,
                mine,
                (alone >> lane & 1) != 0,
                my_rest,
                my_row,
                first_row,
                out.bad_row,
                sums);
    }
    moments.store(out.sums, s, d, lane);
    sums.store<form>(out.sums, s, lane);
}

template <Covariance form, int chunks>
__global__ void __launch_bounds__(32 * warps_a_block) sum_pairs_kernel(
        MixtureView mixture,
        Rows x,
        const RowShare* __restrict__ pairs,
        SegmentTable table,
        SegmentSums out) {
    const int s = blockIdx.x * warps_a_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (s >= table.first[table.groups]) {
        return;
    }
    const int d = mixture.d;
    const Segment segment = find_segment(table, s);
    const Component<form, chunks> c(mixture, segment.group % mixture.K);
    const CentredAtC<form, chunks> at_c(mixture, c, x, lane);
    constexpr int ahead = rows_ahead(chunks);
    Moments<form, chunks> moments;
    RowSums sums;
    float squares = 0; // this lane's part of sum r |x - mu|^2
    for (int begin = segment.begin; begin < segment.end; begin += 32) {
        const int here = min(32, segment.end - begin);
        const RowShare mine = lane < here ? pairs[begin + lane] : RowShare{0, 0};
        sums.mass += mine.r;
        for (int i0 = 0; i0 < here; i0 += ahead) {
            float values[ahead][4 * chunks];
            size_t first[ahead];
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const uint32_t row = __shfl_sync(whole_warp, mine.row, min(i0 + i, here - 1));
                first[i] = first_number(row, d);
            }
            load_rows<chunks>(x, first, d, lane, values);
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                const float r = __shfl_sync(whole_warp, mine.r, min(i0 + i, here - 1));
                if (i0 + i >= here) {
                    break;
                }
                at_c.centre(first[i], values[i]);
                moments.add(values[i], r);
                if (form != Covariance::diagonal) {
                    float square = 0;
#pragma unroll
                    for (int j = 0; j < 4 * chunks; ++j) {
                        square = fmaf(values[i][j], values[i][j], square);
                    }
                    squares = fmaf(r, square, squares);
                }
            }
        }
    }
    sums.moment = squares;
    moments.store(out, s, d, lane);
    sums.store<form>(out, s, lane);
}

int blocks_of(int warps) {
    return (warps + warps_a_block - 1) / warps_a_block;
}

template <Covariance form, int chunks> struct SumHomes {
    static void
    go(const MixtureView& mixture,
       const PairRule& rule,
       const RowLists& lists,
       const uint32_t* order,
       const SegmentTable& table,
       int segments,
       unsigned long long first_row,
       const WeighOutput& out,
       cudaStream_t stream) {
        const int blocks = blocks_of(segments), threads = 32 * warps_a_block;
        weigh_kernel<form><<<blocks, threads, 0, stream>>>(
                mixture, rule, lists, order, table, first_row, out);
        const auto kernel = [&] {
            if constexpr (has_low_parts(form)) {
                return sum_homes_directly<form, chunks>;
            } else {
                constexpr bool wide = chunks > 1;
                return in_whole_pieces(lists.x, mixture.d) ? sum_homes_by_ring<form, true, wide>
                                                           : sum_homes_by_ring<form, false, wide>;
            }
        }();
        kernel<<<blocks, threads, 0, stream>>>(mixture, lists, order, table, first_row, out);
    }
};

template <Covariance form, int chunks> struct SumPairs {
    static void
    go(const MixtureView& mixture,
       const Rows& x,
       const RowShare* pairs,
       const SegmentTable& table,
       int segments,
       const SegmentSums& out,
       cudaStream_t stream) {
        // Both spherical forms are the same here.
        constexpr Covariance sums_form =
                form == Covariance::spherical ? Covariance::tied_spherical : form;
        sum_pairs_kernel<sums_form, chunks><<<blocks_of(segments), 32 * warps_a_block, 0, stream>>>(
                mixture, x, pairs, table, out);
    }
};

} // namespace

void weigh(
        const MixtureView& mixture,
        const PairRule& rule,
        const RowLists& lists,
        const uint32_t* order,
        const SegmentTable& table,
        int segments,
        unsigned long long first_row,
        const WeighOutput& out,
        cudaStream_t stream) {
    if (segments > 0) {
        launch_for<SumHomes>(mixture, rule, lists, order, table, segments, first_row, out, stream);
        check_launch("weighing rows");
    }
}

void sum_pairs(
        const MixtureView& mixture,
        const Rows& x,
        const RowShare* pairs,
        const SegmentTable& table,
        int segments,
        const SegmentSums& out,
        cudaStream_t stream) {
    if (segments > 0) {
        launch_for<SumPairs>(mixture, x, pairs, table, segments, out, stream);
        check_launch("adding up pairs");
    }
}

} // namespace faiss_gmm::cuda
