// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Search of lists that the caller names: what stock callers reach.
#include <faiss/IndexFlat.h>
#include <faiss/utils/Heap.h>
#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1500, queries = 15, k = 10;

/// Entries (list, offset) that a search of these keys must meet: the lists, and their guests.
std::set<std::pair<int64_t, size_t>>
reachable(const RunInvertedLists& lists, const std::vector<int64_t>& keys) {
    std::set<std::pair<int64_t, size_t>> entries;
    for (const int64_t key : keys) {
        if (key < 0) {
            continue;
        }
        for (size_t i = 0; i < lists.list_size(key); i++) {
            entries.insert({key, i});
        }
        for (const Guest& guest : lists.directory().lists[key].guests) {
            const ListRuns& home = lists.directory().lists[guest.home];
            for (size_t i = 0; i < home.size_of_run(guest.run); i++) {
                entries.insert({guest.home, guest.run * run_size + i});
            }
        }
    }
    return entries;
}

class Preassigned : public testing::TestWithParam<IndexSetup> {
protected:
    void SetUp() override {
        const IndexSetup& setup = GetParam();
        base_ = whole_rows(rows, setup.d, seed_);
        queries_ = whole_rows(queries, setup.d, seed_ + 1);
        index_ = setup.trained(base_);
        add_in_batches(*index_, base_, 500, seed_);
        oracle_.add(rows, base_.data());
    }

    /// Keys [queries, width]: random, some -1, none twice a query unless asked for.
    std::vector<int64_t> random_keys(size_t width, bool repeated) {
        std::vector<int64_t> keys(queries * width);
        for (size_t i = 0; i < queries; i++) {
            std::vector<int64_t> all(GetParam().nlist);
            for (size_t l = 0; l < all.size(); l++) {
                all[l] = static_cast<int64_t>(l);
            }
            std::shuffle(all.begin(), all.end(), random_);
            for (size_t p = 0; p < width; p++) {
                int64_t& key = keys[i * width + p];
                key = all[p];
                if (random_() % 5 == 0) {
                    key = -1;
                } else if (repeated && p > 0 && random_() % 3 == 0) {
                    key = keys[i * width + random_() % p];
                }
            }
        }
        return keys;
    }
    std::vector<float> distances_to(const std::vector<int64_t>& keys) const {
        const size_t d = GetParam().d, width = keys.size() / queries;
        std::vector<float> distances(keys.size(), 1e9), mean(d), one(1);
        for (size_t i = 0; i < keys.size(); i++) {
            if (keys[i] >= 0) {
                index_->quantizer->reconstruct(keys[i], mean.data());
                float sum = 0;
                for (size_t t = 0; t < d; t++) {
                    const float q = queries_[i / width * d + t];
                    sum += GetParam().metric == faiss::METRIC_L2 ? (q - mean[t]) * (q - mean[t])
                                                                 : q * mean[t];
                }
                distances[i] = sum;
            }
        }
        return distances;
    }
    Results search_keys(
            const faiss::IndexIVF& index,
            const std::vector<int64_t>& keys,
            bool store_pairs = false,
            const faiss::IDSelector* selector = nullptr,
            size_t max_codes = 0) const {
        faiss::SearchParametersIVF params;
        params.nprobe = keys.size() / queries;
        params.max_codes = max_codes;
        params.sel = const_cast<faiss::IDSelector*>(selector);
        faiss::IndexIVFStats stats;
        return faiss_gmm::search_keys(
                index, queries_, k, keys, distances_to(keys), params, store_pairs, &stats);
    }

    const uint64_t seed_ = test_seed();
    std::mt19937_64 random_{seed_};
    Oracle oracle_{GetParam().d, GetParam().metric};
    std::vector<float> base_, queries_;
    std::unique_ptr<CountingIndex> index_;
};

