// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// FAISS's AutoTune over our parameters.
#include <set>

#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexShards.h>
#include <gtest/gtest.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/parameter_space.h"
#include "faiss_gmm/index/wrappers.h"
#include "index_fixture.h"
#include "support_record.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 2000, d = 16, queries = 50;

std::set<std::string> names(const ParameterSpace& space) {
    std::set<std::string> names;
    for (const auto& range : space.parameter_ranges) {
        EXPECT_TRUE(names.insert(range.name).second) << range.name << " twice";
        EXPECT_TRUE(std::is_sorted(range.values.begin(), range.values.end())) << range.name;
    }
    return names;
}

IndexIVFGMM& inside(faiss::Index& index) {
    faiss::Index* outer = &index;
    return dynamic_cast<IndexIVFGMM&>(**innermost_slot(&outer));
}

TEST(OurParameterSpace, KnowsOursBesideStocks) {
    using Names = std::set<std::string>;
    const std::map<std::string, Names> expected = {
            {"IVFGMM16,Flat", {"nprobe", "probe_expansion", "k_factor"}},
            {"IDMap,IVFGMM16,Flat", {"nprobe", "probe_expansion", "k_factor"}},
            {"PCA8,IVFGMM16,Flat", {"nprobe", "probe_expansion", "k_factor"}},
            {"IVFGMM16,Flat,RFlat", {"nprobe", "probe_expansion", "k_factor", "k_factor_rf"}},
            {"IVFGMM16_HNSW8,Flat",
             {"nprobe", "probe_expansion", "k_factor", "quantizer_efSearch"}},
            {"IVF16,Flat", {"nprobe"}},
    };
    for (const auto& [description, expected_names] : expected) {
        const std::unique_ptr<faiss::Index> index(index_factory(d, description.c_str()));
        ParameterSpace space;
        space.initialize(index.get());
        EXPECT_EQ(names(space), expected_names) << description;
    }
}

TEST(OurParameterSpace, SetsThroughWrappers) {
    for (const char* description :
         {"IVFGMM16,Flat", "IDMap,IVFGMM16,Flat", "PCA8,IVFGMM16,Flat", "IVFGMM16,Flat,RFlat"}) {
        const std::unique_ptr<faiss::Index> index(index_factory(d, description));
        ParameterSpace().set_index_parameters(index.get(), "probe_expansion=3,k_factor=7,nprobe=5");
        EXPECT_EQ(inside(*index).probe_expansion, 3) << description;
        EXPECT_EQ(inside(*index).k_factor, 7) << description;
        EXPECT_EQ(inside(*index).ivf().nprobe, 5u) << description;
    }
    IndexIVFGMMFlat first(d, 4), second(d, 4);
    faiss::IndexShards shards(static_cast<int>(d));
    shards.add_shard(&first);
    shards.add_shard(&second);
    ParameterSpace().set_index_parameter(&shards, "k_factor", 9);
    EXPECT_EQ(first.k_factor, 9);
    EXPECT_EQ(second.k_factor, 9);
    record_piece("ParameterSpace.set_index_parameters", lists_asked_for(first), "works");
}

TEST(OurParameterSpace, RefusesWhatNobodyKnows) {
    IndexIVFGMMFlat index(d, 4);
    const auto set = [&](const char* name, double value) {
        return refusal([&] { ParameterSpace().set_index_parameter(&index, name, value); });
    };
    for (const double wrong : {-1.0, double(NAN), double(INFINITY)}) {
        expect_four_parts(set("k_factor", wrong), "k_factor");
        expect_four_parts(set("probe_expansion", wrong), "probe_expansion");
    }
    EXPECT_EQ(index.k_factor, 0);
    EXPECT_NE(set("probe_expansino", 1).find("probe_expansino"), std::string::npos);
}

TEST(OurParameterSpace, IsExploredByAutoTune) {
    const uint64_t seed = test_seed();
    const std::vector<float> base = float_rows(rows, d, seed),
                             asked = float_rows(queries, d, seed + 1);
    const IndexSetup setup;
    const auto index = setup.trained(base);
    index->add(rows, base.data());
    index->nprobe = setup.nlist;
    const Results truth = search(*index, asked, 10);
    faiss::IntersectionCriterion criterion(queries, 10);
    criterion.set_groundtruth(10, truth.distances.data(), truth.labels.data());
    ParameterSpace space;
    space.initialize(index.get());
    space.n_experiments = 0; // all
    faiss::OperatingPoints points;
    space.explore(index.get(), queries, asked.data(), criterion, &points);
    EXPECT_EQ(points.all_pts.size(), space.n_combinations());
    std::set<double> recalls; // which of the points are optimal hangs on the clock
    for (const faiss::OperatingPoint& point : points.all_pts) {
        recalls.insert(point.perf);
    }
    ASSERT_GT(recalls.size(), 2u);
    double best = 0;
    for (const faiss::OperatingPoint& point : points.optimal_pts) {
        best = std::max(best, point.perf);
        if (point.cno < 0) {
            continue; // nothing searched, nothing found
        }
        space.set_index_parameters(index.get(), point.cno); // is what the point says
        const Results got = search(*index, asked, 10);
        EXPECT_EQ(criterion.evaluate(got.distances.data(), got.labels.data()), point.perf)
                << point.key;
        EXPECT_GT(index->k_factor, 0);
        EXPECT_GT(index->probe_expansion, 0);
    }
    EXPECT_GT(best, 0.95);
    record_piece("ParameterSpace.explore", lists_asked_for(*index), "works");
}

} // namespace
} // namespace faiss_gmm
