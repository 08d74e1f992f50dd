// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Random operations on two indices of one training, each beside a map searched by brute force; check() after
// each. A failure says how to have it again.
#include <numeric>

#include <gtest/gtest.h>

#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t operations = 10000, most_rows = 900;

class Model : public testing::TestWithParam<IndexSetup> {
protected:
    struct Side {
        Side(std::unique_ptr<CountingIndex> trained, const IndexSetup& setup)
                : index(std::move(trained)), oracle(setup.d, setup.metric) {}
        std::unique_ptr<CountingIndex> index;
        Oracle oracle;
    };
    struct Operation {
        const char* name;
        size_t weight;
        void (Model::*run)();
        size_t at_least; ///< times that it must have done something, in a sequence
        bool with_copies = true;
    };

    void SetUp() override {
        const std::vector<float> x = whole_rows(1500, d_, seed_);
        ours_ = std::make_unique<Side>(GetParam().trained(x), GetParam());
        other_ = std::make_unique<Side>(GetParam().trained(x), GetParam());
    }

    void run() {
        const std::vector<Operation> all = {
                {"add_with_ids", 150, &Model::add_with_ids, 100},
                {"add", 60, &Model::add, 2},
                {"search", 180, &Model::search_once, 200},
                {"search_and_reconstruct", 60, &Model::search_and_reconstruct, 60},
                {"range_search", 80, &Model::range_search, 80},
                {"remove_ids", 130, &Model::remove, 100},
                {"update_vectors", 80, &Model::update, 10, false},
                {"update_vectors refused", 15, &Model::update_refused, 10},
                {"reconstruct", 40, &Model::reconstruct, 7, false},
                {"reconstruct_n", 40, &Model::reconstruct_n, 40},
                {"set_direct_map_type", 15, &Model::change_map, 7, false},
                {"merge_from", 30, &Model::merge, 10},
                {"copy_subset_to", 30, &Model::copy_subset, 10},
                {"compact", 30, &Model::compact, 30},
                {"reset", 6, &Model::reset, 2},
                {"the other one", 60, &Model::change_sides, 60},
        };
        std::vector<double> weights;
        for (const Operation& operation : all) {
            weights.push_back(static_cast<double>(operation.weight));
        }
        std::discrete_distribution<size_t> pick(weights.begin(), weights.end());
        std::map<std::string, size_t> done;
        for (size_t step = 0; step < operations && !HasFailure(); step++) {
            const Operation& operation = all[pick(random_)];
            SCOPED_TRACE(testing::Message() << "operation " << step << ", " << operation.name);
            did_something_ = false;
            (this->*operation.run)();
            done[operation.name] += did_something_;
            for (const Side* side : {ours_.get(), other_.get()}) {
                ASSERT_EQ(refusal([&] { side->index->check(); }), "");
                const faiss::DirectMap& map = side->index->direct_map;
                if (map.type == faiss::DirectMap::Hashtable) {
                    ASSERT_EQ(map.hashtable.size(), side->oracle.rows.size());
                }
                ASSERT_EQ(side->index->ntotal, static_cast<int64_t>(side->oracle.rows.size()));
            }
            largest_ = std::max(largest_, oracle().rows.size());
        }
        EXPECT_GT(largest_, most_rows / 3);
        for (const Operation& operation : all) {
            if (operation.with_copies || !copies_) {
                EXPECT_GE(done[operation.name], operation.at_least) << operation.name;
            }
        }
    }

    void TearDown() override {
        if (HasFailure()) {
            const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
            std::cout << "again: FAISS_GMM_TEST_SEED=" << seed_
                      << " index_model_test --gtest_filter=" << test->test_suite_name() << "."
                      << test->name() << "\n";
        }
    }

private:
    CountingIndex& index() const {
        return *ours_->index;
    }
    Oracle& oracle() const {
        return ours_->oracle;
    }
    faiss::DirectMap::Type map() const {
        return index().direct_map.type;
    }
    /// Above every id of both sides.
    int64_t fresh_id() const {
        int64_t id = 0;
        for (const Side* side : {ours_.get(), other_.get()}) {
            if (!side->oracle.rows.empty()) {
                id = std::max(id, side->oracle.rows.rbegin()->first + 1);
            }
        }
        return id;
    }
    std::vector<float> rows_with_duplicates(size_t n) {
        std::vector<float> x = whole_rows(n, d_, random_());
        for (size_t i = 1; i < n; i++) {
            if (random_() % 10 == 0) {
                std::copy_n(x.begin() + (i - 1) * d_, d_, x.begin() + i * d_);
            }
        }
        return x;
    }
    size_t how_many() {
        return 1 + random_() % (random_() % 8 == 0 ? 200 : 20);
    }
    std::vector<int64_t> some_ids(size_t most) {
        std::vector<int64_t> ids;
        for (const auto& row : oracle().rows) {
            ids.push_back(row.first);
        }
        std::shuffle(ids.begin(), ids.end(), random_);
        ids.resize(std::min(ids.size(), 1 + random_() % most));
        return ids;
    }

