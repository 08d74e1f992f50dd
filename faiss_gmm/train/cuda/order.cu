// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Rows and pairs in the order in which they are added up, and the fp64 end of every sum.
//   key = block * K + component; block: a constant number of rows, so that what is added to what does
//   not depend on how many blocks a wave has, that is on chunks and memory.
// Phases: 1 sort rows by (block, home), stable   2 after weighing: the kept pairs side by side, in
//   that order   3 sort them by (block, component), stable   4 segments of each group -> fp64 sums.
//   Where the pairs are more than there is room for, 2 to 4 take a run of whole groups at a time: each
//   group's pairs and segments are the same, and so is the order in which a component's come.
// Cost: a radix sort of 8 bits a round, 8 to 12 bytes an item and round read and written. (1M, 1024): .067 ms, of
//   which 32 MB at the rate of memory are .011: it waits for the ends of its kernels, two rounds of them, .020 each at
//   12% of memory's rate.
// Determinism: gpu_to_gpu. Sorts are stable, positions come from prefix sums, (4) is one thread a sum.
// Test: tests/train/cuda/cuda_estep_engine_test.cc (same bits for any chunks and memory).
#include "faiss_gmm/train/cuda/detail/order.h"

#include <algorithm>

#include <cub/block/block_scan.cuh>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include "faiss_gmm/train/cuda/detail/dense.h"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/warp.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr int threads = 256;

int blocks_for(long long items) {
    return static_cast<int>((items + threads - 1) / threads);
}

int bits_of(uint32_t largest) {
    int bits = 1;
    while (bits < 32 && (largest >> bits) != 0) {
        ++bits;
    }
    return bits;
}

__global__ void home_keys(RowLists lists, Grouping grouping, uint32_t* keys, uint32_t* rows) {
    const int i = blockIdx.x * threads + threadIdx.x;
    if (i >= lists.rows) {
        return;
    }
    const int count = lists.count[i];
    const bool listed = count > 0 && count <= lists.capacity;
    const int block = i / grouping.block_rows, groups = grouping.blocks * grouping.K;
    keys[i] = listed               ? block * grouping.K + lists.home[i]
              : count == dense_row ? groups + block
                                   : groups + grouping.blocks;
    rows[i] = i;
}

__global__ void candidates_kernel(RowLists lists, unsigned long long* candidates) {
    const int i = blockIdx.x * threads + threadIdx.x;
    const unsigned count = i < lists.rows ? lists.count[i] : 0;
    const unsigned all =
            __reduce_add_sync(whole_warp, count <= unsigned(lists.capacity) ? count : 0);
    if (threadIdx.x % 32 == 0) {
        atomicAdd(candidates, static_cast<unsigned long long>(all));
    }
}

/// offset[g]: first place of a key >= g, for g = 0 .. last + 1.
__global__ void mark_groups(const uint32_t* keys, int count, int last, int* offset) {
    const int i = blockIdx.x * threads + threadIdx.x;
    if (i > count) {
        return;
    }
    const int before = i == 0 ? -1 : static_cast<int>(keys[i - 1]);
    const int here = i == count ? last + 1 : static_cast<int>(keys[i]);
    for (int g = before + 1; g <= here; ++g) {
        offset[g] = i;
    }
}

