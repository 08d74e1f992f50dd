// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/progress.h"

#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

namespace faiss_gmm::bench {

Progress::Progress() : terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
    clear();
}

void Progress::show(const std::string& text) {
    if (terminal_) {
        fmt::print(stderr, "\r\x1b[2K{}", text.substr(0, 100));
        std::fflush(stderr);
        shown_ = true;
    }
}

void Progress::clear() {
    if (shown_) {
        fmt::print(stderr, "\r\x1b[2K");
        std::fflush(stderr);
        shown_ = false;
    }
}

} // namespace faiss_gmm::bench
