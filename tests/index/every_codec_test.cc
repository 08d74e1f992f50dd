// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Every codec: with all lists probed an index finds what the stock class finds over the same lists and
// codes; with few, distances are the codec's own, with the true distance to the home's mean.
#include <functional>
#include <optional>
#include <type_traits>

#include <faiss/IndexIVFPQR.h>
#include <gtest/gtest.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/index/tune.h"
#include "faiss_gmm/io/clone.h"
#include "index_fixture.h"
#include "stock_twin.h"
#include "tests/io/io_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1200, queries = 25, d = 24, nlist = 16, k = 10;
constexpr auto l2 = faiss::METRIC_L2, ip = faiss::METRIC_INNER_PRODUCT;
using Scalar = faiss::ScalarQuantizer;
using Additive = faiss::AdditiveQuantizer;
using Made = std::unique_ptr<faiss::IndexIVF>;

struct CodecSetup {
    std::string name;
    std::function<Made()> make;
    bool of_bytes = false; ///< the codec takes whole numbers from 0 to 255
};

void PrintTo(const CodecSetup& setup, std::ostream* out) {
    *out << setup.name;
}
std::string codec_name(const testing::TestParamInfo<CodecSetup>& info) {
    return info.param.name;
}

template <class Index, class... Arguments> std::function<Made()> index_of(Arguments... codec) {
    return [=] { return std::make_unique<Index>(d, nlist, codec...); };
}
/// The same with codes of the vectors themselves.
template <class Index, class... Arguments> std::function<Made()> whole(Arguments... codec) {
    return [=] {
        auto index = std::make_unique<Index>(d, nlist, codec...);
        index->by_residual = false;
        return index;
    };
}
std::function<Made()> sketched(const std::function<Made()>& make) {
    return [=] {
        Made index = make();
        dynamic_cast<IndexIVFGMM&>(*index).sketch.mode = SketchParameters::Mode::fixed;
        return index;
    };
}
std::function<Made()> without_table(faiss::MetricType metric) {
    return [=] {
        auto index = std::make_unique<IndexIVFGMMPQ>(d, nlist, 6, 4, metric);
        index->use_precomputed_table = -1;
        return index;
    };
}
/// Of codecs whose class not every FAISS has.
std::function<Made()> of_string(const std::string& codec, faiss::MetricType metric) {
    return [=] {
        const std::string text = "IVFGMM" + std::to_string(nlist) + "," + codec;
        std::unique_ptr<faiss::Index> index(faiss_gmm::index_factory(d, text.c_str(), metric));
        return Made(dynamic_cast<faiss::IndexIVF*>(index.release()));
    };
}
/// Both metrics of one, where FAISS has it.
void add_strings(bool there, const std::string& codec, std::vector<CodecSetup>& all) {
    if (there) {
        all.push_back({codec, of_string(codec, l2)});
        all.push_back({codec + "_ip", of_string(codec, ip)});
    }
}
std::function<Made()> hurried(const std::function<Made()>& make) {
    return [=] {
        Made index = make();
        hurry_codec(*index);
        return index;
    };
}
Made polysemous() {
    auto index = std::make_unique<IndexIVFGMMPQ>(d, nlist, 4, 8);
    index->do_polysemous_training = true;
    hurry_codec(*index);
    index->polysemous_ht = 14;
    return index;
}

/// Rows, queries, and an index that holds the rows.
struct Filled {
    explicit Filled(const CodecSetup& setup) : index(setup.make()) {
        if (setup.of_bytes) {
            for (std::vector<float>* x : {&base, &queries_x}) {
                for (float& v : *x) {
                    v = std::clamp(std::round(128 + 60 * v), 0.0f, 255.0f);
                }
            }
        }
        index->train(rows, base.data());
        add_in_batches(*index, base, 500, seed);
    }

    const uint64_t seed = test_seed();
    std::vector<float> base = float_rows(rows, d, seed);
    std::vector<float> queries_x = float_rows(queries, d, seed + 1);
    Made index;
};
/// Made once in a process, for all tests of a codec: training is what takes time.
const Filled& filled_once(const CodecSetup& setup) {
    static std::map<std::string, std::unique_ptr<Filled>> all;
    std::unique_ptr<Filled>& filled = all[setup.name];
    if (!filled) {
        filled = std::make_unique<Filled>(setup);
    }
    return *filled;
}

