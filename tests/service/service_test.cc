// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// One service over FAISS and over faiss_gmm: right while it changes, and its recall at equal nprobe.
#define SERVICE service_over_faiss
#include "service.h"
#undef SERVICE
#define SERVICE service_over_faiss_gmm
#include "service.h"
#undef SERVICE

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "faiss_gmm/runs/run_lists_io.h"
#include "tests/io/io_fixture.h"

namespace faiss_gmm {
namespace {

using OverFaiss = service_over_faiss::SearchService;
using OverFaissGmm = service_over_faiss_gmm::SearchService;

constexpr size_t k = 10, nlist = 64;

const Dataset& data() {
    static const Dataset set = load_dataset(embedded_dataset_folder(), faiss_gmm::Metric::l2);
    return set;
}
/// Rows [first, end) of the base; their ids are their numbers.
std::vector<float> rows(size_t first, size_t end) {
    return {data().base.begin() + first * data().d, data().base.begin() + end * data().d};
}
std::vector<int64_t> numbers(size_t first, size_t end) {
    std::vector<int64_t> numbers(end - first);
    std::iota(numbers.begin(), numbers.end(), first);
    return numbers;
}

template <class Service> Service trained() {
    const std::string description =
            std::is_same_v<Service, OverFaiss> ? "IVF64,Flat" : "IVFGMM64,Flat";
    return Service(static_cast<int>(data().d), description);
}
template <class Service> void fill(Service& service) {
    service.train(data().base);
    for (size_t first = 0; first < data().n; first += 4000) {
        service.add(numbers(first, first + 4000), rows(first, first + 4000));
    }
}
/// Recall@10 of all queries, asked by four threads at once.
template <class Service> double recall(const Service& service, size_t nprobe) {
    constexpr size_t threads = 4;
    const size_t share = (data().nq + threads - 1) / threads;
    std::vector<int64_t> ids(data().nq * k, -1);
    std::vector<std::thread> callers;
    for (size_t t = 0; t < threads; t++) {
        callers.emplace_back([&, t] {
            const size_t first = t * share, end = std::min(data().nq, first + share);
            const auto begin = data().query.begin();
            const auto hits =
                    service.search({begin + first * data().d, begin + end * data().d}, k, nprobe);
            for (size_t i = first; i < end; i++) {
                for (size_t j = 0; j < hits[i - first].size(); j++) {
                    ids[i * k + j] = hits[i - first][j].id;
                }
            }
        });
    }
    for (std::thread& caller : callers) {
        caller.join();
    }
    static const RecallMeasure measure = data().recall_measure(k);
    return measure.recall(ids.data());
}

template <class Service> class AnyService : public testing::Test {};
using Services = testing::Types<OverFaiss, OverFaissGmm>;
TYPED_TEST_SUITE(AnyService, Services);

TYPED_TEST(AnyService, IsRightWhileItChanges) {
    constexpr size_t kept = 2000, batch = 250, batches = 8;
    auto service = trained<TypeParam>();
    service.train(rows(0, 8000));
    service.add(numbers(0, kept), rows(0, kept));
    // Batches come one after another; each goes when the next is there.
    std::atomic<size_t> gone{0}; // rows [kept, kept + gone) are removed
    std::atomic<bool> done{false};
    std::atomic<size_t> searches{0}, wrong{0};
    std::vector<std::thread> callers;
    for (size_t t = 0; t < 3; t++) {
        callers.emplace_back([&, t] {
            for (size_t i = t; !done || searches < 60; i++) {
                const float* q = data().query.data() + i % data().nq * data().d;
                const auto gone_before = static_cast<int64_t>(kept + gone);
                const auto hits = service.search({q, q + data().d}, k, 1 + i % nlist);
                std::set<int64_t> ids;
                for (const auto& hit : hits[0]) {
                    const float* row = data().base.data() + hit.id * data().d;
                    float distance = 0;
                    for (size_t j = 0; j < data().d; j++) {
                        distance += (q[j] - row[j]) * (q[j] - row[j]); // whole numbers: exact
                    }
                    const bool was_gone =
                            hit.id >= static_cast<int64_t>(kept) && hit.id < gone_before;
                    wrong += !ids.insert(hit.id).second || was_gone || hit.distance != distance;
                }
                searches++;
                std::this_thread::sleep_for(std::chrono::milliseconds(1)); // writers want a turn
            }
        });
    }
    for (size_t b = 0; b < batches; b++) {
        const size_t first = kept + b * batch;
        service.add(numbers(first, first + batch), rows(first, first + batch));
        if (b > 0) {
            EXPECT_EQ(service.remove(numbers(first - batch, first)), batch);
            gone = b * batch;
        }
    }
    done = true;
    for (std::thread& caller : callers) {
        caller.join();
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_GE(searches, 60u);
    EXPECT_EQ(service.size(), kept + batch);
    const auto all = service.search(
            {data().query.begin(), data().query.begin() + data().d}, kept + batch, nlist);
    EXPECT_EQ(all[0].size(), kept + batch) << "what stays is found";
}

TYPED_TEST(AnyService, IsTheSameAfterSaveAndLoad) {
    auto service = trained<TypeParam>();
    fill(service);
    const Folder folder;
    service.save(folder.file("index"));
    auto loaded = trained<TypeParam>();
    loaded.load(folder.file("index"));
    const faiss::Index &saved_index = service.index(), &loaded_index = loaded.index();
    EXPECT_EQ(typeid(loaded_index), typeid(saved_index));
    EXPECT_EQ(loaded.size(), data().n);
    for (const size_t nprobe : {1, 8}) {
        const auto before = service.search(data().query, k, nprobe);
        const auto after = loaded.search(data().query, k, nprobe);
        for (size_t i = 0; i < data().nq; i++) {
            ASSERT_EQ(before[i].size(), after[i].size());
            for (size_t j = 0; j < before[i].size(); j++) {
                ASSERT_EQ(before[i][j].id, after[i][j].id);
                ASSERT_EQ(before[i][j].distance, after[i][j].distance);
            }
        }
    }
    EXPECT_EQ(loaded.remove(numbers(0, 10000)), 10000u);
    EXPECT_EQ(loaded.size(), data().n - 10000);
}

/// Hears what stock searches over our lists say.
class StockSearch : public testing::Test {
protected:
    void SetUp() override {
        set_stock_search_warning([this](const std::string& message) {
            heard_++;
            last_ = message;
        });
    }
    void TearDown() override {
        set_stock_search_warning(nullptr);
    }
    std::atomic<size_t> heard_{0};
    std::string last_;
};

TEST_F(StockSearch, OfOurFileIsThatOfAPlainIVFAndSaysSo) {
    auto stock = trained<OverFaiss>();
    auto ours = trained<OverFaissGmm>();
    fill(stock);
    fill(ours);
    const Folder folder;
    ours.save(folder.file("index"));
    auto plain = trained<OverFaiss>();
    plain.load(folder.file("index"));
    const faiss::Index& read = plain.index();
    EXPECT_EQ(typeid(read), typeid(faiss::IndexIVFFlat));
    auto again = trained<OverFaissGmm>();
    again.load(folder.file("index"));
    for (const auto& [nprobe, least_gain] :
         {std::pair<size_t, double>{1, 0.1}, {2, 0.1}, {4, 0.05}, {8, 0.01}, {16, 0}}) {
        SCOPED_TRACE(testing::Message() << "nprobe " << nprobe);
        const double of_stock = recall(stock, nprobe), of_ours = recall(ours, nprobe);
        EXPECT_GE(of_ours, of_stock + least_gain);
        EXPECT_LE(of_ours, of_stock + 0.3) << "more than its runs can bring";
        EXPECT_EQ(recall(again, nprobe), of_ours);
        EXPECT_EQ(heard_, nprobe == 1 ? 0u : 1u) << "only of stock searches, and once";
        EXPECT_NEAR(recall(plain, nprobe), of_stock, 0.04) << "k-means' means, or a mixture's";
        EXPECT_EQ(heard_, 1u);
    }
    EXPECT_NE(last_.find("promote()"), std::string::npos) << last_;
    plain.save(folder.file("by stock"));
    again.load(folder.file("by stock"));
    EXPECT_EQ(recall(again, 2), recall(ours, 2)) << "its runs went through";
    EXPECT_EQ(recall(ours, nlist), 1);
    EXPECT_EQ(recall(plain, nlist), 1);
}

TEST_F(StockSearch, FindsExactlyWhatItsListsHold) {
    auto ours = trained<OverFaissGmm>();
    fill(ours);
    const Folder folder;
    ours.save(folder.file("index"));
    const std::unique_ptr<faiss::Index> read(faiss::read_index(folder.file("index").c_str()));
    auto& over_our_lists = dynamic_cast<faiss::IndexIVFFlat&>(*read);
    faiss::IndexIVFFlat plain(over_our_lists.quantizer, data().d, nlist);
    plain.is_trained = true;
    plain.add(static_cast<int64_t>(data().n), data().base.data());
    for (const size_t nprobe : {1, 5}) {
        over_our_lists.nprobe = plain.nprobe = nprobe;
        expect_equal_up_to_ties(
                search(over_our_lists, data().query, k), search(plain, data().query, k));
    }
    EXPECT_EQ(heard_, 1u);
    set_stock_search_warning(nullptr); // nobody is as good
    const std::unique_ptr<faiss::Index> other(faiss::read_index(folder.file("index").c_str()));
    search(*other, data().query, k);
    EXPECT_EQ(heard_, 1u);
}

} // namespace
} // namespace faiss_gmm