/// The same for lists shorter than the groups are many: a search for each.
__global__ void search_groups(const uint32_t* keys, int count, int last, int* offset) {
    const int g = blockIdx.x * threads + threadIdx.x;
    if (g > last + 1) {
        return;
    }
    int low = 0, high = count; // keys before low are < g, from high on >= g
    while (low < high) {
        const int middle = (low + high) / 2;
        if (static_cast<int>(keys[middle]) < g) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    offset[g] = low;
}

struct SegmentsOfGroup {
    const int* offset;
    int groups;
    __device__ int operator()(int g) const {
        return g < groups ? (offset[g + 1] - offset[g] + segment_rows - 1) / segment_rows : 0;
    }
};

constexpr int scan_threads = 1024, scan_items = 4;
/// Up to so many groups one block of threads is quicker than a scan by many, which takes two launches.
constexpr int most_scanned_by_one = 4 * scan_threads * scan_items;

/// first [groups + 1]: exclusive sums of the groups' segments.
__global__ void __launch_bounds__(scan_threads) first_segments(SegmentsOfGroup count, int* first) {
    using Scan = cub::BlockScan<int, scan_threads>;
    __shared__ typename Scan::TempStorage storage;
    int before = 0;
    for (int begin = 0; begin <= count.groups; begin += scan_threads * scan_items) {
        const int mine = begin + threadIdx.x * scan_items;
        int value[scan_items], all = 0;
#pragma unroll
        for (int i = 0; i < scan_items; ++i) {
            value[i] = count(mine + i);
        }
        Scan(storage).ExclusiveSum(value, value, all);
#pragma unroll
        for (int i = 0; i < scan_items; ++i) {
            if (mine + i <= count.groups) {
                first[mine + i] = before + value[i];
            }
        }
        before += all;
        __syncthreads();
    }
}

struct KeptOfPlace {
    const uint8_t* kept;
    const int* sorted_rows;
    __device__ int operator()(int i) const {
        return i < *sorted_rows ? kept[i] : 0;
    }
};

/// Calls f(place in the lists, group) for the kept pairs of the i-th sorted row.
template <class Function>
__device__ void visit_pairs(const KeptPairs& pairs, int i, const Function& f) {
    const int count = pairs.kept[i];
    if (count == 0) {
        return;
    }
    const uint32_t row = pairs.order[i];
    const int first_group = static_cast<int>(row / pairs.grouping.block_rows) * pairs.grouping.K;
    const size_t list = static_cast<size_t>(row) * pairs.lists.capacity;
    for (size_t at = list; at < list + count; ++at) {
        f(at, first_group + pairs.lists.component[at]);
    }
}

__device__ bool holds(const GroupRange& range, int group) {
    return group >= range.begin && group < range.end;
}

/// Of the i-th sorted row's pairs, those of the range's groups.
struct KeptInRange {
    KeptPairs pairs;
    GroupRange range;
    __device__ int operator()(int i) const {
        int count = 0;
        if (i < pairs.sorted_rows) {
            visit_pairs(pairs, i, [&](size_t, int group) { count += holds(range, group); });
        }
        return count;
    }
};

template <class Function>
void exclusive_sums(Function function, int* out, int count, Scratch scratch, cudaStream_t stream) {
    const auto in = thrust::make_transform_iterator(thrust::counting_iterator<int>(0), function);
    size_t bytes = scratch.bytes;
    check(cub::DeviceScan::ExclusiveSum(scratch.data, bytes, in, out, count, stream),
          "scanning counts");
}

void find_groups(
        const uint32_t* keys,
        int count,
        int groups,
        int last,
        const GroupArrays& arrays,
        Scratch scratch,
        cudaStream_t stream) {
    if (count < 4LL * groups) {
        search_groups<<<blocks_for(last + 2LL), threads, 0, stream>>>(
                keys, count, last, arrays.offset);
    } else {
        mark_groups<<<blocks_for(count + 1LL), threads, 0, stream>>>(
                keys, count, last, arrays.offset);
    }
    check_launch("finding the groups of a sorted list");
    const SegmentsOfGroup segments{arrays.offset, groups};
    if (groups <= most_scanned_by_one) {
        first_segments<<<1, scan_threads, 0, stream>>>(segments, arrays.first);
        check_launch("numbering segments");
    } else {
        exclusive_sums(segments, arrays.first, groups + 1, scratch, stream);
    }
}

__global__ void count_kernel(KeptPairs pairs, int* of_group) {
    const int i = blockIdx.x * threads + threadIdx.x;
    if (i < pairs.sorted_rows) {
        visit_pairs(pairs, i, [&](size_t, int group) { atomicAdd(of_group + group, 1); });
    }
}

__global__ void gather_kernel(
        KeptPairs pairs,
        GroupRange range,
        const int* __restrict__ first_pair,
        uint32_t* keys,
        RowShare* out) {
    const int i = blockIdx.x * threads + threadIdx.x;
    if (i >= pairs.sorted_rows) {
        return;
    }
    int to = first_pair[i];
    visit_pairs(pairs, i, [&](size_t at, int group) {
        if (holds(range, group)) {
            keys[to] = static_cast<uint32_t>(group);
            out[to] = {pairs.order[i], pairs.lists.share[at]};
            ++to;
        }
    });
}

/// sum + the values of component k's segments: blocks in order, segments in order.
template <class T>
__device__ double add_in_order(
        double sum,
        const Grouping& grouping,
        const SegmentTable& table,
        int segments,
        int k,
        const T* values,
        int stride) {
    for (int b = 0; b < grouping.blocks; ++b) {
        const int g = b * grouping.K + k;
        const int end = min(table.first[g + 1], segments);
#pragma unroll 4
        for (int s = max(table.first[g], 0); s < end; ++s) {
            sum += static_cast<double>(values[static_cast<size_t>(s) * stride]);
        }
    }
    return sum;
}

__global__ void skip_kernel(int* first, int numbers, int count) {
    const int g = blockIdx.x * threads + threadIdx.x;
    if (g < numbers) {
        first[g] -= count;
    }
}

/// One thread a sum: a block of threads takes component k's moments and its three numbers.
__global__ void add_segments_kernel(
        Grouping grouping,
        int d,
        SegmentTable table,
        int count,
        SegmentSums segments,
        PassSums sums) {
    const int k = blockIdx.x;
    for (int j = threadIdx.x; j < d + 3; j += blockDim.x) {
        if (j < d) {
            const size_t at = static_cast<size_t>(k) * d + j;
            sums.first_moment[at] = add_in_order(
                    sums.first_moment[at], grouping, table, count, k, segments.first_moment + j, d);
            if (segments.second_moment != nullptr) {
                sums.second_moment[at] = add_in_order(
                        sums.second_moment[at],
                        grouping,
                        table,
                        count,
                        k,
                        segments.second_moment + j,
                        d);
            }
        } else if (j == d) {
            sums.mass[k] = add_in_order(sums.mass[k], grouping, table, count, k, segments.mass, 1);
        } else if (j == d + 1 && segments.second_moment == nullptr) {
            sums.moment[k] =
                    add_in_order(sums.moment[k], grouping, table, count, k, segments.moment, 1);
        } else if (j == d + 2 && segments.log_likelihood != nullptr) {
            sums.log_likelihood[k] = add_in_order(
                    sums.log_likelihood[k], grouping, table, count, k, segments.log_likelihood, 1);
        }
    }
}

} // namespace

