// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Inside every wrapper of FAISS, and through ivflib: at nprobe = nlist brute force's results, below it sound ones,
// no id twice; selectors and statistics wherever the route takes them. What FAISS refuses is tested as refused. What
// was seen of each piece is recorded (support_record.h).
#include <numeric>

#include <faiss/IVFlib.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexShards.h>
#include <faiss/VectorTransform.h>
#include <gtest/gtest.h>

#include "faiss_gmm/compat/wrappers.h"
#include "faiss_gmm/io/clone.h"
#include "index_fixture.h"
#include "support_record.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1500, queries = 15, k = 10;
const std::string no_parameters = "search params not supported for this index";

class Wrappers : public testing::TestWithParam<IndexSetup> {
protected:
    void SetUp() override {
        base_ = whole_rows(rows, d_, seed_);
        queries_ = whole_rows(queries, d_, seed_ + 1);
        index_ = GetParam().trained(base_);
    }
    /// Ids of one's own: far from 0, in no order.
    std::vector<int64_t> odd_ids() {
        std::vector<int64_t> ids(rows);
        for (size_t i = 0; i < rows; i++) {
            ids[i] = 1000000 + 7 * static_cast<int64_t>(i);
        }
        std::shuffle(ids.begin(), ids.end(), random_);
        return ids;
    }
    void expect_right(
            const faiss::Index& wrapper,
            const std::vector<IndexIVFGMM*>& inside,
            const faiss::SearchParameters* params = nullptr) const {
        for (const size_t nprobe : {size_t{2}, GetParam().nlist}) {
            SCOPED_TRACE(testing::Message() << "nprobe " << nprobe);
            for (IndexIVFGMM* ours : inside) {
                ours->ivf().nprobe = nprobe;
            }
            indexIVFGMM_stats.reset();
            const Results got = search(wrapper, queries_, k, params);
            if (nprobe != GetParam().nlist) {
                way_ = way_of_search(*inside[0]);
            }
            if (nprobe == GetParam().nlist) {
                expect_exact(oracle_, queries_, got, 0, params == nullptr ? nullptr : params->sel);
            } else {
                expect_sound(oracle_, queries_, got, 0, params == nullptr ? nullptr : params->sel);
                EXPECT_GT(
                        std::count_if(
                                got.labels.begin(),
                                got.labels.end(),
                                [](int64_t label) { return label >= 0; }),
                        0);
            }
        }
    }
    /// All that is nearer than a radius, each once, in this very index at nprobe = nlist.
    void expect_right_range(
            const std::function<void(float, faiss::RangeSearchResult*)>& range_search,
            const faiss::IDSelector* selector = nullptr) const {
        const auto truth = oracle_.sorted(queries_.data(), selector);
        const float radius = static_cast<float>(truth[truth.size() / 2]) + 0.5f;
        faiss::RangeSearchResult result(queries);
        range_search(radius, &result);
        for (size_t i = 0; i < queries; i++) {
            const float* q = queries_.data() + i * d_;
            std::set<int64_t> seen;
            for (size_t j = result.lims[i]; j < result.lims[i + 1]; j++) {
                const int64_t id = result.labels[j];
                ASSERT_TRUE(seen.insert(id).second) << id << " twice";
                ASSERT_TRUE(selector == nullptr || selector->is_member(id));
                ASSERT_EQ(result.distances[j], oracle_.distance(q, id));
            }
            const auto all = oracle_.sorted(q, selector);
            const auto inside = std::count_if(
                    all.begin(), all.end(), [&](double v) { return oracle_.better(v, radius); });
            ASSERT_EQ(seen.size(), static_cast<size_t>(inside));
        }
    }
    /// Selectors of 1, 10 and 50 percent of the ids, of every class.
    void
    for_each_selector(const std::function<void(const faiss::IDSelector&, size_t selected)>& body) {
        std::vector<int64_t> ids;
        for (const auto& row : oracle_.rows) {
            ids.push_back(row.first);
        }
        for (const size_t share : {1, 10, 50}) {
            const size_t n = rows * share / 100;
            SCOPED_TRACE(testing::Message() << n << " selected");
            body(faiss::IDSelectorRange(ids[rows / 3], ids[rows / 3 + n]), n);
            std::vector<int64_t> some = ids;
            std::shuffle(some.begin(), some.end(), random_);
            body(faiss::IDSelectorArray(n, some.data()), n);
            body(faiss::IDSelectorBatch(n, some.data()), n);
            std::vector<uint8_t> bits(ids.back() / 8 + 1), others = bits;
            for (size_t i = 0; i < rows; i++) {
                (i < n ? bits : others)[some[i] / 8] |= 1 << some[i] % 8;
            }
            const auto end = static_cast<size_t>(ids.back() + 1);
            body(faiss::IDSelectorBitmap(end, bits.data()), n);
            const faiss::IDSelectorBitmap the_others(end, others.data());
            body(faiss::IDSelectorNot(&the_others), n);
        }
    }
    /// How the last search with few lists of expect_right() came to its results.
    void record_way(const std::string& piece) const {
        record_piece(piece, lists_asked_for(*index_), way_);
    }
    void record(const std::string& piece, const std::string& seen = "works") const {
        record_piece(piece, lists_asked_for(*index_), seen);
    }
    void record_refusal_by_faiss(
            const std::string& piece,
            const std::string& words,
            const std::function<void()>& call) const {
        const std::string message = refusal(call);
        EXPECT_NE(message.find(words), std::string::npos) << piece << ": " << message;
        record(piece, "FAISS refuses: " + words);
    }
    std::vector<std::unique_ptr<CountingIndex>> untrained(size_t n) const {
        std::vector<std::unique_ptr<CountingIndex>> indices(n);
        for (auto& index : indices) {
            index = std::make_unique<CountingIndex>(d_, GetParam().nlist, GetParam().metric);
            GetParam().apply(*index);
        }
        return indices;
    }
    void fill(faiss::Index& index) {
        oracle_ = Oracle(d_, GetParam().metric);
        add_in_batches(index, base_, 400, seed_);
        oracle_.add(rows, base_.data());
    }

