// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the kernels ask of Highway's library, which is there as headers only: the one target compiled in.
#include <hwy/highway.h>

static_assert(HWY_STATIC_TARGET == EXPECTED_TARGET, "the compiler's flags give another target");

namespace hwy {

int64_t SupportedTargets() {
    return HWY_STATIC_TARGET;
}

ChosenTarget& GetChosenTarget() {
    static ChosenTarget target;
    return target;
}

} // namespace hwy
