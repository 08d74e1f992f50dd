// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Tuning: what it reports is what a search then does, targets hold on queries it has not seen, and
// nothing changes where it fails.
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <tuple>

#include <faiss/IndexHNSW.h>
#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "faiss_gmm/index/defaults.h"
#include "faiss_gmm/index/tune.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 3000, queries = 300, k = 10;
constexpr double near_ties = 1e-3; // what distances equal within rounding can change of a recall

using Fields = std::tuple<size_t, float, float>;

Fields fields_of(const IndexIVFGMM& index) {
    return {index.ivf().nprobe, index.probe_expansion, index.k_factor};
}

/// Rows around as many centres that neighbours are hard to find in few lists.
std::vector<float> spread_rows(size_t n, size_t d, uint64_t seed) {
    return float_rows(n, d, seed, 300);
}

TuningParameters target(double recall) {
    TuningParameters parameters;
    parameters.k = k;
    parameters.recall = recall;
    parameters.max_settings = 1000; // times vary where others work: more moves than usual
    return parameters;
}

bool meets(const TuningPoint& point, const TuningParameters& parameters) {
    return point.recall - parameters.standard_errors * point.standard_error >= parameters.recall;
}

class Tune : public testing::TestWithParam<IndexSetup> {
protected:
    Tune() {
        GetParam().apply(*index_);
        index_->train(rows, base_.data());
        index_->add(rows, base_.data());
        oracle_.add(rows, base_.data());
    }
    TuningReport tuned(const TuningParameters& parameters) {
        return tune(*index_, queries, queries_.data(), parameters);
    }

    const uint64_t seed_ = test_seed();
    std::vector<float> base_ = spread_rows(rows, GetParam().d, seed_);
    std::vector<float> queries_ = spread_rows(queries, GetParam().d, seed_ + 1);
    std::unique_ptr<IndexIVFGMMFlat> index_ =
            std::make_unique<IndexIVFGMMFlat>(GetParam().d, GetParam().nlist, GetParam().metric);
    Oracle oracle_{GetParam().d, GetParam().metric};
};

TEST_P(Tune, MeetsTheTargetOnQueriesItHasNotSeen) {
    const auto held_out = spread_rows(queries, GetParam().d, seed_ + 2);
    for (const double recall : {.6, .9}) {
        SCOPED_TRACE(testing::Message() << "target " << recall);
        const TuningParameters parameters = target(recall);
        const TuningReport report = tuned(parameters);
        EXPECT_TRUE(report.reached);
        EXPECT_TRUE(report.complete);
        EXPECT_EQ(report.nq, queries);
        EXPECT_GE(report.total_s, report.truth_s);
        EXPECT_TRUE(meets(report.chosen, parameters));
        EXPECT_GT(report.chosen.us, 0);
        // Two samples of queries differ by 1.4 standard errors.
        EXPECT_GE(
                faiss_gmm::recall(oracle_, held_out, search(*index_, held_out, k)),
                recall - 4 * report.chosen.standard_error);
    }
}

TEST_P(Tune, ReportsWhatASearchWithTheFieldsDoes) {
    const TuningReport report = tuned(target(.8));
    EXPECT_EQ(index_->nprobe, report.chosen.nprobe);
    indexIVFGMM_stats.reset();
    const Results got = search(*index_, queries_, k);
    EXPECT_NEAR(faiss_gmm::recall(oracle_, queries_, got), report.chosen.recall, near_ties);
    EXPECT_EQ(double(indexIVFGMM_stats.ndis) / queries, report.chosen.ndis);
    EXPECT_EQ(double(indexIVFGMM_stats.nscored) / queries, report.chosen.nscored);
    EXPECT_EQ(double(indexIVFGMM_stats.nvisited) / queries, report.chosen.nvisited);
    const bool by_runs = GetParam().storage == SpillStorage::shared;
    if (by_runs && report.chosen.nprobe < index_->nlist) {
        EXPECT_EQ(indexIVFGMM_stats.nlist, queries * report.chosen.lists);
    } else {
        EXPECT_EQ(report.chosen.lists, 0u);
    }
    const bool sketched = by_runs && GetParam().sketch != SketchParameters::Mode::none;
    for (const TuningPoint& point : report.points) {
        EXPECT_EQ(point.k_factor > 0, sketched && point.nprobe < index_->nlist);
    }
}

TEST_P(Tune, ChoosesWhatNothingMeasuredBeatsInEveryCount) {
    const TuningParameters parameters = target(.96);
    const TuningReport report = tuned(parameters);
    const TuningPoint& chosen = report.chosen;
    size_t meeting = 0, failing = 0;
    for (const TuningPoint& point : report.points) {
        (meets(point, parameters) ? meeting : failing)++;
        EXPECT_FALSE(
                meets(point, parameters) && point.ndis < chosen.ndis &&
                point.nscored < chosen.nscored && point.nvisited < chosen.nvisited)
                << "nprobe " << point.nprobe;
    }
    EXPECT_GT(meeting, 0u);
    EXPECT_GT(failing, 0u) << "the target was met by everything: nothing was tested";
}

