// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What a caller may ask for, and what is refused in four parts.
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFPQ.h>
#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

TEST(SearchParameters, OfAWrongTypeAreRefused) {
    const IndexSetup setup;
    const auto base = whole_rows(1000, 16, 1);
    const auto index = setup.trained(base);
    index->add(1000, base.data());
    faiss::SearchParametersHNSW wrong;
    Results got(1, 1);
    const auto call = [&] {
        index->search(1, base.data(), 1, got.distances.data(), got.labels.data(), &wrong);
    };
    expect_four_parts(refusal(call), "search parameters of another index type");
    faiss::RangeSearchResult range(1);
    expect_four_parts(
            refusal([&] { index->range_search(1, base.data(), 1, &range, &wrong); }),
            "search parameters of another index type");
    // Base parameters carry a selector, and the index's own nprobe stays.
    faiss::SearchParameters base_params;
    index->nprobe = setup.nlist;
    EXPECT_EQ(search(*index, {base.begin(), base.begin() + 16}, 1, &base_params).distances[0], 0);
    faiss::IVFPQSearchParameters of_a_codec; // is a SearchParametersIVF
    of_a_codec.nprobe = 16;
    EXPECT_EQ(search(*index, {base.begin(), base.begin() + 16}, 1, &of_a_codec).distances[0], 0);
}

TEST(SearchParameters, NprobeZeroIsRefusedAndMoreThanNlistIsAll) {
    const IndexSetup setup;
    const auto base = whole_rows(1000, 16, 1), asked = whole_rows(5, 16, 2);
    const auto index = setup.trained(base);
    index->add(1000, base.data());
    faiss::SearchParametersIVF params;
    params.nprobe = 0;
    expect_four_parts(refusal([&] { search(*index, asked, 3, &params); }), "nprobe = 0");
    faiss::RangeSearchResult range(1);
    expect_four_parts(
            refusal([&] { index->range_search(1, asked.data(), 1, &range, &params); }),
            "nprobe = 0");
    params.nprobe = 1000;
    Oracle oracle(16, faiss::METRIC_L2);
    oracle.add(1000, base.data());
    expect_exact(oracle, asked, search(*index, asked, 3, &params));
}

TEST(SearchParameters, KOfZeroOrLessIsRefusedAsByStock) {
    const IndexSetup setup;
    const auto base = whole_rows(1000, 16, 1);
    const auto index = setup.trained(base);
    index->add(1000, base.data());
    float distance = 0;
    int64_t label = 0;
    for (const size_t nprobe : {size_t{2}, setup.nlist}) {
        index->nprobe = nprobe;
        for (const int64_t wrong : {0, -1}) {
            EXPECT_NE(refusal([&] { index->search(1, base.data(), wrong, &distance, &label); }), "")
                    << "k = " << wrong << ", nprobe " << nprobe;
        }
    }
}

} // namespace
} // namespace faiss_gmm
