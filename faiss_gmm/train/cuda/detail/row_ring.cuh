// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Rows, or 128 columns of them at a time, on their way to a warp that takes them one after the other, from anywhere in
// device memory: a ring of slots in shared memory, filled by asynchronous copies. Rows under way cost no
// registers, so there are enough of them to keep the memory busy (weigh.cu).

#include "faiss_gmm/train/cuda/detail/copies.cuh"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {

constexpr int ring_rows = 8;        ///< slots
constexpr int ring_row_bytes = 512; ///< of a slot

/// Whether rows are whole pieces of 16 bytes, which are copied as they are; others go through registers, as fp32,
/// to the same slots.
inline bool in_whole_pieces(const Rows& x, int d) {
    return d * element_bytes(x.type) % 16 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

/// A warp's slots.
struct RingSlots {
    alignas(16) unsigned char row[ring_rows][ring_row_bytes];
};

/// All lanes call in step. Row number i of those that come goes to slot i % ring_rows.
template <bool whole_pieces> class RowRing {
public:
    __device__ RowRing(const Rows& x, int d, int lane, RingSlots& slots)
            : x_(x), d_(d), lane_(lane), slots_(slots),
              row_bytes_(static_cast<uint32_t>(d * element_bytes(x.type))) {
        from_ = static_cast<const char*>(x.data) + 16 * lane;
        to_ = shared_address(slots.row) + 16 * lane;
    }
    /// Starts on its way: row `row` from column `column` on, as number i. The slot has been read by all lanes.
    __device__ void bring(int i, uint32_t row, int column) const {
        if (whole_pieces) {
            const auto bytes = static_cast<uint32_t>(element_bytes(x_.type));
            const uint32_t before = column * bytes;
            if (16u * lane_ < min(row_bytes_ - before, chunk_width * bytes)) {
                copy_asynchronously(
                        to_ + i % ring_rows * ring_row_bytes,
                        from_ + before + static_cast<size_t>(row) * row_bytes_,
                        true);
            }
        } else {
            float four[4];
            load_four(x_, first_number(row, d_) + column, 4 * lane_, d_ - column, four);
            *reinterpret_cast<float4*>(slots_.row[i % ring_rows] + 16 * lane_) =
                    float4{four[0], four[1], four[2], four[3]};
        }
    }
    /// Rows brought since the last call become a batch.
    __device__ void close_batch() const {
        close_copies();
    }
    /// Until all batches but the last are there, for all lanes.
    __device__ void wait_for_all_but_last() const {
        wait_for_copies_but<1>();
        __syncwarp();
    }
    /// This lane's four numbers, from `column` on, of rows first .. first + count - 1, zeros past d; `first` is a
    /// multiple of count.
    template <int count> __device__ void load(int first, int column, float (&out)[count][4]) const {
        static_assert(ring_rows % count == 0, "a batch lies side by side");
        Rows there;
        there.type = whole_pieces ? x_.type : ElementType::f32;
        there.data = slots_.row[first % ring_rows];
        const int d = whole_pieces ? d_ - column : chunk_width;
        visit(there, [&](const auto* numbers) {
#pragma unroll
            for (int i = 0; i < count; ++i) {
                constexpr int pitch = ring_row_bytes / sizeof(*numbers);
                load_four(numbers + i * pitch, 4 * lane_, d, true, out[i]);
            }
        });
    }

private:
    const Rows& x_;
    int d_, lane_;
    RingSlots& slots_;
    uint32_t row_bytes_;
    const char* from_; ///< this lane's piece of row 0
    uint32_t to_;
};

} // namespace faiss_gmm::cuda
