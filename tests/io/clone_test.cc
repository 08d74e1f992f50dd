// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <gtest/gtest.h>

#include <faiss/IndexRefine.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/io/clone.h"
#include "io_fixture.h"

namespace faiss_gmm {
namespace {

class Clone : public testing::TestWithParam<IndexSetup> {};

TEST_P(Clone, IsTheSameIndexAndLivesAlone) {
    auto original = filled(GetParam());
    original->training.device = 3;
    original->max_codes = 12345;
    const Bytes before = stock_bytes(*original);
    std::unique_ptr<faiss::Index> first(clone_index(*original));
    const std::unique_ptr<faiss::Index> second(clone_index(*first));
    const faiss::Index& clone = *second;
    ASSERT_EQ(typeid(clone), typeid(IndexIVFGMMFlat));
    EXPECT_EQ(stock_bytes(clone), before);
    EXPECT_EQ(as_gmm(*second).training.device, 3) << "a clone stays in the process";
    EXPECT_EQ(as_gmm(*second).ivf().max_codes, 12345u);
    original->max_codes = as_gmm(*second).ivf().max_codes = 0;
    EXPECT_EQ(as_gmm(*second).training_history().size(), original->training_history().size());
    first->reset(); // nobody else's
    first.reset();
    EXPECT_EQ(stock_bytes(*original), before);
    expect_same_life(*original, *second);
}

INSTANTIATE_TEST_SUITE_P(All, Clone, testing::ValuesIn(all_setups()), setup_name);

TEST(CloneOf, FactoryStrings) {
    for (const char* description :
         {"IVFGMM16,SQ8",
          "IVFGMM16_HNSW8,Flat",
          "PCA8,IVFGMM16,Flat",
          "IDMap,IVFGMM16,Flat",
          "IVFGMM16,Flat,RFlat",
          "IVFGMM16,SQ8,Refine(SQfp16)",
          "IVF16,Flat"}) {
        SCOPED_TRACE(description);
        const std::unique_ptr<faiss::Index> index = filled(description);
        auto* refine = dynamic_cast<faiss::IndexRefine*>(index.get());
        if (refine != nullptr) {
            refine->k_factor = 3;
        }
        const std::unique_ptr<faiss::Index> clone(clone_index(*index));
        if (refine != nullptr) {
            EXPECT_EQ(dynamic_cast<faiss::IndexRefine&>(*clone).k_factor, 3);
        }
        const std::vector<float> queries = float_rows(30, 16, 9);
        const Results first = search(*index, queries, 5), second = search(*clone, queries, 5);
        EXPECT_EQ(first.labels, second.labels);
        EXPECT_EQ(first.distances, second.distances);
        EXPECT_EQ(stock_bytes(*index), stock_bytes(*clone));
    }
}

TEST(CloneOf, TheStockClonerRefusesRatherThanSlices) {
    const auto index = filled(IndexSetup());
    const std::string message = refusal([&] { delete faiss::clone_index(index.get()); });
    EXPECT_NE(message.find("clone not supported"), std::string::npos) << message;
    index->check();
}

TEST(CloneOf, ListsThatAreNotInMemory) {
    const auto index = filled(IndexSetup());
    const Folder folder;
    write_index(*index, folder.file("index"));
    const std::unique_ptr<faiss::Index> mapped(
            read_index(folder.file("index"), faiss::IO_FLAG_MMAP));
    expect_four_parts(refusal([&] { delete clone_index(*mapped); }), "another class");
}

} // namespace
} // namespace faiss_gmm
