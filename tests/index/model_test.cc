// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Ten thousand random operations against a map searched by brute force.
#include <numeric>

#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t operations = 10000, most_rows = 900, check_every = 250;

class Model : public testing::TestWithParam<IndexSetup> {
protected:
    void SetUp() override {
        d_ = GetParam().d;
        index_ = GetParam().trained(whole_rows(1500, d_, seed_));
    }

    void run() {
        for (size_t step = 0; step < operations; step++) {
            SCOPED_TRACE(testing::Message() << "operation " << step);
            const uint64_t what = random_() % 100;
            if (what < 22) {
                add(1 + random_() % (random_() % 8 == 0 ? 200 : 20));
            } else if (what < 70) {
                search_once();
            } else if (what < 78) {
                range_search_once();
            } else if (what < 96) {
                remove();
            } else if (what < 99) {
                index_->compact();
            } else if (random_() % 20 == 0) {
                index_->reset();
                oracle_.rows.clear();
            }
            if (step % check_every == 0 || step + 1 == operations) {
                index_->check();
                nprobe_ = GetParam().nlist;
                search_once();
            }
            if (HasFatalFailure() || HasNonfatalFailure()) {
                FAIL() << "FAISS_GMM_TEST_SEED=" << seed_;
            }
        }
        EXPECT_GT(searches_, operations / 4);
        EXPECT_GT(exact_, 300u);
        EXPECT_GT(added_, 5000u);
        EXPECT_GT(removed_, 4000u);
    }

private:
    void add(size_t n) {
        if (oracle_.rows.size() + n > most_rows) {
            return;
        }
        std::vector<float> x = whole_rows(n, d_, random_());
        std::vector<int64_t> ids(n);
        for (size_t i = 0; i < n; i++) {
            next_id_ += 1 + static_cast<int64_t>(random_() % 3);
            ids[i] = next_id_;
            if (i > 0 && random_() % 10 == 0) { // a duplicate
                std::copy_n(x.begin() + (i - 1) * d_, d_, x.begin() + i * d_);
            }
        }
        std::shuffle(ids.begin(), ids.end(), random_);
        index_->add_with_ids(static_cast<int64_t>(n), x.data(), ids.data());
        oracle_.add(n, x.data(), ids.data());
        ASSERT_EQ(index_->ntotal, static_cast<int64_t>(oracle_.rows.size()));
        added_ += n;
    }
    void remove() {
        // Around a random id: a few, or a hundred.
        if (oracle_.rows.empty()) {
            return;
        }
        const int64_t lowest = oracle_.rows.begin()->first;
        const int64_t from = lowest + static_cast<int64_t>(random_() % (next_id_ - lowest + 1));
        const int64_t width = random_() % 20 == 0 ? 300 : 1 + static_cast<int64_t>(random_() % 30);
        const auto begin = oracle_.rows.lower_bound(from);
        const auto end = oracle_.rows.lower_bound(from + width);
        const auto expected = static_cast<size_t>(std::distance(begin, end));
        oracle_.rows.erase(begin, end);
        ASSERT_EQ(index_->remove_ids(faiss::IDSelectorRange(from, from + width)), expected);
        ASSERT_EQ(index_->ntotal, static_cast<int64_t>(oracle_.rows.size()));
        removed_ += expected;
    }
    size_t random_nprobe() {
        const size_t nlist = GetParam().nlist;
        return random_() % 3 == 0 ? nlist : 1 + random_() % nlist;
    }
    void search_once() {
        const size_t n = 1 + random_() % 2, k = 1 + random_() % 12;
        const std::vector<float> asked = whole_rows(n, d_, random_());
        IVFGMMSearchParameters params;
        params.nprobe = nprobe_ > 0 ? nprobe_ : random_nprobe();
        params.probe_expansion = static_cast<float>(random_() % 4);
        params.k_factor = static_cast<float>(random_() % 4);
        faiss::IDSelectorRange selector(next_id_ / 2, next_id_);
        if (random_() % 4 == 0) {
            params.sel = &selector;
        }
        index_->log->clear();
        const Results got = search(*index_, asked, k, &params);
        index_->log->expect_none_twice();
        if (params.nprobe == GetParam().nlist) {
            expect_exact(oracle_, asked, got, 0, params.sel);
            exact_++;
        } else {
            expect_sound(oracle_, asked, got, 0, params.sel);
        }
        searches_++;
        nprobe_ = 0;
    }
    void range_search_once() {
        const std::vector<float> asked = whole_rows(1, d_, random_());
        const std::vector<double> sorted = oracle_.sorted(asked.data());
        if (sorted.empty()) {
            return;
        }
        const float radius = static_cast<float>(sorted[random_() % sorted.size()]);
        index_->nprobe = random_nprobe();
        faiss::RangeSearchResult result(1);
        index_->range_search(1, asked.data(), radius, &result);
        std::set<int64_t> found;
        for (size_t j = 0; j < result.lims[1]; j++) {
            ASSERT_TRUE(found.insert(result.labels[j]).second) << result.labels[j] << " twice";
            ASSERT_EQ(result.distances[j], oracle_.distance(asked.data(), result.labels[j]));
            ASSERT_TRUE(oracle_.better(result.distances[j], radius));
        }
        if (index_->nprobe == GetParam().nlist) {
            const auto truly = std::count_if(sorted.begin(), sorted.end(), [&](double v) {
                return oracle_.better(v, radius);
            });
            ASSERT_EQ(found.size(), static_cast<size_t>(truly));
        }
    }

    const uint64_t seed_ = test_seed();
    std::mt19937_64 random_{seed_};
    size_t d_ = 0, nprobe_ = 0;
    int64_t next_id_ = 0;
    Oracle oracle_{GetParam().d, GetParam().metric};
    std::unique_ptr<CountingIndex> index_;
    size_t searches_ = 0, exact_ = 0, added_ = 0, removed_ = 0;
};

TEST_P(Model, OfTenThousandOperationsAgrees) {
    run();
}

std::vector<IndexSetup> model_setups() {
    // A fraction of the runs (the default's rule) and all of them, every order, both storages, with
    // and without sketches.
    const std::set<std::string> chosen = {
            "always_4_air", "always_ip", "always_unsketched", "fraction_soar", "copies"};
    std::vector<IndexSetup> setups;
    for (IndexSetup setup : all_setups()) {
        if (chosen.count(setup.name) > 0) {
            setup.d = setup.name == "always_ip" ? 9 : 8;
            setup.nlist = 8;
            setups.push_back(setup);
        }
    }
    return setups;
}
INSTANTIATE_TEST_SUITE_P(All, Model, testing::ValuesIn(model_setups()), setup_name);

} // namespace
} // namespace faiss_gmm
