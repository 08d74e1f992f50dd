// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The choice of runs and of vectors against a walk over the directory, one slot at a time.
#include "faiss_gmm/runs/choose.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "faiss_gmm/runs/sketch_scan.h"
#include "run_fixture.h"
#include "tests/seed.h"

namespace faiss_gmm {
namespace {

using RunName = std::pair<int32_t, uint32_t>; // home, number within it

/// 16-bit score of one slot of a block, by the definition.
uint32_t slot_score(
        const BlockLayout& layout,
        const uint8_t* block,
        size_t slot,
        const uint8_t* tables,
        uint16_t constant_scale,
        uint32_t base) {
    std::vector<uint8_t> codes(layout.codes);
    layout.get_codes(block, slot, codes.data());
    uint32_t score = base;
    for (size_t m = 0; m < layout.codes; m++) {
        score += tables[m * 16 + codes[m]];
    }
    score += static_cast<uint32_t>(layout.get_constant(block, slot)) * constant_scale >> 16;
    return std::min<uint32_t>(score, saturated_score);
}

struct Case {
    size_t d, nlist, max_lists;
    bool inner_product;
};
void PrintTo(const Case& c, std::ostream* out) {
    *out << "d " << c.d << ", nlist " << c.nlist << ", max_lists " << c.max_lists
         << (c.inner_product ? ", inner product" : "");
}

class Choose : public testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        lists_.add(mixed_rows(2500, GetParam().d, seed_ + 1), 0);
        lists_.add(mixed_rows(150, GetParam().d, seed_ + 2), 2500); // some appended
        lists_.lists->check(lists_.decoder());
    }
    /// Some lists, nearest first, a few of them -1.
    std::vector<int64_t> some_lists(const PreparedQuery& query, size_t count) {
        std::vector<int64_t> all(GetParam().nlist);
        for (size_t l = 0; l < all.size(); l++) {
            all[l] = static_cast<int64_t>(l);
        }
        std::shuffle(all.begin(), all.end(), random_);
        all.resize(count);
        const HomeDistances homes(lists_.codec(), nullptr, query.centred.data());
        std::sort(all.begin(), all.end(), [&](int64_t a, int64_t b) {
            return GetParam().inner_product ? homes(a) > homes(b) : homes(a) < homes(b);
        });
        for (size_t p = 1; p < count; p += 3) {
            if (random_() % 2 == 0) {
                all[p] = -1;
            }
        }
        return all;
    }
    /// Every run that these lists reach, own or guest, with its score by the definition.
    std::map<RunName, uint32_t>
    reached(const PreparedQuery& query, const ProbedLists& probed, const HomeDistances& homes) {
        const RunDirectory& directory = lists_.lists->directory();
        const BlockLayout layout = lists_.codec().summary_layout();
        const auto base = [&](int32_t home) {
            float above = homes(home) - probed.distance[0];
            above = GetParam().inner_product ? -above : above;
            return std::max(0.0f, above) * query.tables.scale;
        };
        std::map<RunName, uint32_t> runs;
        const auto meet = [&](int32_t home, uint32_t run) {
            const ListRuns& list = directory.lists[home];
            runs[{home, run}] = slot_score(
                    layout,
                    list.summaries.data() + run / run_size * layout.bytes(),
                    run % run_size,
                    query.tables.summary.data(),
                    query.tables.summary_scale,
                    static_cast<uint32_t>(std::min(base(home), 65534.0f)));
        };
        for (size_t p = 0; p < probed.n; p++) {
            if (probed.list[p] < 0) {
                continue;
            }
            const ListRuns& list = directory.lists[probed.list[p]];
            for (uint32_t run = 0; run < list.runs(); run++) {
                meet(static_cast<int32_t>(probed.list[p]), run);
            }
            for (const Guest& guest : list.guests) {
                meet(guest.home, guest.run);
            }
        }
        return runs;
    }

    const uint64_t seed_ = test_seed();
    std::mt19937_64 random_{seed_};
    ListsOfRuns lists_{
            GetParam().d, GetParam().nlist, GetParam().max_lists, GetParam().inner_product, seed_};
};