/// Each test has a clone of the index.
class EveryCodec : public testing::TestWithParam<CodecSetup> {
protected:
    void SetUp() override {
        ours_ = dynamic_cast<IndexIVFGMM*>(index_.get());
        twin_ = stock_twin(*index_);
        twin_->nprobe = nlist;
    }
    /// A row of contrib/support_table.py.
    void record() {
        RecordProperty("codec", GetParam().name);
        RecordProperty("metric", index_->metric_type == l2 ? "L2" : "IP");
        RecordProperty("lists", kind_of_lists(*ours_));
    }
    Results searched(size_t nprobe, const faiss::IDSelector* selector = nullptr) {
        faiss::SearchParametersIVF params;
        params.nprobe = nprobe;
        params.sel = const_cast<faiss::IDSelector*>(selector);
        return search(*index_, queries_, k, &params);
    }

    const Filled& filled_ = filled_once(GetParam());
    const std::vector<float>& base_ = filled_.base;
    const std::vector<float>& queries_ = filled_.queries_x;
    Made index_{dynamic_cast<faiss::IndexIVF*>(clone_index(*filled_.index))};
    IndexIVFGMM* ours_ = nullptr;
    Made twin_;
};

class CodecsInRuns : public EveryCodec {};

TEST_P(CodecsInRuns, AtNlistEqualTheStockClassOverTheSameLists) {
    record();
    expect_equal_up_to_ties(searched(nlist), search(*twin_, queries_, k));
}

TEST_P(CodecsInRuns, FindWhatTheStockClassFindsWithAsManyLists) {
    ASSERT_TRUE(ours_->run_lists()->has_runs());
    const Results wanted = search(*twin_, queries_, k);
    twin_->nprobe = 4;
    EXPECT_GT(
            share_found(wanted, searched(4), index_->metric_type),
            share_found(wanted, search(*twin_, queries_, k), index_->metric_type) - 0.1);
}

TEST_P(CodecsInRuns, DistancesAreTheStockScannersWithTheTrueDistanceToTheMean) {
    const Results got = searched(3);
    index_->set_direct_map_type(faiss::DirectMap::Array);
    std::unique_ptr<faiss::InvertedListScanner> scanner(
            compat::make_scanner(*index_, nullptr, nullptr));
    std::vector<float> mean(d);
    for (size_t i = 0; i < queries; i++) {
        const float* q = queries_.data() + i * d;
        scanner->set_query(q);
        std::set<int64_t> seen;
        for (size_t j = 0; j < k && got.labels[i * k + j] >= 0; j++) {
            const int64_t id = got.labels[i * k + j];
            EXPECT_TRUE(seen.insert(id).second) << "id " << id << " twice";
            const int64_t place = index_->direct_map.get(id);
            const auto list = static_cast<int64_t>(faiss::lo_listno(place));
            index_->quantizer->reconstruct(list, mean.data());
            double distance = 0;
            for (size_t t = 0; t < d; t++) {
                const double difference = static_cast<double>(q[t]) - mean[t];
                distance += index_->metric_type == l2 ? difference * difference
                                                      : static_cast<double>(q[t]) * mean[t];
            }
            scanner->set_list(list, static_cast<float>(distance));
            const float theirs = scanner->distance_to_code(
                    index_->invlists->get_single_code(list, faiss::lo_offset(place)));
            EXPECT_NEAR(got.distances[i * k + j], theirs, 1e-4 * (1 + std::abs(distance)));
        }
        EXPECT_GE(seen.size(), GetParam().name == "PQ_polysemous" ? 1 : k);
    }
}