TEST_P(Preassigned, ScansTheListsAndTheirGuestsOnceEach) {
    for (const size_t width : {1, 3, 9, 16}) {
        for (const bool repeated : {false, true}) {
            SCOPED_TRACE(testing::Message() << width << " keys" << (repeated ? ", repeated" : ""));
            const std::vector<int64_t> keys = random_keys(width, repeated);
            index_->log->clear();
            indexIVFGMM_stats.reset();
            const Results got = search_keys(*index_, keys);
            expect_sound(oracle_, queries_, got);
            index_->log->expect_none_twice();
            EXPECT_EQ(indexIVFGMM_stats.ndis, index_->log->total());
            EXPECT_EQ(indexIVFGMM_stats.nvisited, index_->log->total());
            size_t expected = 0;
            for (size_t i = 0; i < queries; i++) {
                const auto entries = reachable(
                        *index_->run_lists(),
                        {keys.begin() + i * width, keys.begin() + (i + 1) * width});
                expected += entries.size();
                std::vector<float> truth;
                for (const auto& [list, offset] : entries) {
                    const int64_t id = index_->invlists->get_single_id(list, offset);
                    truth.push_back(static_cast<float>(
                            oracle_.distance(queries_.data() + i * GetParam().d, id)));
                }
                std::sort(truth.begin(), truth.end(), [&](float a, float b) {
                    return oracle_.better(a, b);
                });
                for (size_t j = 0; j < k; j++) {
                    if (j < truth.size()) {
                        ASSERT_EQ(got.distances[i * k + j], truth[j]);
                    } else {
                        ASSERT_EQ(got.labels[i * k + j], -1);
                    }
                }
            }
            EXPECT_EQ(index_->log->total(), expected);
        }
    }
}

TEST_P(Preassigned, PairsNameThePlaces) {
    const std::vector<int64_t> keys = random_keys(5, false);
    const Results ids = search_keys(*index_, keys);
    Results pairs = search_keys(*index_, keys, true);
    for (int64_t& label : pairs.labels) {
        if (label >= 0) {
            label = index_->invlists->get_single_id(
                    static_cast<size_t>(faiss::lo_listno(label)),
                    static_cast<size_t>(faiss::lo_offset(label)));
        }
    }
    expect_sound(oracle_, queries_, pairs);
    expect_equal_up_to_ties(pairs, ids);
}

TEST_P(Preassigned, PairsAndSelectorsGoTogether) {
    // search_and_reconstruct asks for both.
    const faiss::IDSelectorRange selector(100, 700);
    for (const size_t nprobe : {size_t{4}, GetParam().nlist}) {
        faiss::SearchParametersIVF params;
        params.nprobe = nprobe;
        params.sel = const_cast<faiss::IDSelectorRange*>(&selector);
        Results got(queries, k);
        std::vector<float> rows_found(queries * k * GetParam().d);
        index_->search_and_reconstruct(
                queries,
                queries_.data(),
                k,
                got.distances.data(),
                got.labels.data(),
                rows_found.data(),
                &params);
        if (nprobe == GetParam().nlist) {
            expect_exact(oracle_, queries_, got, 0, &selector);
        } else {
            expect_sound(oracle_, queries_, got, 0, &selector);
        }
    }
}

TEST_P(Preassigned, AddsToTheCallersHeaps) {
    using Largest = faiss::CMax<float, int64_t>;
    using Smallest = faiss::CMin<float, int64_t>;
    const bool ip = GetParam().metric == faiss::METRIC_INNER_PRODUCT;
    const size_t nlist = GetParam().nlist;
    // Lists one by one into the same heaps: all of them in the end, whatever their guests (a run
    // that came as a guest must not come again, so only spill=never may be cut like that).
    const bool cut = GetParam().rule == SpillRule::never;
    Results got(queries, k);
    for (size_t i = 0; i < queries; i++) {
        float* distances = got.distances.data() + i * k;
        int64_t* labels = got.labels.data() + i * k;
        if (ip) {
            faiss::heap_heapify<Smallest>(k, distances, labels);
            faiss::heap_replace_top<Smallest>(k, distances, labels, 1e20f, 777777);
        } else {
            faiss::heap_heapify<Largest>(k, distances, labels);
            faiss::heap_replace_top<Largest>(k, distances, labels, -1, 777777);
        }
    }
    index_->parallel_mode = index_->PARALLEL_MODE_NO_HEAP_INIT;
    const size_t width = cut ? 1 : nlist;
    faiss::SearchParametersIVF params;
    params.nprobe = width;
    for (size_t first = 0; first < nlist; first += width) {
        std::vector<int64_t> keys(queries * width);
        for (size_t i = 0; i < keys.size(); i++) {
            keys[i] = static_cast<int64_t>(first + i % width);
        }
        const std::vector<float> coarse = distances_to(keys);
        index_->search_preassigned(
                queries,
                queries_.data(),
                k,
                keys.data(),
                coarse.data(),
                got.distances.data(),
                got.labels.data(),
                false,
                &params);
    }
    index_->parallel_mode = 0;
    index_->nprobe = nlist;
    const Results all = search(*index_, queries_, k);
    for (size_t i = 0; i < queries; i++) {
        float* distances = got.distances.data() + i * k;
        int64_t* labels = got.labels.data() + i * k;
        if (ip) {
            faiss::heap_reorder<Smallest>(k, distances, labels);
        } else {
            faiss::heap_reorder<Largest>(k, distances, labels);
        }
        ASSERT_EQ(labels[0], 777777); // what was there before stays, and counts
        for (size_t j = 1; j < k; j++) {
            ASSERT_EQ(distances[j], all.distances[i * k + j - 1]);
        }
    }
}

