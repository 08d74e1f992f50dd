// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What a caller of an IVF index may get wrong, over every way to hold vectors: an error, in FAISS's words or in four
// parts, and the index as it was; never the end of the process, never a wrong answer in silence.
#include <atomic>
#include <stdexcept>

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <gtest/gtest.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/index/parameter_space.h"
#include "faiss_gmm/io/index_io.h"
#include "index_fixture.h"
#include "stock_twin.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1000, d = 16, nlist = 8, queries = 6, k = 5;
constexpr auto n = static_cast<int64_t>(rows), nq = static_cast<int64_t>(queries);

/// One way to hold vectors.
struct Kind {
    const char *name, *string;
    size_t training_rows = rows;
};
void PrintTo(const Kind& kind, std::ostream* out) {
    *out << kind.name;
}
const Kind all_kinds[] = {
        {"runs", "IVFGMM8(spill=always),Flat"},
        {"runs_over_a_graph", "IVFGMM8_HNSW8(spill=always),Flat"},
        {"runs_without_sketches", "IVFGMM8(spill=always),PQ4x4np"},
        {"runs_of_an_additive_quantizer", "IVFGMM8(spill=always),RQ2x4"},
        {"too_few_for_runs", "IVFGMM8,Flat", 100},
        {"copies", "IVFGMM8(storage=copies,spill=always),Flat"},
        {"copies_over_a_graph", "IVFGMM8_HNSW8(storage=copies,spill=always),Flat"},
        {"copies_of_an_additive_quantizer", "IVFGMM8(storage=copies,spill=always),RQ2x4"},
        {"hashes", "IVFGMM8,ITQ16,SH"},
        {"blocks", "IVFGMM8,PQ8x4fs"},
};

class Contract : public testing::TestWithParam<Kind> {
protected:
    using Made = std::unique_ptr<faiss::IndexIVF>;

    Made untrained() const {
        return Made(dynamic_cast<faiss::IndexIVF*>(
                index_factory(static_cast<int>(d), GetParam().string)));
    }
    Made trained() const {
        Made index = untrained();
        index->train(static_cast<int64_t>(GetParam().training_rows), base_.data());
        return index;
    }
    Made filled() const {
        Made index = trained();
        index->add(n, base_.data());
        return index;
    }
    static IndexIVFGMM& ours(faiss::IndexIVF& index) {
        return dynamic_cast<IndexIVFGMM&>(index);
    }
    bool in_blocks() const {
        return std::string(GetParam().name) == "blocks";
    }
    /// A search of list 0, given as often as any nprobe asks; whatever it finds.
    void search_given(
            const faiss::IndexIVF& index,
            int64_t rows,
            int64_t wanted,
            const faiss::SearchParametersIVF& params) const {
        const std::vector<int64_t> keys(queries * nlist, 0);
        const std::vector<float> coarse(queries * nlist, 0);
        std::vector<float> distances(queries * k);
        std::vector<int64_t> labels(queries * k);
        index.search_preassigned(
                rows,
                asked_.data(),
                wanted,
                keys.data(),
                coarse.data(),
                distances.data(),
                labels.data(),
                false,
                &params);
    }
    /// What is stored, and what is found of it.
    struct State {
        int64_t ntotal;
        std::vector<std::vector<int64_t>> ids;
        Results found{0, 0};
    };
    State state_of(faiss::IndexIVF& index) const {
        State state;
        state.ntotal = index.ntotal;
        for (size_t l = 0; l < nlist; l++) {
            const faiss::InvertedLists::ScopedIds ids(index.invlists, l);
            state.ids.emplace_back(ids.ids, ids.ids + index.invlists->list_size(l));
        }
        index.nprobe = 3;
        state.found = search(index, asked_, k);
        return state;
    }
    void expect_unchanged(const State& before, faiss::IndexIVF& index) const {
        ours(index).check();
        const State now = state_of(index);
        EXPECT_EQ(now.ntotal, before.ntotal);
        EXPECT_EQ(now.ids, before.ids);
        EXPECT_EQ(now.found.labels, before.found.labels);
        EXPECT_EQ(now.found.distances, before.found.distances);
    }

    const uint64_t seed_ = test_seed();
    const std::vector<float> base_ = float_rows(rows, d, seed_), asked_ = float_rows(queries, d, 4);
};

/// Fails when it is asked for the `questions`th time, whichever thread asks.
struct FailingSelector : faiss::IDSelector {
    FailingSelector(int64_t questions, std::function<void()> failure)
            : left(questions), fail(std::move(failure)) {}
    bool is_member(int64_t id) const override {
        if (left-- == 0) {
            fail();
        }
        return id % 3 == 0;
    }
    mutable std::atomic<int64_t> left;
    std::function<void()> fail;
};

