// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Half of the vectors leave and others come, in many small steps: what that costs in recall, and that compact()
// takes it back.
#include <numeric>

#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t k = 10, stored = 10000, more_queries = 1000, steps = 25,
                 a_step = stored / 2 / steps;

struct Measured {
    double recall = 0;
    double visited = 0; ///< vectors a query
    Results results;
};

class Churn : public testing::TestWithParam<SpillRule> {
protected:
    void SetUp() override {
        std::iota(ids_.begin(), ids_.end(), 0);
        // Rows that are never stored are queries too: a hundredth must show.
        queries_.insert(queries_.end(), row(data_.n - more_queries), row(data_.n));
        train(index_);
        add(index_, ids_);
        std::vector<int64_t> order = ids_;
        std::shuffle(order.begin(), order.end(), random_);
        for (size_t step = 0; step < steps; step++) {
            const int64_t* leaving = order.data() + step * a_step;
            ASSERT_EQ(index_.remove_ids(faiss::IDSelectorBatch(a_step, leaving)), a_step);
            std::vector<int64_t> coming(a_step);
            std::iota(coming.begin(), coming.end(), stored + step * a_step);
            add(index_, coming);
            std::copy(coming.begin(), coming.end(), order.begin() + step * a_step);
        }
        index_.check();
        ids_ = order;
        std::sort(ids_.begin(), ids_.end());
        for (size_t i = 0; i < stored; i++) {
            std::copy_n(row(ids_[i]), data_.d, alive_.data() + i * data_.d);
        }
        truth_ = exact_ground_truth(
                data_.d,
                stored,
                alive_.data(),
                queries_.size() / data_.d,
                queries_.data(),
                k,
                faiss::METRIC_L2);
    }
    const float* row(int64_t id) const {
        return data_.base.data() + id * data_.d;
    }
    void train(IndexIVFGMMFlat& index) const {
        index.visit_budget = VisitBudget::even; // equal nvisited
        index.spill.max_lists = 3;
        index.spill.rule = GetParam();
        index.train(stored, data_.base.data());
    }
    void add(IndexIVFGMMFlat& index, const std::vector<int64_t>& ids) const {
        std::vector<float> x;
        for (const int64_t id : ids) {
            x.insert(x.end(), row(id), row(id) + data_.d);
        }
        index.add_with_ids(static_cast<int64_t>(ids.size()), x.data(), ids.data());
    }
    Measured measured(IndexIVFGMMFlat& index, size_t nprobe) const {
        index.nprobe = nprobe;
        indexIVFGMM_stats.reset();
        Measured found{0, 0, search(index, queries_, k)};
        found.visited = static_cast<double>(indexIVFGMM_stats.nvisited) / double(found.results.n);
        std::vector<int64_t> places;
        for (const int64_t id : found.results.labels) {
            places.push_back(std::lower_bound(ids_.begin(), ids_.end(), id) - ids_.begin());
        }
        found.recall = RecallMeasure(
                               data_.d,
                               stored,
                               alive_.data(),
                               found.results.n,
                               queries_.data(),
                               truth_,
                               k,
                               faiss::METRIC_L2)
                               .recall(places.data());
        return found;
    }

    const Dataset data_ = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    std::mt19937_64 random_{test_seed()};
    IndexIVFGMMFlat index_{data_.d, 64};
    std::vector<int64_t> ids_ = std::vector<int64_t>(stored); ///< alive, ascending
    std::vector<float> alive_ = std::vector<float>(stored * data_.d);
    std::vector<float> queries_ = data_.query;
    GroundTruth truth_;
};

TEST_P(Churn, CostsAHundredthOfRecallAndCompactTakesItBack) {
    IndexIVFGMMFlat rebuilt(data_.d, 64), retrained(data_.d, 64);
    train(rebuilt);
    add(rebuilt, ids_);
    rebuilt.compact();
    retrained.spill = index_.spill;
    retrained.visit_budget = VisitBudget::even;
    retrained.train(stored, alive_.data());
    add(retrained, ids_);
    const std::vector<size_t> probed = {1, 2, 4, 8};
    // On average over nprobe: one alone has a hundredth of noise, and another mixture has other lists.
    double lost = 0, lost_to_training = 0, more_visited = 0;
    for (const size_t nprobe : probed) {
        SCOPED_TRACE(testing::Message() << "nprobe " << nprobe);
        const Measured churned = measured(index_, nprobe), whole = measured(rebuilt, nprobe);
        const Measured anew = measured(retrained, nprobe);
        EXPECT_NEAR(churned.visited, whole.visited, 0.02 * whole.visited);
        more_visited += (churned.visited / anew.visited - 1) / double(probed.size());
        EXPECT_GE(churned.recall, whole.recall - 0.02);
        lost += (whole.recall - churned.recall) / double(probed.size());
        EXPECT_LE(churned.recall, whole.recall + 0.005) << "a gain that churn cannot bring";
        lost_to_training += (anew.recall - churned.recall) / double(probed.size());
        EXPECT_GT(whole.recall, 0.4) << "there is something to lose";
    }
    EXPECT_LE(lost, 0.01);
    EXPECT_LE(lost_to_training, 0.02) << "another mixture, of the vectors there now";
    EXPECT_NEAR(more_visited, 0, 0.015) << "than with that mixture";
    index_.compact();
    index_.check();
    for (const size_t nprobe : {1, 4, 16, 64}) {
        const Measured compacted = measured(index_, nprobe), whole = measured(rebuilt, nprobe);
        EXPECT_EQ(compacted.results.labels, whole.results.labels) << "nprobe " << nprobe;
        EXPECT_EQ(compacted.results.distances, whole.results.distances) << "nprobe " << nprobe;
        EXPECT_EQ(compacted.visited, whole.visited) << "nprobe " << nprobe;
    }
}

INSTANTIATE_TEST_SUITE_P(
        Spill,
        Churn,
        testing::Values(SpillRule::fraction, SpillRule::always),
        [](const auto& info) {
            return std::string(info.param == SpillRule::always ? "always" : "fraction");
        });

} // namespace
} // namespace faiss_gmm
