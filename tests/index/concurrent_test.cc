// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Many threads of the caller on one index that nobody changes: all that is const, each call beside any other,
// answers as it does alone. And on indices of their own, changes too. Under ThreadSanitizer (preset tsan): no
// data race. Nothing here takes a lock that would order the calls, as the fixture's scan log does.
#include <algorithm>
#include <functional>
#include <numeric>
#include <thread>

#include <faiss/IVFlib.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <gtest/gtest.h>

#include "faiss_gmm/compat/wrappers.h"
#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/describe.h"
#include "faiss_gmm/index/wrappers.h"
#include "faiss_gmm/io/clone.h"
#include "faiss_gmm/io/export_faiss.h"
#include "faiss_gmm/io/merge_ondisk.h"
#include "index_fixture.h"
#include "stock_twin.h"
#include "tests/io/io_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1500, queries = 12, d = 24, k = 7, callers = 4;
constexpr auto l2 = faiss::METRIC_L2, ip = faiss::METRIC_INNER_PRODUCT;

/// What a call came to: results, or FAISS's or our refusal.
struct Answer {
    std::vector<float> numbers;
    std::vector<int64_t> labels;
    std::string refusal;

    bool operator==(const Answer& other) const {
        return numbers == other.numbers && labels == other.labels && refusal == other.refusal;
    }
};
void PrintTo(const Answer& answer, std::ostream* out) {
    *out << answer.numbers.size() << " numbers, " << answer.labels.size() << " labels "
         << answer.refusal;
}

struct Call {
    std::string name;
    std::function<void(Answer&)> body;

    Answer operator()() const {
        Answer answer;
        answer.refusal = refusal([&] { body(answer); });
        return answer;
    }
};