/// Beyond all distances, and of use to the 16 bits of FastScan's too (1e9 finds nothing with FAISS 1.11).
constexpr float all = 1e3f;

/// Stock code asks it within a parallel region, which ends the process.
TEST_P(Contract, ASelectorThatThrowsRemovesNothing) {
    const Made index = filled();
    const State before = state_of(*index);
    const auto entries = static_cast<int64_t>(index->invlists->compute_ntotal());
    for (const int64_t question : {int64_t{0}, int64_t{1}, entries / 2, entries - 1}) {
        SCOPED_TRACE(question);
        const FailingSelector of_a_class(question, [] { throw std::runtime_error("no answer"); });
        const FailingSelector of_a_number(question, [] { throw 7; });
        if (in_blocks() && !compat::removes_from_blocks) {
            expect_four_parts(refusal([&] { index->remove_ids(of_a_class); }), "blocks");
            continue;
        }
        EXPECT_THROW(index->remove_ids(of_a_class), std::runtime_error);
        expect_unchanged(before, *index);
        EXPECT_THROW(index->remove_ids(of_a_number), int);
        expect_unchanged(before, *index);
    }
}

TEST_P(Contract, ASelectorThatThrowsEndsTheSearchAlone) {
    const Made index = filled();
    const State before = state_of(*index);
    for (const int64_t question : {0, 30}) {
        for (const size_t nprobe : {size_t{2}, nlist}) {
            FailingSelector failing(question, [] { throw std::runtime_error("no answer"); });
            faiss::SearchParametersIVF params;
            params.nprobe = nprobe;
            params.sel = &failing;
            const auto words_of = [&](const std::function<void()>& call) -> std::string {
                failing.left = question;
                try {
                    call();
                } catch (const std::exception& error) {
                    return error.what();
                }
                return "";
            };
            faiss::RangeSearchResult range(queries);
            const std::string expected =
                    in_blocks() && !compat::searches_given_blocks ? "params" : "no answer";
            EXPECT_NE(
                    words_of([&] { search(*index, asked_, k, &params); }).find(expected),
                    std::string::npos);
            if (!in_blocks() || compat::searches_given_blocks) {
                const auto by_radius = [&] {
                    index->range_search(nq, asked_.data(), all, &range, &params);
                };
                EXPECT_NE(words_of(by_radius).find(expected), std::string::npos);
            }
        }
    }
    expect_unchanged(before, *index);
}

/// Also what FAISS's loop over the queries lets pass in its parallel region, or takes for no failure.
TEST_P(Contract, WhatASelectorThrowsArrivesAsItIs) {
    if (in_blocks() && !compat::searches_given_blocks) {
        GTEST_SKIP() << "FAISS takes no parameters";
    }
    struct Silent : std::exception {
        const char* what() const noexcept override {
            return "";
        }
    };
    const Made index = filled();
    faiss::SearchParametersIVF of_faiss;
    IVFGMMSearchParameters of_ours;
    for (faiss::SearchParametersIVF* params :
         {&of_faiss, static_cast<faiss::SearchParametersIVF*>(&of_ours)}) {
        for (const size_t nprobe : {size_t{2}, nlist}) {
            SCOPED_TRACE(testing::Message() << typeid(*params).name() << ", nprobe " << nprobe);
            params->nprobe = nprobe;
            FailingSelector of_a_number(30, [] { throw 7; });
            FailingSelector silent(30, [] { throw Silent(); });
            params->sel = &of_a_number;
            EXPECT_THROW(search(*index, asked_, k, params), int);
            params->sel = &silent;
            EXPECT_THROW(search(*index, asked_, k, params), Silent);
            silent.left = 30;
            faiss::RangeSearchResult range(queries);
            EXPECT_THROW(index->range_search(nq, asked_.data(), all, &range, params), Silent);
        }
    }
}

/// Also where the codec's scanner takes none, or where it would be asked for pairs.
TEST_P(Contract, SelectorsAreHeeded) {
    const Made index = filled();
    faiss::IDSelectorRange selector(100, 300);
    faiss::SearchParametersIVF params;
    params.sel = &selector;
    for (const size_t nprobe : {size_t{3}, nlist}) {
        params.nprobe = nprobe;
        if (in_blocks() && !compat::searches_given_blocks) {
            EXPECT_NE(refusal([&] { search(*index, asked_, k, &params); }), "");
            continue;
        }
        const Results got = search(*index, asked_, k, &params);
        for (const int64_t label : got.labels) {
            EXPECT_TRUE(label == -1 || selector.is_member(label)) << label;
        }
        EXPECT_GE(got.labels[0], 0);
    }
}

