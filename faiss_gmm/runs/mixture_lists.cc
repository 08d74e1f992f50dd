// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/mixture_lists.h"

#include "faiss_gmm/runs/run_lists_io.h"

namespace faiss_gmm {

MixtureLists::MixtureLists() : state_(std::make_shared<CoarseState>()) {
    register_lists_io();
}

MixtureLists::~MixtureLists() = default;

void MixtureLists::set_state(std::shared_ptr<const CoarseState> state) {
    state_ = std::move(state);
}

std::string MixtureLists::kept_for_index() const {
    const auto index = index_.lock();
    return index ? (*index)() : memo_;
}

} // namespace faiss_gmm