/// What every one of the callers got of every call, each from another call on: no two are at the same, and
/// each call is the first somewhere.
std::vector<std::vector<Answer>> asked_at_once(const std::vector<Call>& calls, size_t rounds) {
    std::vector<std::vector<Answer>> answers(callers);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < callers; t++) {
        threads.emplace_back([&, t] {
            std::vector<Answer>& mine = answers[t];
            mine.resize(rounds * calls.size());
            for (size_t i = 0; i < mine.size(); i++) {
                const size_t round = i / calls.size();
                const size_t at = (i + t * calls.size() / callers) % calls.size();
                mine[round * calls.size() + at] = calls[at]();
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    return answers;
}

/// body(index as the class that it is): before 1.7.4 range_search_preassigned is not virtual.
template <class Body, class... Codecs>
void as_its_class(const faiss::IndexIVF& index, CodecList<Codecs...>, Body body) {
    const auto try_class = [&](auto* ours) { return ours != nullptr && (body(*ours), true); };
    EXPECT_TRUE((try_class(dynamic_cast<const IndexIVFGMMOf<Codecs>*>(&index)) || ...));
}

struct Setup {
    std::string name, text; ///< text: for the factory
    faiss::MetricType metric = l2;
    int parallel_mode = 0;
    bool mapped = true; ///< has a direct map, where its lists allow one
    bool on_disk = false;
};
void PrintTo(const Setup& setup, std::ostream* out) {
    *out << setup.name;
}

class Concurrent : public testing::TestWithParam<Setup> {
protected:
    void SetUp() override {
        index_.reset(index_factory(d, GetParam().text.c_str(), GetParam().metric));
        faiss::Index* outermost = index_.get();
        ivf_ = dynamic_cast<faiss::IndexIVF*>(*innermost_slot(&outermost));
        ASSERT_NE(ivf_, nullptr);
        hurry_codec(*ivf_);
        index_->train(rows, base_.data());
        if (GetParam().on_disk) {
            const std::unique_ptr<faiss::Index> shard(clone_index(*index_));
            shard->add(rows, base_.data());
            write_index(*shard, folder_.file("shard"));
            merge_ondisk(*index_, {folder_.file("shard")}, folder_.file("lists"));
        } else if (dynamic_cast<const faiss::IndexIDMap*>(index_.get()) != nullptr) {
            std::vector<int64_t> ids(rows);
            std::iota(ids.rbegin(), ids.rend(), 0);
            index_->add_with_ids(rows, base_.data(), ids.data());
        } else {
            index_->add(rows, base_.data());
        }
        if (GetParam().mapped) {
            ivf_->set_direct_map_type(faiss::DirectMap::Array);
        }
        ivf_->nprobe = 3;
        ivf_->parallel_mode = GetParam().parallel_mode;

        inner_queries_ = queries_;
        if (const auto* chain = dynamic_cast<const faiss::IndexPreTransform*>(index_.get())) {
            const std::unique_ptr<const float[]> moved(
                    chain->apply_chain(queries, queries_.data()));
            inner_queries_.assign(moved.get(), moved.get() + queries * ivf_->d);
        }
        keys_.resize(queries * 4);
        coarse_.resize(keys_.size());
        ivf_->quantizer->search(queries, inner_queries_.data(), 4, coarse_.data(), keys_.data());
        Answer near;
        search(near, nullptr);
        radius_ = near.numbers[k - 1];
    }

    void search(Answer& answer, const faiss::SearchParameters* params) const {
        answer.numbers.resize(queries * k);
        answer.labels.resize(queries * k);
        index_->search(
                queries, queries_.data(), k, answer.numbers.data(), answer.labels.data(), params);
    }
    int64_t list_with_entries() const {
        int64_t list = 0;
        while (ivf_->invlists->list_size(list) == 0) {
            ++list;
        }
        return list;
    }
    /// Sorted by query and id: in which order a range comes is nobody's promise.
    static void take(const faiss::RangeSearchResult& result, Answer& answer) {
        for (size_t i = 0; i < queries; i++) {
            std::vector<std::pair<int64_t, float>> found;
            for (size_t j = result.lims[i]; j < result.lims[i + 1]; j++) {
                found.emplace_back(result.labels[j], result.distances[j]);
            }
            std::sort(found.begin(), found.end());
            for (const auto& [label, distance] : found) {
                answer.labels.push_back(label);
                answer.numbers.push_back(distance);
            }
            answer.labels.push_back(-1);
        }
    }
    void range_search(Answer& answer, const faiss::SearchParameters* params) const {
        faiss::RangeSearchResult result(queries);
        index_->range_search(queries, queries_.data(), radius_, &result, params);
        take(result, answer);
    }
    /// Parameters of every kind, of the caller's own: some wrappers write into them.
    void with_parameters(const std::function<void(const faiss::SearchParameters&)>& body) const {
        faiss::SearchParametersIVF stock;
        stock.nprobe = 5;
        body(stock);
    }
    void
    with_our_parameters(const std::function<void(const faiss::SearchParameters&)>& body) const {
        faiss::IDSelectorRange some(rows / 5, rows / 2);
        IVFGMMSearchParameters ours;
        ours.nprobe = 4;
        ours.sel = &some;
        ours.probe_expansion = 2;
        ours.k_factor = 3;
        body(ours);
    }
    void search_keys(Answer& answer, bool store_pairs, faiss::IndexIVFStats* stats) const {
        answer.numbers.resize(queries * k);
        answer.labels.resize(queries * k);
        faiss::SearchParametersIVF params;
        params.nprobe = 4;
        ivf_->search_preassigned(
                queries,
                inner_queries_.data(),
                k,
                keys_.data(),
                coarse_.data(),
                answer.numbers.data(),
                answer.labels.data(),
                store_pairs,
                &params,
                stats);
        if (stats != nullptr) {
            answer.labels.insert(
                    answer.labels.end(),
                    {static_cast<int64_t>(stats->nq),
                     static_cast<int64_t>(stats->nlist),
                     static_cast<int64_t>(stats->ndis)});
        }
    }

    std::vector<Call> searches() const {
        return {
                {"search", [this](Answer& a) { search(a, nullptr); }},
                {"search_with_parameters",
                 [this](Answer& a) { with_parameters([&](auto& params) { search(a, &params); }); }},
                {"search_with_our_parameters",
                 [this](Answer& a) {
                     with_our_parameters([&](auto& params) { search(a, &params); });
                 }},
                {"range_search", [this](Answer& a) { range_search(a, nullptr); }},
                {"range_search_with_our_parameters",
                 [this](Answer& a) {
                     with_our_parameters([&](auto& params) { range_search(a, &params); });
                 }},
                {"search_preassigned",
                 [this](Answer& a) {
                     faiss::IndexIVFStats stats;
                     search_keys(a, false, &stats);
                 }},
                {"search_preassigned_for_pairs",
                 [this](Answer& a) {
                     faiss::IndexIVFStats stats;
                     search_keys(a, true, &stats);
                 }},
                {"search_preassigned_of_the_process",
                 [this](Answer& a) { search_keys(a, false, nullptr); }},
                {"range_search_preassigned",
                 [this](Answer& a) {
                     // Where this is refused FAISS ends the process: it asks within a parallel region.
                     const std::unique_ptr<faiss::InvertedListScanner> scanner(
                             ivf_->get_InvertedListScanner());
                     faiss::SearchParametersIVF params;
                     params.nprobe = 4;
                     faiss::IndexIVFStats stats;
                     faiss::RangeSearchResult result(queries);
                     as_its_class(*ivf_, StockCodecs(), [&](const auto& ours) {
                         ours.range_search_preassigned(
                                 queries,
                                 inner_queries_.data(),
                                 radius_,
                                 keys_.data(),
                                 coarse_.data(),
                                 &result,
                                 false,
                                 &params,
                                 &stats);
                     });
                     take(result, a);
                 }},
                {"search_and_reconstruct",
                 [this](Answer& a) {
                     Results found(queries, k);
                     a.numbers.resize(queries * k * d);
                     std::vector<float> one(d); // as above, since 1.8
                     ivf_->reconstruct_from_offset(list_with_entries(), 0, one.data());
                     index_->search_and_reconstruct(
                             queries,
                             queries_.data(),
                             k,
                             found.distances.data(),
                             found.labels.data(),
                             a.numbers.data());
                     a.labels = found.labels;
                 }},
                {"search_and_return_centroids",
                 [this](Answer& a) {
                     std::vector<int64_t> of_queries(queries), of_results(queries * k);
                     a.numbers.resize(queries * k);
                     a.labels.resize(queries * k);
                     faiss::ivflib::search_and_return_centroids(
                             ivf_,
                             queries,
                             inner_queries_.data(),
                             k,
                             a.numbers.data(),
                             a.labels.data(),
                             of_queries.data(),
                             of_results.data());
                     a.labels.insert(a.labels.end(), of_results.begin(), of_results.end());
                 }},
        };
    }
    std::vector<Call> other_calls() const {
        return {
                {"reconstruct",
                 [this](Answer& a) {
                     a.numbers.resize(3 * d);
                     for (const size_t i : {0, 1, 2}) {
                         index_->reconstruct(
                                 static_cast<int64_t>(rows / 3 * i), a.numbers.data() + i * d);
                     }
                 }},
                {"reconstruct_n",
                 [this](Answer& a) {
                     a.numbers.resize(20 * d);
                     // Where this is refused FAISS's reconstruct_n ends the process.
                     index_->reconstruct(rows / 2, a.numbers.data());
                     index_->reconstruct_n(rows / 2, 20, a.numbers.data());
                 }},
                {"assign",
                 [this](Answer& a) {
                     a.labels.resize(queries * 2);
                     ivf_->quantizer->assign(queries, inner_queries_.data(), a.labels.data(), 2);
                 }},
                {"responsibilities",
                 [this](Answer& a) {
                     const auto* mixture = dynamic_cast<const GMMQuantizer*>(ivf_->quantizer);
                     if (mixture != nullptr) {
                         a.numbers.resize(queries * 2);
                         a.labels.resize(queries * 2);
                         mixture->responsibilities(
                                 queries,
                                 inner_queries_.data(),
                                 2,
                                 a.labels.data(),
                                 a.numbers.data());
                     }
                 }},
                {"what_is_asked_of_it",
                 [this](Answer& a) {
                     const IndexIVFGMM& ours = as_gmm(*ivf_);
                     ours.check();
                     const RunInvertedLists* lists = ours.run_lists();
                     a.numbers = ours.mixture().means;
                     a.labels = {
                             index_->ntotal,
                             static_cast<int64_t>(ours.memory_use().total()),
                             static_cast<int64_t>(ivf_->invlists->compute_ntotal()),
                             static_cast<int64_t>(ivf_->invlists->list_size(3)),
                             lists != nullptr && lists->has_runs(),
                             ours.stores_copies(),
                             ours.has_own_distances(),
                             static_cast<int64_t>(ours.training_history().size())};
                 }},
                {"describe",
                 [this](Answer& a) {
                     const std::string text = describe(*index_);
                     a.labels.assign(text.begin(), text.end());
                 }},
                {"write_index",
                 [this](Answer& a) {
                     const Bytes bytes = stock_bytes(*index_);
                     a.labels.assign(bytes.begin(), bytes.end());
                 }},
                {"clone_index", [this](Answer& a) { search_in(clone_index(*index_), a); }},
                {"export_faiss", [this](Answer& a) { search_in(export_faiss(*index_), a); }},
        };
    }
    /// Of an index made of the one that all ask, which it shares its state with.
    void search_in(faiss::Index* made, Answer& answer) const {
        const std::unique_ptr<faiss::Index> owned(made);
        answer.numbers.resize(queries * k);
        answer.labels.resize(queries * k);
        owned->search(queries, queries_.data(), k, answer.numbers.data(), answer.labels.data());
    }

    const uint64_t seed_ = test_seed();
    std::vector<float> base_ = float_rows(rows, d, seed_);
    std::vector<float> queries_ = float_rows(queries, d, seed_ + 1), inner_queries_;
    const Folder folder_;
    std::unique_ptr<faiss::Index> index_;
    faiss::IndexIVF* ivf_ = nullptr;
    std::vector<int64_t> keys_;
    std::vector<float> coarse_;
    float radius_ = 0;
};

TEST_P(Concurrent, EachCallAnswersAsAlone) {
    constexpr size_t rounds = 3;
    std::vector<Call> calls = searches();
    const std::vector<Call> others = other_calls();
    calls.insert(calls.end(), others.begin(), others.end());
    // Alone afterwards: what is made ready by a first call is made so by several at once.
    const auto answers = asked_at_once(calls, rounds);
    std::set<std::string> answered;
    for (size_t at = 0; at < calls.size(); at++) {
        const Answer alone = calls[at]();
        if (alone.refusal.empty()) {
            answered.insert(calls[at].name);
        }
        for (size_t t = 0; t < callers; t++) {
            for (size_t round = 0; round < rounds; round++) {
                EXPECT_EQ(answers[t][round * calls.size() + at], alone)
                        << calls[at].name << ", caller " << t << ", round " << round;
            }
        }
    }
    for (const char* name : {"search", "assign", "what_is_asked_of_it", "write_index"}) {
        EXPECT_EQ(answered.count(name), 1u) << name << " is refused by no index";
    }
    const RunInvertedLists* lists = as_gmm(*ivf_).run_lists();
    if (index_.get() == ivf_ && lists != nullptr && lists->has_runs()) {
        const size_t refused = GetParam().on_disk ? 1 : 0;
        EXPECT_EQ(answered.size(), calls.size() - refused) << "with runs nothing is refused";
        EXPECT_EQ(answered.count("clone_index"), 1 - refused) << "but lists on disk, to be copied";
    }
}

/// Those that our own code searches: stock code adds its statistics up without a lock.
class ConcurrentCounts : public Concurrent {};

TEST_P(ConcurrentCounts, LoseNothing) {
    constexpr size_t rounds = 5;
    ASSERT_TRUE(as_gmm(*ivf_).run_lists()->has_runs());
    const std::vector<Call> calls = searches();
    indexIVFGMM_stats.reset();
    faiss::indexIVF_stats.reset();
    for (const Call& call : calls) {
        call();
    }
    const IVFGMMStats once = indexIVFGMM_stats;
    const faiss::IndexIVFStats stock_once = faiss::indexIVF_stats;
    EXPECT_GE(once.nq, queries * 5);
    indexIVFGMM_stats.reset();
    faiss::indexIVF_stats.reset();
    asked_at_once(calls, rounds);
    EXPECT_EQ(indexIVFGMM_stats.nq, callers * rounds * once.nq);
    EXPECT_EQ(indexIVFGMM_stats.nlist, callers * rounds * once.nlist);
    EXPECT_EQ(indexIVFGMM_stats.ndis, callers * rounds * once.ndis);
    EXPECT_EQ(indexIVFGMM_stats.nscored, callers * rounds * once.nscored);
    EXPECT_EQ(indexIVFGMM_stats.nvisited, callers * rounds * once.nvisited);
    EXPECT_EQ(indexIVFGMM_stats.means, callers * rounds * once.means);
    EXPECT_EQ(faiss::indexIVF_stats.nq, callers * rounds * stock_once.nq);
    EXPECT_EQ(faiss::indexIVF_stats.ndis, callers * rounds * stock_once.ndis);
}

std::vector<Setup> setups() {
    std::vector<Setup> all = {
            {"runs", "IVFGMM16(spill=always),Flat"},
            {"runs_ip", "IVFGMM16(spill=always,max_lists=3),Flat", ip},
            {"runs_without_sketches", "IVFGMM16(sketch=none,spill=always),Flat"},
            {"runs_without_guests", "IVFGMM16(spill=never),Flat"},
            {"copies", "IVFGMM16(storage=copies,spill=always),Flat", l2, 0, false},
            {"copies_ip", "IVFGMM16(storage=copies,spill=always),Flat", ip, 0, false},
            {"of_bytes", "IVFGMM16,SQ8"},
            {"of_halves", "IVFGMM16,SQfp16"},
            {"of_stock_distances", "IVFGMM16(sketch=6),SQ4"},
            {"product", "IVFGMM16,PQ6x4"},
            {"product_of_copies", "IVFGMM16(storage=copies,spill=always),PQ6x4", l2, 0, false},
            {"additive", "IVFGMM16,RQ3x4"},
            {"blocks", "IVFGMM16,PQ6x4fs"},
            {"plain_lists", "IVFGMM16,ITQ16,SH", l2, 0, false},
            {"graph_of_means", "IVFGMM16_HNSW8,Flat"},
            {"diagonal_covariances", "IVFGMM16(covariance=diagonal),Flat"},
            {"transformed", "PCA16,IVFGMM16,Flat"},
            {"unit_length", "L2norm,IVFGMM16,SQ8", ip},
            {"numbered", "IDMap,IVFGMM16,Flat"},
            {"numbered_both_ways", "IDMap2,IVFGMM16,Flat"},
            {"refined", "IVFGMM16,SQ4,RFlat"},
            {"on_disk", "IVFGMM16(spill=always),Flat", l2, 0, true, true},
    };
    for (const int mode : {1, 2, 3}) {
        all.push_back({"parallel_mode_" + std::to_string(mode), "IVFGMM16,Flat", l2, mode});
    }
    return all;
}

std::vector<Setup> setups_with_runs() {
    std::vector<Setup> some = setups();
    const auto searched_by_stock = [](const Setup& setup) {
        return setup.text.find("copies") != std::string::npos ||
               setup.text.find("fs") != std::string::npos ||
               setup.text.find("SH") != std::string::npos;
    };
    some.erase(std::remove_if(some.begin(), some.end(), searched_by_stock), some.end());
    return some;
}
std::string name_of(const testing::TestParamInfo<Setup>& info) {
    return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(All, Concurrent, testing::ValuesIn(setups()), name_of);
INSTANTIATE_TEST_SUITE_P(All, ConcurrentCounts, testing::ValuesIn(setups_with_runs()), name_of);

/// A whole life, and what it found on the way.
Answer life_of(const std::string& text, const std::vector<float>& x) {
    Answer answer;
    const std::unique_ptr<faiss::Index> index(index_factory(d, text.c_str()));
    hurry_codec(*faiss::ivflib::extract_index_ivf(index.get()));
    const auto note = [&](const faiss::Index& of) {
        const Results found = search(of, {x.begin(), x.begin() + queries * d}, k);
        answer.numbers.insert(answer.numbers.end(), found.distances.begin(), found.distances.end());
        answer.labels.insert(answer.labels.end(), found.labels.begin(), found.labels.end());
    };
    const auto n = static_cast<int64_t>(x.size() / d);
    index->train(n, x.data());
    index->add(n / 2, x.data());
    note(*index);
    index->add(n - n / 2, x.data() + n / 2 * d);
    index->remove_ids(faiss::IDSelectorRange(n / 4, n / 3));
    note(*index);
    as_gmm(*index).compact();
    as_gmm(*index).check();
    note(*index);
    const auto read = promoted(from_stock_bytes(stock_bytes(*index)));
    note(*read);
    note(*std::unique_ptr<faiss::Index>(clone_index(*read)));
    return answer;
}

TEST(ConcurrentLives, OfIndicesThatShareNothing) {
    const uint64_t seed = test_seed();
    const std::vector<float> x = float_rows(800, d, seed);
    const std::vector<std::string> texts = {
            "IVFGMM8(spill=always),Flat",
            "IVFGMM8(spill=always,storage=copies),Flat",
            "IVFGMM8,SQ8",
            "IVFGMM8(covariance=diagonal),PQ6x4"};
    std::vector<Answer> lived(2 * texts.size());
    std::vector<std::thread> threads;
    for (size_t t = 0; t < lived.size(); t++) {
        threads.emplace_back([&, t] { lived[t] = life_of(texts[t % texts.size()], x); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (size_t t = 0; t < lived.size(); t++) {
        EXPECT_EQ(lived[t], life_of(texts[t % texts.size()], x)) << texts[t % texts.size()];
    }
}

} // namespace
} // namespace faiss_gmm