TEST_P(CodecsInRuns, SelectorsLetPassWhatTheySelect) {
    const faiss::IDSelectorRange third(rows / 3, 2 * rows / 3);
    const Results all = search(*twin_, queries_, rows);
    // These drop by the threshold of the moment.
    const bool drops =
            GetParam().name == "PQ_polysemous" || GetParam().name.rfind("RaBitQ4", 0) == 0;
    if (!drops) {
        expect_equal_up_to_ties(searched(nlist, &third), selected(all, third, k));
    }
    const Results few = searched(3, &third);
    for (const int64_t id : few.labels) {
        EXPECT_TRUE(id < 0 || third.is_member(id)) << id;
    }
}

TEST_P(CodecsInRuns, RangeSearchAtNlistEqualsTheStockClass) {
    const float radius = search(*twin_, queries_, 40).distances[39];
    faiss::RangeSearchResult ours(queries), theirs(queries);
    index_->nprobe = nlist;
    index_->range_search(queries, queries_.data(), radius, &ours);
    twin_->range_search(queries, queries_.data(), radius, &theirs);
    EXPECT_GT(theirs.lims[queries], 0u);
    for (size_t i = 0; i < queries; i++) {
        const auto hits = hits_of(ours, i);
        EXPECT_EQ(hits, hits_of(theirs, i)) << "query " << i;
        std::set<int64_t> ids;
        for (const auto& [id, distance] : hits) {
            EXPECT_TRUE(ids.insert(id).second) << "query " << i << ": id " << id << " twice";
        }
    }
}

TEST_P(CodecsInRuns, KeepTheirRunsThroughChanges) {
    ours_->check();
    EXPECT_EQ(index_->remove_ids(faiss::IDSelectorRange(100, 400)), 300u);
    ours_->check();
    ours_->compact();
    ours_->check();
    std::vector<int64_t> ids(300);
    for (size_t i = 0; i < ids.size(); i++) {
        ids[i] = static_cast<int64_t>(100 + i);
    }
    index_->add_with_ids(300, base_.data() + 100 * d, ids.data());
    ours_->check();
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows));
    twin_->ntotal = index_->ntotal;
    expect_equal_up_to_ties(searched(nlist), search(*twin_, queries_, k));
    index_->set_direct_map_type(faiss::DirectMap::Array);
    std::vector<int64_t> changed = {5, 77, 1100};
    index_->update_vectors(3, changed.data(), base_.data());
    ours_->check();
    expect_equal_up_to_ties(searched(nlist), search(*twin_, queries_, k));
}

/// What is stored keeps its list and its code, whatever it means now: as in the stock class.
TEST_P(CodecsInRuns, TrainedAgainWhileFilledSketchesWhatTheNewCodecDecodes) {
    const std::vector<float> others = GetParam().of_bytes ? base_ : float_rows(rows, d, 4321);
    index_->train(rows, others.data());
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows));
    ours_->check(); // summaries and sketches are those of decoded codes
    twin_ = stock_twin(*index_);
    twin_->nprobe = nlist;
    expect_equal_up_to_ties(searched(nlist), search(*twin_, queries_, k));
}

TEST_P(CodecsInRuns, ReconstructNearerThanTheMeanOfTheList) {
    index_->make_direct_map();
    std::vector<float> x(d), mean(d);
    double left_by_codec = 0, left_by_mean = 0;
    for (int64_t id = 0; id < static_cast<int64_t>(rows); id += 7) {
        index_->reconstruct(id, x.data());
        index_->quantizer->reconstruct(
                static_cast<int64_t>(faiss::lo_listno(index_->direct_map.get(id))), mean.data());
        for (size_t t = 0; t < d; t++) {
            left_by_codec += std::pow(base_[id * d + t] - x[t], 2);
            left_by_mean += std::pow(base_[id * d + t] - mean[t], 2);
        }
    }
    EXPECT_LT(left_by_codec, 0.9 * left_by_mean);
    Results found(queries, k);
    std::vector<float> reconstructed(queries * k * d);
    index_->nprobe = 3;
    index_->search_and_reconstruct(
            queries,
            queries_.data(),
            k,
            found.distances.data(),
            found.labels.data(),
            reconstructed.data());
    for (size_t i = 0; i < queries * k; i++) {
        if (found.labels[i] >= 0) {
            index_->reconstruct(found.labels[i], x.data());
            EXPECT_TRUE(std::equal(x.begin(), x.end(), reconstructed.data() + i * d));
        }
    }
}