size_t order_scratch_bytes(int items, int scanned) {
    size_t rows = 0, pairs = 0, segments = 0, places = 0, places_in_range = 0;
    cub::DoubleBuffer<uint32_t> keys, values;
    cub::DoubleBuffer<uint64_t> shares;
    check(cub::DeviceRadixSort::SortPairs(nullptr, rows, keys, values, items), "sizing a sort");
    check(cub::DeviceRadixSort::SortPairs(nullptr, pairs, keys, shares, items), "sizing a sort");
    int* out = nullptr;
    check(cub::DeviceScan::ExclusiveSum(
                  nullptr,
                  segments,
                  thrust::make_transform_iterator(
                          thrust::counting_iterator<int>(0), SegmentsOfGroup{nullptr, 0}),
                  out,
                  scanned),
          "sizing a scan");
    check(cub::DeviceScan::ExclusiveSum(
                  nullptr,
                  places,
                  thrust::make_transform_iterator(
                          thrust::counting_iterator<int>(0), KeptOfPlace{nullptr, nullptr}),
                  out,
                  scanned),
          "sizing a scan");
    check(cub::DeviceScan::ExclusiveSum(
                  nullptr,
                  places_in_range,
                  thrust::make_transform_iterator(thrust::counting_iterator<int>(0), KeptInRange{}),
                  out,
                  scanned),
          "sizing a scan");
    return std::max({rows, pairs, segments, places, places_in_range});
}

void count_candidates(const RowLists& lists, unsigned long long* candidates, cudaStream_t stream) {
    candidates_kernel<<<blocks_for(lists.rows), threads, 0, stream>>>(lists, candidates);
    check_launch("counting candidates");
}