    const size_t d_ = GetParam().d;
    const bool copies_ = GetParam().storage == SpillStorage::copies;
    const uint64_t seed_ = test_seed();
    std::mt19937_64 random_{seed_};
    Oracle oracle_{d_, GetParam().metric};
    std::vector<float> base_, queries_;
    std::unique_ptr<CountingIndex> index_;
    mutable std::string way_ = "never searched with few lists";
};

template <class Map> void fill_map(Map& map, const std::vector<float>& x, const int64_t* ids) {
    const size_t n = x.size() / map.d;
    for (const auto& [first, end] : {std::pair<size_t, size_t>{0, n / 3}, {n / 3, n}}) {
        map.add_with_ids(static_cast<int64_t>(end - first), x.data() + first * map.d, ids + first);
    }
}

TEST_P(Wrappers, IDMap) {
    faiss::IndexIDMap map(index_.get());
    const std::vector<int64_t> ids = odd_ids();
    fill_map(map, base_, ids.data());
    oracle_.add(rows, base_.data(), ids.data());
    EXPECT_EQ(map.ntotal, static_cast<int64_t>(rows));
    expect_right(map, {index_.get()});
    record_way("IndexIDMap");
    expect_right_range([&](float radius, faiss::RangeSearchResult* result) {
        map.range_search(queries, queries_.data(), radius, result);
    });
    record("IndexIDMap.range_search");
    for_each_selector([&](const faiss::IDSelector& selector, size_t) {
        faiss::SearchParametersIVF params;
        params.nprobe = GetParam().nlist;
        params.sel = const_cast<faiss::IDSelector*>(&selector);
        if (compat::wrappers_take_parameters) {
            expect_exact(oracle_, queries_, search(map, queries_, k, &params), 0, &selector);
            record("IndexIDMap.search_parameters");
        } else {
            record_refusal_by_faiss("IndexIDMap.search_parameters", no_parameters, [&] {
                search(map, queries_, k, &params);
            });
        }
    });
    map.reset();
    EXPECT_EQ(index_->ntotal, 0);
}