std::vector<CodecSetup> codecs_in_runs() {
    using SQ = IndexIVFGMMScalarQuantizer;
    using PQ = IndexIVFGMMPQ;
    using RQ = IndexIVFGMMResidualQuantizer;
    using LSQ = IndexIVFGMMLocalSearchQuantizer;
    using PRQ = IndexIVFGMMProductResidualQuantizer;
    using PLSQ = IndexIVFGMMProductLocalSearchQuantizer;
    const std::vector<size_t> two_sizes = {6, 4};
    std::vector<CodecSetup> all = {
            {"Flat", index_of<IndexIVFGMMFlat>(l2)},
            {"SQ8", index_of<SQ>(Scalar::QT_8bit, l2)},
            {"SQ8_ip", index_of<SQ>(Scalar::QT_8bit, ip)},
            {"SQ8_whole", index_of<SQ>(Scalar::QT_8bit, l2, false)},
            {"SQ8_uniform", index_of<SQ>(Scalar::QT_8bit_uniform, l2)},
            {"SQ8_direct", index_of<SQ>(Scalar::QT_8bit_direct, l2, false), true},
            {"SQ8_direct_ip", index_of<SQ>(Scalar::QT_8bit_direct, ip, false), true},
            {"SQ6", index_of<SQ>(Scalar::QT_6bit, l2)},
            {"SQ6_ip_whole", index_of<SQ>(Scalar::QT_6bit, ip, false)},
            {"SQ4", index_of<SQ>(Scalar::QT_4bit, l2)},
            {"SQ4_ip", index_of<SQ>(Scalar::QT_4bit, ip)},
            {"SQ4_uniform_whole", index_of<SQ>(Scalar::QT_4bit_uniform, l2, false)},
            {"SQfp16", index_of<SQ>(Scalar::QT_fp16, l2)},
            {"SQfp16_ip_whole", index_of<SQ>(Scalar::QT_fp16, ip, false)},
            {"PQ", index_of<PQ>(6, 4, l2)},
            {"PQ_sketched", sketched(index_of<PQ>(6, 4, l2))},
            {"PQ_ip", index_of<PQ>(6, 4, ip)},
            {"PQ_ip_sketched", sketched(index_of<PQ>(6, 4, ip))},
            {"PQ_8_bits", index_of<PQ>(12, 8, l2)},
            {"PQ_without_table", without_table(l2)},
            {"PQ_without_table_sketched", sketched(without_table(l2))},
            {"PQ_whole", whole<PQ>(6, 4, l2)},
            {"PQ_whole_ip", whole<PQ>(6, 4, ip)},
            {"PQ_polysemous", polysemous},
            {"RQ", index_of<RQ>(4, 4, l2)},
            {"RQ_ip", index_of<RQ>(4, 4, ip)},
            {"RQ_two_sizes", index_of<RQ>(two_sizes, l2)},
            {"RQ_norm_float", index_of<RQ>(3, 4, l2, Additive::ST_norm_float)},
            {"RQ_norm_float_sketched", sketched(index_of<RQ>(3, 4, l2, Additive::ST_norm_float))},
            {"RQ_norm_qint8", index_of<RQ>(3, 4, l2, Additive::ST_norm_qint8)},
            {"RQ_norm_rq2x4", index_of<RQ>(3, 4, l2, Additive::ST_norm_rq2x4)},
            {"RQ_tables_ip", index_of<RQ>(3, 4, ip, Additive::ST_LUT_nonorm)},
            {"RQ_whole", whole<RQ>(4, 4, l2)},
            {"RQ_whole_norm_float", whole<RQ>(4, 4, l2, Additive::ST_norm_float)},
            {"LSQ", hurried(index_of<LSQ>(3, 4, l2))},
            {"LSQ_norm_float", hurried(index_of<LSQ>(3, 4, l2, Additive::ST_norm_float))},
            {"LSQ_ip", hurried(index_of<LSQ>(3, 4, ip))},
            {"PRQ", index_of<PRQ>(2, 2, 4, l2)},
            {"PRQ_norm_qint8_sketched",
             sketched(index_of<PRQ>(2, 2, 4, l2, Additive::ST_norm_qint8))},
            {"PRQ_ip", index_of<PRQ>(2, 2, 4, ip)},
            {"PLSQ", hurried(index_of<PLSQ>(2, 2, 4, l2))},
            {"PLSQ_norm_float_whole", hurried(whole<PLSQ>(2, 2, 4, l2, Additive::ST_norm_float))},
    };
    add_strings(compat::has_bf16, "SQbf16", all);
    if (compat::has_bf16) { // what a mean leaves of bytes fits
        all.push_back({"SQ8_direct_signed", of_string("SQ8_direct_signed", l2), true});
    }
    add_strings(compat::has_turbo_quant, "SQtqmse2", all);
    add_strings(compat::has_turbo_quant, "SQtqmse8", all);
    add_strings(compat::has_turbo_quant, "SQtq2", all);
    add_strings(compat::has_turbo_quant, "SQtq5", all);
    add_strings(compat::has_rabitq, "RaBitQ", all);
    add_strings(compat::has_rabitq_bits, "RaBitQ4", all);
    add_strings(compat::has_eden, "EDEN", all);
    add_strings(compat::has_eden, "EDEN4", all);
    add_strings(compat::has_eden, "EDEN4BIASED", all);
    return all;
}

