// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What is learnt, from what, and what happens where there is too little or another quantizer.
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t queries = 20, k = 10;

std::vector<float> means_of(const faiss::Index& quantizer) {
    std::vector<float> means(quantizer.ntotal * quantizer.d);
    quantizer.reconstruct_n(0, quantizer.ntotal, means.data());
    return means;
}

TEST(Construction, RefusesOtherMetricsAtOnce) {
    for (const auto metric :
         {faiss::METRIC_L1,
          faiss::METRIC_Linf,
          faiss::METRIC_Lp,
          faiss::METRIC_Canberra,
          faiss::METRIC_BrayCurtis,
          faiss::METRIC_JensenShannon}) {
        const std::string given = "metric " + std::to_string(static_cast<int>(metric));
        expect_four_parts(refusal([&] { IndexIVFGMMFlat(8, 4, metric); }), given);
        faiss::IndexFlat quantizer(8, metric);
        expect_four_parts(refusal([&] { IndexIVFGMMFlat(&quantizer, 8, 4, metric); }), given);
    }
    EXPECT_EQ(refusal([&] { IndexIVFGMMFlat(8, 4, faiss::METRIC_INNER_PRODUCT); }), "");
}

class AnyDimension : public testing::TestWithParam<size_t> {};

TEST_P(AnyDimension, IsExactAtNlistAndSoundBelow) {
    const size_t d = GetParam(), rows = 1200;
    const uint64_t seed = test_seed();
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        for (const size_t codes : {0, 1, 7}) { // 0: automatic
            CountingIndex index(d, 8, metric);
            if (codes > 0) {
                index.sketch.mode = SketchParameters::Mode::fixed;
                index.sketch.codes = codes;
            }
            const auto base = whole_rows(rows, d, seed), asked = whole_rows(queries, d, seed + 1);
            index.train(rows, base.data());
            add_in_batches(index, base, 500, seed);
            index.check();
            ASSERT_TRUE(index.run_lists()->has_runs());
            if (codes > 0) {
                EXPECT_TRUE(index.run_lists()->directory().sketched);
            }
            Oracle oracle(d, metric);
            oracle.add(rows, base.data());
            for (const size_t nprobe : {1, 3, 7}) {
                index.nprobe = nprobe;
                expect_sound(oracle, asked, search(index, asked, k));
            }
            index.nprobe = 8;
            expect_exact(oracle, asked, search(index, asked, k));
            index.compact();
            index.check();
        }
    }
}
INSTANTIATE_TEST_SUITE_P(All, AnyDimension, testing::Values(1, 2, 3, 5, 7, 25, 33, 70));

TEST(SmallLists, OfNoneOneAndAFewVectors) {
    const size_t d = 12, nlist = 16;
    const uint64_t seed = test_seed();
    const auto sample = whole_rows(1500, d, seed), asked = whole_rows(queries, d, seed + 1);
    for (const size_t n : {1, 2, 31, 32, 33, 65, 200}) {
        CountingIndex index(d, nlist);
        index.train(1500, sample.data());
        Oracle oracle(d, faiss::METRIC_L2);
        const auto few = whole_rows(n, d, seed + n, 2); // two centres: most lists stay empty
        for (const size_t part : {n / 2, n - n / 2}) {
            index.add(static_cast<int64_t>(part), few.data() + oracle.rows.size() * d);
            oracle.add(part, few.data() + oracle.rows.size() * d);
            index.check();
            for (const size_t nprobe : {size_t{1}, size_t{3}, nlist}) {
                index.nprobe = nprobe;
                const Results got = search(index, asked, k);
                expect_sound(oracle, asked, got);
                if (nprobe == nlist) {
                    expect_exact(oracle, asked, got);
                }
            }
        }
        size_t empty = 0;
        for (size_t l = 0; l < nlist; l++) {
            empty += index.invlists->list_size(l) == 0;
        }
        EXPECT_GT(empty, 0u);
    }
}