TEST_P(Contract, NumbersOfRowsBelowZeroAreRefused) {
    const Made index = filled();
    const State before = state_of(*index);
    std::vector<float> distances(queries * k), decoded(queries * k * d);
    std::vector<int64_t> labels(queries * k);
    faiss::RangeSearchResult range(queries);
    const std::vector<int64_t> keys(queries, 0);
    const faiss::SearchParametersIVF params;
    const std::pair<const char*, std::function<void()>> calls[] = {
            {"train", [&] { index->train(-1, base_.data()); }},
            {"add", [&] { index->add(-1, base_.data()); }},
            {"add_with_ids", [&] { index->add_with_ids(-5, base_.data(), keys.data()); }},
            {"search",
             [&] { index->search(-1, asked_.data(), k, distances.data(), labels.data()); }},
            {"search_preassigned", [&] { search_given(*index, -1, k, params); }},
            {"range_search", [&] { index->range_search(-1, asked_.data(), 1, &range); }},
            {"search_and_reconstruct",
             [&] {
                 index->search_and_reconstruct(
                         -1, asked_.data(), k, distances.data(), labels.data(), decoded.data());
             }},
            {"update_vectors", [&] { index->update_vectors(-1, keys.data(), base_.data()); }},
            {"add_core", [&] { index->add_core(-1, base_.data(), nullptr, keys.data()); }},
    };
    for (const auto& [name, call] : calls) {
        SCOPED_TRACE(name);
        const std::string message = refusal(call);
        EXPECT_NE(message.find(": given "), std::string::npos) << message;
    }
    expect_unchanged(before, *index);
}

TEST_P(Contract, NoRowsAreNothingToDo) {
    const Made index = filled();
    const State before = state_of(*index);
    index->add(0, nullptr);
    index->search(0, nullptr, k, nullptr, nullptr);
    if (!in_blocks()) {
        faiss::RangeSearchResult range(0);
        index->range_search(0, nullptr, 1, &range);
        EXPECT_EQ(range.lims[0], 0u);
        index->search_and_reconstruct(0, nullptr, k, nullptr, nullptr, nullptr);
    }
    expect_four_parts(refusal([&] { index->train(0, nullptr); }), "0");
    expect_unchanged(before, *index);
}

TEST_P(Contract, KOfZeroOrLessIsRefused) {
    const Made index = filled();
    std::vector<float> distances(queries), decoded(queries * d);
    std::vector<int64_t> labels(queries);
    const faiss::SearchParametersIVF params;
    for (const size_t nprobe : {size_t{2}, nlist}) {
        for (const int64_t wrong : {0, -1}) {
            SCOPED_TRACE(testing::Message() << "k " << wrong << ", nprobe " << nprobe);
            index->nprobe = nprobe;
            const auto plain = [&] {
                index->search(nq, asked_.data(), wrong, distances.data(), labels.data());
            };
            EXPECT_NE(refusal(plain), "");
            EXPECT_NE(refusal([&] { search_given(*index, nq, wrong, params); }), "");
            const auto decoding = [&] {
                index->search_and_reconstruct(
                        nq, asked_.data(), wrong, distances.data(), labels.data(), decoded.data());
            };
            EXPECT_NE(refusal(decoding), "");
        }
    }
}

TEST_P(Contract, NprobeIsFromOneToNlist) {
    const Made index = filled();
    faiss::RangeSearchResult range(queries);
    faiss::SearchParametersIVF params;
    params.nprobe = 0;
    EXPECT_NE(refusal([&] { search(*index, asked_, k, &params); }), "");
    EXPECT_NE(refusal([&] { index->range_search(nq, asked_.data(), 1, &range, &params); }), "");
    EXPECT_NE(refusal([&] { search_given(*index, nq, k, params); }), "");
    index->nprobe = 0;
    EXPECT_NE(refusal([&] { search(*index, asked_, k); }), "");
    EXPECT_NE(refusal([&] { index->range_search(nq, asked_.data(), 1, &range); }), "");
    index->nprobe = nlist;
    const Results all = search(*index, asked_, k);
    index->nprobe = 1000;
    EXPECT_EQ(search(*index, asked_, k).labels, all.labels);
    if (!in_blocks()) { // given lists are then nlist a query
        params.nprobe = 1000;
        search_given(*index, nq, k, params);
    }
}