INSTANTIATE_TEST_SUITE_P(All, CodecsInRuns, testing::ValuesIn(codecs_in_runs()), codec_name);

class CodecsInPlainLists : public EveryCodec {};

TEST_P(CodecsInPlainLists, AreSearchedByTheStockClass) {
    record();
    EXPECT_EQ(ours_->run_lists() == nullptr, has_code_blocks(*index_));
    EXPECT_FALSE(!has_code_blocks(*index_) && ours_->run_lists()->has_runs());
    EXPECT_EQ(ours_->mixture().K, nlist);
    EXPECT_EQ(ours_->mixture().means.size(), nlist * d);
    EXPECT_FALSE(ours_->stores_copies());
    ours_->compact();
    ours_->check();
    for (const size_t nprobe : {size_t{1}, size_t{4}, nlist}) {
        index_->nprobe = twin_->nprobe = nprobe;
        const Results ours = search(*index_, queries_, k), theirs = search(*twin_, queries_, k);
        EXPECT_EQ(ours.labels, theirs.labels);
        EXPECT_EQ(ours.distances, theirs.distances);
    }
}

TEST_P(CodecsInPlainLists, VectorsStandWhereTheMixturePutsThem) {
    std::vector<int64_t> homes(rows);
    index_->quantizer->assign(rows, base_.data(), homes.data());
    for (size_t l = 0; l < nlist; l++) {
        const faiss::InvertedLists::ScopedIds ids(index_->invlists, l);
        for (size_t i = 0; i < index_->invlists->list_size(l); i++) {
            EXPECT_EQ(homes[ids[i]], static_cast<int64_t>(l));
        }
    }
}

TEST_P(CodecsInPlainLists, TakeNeitherCopiesNorSketches) {
    ours_->spill.storage = SpillStorage::copies;
    expect_four_parts(refusal([&] { index_->train(rows, base_.data()); }), "storage=copies");
    ours_->spill.storage = SpillStorage::shared;
    ours_->sketch.mode = SketchParameters::Mode::fixed;
    expect_four_parts(refusal([&] { ours_->check_parameters(); }), "sketches");
}

TEST_P(CodecsInPlainLists, AreNotTuned) {
    expect_four_parts(
            refusal([&] { tune(*ours_, queries, queries_.data(), TuningParameters()); }),
            "lists stay plain");
    expect_four_parts(refusal([&] { tune(*ours_, TuningParameters()); }), "lists stay plain");
}

TEST_P(CodecsInPlainLists, EmptyAndFillAgain) {
    index_->reset();
    EXPECT_EQ(index_->ntotal, 0);
    index_->add(rows, base_.data());
    index_->nprobe = 4;
    const Results got = search(*index_, queries_, k);
    EXPECT_GE(*std::min_element(got.labels.begin(), got.labels.end()), 0);
}

