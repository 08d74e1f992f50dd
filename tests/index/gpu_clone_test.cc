// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// faiss::gpu::index_cpu_to_gpu of an IndexIVFGMM: FAISS's own class on the GPU, over our means and lists. It finds what
// stock finds there; runs and sketches stay behind. Built where FAISS was built with GPUs; skipped where there is none.
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/gpu/GpuCloner.h>
#include <faiss/gpu/GpuIndexIVFFlat.h>
#include <faiss/gpu/GpuIndexIVFPQ.h>
#include <faiss/gpu/GpuIndexIVFScalarQuantizer.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <gtest/gtest.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/io/export_faiss.h"
#include "index_fixture.h"
#include "stock_twin.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 4000, d = 32, queries = 50, k = 10;
constexpr int nlist = 16;

class GpuClone : public testing::Test {
protected:
    void SetUp() override {
        if (faiss::gpu::getNumDevices() == 0) {
            GTEST_SKIP() << "no GPU";
        }
        resources_ = std::make_unique<faiss::gpu::StandardGpuResources>();
        second_resources_ = std::make_unique<faiss::gpu::StandardGpuResources>();
    }
    std::unique_ptr<faiss::Index> filled(const std::string& text, faiss::MetricType metric) const {
        std::unique_ptr<faiss::Index> index(faiss_gmm::index_factory(d, text.c_str(), metric));
        index->train(rows, base_.data());
        index->add(rows, base_.data());
        return index;
    }
    std::unique_ptr<faiss::Index> on_gpu(const faiss::Index& index) {
        return std::unique_ptr<faiss::Index>(
                faiss::gpu::index_cpu_to_gpu(resources_.get(), 0, &index));
    }
    /// Two parts, as two GPUs would have them, each searched from a thread of its own; one GPU serves for both.
    std::unique_ptr<faiss::Index> on_two(const faiss::Index& index, bool in_shards) {
        std::vector<faiss::gpu::GpuResourcesProvider*> providers = {
                resources_.get(), second_resources_.get()};
        std::vector<int> devices = {0, 0};
        faiss::gpu::GpuMultipleClonerOptions options;
        options.shard = in_shards;
        return std::unique_ptr<faiss::Index>(
                faiss::gpu::index_cpu_to_gpu_multiple(providers, devices, &index, &options));
    }
    /// The same distances; the GPU adds in another order.
    static void expect_near(const Results& gpu, const Results& cpu) {
        for (size_t i = 0; i < gpu.n * gpu.k; i++) {
            EXPECT_NEAR(gpu.distances[i], cpu.distances[i], 1e-3 * (1 + std::abs(cpu.distances[i])))
                    << i;
        }
    }
    static void expect_distinct(const Results& results) {
        for (size_t i = 0; i < results.n; i++) {
            const auto first = results.labels.begin() + static_cast<int64_t>(i * results.k);
            const std::set<int64_t> ids(first, first + static_cast<int64_t>(results.k));
            EXPECT_EQ(ids.size(), results.k) << "query " << i;
        }
    }

    const uint64_t seed_ = test_seed();
    const std::vector<float> base_ = float_rows(rows, d, seed_),
                             queries_ = float_rows(queries, d, seed_ + 1);
    std::unique_ptr<faiss::gpu::StandardGpuResources> resources_, second_resources_;
};

