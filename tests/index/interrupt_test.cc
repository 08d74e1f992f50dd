// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// FAISS's interrupt callback stops searches: between queries, and within a list as often as its period hint says.
#include <atomic>

#include <faiss/IndexFlat.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <gtest/gtest.h>

#include "faiss_gmm/index/interrupt.h"
#include "index_fixture.h"

namespace faiss_gmm {
namespace {

/// Wants it after so many questions.
class Callback : public faiss::InterruptCallback {
public:
    explicit Callback(size_t patience) : patience_(patience) {}
    bool want_interrupt() override {
        return asked++ >= patience_;
    }
    std::atomic<size_t> asked{0};

private:
    size_t patience_;
};

class Interrupt : public testing::Test {
protected:
    Callback* with_patience(size_t patience) {
        auto callback = std::make_unique<Callback>(patience);
        Callback* const raw = callback.get();
        faiss::InterruptCallback::instance = std::move(callback);
        return raw;
    }
    void TearDown() override {
        faiss::InterruptCallback::clear_instance();
    }
};

TEST_F(Interrupt, StopsEverySearchAndLeavesTheIndexGood) {
    constexpr size_t rows = 2000, queries = 200, k = 5;
    for (const IndexSetup& setup : all_setups()) {
        SCOPED_TRACE(setup.name);
        const auto base = whole_rows(rows, setup.d, 1), asked = whole_rows(queries, setup.d, 2);
        const auto index = setup.trained(base);
        index->add(rows, base.data());
        for (const size_t nprobe : {size_t{3}, setup.nlist}) {
            index->nprobe = nprobe;
            const Results before = search(*index, asked, k);
            const auto ranges = [&] {
                faiss::RangeSearchResult result(queries);
                index->range_search(queries, asked.data(), before.distances[0], &result);
            };
            for (const size_t patience : {0, 20}) {
                with_patience(patience);
                EXPECT_NE(refusal([&] { search(*index, asked, k); }), "") << patience;
                with_patience(patience);
                EXPECT_NE(refusal(ranges), "") << patience;
            }
            const Callback* patient = with_patience(1 << 30);
            EXPECT_EQ(search(*index, asked, k).labels, before.labels);
            EXPECT_GE(patient->asked, queries);
            faiss::InterruptCallback::clear_instance();
            EXPECT_EQ(search(*index, asked, k).labels, before.labels);
        }
        index->check();
    }
}

TEST_F(Interrupt, StopsTrainingAfterAnIteration) {
    const IndexSetup setup;
    const auto base = whole_rows(2000, setup.d, 1);
    IndexIVFGMMFlat index(setup.d, setup.nlist);
    index.training.tol = 0; // all iterations
    for (const size_t patience : {0, 2}) {
        Callback* callback = with_patience(patience);
        EXPECT_NE(refusal([&] { index.train(2000, base.data()); }), "");
        EXPECT_EQ(callback->asked, patience + 1);
        EXPECT_FALSE(index.is_trained);
        EXPECT_EQ(index.quantizer->ntotal, 0);
    }
    size_t told = 0;
    index.training.progress = [&](const TrainingProgress&) { return ++told < 3; };
    const Callback* patient = with_patience(1 << 30);
    index.train(2000, base.data());
    EXPECT_EQ(told, 3u) << "the caller's own callback is asked still";
    EXPECT_GE(patient->asked, 3u);
    index.add(2000, base.data());
    index.check();
}

TEST_F(Interrupt, StopsTrainingWithinAnIteration) {
    constexpr size_t rows = 150000, d = 4,
                     nlist = 3; // three pieces a pass, no step of fewer rows but the first
    const auto base = float_rows(rows, d, 1);
    IndexIVFGMMFlat index(d, nlist);
    index.training.max_points_per_component = 0;
    index.training.warm_start_iterations = 1;
    size_t iterations = 0;
    index.training.progress = [&](const TrainingProgress&) { return ++iterations > 0; };
    Callback* callback = with_patience(1); // of two questions within the first iteration
    EXPECT_NE(refusal([&] { index.train(rows, base.data()); }), "");
    EXPECT_EQ(callback->asked, 2u);
    EXPECT_EQ(iterations, 0u);
    EXPECT_FALSE(index.is_trained);
    callback = with_patience(1 << 30);
    index.train(rows, base.data());
    EXPECT_TRUE(index.is_trained);
    EXPECT_GE(callback->asked, 3 * iterations);
}

/// So many dimensions that the period hint asks within a list, and codes of a byte.
struct Wide : faiss::IndexIVF {
    Wide(faiss::Index* quantizer, size_t dimensions, size_t lists)
            : faiss::IndexIVF(quantizer, dimensions, lists, 1) {}