TEST_P(Wrappers, IDMap2Reconstructs) {
    faiss::IndexIDMap2 map(index_.get());
    const std::vector<int64_t> ids = odd_ids();
    index_->set_direct_map_type(faiss::DirectMap::Array);
    if (copies_) {
        const std::string message = refusal([&] { fill_map(map, base_, ids.data()); });
        expect_four_parts(message, "storage=copies");
        record("IndexIDMap2.reconstruct", "we refuse: " + reason_of(message));
        index_->set_direct_map_type(faiss::DirectMap::NoMap);
        fill_map(map, base_, ids.data());
        oracle_.add(rows, base_.data(), ids.data());
        expect_right(map, {index_.get()});
        record_way("IndexIDMap2");
        return;
    }
    fill_map(map, base_, ids.data());
    oracle_.add(rows, base_.data(), ids.data());
    expect_right(map, {index_.get()});
    record_way("IndexIDMap2");
    index_->compact();
    std::vector<float> row(d_);
    for (const auto& [id, truth] : oracle_.rows) {
        map.reconstruct(id, row.data());
        ASSERT_EQ(row, truth);
    }
    EXPECT_NE(refusal([&] { map.reconstruct(5, row.data()); }), "");
    record("IndexIDMap2.reconstruct");
}

TEST_P(Wrappers, PreTransform) {
    // Dimensions in another order: distances stay what they are.
    std::vector<int> order(d_);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    faiss::RemapDimensionsTransform remap(static_cast<int>(d_), static_cast<int>(d_), order.data());
    const auto parts = untrained(1);
    CountingIndex* ours = parts[0].get();
    faiss::IndexPreTransform wrapper(&remap, ours);
    wrapper.train(rows, base_.data());
    fill(wrapper);
    expect_right(wrapper, {ours});
    record_way("IndexPreTransform");
    ours->nprobe = GetParam().nlist;
    expect_right_range([&](float radius, faiss::RangeSearchResult* result) {
        wrapper.range_search(queries, queries_.data(), radius, result);
    });
    for_each_selector([&](const faiss::IDSelector& selector, size_t) {
        IVFGMMSearchParameters params; // ours, as they are
        params.nprobe = GetParam().nlist;
        params.sel = const_cast<faiss::IDSelector*>(&selector);
        ours->nprobe = 1; // the call's counts
        expect_exact(oracle_, queries_, search(wrapper, queries_, k, &params), 0, &selector);
        expect_right_range(
                [&](float radius, faiss::RangeSearchResult* result) {
                    wrapper.range_search(queries, queries_.data(), radius, result, &params);
                },
                &selector);
    });
    record("IndexPreTransform.range_search");
    record("IndexPreTransform.search_parameters");
    const int64_t removed =
            static_cast<int64_t>(wrapper.remove_ids(faiss::IDSelectorRange(0, rows / 2)));
    EXPECT_EQ(removed, static_cast<int64_t>(rows / 2));
    oracle_.rows.erase(oracle_.rows.begin(), oracle_.rows.lower_bound(rows / 2));
    expect_right(wrapper, {ours});
    record("IndexPreTransform.remove_ids");
    EXPECT_EQ(faiss::ivflib::extract_index_ivf(&wrapper), ours);
    Results found(1, 1);
    std::vector<float> row(d_);
    ours->nprobe = GetParam().nlist;
    wrapper.search_and_reconstruct(
            1, queries_.data(), 1, found.distances.data(), found.labels.data(), row.data());
    EXPECT_EQ(row, oracle_.rows.at(found.labels[0])) << "transformed back";
    record("IndexPreTransform.search_and_reconstruct");
}