TEST_F(GpuClone, FindsWhatStockFindsOverTheSameLists) {
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        for (const std::string codec : {"Flat", "SQ8", "SQfp16", "PQ16x8np"}) {
            SCOPED_TRACE(codec + (metric == faiss::METRIC_L2 ? "" : ", inner product"));
            const auto index = filled("IVFGMM16(spill=always)," + codec, metric);
            auto& ivf = dynamic_cast<faiss::IndexIVF&>(*index);
            const auto clone = on_gpu(*index);
            EXPECT_EQ(dynamic_cast<IndexIVFGMM*>(clone.get()), nullptr);
            EXPECT_EQ(clone->ntotal, index->ntotal);
            auto& gpu = dynamic_cast<faiss::gpu::GpuIndexIVF&>(*clone);
            const auto twin = stock_twin(ivf);
            for (const int nprobe : {1, 4, nlist}) {
                SCOPED_TRACE(nprobe);
                gpu.nprobe = nprobe;
                twin->nprobe = nprobe;
                const Results found = search(*clone, queries_, k);
                expect_near(found, search(*twin, queries_, k));
                expect_distinct(found);
            }
        }
    }
}

TEST_F(GpuClone, GoesThroughWrappers) {
    const auto index = filled("PCA16,IVFGMM16,Flat", faiss::METRIC_L2);
    const auto clone = on_gpu(*index);
    auto& chain = dynamic_cast<faiss::IndexPreTransform&>(*clone);
    auto& gpu = dynamic_cast<faiss::gpu::GpuIndexIVFFlat&>(*chain.index);
    gpu.nprobe = nlist;
    dynamic_cast<faiss::IndexIVF&>(*dynamic_cast<faiss::IndexPreTransform&>(*index).index).nprobe =
            nlist;
    expect_near(search(*clone, queries_, k), search(*index, queries_, k));
}

/// Shards take their part of the lists by our copy_subset_to.
TEST_F(GpuClone, ToSeveral) {
    const auto index = filled("IVFGMM16(spill=always),Flat", faiss::METRIC_L2);
    dynamic_cast<faiss::IndexIVF&>(*index).nprobe = nlist;
    const Results wanted = search(*index, queries_, k);
    for (const bool in_shards : {false, true}) {
        SCOPED_TRACE(in_shards ? "shards" : "replicas");
        const auto clone = on_two(*index, in_shards);
        EXPECT_EQ(clone->ntotal, index->ntotal);
        const Results found = search(*clone, queries_, k);
        expect_near(found, wanted);
        expect_distinct(found);
    }
}

TEST_F(GpuClone, ComesBackAsAStockIndex) {
    const auto index = filled("IVFGMM16,Flat", faiss::METRIC_L2);
    const auto clone = on_gpu(*index);
    const std::unique_ptr<faiss::Index> back(faiss::gpu::index_gpu_to_cpu(clone.get()));
    const faiss::Index& found = *back;
    ASSERT_EQ(typeid(found), typeid(faiss::IndexIVFFlat));
    const std::unique_ptr<faiss::Index> exported(export_faiss(*index));
    for (const auto& stock : {back.get(), exported.get()}) {
        dynamic_cast<faiss::IndexIVF&>(*stock).nprobe = 4;
    }
    expect_equal_up_to_ties(search(*back, queries_, k), search(*exported, queries_, k));
}

/// Nobody keeps an id to its first place there.
TEST_F(GpuClone, OfCopiesReturnsIdsAsOftenAsTheyAreStored) {
    const auto index =
            filled("IVFGMM16(storage=copies,spill=always,max_lists=2),Flat", faiss::METRIC_L2);
    const auto clone = on_gpu(*index);
    dynamic_cast<faiss::gpu::GpuIndexIVF&>(*clone).nprobe = nlist;
    const Results found = search(*clone, queries_, 2);
    for (size_t i = 0; i < queries; i++) {
        EXPECT_EQ(found.labels[2 * i], found.labels[2 * i + 1]) << "stored twice";
    }
}

/// FAISS asks for it to be allowed.
TEST_F(GpuClone, OverAGraphAsksForAQuantizerOnTheCPU) {
    const auto index = filled("IVFGMM16_HNSW8,Flat", faiss::METRIC_L2);
    EXPECT_NE(refusal([&] { on_gpu(*index); }).find("allowCpuCoarseQuantizer"), std::string::npos);
}

} // namespace
} // namespace faiss_gmm