TEST_P(Choose, TakesTheBestRunsOnceEachWithinTheBudget) {
    const RunDirectory& directory = lists_.lists->directory();
    const std::vector<float> queries = mixed_rows(12, GetParam().d, seed_ + 3);
    ChoiceScratch scratch; // one for all: nothing of a query may show in the next
    std::vector<ChosenRun> chosen;
    size_t guests_chosen = 0;
    for (size_t q = 0; q < 12; q++) {
        const PreparedQuery query(lists_, queries.data() + q * GetParam().d);
        for (const size_t count : {size_t{1}, size_t{3}, GetParam().nlist}) {
            const std::vector<int64_t> keys = some_lists(query, count);
            const std::vector<float> distances = query.distances_to(lists_, keys);
            const ProbedLists probed{count, keys.data(), distances.data()};
            const HomeDistances homes(lists_.codec(), nullptr, query.centred.data());
            const std::map<RunName, uint32_t> truth = reached(query, probed, homes);
            uint32_t least = 65535, most = 0;
            for (const auto& [run, score] : truth) {
                least = std::min(least, score);
                most = std::max(most, score);
            }
            uint32_t width = 64; // of one of the 128 buckets, where scores spread further
            while (most > least && (most - least) / width >= 128) {
                width *= 2;
            }
            for (const size_t budget : {0, 1, 32, 33, 200, 1000, 100000}) {
                const ChoiceCounts counts = choose_runs(
                        directory,
                        lists_.codec(),
                        query.tables,
                        probed,
                        homes,
                        budget,
                        scratch,
                        chosen);
                EXPECT_EQ(counts.summaries, truth.size());
                std::set<RunName> seen;
                size_t vectors = 0, last = 0;
                for (const ChosenRun& run : chosen) {
                    EXPECT_LT(vectors, budget) << "a run more than needed";
                    ASSERT_TRUE(seen.insert({run.home, run.run}).second) << "a run twice";
                    const auto found = truth.find({run.home, run.run});
                    ASSERT_NE(found, truth.end());
                    ASSERT_EQ(run.size, directory.lists[run.home].size_of_run(run.run));
                    // The base is rounded down twice at most, here or there.
                    ASSERT_LE(std::abs(static_cast<int>(run.score - found->second)), 1);
                    EXPECT_GT(run.score + width, last) << "not in the order of buckets";
                    vectors += run.size;
                    last = run.score;
                    guests_chosen += std::find(keys.begin(), keys.end(), run.home) == keys.end();
                }
                EXPECT_EQ(counts.vectors, vectors);
                size_t all = 0;
                uint32_t worst = 0;
                for (const ChosenRun& run : chosen) {
                    worst = std::max<uint32_t>(worst, run.score);
                }
                for (const auto& [run, score] : truth) {
                    all += directory.lists[run.first].size_of_run(run.second);
                    // What was left is not better than what was taken, to the rounding of bases.
                    if (seen.count(run) == 0) {
                        EXPECT_GE(score + 2, worst);
                    }
                }
                EXPECT_EQ(vectors >= budget || vectors == all, true);
            }
        }
    }
    EXPECT_EQ(guests_chosen > 0, GetParam().max_lists > 1);
}

TEST_P(Choose, ScoresFollowTheDistancesOfTheVectors) {
    // The 16-bit scores of the vectors of all runs must correlate with their true distances.
    const std::vector<float> queries = mixed_rows(6, GetParam().d, seed_ + 4);
    const size_t nlist = GetParam().nlist, d = GetParam().d;
    for (size_t q = 0; q < 6; q++) {
        const float* x = queries.data() + q * d;
        const PreparedQuery query(lists_, x);
        std::vector<int64_t> keys = some_lists(query, nlist);
        keys.erase(std::remove(keys.begin(), keys.end(), -1), keys.end());
        const std::vector<float> distances = query.distances_to(lists_, keys);
        const HomeDistances homes(lists_.codec(), nullptr, query.centred.data());
        ChoiceScratch scratch;
        std::vector<ChosenRun> chosen;
        choose_runs(
                lists_.lists->directory(),
                lists_.codec(),
                query.tables,
                {keys.size(), keys.data(), distances.data()},
                homes,
                1000000,
                scratch,
                chosen);
        ScanScratch scan_scratch;
        std::vector<Candidate> candidates;
        scan_sketches(
                lists_.codec(),
                query.tables,
                chosen,
                1000000,
                nullptr,
                *lists_.lists,
                scan_scratch,
                candidates);
        size_t visited = 0;
        for (const ChosenRun& run : chosen) {
            visited += run.size;
        }
        double mean_s = 0, mean_t = 0, ss = 0, tt = 0, st = 0;
        size_t n = 0;
        std::vector<double> scores, truths;
        for (const Candidate& candidate : candidates) {
            const auto* row = reinterpret_cast<const float*>(
                    lists_.lists->get_single_code(candidate.home, candidate.entry));
            if (candidate.score < 20000) { // saturated ones tell nothing
                scores.push_back(candidate.score);
                truths.push_back(
                        GetParam().inner_product ? -dot(d, x, row) : squared_distance(d, x, row));
                mean_s += scores.back();
                mean_t += truths.back();
                n++;
            }
        }
        ASSERT_GT(n, 100u);
        EXPECT_LE(candidates.size(), visited);
        mean_s /= static_cast<double>(n);
        mean_t /= static_cast<double>(n);
        for (size_t i = 0; i < n; i++) {
            ss += (scores[i] - mean_s) * (scores[i] - mean_s);
            tt += (truths[i] - mean_t) * (truths[i] - mean_t);
            st += (scores[i] - mean_s) * (truths[i] - mean_t);
        }
        EXPECT_GT(st / std::sqrt(ss * tt), 0.8) << "query " << q;
    }
}