    std::shared_ptr<ScanLog> log = std::make_shared<ScanLog>();

    struct Scanner : faiss::InvertedListScanner {
        void set_query(const float*) override {}
        void set_list(int64_t list, float) override {
            list_no = list;
        }
        float distance_to_code(const uint8_t* code) const override {
            return *code;
        }
        size_t scan_codes(size_t n, const uint8_t*, const int64_t*, FAISS_GMM_RESULTS_PARAMETER)
                const override {
            scanned += n;
            return 0;
        }
    };
    static std::atomic<size_t> scanned;

    faiss::InvertedListScanner* get_InvertedListScanner(
            bool, const faiss::IDSelector* FAISS_GMM_CODEC_PARAMETERS_PARAMETER) const override {
        return new Scanner;
    }
    void
    encode_vectors(int64_t n, const float*, const int64_t*, uint8_t* codes, bool) const override {
        std::fill_n(codes, n, uint8_t{7});
    }
};
std::atomic<size_t> Wide::scanned{0};

TEST_F(Interrupt, IsAskedWithinALongList) {
    constexpr size_t d = 1 << 17, entries = 50000;
    IndexIVFGMMOf<Wide> index(d, 1);
    const std::vector<float> x = float_rows(4, d, 1);
    index.train(4, x.data());
    const std::vector<uint8_t> codes(entries, 7);
    std::vector<int64_t> ids(entries, 3);
    index.invlists->add_entries(0, entries, ids.data(), codes.data());
    index.ntotal = entries;
    const std::vector<float> query(x.begin(), x.begin() + d);
    Wide::scanned = 0;
    search(index, query, 1);
    EXPECT_EQ(Wide::scanned, entries) << "nobody asks, all is scanned";

    const Callback* patient = with_patience(1 << 30);
    search(*index.quantizer, query, 1);
    const size_t by_quantizer = patient->asked; // a flat one may ask too
    with_patience(1 + by_quantizer);            // the query is begun
    const size_t period = faiss::InterruptCallback::get_period_hint(d);
    ASSERT_LT(period, entries / 2);
    Wide::scanned = 0;
    EXPECT_NE(refusal([&] { search(index, query, 1); }), "");
    EXPECT_EQ(Wide::scanned, period);
    patient = with_patience(1 << 30);
    Wide::scanned = 0;
    search(index, query, 1);
    EXPECT_EQ(Wide::scanned, entries);
    EXPECT_EQ(patient->asked, by_quantizer + (entries + period - 1) / period);
}

TEST_F(Interrupt, StretchesCoverARangeOnce) {
    with_patience(1 << 30);
    for (const size_t n : {0, 1, 99, 100, 101, 1000}) {
        size_t next = 5;
        scan_interruptibly(999999, 5, 5 + n, [&](size_t first, size_t end) {
            EXPECT_EQ(first, next);
            EXPECT_GT(end, first);
            EXPECT_LE(end - first, faiss::InterruptCallback::get_period_hint(999999));
            next = end;
        });
        EXPECT_EQ(next, 5 + n);
    }
}

} // namespace
} // namespace faiss_gmm
