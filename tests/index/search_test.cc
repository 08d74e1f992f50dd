// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The budgeted search: each vector at most once, what was counted is what was done, exact at nprobe
// = nlist.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "faiss_gmm/index/result_heap.h"
#include "faiss_gmm/runs/vector_ops.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1500, queries = 15, k = 10;

class Search : public testing::TestWithParam<IndexSetup> {
protected:
    /// An index over whole numbers, a quarter of them duplicates, in as many batches as asked for.
    void build(bool in_batches) {
        const IndexSetup& setup = GetParam();
        base_ = whole_rows(rows, setup.d, seed_);
        for (size_t i = 0; i < rows / 4; i++) { // some rows many times
            const size_t from = random_() % 40, to = rows / 2 + i;
            std::copy_n(base_.begin() + from * setup.d, setup.d, base_.begin() + to * setup.d);
        }
        queries_ = whole_rows(queries, setup.d, seed_ + 1);
        index_ = setup.trained(base_);
        if (in_batches) {
            add_in_batches(*index_, base_, 400, seed_ + 2);
        } else {
            index_->add(rows, base_.data());
        }
        oracle_.add(rows, base_.data());
        index_->check();
    }

    const uint64_t seed_ = test_seed();
    std::mt19937_64 random_{seed_};
    Oracle oracle_{GetParam().d, GetParam().metric};
    std::vector<float> base_, queries_;
    std::unique_ptr<CountingIndex> index_;
};

/// What stock code does where the storage is copies.
class SearchByRuns : public Search {};

TEST_P(Search, EachOnceAndCountedForEveryNprobe) {
    const IndexSetup& setup = GetParam();
    const bool copies = setup.storage == SpillStorage::copies;
    size_t from_guests = 0;
    for (const bool in_batches : {false, true}) {
        oracle_ = Oracle(setup.d, setup.metric);
        build(in_batches);
        ASSERT_EQ(index_->ntotal, static_cast<int64_t>(rows));
        index_->visit_budget = in_batches ? VisitBudget::by_difficulty : VisitBudget::even;
        for (const float expansion : {0.0f, 1.0f}) {
            index_->probe_expansion = expansion;
            for (size_t nprobe = 1; nprobe <= setup.nlist; nprobe++) {
                SCOPED_TRACE(
                        testing::Message() << "nprobe " << nprobe << ", expansion " << expansion
                                           << (in_batches ? ", in batches" : ""));
                index_->nprobe = nprobe;
                index_->log->clear();
                indexIVFGMM_stats.reset();
                faiss::indexIVF_stats.reset();
                const Results got = search(*index_, queries_, k);
                const size_t ndis = index_->log->total();
                EXPECT_GT(ndis, 0u);
                EXPECT_EQ(faiss::indexIVF_stats.ndis, ndis);
                EXPECT_EQ(faiss::indexIVF_stats.nq, queries);
                index_->log->expect_none_twice();
                if (nprobe == setup.nlist) {
                    expect_exact(oracle_, queries_, got);
                } else {
                    expect_sound(oracle_, queries_, got);
                }
                if (copies) {
                    continue;
                }
                EXPECT_EQ(indexIVFGMM_stats.ndis, ndis);
                EXPECT_EQ(indexIVFGMM_stats.nq, queries);
                const size_t budget = (nprobe * rows + setup.nlist - 1) / setup.nlist; // a query
                const double least = in_batches ? QueryDifficulty::least_share : 1,
                             most = in_batches ? QueryDifficulty::largest_share : 1;
                EXPECT_LE(
                        double(indexIVFGMM_stats.nvisited),
                        queries * (most * double(budget) + run_size - (in_batches ? 0 : 1)));
                if (expansion == 0) { // all lists of this few are probed: enough to visit
                    EXPECT_GE(
                            double(indexIVFGMM_stats.nvisited),
                            queries * (least * double(budget) - (in_batches ? 1 : 0)));
                }
                if (setup.sketch == SketchParameters::Mode::none) {
                    EXPECT_EQ(indexIVFGMM_stats.ndis, indexIVFGMM_stats.nvisited);
                }
                if (expansion == 1) {
                    for (const auto& query : index_->log->codes()) {
                        std::set<int64_t> lists;
                        for (const ScanLog::Code& code : query.second) {
                            lists.insert(code.list);
                        }
                        from_guests += std::max(lists.size(), nprobe) - nprobe;
                    }
                }
            }
        }
    }
    if (!copies &&
        setup.rule == SpillRule::always) { // a share of the vectors may be far from queries
        EXPECT_GT(from_guests, 0u) << "no guest of a probed list was compared";
    } else if (setup.rule == SpillRule::never || copies) {
        EXPECT_EQ(from_guests, 0u);
    }
}