TEST_P(Wrappers, RefineAndRefineFlat) {
    // The base's distances are exact already; what it must not do is miss or repeat.
    faiss::IndexFlat exact(static_cast<int64_t>(d_), GetParam().metric);
    faiss::IndexRefine refine(index_.get(), &exact);
    const auto second = GetParam().trained(base_);
    faiss::IndexRefineFlat refine_flat(second.get());
    const auto try_one = [&](const std::string& name,
                             faiss::IndexRefine& wrapper,
                             CountingIndex& ours) {
        fill(wrapper);
        wrapper.k_factor = 4;
        expect_right(wrapper, {&ours});
        record_way(name);
        faiss::SearchParametersIVF params;
        params.nprobe = GetParam().nlist;
        record_refusal_by_faiss(
                name + ".with_SearchParametersIVF",
                compat::wrappers_take_parameters ? "params have incorrect type" : no_parameters,
                [&] { search(wrapper, queries_, k, &params); });
#ifdef FAISS_GMM_HAS_REFINE_PARAMETERS
        faiss::IndexRefineSearchParameters outer;
        outer.k_factor = 4;
        outer.base_index_params = &params;
        ours.nprobe = 1; // the call's counts
        expect_exact(oracle_, queries_, search(wrapper, queries_, k, &outer));
        record(name + ".with_IndexRefineSearchParameters");
#endif
    };
    try_one("IndexRefine", refine, *index_);
    try_one("IndexRefineFlat", refine_flat, *second);
    std::vector<float> row(d_);
    refine.reconstruct(17, row.data());
    EXPECT_EQ(row, oracle_.rows.at(17));
    record("IndexRefine.reconstruct");
}

TEST_P(Wrappers, Shards) {
    for (const bool threaded : {false, true}) {
        for (const bool successive : {false, true}) {
            SCOPED_TRACE(testing::Message() << threaded << successive);
            std::vector<std::unique_ptr<CountingIndex>> parts;
            faiss::IndexShards shards(static_cast<int>(d_), threaded, successive);
            std::vector<IndexIVFGMM*> inside;
            for (int i = 0; i < 3; i++) {
                parts.push_back(
                        std::make_unique<CountingIndex>(d_, GetParam().nlist, GetParam().metric));
                GetParam().apply(*parts.back());
                inside.push_back(parts.back().get());
                shards.add_shard(parts.back().get());
            }
            shards.train(rows, base_.data());
            if (successive) { // stock wants all at once
                shards.add(rows, base_.data());
                oracle_ = Oracle(d_, GetParam().metric);
                oracle_.add(rows, base_.data());
            } else {
                fill(shards);
            }
            EXPECT_EQ(shards.ntotal, static_cast<int64_t>(rows));
            expect_right(shards, inside);
            record_way(
                    std::string("IndexShards") + (threaded ? ".threaded" : "") +
                    (successive ? ".successive_ids" : ""));
            for (const auto& part : parts) {
                part->check();
                EXPECT_GT(part->ntotal, static_cast<int64_t>(rows / 4));
            }
            if (!successive) {
                const std::vector<int64_t> ids = odd_ids();
                shards.reset();
                shards.add_with_ids(rows, base_.data(), ids.data());
                oracle_.rows.clear();
                oracle_.add(rows, base_.data(), ids.data());
                expect_right(shards, inside);
            }
        }
    }
}

TEST_P(Wrappers, Replicas) {
    for (const bool threaded : {false, true}) {
        const auto first = GetParam().trained(base_), second = GetParam().trained(base_);
        faiss::IndexReplicas replicas(static_cast<int>(d_), threaded);
        replicas.add_replica(first.get());
        replicas.add_replica(second.get());
        fill(replicas);
        expect_right(replicas, {first.get(), second.get()});
        record_way(threaded ? "IndexReplicas.threaded" : "IndexReplicas");
        EXPECT_GT(first->log->total(), 0u);
        EXPECT_GT(second->log->total(), 0u) << "queries are shared out";
    }
}

