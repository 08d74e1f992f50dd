// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// replay seeds|any FOLDER: runs the target once over each file of a folder, without libFuzzer and built by any compiler. Of seeds
// each must reach a search.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "lists_fuzzer.h"

int main(int argc, char** argv) {
    const std::string what = argc == 3 ? argv[1] : "";
    if (what != "seeds" && what != "any") {
        std::fprintf(stderr, "usage: replay seeds|any FOLDER\n");
        return 2;
    }
    faiss_gmm::prepare_fuzzing();
    size_t files = 0, short_of_search = 0;
    for (const auto& entry : std::filesystem::directory_iterator(argv[2])) {
        std::ifstream file(entry.path(), std::ios::binary);
        const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
        std::printf("%s: ", entry.path().c_str());
        std::fflush(stdout); // the last one is at fault where the process ends
        const faiss_gmm::Reached reached =
                faiss_gmm::fuzz_lists(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
        const bool searched = reached == faiss_gmm::Reached::index;
        std::printf("%s\n", searched ? "searched" : "not searched");
        files++;
        short_of_search += !searched;
    }
    return files > 0 && (what == "any" || short_of_search == 0) ? 0 : 1;
}