TEST_P(Search, FloatsAreExactAtNlistWithinRounding) {
    const IndexSetup& setup = GetParam();
    const auto base = float_rows(rows, setup.d, seed_),
               asked = float_rows(queries, setup.d, seed_ + 1);
    index_ = setup.trained(base);
    add_in_batches(*index_, base, 600, seed_);
    oracle_.add(rows, base.data());
    index_->nprobe = setup.nlist;
    const Results got = search(*index_, asked, k);
    // |q| |x| bounds what rounding can do to a product that is nearly 0.
    if (setup.metric == faiss::METRIC_L2) {
        expect_exact(oracle_, asked, got, 1e-5);
    } else {
        faiss::IndexFlatIP flat(static_cast<int64_t>(setup.d));
        flat.add(rows, base.data());
        const Results expected = search(flat, asked, k);
        for (size_t i = 0; i < got.distances.size(); i++) {
            EXPECT_NEAR(
                    got.distances[i],
                    expected.distances[i],
                    1e-5 * std::abs(expected.distances[i]));
        }
    }
}

TEST_P(SearchByRuns, CodecIsToldTheDistanceToEachListsMean) {
    const IndexSetup& setup = GetParam();
    build(true);
    std::vector<float> means(setup.nlist * setup.d);
    index_->quantizer->reconstruct_n(0, static_cast<int64_t>(setup.nlist), means.data());
    for (const size_t nprobe : {size_t{2}, setup.nlist}) {
        index_->nprobe = nprobe;
        index_->log->clear();
        search(*index_, queries_, k);
        size_t told = 0;
        for (const auto& query : index_->log->list_distances()) {
            for (const auto& [list, distance] : query.second) {
                double sum = 0, norms = 0;
                for (size_t t = 0; t < setup.d; t++) {
                    const double q = query.first[t], c = means[list * setup.d + t];
                    sum += setup.metric == faiss::METRIC_L2 ? (q - c) * (q - c) : q * c;
                    norms += q * q + c * c;
                }
                ASSERT_NEAR(distance, sum, 1e-5 * norms) << "list " << list;
                told++;
            }
        }
        EXPECT_GE(told, queries);
    }
}

TEST_P(Search, PadsWhereThereIsNoMore) {
    build(false);
    const size_t many = rows + 20;
    index_->nprobe = GetParam().nlist;
    expect_exact(oracle_, queries_, search(*index_, queries_, many));
    index_->nprobe = 1;
    const Results few = search(*index_, queries_, many);
    expect_sound(oracle_, queries_, few);
    for (size_t i = 0; i < few.n; i++) {
        EXPECT_EQ(few.labels[i * many + many - 1], -1);
        EXPECT_GE(few.labels[i * many], 0);
    }
}

TEST_P(Search, ReconstructsWhatItFinds) {
    const IndexSetup& setup = GetParam();
    build(true);
    for (const size_t nprobe : {size_t{1}, size_t{5}, setup.nlist}) {
        index_->nprobe = nprobe;
        Results got(queries, k);
        std::vector<float> reconstructed(queries * k * setup.d);
        index_->search_and_reconstruct(
                queries,
                queries_.data(),
                k,
                got.distances.data(),
                got.labels.data(),
                reconstructed.data());
        const Results plain = search(*index_, queries_, k);
        expect_sound(oracle_, queries_, got);
        EXPECT_EQ(got.distances, plain.distances);
        for (size_t i = 0; i < got.labels.size(); i++) {
            if (got.labels[i] >= 0) {
                const std::vector<float> row(
                        reconstructed.begin() + i * setup.d,
                        reconstructed.begin() + (i + 1) * setup.d);
                ASSERT_EQ(row, oracle_.rows.at(got.labels[i]));
            }
        }
    }
}

