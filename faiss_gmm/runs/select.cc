// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The smallest of many without a sort.
//   (1) t with want <= #{v <= t} <= want + want / 8, or the least with the first of it
//   (2) positions of v <= t
// Phases: 1 bisection of t between the least and the largest value, a pass of counting a step; 2 one pass
// that collects. Cost: about 10 passes over n values that stay in the nearest cache.
// Determinism: thresholds are compared only, the same on every target.
// Test: tests/runs/select_test.cc.
#include "faiss_gmm/runs/select.h"

#include <algorithm>
#include <cstring>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_gmm/runs/select.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_gmm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Least and largest of values [n].
std::pair<float, float> range_of(const float* HWY_RESTRICT values, size_t n) {
    const hn::ScalableTag<float> tag;
    const size_t lanes = hn::Lanes(tag);
    float least = values[0], largest = values[0];
    size_t i = 0;
    if (n >= lanes) {
        auto low = hn::LoadU(tag, values), high = low;
        for (i = lanes; i + lanes <= n; i += lanes) {
            const auto v = hn::LoadU(tag, values + i);
            low = hn::Min(low, v);
            high = hn::Max(high, v);
        }
        least = hn::GetLane(hn::MinOfLanes(tag, low));
        largest = hn::GetLane(hn::MaxOfLanes(tag, high));
    }
    for (; i < n; i++) {
        least = std::min(least, values[i]);
        largest = std::max(largest, values[i]);
    }
    return {least, largest};
}

/// #{v <= t} of values [n].
template <class T> size_t count_up_to(const T* HWY_RESTRICT values, size_t n, T t) {
    const hn::ScalableTag<T> tag;
    const size_t lanes = hn::Lanes(tag);
    const auto most = hn::Set(tag, t);
    size_t count = 0, i = 0;
    for (; i + lanes <= n; i += lanes) {
        // v <= t, in the one form that all targets have for unsigned lanes
        const auto v = hn::LoadU(tag, values + i);
        count += hn::CountTrue(tag, hn::Eq(hn::Min(v, most), v));
    }
    for (; i < n; i++) {
        count += values[i] <= t;
    }
    return count;
}

/// Calls take(position) for each v <= t of values [n].
template <class T, class Take>
HWY_INLINE void for_each_up_to(const T* HWY_RESTRICT values, size_t n, T t, Take take) {
    const hn::CappedTag<T, 64 / sizeof(T)> tag; // at most 64 lanes: a bit each
    const size_t lanes = hn::Lanes(tag);
    const auto most = hn::Set(tag, t);
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        const auto v = hn::LoadU(tag, values + i);
        uint8_t bytes[8] = {};
        hn::StoreMaskBits(tag, hn::Eq(hn::Min(v, most), v), bytes);
        uint64_t bits;
        std::memcpy(&bits, bytes, sizeof bits);
        for (; bits != 0; bits &= bits - 1) {
            take(i + __builtin_ctzll(bits));
        }
    }
    for (; i < n; i++) {
        if (values[i] <= t) {
            take(i);
        }
    }
}

size_t select_scores(const uint16_t* HWY_RESTRICT scores, size_t n, size_t want, uint64_t* keys) {
    uint32_t above = 0, up_to = 65534; // t lies in [above, up_to]
    while (above < up_to) {
        const uint32_t middle = (above + up_to) / 2;
        const size_t count = count_up_to(scores, n, static_cast<uint16_t>(middle));
        if (count < want) {
            above = middle + 1;
            continue;
        }
        up_to = middle;
        if (count <= want + want / 8) {
            break;
        }
    }
    size_t count = 0;
    for_each_up_to(scores, n, static_cast<uint16_t>(up_to), [&](size_t i) HWY_ATTR {
        keys[count++] = static_cast<uint64_t>(scores[i]) << 32 | i;
    });
    return count;
}

size_t select_values(
        const float* HWY_RESTRICT values, size_t n, size_t want, int32_t* HWY_RESTRICT positions) {
    auto [low, high] = range_of(values, n);
    for (;;) {
        const float middle = low + (high - low) / 2;
        if (!(middle < high)) {
            break;
        }
        const size_t count = count_up_to(values, n, middle);
        if (count < want) {
            if (!(middle > low)) {
                break; // low and high are neighbours
            }
            low = middle;
        } else {
            high = middle;
            if (count <= want + want / 8) {
                break;
            }
        }
    }
    size_t count = 0;
    for_each_up_to(values, n, high, [&](size_t i) HWY_ATTR {
        positions[count++] = static_cast<int32_t>(i);
    });
    return count;
}

} // namespace HWY_NAMESPACE
} // namespace faiss_gmm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_gmm {
HWY_EXPORT(select_scores);
HWY_EXPORT(select_values);

size_t select_scores(const uint16_t* scores, size_t n, size_t want, uint64_t* keys) {
    return HWY_DYNAMIC_DISPATCH(select_scores)(scores, n, want, keys);
}
size_t select_values(const float* values, size_t n, size_t want, int32_t* positions) {
    return HWY_DYNAMIC_DISPATCH(select_values)(values, n, want, positions);
}

} // namespace faiss_gmm
#endif // HWY_ONCE
