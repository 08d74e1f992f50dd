// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// Rows of up to 128 dimensions on their way to a warp that takes them one after the other, from anywhere in
// device memory: a ring of slots in shared memory, filled by asynchronous copies. Rows under way cost no
// registers, so there are enough of them to keep the memory busy (weigh.cu).
// Rows that are not whole pieces of 16 bytes go through registers, as fp32.

#include "faiss_gmm/train/cuda/detail/copies.cuh"
#include "faiss_gmm/train/cuda/detail/rows.cuh"

namespace faiss_gmm::cuda {

constexpr int ring_rows = 8;        ///< slots
constexpr int ring_row_width = 128; ///< dimensions that a slot takes

/// A warp's slots.
struct RingSlots {
    alignas(16) float row[ring_rows][ring_row_width];
};

/// All lanes call in step. Row number i of those that come goes to slot i % ring_rows.
class RowRing {
public:
    __device__ RowRing(const Rows& x, int d, int lane, RingSlots& slots)
            : x_(x), d_(d), lane_(lane), slots_(slots) {
        const uint32_t bytes = static_cast<uint32_t>(d * element_bytes(x.type));
        row_bytes_ = bytes;
        copied_ = bytes % 16 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
    }
    /// Starts on its way: row `row` as number i. The slot has been read by all lanes.
    __device__ void bring(int i, uint32_t row) const {
        float* slot = slots_.row[i % ring_rows];
        if (copied_) {
            if (16u * lane_ < row_bytes_) {
                const char* from = static_cast<const char*>(x_.data) +
                                   static_cast<size_t>(row) * row_bytes_ + 16 * lane_;
                copy_asynchronously(shared_address(slot) + 16 * lane_, from, true);
            }
        } else {
            float four[4];
            load_four(x_, first_number(row, d_), 4 * lane_, d_, four);
            *reinterpret_cast<float4*>(slot + 4 * lane_) =
                    float4{four[0], four[1], four[2], four[3]};
        }
    }
    /// Rows brought since the last call become a batch.
    __device__ void close_batch() const {
        close_copies();
    }
    /// Until all batches but the last `later` are there, for all lanes.
    template <int later> __device__ void wait_for_all_but() const {
        wait_for_copies_but<later>();
        __syncwarp();
    }
    /// This lane's four numbers of rows first .. first + count - 1, zeros past d; `first` is a multiple of count.
    template <int count> __device__ void load(int first, float (&out)[count][4]) const {
        Rows there;
        there.type = copied_ ? x_.type : ElementType::f32;
        there.data = slots_.row;
        there.aligned = true;
        const int d = copied_ ? d_ : ring_row_width;
        visit(there, [&](const auto* numbers) {
            static_assert(ring_rows % count == 0, "a batch lies side by side");
            constexpr int pitch = sizeof(slots_.row[0]) / sizeof(*numbers);
#pragma unroll
            for (int i = 0; i < count; ++i) {
                load_four(numbers + (first % ring_rows + i) * pitch, 4 * lane_, d, true, out[i]);
            }
        });
    }

private:
    const Rows& x_;
    int d_, lane_;
    RingSlots& slots_;
    uint32_t row_bytes_;
    bool copied_;
};

} // namespace faiss_gmm::cuda