TEST_P(Search, StrangeQueriesFindNothingAndHarmNobody) {
    const IndexSetup& setup = GetParam();
    build(false);
    const Results alone = search(*index_, queries_, k);
    const std::vector<float> strange{
            std::numeric_limits<float>::quiet_NaN(),
            std::numeric_limits<float>::infinity(),
            -std::numeric_limits<float>::infinity(),
            1e30f};
    for (const size_t nprobe : {size_t{1}, size_t{4}, setup.nlist}) {
        index_->nprobe = nprobe;
        const Results sound = search(*index_, queries_, k);
        for (const float value : strange) {
            SCOPED_TRACE(testing::Message() << value << ", nprobe " << nprobe);
            std::vector<float> mixed = queries_;
            // All of one row (huge: its square is infinite), and one number of another.
            std::fill_n(mixed.begin() + 3 * setup.d, setup.d, value);
            mixed[7 * setup.d + 2] = value;
            const Results got = search(*index_, mixed, k);
            for (size_t i = 0; i < queries; i++) {
                for (size_t j = 0; j < k; j++) {
                    if (i != 3 && i != 7) {
                        ASSERT_EQ(got.labels[i * k + j], sound.labels[i * k + j]) << i;
                        ASSERT_EQ(got.distances[i * k + j], sound.distances[i * k + j]) << i;
                    } else if (setup.metric == faiss::METRIC_L2) {
                        ASSERT_EQ(got.labels[i * k + j], -1) << i;
                    }
                }
            }
        }
    }
}

TEST_P(SearchByRuns, MaxCodesCapsWhatIsVisited) {
    const IndexSetup& setup = GetParam();
    build(false);
    IVFGMMSearchParameters params;
    for (const size_t nprobe : {size_t{3}, setup.nlist - 1, setup.nlist}) {
        for (const size_t max_codes : {1, 32, 100, 500}) {
            params.nprobe = nprobe;
            params.max_codes = max_codes;
            indexIVFGMM_stats.reset();
            index_->log->clear();
            expect_sound(oracle_, queries_, search(*index_, queries_, k, &params));
            const size_t budget =
                    std::min(max_codes, (nprobe * rows + setup.nlist - 1) / setup.nlist);
            EXPECT_LE(indexIVFGMM_stats.nvisited, queries * (budget + run_size - 1));
            EXPECT_GE(indexIVFGMM_stats.nvisited, queries * budget);
            EXPECT_EQ(index_->log->total(), indexIVFGMM_stats.ndis);
        }
    }
}

/// The embedded set, of vectors of length 1.
Dataset unit_vectors() {
    Dataset data = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    for (std::vector<float>* x : {&data.base, &data.query}) {
        for (size_t first = 0; first < x->size(); first += data.d) {
            float* row = x->data() + first;
            const float length = std::sqrt(dot(data.d, row, row));
            std::for_each(row, row + data.d, [&](float& v) { v /= length; });
        }
    }
    return data;
}

double visited_a_query(const IndexIVFGMMFlat& index, const std::vector<float>& asked) {
    indexIVFGMM_stats.reset();
    search(index, asked, k);
    return double(indexIVFGMM_stats.nvisited) / double(asked.size() / index.d);
}

TEST(VisitBudgets, ByDifficultyVisitAsManyOnAverage) {
    const Dataset data = unit_vectors();
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        IndexIVFGMMFlat index(data.d, 64, metric);
        index.train(static_cast<int64_t>(data.n), data.base.data());
        index.add(static_cast<int64_t>(data.n), data.base.data());
        for (const float expansion :
             {0.0f, 1.0f, 2.0f}) { // not more lists than hold the budget, too
            index.probe_expansion = expansion;
            for (const size_t nprobe : {2, 4, 32, 63}) {
                index.nprobe = nprobe;
                index.visit_budget = VisitBudget::even;
                const double even = visited_a_query(index, data.query);
                index.visit_budget = VisitBudget::by_difficulty;
                EXPECT_NEAR(visited_a_query(index, data.query), even, 0.05 * even)
                        << "metric " << metric << ", nprobe " << nprobe << ", expansion "
                        << expansion;
            }
        }
    }
}

TEST(VisitBudgets, ByDifficultyFindMore) {
    const Dataset data = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    const RecallMeasure measure = data.recall_measure(k);
    IndexIVFGMMFlat index(data.d, 64);
    index.train(static_cast<int64_t>(data.n), data.base.data());
    index.add(static_cast<int64_t>(data.n), data.base.data());
    for (const size_t nprobe : {2, 4}) {
        index.nprobe = nprobe;
        index.visit_budget = VisitBudget::even;
        const double even = measure.recall(search(index, data.query, k).labels.data());
        index.visit_budget = VisitBudget::by_difficulty;
        EXPECT_GT(measure.recall(search(index, data.query, k).labels.data()), even);
    }
}