const uint32_t* order_rows(
        const RowLists& lists,
        const Grouping& grouping,
        uint32_t* keys,
        uint32_t* rows,
        const GroupArrays& groups,
        Scratch scratch,
        cudaStream_t stream) {
    const int n = lists.rows;
    home_keys<<<blocks_for(n), threads, 0, stream>>>(lists, grouping, keys, rows);
    check_launch("making sort keys");
    cub::DoubleBuffer<uint32_t> key_buffer(keys, keys + n), row_buffer(rows, rows + n);
    size_t bytes = scratch.bytes;
    check(cub::DeviceRadixSort::SortPairs(
                  scratch.data,
                  bytes,
                  key_buffer,
                  row_buffer,
                  n,
                  0,
                  bits_of(static_cast<uint32_t>(grouping.groups() + grouping.blocks)),
                  stream),
          "sorting rows");
    find_groups(
            key_buffer.Current(),
            n,
            grouping.groups(),
            grouping.groups() + grouping.blocks,
            groups,
            scratch,
            stream);
    return row_buffer.Current();
}

void place_pairs(
        const uint8_t* kept,
        int rows,
        const int* sorted_rows,
        int* first_pair,
        Scratch scratch,
        cudaStream_t stream) {
    exclusive_sums(KeptOfPlace{kept, sorted_rows}, first_pair, rows + 1, scratch, stream);
}

void count_pairs(const KeptPairs& pairs, int* of_group, cudaStream_t stream) {
    check(cudaMemsetAsync(of_group, 0, pairs.grouping.groups() * sizeof(int), stream),
          "clearing counts");
    count_kernel<<<blocks_for(pairs.sorted_rows), threads, 0, stream>>>(pairs, of_group);
    check_launch("counting pairs");
}

void place_pairs_of(
        const KeptPairs& pairs,
        const GroupRange& range,
        int* first_pair,
        Scratch scratch,
        cudaStream_t stream) {
    exclusive_sums(KeptInRange{pairs, range}, first_pair, pairs.sorted_rows, scratch, stream);
}

void gather_pairs(
        const KeptPairs& pairs,
        const GroupRange& range,
        const int* first_pair,
        uint32_t* keys,
        RowShare* out,
        cudaStream_t stream) {
    gather_kernel<<<blocks_for(pairs.sorted_rows), threads, 0, stream>>>(
            pairs, range, first_pair, keys, out);
    check_launch("gathering pairs");
}

const RowShare* order_pairs(
        int count,
        const Grouping& grouping,
        size_t half,
        uint32_t* keys,
        RowShare* pairs,
        const GroupArrays& groups,
        Scratch scratch,
        cudaStream_t stream) {
    static_assert(sizeof(RowShare) == sizeof(uint64_t), "a pair is sorted as one number");
    auto* values = reinterpret_cast<uint64_t*>(pairs);
    cub::DoubleBuffer<uint32_t> key_buffer(keys, keys + half);
    cub::DoubleBuffer<uint64_t> value_buffer(values, values + half);
    size_t bytes = scratch.bytes;
    check(cub::DeviceRadixSort::SortPairs(
                  scratch.data,
                  bytes,
                  key_buffer,
                  value_buffer,
                  count,
                  0,
                  bits_of(static_cast<uint32_t>(grouping.groups())),
                  stream),
          "sorting pairs");
    const int all = grouping.groups();
    find_groups(key_buffer.Current(), count, all, all - 1, groups, scratch, stream);
    return reinterpret_cast<const RowShare*>(value_buffer.Current());
}

void skip_segments(const GroupArrays& groups, int group_count, int count, cudaStream_t stream) {
    skip_kernel<<<blocks_for(group_count + 1LL), threads, 0, stream>>>(
            groups.first, group_count + 1, count);
    check_launch("going on with the next segments");
}

void add_segments(
        const Grouping& grouping,
        int d,
        const SegmentTable& table,
        int segments,
        const SegmentSums& of_segments,
        const PassSums& sums,
        cudaStream_t stream) {
    const int width = std::min(256, (d + 3 + 31) / 32 * 32);
    add_segments_kernel<<<grouping.K, width, 0, stream>>>(
            grouping, d, table, segments, of_segments, sums);
    check_launch("adding up segments");
}

} // namespace faiss_gmm::cuda