#ifdef FAISS_GMM_HAS_SHARDS_IVF
TEST_P(Wrappers, ShardsIVF) {
    for (const bool threaded : {false, true}) {
        faiss::IndexFlat common(static_cast<int64_t>(d_), GetParam().metric);
        faiss::IndexShardsIVF shards(&common, GetParam().nlist, threaded, false);
        const auto parts = untrained(2);
        std::vector<IndexIVFGMM*> inside;
        for (const auto& part : parts) {
            inside.push_back(part.get());
            shards.addIndex(part.get());
        }
        shards.train(rows, base_.data());
        fill(shards);
        for (const auto& part : parts) {
            part->check();
        }
        expect_right(shards, inside);
        record_way(threaded ? "IndexShardsIVF.threaded" : "IndexShardsIVF");
    }
}
#endif

#ifdef FAISS_GMM_HAS_INDEPENDENT_QUANTIZER
TEST_P(Wrappers, IndependentQuantizer) {
    faiss::IndexIVFIndependentQuantizer wrapper(index_->quantizer, index_.get());
    fill(wrapper);
    index_->check();
    expect_right(wrapper, {index_.get()});
    record_way("IndexIVFIndependentQuantizer");
}
#endif

TEST_P(Wrappers, IvflibSearches) {
    fill(*index_);
    // Stock deletes the caller's queries where the chain is empty.
    faiss::RemapDimensionsTransform same(static_cast<int>(d_), static_cast<int>(d_), true);
    faiss::IndexPreTransform wrapper(&same, index_.get());
    std::vector<int64_t> homes(queries), centroids(queries);
    index_->quantizer->assign(queries, queries_.data(), homes.data());
    faiss::ivflib::search_centroid(&wrapper, queries_.data(), queries, centroids.data());
    EXPECT_EQ(centroids, homes);
    record("ivflib::search_centroid");

    for (const size_t nprobe : {size_t{3}, GetParam().nlist}) {
        index_->nprobe = nprobe;
        Results got(queries, k);
        std::vector<int64_t> lists(queries * k);
        indexIVFGMM_stats.reset();
        faiss::ivflib::search_and_return_centroids(
                &wrapper,
                queries,
                queries_.data(),
                k,
                got.distances.data(),
                got.labels.data(),
                centroids.data(),
                lists.data());
        if (nprobe != GetParam().nlist) {
            record("ivflib::search_and_return_centroids", way_of_search(*index_));
        }
        expect_sound(oracle_, queries_, got);
        for (size_t i = 0; i < got.labels.size(); i++) {
            if (got.labels[i] < 0) {
                continue;
            }
            faiss::InvertedLists::ScopedIds ids(index_->invlists, lists[i]);
            const int64_t* end = ids.get() + index_->invlists->list_size(lists[i]);
            EXPECT_NE(std::find(ids.get(), end, got.labels[i]), end) << "in the list that it names";
        }
    }
    for_each_selector([&](const faiss::IDSelector& selector, size_t) {
        IVFGMMSearchParameters params;
        params.nprobe = GetParam().nlist;
        params.sel = const_cast<faiss::IDSelector*>(&selector);
        Results got(queries, k);
        size_t distances = 0;
        indexIVFGMM_stats.reset();
        faiss::ivflib::search_with_parameters(
                &wrapper,
                queries,
                queries_.data(),
                k,
                got.distances.data(),
                got.labels.data(),
                &params,
                &distances);
        record("ivflib::search_with_parameters", way_of_search(*index_));
        expect_exact(oracle_, queries_, got, 0, &selector);
        EXPECT_EQ(distances, queries * index_->invlists->compute_ntotal());
        // In plain lists copies come as often as they stand there.
        if (!copies_ || compat::ivflib_calls_range_search) {
            expect_right_range(
                    [&](float radius, faiss::RangeSearchResult* result) {
                        faiss::ivflib::range_search_with_parameters(
                                &wrapper, queries, queries_.data(), radius, result, &params);
                    },
                    &selector);
            record("ivflib::range_search_with_parameters");
        } else {
            record("ivflib::range_search_with_parameters",
                   "FAISS scans plain lists past us: an id comes as often as it is stored");
        }
    });
}