TEST_P(CodecsInPlainLists, AnswerToAStockIndexAsToOurs) {
    size_t heard = 0;
    set_stock_search_warning([&](const std::string&) { heard++; });
    const std::unique_ptr<faiss::Index> stock = from_stock_bytes(stock_bytes(*index_));
    EXPECT_EQ(dynamic_cast<IndexIVFGMM*>(stock.get()), nullptr);
    dynamic_cast<faiss::IndexIVF&>(*stock).nprobe = index_->nprobe = 4;
    const Results theirs = search(*stock, queries_, k), ours = search(*index_, queries_, k);
    set_stock_search_warning(nullptr);
    EXPECT_EQ(theirs.labels, ours.labels);
    EXPECT_EQ(theirs.distances, ours.distances);
    EXPECT_EQ(heard, 0u) << "nothing is lost";
}

TEST_P(CodecsInPlainLists, ChangeAsAnyOtherUnlessInBlocks) {
    if (has_code_blocks(*index_)) {
        return;
    }
    const Made other = GetParam().make();
    other->train(rows, base_.data());
    index_->set_direct_map_type(faiss::DirectMap::Hashtable);
    const std::vector<int64_t> ids = {5, 700, 3};
    index_->update_vectors(3, ids.data(), base_.data());
    ours_->check();
    const std::vector<int64_t> missing = {static_cast<int64_t>(rows)};
    expect_four_parts(
            refusal([&] { index_->update_vectors(1, missing.data(), base_.data()); }),
            "not stored");
    index_->set_direct_map_type(faiss::DirectMap::NoMap);
    index_->copy_subset_to(*other, static_cast<FAISS_GMM_SUBSET_TYPE>(0), 100, 400);
    EXPECT_EQ(other->ntotal, 300);
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows));
    dynamic_cast<IndexIVFGMM&>(*other).check();
    index_->merge_from(*other, static_cast<int64_t>(rows));
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows) + 300);
    EXPECT_EQ(other->ntotal, 0);
    ours_->check();
}

/// What stock code cannot do with blocks it is not asked to do.
TEST_P(CodecsInPlainLists, BlocksAreRefusedWhereStockCodeWouldEndTheProcess) {
    if (!has_code_blocks(*index_)) {
        EXPECT_EQ(index_->remove_ids(faiss::IDSelectorRange(100, 400)), 300u);
        EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows - 300));
        return;
    }
    const std::string given = "FastScan";
    std::vector<int64_t> keys(queries, 0);
    std::vector<float> coarse(queries, 0);
    Results got(queries, k);
    std::vector<float> reconstructed(queries * k * d);
    expect_four_parts(
            refusal([&] { index_->add_core(1, base_.data(), nullptr, keys.data()); }), given);
    expect_four_parts(
            refusal([&] { index_->update_vectors(1, keys.data(), base_.data()); }), given);
    const Made empty = GetParam().make();
    expect_four_parts(refusal([&] { index_->copy_subset_to(*empty, {}, 0, 10); }), given);
    const Made in_runs = index_of<IndexIVFGMMPQ>(6, 4, l2)();
    expect_four_parts(refusal([&] { in_runs->copy_subset_to(*index_, {}, 0, 10); }), given);
    if (!compat::searches_given_blocks) {
        expect_four_parts(
                refusal([&] {
                    index_->search_preassigned(
                            queries,
                            queries_.data(),
                            k,
                            keys.data(),
                            coarse.data(),
                            got.distances.data(),
                            got.labels.data(),
                            false);
                }),
                given);
        expect_four_parts(
                refusal([&] {
                    index_->search_and_reconstruct(
                            queries,
                            queries_.data(),
                            k,
                            got.distances.data(),
                            got.labels.data(),
                            reconstructed.data());
                }),
                given);
    }
    if (!compat::removes_from_blocks) {
        expect_four_parts(
                refusal([&] { index_->remove_ids(faiss::IDSelectorRange(0, 9)); }), given);
    }
    if (!compat::merges_blocks) {
        const Made other = GetParam().make();
        expect_four_parts(refusal([&] { index_->merge_from(*other, 0); }), given);
    }
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows));
}