TEST(ShiftedData, HasTheSameRecall) {
    const size_t d = 16, nlist = 32, rows = 4000, asked_for = 300;
    const uint64_t seed = test_seed();
    const auto base = whole_rows(rows, d, seed), asked = whole_rows(asked_for, d, seed + 1);
    auto shifted_base = base, shifted_asked = asked;
    for (auto* x : {&shifted_base, &shifted_asked}) {
        for (float& v : *x) {
            v += 1000;
        }
    }
    Oracle oracle(d, faiss::METRIC_L2), shifted_oracle(d, faiss::METRIC_L2);
    oracle.add(rows, base.data());
    shifted_oracle.add(rows, shifted_base.data());
    // Around the same means, so that what is compared is not two local optima of training.
    const auto built = [&](const std::vector<float>& x) {
        auto index = std::make_unique<CountingIndex>(d, nlist);
        index->quantizer->add(nlist, x.data());
        index->train(rows, x.data());
        index->add(rows, x.data());
        index->check();
        return index;
    };
    const auto plain = built(base), shifted = built(shifted_base);
    for (const size_t nprobe : {1, 2, 4, 8}) {
        plain->nprobe = shifted->nprobe = nprobe;
        const double expected = recall(oracle, asked, search(*plain, asked, k));
        const Results got = search(*shifted, shifted_asked, k);
        expect_sound(shifted_oracle, shifted_asked, got, 1e-5);
        EXPECT_NEAR(recall(shifted_oracle, shifted_asked, got), expected, 0.005) << nprobe;
    }
}

TEST(ShiftedData, OfRealVectorsHasTheSameRecall) {
    const Dataset data = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    const RecallMeasure measure = data.recall_measure(k); // a shift moves no neighbour
    const auto recalls = [&](float shift) {
        std::vector<float> base(data.base.begin(), data.base.end());
        std::vector<float> query(data.query.begin(), data.query.end());
        for (auto* x : {&base, &query}) {
            for (float& v : *x) {
                v += shift;
            }
        }
        IndexIVFGMMFlat index(data.d, 128);
        index.train(static_cast<int64_t>(data.n), base.data());
        index.add(static_cast<int64_t>(data.n), base.data());
        index.check();
        std::vector<double> all;
        for (const size_t nprobe : {1, 2, 4, 8}) {
            index.nprobe = nprobe;
            all.push_back(measure.recall(search(index, query, k).labels.data()));
        }
        return all;
    };
    const std::vector<double> plain = recalls(0), shifted = recalls(1000);
    for (size_t i = 0; i < plain.size(); i++) {
        EXPECT_NEAR(shifted[i], plain[i], 0.005) << "nprobe " << (1 << i);
    }
}

// Rows of unequal length under inner product: EM is of their directions. Taken as they are it made one
// direction of most means (measured: the largest list 2,906 of 20,000, recall .73 to .83 where Lloyd
// steps alone have .83 to .94; of directions 503, .84 to .94).
TEST(InnerProducts, ListsAreEvenWhateverTheLengthsOfRows) {
    Dataset data = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    std::mt19937 random(1); // always the same: a few long rows are everybody's neighbours
    std::normal_distribution<float> normal;
    constexpr size_t nlist = 64;
    for (const float spread : {0.0f, 0.3f}) {
        for (size_t i = 0; i < data.n; i++) {
            const float factor = std::exp(spread * normal(random));
            for (size_t t = 0; t < data.d; t++) {
                data.base[i * data.d + t] *= factor;
            }
        }
        Oracle oracle(data.d, faiss::METRIC_INNER_PRODUCT);
        oracle.add(data.n, data.base.data());
        const std::vector<float> asked(data.query.begin(), data.query.begin() + 100 * data.d);
        std::vector<double> recalls;
        for (const size_t max_iter : {0, 6}) {
            IndexIVFGMMFlat index(data.d, nlist, faiss::METRIC_INNER_PRODUCT);
            index.training.max_iter = max_iter;
            index.train(static_cast<int64_t>(data.n), data.base.data());
            index.add(static_cast<int64_t>(data.n), data.base.data());
            index.check();
            EXPECT_LT(index.invlists->imbalance_factor(), 1.3);
            EXPECT_LT(index.mixture().covariances[0] * double(data.d), 1) << "not of directions";
            index.nprobe = 4;
            recalls.push_back(recall(oracle, asked, search(index, asked, k)));
        }
        EXPECT_GT(recalls[1], recalls[0] - 0.02) << "spread " << spread;
    }
}