    void add_with_ids() {
        const size_t n = how_many();
        if (map() == faiss::DirectMap::Array || oracle().rows.size() + n > most_rows) {
            return;
        }
        const std::vector<float> x = rows_with_duplicates(n);
        std::vector<int64_t> ids(n);
        int64_t next = fresh_id();
        for (int64_t& id : ids) {
            id = next;
            next += 1 + static_cast<int64_t>(random_() % 3);
        }
        std::shuffle(ids.begin(), ids.end(), random_);
        index().add_with_ids(static_cast<int64_t>(n), x.data(), ids.data());
        oracle().add(n, x.data(), ids.data());
        did_something_ = true;
    }
    /// Ids from ntotal on, where none of them is taken.
    void add() {
        const size_t n = how_many();
        const auto first = static_cast<int64_t>(oracle().rows.size());
        const bool taken = first > 0 && oracle().rows.rbegin()->first >= first;
        if (taken || oracle().rows.size() + n > most_rows) {
            return;
        }
        const std::vector<float> x = rows_with_duplicates(n);
        std::vector<int64_t> ids(n);
        std::iota(ids.begin(), ids.end(), first);
        index().add(static_cast<int64_t>(n), x.data());
        oracle().add(n, x.data(), ids.data());
        did_something_ = true;
    }

    void remove() {
        if (oracle().rows.empty()) {
            return;
        }
        const int64_t lowest = oracle().rows.begin()->first, end = fresh_id();
        const int64_t from = lowest + static_cast<int64_t>(random_() % (end - lowest));
        const int64_t width = random_() % 20 == 0 ? 300 : 1 + static_cast<int64_t>(random_() % 30);
        const std::vector<int64_t> ids = some_ids(30);
        const faiss::IDSelectorRange range(from, from + width);
        const faiss::IDSelectorArray array(ids.size(), ids.data());
        const faiss::IDSelectorBatch batch(ids.size(), ids.data());
        std::vector<uint8_t> bits((end + 7) / 8);
        for (const int64_t id : ids) {
            bits[id / 8] |= 1 << id % 8;
        }
        const faiss::IDSelectorBitmap bitmap(static_cast<size_t>(end), bits.data());
        const faiss::IDSelectorNot none_of_them(&bitmap);
        const faiss::IDSelectorAll all;
        const uint64_t kind = random_() % 150;
        if (map() == faiss::DirectMap::Array) {
            EXPECT_NE(refusal([&] { index().remove_ids(range); }), "");
        } else if (map() == faiss::DirectMap::Hashtable) {
            EXPECT_NE(refusal([&] { index().remove_ids(range); }), "");
            expect_removes(array);
        } else if (kind < 60) {
            expect_removes(range);
        } else if (kind < 90) {
            expect_removes(array);
        } else if (kind < 120) {
            expect_removes(batch);
        } else if (kind < 148) {
            expect_removes(bitmap);
        } else if (kind == 148) {
            expect_removes(none_of_them);
        } else {
            expect_removes(all);
        }
    }
    void expect_removes(const faiss::IDSelector& selector) {
        size_t expected = 0;
        for (auto row = oracle().rows.begin(); row != oracle().rows.end();) {
            const bool member = selector.is_member(row->first);
            expected += member;
            row = member ? oracle().rows.erase(row) : std::next(row);
        }
        EXPECT_EQ(index().remove_ids(selector), expected);
        did_something_ = expected > 0;
    }

    void update() {
        if (map() == faiss::DirectMap::NoMap || oracle().rows.empty()) {
            return;
        }
        const std::vector<int64_t> ids = some_ids(30);
        const std::vector<float> x = rows_with_duplicates(ids.size());
        index().update_vectors(static_cast<int>(ids.size()), ids.data(), x.data());
        oracle().add(ids.size(), x.data(), ids.data());
        did_something_ = true;
    }
    /// Without a map, and of ids that are not there: nothing changes.
    void update_refused() {
        if (oracle().rows.empty()) {
            return;
        }
        std::vector<int64_t> ids = some_ids(10);
        ids.insert(ids.begin() + random_() % (ids.size() + 1), fresh_id());
        const std::vector<float> x = rows_with_duplicates(ids.size());
        const std::string message = refusal([&] {
            index().update_vectors(static_cast<int>(ids.size()), ids.data(), x.data());
        });
        if (copies_) {
            expect_four_parts(message, "storage=copies");
        } else if (map() != faiss::DirectMap::NoMap) {
            expect_four_parts(message, std::to_string(fresh_id()));
        } else {
            expect_four_parts(message, "without a direct map");
        }
        did_something_ = true;
    }