std::vector<CodecSetup> codecs_in_plain_lists() {
    std::vector<CodecSetup> all = {
            {"PQfs", index_of<IndexIVFGMMPQFastScan>(6, 4, l2)},
            {"PQfs_ip", index_of<IndexIVFGMMPQFastScan>(6, 4, ip)},
            {"PQfs_residual",
             [] {
                 auto index = std::make_unique<IndexIVFGMMPQFastScan>(d, nlist, 6, 4, l2, 64);
                 index->by_residual = true;
                 return index;
             }},
            {"RQfs", index_of<IndexIVFGMMResidualQuantizerFastScan>(4, 4, l2)},
            {"LSQfs_ip",
             hurried(index_of<IndexIVFGMMLocalSearchQuantizerFastScan>(
                     4, 4, ip, Additive::ST_LUT_nonorm))},
            {"PRQfs", index_of<IndexIVFGMMProductResidualQuantizerFastScan>(2, 2, 4, l2)},
            {"PLSQfs",
             hurried(index_of<IndexIVFGMMProductLocalSearchQuantizerFastScan>(2, 2, 4, l2))},
            {"SpectralHash", index_of<IndexIVFGMMSpectralHash>(32, 0.5f)},
    };
    add_strings(compat::has_turbo_quant, "SQ0", all);
    add_strings(compat::holds_rabitq_blocks, "RaBitQfs", all);
    add_strings(compat::holds_rabitq_blocks, "RaBitQfs4_64", all);
    return all;
}

INSTANTIATE_TEST_SUITE_P(
        All, CodecsInPlainLists, testing::ValuesIn(codecs_in_plain_lists()), codec_name);

/// Stock decodes the signs of such codes alone; what runs are chosen by should be all that distances read.
TEST(RaBitQ, DecodesAllBits) {
    if (!compat::holds_rabitq_blocks) {
        GTEST_SKIP() << "this FAISS has no RaBitQ of several bits in the form that is read";
    }
    for (const auto metric : {l2, ip}) {
        const std::vector<float> base = float_rows(rows, d, test_seed());
        const Made index = of_string("RaBitQ6", metric)();
        index->train(rows, base.data());
        index->add(rows, base.data());
        const Made twin = stock_twin(*index);
        std::vector<float> ours(d), stock(d);
        double left_by_ours = 0, left_by_stock = 0;
        for (size_t l = 0; l < nlist; l++) {
            const faiss::InvertedLists::ScopedIds ids(index->invlists, l);
            for (size_t i = 0; i < index->invlists->list_size(l); i++) {
                const auto list = static_cast<int64_t>(l), offset = static_cast<int64_t>(i);
                index->reconstruct_from_offset(list, offset, ours.data());
                twin->reconstruct_from_offset(list, offset, stock.data());
                for (size_t t = 0; t < d; t++) {
                    left_by_ours += std::pow(base[ids.ids[i] * d + t] - ours[t], 2);
                    left_by_stock += std::pow(base[ids.ids[i] * d + t] - stock[t], 2);
                }
            }
        }
        EXPECT_LT(left_by_ours, 0.02 * left_by_stock) << "of 6 bits a dimension";
    }
}

/// The threshold of a polysemous search among them.
TEST(PQ, HeedsItsOwnSearchParameters) {
    const Made index = polysemous();
    const std::vector<float> base = float_rows(rows, d, test_seed());
    const std::vector<float> queries_x = float_rows(queries, d, 4);
    index->train(rows, base.data());
    index->add(rows, base.data());
    const auto found = [&](size_t nprobe, int polysemous_ht) {
        faiss::IVFPQSearchParameters params;
        params.nprobe = nprobe;
        params.polysemous_ht = polysemous_ht;
        const Results got = search(*index, queries_x, k, &params);
        return std::count_if(
                got.labels.begin(), got.labels.end(), [](int64_t id) { return id >= 0; });
    };
    for (const size_t nprobe : {size_t{3}, nlist}) {
        SCOPED_TRACE(nprobe);
        if (compat::scanners_take_parameters) {
            EXPECT_LE(found(nprobe, 1), found(nprobe, 32)) << "not yet by 1.15.0's IVFPQ";
        } else {
            EXPECT_EQ(found(nprobe, 1), found(nprobe, 32)) << "of the index alone";
        }
    }
}