TEST_P(Contract, StrangeQueriesHarmNobody) {
    const Made index = filled();
    for (const size_t nprobe : {size_t{3}, nlist}) {
        index->nprobe = nprobe;
        const Results alone = search(*index, asked_, k);
        for (const float strange : {NAN, INFINITY, -INFINITY, 1e30f}) {
            SCOPED_TRACE(testing::Message() << strange << ", nprobe " << nprobe);
            std::vector<float> mixed = asked_;
            std::fill_n(mixed.begin() + d, d, strange);
            mixed[3 * d + 2] = strange;
            const Results got = search(*index, mixed, k);
            for (size_t i = 0; i < queries; i++) {
                for (size_t j = 0; j < k; j++) {
                    const int64_t label = got.labels[i * k + j];
                    if (i != 1 && i != 3) {
                        EXPECT_EQ(label, alone.labels[i * k + j]) << i;
                    } else if (std::isfinite(strange) || in_blocks()) {
                        EXPECT_TRUE(label >= -1 && label < n) << label;
                    } else {
                        EXPECT_EQ(label, -1) << i;
                    }
                }
            }
            if (!in_blocks()) {
                faiss::RangeSearchResult range(queries);
                index->range_search(nq, mixed.data(), 1, &range);
            }
        }
    }
}

TEST_P(Contract, ARadiusThatIsNoNumberFindsNothing) {
    if (in_blocks()) {
        GTEST_SKIP() << "FAISS's own";
    }
    const Made index = filled();
    for (const size_t nprobe : {size_t{3}, nlist}) {
        index->nprobe = nprobe;
        for (const float radius : {NAN, -INFINITY}) {
            faiss::RangeSearchResult range(queries);
            index->range_search(nq, asked_.data(), radius, &range);
            EXPECT_EQ(range.lims[queries], 0u) << radius;
        }
        faiss::RangeSearchResult range(queries);
        index->range_search(nq, asked_.data(), INFINITY, &range);
        EXPECT_GT(range.lims[queries], 0u);
        if (nprobe == nlist) {
            EXPECT_EQ(range.lims[queries], queries * rows);
        }
    }
}

TEST_P(Contract, UnknownIdsAreNotReconstructed) {
    const Made index = filled();
    std::vector<float> x(d);
    EXPECT_NE(refusal([&] { index->reconstruct(3, x.data()); }), "") << "no direct map";
    const bool copies = ours(*index).stores_copies();
    for (const auto type : {faiss::DirectMap::Hashtable, faiss::DirectMap::Array}) {
        const Made mapped = filled();
        mapped->set_direct_map_type(type);
        if (type == faiss::DirectMap::Hashtable && !in_blocks() && !copies) {
            const std::vector<int64_t> gone{3, 4};
            EXPECT_EQ(mapped->remove_ids(faiss::IDSelectorArray(gone.size(), gone.data())), 2u);
            EXPECT_NE(refusal([&] { mapped->reconstruct(3, x.data()); }), "") << "removed";
            ours(*mapped).check();
        }
        for (const int64_t id : {int64_t{-1}, n, int64_t{1} << 40}) {
            EXPECT_NE(refusal([&] { mapped->reconstruct(id, x.data()); }), "") << id;
        }
        EXPECT_NE(refusal([&] { mapped->reconstruct_n(n - 1, 2, x.data()); }), "");
        EXPECT_NE(refusal([&] { mapped->reconstruct_n(-1, 1, x.data()); }), "");
    }
}

/// FAISS makes half of a map then, and throws.
TEST_P(Contract, AMapThatFailedToBeMadeIsNotWrittenBeyond) {
    const Made index = trained();
    std::vector<int64_t> ids(rows);
    for (size_t i = 0; i < rows; i++) {
        ids[i] = static_cast<int64_t>(i) * 100'000;
    }
    index->add_with_ids(n / 2, base_.data(), ids.data());
    EXPECT_NE(refusal([&] { index->make_direct_map(); }), "");
    ours(*index).compact();
    refusal([&] { index->add(n / 2, base_.data() + n / 2 * d); });
    index->make_direct_map(false);
    ours(*index).check();
}

TEST_P(Contract, IdsBelowZeroAreFound) {
    const Made index = trained();
    std::vector<int64_t> ids(rows);
    for (size_t i = 0; i < rows; i++) {
        ids[i] = -2 - static_cast<int64_t>(i);
    }
    index->add_with_ids(n, base_.data(), ids.data());
    const Made usual = filled();
    for (const size_t nprobe : {size_t{3}, nlist}) {
        index->nprobe = usual->nprobe = nprobe;
        const Results got = search(*index, asked_, k), expected = search(*usual, asked_, k);
        EXPECT_EQ(got.distances, expected.distances) << nprobe;
        for (size_t i = 0; i < got.labels.size(); i++) {
            EXPECT_LE(got.labels[i], -1);
        }
        if (expected.distances[0] != expected.distances[1]) { // else either
            EXPECT_EQ(got.labels[0], -2 - expected.labels[0]);
        }
    }
}