    void reconstruct() {
        if (map() == faiss::DirectMap::NoMap || oracle().rows.empty()) {
            return;
        }
        std::vector<float> row(d_);
        for (const int64_t id : some_ids(10)) {
            index().reconstruct(id, row.data());
            ASSERT_EQ(row, oracle().rows.at(id)) << "id " << id;
        }
        EXPECT_NE(refusal([&] { index().reconstruct(fresh_id(), row.data()); }), "");
        did_something_ = true;
    }
    void reconstruct_n() {
        const auto total = static_cast<int64_t>(oracle().rows.size());
        const int64_t first = static_cast<int64_t>(random_() % (total + 1));
        const int64_t n = static_cast<int64_t>(random_() % (total - first + 1));
        const std::vector<float> untouched(d_, 12345);
        std::vector<float> got(n * d_, 12345);
        index().reconstruct_n(first, n, got.data());
        for (int64_t i = 0; i < n; i++) {
            const auto row = oracle().rows.find(first + i);
            const std::vector<float>& expected =
                    row != oracle().rows.end() ? row->second : untouched;
            ASSERT_TRUE(std::equal(expected.begin(), expected.end(), got.begin() + i * d_))
                    << "id " << first + i;
        }
        did_something_ = true;
    }
    void change_map() {
        if (copies_ || map() == faiss::DirectMap::Array) {
            return;
        }
        index().set_direct_map_type(
                map() == faiss::DirectMap::NoMap ? faiss::DirectMap::Hashtable
                                                 : faiss::DirectMap::NoMap);
        did_something_ = true;
    }

    void merge() {
        if (map() != faiss::DirectMap::NoMap ||
            other_->index->direct_map.type != faiss::DirectMap::NoMap) {
            EXPECT_NE(refusal([&] { index().merge_from(*other_->index, 0); }), "");
            return;
        }
        if (oracle().rows.size() + other_->oracle.rows.size() > most_rows) {
            return;
        }
        const int64_t shift = fresh_id();
        index().merge_from(*other_->index, shift);
        for (const auto& [id, row] : other_->oracle.rows) {
            oracle().rows[id + shift] = row;
        }
        did_something_ = !other_->oracle.rows.empty();
        other_->oracle.rows.clear();
    }
    /// Into the other index, emptied: of a range of ids, of a remainder, of the lists' order.
    void copy_subset() {
        other_->index->reset();
        other_->index->set_direct_map_type(faiss::DirectMap::NoMap);
        other_->oracle.rows.clear();
        const auto total = static_cast<int64_t>(oracle().rows.size());
        const auto kind = static_cast<int>(random_() % 3);
        int64_t a = static_cast<int64_t>(random_() % (total + 1));
        int64_t b = a + static_cast<int64_t>(random_() % (total - a + 1));
        const auto type = static_cast<FAISS_GMM_SUBSET_TYPE>(kind);
        if (kind == 1) {
            a = 2 + static_cast<int64_t>(random_() % 3);
            b = static_cast<int64_t>(random_() % 2);
        }
        const auto copy = [&] { index().copy_subset_to(*other_->index, type, a, b); };
        if (copies_ && kind == 2) { // a vector's copies would come apart
            expect_four_parts(refusal(copy), "storage=copies");
            did_something_ = true;
            return;
        }
        copy();
        if (kind == 2) { // which ones is the lists' affair, whose shares are rounded
            ASSERT_NEAR(other_->index->ntotal, b - a, index().nlist);
            for (size_t l = 0; l < index().nlist; l++) {
                const faiss::InvertedLists::ScopedIds ids(other_->index->invlists, l);
                for (size_t i = 0; i < other_->index->invlists->list_size(l); i++) {
                    other_->oracle.rows[ids[i]] = oracle().rows.at(ids[i]);
                }
            }
        }
        for (const auto& [id, row] : oracle().rows) {
            if ((kind == 0 && a <= id && id < b) || (kind == 1 && id % a == b)) {
                other_->oracle.rows[id] = row;
            }
        }
        did_something_ = !other_->oracle.rows.empty();
    }