TEST(VisitBudgets, OfInnerProductsDoNotDependOnTheQuerysLength) {
    const Dataset data = unit_vectors();
    IndexIVFGMMFlat index(data.d, 64, faiss::METRIC_INNER_PRODUCT);
    index.train(static_cast<int64_t>(data.n), data.base.data());
    index.add(static_cast<int64_t>(data.n), data.base.data());
    index.nprobe = 4;
    const double expected = visited_a_query(index, data.query);
    for (const float length : {0.01f, 3.0f, 1000.0f}) {
        std::vector<float> longer = data.query;
        std::for_each(longer.begin(), longer.end(), [&](float& v) { v *= length; });
        EXPECT_NEAR(visited_a_query(index, longer), expected, 2) << length;
    }
    EXPECT_LE(
            visited_a_query(index, std::vector<float>(data.d, 0.0f)),
            4 * double(data.n) / 64 + run_size); // no direction, no difficulty
}

TEST(VisitBudgets, OfAGraphThatFindsTooFewLists) {
    const Dataset data = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    faiss::IndexHNSWFlat graph(static_cast<int>(data.d), 4);
    graph.hnsw.efSearch = 1;
    IndexIVFGMMFlat index(&graph, data.d, 256);
    index.train(static_cast<int64_t>(data.n), data.base.data());
    index.add(static_cast<int64_t>(data.n), data.base.data());
    index.nprobe = 16;
    const double visited = visited_a_query(index, data.query);
    EXPECT_GT(visited, 0.3 * 16 * double(data.n) / 256);
    EXPECT_LT(visited, 1.3 * 16 * double(data.n) / 256);
}

TEST(VisitBudgets, OfAQueryKeepTheirBounds) {
    const Dataset data = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    constexpr size_t nlist = 64, nprobe = 4;
    IndexIVFGMMFlat index(data.d, nlist);
    index.train(static_cast<int64_t>(data.n), data.base.data());
    index.add(static_cast<int64_t>(data.n), data.base.data());
    const size_t budget = (nprobe * data.n + nlist - 1) / nlist;
    const faiss::IDSelectorRange all(0, static_cast<int64_t>(data.n));
    const auto visited = [&](size_t query, size_t max_codes, const faiss::IDSelector* selector) {
        faiss::SearchParametersIVF params;
        params.nprobe = nprobe;
        params.max_codes = max_codes;
        params.sel = const_cast<faiss::IDSelector*>(selector);
        const float* q = data.query.data() + query * data.d;
        indexIVFGMM_stats.reset();
        search(index, {q, q + data.d}, k, &params);
        return indexIVFGMM_stats.nvisited;
    };
    size_t fewer = 0, more = 0;
    for (size_t i = 0; i < 100; i++) {
        const size_t of_query = visited(i, 0, nullptr);
        EXPECT_GE(double(of_query), QueryDifficulty::least_share * double(budget) - 1);
        EXPECT_LE(double(of_query), QueryDifficulty::largest_share * double(budget) + run_size);
        fewer += of_query < budget;
        more += of_query > budget + run_size;
        const size_t capped =
                visited(i, 600, nullptr); // whatever the share, which is of the whole budget
        EXPECT_LE(capped, 600 + run_size - 1);
        EXPECT_GE(capped, std::min<size_t>(600, of_query - of_query % run_size));
        for (const size_t max_codes : {0, 500}) { // even: a selector, or too few runs
            const size_t most = max_codes == 0 ? budget : max_codes;
            const size_t even = visited(i, max_codes, max_codes == 0 ? &all : nullptr);
            EXPECT_GE(even, most);
            EXPECT_LE(even, most + run_size - 1);
        }
    }
    EXPECT_GT(fewer, 20u);
    EXPECT_GT(more, 20u);
}