TEST_P(Contract, WhatDoesNotFitIsNotMerged) {
    const Made index = filled();
    const State before = state_of(*index);
    faiss::IndexFlatL2 flat(d);
    faiss::IndexFlatL2 other_quantizer(d);
    faiss::IndexIVFFlat stock(&other_quantizer, d, nlist);
    const std::unique_ptr<faiss::Index> wider(index_factory(32, GetParam().string));
    const std::unique_ptr<faiss::Index> more_lists(index_factory(d, "IVFGMM16,Flat"));
    const std::unique_ptr<faiss::Index> other_codec(index_factory(d, "IVFGMM8,SQ8"));
    const std::unique_ptr<faiss::Index> other_metric(
            index_factory(d, "IVFGMM8,Flat", faiss::METRIC_INNER_PRODUCT));
    const Made not_trained = untrained(), trained_otherwise = untrained();
    const std::vector<float> other_rows = float_rows(rows, d, seed_ + 5);
    trained_otherwise->train(n, other_rows.data());
    trained_otherwise->add(10, other_rows.data());
    more_lists->train(n, base_.data());
    other_codec->train(n, base_.data());
    other_codec->add(10, base_.data());
    other_metric->train(n, base_.data());
    other_metric->add(10, base_.data());
    for (faiss::Index* other : std::initializer_list<faiss::Index*>{
                 &flat,
                 &stock,
                 wider.get(),
                 more_lists.get(),
                 other_codec.get(),
                 other_metric.get(),
                 not_trained.get(),
                 trained_otherwise.get()}) {
        SCOPED_TRACE(typeid(*other).name());
        const int64_t held = other->ntotal;
        EXPECT_NE(refusal([&] { index->merge_from(*other, 0); }), "");
        EXPECT_EQ(other->ntotal, held);
    }
    EXPECT_NE(refusal([&] { not_trained->merge_from(*index, 0); }), "");
    const Made not_either = untrained();
    EXPECT_NE(refusal([&] { not_trained->merge_from(*not_either, 0); }), "");
    expect_unchanged(before, *index);
}

TEST_P(Contract, BeforeTrainingNothingIsFoundAndNothingAdded) {
    const Made index = untrained();
    EXPECT_NE(refusal([&] { index->add(n, base_.data()); }).find("trained"), std::string::npos);
    EXPECT_EQ(index->ntotal, 0);
    for (const size_t nprobe : {size_t{1}, nlist}) {
        index->nprobe = nprobe;
        const auto found = [&](const std::function<void()>& call, const std::vector<int64_t>& all) {
            const std::string message = refusal(call);
            EXPECT_TRUE(message != "" || all == std::vector<int64_t>(all.size(), -1));
        };
        Results got(queries, k);
        found([&] { got = search(*index, asked_, k); }, got.labels);
        faiss::RangeSearchResult range(queries);
        if (refusal([&] { index->range_search(nq, asked_.data(), 1, &range); }).empty()) {
            EXPECT_EQ(range.lims[queries], 0u);
        }
    }
    index->reset();
    ours(*index).compact();
    ours(*index).check();
    if (!in_blocks() || compat::removes_from_blocks) {
        EXPECT_EQ(index->remove_ids(faiss::IDSelectorRange(0, 10)), 0u);
    }
    index->train(static_cast<int64_t>(GetParam().training_rows), base_.data());
    index->add(n, base_.data());
    EXPECT_GE(search(*index, asked_, k).labels[0], 0);
}

/// FAISS throws for them within a parallel region.
TEST_P(Contract, ParallelModesThatDoNotExistHarmNobody) {
    const Made index = filled();
    const State before = state_of(*index);
    for (const int mode : {5, -1}) {
        index->parallel_mode = mode;
        for (const size_t nprobe : {size_t{3}, nlist}) {
            index->nprobe = nprobe;
            refusal([&] { search(*index, asked_, k); });
        }
    }
    index->parallel_mode = 0;
    expect_unchanged(before, *index);
}