// Copies go where responsibilities say, which are of directions: so do those of rows 8 times as long.
TEST(InnerProducts, CopiesDoNotDependOnTheLengthsOfRows) {
    const size_t d = 16, nlist = 16, rows = 3000;
    const auto base = float_rows(rows, d, test_seed());
    for (const SpillOrder order : {SpillOrder::responsibility, SpillOrder::air, SpillOrder::soar}) {
        std::vector<std::vector<std::set<int64_t>>> lists;
        for (const float length : {1.0f, 8.0f}) {
            IndexIVFGMMFlat index(d, nlist, faiss::METRIC_INNER_PRODUCT);
            index.spill.storage = SpillStorage::copies;
            index.spill.order = order;
            index.spill.rule = SpillRule::fraction;
            index.spill.fraction = 0.3f;
            index.train(rows, base.data());
            std::vector<float> longer = base;
            std::for_each(longer.begin(), longer.end(), [&](float& v) { v *= length; });
            index.add(rows, longer.data());
            EXPECT_NEAR(double(index.invlists->compute_ntotal()), 1.3 * rows, 0.02 * rows);
            lists.emplace_back(nlist);
            for (size_t l = 0; l < nlist; l++) {
                for (size_t i = 0; i < index.invlists->list_size(l); i++) {
                    lists.back()[l].insert(index.invlists->get_single_id(l, i));
                }
            }
        }
        EXPECT_EQ(lists[0], lists[1]) << to_string(order);
    }
}

// Means that came with the quantizer and are not of length 1 say something of lengths: rows keep theirs.
TEST(InnerProducts, GivenMeansOfAnyLengthGetTheirRows) {
    const size_t d = 16, nlist = 16, rows = 3000;
    const auto base = float_rows(rows, d, test_seed());
    IndexIVFGMMFlat learnt(d, nlist);
    learnt.train(rows, base.data());
    for (const float length : {1.0f, 30.0f}) {
        std::vector<float> means = learnt.mixture().means, x = base;
        for (auto* v : {&means, &x}) {
            std::for_each(v->begin(), v->end(), [&](float& value) { value *= length; });
        }
        IndexIVFGMMFlat index(d, nlist, faiss::METRIC_INNER_PRODUCT);
        index.quantizer->add(nlist, means.data());
        index.train(rows, x.data());
        index.add(rows, x.data());
        index.check();
        EXPECT_EQ(index.mixture().means, means);
        EXPECT_LT(index.invlists->imbalance_factor(), 4) << length; // in one list: 16
    }
}

// The engine is of the machine: an index that a GPU trained takes vectors without one, unless told not to.
TEST(Engines, AGpuThatIsMissingStopsAnAddOnlyWhereItIsAskedForByName) {
    const size_t d = 12, nlist = 8, rows = 2000;
    const auto base = float_rows(rows, d, test_seed());
    IndexIVFGMMFlat index(d, nlist);
    index.train(rows, base.data());
    index.add(rows / 2, base.data());
    index.training.device = 1000; // no machine has it
    index.training.engine = EngineKind::cuda;
    const float* rest = base.data() + rows / 2 * d;
    expect_four_parts(
            refusal([&] { index.add(rows / 2, rest); }),
            built_with_cuda() ? "" : "in a build without CUDA");
    EXPECT_EQ(index.ntotal, static_cast<int64_t>(rows) / 2);
    EXPECT_EQ(index.invlists->compute_ntotal(), rows / 2);
    index.check();
    EXPECT_EQ(index.remove_ids(faiss::IDSelectorRange(0, 900)), 900u) << "goes without one";
    EXPECT_TRUE(index.run_lists()->has_runs());
    index.training.engine = EngineKind::automatic;
    index.add(rows / 2, rest);
    index.check();
    EXPECT_EQ(index.invlists->compute_ntotal(), rows - 900);
}

TEST(TooFewVectors, LeaveAPlainIVFAndSaySoToTheCallback) {
    const size_t d = 16, nlist = 4;
    const auto few = whole_rows(170, d, 3), more = whole_rows(1000, d, 4),
               asked = whole_rows(queries, d, 5);
    for (const auto& [few_rows, with_callback] :
         {std::pair<int64_t, bool>{170, true}, {170, false}, {20, true}, {20, false}}) {
        CountingIndex index(d, nlist);
        std::vector<std::string> warnings;
        if (with_callback) {
            index.training.warning = [&](const std::string& text) { warnings.push_back(text); };
        }
        testing::internal::CaptureStderr();
        testing::internal::CaptureStdout();
        index.train(few_rows, few.data());
        index.add(1000, more.data());
        index.compact();
        EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
        EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
        if (with_callback) {
            ASSERT_FALSE(warnings.empty());
            const std::string& last = warnings.back();
            EXPECT_NE(last.find("lists stay plain"), std::string::npos) << last;
        }
        index.check();
        Oracle oracle(d, faiss::METRIC_L2);
        oracle.add(1000, more.data());
        for (const size_t nprobe : {1, 2, 4}) {
            index.nprobe = nprobe;
            const Results got = search(index, asked, k);
            expect_sound(oracle, asked, got);
            if (nprobe == 4) {
                expect_exact(oracle, asked, got);
            }
        }
    }
}

