// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What was written and read is the same index: results, counts, and what becomes of it later.
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/VectorTransform.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/wrappers.h"
#include "io_fixture.h"

namespace faiss_gmm {
namespace {

class RoundTrip : public testing::TestWithParam<IndexSetup> {};

TEST_P(RoundTrip, ThroughAFile) {
    const auto original = filled(GetParam());
    const Folder folder;
    const std::string path = folder.file("index");
    write_index(*original, path);
    EXPECT_EQ(folder.files(), std::vector<std::string>{"index"});
    const std::unique_ptr<faiss::Index> read(read_index(path));
    ASSERT_NE(dynamic_cast<IndexIVFGMMFlat*>(read.get()), nullptr);
    EXPECT_EQ(stock_bytes(*original), stock_bytes(*read)) << "written again";
    expect_same_life(*original, *read);
}

TEST_P(RoundTrip, ThroughStockCode) {
    const auto original = filled(GetParam());
    std::unique_ptr<faiss::Index> stock = from_stock_bytes(stock_bytes(*original));
    auto& ivf = dynamic_cast<faiss::IndexIVF&>(*stock);
    EXPECT_EQ(typeid(ivf), typeid(faiss::IndexIVFFlat));
    EXPECT_EQ(stock->ntotal, original->ntotal);
    EXPECT_EQ(stock_bytes(*original), stock_bytes(*stock)) << "written by stock code in between";
    // Exact over its lists, whoever searches.
    if (GetParam().storage == SpillStorage::shared) {
        const std::vector<float> queries = float_rows(20, original->d, 9);
        ivf.nprobe = GetParam().nlist;
        IVFGMMSearchParameters all;
        all.nprobe = GetParam().nlist;
        EXPECT_EQ(search(*stock, queries, 5).labels, search(*original, queries, 5, &all).labels);
        ivf.nprobe = original->nprobe;
    }
    const std::unique_ptr<faiss::Index> read = promoted(std::move(stock));
    expect_same_life(*original, *read);
}

TEST_P(RoundTrip, KeepsTheStateOfTheIndex) {
    auto original = filled(GetParam());
    original->training.seed = 99;
    original->training.mixing = Mixing::free;
    original->training.device = 3;
    original->k_factor = 7;
    original->probe_expansion = 3;
    original->visit_budget = VisitBudget::even;
    original->nprobe = 4;
    const std::unique_ptr<faiss::Index> read = promoted(from_stock_bytes(stock_bytes(*original)));
    const IndexIVFGMM& ours = as_gmm(*read);
    EXPECT_EQ(ours.training.seed, 99u);
    EXPECT_EQ(ours.training.mixing, Mixing::free);
    EXPECT_EQ(ours.training.device, 0) << "never stored";
    EXPECT_EQ(ours.k_factor, 7);
    EXPECT_EQ(ours.probe_expansion, 3);
    EXPECT_EQ(ours.visit_budget, VisitBudget::even);
    EXPECT_EQ(ours.spill, original->spill);
    EXPECT_EQ(ours.sketch.mode, original->sketch.mode);
    EXPECT_EQ(ours.ivf().nprobe, 4u);
    EXPECT_EQ(ours.mixture().means, original->mixture().means);
    EXPECT_EQ(ours.mixture().covariances, original->mixture().covariances);
    EXPECT_EQ(ours.mixture().log_weights, original->mixture().log_weights);
    EXPECT_NE(dynamic_cast<const GMMQuantizer*>(ours.ivf().quantizer), nullptr);
}

// Where it was trained is of the machine: the same file wherever.
TEST_P(RoundTrip, StoresNothingOfTheEngine) {
    auto original = filled(GetParam());
    const Bytes before = stock_bytes(*original);
    original->training.engine = EngineKind::cpu;
    original->training.device = 3;
    original->training.gpu_memory = 512;
    original->training.gpu_cache = 7;
    EXPECT_EQ(stock_bytes(*original), before);
}

INSTANTIATE_TEST_SUITE_P(All, RoundTrip, testing::ValuesIn(all_setups()), setup_name);

void expect_same_through_file(const faiss::Index& original) {
    const Folder folder;
    write_index(original, folder.file("index"));
    const std::unique_ptr<faiss::Index> read(read_index(folder.file("index")));
    const auto innermost_is_ours = [](const faiss::Index* index) {
        auto* outermost = const_cast<faiss::Index*>(index);
        return dynamic_cast<const IndexIVFGMM*>(*innermost_slot(&outermost)) != nullptr;
    };
    EXPECT_EQ(innermost_is_ours(read.get()), innermost_is_ours(&original));
    const std::vector<float> queries = float_rows(30, original.d, 9);
    const Results first = search(original, queries, 5), second = search(*read, queries, 5);
    EXPECT_EQ(first.labels, second.labels);
    EXPECT_EQ(first.distances, second.distances);
    EXPECT_EQ(stock_bytes(original), stock_bytes(*read));
}

TEST(RoundTripOf, FactoryStrings) {
    for (const char* description :
         {"IVFGMM16,Flat",
          "IVFGMM16,SQ8",
          "IVFGMM16(by_residual=false),SQ8",
          "IVFGMM16,SQfp16",
          "IVFGMM16,SQ4",
          "IVFGMM16(covariance=diagonal,mixing=free),Flat",
          "IVFGMM16(covariance=spherical,mixing=balanced),Flat",
          "IVFGMM16_HNSW8,Flat",
          "PCA8,IVFGMM16,Flat",
          "IDMap,IVFGMM16,Flat",
          "IDMap2,IVFGMM16,SQ8",
          "IVFGMM16,Flat,RFlat",
          "IDMap,PCA8,IVFGMM16(storage=copies,spill=always),Flat",
          "IVF16,Flat",
          "Flat"}) {
        SCOPED_TRACE(description);
        const std::unique_ptr<faiss::Index> index = filled(description);
        expect_same_through_file(*index);
    }
}

TEST(RoundTripOf, UntrainedAndEmpty) {
    IndexIVFGMMFlat untrained(8, 4), empty(8, 4);
    const std::vector<float> x = float_rows(2000, 8, 5);
    empty.train(2000, x.data());
    for (IndexIVFGMMFlat* original : {&untrained, &empty}) {
        const auto read = promoted(from_stock_bytes(stock_bytes(*original)));
        EXPECT_EQ(read->is_trained, original->is_trained);
        for (faiss::Index* index : {static_cast<faiss::Index*>(original), read.get()}) {
            if (!index->is_trained) {
                index->train(2000, x.data());
            }
            index->add(500, x.data());
        }
        expect_same_life(*original, *read);
    }
}

TEST(RoundTripOf, ListsThatStockCodeChanged) {
    // Stale lists, and entries without runs.
    const IndexSetup setup;
    const auto original = filled(setup);
    const size_t code_size = original->code_size;
    const std::vector<uint8_t> code(code_size, 0);
    const int64_t id = 5000;
    original->invlists->update_entries(3, 0, 1, &id, code.data());
    original->invlists->resize(4, original->invlists->list_size(4) / 2);
    original->invlists->add_entries(5, 1, &id, code.data());
    const auto read = promoted(from_stock_bytes(stock_bytes(*original)));
    expect_same_searches(*original, *read);
    as_gmm(*original).compact();
    as_gmm(*read).compact();
    expect_same_searches(*original, *read);
    as_gmm(*read).check();
}

TEST(RoundTripOf, DirectMaps) {
    for (const auto type : {faiss::DirectMap::Array, faiss::DirectMap::Hashtable}) {
        const auto original = filled(IndexSetup());
        original->set_direct_map_type(type);
        const auto read = promoted(from_stock_bytes(stock_bytes(*original)));
        as_gmm(*read).check();
        std::vector<float> first(original->d), second(original->d);
        original->reconstruct(17, first.data());
        read->reconstruct(17, second.data());
        EXPECT_EQ(first, second);
        as_gmm(*read).compact();
        as_gmm(*read).check();
    }
}

/// An id that several entries have: the map names one of them.
TEST(RoundTripOf, DirectMapsOfIdsThatComeSeveralTimes) {
    IndexSetup copies;
    copies.storage = SpillStorage::copies;
    const auto of_copies = filled(copies), of_twins = filled(IndexSetup());
    const std::vector<float> more = float_rows(200, of_twins->d, 7);
    const std::vector<int64_t> ids(200, 3);
    of_twins->add_with_ids(200, more.data(), ids.data());
    for (IndexIVFGMMFlat* original : {of_copies.get(), of_twins.get()}) {
        original->set_direct_map_type(faiss::DirectMap::Hashtable);
        original->check();
        const Folder folder;
        write_index(*original, folder.file("index"));
        const std::unique_ptr<faiss::Index> read(read_index(folder.file("index")));
        expect_same_searches(*original, *read);
        std::vector<float> first(original->d), second(original->d);
        original->reconstruct(3, first.data());
        read->reconstruct(3, second.data());
        EXPECT_EQ(first, second);
    }
}

TEST(RoundTripOf, AQuantizerOfTheUser) {
    const auto x = float_rows(2000, 16, 5);
    faiss::IndexFlatL2 quantizer(16);
    IndexIVFGMMFlat original(&quantizer, 16, 16, faiss::METRIC_L2);
    original.train(2000, x.data());
    original.add(1000, x.data());
    const auto read = promoted(from_stock_bytes(stock_bytes(original)));
    EXPECT_EQ(dynamic_cast<GMMQuantizer*>(as_gmm(*read).ivf().quantizer), nullptr);
    expect_same_searches(original, *read);
}

TEST(RoundTripOf, MappedFiles) {
    const auto original = filled(IndexSetup());
    const Folder folder;
    write_index(*original, folder.file("index"));
    const std::unique_ptr<faiss::Index> mapped(
            read_index(folder.file("index"), faiss::IO_FLAG_MMAP));
    EXPECT_EQ(
            dynamic_cast<const faiss::ArrayInvertedLists*>(&as_gmm(*mapped).run_lists()->inner()),
            nullptr);
    expect_same_searches(*original, *mapped);
    as_gmm(*mapped).check();
}

/// With their lists: also in place of the file that these are mapped from.
TEST(RoundTripOf, MappedFilesWrittenAgain) {
    for (const SpillStorage storage : {SpillStorage::shared, SpillStorage::copies}) {
        IndexSetup setup;
        setup.storage = storage;
        const auto original = filled(setup);
        const Folder folder;
        const std::string path = folder.file("index");
        write_index(*original, path);
        const Bytes written = contents(path);
        for (const char* name : {"another", "index"}) {
            const std::unique_ptr<faiss::Index> mapped(read_index(path, faiss::IO_FLAG_MMAP));
            write_index(*mapped, folder.file(name));
            EXPECT_EQ(contents(folder.file(name)), written);
            expect_same_searches(*original, *mapped);
        }
        // By stock code too, of what stock code mapped.
        const std::unique_ptr<faiss::Index> stock(
                faiss::read_index(path.c_str(), faiss::IO_FLAG_MMAP));
        EXPECT_EQ(stock_bytes(*stock), stock_bytes(*original));
    }
}

TEST(Promote, LeavesOtherIndicesAlone) {
    auto flat = std::make_unique<faiss::IndexFlatL2>(4);
    EXPECT_EQ(promote(flat.get()), flat.get());
    const auto ours = filled(IndexSetup());
    EXPECT_EQ(promote(ours.get()), ours.get());
}

TEST(Promote, RefusesPartsThatDoNotFit) {
    const auto original = filled(IndexSetup());
    const auto expect_refused = [&](const std::string& given, auto damage) {
        auto stock = from_stock_bytes(stock_bytes(*original));
        auto& ivf = dynamic_cast<faiss::IndexIVFFlat&>(*stock);
        damage(ivf);
        const std::string message = refusal([&] { promote(stock.get()); });
        expect_four_parts(message, given);
        EXPECT_NE(ivf.invlists, nullptr);
        EXPECT_TRUE(ivf.own_invlists && ivf.own_fields) << "still its own";
    };
    expect_refused("metric", [](faiss::IndexIVFFlat& ivf) { ivf.metric_type = faiss::METRIC_L1; });
    expect_refused("for distances", [](faiss::IndexIVFFlat& ivf) {
        ivf.metric_type = faiss::METRIC_INNER_PRODUCT;
    });
    expect_refused("ntotal = -1", [](faiss::IndexIVFFlat& ivf) { ivf.ntotal = -1; });
    expect_refused("ntotal", [](faiss::IndexIVFFlat& ivf) { ivf.ntotal = 3; });
    expect_refused("means", [](faiss::IndexIVFFlat& ivf) { ivf.quantizer->reset(); });
    expect_refused("elsewhere in the direct map", [](faiss::IndexIVFFlat& ivf) {
        ivf.set_direct_map_type(faiss::DirectMap::Array);
        std::swap(ivf.direct_map.array[0], ivf.direct_map.array[1]);
    });
}

} // namespace
} // namespace faiss_gmm