/// A selector of lists, as IndexFlat takes it.
TEST_P(Contract, ParametersOfTheQuantizerArrive) {
    if (in_blocks() && !compat::searches_given_blocks) {
        GTEST_SKIP() << "FAISS takes no parameters";
    }
    const Made index = filled();
    faiss::IDSelectorRange of_lists(0, 2);
    faiss::SearchParameters flat;
    faiss::SearchParametersHNSW graph;
    flat.sel = graph.sel = &of_lists;
    const bool over_a_graph = dynamic_cast<faiss::IndexHNSW*>(index->quantizer) != nullptr;
    faiss::SearchParametersIVF params;
    params.quantizer_params = over_a_graph ? &graph : &flat;
    std::set<int64_t> there; // what these two lists hold, theirs and their guests
    for (size_t l = 0; l < 2; l++) {
        for (size_t i = 0; i < index->invlists->list_size(l); i++) {
            there.insert(index->invlists->get_single_id(l, i));
        }
        if (const RunInvertedLists* lists = ours(*index).run_lists()) {
            for (const Guest& guest : lists->directory().lists[l].guests) {
                const size_t first = guest.run * run_size;
                const size_t size = lists->directory().lists[guest.home].size_of_run(guest.run);
                for (size_t i = first; i < first + size; i++) {
                    there.insert(index->invlists->get_single_id(guest.home, i));
                }
            }
        }
    }
    ASSERT_LT(there.size(), rows);
    for (const size_t nprobe : {size_t{3}, nlist}) {
        params.nprobe = nprobe;
        const Results got = search(*index, asked_, k, &params);
        EXPECT_GE(got.labels[0], 0);
        for (const int64_t label : got.labels) {
            EXPECT_TRUE(label == -1 || there.count(label) == 1) << label << ", nprobe " << nprobe;
        }
        if (!in_blocks()) {
            faiss::RangeSearchResult range(queries);
            index->range_search(nq, asked_.data(), 1e9f, &range, &params);
            for (size_t i = 0; i < range.lims[queries]; i++) {
                EXPECT_EQ(there.count(range.labels[i]), 1u) << range.labels[i];
            }
        }
    }
}

/// A parameter that changes nothing would multiply what is explored.
TEST_P(Contract, ParametersAreOfferedWhereTheyChangeASearch) {
    const Made index = filled();
    ParameterSpace space;
    space.initialize(index.get());
    const RunInvertedLists* lists = ours(*index).run_lists();
    const bool runs = lists != nullptr && lists->has_runs();
    const bool sketches = runs && lists->directory().sketched;
    const auto offers = [&](const char* name) {
        return std::any_of(
                space.parameter_ranges.begin(),
                space.parameter_ranges.end(),
                [&](const auto& range) { return range.name == name; });
    };
    EXPECT_TRUE(offers("nprobe"));
    EXPECT_EQ(offers("probe_expansion"), runs);
    EXPECT_EQ(offers("k_factor"), sketches);
    if (GetParam().training_rows == rows) { // else what is learnt decides
        ParameterSpace beforehand;
        beforehand.initialize(untrained().get());
        EXPECT_EQ(beforehand.parameter_ranges.size(), space.parameter_ranges.size());
    }
}

TEST_P(Contract, OfTheQuantizer) {
    const Made index = filled();
    auto* quantizer = dynamic_cast<GMMQuantizer*>(index->quantizer);
    if (quantizer == nullptr) {
        GTEST_SKIP() << "another quantizer";
    }
    std::vector<int64_t> labels(queries * nlist);
    std::vector<float> logs(queries * nlist);
    const auto refuses = [&](int64_t n, int64_t m) {
        SCOPED_TRACE(testing::Message() << n << " rows, " << m << " lists");
        const auto assign = [&] { quantizer->assign(n, asked_.data(), labels.data(), m); };
        const auto weigh = [&] {
            quantizer->responsibilities(n, asked_.data(), m, labels.data(), logs.data());
        };
        expect_four_parts(refusal(assign), std::to_string(n < 0 ? n : m));
        expect_four_parts(refusal(weigh), std::to_string(n < 0 ? n : m));
    };
    refuses(-1, 2);
    refuses(nq, 0);
    refuses(nq, -1);
}