TEST(FewLists, HaveRunsToo) {
    // 64 training vectors a list would be too few for 16 runs, or for the rotation.
    for (const auto& [d, nlist] : {std::pair<size_t, size_t>{8, 1}, {8, 4}, {200, 3}}) {
        const auto base = whole_rows(2000, d, 3);
        CountingIndex index(d, nlist);
        index.training.warning = [](const std::string& text) { ADD_FAILURE() << text; };
        index.train(2000, base.data());
        EXPECT_TRUE(index.run_lists()->has_runs()) << d << ", " << nlist;
        index.add(2000, base.data());
        index.check();
        index.nprobe = nlist;
        EXPECT_EQ(search(index, {base.begin(), base.begin() + d}, 1).distances[0], 0);
    }
}

TEST(NeverTrained, IsAPlainIVFFirstAndHasRunsAfterEnoughAdds) {
    const size_t d = 16, nlist = 8;
    const uint64_t seed = test_seed();
    const auto base = whole_rows(1000, d, seed), asked = whole_rows(queries, d, seed + 1);
    const auto means = whole_rows(nlist, d, seed + 2);
    for (const bool own_kind : {true, false}) {
        for (const bool by_compact : {false, true}) {
            SCOPED_TRACE(testing::Message() << own_kind << by_compact);
            std::unique_ptr<faiss::Index> quantizer;
            if (own_kind) {
                quantizer = std::make_unique<GMMQuantizer>(d);
            } else {
                quantizer = std::make_unique<faiss::IndexFlatL2>(d);
            }
            quantizer->add(nlist, means.data());
            CountingIndex index(quantizer.get(), d, nlist);
            ASSERT_TRUE(index.is_trained);
            Oracle oracle(d, faiss::METRIC_L2);
            const auto add = [&](size_t first, size_t count) {
                index.add(static_cast<int64_t>(count), base.data() + first * d);
                oracle.add(count, base.data() + first * d);
            };
            const auto expect_whole = [&] {
                index.check();
                for (const size_t nprobe : {size_t{1}, size_t{3}, nlist}) {
                    index.nprobe = nprobe;
                    const Results got = search(index, asked, k);
                    expect_sound(oracle, asked, got);
                    if (nprobe == nlist) {
                        expect_exact(oracle, asked, got);
                    }
                }
            };
            expect_whole();
            add(0, 511); // one short of what runs are learnt from: 16 runs
            EXPECT_FALSE(index.run_lists()->has_runs());
            EXPECT_EQ(index.mixture().K, 0u);
            expect_whole();
            if (by_compact) {
                index.compact(); // may do with fewer
            } else {
                add(511, 1);
            }
            EXPECT_TRUE(index.run_lists()->has_runs());
            EXPECT_EQ(index.mixture().K, nlist);
            EXPECT_EQ(means_of(*quantizer), means) << "a filled quantizer is kept";
            EXPECT_EQ(index.mixture().means, means);
            expect_whole();
            const size_t there = oracle.rows.size();
            add(there, 1000 - there);
            expect_whole();
            size_t in_runs = 0;
            for (const ListRuns& list : index.run_lists()->directory().lists) {
                in_runs += list.covered;
            }
            EXPECT_EQ(in_runs, 1000u);
        }
    }
}

TEST(NeverTrained, LearnsFromAllRowsWhereNoLimitIsSet) {
    const size_t d = 16, nlist = 8;
    const auto base = whole_rows(1000, d, 3), means = whole_rows(nlist, d, 4);
    CountingIndex index(d, nlist);
    index.quantizer->add(nlist, means.data());
    index.is_trained = true;
    index.training.max_points_per_component = 0; // all
    index.add(1000, base.data());
    EXPECT_TRUE(index.run_lists()->has_runs());
    EXPECT_EQ(index.mixture().means, means);
    index.check();
}

