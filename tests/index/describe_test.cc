// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/describe.h"

#include <faiss/IndexFlat.h>
#include <faiss/IndexShards.h>
#include <gtest/gtest.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/io/export_faiss.h"
#include "tests/io/io_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1000, d = 32;

std::unique_ptr<faiss::Index> made(const char* text) {
    std::unique_ptr<faiss::Index> index(faiss_gmm::index_factory(d, text));
    const std::vector<float> base = float_rows(rows, d, 5);
    index->train(rows, base.data());
    std::vector<int64_t> ids(rows);
    for (size_t i = 0; i < rows; i++) {
        ids[i] = static_cast<int64_t>(i);
    }
    if (std::string(text).rfind("IDMap", 0) == 0) {
        index->add_with_ids(rows, base.data(), ids.data());
    } else {
        index->add(rows, base.data());
    }
    return index;
}
std::string of(const char* text) {
    return describe(*made(text));
}
std::string read_by_stock(const char* text) {
    return describe(*from_stock_bytes(stock_bytes(*made(text))));
}
/// All of them, in this order.
void expect_words(const std::string& text, const std::vector<std::string>& words) {
    size_t at = 0;
    for (const std::string& word : words) {
        at = text.find(word, at);
        ASSERT_NE(at, std::string::npos) << word << " is missing, or too early, in\n" << text;
        at += word.size();
    }
}

TEST(Describe, TellsRunsAndSketches) {
    const auto index = made("IVFGMM8(spill=always),Flat");
    auto& ivf = dynamic_cast<faiss::IndexIVF&>(*index);
    ivf.nprobe = 2;
    const auto& lists = *dynamic_cast<IndexIVFGMM&>(*index).run_lists();
    size_t runs = 0, guests = 0;
    for (const ListRuns& list : lists.directory().lists) {
        runs += list.runs();
        guests += list.guests.size();
    }
    EXPECT_GT(guests, 0u);
    const std::string text = describe(*index);
    expect_words(
            text,
            {"IndexIVFGMMOf<IndexIVFFlat>: 1000 vectors of 32 dimensions, L2, 8 lists, codes of "
             "128 "
             "bytes\n",
             "quantizer: GMMQuantizer of 8 means\n",
             "lists: " + std::to_string(runs) + " runs of 32 vectors, with sketches, " +
                     std::to_string(guests) + " guests in further lists, 0 vectors without a run\n",
             "bytes: 128000 of codes, 8000 of ids, ",
             "searches: about 250 vectors of the best runs in ",
             " lists (nprobe 2), of which sketches choose those that are compared\n"});
    ivf.nprobe = 8;
    expect_words(describe(*index), {"searches: exact in all lists\n"});
}

TEST(Describe, TellsOtherLists) {
    expect_words(
            of("IVFGMM8(sketch=none),Flat"),
            {" runs of 32 vectors, without sketches, ", ", all compared\n"});
    expect_words(
            of("IVFGMM8(storage=copies,spill=always),Flat"),
            {"lists: 2000 copies of the vectors, in plain lists\n", "each id returned once\n"});
    expect_words(
            of("IVFGMM8,PQ8x4fs"),
            {"lists: plain lists, in blocks of a FastScan codec\n",
             "searches: those of a plain IVF in 1 lists (nprobe)\n"});
    expect_words(of("IVFGMM8,PCA8,SH"), {"1000 entries in plain lists: the codec's stay so\n"});
    const std::unique_ptr<faiss::Index> untrained(
            faiss_gmm::index_factory(d, "IVFGMM8,Flat", faiss::METRIC_INNER_PRODUCT));
    expect_words(
            describe(*untrained),
            {"0 vectors of 32 dimensions, inner product, not trained, 8 lists",
             "no mixture was learnt yet\n"});
    IndexIVFGMMFlat few(d, 2);
    few.train(20, float_rows(20, d, 6).data());
    expect_words(describe(few), {"there were too few training vectors for runs\n"});
    auto replaced = made("IVFGMM8,Flat");
    dynamic_cast<faiss::IndexIVF&>(*replaced).replace_invlists(
            new faiss::ArrayInvertedLists(8, 4 * d), true);
    expect_words(
            describe(*replaced),
            {"of another class, in place of its own\n", "those of a plain IVF"});
}

TEST(Describe, TellsAStockIndexOverOurLists) {
    expect_words(
            read_by_stock("IVFGMM8,Flat"),
            {"IndexIVFFlat: 1000 vectors of 32 dimensions",
             "lists: of faiss_gmm, ",
             " with sketches",
             ": unused, searches are those of a plain IVF; promote() makes an IndexIVFGMM of "
             "it\n"});
    expect_words(
            read_by_stock("IVFGMM8(storage=copies,spill=always),Flat"),
            {"2000 copies of the vectors: searches return an id as often as it is stored; "
             "promote()"});
    expect_words(
            read_by_stock("IVFGMM8,PQ8x4fs"),
            {"IndexIVFPQFastScan", "in blocks: searches are as an IndexIVFGMM's; promote()"});
    expect_words(
            read_by_stock("IVFGMM8,PCA8,SH"),
            {"plain lists of faiss_gmm: searches are as an IndexIVFGMM's; promote()"});
    const std::unique_ptr<faiss::Index> exported(export_faiss(*made("IVFGMM8,Flat")));
    const std::string text = describe(*exported);
    expect_words(text, {"IndexIVFFlat: ", "lists: stock: nothing of faiss_gmm\n"});
    EXPECT_EQ(text.find("promote"), std::string::npos);
}

TEST(Describe, GoesThroughWrappers) {
    expect_words(
            of("IDMap2,PCA16,IVFGMM8,SQ8"),
            {"IndexIDMap2 of 1000 ids",
             "\n  IndexPreTransform of 1 transformations",
             "\n    IndexIVFGMMOf<IndexIVFScalarQuantizer>: "});
    expect_words(
            of("IVFGMM8,PQ8x4np,RFlat"),
            {"IndexRefine", ", k_factor 1, by IndexFlat", "\n  IndexIVFGMMOf<IndexIVFPQ>: "});
    expect_words(
            read_by_stock("PCA16,IVFGMM8,Flat"),
            {"IndexPreTransform", "\n  IndexIVFFlat: ", "promote() makes"});
    const auto first = made("IVFGMM8,Flat");
    faiss::IndexFlatL2 second(d);
    faiss::IndexShards shards(static_cast<int>(d));
    shards.add_shard(first.get());
    shards.add_shard(&second);
    expect_words(
            describe(shards),
            {"IndexShards of 2",
             "\n  IndexIVFGMMOf<IndexIVFFlat>: ",
             "\n  IndexFlatL2: 0 vectors of 32 dimensions, L2\n"});
}

} // namespace
} // namespace faiss_gmm