#if FAISS_GMM_HOLDS_RABITQ_BLOCKS
/// A query in few bits has other distances, whatever the route to the codec.
TEST(RaBitQ, HeedsItsOwnSearchParameters) {
    const std::vector<float> base = float_rows(rows, d, test_seed());
    const std::vector<float> queries_x = float_rows(queries, d, 4);
    for (const std::string string :
         {"IVFGMM8,RaBitQ",
          "IVFGMM8,RaBitQfs",
          "IVFGMM8_HNSW8,RaBitQ",
          "IVFGMM8(storage=copies),RaBitQ",
          "IVFGMM8_HNSW8(storage=copies),RaBitQ"}) {
        const bool graph = string.find("HNSW") != std::string::npos;
        const bool blocks = string.find("fs") != std::string::npos;
        const bool copies = string.find("copies") != std::string::npos;
        for (const size_t nprobe : {size_t{3}, nlist}) {
            SCOPED_TRACE(string + " " + std::to_string(nprobe));
            const Made index(dynamic_cast<faiss::IndexIVF*>(index_factory(d, string.c_str())));
            index->train(rows, base.data());
            index->add(rows, base.data());
            faiss::IVFRaBitQSearchParameters params;
            params.nprobe = nprobe;
            params.qb = 1;
            const Results coarse = search(*index, queries_x, k, &params);
            params.qb = 8;
            const Results fine = search(*index, queries_x, k, &params);
            EXPECT_NE(coarse.distances, fine.distances);
            if (!blocks) { // their range search heeds none
                const auto in_range = [&](uint8_t bits) {
                    params.qb = bits;
                    faiss::RangeSearchResult found(queries);
                    const float radius = fine.distances[k - 1];
                    index->range_search(queries, queries_x.data(), radius, &found, &params);
                    return std::vector<float>(
                            found.distances, found.distances + found.lims[queries]);
                };
                EXPECT_NE(in_range(1), in_range(8));
            }
            params.qb = 8;
            if (nprobe == nlist && !graph && !copies) { // a graph need not find all lists
                const Made twin = stock_twin(*index);
                expect_equal_up_to_ties(fine, search(*twin, queries_x, k, &params));
            }
        }
    }
}
#endif

/// Where FAISS makes indices without lists, since 1.12.
template <class Codec> std::optional<std::string> refusal_without_lists() {
    using faiss::MetricType;
    if constexpr (std::is_constructible_v<Codec, faiss::Index*, size_t, size_t, MetricType, bool>) {
        return refusal([] { IndexIVFGMMOf<Codec>(d, nlist, l2, false); });
    }
    return std::nullopt;
}
TEST(RefusedCodecs, WithoutLists) {
    const std::optional<std::string> message = refusal_without_lists<faiss::IndexIVFFlat>();
    if (!message) {
        GTEST_SKIP() << "this FAISS makes no index without lists";
    }
    expect_four_parts(*message, "own_invlists");
}

/// With a leak checker: the quantizer made for it is gone.
TEST(RefusedCodecs, ByTheStockConstructor) {
    const std::string message = refusal([] { IndexIVFGMMPQFastScan(d, nlist, 6, 8, l2); });
    EXPECT_NE(message.find("== 4"), std::string::npos) << message;
}

TEST(RefusedCodecs, SayWhyAtConstruction) {
    expect_four_parts(
            refusal([] { IndexIVFGMMOf<faiss::IndexIVFPQR>(d, nlist, 4, 4, 4, 4); }), "IVFPQR");
    expect_four_parts(
            refusal([] { IndexIVFGMMOf<faiss::IndexIVFFlatDedup>(d, nlist, l2); }), "IVFFlatDedup");
#if FAISS_GMM_HAS_PANORAMA
    expect_four_parts(
            refusal([] { IndexIVFGMMOf<faiss::IndexIVFFlatPanorama>(d, nlist, 2, l2); }),
            "IVFFlatPanorama");
#endif
}

} // namespace
} // namespace faiss_gmm