TEST_P(Wrappers, IvflibExtractsAndMerges) {
    fill(*index_);
    const auto other = GetParam().trained(base_);
    faiss::IndexPreTransform first(index_.get()), second(other.get());
    EXPECT_EQ(dynamic_cast<IndexIVFGMM*>(faiss::ivflib::extract_index_ivf(&first)), index_.get());
    const std::vector<float> more = whole_rows(300, d_, seed_ + 4);
    second.add(300, more.data());
    faiss::ivflib::check_compatible_for_merge(&first, &second);
    faiss::ivflib::merge_into(&first, &second, true); // ids behind ours
    oracle_.add(300, more.data());
    EXPECT_EQ(first.ntotal, static_cast<int64_t>(rows) + 300);
    index_->check();
    expect_right(first, {index_.get()});
    record("ivflib::extract_index_ivf");
    record("ivflib::merge_into");

    const std::unique_ptr<faiss::ArrayInvertedLists> some(
            faiss::ivflib::get_invlist_range(&first, 3, 7));
    for (size_t l = 0; l < 4; l++) {
        ASSERT_EQ(some->list_size(l), index_->invlists->list_size(l + 3));
        EXPECT_EQ(some->get_single_id(l, 0), index_->invlists->get_single_id(l + 3, 0));
    }
    record("ivflib::get_invlist_range");
    // Both write into the vectors of ArrayInvertedLists, past any other class: FAISS refuses.
    record_refusal_by_faiss("ivflib::set_invlist_range", "only ArrayInvertedLists supported", [&] {
        faiss::ivflib::set_invlist_range(&first, 3, 7, some.get());
    });
    record_refusal_by_faiss(
            "ivflib::SlidingIndexWindow", "only supports indexes with ArrayInvertedLists", [&] {
                faiss::ivflib::SlidingIndexWindow window(&first);
            });
    expect_right(first, {index_.get()});
}

TEST_P(Wrappers, Clones) {
    fill(*index_);
    record_refusal_by_faiss("faiss::clone_index", "clone not supported", [&] {
        delete faiss::clone_index(index_.get());
    });
    const std::unique_ptr<faiss::Index> clone(faiss_gmm::clone_index(*index_));
    expect_right(*clone, {dynamic_cast<IndexIVFGMM*>(clone.get())});
    record_way("faiss_gmm::clone_index");
}

TEST_P(Wrappers, SelectorsAtEveryLevelOfTheIndex) {
    fill(*index_);
    const size_t nlist = GetParam().nlist;
    std::vector<int64_t> keys(queries * nlist);
    std::vector<float> coarse(queries * nlist);
    index_->quantizer->search(
            queries, queries_.data(), static_cast<int64_t>(nlist), coarse.data(), keys.data());
    for_each_selector([&](const faiss::IDSelector& selector, size_t selected) {
        IVFGMMSearchParameters params;
        params.nprobe = nlist;
        params.sel = const_cast<faiss::IDSelector*>(&selector);
        expect_exact(oracle_, queries_, search(*index_, queries_, k, &params), 0, &selector);
        expect_right_range(
                [&](float radius, faiss::RangeSearchResult* result) {
                    index_->range_search(queries, queries_.data(), radius, result, &params);
                },
                &selector);
        expect_right_range(
                [&](float radius, faiss::RangeSearchResult* result) {
                    index_->range_search_preassigned(
                            queries,
                            queries_.data(),
                            radius,
                            keys.data(),
                            coarse.data(),
                            result,
                            false,
                            &params);
                },
                &selector);
        faiss::IndexIVFStats stats;
        stats.reset();
        const Results got = search_keys(*index_, queries_, k, keys, coarse, params, false, &stats);
        expect_exact(oracle_, queries_, got, 0, &selector);
        EXPECT_EQ(stats.nq, queries);
        EXPECT_EQ(stats.nlist, queries * nlist);
        if (!copies_) { // stock counts whole lists
            EXPECT_EQ(stats.ndis, queries * selected);
        }
        params.nprobe = 3;
        indexIVFGMM_stats.reset();
        expect_sound(oracle_, queries_, search(*index_, queries_, k, &params), 0, &selector);
        record("IDSelector.in_search", way_of_search(*index_));
    });
    record("IDSelector.in_range_search");
    record("IDSelector.in_search_preassigned");
    record("IDSelector.in_range_search_preassigned");
}