TEST_P(Tune, AHigherTargetNeverTakesLess) {
    std::vector<TuningPoint> chosen;
    for (const double recall : {.5, .97, 1.}) {
        const TuningReport report = tuned(target(recall));
        EXPECT_TRUE(report.reached) << recall;
        chosen.push_back(report.chosen);
    }
    EXPECT_EQ(chosen.back().recall, 1.);
    EXPECT_GT(chosen.back().nprobe, chosen.front().nprobe);
    for (size_t i = 1; i < chosen.size(); i++) {
        const TuningPoint &less = chosen[i - 1], &more = chosen[i];
        EXPECT_GE(more.recall, less.recall);
        EXPECT_FALSE(
                more.nprobe <= less.nprobe && more.lists <= less.lists &&
                more.k_factor <= less.k_factor);
    }
}

TEST_P(Tune, OnItsOwnVectorsLeavesEachOutOfItsOwnResults) {
    TuningParameters parameters = target(.8);
    parameters.sample = 2 * rows; // all there are
    const TuningReport report = tune(*index_, parameters);
    EXPECT_EQ(report.nq, rows);
    EXPECT_TRUE(report.reached);
    // The same exact distances for one result more, each vector itself.
    IVFGMMSearchParameters params;
    params.nprobe = index_->nprobe;
    params.k_factor = (k * report.chosen.k_factor + 1) / (k + 1);
    const Results got = search(*index_, base_, k + 1, &params);
    size_t hits = 0;
    for (size_t i = 0; i < rows; i++) {
        const float* q = base_.data() + i * GetParam().d;
        std::vector<double> truth = oracle_.sorted(q);
        truth.erase(std::find(truth.begin(), truth.end(), oracle_.distance(q, int64_t(i))));
        size_t kept = 0;
        for (size_t j = 0; j <= k && kept < k; j++) {
            const int64_t id = got.labels[i * (k + 1) + j];
            if (id >= 0 && id != int64_t(i)) {
                kept++;
                hits += !oracle_.better(truth[k - 1], oracle_.distance(q, id));
            }
        }
    }
    EXPECT_NEAR(double(hits) / (rows * k), report.chosen.recall, near_ties);
    EXPECT_LT(report.chosen.recall, 1);
}

TEST_P(Tune, SaysWhenTheTargetIsOutOfReachAndSetsTheBest) {
    index_->max_codes = 40;
    const TuningReport report = tuned(target(.99));
    EXPECT_FALSE(report.reached);
    EXPECT_TRUE(report.complete);
    double best = 0;
    for (const TuningPoint& point : report.points) {
        best = std::max(best, point.recall);
    }
    EXPECT_EQ(report.chosen.recall, best);
    EXPECT_LT(best, .99);
    EXPECT_NEAR(
            faiss_gmm::recall(oracle_, queries_, search(*index_, queries_, k)), best, near_ties);
    EXPECT_EQ(index_->max_codes, 40u);
}

INSTANTIATE_TEST_SUITE_P(
        Setups,
        Tune,
        testing::ValuesIn([] {
            std::vector<IndexSetup> setups;
            for (const IndexSetup& setup : all_setups()) {
                for (const char* name :
                     {"never", "never_ip", "always", "always_unsketched", "copies", "copies_ip"}) {
                    if (setup.name == name) {
                        setups.push_back(setup);
                        setups.back().nlist = 48;
                    }
                }
            }
            return setups;
        }()),
        setup_name);

/// An index that notes every setting it is searched with.
struct RecordingIndex : IndexIVFGMMFlat {
    using IndexIVFGMMFlat::IndexIVFGMMFlat;
    mutable std::set<std::tuple<size_t, float, float>> searched;

    void
    search(int64_t n,
           const float* x,
           int64_t results,
           float* distances,
           int64_t* labels,
           const faiss::SearchParameters* params = nullptr) const override {
        const auto& ours = dynamic_cast<const IVFGMMSearchParameters&>(*params);
        searched.insert({ours.nprobe, ours.probe_expansion, ours.k_factor});
        IndexIVFGMMFlat::search(n, x, results, distances, labels, params);
    }
};

class TuneOne : public testing::Test {
protected:
    TuneOne() {
        index_.train(rows, base_.data());
        index_.add(rows, base_.data());
        index_.nprobe = 3;
        index_.probe_expansion = 2.5f;
        index_.k_factor = 7;
    }
    std::string refused(const TuningParameters& parameters) {
        return refusal([&] { tune(index_, queries, queries_.data(), parameters); });
    }

