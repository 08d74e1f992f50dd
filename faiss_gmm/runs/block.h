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
///   row m of codes, 16 bytes: byte b holds code m of slot t(b) in its low half and of slot
///   t(b) + 16 in its high half, where t = b / 2 for even b and 8 + b / 2 for odd; then 32 uint16_t
///   constants, in the order of the slots.
///
/// A row needs one table for both its halves, and rows stand as their tables do: a vector of any width
/// that is a multiple of 16 bytes takes as many codes as tables at once. Even and odd bytes widen into
/// 16-bit lanes with slots in order. `codes` is a multiple of 4: the widest vector takes four codes,
/// and four look-ups of at most 63 are added in a byte before widening.
struct BlockLayout {
    size_t codes = 0; ///< 4-bit codes a slot, a multiple of 4

    static constexpr size_t row_bytes = 16;

    size_t constants_at() const {
        return codes * row_bytes;
    }
    size_t bytes() const {
        return constants_at() + run_size * sizeof(uint16_t);
    }
    /// Where a slot's code stands in its row, and its shift within that byte.
    static size_t byte_of_slot(size_t slot) {
        const size_t t = slot % 16;
        return t < 8 ? 2 * t : 2 * (t - 8) + 1;
    }
    static unsigned shift_of_slot(size_t slot) {
        return slot < 16 ? 0 : 4;
    }

    /// Marks every slot as holding nothing.
    void clear(uint8_t* block) const {
        std::memset(block, 0, constants_at());
        std::memset(block + constants_at(), 0xff, run_size * sizeof(uint16_t));
    }
    /// Writes the codes [codes], a byte each, of one slot; the constant stays as it is. Other slots'
    /// codes may be read meanwhile, but not written: a byte holds codes of two slots, hence atomic.
    void put_codes(uint8_t* block, size_t slot, const uint8_t* slot_codes) const {
        const unsigned shift = shift_of_slot(slot);
        uint8_t* byte = block + byte_of_slot(slot);
        for (size_t m = 0; m < codes; m++, byte += row_bytes) {
            const int other = __atomic_load_n(byte, __ATOMIC_RELAXED) & (0xf0 >> shift);
            const auto both = static_cast<uint8_t>(other | slot_codes[m] << shift);
            __atomic_store_n(byte, both, __ATOMIC_RELAXED);
        }
    }
    /// Reads the codes [codes] of one slot.
    void get_codes(const uint8_t* block, size_t slot, uint8_t* slot_codes) const {
        const unsigned shift = shift_of_slot(slot);
        const uint8_t* byte = block + byte_of_slot(slot);
        for (size_t m = 0; m < codes; m++, byte += row_bytes) {
            slot_codes[m] = __atomic_load_n(byte, __ATOMIC_RELAXED) >> shift & 15;
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