    void compact() {
        index().compact();
        did_something_ = true;
        if (copies_) {
            return;
        }
        for (size_t l = 0; l < index().nlist; l++) {
            const ListRuns& list = index().run_lists()->directory().lists[l];
            ASSERT_EQ(list.split_entries, index().invlists->list_size(l));
        }
    }
    void reset() {
        index().reset();
        oracle().rows.clear();
        const auto type = static_cast<faiss::DirectMap::Type>(random_() % 3);
        index().set_direct_map_type(copies_ ? faiss::DirectMap::NoMap : type);
        did_something_ = true;
    }
    void change_sides() {
        std::swap(ours_, other_);
        did_something_ = true;
    }

    IVFGMMSearchParameters random_parameters() {
        IVFGMMSearchParameters params;
        const size_t nlist = GetParam().nlist;
        params.nprobe = random_() % 3 == 0 ? nlist : 1 + random_() % nlist;
        params.probe_expansion = static_cast<float>(random_() % 4);
        params.k_factor = static_cast<float>(random_() % 4);
        if (random_() % 4 == 0) {
            const int64_t end = fresh_id();
            upper_half_ = std::make_unique<faiss::IDSelectorRange>(end / 2, end);
            params.sel = upper_half_.get();
        }
        return params;
    }
    void expect_found(
            const std::vector<float>& asked,
            const Results& got,
            const IVFGMMSearchParameters& params) {
        index().log->expect_none_twice();
        if (params.nprobe == GetParam().nlist) {
            expect_exact(oracle(), asked, got, 0, params.sel);
        } else {
            expect_sound(oracle(), asked, got, 0, params.sel);
        }
        did_something_ = !oracle().rows.empty();
    }
    void search_once() {
        const std::vector<float> asked = whole_rows(1 + random_() % 2, d_, random_());
        const IVFGMMSearchParameters params = random_parameters();
        index().log->clear();
        expect_found(asked, search(index(), asked, 1 + random_() % 12, &params), params);
    }
    void search_and_reconstruct() {
        const size_t k = 1 + random_() % 12;
        const std::vector<float> asked = whole_rows(1, d_, random_());
        const IVFGMMSearchParameters params = random_parameters();
        Results got(1, k);
        std::vector<float> rows(k * d_);
        index().log->clear();
        index().search_and_reconstruct(
                1,
                asked.data(),
                static_cast<int64_t>(k),
                got.distances.data(),
                got.labels.data(),
                rows.data(),
                &params);
        expect_found(asked, got, params);
        for (size_t j = 0; j < k && got.labels[j] >= 0; j++) {
            const std::vector<float>& truth = oracle().rows.at(got.labels[j]);
            ASSERT_TRUE(std::equal(truth.begin(), truth.end(), rows.begin() + j * d_));
        }
    }
    void range_search() {
        const std::vector<float> asked = whole_rows(1, d_, random_());
        const std::vector<double> sorted = oracle().sorted(asked.data());
        if (sorted.empty()) {
            return;
        }
        const float radius = static_cast<float>(sorted[random_() % sorted.size()]);
        index().nprobe = random_parameters().nprobe;
        faiss::RangeSearchResult result(1);
        index().range_search(1, asked.data(), radius, &result);
        std::set<int64_t> found;
        for (size_t j = 0; j < result.lims[1]; j++) {
            ASSERT_TRUE(found.insert(result.labels[j]).second) << result.labels[j] << " twice";
            ASSERT_EQ(result.distances[j], oracle().distance(asked.data(), result.labels[j]));
            ASSERT_TRUE(oracle().better(result.distances[j], radius));
        }
        if (index().nprobe == GetParam().nlist) {
            const auto truly = std::count_if(sorted.begin(), sorted.end(), [&](double v) {
                return oracle().better(v, radius);
            });
            ASSERT_EQ(found.size(), static_cast<size_t>(truly));
        }
        did_something_ = true;
    }

    const uint64_t seed_ = test_seed();
    std::mt19937_64 random_{seed_};
    const size_t d_ = GetParam().d;
    const bool copies_ = GetParam().storage == SpillStorage::copies;
    std::unique_ptr<Side> ours_, other_;
    std::unique_ptr<faiss::IDSelectorRange> upper_half_;
    size_t largest_ = 0;
    bool did_something_ = false; ///< the operation at hand
};

TEST_P(Model, OfRandomOperationsAgrees) {
    run();
}

std::vector<IndexSetup> model_setups() {
    std::vector<IndexSetup> setups = all_setups();
    for (IndexSetup& setup : setups) { // few long lists, short rows
        setup.d = 6 + setup.d % 5;
        setup.nlist = 8;
    }
    return setups;
}
INSTANTIATE_TEST_SUITE_P(All, Model, testing::ValuesIn(model_setups()), setup_name);

} // namespace
} // namespace faiss_gmm