TEST_P(Choose, SketchScanKeepsTheBestSelected) {
    const std::vector<float> queries = mixed_rows(5, GetParam().d, seed_ + 5);
    const RunDirectory& directory = lists_.lists->directory();
    const BlockLayout layout = lists_.codec().sketch_layout();
    for (size_t q = 0; q < 5; q++) {
        const PreparedQuery query(lists_, queries.data() + q * GetParam().d);
        const std::vector<int64_t> keys = some_lists(query, GetParam().nlist);
        const std::vector<float> distances = query.distances_to(lists_, keys);
        const HomeDistances homes(lists_.codec(), nullptr, query.centred.data());
        ChoiceScratch scratch;
        std::vector<ChosenRun> chosen;
        choose_runs(
                directory,
                lists_.codec(),
                query.tables,
                {keys.size(), keys.data(), distances.data()},
                homes,
                1500,
                scratch,
                chosen);
        const faiss::IDSelectorRange some(100, 900);
        for (const faiss::IDSelector* selector :
             {static_cast<const faiss::IDSelector*>(nullptr),
              static_cast<const faiss::IDSelector*>(&some)}) {
            std::vector<uint32_t> truth; // scores of all that are selected
            size_t visited = 0;
            std::map<std::pair<int32_t, uint32_t>, uint32_t> score_of;
            for (const ChosenRun& run : chosen) {
                const uint8_t* block =
                        directory.lists[run.home].sketches.data() + run.run * layout.bytes();
                for (uint32_t slot = 0; slot < run.size; slot++) {
                    const uint32_t entry = run.run * run_size + slot;
                    const uint32_t score = slot_score(
                            layout,
                            block,
                            slot,
                            query.tables.sketch.data(),
                            query.tables.sketch_scale,
                            run.score);
                    visited++;
                    const int64_t id = lists_.lists->get_single_id(run.home, entry);
                    if (selector == nullptr || selector->is_member(id)) {
                        truth.push_back(score);
                        score_of[{run.home, entry}] = score;
                    }
                }
            }
            std::sort(truth.begin(), truth.end());
            for (const size_t keep : {1, 7, 100, 5000}) {
                ScanScratch scan_scratch;
                std::vector<Candidate> candidates;
                const ScanCounts counts = scan_sketches(
                        lists_.codec(),
                        query.tables,
                        chosen,
                        keep,
                        selector,
                        *lists_.lists,
                        scan_scratch,
                        candidates);
                EXPECT_EQ(counts.sketches, visited);
                EXPECT_EQ(counts.skipped > 0, selector != nullptr);
                ASSERT_EQ(candidates.size(), std::min(keep, truth.size()));
                std::vector<uint32_t> got;
                std::set<std::pair<int32_t, uint32_t>> seen;
                for (const Candidate& candidate : candidates) {
                    ASSERT_TRUE(seen.insert({candidate.home, candidate.entry}).second);
                    ASSERT_EQ(score_of.at({candidate.home, candidate.entry}), candidate.score);
                    got.push_back(candidate.score);
                }
                std::sort(got.begin(), got.end());
                EXPECT_TRUE(std::equal(got.begin(), got.end(), truth.begin()));
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(
        All,
        Choose,
        testing::Values(
                Case{16, 16, 1, false},
                Case{16, 16, 2, false},
                Case{25, 12, 4, false},
                Case{7, 40, 3, false},
                Case{16, 16, 2, true},
                Case{33, 9, 5, true}));

} // namespace
} // namespace faiss_gmm