TEST(FilledQuantizer, IsKeptByTrain) {
    const size_t d = 16, nlist = 8;
    const uint64_t seed = test_seed();
    const auto base = whole_rows(1000, d, seed), asked = whole_rows(queries, d, seed + 1);
    const auto means = whole_rows(nlist, d, seed + 2);
    Oracle oracle(d, faiss::METRIC_L2);
    oracle.add(1000, base.data());
    for (const bool own_kind : {true, false}) {
        std::unique_ptr<faiss::Index> quantizer;
        if (own_kind) {
            quantizer = std::make_unique<GMMQuantizer>(d);
        } else {
            quantizer = std::make_unique<faiss::IndexFlatL2>(d);
        }
        quantizer->add(nlist, means.data());
        CountingIndex index(quantizer.get(), d, nlist);
        index.train(1000, base.data());
        EXPECT_EQ(means_of(*quantizer), means);
        EXPECT_EQ(index.mixture().means, means);
        EXPECT_TRUE(index.run_lists()->has_runs());
        index.add(1000, base.data());
        index.check();
        index.nprobe = nlist;
        expect_exact(oracle, asked, search(index, asked, k));
    }
    // One that holds another number of vectors is filled anew.
    faiss::IndexFlatL2 other(d);
    other.add(3, means.data());
    CountingIndex index(&other, d, nlist);
    index.train(1000, base.data());
    EXPECT_EQ(other.ntotal, static_cast<int64_t>(nlist));
    EXPECT_EQ(means_of(other), index.mixture().means);
}

TEST(HNSWQuantizer, SearchesAndCountsAsOthers) {
    const size_t d = 16, nlist = 64, rows = 4000;
    const uint64_t seed = test_seed();
    const auto base = whole_rows(rows, d, seed, 64), asked = whole_rows(100, d, seed + 1, 64);
    Oracle oracle(d, faiss::METRIC_L2);
    oracle.add(rows, base.data());
    faiss::IndexHNSWFlat quantizer(d, 16);
    quantizer.hnsw.efSearch = 128;
    CountingIndex index(&quantizer, d, nlist), flat(d, nlist);
    for (CountingIndex* each : {&index, &flat}) {
        each->train(rows, base.data());
        each->add(rows, base.data());
        each->check();
    }
    ASSERT_EQ(quantizer.ntotal, static_cast<int64_t>(nlist));
    // The graph counts as memory: at least 2 * 16 links of 4 bytes a mean.
    EXPECT_GE(index.memory_use().quantizer, flat.memory_use().quantizer + nlist * 128);
    index.visit_budget = flat.visit_budget = VisitBudget::even; // for the count below
    for (const size_t nprobe : {1, 4, 16}) {
        index.nprobe = flat.nprobe = nprobe;
        index.log->clear();
        indexIVFGMM_stats.reset();
        const size_t graph_distances = compat::hnsw_distances();
        const Results got = search(index, asked, k);
        expect_sound(oracle, asked, got);
        index.log->expect_none_twice();
        EXPECT_EQ(index.log->total(), indexIVFGMM_stats.ndis);
        EXPECT_GT(compat::hnsw_distances(), graph_distances);
        EXPECT_LE(indexIVFGMM_stats.nvisited, 100 * (nprobe * rows / nlist + 32));
        // The graph's means are in its own statistics; ours are the homes of guests alone.
        EXPECT_LT(indexIVFGMM_stats.means, 100 * nlist);
        EXPECT_NEAR(
                recall(oracle, asked, got), recall(oracle, asked, search(flat, asked, k)), 0.02);
    }
    index.nprobe = 8;
    for (const float value : {NAN, INFINITY, 1e30f}) {
        const std::vector<float> strange(d, value);
        EXPECT_EQ(search(index, strange, 3).labels, std::vector<int64_t>(3, -1)) << value;
    }
    CountingIndex spherical(&quantizer, d, nlist);
    spherical.training.covariance = Covariance::spherical;
    expect_four_parts(
            refusal([&] { spherical.train(rows, base.data()); }),
            "a quantizer that searches by distance alone");
}

TEST(HNSWQuantizer, ScansAllListsWhereNprobeIsNlist) {
    const size_t d = 16, nlist = 128, rows = 6000;
    const uint64_t seed = test_seed();
    const auto base = whole_rows(rows, d, seed, 128), asked = whole_rows(30, d, seed + 1, 128);
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        faiss::IndexHNSWFlat quantizer(d, 3, metric); // a graph that does not find all of its nodes
        CountingIndex index(&quantizer, d, nlist, metric);
        index.train(rows, base.data());
        index.add(rows, base.data());
        Oracle oracle(d, metric);
        oracle.add(rows, base.data());
        index.nprobe = nlist;
        expect_exact(oracle, asked, search(index, asked, k));
        const float radius = static_cast<float>(oracle.sorted(asked.data())[100]);
        faiss::RangeSearchResult result(1);
        index.range_search(1, asked.data(), radius, &result);
        const std::vector<double> sorted = oracle.sorted(asked.data());
        const auto truly = std::count_if(
                sorted.begin(), sorted.end(), [&](double v) { return oracle.better(v, radius); });
        EXPECT_EQ(result.lims[1], static_cast<size_t>(truly));
    }
}

