// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <string>

namespace faiss_gmm::bench {

/// One line on stderr that says what is going on; silent unless stderr is a terminal.
class Progress {
public:
    Progress();
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    /// Replaces the line.
    void show(const std::string& text);
    /// Removes the line, so that other output can follow.
    void clear();

private:
    bool terminal_;
    bool shown_ = false;
};

} // namespace faiss_gmm::bench