/// Subsets from and to indices of the stock class, over the same means.
TEST_P(Contract, SubsetsBetweenOursAndStocksLoseNothing) {
    if (in_blocks()) {
        GTEST_SKIP() << "every_codec_test.cc";
    }
    const auto by_ids = static_cast<FAISS_GMM_SUBSET_TYPE>(0);
    const auto all_of = [](const faiss::IndexIVF& index) {
        std::multiset<std::pair<size_t, int64_t>> entries;
        for (size_t l = 0; l < nlist; l++) {
            for (size_t i = 0; i < index.invlists->list_size(l); i++) {
                entries.emplace(l, index.invlists->get_single_id(l, i));
            }
        }
        return entries;
    };
    const Made index = filled();
    const Made stock = stock_twin(*index);
    stock->invlists = new faiss::ArrayInvertedLists(nlist, index->code_size);
    stock->own_invlists = true;
    stock->ntotal = 0;
    // Ours into stock's.
    index->copy_subset_to(*stock, by_ids, 0, n / 2);
    index->copy_subset_to(*stock, by_ids, n / 2, n);
    EXPECT_EQ(all_of(*stock), all_of(*index));
    EXPECT_EQ(stock->ntotal, n) << "a vector counts once";
    // Stock's into ours, each vector in one list.
    const Made single = stock_twin(*index);
    single->invlists = new faiss::ArrayInvertedLists(nlist, index->code_size);
    single->own_invlists = true;
    single->ntotal = 0;
    single->add(n, base_.data());
    const Made into = trained();
    single->copy_subset_to(*into, by_ids, 0, n);
    EXPECT_EQ(into->ntotal, n);
    EXPECT_EQ(all_of(*into), all_of(*single));
    ours(*into).check();
    into->nprobe = index->nprobe = single->nprobe = nlist;
    const Results got = search(*into, asked_, k);
    EXPECT_EQ(got.distances, search(*single, asked_, k).distances);
    EXPECT_EQ(into->remove_ids(faiss::IDSelectorRange(0, 10)), 10u);
    ours(*into).check();
    // Ours into ours.
    const Made twin = trained();
    index->copy_subset_to(*twin, by_ids, 0, n);
    EXPECT_EQ(twin->ntotal, n);
    EXPECT_EQ(all_of(*twin), all_of(*index));
    ours(*twin).check();
    twin->nprobe = nlist;
    EXPECT_EQ(search(*twin, asked_, k).distances, search(*index, asked_, k).distances);
}

/// As FAISS's cloner for GPUs makes shards: where an exception would end the process.
TEST_P(Contract, SubsetsAreCopiedWithinAParallelRegion) {
    if (in_blocks()) {
        GTEST_SKIP() << "FAISS clones none to GPUs";
    }
    const Made index = filled();
    constexpr int parts = 2;
    for (const bool by_range : {true, false}) { // of ids; else by their remainders
        std::vector<Made> shards;
        for (int i = 0; i < parts; i++) {
            shards.push_back(stock_twin(*index));
            shards.back()->invlists = new faiss::ArrayInvertedLists(nlist, index->code_size);
            shards.back()->own_invlists = true;
            shards.back()->ntotal = 0;
        }
#pragma omp parallel for num_threads(parts)
        for (int i = 0; i < parts; i++) {
            const auto type = static_cast<FAISS_GMM_SUBSET_TYPE>(by_range ? 0 : 1);
            index->copy_subset_to(
                    *shards[i],
                    type,
                    by_range ? n * i / parts : parts,
                    by_range ? n * (i + 1) / parts : i);
        }
        size_t entries = 0;
        for (const Made& shard : shards) {
            EXPECT_EQ(shard->ntotal, n / parts) << "a vector counts once";
            entries += shard->invlists->compute_ntotal();
        }
        EXPECT_EQ(entries, index->invlists->compute_ntotal());
    }
}

INSTANTIATE_TEST_SUITE_P(
        All, Contract, testing::ValuesIn(all_kinds), [](const testing::TestParamInfo<Kind>& info) {
            return info.param.name;
        });

/// IndexIVFFlat that counts the scanners it makes, and those that are handed parameters of a codec.
struct AskedFlat : faiss::IndexIVFFlat {
    using faiss::IndexIVFFlat::IndexIVFFlat;
    struct Counts {
        std::atomic<size_t> scanners{0}, with_parameters{0};
    };
    std::shared_ptr<Counts> counts = std::make_shared<Counts>();

    faiss::InvertedListScanner* get_InvertedListScanner(
            bool store_pairs,
            const faiss::IDSelector* selector FAISS_GMM_CODEC_PARAMETERS_PARAMETER) const override {
        counts->scanners++;
#if FAISS_GMM_FAISS_AT_LEAST(1, 11)
        const auto* own = dynamic_cast<const faiss::IVFPQSearchParameters*>(codec_parameters);
        counts->with_parameters += own != nullptr && own->polysemous_ht == 7;
#endif
        return faiss::IndexIVFFlat::get_InvertedListScanner(
                store_pairs, selector FAISS_GMM_CODEC_PARAMETERS_ARGUMENT);
    }
};