    static constexpr size_t d = 16;
    const uint64_t seed_ = test_seed();
    const std::vector<float> base_ = spread_rows(rows, d, seed_);
    std::vector<float> queries_ = spread_rows(queries, d, seed_ + 1);
    RecordingIndex index_{d, 48};
    const Fields before_{3, 2.5f, 7};
};

TEST_F(TuneOne, MeasuresNoMoreSettingsThanAllowed) {
    for (const size_t most : {size_t{1}, size_t{5}, size_t{1000}}) {
        for (const double recall : {.5, .9, 1.}) {
            index_.searched.clear();
            TuningParameters parameters = target(recall);
            parameters.max_settings = most;
            size_t called = 0;
            parameters.progress = [&](const TuningPoint&) { return ++called > 0; };
            const TuningReport report = tune(index_, queries, queries_.data(), parameters);
            EXPECT_LE(report.points.size(), most);
            EXPECT_EQ(report.points.size(), index_.searched.size());
            EXPECT_EQ(report.points.size(), called);
            // It ends because it is done, or because no more are allowed.
            EXPECT_TRUE(report.complete || report.points.size() == most) << recall;
            EXPECT_TRUE(report.complete || most < 1000) << recall;
        }
    }
}

TEST_F(TuneOne, BeginsNoSettingAfterItsTime) {
    TuningParameters parameters = target(.9);
    parameters.max_seconds = 0;
    const TuningReport report = tune(index_, queries, queries_.data(), parameters);
    EXPECT_EQ(report.points.size(), 1u);
    EXPECT_FALSE(report.complete);
    EXPECT_FALSE(report.reached);
    EXPECT_EQ(index_.nprobe, report.points[0].nprobe);
}

TEST_F(TuneOne, TakesTheBestSoFarWhereTheCallbackStopsIt) {
    TuningParameters parameters = target(.6);
    size_t called = 0;
    parameters.progress = [&](const TuningPoint& point) {
        called++;
        return !meets(point, parameters);
    };
    const TuningReport report = tune(index_, queries, queries_.data(), parameters);
    EXPECT_EQ(report.points.size(), called);
    EXPECT_TRUE(report.reached);
    EXPECT_FALSE(report.complete);
    EXPECT_EQ(index_.nprobe, report.points.back().nprobe);
}

TEST_F(TuneOne, LeavesTheIndexAsItWasWhereTheCallbackThrows) {
    TuningParameters parameters = target(.9);
    size_t called = 0;
    parameters.progress = [&](const TuningPoint&) -> bool {
        if (++called == 3) {
            throw std::runtime_error("no more");
        }
        return true;
    };
    EXPECT_THROW(tune(index_, queries, queries_.data(), parameters), std::runtime_error);
    EXPECT_EQ(fields_of(index_), before_);
    EXPECT_THROW((called = 0, tune(index_, parameters)), std::runtime_error);
    EXPECT_EQ(fields_of(index_), before_);
}

/// Asks FAISS to stop at the n-th time that it is asked.
struct Interrupt : faiss::InterruptCallback {
    explicit Interrupt(size_t at) : left(at) {}
    size_t left;
    bool want_interrupt() override {
        return left == 0 || --left == 0;
    }
};

TEST_F(TuneOne, LeavesTheIndexAsItWasWhereFaissIsInterrupted) {
    for (const size_t at : {1, 4, 30}) { // during the truth; during measurements
        faiss::InterruptCallback::instance = std::make_unique<Interrupt>(at);
        EXPECT_NE(refused(target(.9)), "") << at;
        faiss::InterruptCallback::clear_instance();
        EXPECT_EQ(fields_of(index_), before_);
    }
}

TEST_F(TuneOne, RefusesWhatItCannotTuneOn) {
    for (const int64_t wrong : {0, -3}) {
        TuningParameters parameters = target(.9);
        parameters.k = wrong;
        expect_four_parts(refused(parameters), "k = ");
    }
    for (const double wrong : {0., -.1, 1.0001, double(NAN)}) {
        expect_four_parts(refused(target(wrong)), "a target recall of ");
    }
    for (const double wrong : {-1., double(NAN), double(INFINITY)}) {
        TuningParameters parameters = target(.9);
        parameters.standard_errors = wrong;
        expect_four_parts(refused(parameters), "standard_errors = ");
    }
    TuningParameters none = target(.9);
    none.sample = 0;
    expect_four_parts(refusal([&] { tune(index_, none); }), "sample = 0");
    none = target(.9);
    none.max_settings = 0;
    expect_four_parts(refused(none), "max_settings = 0");
    expect_four_parts(refusal([&] { tune(index_, 0, queries_.data(), target(.9)); }), "0 queries");
    expect_four_parts(refusal([&] { tune(index_, 5, nullptr, target(.9)); }), "0 queries");
    for (const float wrong : {NAN, INFINITY}) {
        std::vector<float> bad = queries_;
        bad[7 * d + 2] = bad[9 * d] = wrong;
        expect_four_parts(
                refusal([&] { tune(index_, queries, bad.data(), target(.9)); }), "query 7 with");
    }
    index_.parallel_mode = index_.PARALLEL_MODE_NO_HEAP_INIT;
    expect_four_parts(refused(target(.9)), "PARALLEL_MODE_NO_HEAP_INIT");
    EXPECT_EQ(fields_of(index_), before_);
    EXPECT_TRUE(index_.searched.empty());
}

