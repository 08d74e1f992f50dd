// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace faiss_gmm {

/// Members of a full run, and slots of a block.
constexpr size_t run_size = 32;
/// Constant of a slot that holds nothing; also its score.
constexpr uint16_t empty_slot = 65535;
/// Largest score a slot that holds something can have.
constexpr uint16_t saturated_score = 65534;

/// A block: the 4-bit codes of 32 slots, laid out for byte shuffles, and a 16-bit constant a slot.
///
///   row m of codes / 2, 32 bytes: byte b holds code 2m of slot s(b) in its low half, code 2m + 1
///   in its high half, with slot s < 16 at byte 2s and slot s >= 16 at byte 2 (s - 16) + 1; then 32
///   uint16_t constants, in the order of the slots.
///
/// The interleaving puts slots 0..15 in the low and 16..31 in the high bytes of sixteen 16-bit
/// lanes, so that byte sums widen with a shift and a subtraction. `codes` is a multiple of 4: four
/// look-ups of at most 63 are added in a byte before widening.
struct BlockLayout {
    size_t codes = 0; ///< 4-bit codes a slot, a multiple of 4

    size_t rows() const {
        return codes / 2;
    }
    size_t constants_at() const {
        return rows() * run_size;
    }
    size_t bytes() const {
        return constants_at() + run_size * sizeof(uint16_t);
    }
    static size_t byte_of_slot(size_t slot) {
        return slot < 16 ? 2 * slot : 2 * (slot - 16) + 1;
    }

    /// Marks every slot as holding nothing.
    void clear(uint8_t* block) const {
        std::memset(block, 0, constants_at());
        std::memset(block + constants_at(), 0xff, run_size * sizeof(uint16_t));
    }
    /// Writes the codes [codes], a byte each, of one slot; the constant stays as it is.
    void put_codes(uint8_t* block, size_t slot, const uint8_t* slot_codes) const {
        for (size_t row = 0; row < rows(); row++) {
            block[row * run_size + byte_of_slot(slot)] =
                    static_cast<uint8_t>(slot_codes[2 * row] | (slot_codes[2 * row + 1] << 4));
        }
    }
    /// Reads the codes [codes] of one slot.
    void get_codes(const uint8_t* block, size_t slot, uint8_t* slot_codes) const {
        for (size_t row = 0; row < rows(); row++) {
            const uint8_t pair = block[row * run_size + byte_of_slot(slot)];
            slot_codes[2 * row] = pair & 15;
            slot_codes[2 * row + 1] = pair >> 4;
        }
    }
    void put_constant(uint8_t* block, size_t slot, uint16_t constant) const {
        std::memcpy(block + constants_at() + slot * sizeof constant, &constant, sizeof constant);
    }
    uint16_t get_constant(const uint8_t* block, size_t slot) const {
        uint16_t constant;
        std::memcpy(&constant, block + constants_at() + slot * sizeof constant, sizeof constant);
        return constant;
    }
};

/// Allocates on cache lines, so that a row of a block never straddles two.
template <class T> struct CacheLineAllocator {
    using value_type = T;
    CacheLineAllocator() = default;
    template <class U> CacheLineAllocator(const CacheLineAllocator<U>&) {}
    T* allocate(size_t n) {
        return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64}));
    }
    void deallocate(T* p, size_t) {
        ::operator delete (p, std::align_val_t{64});
    }
    template <class U> bool operator==(const CacheLineAllocator<U>&) const {
        return true;
    }
    template <class U> bool operator!=(const CacheLineAllocator<U>&) const {
        return false;
    }
};

using BlockBytes = std::vector<uint8_t, CacheLineAllocator<uint8_t>>;

} // namespace faiss_gmm