TEST(HNSWQuantizer, RowsThatAreNotFiniteAreSkipped) {
    const size_t d = 16, nlist = 32, rows = 4000;
    const uint64_t seed = test_seed();
    auto base = whole_rows(rows, d, seed);
    faiss::IndexHNSWFlat quantizer(d, 8);
    CountingIndex index(&quantizer, d, nlist);
    index.train(rows, base.data());
    base[1234 * d + 3] = NAN;
    base[17 * d] = INFINITY;
    Oracle oracle(d, faiss::METRIC_L2);
    oracle.add(rows, base.data());
    oracle.rows.erase(1234);
    oracle.rows.erase(17);
    add_in_batches(index, base, 3000, seed);
    const std::vector<float> again(base.begin() + 1230 * d, base.begin() + 1240 * d);
    index.add(10, again.data()); // a few that are appended, one of them broken
    oracle.add(10, again.data());
    oracle.rows.erase(rows + 4);
    index.check();
    index.nprobe = nlist;
    const auto asked = whole_rows(queries, d, seed + 1);
    expect_exact(oracle, asked, search(index, asked, k));
    EXPECT_EQ(index.remove_ids(faiss::IDSelectorRange(0, 100)), 99u);
    index.compact();
    index.check();
}

TEST(StoredByOthers, RowsThatAreNotFiniteDoNotSpoilRuns) {
    const size_t d = 16, nlist = 8, rows = 2000;
    auto base = whole_rows(rows, d, 3);
    IndexSetup setup;
    setup.nlist = nlist;
    const auto index = setup.trained(base);
    base[70 * d] = NAN;
    std::vector<int64_t> ids(rows);
    for (size_t i = 0; i < rows; i++) { // as a merged stock index may hold them
        ids[i] = static_cast<int64_t>(i);
        const auto* code = reinterpret_cast<const uint8_t*>(base.data() + i * d);
        index->invlists->add_entry(i % nlist, ids[i], code);
    }
    index->ntotal = rows;
    index->compact();
    index->check();
    index->add(100, base.data());
    index->check();
    index->nprobe = 2;
    EXPECT_GE(search(*index, {base.begin(), base.begin() + d}, 1).labels[0], 0);
}

TEST(CheckParameters, RefusesWhatTrainWould) {
    CountingIndex index(16, 8);
    EXPECT_EQ(refusal([&] { index.check_parameters(); }), "");
    const auto refused = [](auto change, const std::string& given) {
        CountingIndex changed(16, 8);
        change(changed);
        expect_four_parts(refusal([&] { changed.check_parameters(); }), given);
        const auto base = whole_rows(1000, 16, 1);
        expect_four_parts(refusal([&] { changed.train(1000, base.data()); }), given);
    };
    refused([](CountingIndex& i) { i.training.reg_covar = -1; }, "reg_covar");
    refused([](CountingIndex& i) { i.training.tol = NAN; }, "tol");
    refused([](CountingIndex& i) { i.training.n_init = 0; }, "n_init");
    refused([](CountingIndex& i) { i.spill.max_lists = 0; }, "max_lists");
    refused(
            [](CountingIndex& i) {
                i.sketch.mode = SketchParameters::Mode::fixed;
                i.sketch.codes = 257;
            },
            "sketch.codes = 257");
}

TEST(Training, RefusesCovariancesThatAreForTheMixtureAlone) {
    const auto base = whole_rows(1000, 16, 1);
    for (const auto covariance : {Covariance::tied, Covariance::full}) {
        CountingIndex index(16, 8);
        index.training.covariance = covariance;
        expect_four_parts(refusal([&] { index.train(1000, base.data()); }), "full matrices");
        EXPECT_FALSE(index.is_trained);
    }
    CountingIndex index(16, 8);
    index.spill.max_lists = 0;
    expect_four_parts(refusal([&] { index.train(1000, base.data()); }), "max_lists");
}

} // namespace
} // namespace faiss_gmm
