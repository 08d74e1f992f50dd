// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include <cstdlib>
#include <cstring>
#include <set>

#include <gtest/gtest.h>

#include <faiss/IndexIVFFlat.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/wrappers.h"
#include "faiss_gmm/io/export_faiss.h"
#include "io_fixture.h"

namespace faiss_gmm {
namespace {

/// What a stock index holds when the same rows are added to the same lists.
std::unique_ptr<faiss::IndexIVFFlat> stock_over_the_same_lists(const IndexIVFGMMFlat& index) {
    auto quantizer = std::make_unique<faiss::IndexFlat>(index.d, index.metric_type);
    std::vector<float> means(index.nlist * index.d);
    index.quantizer->reconstruct_n(0, static_cast<int64_t>(index.nlist), means.data());
    quantizer->add(static_cast<int64_t>(index.nlist), means.data());
    auto stock = std::make_unique<faiss::IndexIVFFlat>(
            quantizer.get(), index.d, index.nlist, index.metric_type);
    static_cast<void>(quantizer.release());
    stock->own_fields = true;
    stock->is_trained = true;
    for (size_t l = 0; l < index.nlist; l++) {
        const std::vector<int64_t> lists(index.invlists->list_size(l), static_cast<int64_t>(l));
        stock->add_core(
                static_cast<int64_t>(lists.size()),
                reinterpret_cast<const float*>(index.invlists->get_codes(l)),
                index.invlists->get_ids(l),
                lists.data());
    }
    return stock;
}

class Export : public testing::TestWithParam<IndexSetup> {};

TEST_P(Export, FindsWhatStockFindsOverTheSameLists) {
    const auto index = filled(GetParam());
    const std::unique_ptr<faiss::Index> exported(export_faiss(*index));
    auto& ivf = dynamic_cast<faiss::IndexIVFFlat&>(*exported);
    ASSERT_EQ(typeid(ivf), typeid(faiss::IndexIVFFlat));
    ASSERT_EQ(typeid(*ivf.invlists), typeid(faiss::ArrayInvertedLists));
    EXPECT_EQ(exported->ntotal, index->ntotal);
    const auto stock = stock_over_the_same_lists(*index);
    const std::vector<float> queries = float_rows(40, index->d, 9);
    for (const size_t nprobe : {1, 4, 16}) {
        ivf.nprobe = stock->nprobe = nprobe;
        const Results expected = search(*stock, queries, 10), got = search(ivf, queries, 10);
        EXPECT_EQ(expected.distances, got.distances);
        if (GetParam().storage == SpillStorage::shared) { // of copies either may come first
            EXPECT_EQ(expected.labels, got.labels);
        }
    }
    for (size_t l = 0; l < ivf.nlist; l++) {
        const int64_t* ids = ivf.invlists->get_ids(l);
        EXPECT_TRUE(std::is_sorted(ids, ids + ivf.invlists->list_size(l)));
    }
    faiss::IDSelectorRange sorted(100, 700, true), plain(100, 700);
    faiss::SearchParametersIVF by_order, by_test;
    by_order.nprobe = by_test.nprobe = 4;
    by_order.sel = &sorted;
    by_test.sel = &plain;
    EXPECT_EQ(
            search(ivf, queries, 10, &by_order).labels, search(ivf, queries, 10, &by_test).labels);
}

TEST_P(Export, WithGuestsHoldsWhatTheIndexComparesInTheseLists) {
    if (GetParam().storage == SpillStorage::copies) {
        return;
    }
    const auto index = filled(GetParam());
    const std::unique_ptr<faiss::Index> exported(export_faiss(*index, ExportedLists::with_guests));
    const std::vector<float> queries = float_rows(40, index->d, 9);
    const size_t n = 40, k = 10, nprobe = 3;
    std::vector<float> coarse(n * nprobe);
    std::vector<int64_t> lists(n * nprobe);
    index->quantizer->search(n, queries.data(), nprobe, coarse.data(), lists.data());
    Results ours(n, k);
    faiss::IVFSearchParameters params;
    params.nprobe = nprobe;
    index->search_preassigned(
            n,
            queries.data(),
            k,
            lists.data(),
            coarse.data(),
            ours.distances.data(),
            ours.labels.data(),
            false,
            &params);
    const size_t wide = k * nprobe; // a vector stands once in a list
    const Results theirs = search(*exported, queries, wide, &params);
    for (size_t i = 0; i < n; i++) {
        std::vector<int64_t> distinct;
        for (size_t j = 0; j < wide && distinct.size() < k; j++) {
            const int64_t id = theirs.labels[i * wide + j];
            if (std::find(distinct.begin(), distinct.end(), id) == distinct.end()) {
                distinct.push_back(id);
            }
        }
        EXPECT_EQ(
                distinct,
                std::vector<int64_t>(
                        ours.labels.begin() + i * k, ours.labels.begin() + (i + 1) * k));
    }
}

TEST_P(Export, IsReadByAProgramWithoutThisLibrary) {
    const std::string name = GetParam().name;
    if (name != "never" && name != "always_5_soar_ip" && name != "copies_ip") {
        return; // processes take their time
    }
    const auto index = filled(GetParam());
    const std::unique_ptr<faiss::Index> exported(export_faiss(*index));
    const Folder folder;
    write_index(
            *exported, folder.file("index")); // with a trailer that stock readers do not look at
    const std::vector<float> queries = float_rows(20, index->d, 9);
    Bytes bytes(queries.size() * sizeof(float));
    std::memcpy(bytes.data(), queries.data(), bytes.size());
    put(folder.file("queries"), bytes);
    const std::string command = std::string(FAISS_GMM_STOCK_READER) + " " + folder.file("index") +
                                " " + folder.file("queries") + " 4 10 " + folder.file("labels");
    ASSERT_EQ(std::system(command.c_str()), 0);
    faiss::SearchParametersIVF params;
    params.nprobe = 4;
    const Results expected = search(*exported, queries, 10, &params);
    const Bytes labels = contents(folder.file("labels"));
    ASSERT_EQ(labels.size(), expected.labels.size() * sizeof(int64_t));
    EXPECT_EQ(std::memcmp(labels.data(), expected.labels.data(), labels.size()), 0);
}

INSTANTIATE_TEST_SUITE_P(All, Export, testing::ValuesIn(all_setups()), setup_name);

TEST(ExportOf, AProgramWithoutThisLibraryRefusesOurLists) {
    const auto index = filled(IndexSetup());
    const Folder folder;
    write_index(*index, folder.file("index"));
    const std::string command = std::string(FAISS_GMM_STOCK_READER) + " " + folder.file("index") +
                                " /dev/null 4 10 /dev/null 2>" + folder.file("said");
    EXPECT_NE(std::system(command.c_str()), 0);
    const Bytes said = contents(folder.file("said"));
    EXPECT_NE(std::string(said.begin(), said.end()).find("ilgm"), std::string::npos);
}

/// By FAISS of another release, too: that of PyPI, where FAISS_GMM_WHEEL names the folder that it was installed to.
TEST(ExportOf, IsReadByTheWheel) {
    const char* wheel = std::getenv("FAISS_GMM_WHEEL");
    if (wheel == nullptr) {
        GTEST_SKIP() << "FAISS_GMM_WHEEL names no folder with faiss-cpu";
    }
    const Folder folder;
    const std::vector<float> queries = float_rows(50, 16, 9);
    const size_t n = 50, k = 10;
    Bytes bytes(queries.size() * sizeof(float));
    std::memcpy(bytes.data(), queries.data(), bytes.size());
    put(folder.file("queries"), bytes);
    const auto read = [&](const std::string& file) {
        const std::string command = std::string("PYTHONPATH=") + wheel + " python3 " +
                                    FAISS_GMM_WHEEL_READER + " " + folder.file(file) + " " +
                                    folder.file("queries") + " 10 " + folder.file("labels") +
                                    " 2>" + folder.file("said");
        return std::system(command.c_str()) == 0;
    };
    for (const char* description :
         {"IVFGMM16,Flat",
          "IVFGMM16(storage=copies,spill=always,max_lists=3),Flat",
          "IVFGMM16_HNSW8(spill=always),Flat",
          "IVFGMM16,SQ8",
          "IVFGMM16,SQfp16",
          "IVFGMM16,PQ8x4",
          "IVFGMM16,RQ3x4_Nfloat",
          "IVFGMM16,PRQ2x2x4",
          "IVFGMM16,PQ8x4fs",
          "IVFGMM16,ITQ16,SH",
          "IDMap,PCA8,IVFGMM16,Flat",
          "IVFGMM16,SQ4,RFlat"}) {
        const std::unique_ptr<faiss::Index> index = filled(description);
        faiss::Index* outermost = index.get();
        dynamic_cast<faiss::IndexIVF&>(**innermost_slot(&outermost)).nprobe = 4;
        const bool reconstructs = std::string(description).find("SH") == std::string::npos;
        for (const auto which : {ExportedLists::as_stored, ExportedLists::with_guests}) {
            if (which == ExportedLists::with_guests && !reconstructs) {
                continue;
            }
            SCOPED_TRACE(testing::Message() << description << static_cast<int>(which));
            const std::unique_ptr<faiss::Index> exported(export_faiss(*index, which));
            write_index(*exported, folder.file("index"));
            ASSERT_TRUE(read("index"));
            const Bytes found = contents(folder.file("labels"));
            ASSERT_EQ(found.size(), n * k * sizeof(int64_t));
            std::vector<int64_t> labels(n * k);
            std::memcpy(labels.data(), found.data(), found.size());
            // Its sums are in another order: where distances are as good as equal, as those of short codes are, either
            // may come first, or last of all.
            const Results expected = search(*exported, queries, k);
            size_t agreed = 0;
            for (size_t i = 0; i < n; i++) {
                const int64_t* first = labels.data() + i * k;
                for (size_t j = 0; j < k; j++) {
                    agreed += std::count(first, first + k, expected.labels[i * k + j]) > 0;
                }
            }
            const bool exact = std::string(description).find("Flat") != std::string::npos;
            EXPECT_GE(agreed, exact ? n * k - 1 : n * k * 95 / 100);
        }
    }
    write_index(*filled("IVFGMM16,Flat"), folder.file("ours"));
    EXPECT_FALSE(read("ours"));
    const Bytes said = contents(folder.file("said"));
    EXPECT_NE(std::string(said.begin(), said.end()).find("ilgm"), std::string::npos);
}

TEST(ExportOf, FactoryStrings) {
    for (const char* description :
         {"IVFGMM16,SQ8",
          "IVFGMM16,SQfp16",
          "IVFGMM16_HNSW8,Flat",
          "PCA8,IVFGMM16,Flat",
          "IVFGMM16,Flat,RFlat"}) {
        SCOPED_TRACE(description);
        const std::unique_ptr<faiss::Index> index = filled(description);
        const std::vector<float> x = float_rows(2000, 16, 5);
        for (const auto which : {ExportedLists::as_stored, ExportedLists::with_guests}) {
            const std::unique_ptr<faiss::Index> exported(export_faiss(*index, which));
            const Bytes bytes = stock_bytes(*exported);
            const std::string text(bytes.begin(), bytes.end());
            EXPECT_EQ(text.find("ilgm"), std::string::npos);
            EXPECT_NE(text.find("ilar"), std::string::npos);
            EXPECT_EQ(exported->ntotal, index->ntotal);
            // Each row finds itself, or one as near where codes are coarse.
            const Results found =
                    search(*exported, std::vector<float>(x.begin(), x.begin() + 160), 3);
            size_t itself = 0;
            for (size_t i = 0; i < 10; i++) {
                const int64_t* labels = found.labels.data() + 3 * i;
                itself += std::count(labels, labels + 3, static_cast<int64_t>(i)) > 0;
            }
            EXPECT_GE(itself, 8u);
        }
    }
}

} // namespace
} // namespace faiss_gmm
