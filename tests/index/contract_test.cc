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

INSTANTIATE_TEST_SUITE_P(
        All, Contract, testing::ValuesIn(all_kinds), [](const testing::TestParamInfo<Kind>& info) {
            return info.param.name;
        });

} // namespace
} // namespace faiss_gmm