TEST_P(SearchByRuns, MoreExactDistancesAndListsFindMore) {
    const IndexSetup& setup = GetParam();
    build(false);
    IVFGMMSearchParameters params;
    params.nprobe = 6;
    params.k_factor = 1;
    indexIVFGMM_stats.reset();
    const double least = recall(oracle_, queries_, search(*index_, queries_, k, &params));
    if (setup.sketch == SketchParameters::Mode::automatic) {
        EXPECT_EQ(indexIVFGMM_stats.ndis, queries * k);
    }
    params.k_factor = 100; // of everything that is visited
    const double most = recall(oracle_, queries_, search(*index_, queries_, k, &params));
    EXPECT_GE(most, least);
    EXPECT_GE(most, 0.7);
    indexIVFGMM_stats.reset();
    params.probe_expansion = 2;
    search(*index_, queries_, k, &params);
    EXPECT_EQ(indexIVFGMM_stats.nlist, queries * 12);
    params.probe_expansion = 0.5;
    indexIVFGMM_stats.reset();
    search(*index_, queries_, k, &params);
    EXPECT_EQ(indexIVFGMM_stats.nlist, queries * 3);
}

INSTANTIATE_TEST_SUITE_P(All, Search, testing::ValuesIn(all_setups()), setup_name);
TEST_P(SearchByRuns, AddsToTheCallersHeapsWhereAskedTo) {
    build(false);
    index_->nprobe = 3;
    const Results plain = search(*index_, queries_, k);
    const bool l2 = GetParam().metric == faiss::METRIC_L2;
    const int64_t better_id = 1 << 20, worse_id = 1 << 21;
    Results got(queries, k);
    for (size_t i = 0; i < queries; i++) { // one result that stays, one that gives way
        ResultHeap heap(!l2, k, got.distances.data() + i * k, got.labels.data() + i * k);
        heap.start();
        heap.push(l2 ? -1.0f : 1e30f, better_id);
        heap.push(l2 ? 1e30f : -1e30f, worse_id);
    }
    index_->parallel_mode = index_->PARALLEL_MODE_NO_HEAP_INIT;
    index_->search(queries, queries_.data(), k, got.distances.data(), got.labels.data());
    for (size_t i = 0; i < queries; i++) {
        ResultHeap(!l2, k, got.distances.data() + i * k, got.labels.data() + i * k).finish();
        ASSERT_EQ(got.labels[i * k], better_id);
        for (size_t j = 1; j < k; j++) {
            ASSERT_EQ(got.distances[i * k + j], plain.distances[i * k + j - 1]) << "query " << i;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, SearchByRuns, testing::ValuesIn(shared_setups()), setup_name);

TEST(OwnDistances, EqualTheScannersBitForBitOnWholeNumbers) {
    const uint64_t seed = test_seed();
    for (const size_t d : {1, 7, 16, 25, 70}) {
        for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
            const auto base = whole_rows(rows, d, seed), asked = whole_rows(queries, d, seed + 1);
            CountingIndex by_scanner(d, 16, metric); // a codec that is not the stock one
            IndexIVFGMMFlat own(d, 16, metric);
            ASSERT_FALSE(by_scanner.has_own_distances());
            ASSERT_TRUE(own.has_own_distances());
            for (faiss::IndexIVF* index :
                 {static_cast<faiss::IndexIVF*>(&by_scanner),
                  static_cast<faiss::IndexIVF*>(&own)}) {
                index->train(rows, base.data());
                index->add(rows, base.data());
                index->nprobe = 3;
            }
            indexIVFGMM_stats.reset();
            const Results expected = search(by_scanner, asked, k);
            const size_t ndis = indexIVFGMM_stats.ndis;
            EXPECT_EQ(by_scanner.log->total(), ndis);
            indexIVFGMM_stats.reset();
            const Results got = search(own, asked, k);
            EXPECT_EQ(indexIVFGMM_stats.ndis, ndis);
            EXPECT_EQ(got.distances, expected.distances) << "d = " << d;
            EXPECT_EQ(got.labels, expected.labels) << "d = " << d;
        }
    }
}

TEST(SearchOfNothing, AnEmptyIndexFindsNothing) {
    const IndexSetup setup;
    const auto base = whole_rows(1000, 16, 1);
    auto index = setup.trained(base);
    for (const size_t nprobe : {size_t{1}, setup.nlist}) {
        index->nprobe = nprobe;
        const Results got = search(*index, base, 2);
        EXPECT_EQ(got.labels, std::vector<int64_t>(2000, -1));
        index->add(0, base.data());
        index->compact();
        index->check();
    }
}

} // namespace
} // namespace faiss_gmm