TEST_P(Wrappers, ParallelModesFindTheSame) {
    fill(*index_);
    for (const size_t nprobe : {size_t{3}, GetParam().nlist}) {
        index_->nprobe = nprobe;
        index_->parallel_mode = 0;
        const Results expected = search(*index_, queries_, k);
        const float radius = expected.distances[k - 1];
        const auto ranges = [&] {
            faiss::RangeSearchResult result(queries);
            index_->range_search(queries, queries_.data(), radius, &result);
            std::vector<std::set<int64_t>> ids(queries);
            for (size_t i = 0; i < queries; i++) {
                ids[i] = {result.labels + result.lims[i], result.labels + result.lims[i + 1]};
                EXPECT_EQ(ids[i].size(), result.lims[i + 1] - result.lims[i]) << "one twice";
            }
            return ids;
        };
        const auto expected_ranges = ranges();
        for (const int mode : {0, 1, 2, 3}) {
            SCOPED_TRACE(testing::Message() << "mode " << mode << ", nprobe " << nprobe);
            index_->parallel_mode = mode;
            indexIVFGMM_stats.reset();
            expect_equal_up_to_ties(search(*index_, queries_, k), expected);
            if (nprobe != GetParam().nlist) {
                record("parallel_mode." + std::to_string(mode), way_of_search(*index_));
            }
            EXPECT_EQ(ranges(), expected_ranges);
        }
    }
}

TEST_P(Wrappers, StatisticsCountWhatWasDone) {
    faiss::IndexPreTransform wrapper(index_.get());
    fill(wrapper);
    for (const size_t nprobe : {size_t{3}, GetParam().nlist}) {
        index_->nprobe = nprobe;
        const auto expect_counted = [&](const char* route, const std::function<void()>& call) {
            SCOPED_TRACE(testing::Message() << route << ", nprobe " << nprobe);
            faiss::indexIVF_stats.reset();
            indexIVFGMM_stats.reset();
            index_->log->clear();
            call();
            EXPECT_EQ(faiss::indexIVF_stats.nq, queries);
            EXPECT_EQ(indexIVFGMM_stats.nq, queries);
            EXPECT_EQ(faiss::indexIVF_stats.nlist, indexIVFGMM_stats.nlist);
            EXPECT_GE(indexIVFGMM_stats.nlist, queries * nprobe);
            EXPECT_EQ(faiss::indexIVF_stats.ndis, indexIVFGMM_stats.ndis);
            EXPECT_GE(indexIVFGMM_stats.nvisited, indexIVFGMM_stats.ndis);
            EXPECT_EQ(indexIVFGMM_stats.ndis, index_->log->total());
        };
        expect_counted("search", [&] { search(*index_, queries_, k); });
        expect_counted("wrapped search", [&] { search(wrapper, queries_, k); });
        expect_counted("range_search", [&] {
            faiss::RangeSearchResult result(queries);
            index_->range_search(queries, queries_.data(), 1, &result);
        });
        expect_counted("search_with_parameters", [&] {
            faiss::SearchParametersIVF params;
            params.nprobe = nprobe;
            Results got(queries, k);
            faiss::ivflib::search_with_parameters(
                    &wrapper,
                    queries,
                    queries_.data(),
                    k,
                    got.distances.data(),
                    got.labels.data(),
                    &params);
        });
    }
    record("indexIVF_stats");
}

std::vector<IndexSetup> wrapped_setups() {
    const std::set<std::string> chosen = {
            "never", "always_ip", "fraction_soar", "always_unsketched", "copies", "copies_ip"};
    std::vector<IndexSetup> setups = all_setups();
    setups.erase(
            std::remove_if(
                    setups.begin(),
                    setups.end(),
                    [&](const IndexSetup& setup) { return chosen.count(setup.name) == 0; }),
            setups.end());
    return setups;
}
INSTANTIATE_TEST_SUITE_P(All, Wrappers, testing::ValuesIn(wrapped_setups()), setup_name);

} // namespace
} // namespace faiss_gmm