TEST_P(Preassigned, MaxCodesCapsEntries) {
    const std::vector<int64_t> keys = random_keys(8, false);
    for (const size_t cap : {1, 40, 333}) {
        index_->log->clear();
        expect_sound(oracle_, queries_, search_keys(*index_, keys, false, nullptr, cap));
        for (const auto& query : index_->log->codes()) {
            EXPECT_LE(query.second.size(), cap);
        }
        EXPECT_LE(index_->log->total(), queries * cap);
        EXPECT_GE(index_->log->total(), (queries - 1) * std::min<size_t>(cap, 40));
    }
}

TEST_P(Preassigned, KeysThatDoNotExistAreRefused) {
    for (const int64_t wrong : {static_cast<int64_t>(GetParam().nlist), int64_t{1} << 40}) {
        std::vector<int64_t> keys = random_keys(3, false);
        keys[7] = wrong;
        std::vector<float> coarse(keys.size(), 1.0f);
        Results got(queries, k);
        faiss::SearchParametersIVF params;
        params.nprobe = 3;
        const auto call = [&] {
            index_->search_preassigned(
                    queries,
                    queries_.data(),
                    k,
                    keys.data(),
                    coarse.data(),
                    got.distances.data(),
                    got.labels.data(),
                    false,
                    &params);
        };
        expect_four_parts(refusal(call), std::to_string(wrong));
    }
    expect_sound(oracle_, queries_, search_keys(*index_, random_keys(3, false)));
}

class PreassignedWithoutSpill : public Preassigned {};

TEST_P(PreassignedWithoutSpill, EqualsIndexIVFFlat) {
    const size_t d = GetParam().d;
    faiss::IndexIVFFlat stock(index_->quantizer, d, GetParam().nlist, GetParam().metric);
    stock.is_trained = true;
    std::vector<int64_t> homes(rows);
    index_->quantizer->assign(rows, base_.data(), homes.data());
    stock.add_core(rows, base_.data(), nullptr, homes.data());
    for (const size_t width : {1, 2, 7, 16}) {
        const std::vector<int64_t> keys = random_keys(width, false);
        expect_equal_up_to_ties(search_keys(*index_, keys), search_keys(stock, keys));
        const faiss::IDSelectorRange half(0, rows / 2);
        expect_equal_up_to_ties(
                search_keys(*index_, keys, false, &half), search_keys(stock, keys, false, &half));
    }
    // The same from floats, within rounding.
    const auto base = float_rows(rows, d, seed_), asked = float_rows(queries, d, seed_ + 1);
    auto floats = GetParam().trained(base);
    floats->add(rows, base.data());
    queries_ = asked;
    faiss::IndexIVFFlat stock_floats(floats->quantizer, d, GetParam().nlist, GetParam().metric);
    stock_floats.is_trained = true;
    floats->quantizer->assign(rows, base.data(), homes.data());
    stock_floats.add_core(rows, base.data(), nullptr, homes.data());
    const std::vector<int64_t> keys = random_keys(6, false);
    const Results ours = search_keys(*floats, keys), theirs = search_keys(stock_floats, keys);
    for (size_t i = 0; i < ours.distances.size(); i++) {
        EXPECT_NEAR(ours.distances[i], theirs.distances[i], 1e-5 * std::abs(theirs.distances[i]));
    }
}

INSTANTIATE_TEST_SUITE_P(All, Preassigned, testing::ValuesIn(shared_setups()), setup_name);

std::vector<IndexSetup> setups_without_spill() {
    std::vector<IndexSetup> setups;
    for (const IndexSetup& setup : shared_setups()) {
        if (setup.rule == SpillRule::never) {
            setups.push_back(setup);
        }
    }
    return setups;
}
INSTANTIATE_TEST_SUITE_P(
        All, PreassignedWithoutSpill, testing::ValuesIn(setups_without_spill()), setup_name);

} // namespace
} // namespace faiss_gmm