TEST(TuneWithout, TrainingOrVectorsIsRefused) {
    IndexIVFGMMFlat index(16, 4);
    const auto base = spread_rows(1000, 16, 1);
    expect_four_parts(
            refusal([&] { tune(index, 10, base.data(), target(.9)); }),
            "an index that is not trained");
    index.train(1000, base.data());
    expect_four_parts(
            refusal([&] { tune(index, 10, base.data(), target(.9)); }), "an index without vectors");
    index.add(k - 1, base.data());
    expect_four_parts(
            refusal([&] { tune(index, 10, base.data(), target(.9)); }), "k = 10 and 9 vectors");
    index.add(1, base.data() + 16 * k);
    EXPECT_TRUE(tune(index, 10, base.data(), target(.9)).reached);
    expect_four_parts(refusal([&] { tune(index, target(.9)); }), "k = 10 and 10 vectors");
    index.add(1, base.data() + 16 * (k + 1));
    EXPECT_TRUE(tune(index, target(.9)).reached);
}

TEST(TuneOthers, PlainListsAGraphAndACodecThatRounds) {
    const uint64_t seed = test_seed();
    const size_t d = 16, nlist = 32;
    const auto base = spread_rows(rows, d, seed), asked = spread_rows(queries, d, seed + 1);
    IndexIVFGMMFlat few(d, 4); // too few vectors for runs
    faiss::IndexHNSWFlat graph(d, 8);
    IndexIVFGMMFlat over_graph(&graph, d, nlist);
    IndexIVFGMMScalarQuantizer rounding(d, nlist, faiss::ScalarQuantizer::QT_4bit);
    std::vector<std::pair<IndexIVFGMM*, int64_t>> all = {
            {&few, 170}, {&over_graph, rows}, {&rounding, rows}};
    for (const auto& [index, n] : all) {
        index->ivf().train(n, base.data());
        index->ivf().add(n, base.data());
        for (const double recall : {.8, 1.}) {
            const TuningReport report = tune(*index, queries, asked.data(), target(recall));
            EXPECT_TRUE(report.reached) << recall;
            EXPECT_EQ(index->ivf().nprobe, report.chosen.nprobe);
        }
    }
    EXPECT_FALSE(few.run_lists()->has_runs());
    EXPECT_TRUE(over_graph.run_lists()->has_runs());
}

/// Of the embedded set, with its own truth.
class TuneEmbedded : public testing::Test {
protected:
    RecallMeasure measure_of(size_t first, size_t n) const {
        GroundTruth truth;
        truth.nq = n;
        truth.k = data_.truth.k;
        truth.ids.assign(
                data_.truth.ids.begin() + first * truth.k,
                data_.truth.ids.begin() + (first + n) * truth.k);
        return {data_.d,
                data_.n,
                data_.base.data(),
                n,
                data_.query.data() + first * data_.d,
                truth,
                k,
                faiss::METRIC_L2};
    }
    double recall_of(const faiss::Index& index, size_t first, size_t n) const {
        std::vector<float> distances(n * k);
        std::vector<int64_t> ids(n * k);
        index.search(
                int64_t(n), data_.query.data() + first * data_.d, k, distances.data(), ids.data());
        return measure_of(first, n).recall(ids.data());
    }

    const Dataset data_ = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
};

TEST_F(TuneEmbedded, MeetsTheTargetOnTheOtherHalfOfTheQueries) {
    IndexIVFGMMFlat index(data_.d, 128);
    index.train(int64_t(data_.n), data_.base.data());
    index.add(int64_t(data_.n), data_.base.data());
    const size_t half = data_.nq / 2;
    for (const double recall : {.8, .9, .95}) {
        const TuningReport report = tune(index, int64_t(half), data_.query.data(), target(recall));
        EXPECT_TRUE(report.reached);
        EXPECT_LT(index.nprobe, index.nlist);
        EXPECT_NEAR(recall_of(index, 0, half), report.chosen.recall, 1e-9);
        EXPECT_GE(
                recall_of(index, half, data_.nq - half), recall - 3 * report.chosen.standard_error);
    }
}

} // namespace
} // namespace faiss_gmm
