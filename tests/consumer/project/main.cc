// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <cstdio>

#include <faiss_gmm/mixture/error.h>

int main() {
    const faiss_gmm::Error error({"testing", "nothing", "anything", "go on"});
    std::puts(error.what());
}
