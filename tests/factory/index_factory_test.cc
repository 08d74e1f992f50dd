// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/factory/index_factory.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>

#include <faiss/IVFlib.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>

#include "faiss_gmm/index/codecs.h"

namespace faiss_gmm {
namespace {

std::unique_ptr<faiss::Index>
made(const std::string& text, int d = 16, faiss::MetricType metric = faiss::METRIC_L2) {
    return std::unique_ptr<faiss::Index>(index_factory(d, text.c_str(), metric));
}

std::string message_of(const std::string& text) {
    try {
        made(text);
    } catch (const faiss::FaissException& error) {
        return error.what();
    }
    return "";
}

IndexIVFGMMFlat* inside(faiss::Index* index) {
    return dynamic_cast<IndexIVFGMMFlat*>(faiss::ivflib::try_extract_index_ivf(index));
}

TEST(Factory, BuildsTheIndex) {
    const auto index = made("IVFGMM64,Flat");
    auto* ours = dynamic_cast<IndexIVFGMMFlat*>(index.get());
    ASSERT_NE(ours, nullptr);
    EXPECT_EQ(ours->nlist, 64u);
    EXPECT_EQ(ours->d, 16);
    EXPECT_NE(dynamic_cast<GMMQuantizer*>(ours->quantizer), nullptr);
    EXPECT_TRUE(ours->own_fields);
    EXPECT_FALSE(ours->is_trained);
    EXPECT_EQ(dynamic_cast<IndexIVFGMMFlat&>(*made("IVFGMM2k,Flat")).nlist, 2048u);
}

TEST(Factory, TakesEveryKey) {
    const auto index =
            made("IVFGMM64(covariance=diagonal,mixing=balanced,max_iter=7,n_init=2,seed="
                 "42,estep=exact,engine=cpu,device=1,gpu_memory=512,order=soar,lambda=1.5,"
                 "spill=threshold(0.01),max_lists=3,m=8,storage=copies,budget=even,sketch=12,"
                 "probe_expansion=4,k_factor=9),Flat");
    const auto& ours = dynamic_cast<IndexIVFGMMFlat&>(*index);
    EXPECT_EQ(ours.training.covariance, Covariance::diagonal);
    EXPECT_EQ(ours.training.mixing, Mixing::balanced);
    EXPECT_EQ(ours.training.max_iter, 7u);
    EXPECT_EQ(ours.training.n_init, 2u);
    EXPECT_EQ(ours.training.seed, 42u);
    EXPECT_EQ(ours.training.estep, EStep::exact);
    EXPECT_EQ(ours.training.engine, EngineKind::cpu);
    EXPECT_EQ(ours.training.device, 1);
    EXPECT_EQ(ours.training.gpu_memory, 512u);
    EXPECT_EQ(ours.training.gpu_cache, automatic_cache);
    EXPECT_EQ(ours.spill.order, SpillOrder::soar);
    EXPECT_EQ(ours.spill.lambda, 1.5f);
    EXPECT_EQ(ours.spill.rule, SpillRule::threshold);
    EXPECT_EQ(ours.spill.tau, 0.01f);
    EXPECT_EQ(ours.spill.max_lists, 3u);
    EXPECT_EQ(ours.spill.m, 8u);
    EXPECT_EQ(ours.spill.storage, SpillStorage::copies);
    EXPECT_EQ(ours.sketch.mode, SketchParameters::Mode::fixed);
    EXPECT_EQ(ours.sketch.codes, 12u);
    EXPECT_EQ(ours.visit_budget, VisitBudget::even);
    EXPECT_EQ(ours.probe_expansion, 4);
    EXPECT_EQ(ours.k_factor, 9);
}

TEST(Factory, CodesAreOfResidualsWhereTheStockFactorysAreUnlessToldOtherwise) {
    for (const auto& [text, by_residual] :
         {std::pair<const char*, bool>{"IVFGMM64,SQ8", true},
          {"IVFGMM64(by_residual=true),SQ8", true},
          {"IVFGMM64(by_residual=false),SQfp16", false},
          {"IVFGMM64,PQ4", true},
          {"IVFGMM64(by_residual=false),PQ4", false},
          {"IVFGMM64,RQ2x4", true},
          {"IVFGMM64(by_residual=false),PRQ2x2x4", false},
          {"IVFGMM64,PQ4x4fs", false},
          {"IVFGMM64,PQ4x4fsr", true},
          {"IVFGMM64(by_residual=true),PQ4x4fs", true}}) {
        const auto index = made(text);
        EXPECT_EQ(*by_residual_of(dynamic_cast<faiss::IndexIVF&>(*index)), by_residual) << text;
    }
}

TEST(Factory, CodecsAreWhatTheirStringsSay) {
    const auto pq = made("IVFGMM64,PQ8x6");
    EXPECT_EQ(dynamic_cast<IndexIVFGMMPQ&>(*pq).pq.M, 8u);
    EXPECT_EQ(dynamic_cast<IndexIVFGMMPQ&>(*pq).pq.nbits, 6u);
    EXPECT_TRUE(dynamic_cast<IndexIVFGMMPQ&>(*pq).do_polysemous_training);
    EXPECT_FALSE(dynamic_cast<IndexIVFGMMPQ&>(*made("IVFGMM64,PQ8np")).do_polysemous_training);
    const auto rq = made("IVFGMM64,RQ2x4_1x3_Nqint8");
    const auto& residual = dynamic_cast<IndexIVFGMMResidualQuantizer&>(*rq);
    EXPECT_EQ(residual.rq.nbits, (std::vector<size_t>{4, 4, 3}));
    EXPECT_EQ(residual.rq.search_type, faiss::AdditiveQuantizer::ST_norm_qint8);
    EXPECT_EQ(residual.aq, &residual.rq);
    const auto prq = made("IVFGMM64,PLSQ2x3x5_Nfloat");
    const auto& product = dynamic_cast<IndexIVFGMMProductLocalSearchQuantizer&>(*prq);
    EXPECT_EQ(product.plsq.nsplits, 2u);
    EXPECT_EQ(product.plsq.M, 6u);
    EXPECT_EQ(product.plsq.nbits[0], 5u);
    EXPECT_EQ(product.plsq.search_type, faiss::AdditiveQuantizer::ST_norm_float);
    const auto blocks = made("IVFGMM64,LSQ4x4fsr_64_Nrq2x4");
    EXPECT_EQ(dynamic_cast<IndexIVFGMMLocalSearchQuantizerFastScan&>(*blocks).bbs, 64);
    EXPECT_EQ(dynamic_cast<IndexIVFGMMLocalSearchQuantizerFastScan&>(*blocks).lsq.M, 4u);
    const auto hashes = made("IVFGMM64,PCAR8,SH3m");
    const auto& spectral = dynamic_cast<IndexIVFGMMSpectralHash&>(*hashes);
    EXPECT_EQ(spectral.nbit, 8);
    EXPECT_EQ(spectral.period, 3);
    EXPECT_EQ(spectral.threshold_type, faiss::IndexIVFSpectralHash::Thresh_median);
    EXPECT_NE(dynamic_cast<faiss::PCAMatrix*>(spectral.vt), nullptr);
}

TEST(Factory, MoreListsLookAtMoreCandidates) {
    const auto index = made("IVFGMM64(max_lists=20),Flat");
    EXPECT_EQ(dynamic_cast<IndexIVFGMMFlat&>(*index).spill.max_lists, 20u);
    EXPECT_EQ(dynamic_cast<IndexIVFGMMFlat&>(*index).spill.m, 20u);
}

TEST(Factory, KeepsPrefixesAndSuffixes) {
    const auto transformed = made("PCA8,IVFGMM32,Flat");
    ASSERT_NE(dynamic_cast<faiss::IndexPreTransform*>(transformed.get()), nullptr);
    ASSERT_NE(inside(transformed.get()), nullptr);
    EXPECT_EQ(inside(transformed.get())->d, 8);
    const auto mapped = made("IDMap,IVFGMM32(spill=never),Flat");
    ASSERT_NE(dynamic_cast<faiss::IndexIDMap*>(mapped.get()), nullptr);
    EXPECT_NE(inside(mapped.get()), nullptr);
    const auto refined = made("IVFGMM32,Flat,RFlat");
    auto* refine = dynamic_cast<faiss::IndexRefine*>(refined.get());
    ASSERT_NE(refine, nullptr);
    EXPECT_NE(dynamic_cast<IndexIVFGMMFlat*>(refine->base_index), nullptr);
}

TEST(Factory, KeepsAnHNSWQuantizer) {
    const auto index = made("IVFGMM64_HNSW16(spill=never),Flat");
    const auto& ours = dynamic_cast<IndexIVFGMMFlat&>(*index);
    EXPECT_NE(dynamic_cast<faiss::IndexHNSWFlat*>(ours.quantizer), nullptr);
    EXPECT_TRUE(ours.own_fields);
    EXPECT_EQ(ours.spill.rule, SpillRule::never);
}

TEST(Factory, PassesOtherStringsOn) {
    EXPECT_NE(dynamic_cast<faiss::IndexFlat*>(made("Flat").get()), nullptr);
    EXPECT_NE(dynamic_cast<faiss::IndexIVFPQ*>(made("IVF16,PQ4").get()), nullptr);
    EXPECT_EQ(inside(made("IVF16,Flat").get()), nullptr);
    EXPECT_THROW(made("nonsense"), faiss::FaissException);
    EXPECT_EQ(
            made("Flat", 16, faiss::METRIC_INNER_PRODUCT)->metric_type,
            faiss::METRIC_INNER_PRODUCT);
}

struct BadString {
    const char* text;
    const char* expected;     ///< in the message
    const char* marked_place; ///< begins at the marker
};

void PrintTo(const BadString& bad, std::ostream* out) {
    *out << bad.text;
}

class BadStrings : public testing::TestWithParam<BadString> {};

TEST_P(BadStrings, AreMarkedAndExplained) {
    const std::string text = GetParam().text, message = message_of(text);
    ASSERT_NE(message, "") << text;
    EXPECT_NE(message.find(text), std::string::npos) << message;
    EXPECT_NE(message.find(GetParam().expected), std::string::npos) << message;
    // The marker stands under the place.
    const size_t line = message.find("    " + text + "\n");
    ASSERT_NE(line, std::string::npos) << message;
    const size_t marker = message.find('^', line);
    ASSERT_NE(marker, std::string::npos) << message;
    const size_t column = marker - (line + 4 + text.size() + 1) - 4;
    EXPECT_EQ(text.substr(column).find(GetParam().marked_place), 0u) << message;
}

INSTANTIATE_TEST_SUITE_P(
        All,
        BadStrings,
        testing::Values(
                BadString{
                        "IVFGMM64(spil=never),Flat",
                        "covariance, device, engine, estep, gpu_cache, gpu_memory, k_factor, "
                        "lambda, m, "
                        "max_iter",
                        "spil="},
                BadString{"IVFGMM64(budget=fair),Flat", "by_difficulty | even", "fair)"},
                BadString{"IVFGMM64(by_residual=1),SQ8", "true | false", "1)"},
                BadString{
                        "IVFGMM64(by_residual=true),Flat",
                        "all but Flat, SH, RaBitQ, EDEN",
                        "true)"},
                BadString{"IVFGMM64(spill=sometimes),Flat", "never | threshold(t)", "sometimes)"},
                BadString{"IVFGMM64(seed=-1),Flat", "a whole number", "-1)"},
                BadString{"IVFGMM64(seed=1.5),Flat", "a whole number", "1.5)"},
                BadString{"IVFGMM64(seed=2147483648),Flat", "below 2^31", "2147483648)"},
                BadString{"IVFGMM64(max_lists=0),Flat", "from 1", "0)"},
                BadString{"IVFGMM64(lambda=nan),Flat", "a number from 0", "nan)"},
                BadString{"IVFGMM64(lambda=),Flat", "a number from 0", ")"},
                BadString{"IVFGMM64(lambda),Flat", "a number from 0", ")"},
                BadString{"IVFGMM64(covariance=full),Flat", "tied_spherical", "full)"},
                BadString{"IVFGMM64(engine=gpu),Flat", "auto | cpu | cuda", "gpu)"},
                BadString{"IVFGMM64(sketch=300),Flat", "from 1 to 256", "300)"},
                BadString{"IVFGMM64(m=2,max_lists=3),Flat", "fit together", "m=2"},
                BadString{"IVFGMM64(seed=1,seed=2),Flat", "each key once", "seed=2"},
                BadString{"IVFGMM64(lambda=0x1),Flat", "a number from 0", "0x1)"},
                BadString{"IVFGMM64(lambda= 1),Flat", "a number from 0", " 1)"},
                BadString{"IVFGMM64(lambda=inf),Flat", "a number from 0", "inf)"},
                BadString{"IVFGMM64_HNSW8(covariance=diagonal),Flat", "flat quantizer", "covar"},
                BadString{"IVFGMM64_HNSW8(mixing=free),Flat", "flat quantizer", "mixing"},
                BadString{"IVFGMM64(),Flat", "the keys", "),"},
                BadString{"IVFGMM64(seed=1,Flat", "not closed", "(seed"},
                BadString{"IVFGMM,Flat", "number of lists", "IVFGMM"},
                BadString{"IVFGMM0,Flat", "number of lists", "IVFGMM0"},
                BadString{"IVFGMM99999999999,Flat", "number of lists", "IVFGMM9"},
                BadString{"IVFGMM64", "a codec is missing", ""},
                BadString{"IVFGMM64x,Flat", "a codec is missing", "x,"},
                BadString{"IVFGMM64,IVFGMM32,Flat", "a second IVFGMM", "IVFGMM32"},
                BadString{"IVFGMM3000000k,Flat", "more lists than there can be", "IVFGMM3"},
                BadString{"IVFGMM64_HNSW99999999999,Flat", "too many links", "_HNSW9"},
                BadString{"IVF256(IVFGMM16,Flat),Flat", "inside another component", "IVFGMM16"},
                BadString{"IVFGMM64,Nonsense", "stock factory refuses", "IVFGMM64"},
                BadString{"IVFGMM64,PQ4+4", "use PQ", "PQ4+4"},
                BadString{"IVFGMM64,FlatDedup", "the codecs Flat", "FlatDedup"},
                BadString{"IVFGMM64,PQ5", "the stock factory refuses", "IVFGMM64"},
                BadString{"IVFGMM64(storage=copies),PQ4x4fs", "stay plain", "storage"},
                BadString{"IVFGMM64(sketch=8),RQ4x4fs_Nlsq2x4", "stay plain", "sketch"}));

/// What FAISS says to a search of an index that is not trained: since 1.15, before it finds nothing.
template <class Search> std::string refusal_for_want_of_training(const Search& search) {
    try {
        search();
    } catch (const faiss::FaissException& error) {
        EXPECT_NE(error.msg.find("not trained"), std::string::npos) << error.msg;
        return error.msg;
    }
    return "";
}

/// As stock indices, whichever codec would have been asked.
TEST(Factory, IndicesThatAreNotTrainedFindNothingOrAreRefusedByFaiss) {
    constexpr int n = 3, d = 16, k = 2;
    const std::vector<float> x(n * d, 0.5f);
    std::vector<float> distances(n * k);
    std::vector<int64_t> labels(n * k);
    const std::vector<int64_t> none(n * k, -1);
    faiss::IndexFlatL2 quantizer(d);
    const faiss::IndexIVFFlat stock(&quantizer, d, 8);
    const bool stock_refuses = !refusal_for_want_of_training([&] {
                                    stock.search(n, x.data(), k, distances.data(), labels.data());
                                }).empty();
    const auto expect_nothing = [&](const auto& search, const auto& nothing_found) {
        if (refusal_for_want_of_training(search).empty()) {
            EXPECT_TRUE(nothing_found());
        } else {
            EXPECT_TRUE(stock_refuses);
        }
    };
    for (const char* text :
         {"IVFGMM8,Flat",
          "IVFGMM8(storage=copies),Flat",
          "IVFGMM8_HNSW8,Flat",
          "IVFGMM8_HNSW8,SQ8",
          "IVFGMM8,SQ8",
          "IVFGMM8,SQfp16",
          "IVFGMM8,PQ4x4",
          "IVFGMM8,RQ2x4",
          "IVFGMM8,PRQ2x2x4",
          "IVFGMM8,PQ4x4fs",
          "IDMap,IVFGMM8,SQ8"}) {
        for (const size_t nprobe : {1, 2, 8}) {
            SCOPED_TRACE(testing::Message() << text << ", nprobe " << nprobe);
            const auto index = made(text, d);
            faiss::IndexIVF& ivf = *faiss::ivflib::extract_index_ivf(index.get());
            ivf.nprobe = nprobe;
            const auto no_labels = [&] { return labels == none; };
            labels.assign(n * k, 7);
            expect_nothing(
                    [&] { index->search(n, x.data(), k, distances.data(), labels.data()); },
                    no_labels);
            if (has_code_blocks(ivf)) {
                continue;
            }
            std::vector<float> rows(n * k * d);
            labels.assign(n * k, 7);
            expect_nothing(
                    [&] {
                        ivf.search_and_reconstruct(
                                n, x.data(), k, distances.data(), labels.data(), rows.data());
                    },
                    no_labels);
            faiss::RangeSearchResult found(n);
            expect_nothing(
                    [&] { index->range_search(n, x.data(), 10, &found); },
                    [&] { return found.lims[n] == 0; });
        }
    }
}

TEST(Factory, BuiltIndicesTrainAddAndSearch) {
    constexpr int n = 2000, d = 16;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d);
    for (float& v : x) {
        v = normal(random);
    }
    for (const char* text :
         {"IVFGMM8,Flat",
          "PCA8,IVFGMM8,Flat",
          "IVFGMM8,Flat,RFlat",
          "IVFGMM8_HNSW8,Flat",
          "IVFGMM8(storage=copies,spill=threshold(1/K)),Flat",
          "IVFGMM8(sketch=none),Flat",
          "IVFGMM8,SQ8",
          "IVFGMM8,SQfp16",
          "IVFGMM8_HNSW8,SQ8,RFlat",
          "IVFGMM8(spill=fraction(0.3)),Flat",
          "IVFGMM8(covariance=diagonal,mixing=free),Flat"}) {
        for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
            SCOPED_TRACE(text);
            const auto index = made(text, d, metric);
            index->train(n, x.data());
            index->add(n, x.data());
            EXPECT_EQ(index->ntotal, n);
            faiss::ivflib::try_extract_index_ivf(index.get());
            std::vector<float> distances(10 * 5);
            std::vector<int64_t> labels(10 * 5);
            index->search(10, x.data(), 5, distances.data(), labels.data());
            for (int i = 0; i < 10; i++) {
                EXPECT_GE(labels[i * 5], 0);
                if (metric == faiss::METRIC_L2 &&
                    std::string(text).find("PCA") == std::string::npos) {
                    EXPECT_EQ(labels[i * 5], i);
                }
            }
        }
    }
}

} // namespace
} // namespace faiss_gmm
