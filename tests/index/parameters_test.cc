// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What a caller may ask for, and what is refused in four parts.
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFPQ.h>
#include <gtest/gtest.h>

#include "faiss_gmm/index/defaults.h"
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

TEST(SearchParameters, MoreExactDistancesByDefaultWhereMoreIsVisited) {
    EXPECT_EQ(default_exact_distances(10, 0), 100u);
    EXPECT_EQ(default_exact_distances(10, 20'000), 100u);
    EXPECT_EQ(default_exact_distances(10, 31'250), 125u);
    EXPECT_EQ(default_exact_distances(10, 125'000), 250u);
    const size_t n = 60'000, d = 8, nlist = 8, nq = 5, k = 10;
    const auto base = whole_rows(n, d, 1), asked = whole_rows(nq, d, 2);
    IndexIVFGMMFlat index(d, nlist);
    index.train(n, base.data());
    index.add(n, base.data());
    for (const size_t nprobe : {1, 6}) { // 7,500 and 45,000 vectors
        index.nprobe = nprobe;
        indexIVFGMM_stats.reset();
        search(index, asked, k);
        EXPECT_EQ(indexIVFGMM_stats.ndis, nq * (nprobe == 1 ? 100 : 150)) << nprobe;
    }
}

TEST(SearchParameters, FactorsAreFiniteAndFromZero) {
    const IndexSetup setup;
    const auto base = whole_rows(1000, 16, 1), asked = whole_rows(5, 16, 2);
    const auto index = setup.trained(base);
    index->add(1000, base.data());
    Oracle oracle(16, faiss::METRIC_L2);
    oracle.add(1000, base.data());
    for (const float wrong : {-1.0f, NAN, INFINITY}) {
        for (const bool of_index : {true, false}) {
            IVFGMMSearchParameters params;
            params.nprobe = 2;
            (of_index ? index->k_factor : params.k_factor) = wrong;
            expect_four_parts(refusal([&] { search(*index, asked, 3, &params); }), "k_factor");
            index->k_factor = params.k_factor = 0;
            (of_index ? index->probe_expansion : params.probe_expansion) = wrong;
            expect_four_parts(
                    refusal([&] { search(*index, asked, 3, &params); }), "probe_expansion");
            index->probe_expansion = 0;
        }
    }
    IVFGMMSearchParameters params;
    params.nprobe = 2;
    for (const float large : {1e9f, 5e18f, 1e38f}) { // all that there is
        params.k_factor = params.probe_expansion = large;
        expect_sound(oracle, asked, search(*index, asked, 3, &params));
    }
}

TEST(SearchParameters, ForeignOnesAreRefusedWithCopiesToo) {
    IndexSetup setup;
    setup.storage = SpillStorage::copies;
    const auto base = whole_rows(1000, 16, 1);
    const auto index = setup.trained(base);
    index->add(1000, base.data());
    faiss::SearchParametersHNSW wrong;
    expect_four_parts(
            refusal([&] { search(*index, base, 1, &wrong); }),
            "search parameters of another index type");
}

TEST(ReplacedLists, LeaveAPlainIVF) {
    const IndexSetup setup;
    const auto base = whole_rows(1000, 16, 1), asked = whole_rows(1, 16, 2);
    const auto index = setup.trained(base);
    index->replace_invlists(new faiss::ArrayInvertedLists(setup.nlist, index->code_size), true);
    index->add(1000, base.data());
    Oracle oracle(16, faiss::METRIC_L2);
    oracle.add(1000, base.data());
    index->nprobe = setup.nlist;
    expect_exact(oracle, asked, search(*index, asked, 3));
    const auto radius = static_cast<float>(oracle.sorted(asked.data())[50]);
    faiss::RangeSearchResult range(1);
    index->range_search(1, asked.data(), radius, &range);
    const std::vector<double> sorted = oracle.sorted(asked.data());
    const auto truly =
            std::count_if(sorted.begin(), sorted.end(), [&](double v) { return v < radius; });
    EXPECT_EQ(range.lims[1], static_cast<size_t>(truly));
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