TEST(ParametersOfACodec, ArriveByEveryRoute) {
    if (!compat::scanners_take_parameters) {
        GTEST_SKIP() << "FAISS hands them to no scanner";
    }
    const std::vector<float> base = float_rows(rows, d, test_seed()), asked = float_rows(2, d, 4);
    const std::vector<int64_t> keys(2 * nlist, 1);
    const std::vector<float> coarse(2 * nlist, 0);
    for (const SpillStorage storage : {SpillStorage::shared, SpillStorage::copies}) {
        for (const bool over_a_graph : {false, true}) {
            faiss::IndexHNSWFlat graph(d, 8);
            GMMQuantizer flat(d, faiss::METRIC_L2);
            faiss::Index* quantizer = &flat;
            if (over_a_graph) {
                quantizer = &graph;
            }
            IndexIVFGMMOf<AskedFlat> index(quantizer, d, nlist);
            index.spill.storage = storage;
            index.train(n, base.data());
            index.add(n, base.data());
            for (const size_t nprobe : {size_t{3}, nlist}) {
                for (const bool beside_ours : {false, true}) {
                    for (const bool sorted_range : {false, true}) {
                        SCOPED_TRACE(
                                testing::Message()
                                << (storage == SpillStorage::copies ? "copies" : "shared")
                                << (over_a_graph ? ", graph" : "") << ", nprobe " << nprobe
                                << (beside_ours ? ", beside ours" : "")
                                << (sorted_range ? ", a range" : ""));
                        faiss::IDSelectorRange selector(0, n, true);
                        faiss::IVFPQSearchParameters own;
                        own.polysemous_ht = 7;
                        IVFGMMSearchParameters with_ours;
                        with_ours.codec_params = &own;
                        own.nprobe = with_ours.nprobe = nprobe;
                        if (sorted_range) {
                            own.sel = with_ours.sel = &selector;
                        }
                        const faiss::SearchParametersIVF* params = &own;
                        if (beside_ours) {
                            params = &with_ours;
                        }
                        Results got(2, k);
                        std::vector<float> decoded(2 * k * d);
                        faiss::RangeSearchResult range(2);
                        const std::pair<const char*, std::function<void()>> calls[] = {
                                {"search", [&] { got = search(index, asked, k, params); }},
                                {"search_preassigned",
                                 [&] { search_keys(index, asked, k, keys, coarse, *params); }},
                                {"range_search",
                                 [&] {
                                     index.range_search(2, asked.data(), 1e9f, &range, params);
                                 }},
                                {"search_and_reconstruct",
                                 [&] {
                                     index.search_and_reconstruct(
                                             2,
                                             asked.data(),
                                             k,
                                             got.distances.data(),
                                             got.labels.data(),
                                             decoded.data(),
                                             params);
                                 }},
                        };
                        for (const auto& [name, call] : calls) {
                            index.counts->scanners = index.counts->with_parameters = 0;
                            call();
                            EXPECT_GT(index.counts->scanners, 0u) << name;
                            EXPECT_EQ(index.counts->with_parameters, index.counts->scanners)
                                    << name;
                        }
                    }
                }
            }
        }
    }
}

TEST(NullArguments, AreRefused) {
    const auto flat = [] { IndexIVFGMMFlat index(nullptr, d, nlist); };
    expect_four_parts(refusal(flat), "no quantizer");
    const auto coded = [] { IndexIVFGMMPQ index(nullptr, d, nlist, 4, 4); };
    expect_four_parts(refusal(coded), "no quantizer");
    const auto blocks = [] { IndexIVFGMMPQFastScan index(nullptr, d, nlist, 8, 4); };
    expect_four_parts(refusal(blocks), "no quantizer");
    expect_four_parts(refusal([] { index_factory(d, nullptr); }), "no description");
    expect_four_parts(refusal([] { promote(nullptr); }), "no index");
    expect_four_parts(refusal([] { ParameterSpace().initialize(nullptr); }), "no index");
    expect_four_parts(
            refusal([] {
                faiss::Index* none = nullptr;
                ParameterSpace().set_index_parameter(none, "nprobe", 3);
            }),
            "no index");
}

TEST(Sizes, OfNothingAreRefused) {
    faiss::IndexFlatL2 of_other_rows(d + 1);
    expect_four_parts(
            refusal([&] { IndexIVFGMMFlat index(&of_other_rows, d, nlist); }),
            "dimensions, a quantizer of");
    expect_four_parts(refusal([] { IndexIVFGMMFlat index(0, nlist); }), "0 dimensions");
    expect_four_parts(refusal([] { IndexIVFGMMFlat index(d, 0); }), "0 lists");
    for (const int wrong : {0, -3}) {
        EXPECT_NE(refusal([&] { delete index_factory(wrong, "IVFGMM8,Flat"); }), "");
    }
    EXPECT_NE(refusal([] { delete index_factory(d, "IVFGMM0,Flat"); }), "");
}

} // namespace
} // namespace faiss_gmm
