// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A search allocates nothing a query: what a query needs is scratch that its thread keeps. What is left
// is the same few allocations a call, and FAISS's scanner, one a block of queries.
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <omp.h>

#include <gtest/gtest.h>

#include "index_fixture.h"
#include "tests/allocations.h"

namespace faiss_gmm {
namespace {

using Type = faiss::ScalarQuantizer::QuantizerType;

constexpr size_t rows = 4000, d = 24, nlist = 32, k = 10;
constexpr size_t least_queries_of_a_scanner = 16, most_allocations_of_a_scanner = 4;

/// Scanners that were made, and what FAISS allocated for them.
struct ScannerCounts {
    size_t scanners = 0, allocations = 0;
};

/// An index that counts its scanners. (As a codec it would lose our own distances.)
template <class Index> struct CountingScanners : Index {
    using Index::Index;
    mutable ScannerCounts counts;

    faiss::InvertedListScanner* get_InvertedListScanner(
            bool store_pairs,
            const faiss::IDSelector* selector FAISS_GMM_CODEC_PARAMETERS_PARAMETER) const override {
        faiss::InvertedListScanner* scanner = nullptr;
        counts.allocations += allocations_of([&] {
            scanner = Index::get_InvertedListScanner(
                    store_pairs, selector FAISS_GMM_CODEC_PARAMETERS_ARGUMENT);
        });
        counts.scanners++;
        return scanner;
    }
};

/// An index, and the counts within it.
struct CountedIndex {
    std::shared_ptr<faiss::IndexIVF> index;
    IndexIVFGMM* settings = nullptr;
    ScannerCounts* counts = nullptr;
};

template <class Index, class... Arguments> CountedIndex make_index(Arguments... codec) {
    auto index = std::make_shared<CountingScanners<Index>>(d, nlist, codec...);
    return {index, index.get(), &index->counts};
}
CountedIndex make_scalar(Type type, faiss::MetricType metric, bool by_residual) {
    return make_index<IndexIVFGMMScalarQuantizer>(type, metric, by_residual);
}

struct Setup {
    std::string name;
    std::function<CountedIndex()> make;
    bool sketched = true;
    size_t nprobe = 4;
    size_t most_of_a_call = 1; ///< the statistics of its blocks
};

void PrintTo(const Setup& setup, std::ostream* out) {
    *out << setup.name;
}

class SearchAllocations : public testing::TestWithParam<Setup> {
protected:
    void SetUp() override {
        if (!allocations_are_counted()) {
            GTEST_SKIP() << "operator new is the sanitizer's";
        }
        omp_set_num_threads(1);
        made_.settings->spill.rule = SpillRule::always;
        if (!GetParam().sketched) {
            made_.settings->sketch.mode = SketchParameters::Mode::none;
        }
        index_.train(rows, base_.data());
        index_.add(rows, base_.data());
        index_.nprobe = GetParam().nprobe;
        ASSERT_EQ(made_.settings->run_lists()->directory().sketched, GetParam().sketched);
    }
    void TearDown() override {
        omp_set_num_threads(threads_before_);
    }

    /// Allocations of search(queries first .. first + n - 1), scanners apart.
    size_t of_search(size_t first, size_t n) {
        *made_.counts = {};
        const size_t all = allocations_of([&] {
            index_.search(
                    static_cast<int64_t>(n),
                    queries_.data() + first * d,
                    k,
                    distances_.data(),
                    labels_.data());
        });
        EXPECT_LE(made_.counts->scanners, n / least_queries_of_a_scanner + 1);
        EXPECT_LE(
                made_.counts->allocations, made_.counts->scanners * most_allocations_of_a_scanner);
        return all - made_.counts->allocations;
    }

    static constexpr size_t queries = 256;
    const int threads_before_ = omp_get_max_threads();
    const uint64_t seed_ = test_seed();
    std::vector<float> base_ = float_rows(rows, d, seed_);
    std::vector<float> queries_ = float_rows(queries, d, seed_ + 1);
    std::vector<float> distances_ = std::vector<float>(queries * k);
    std::vector<int64_t> labels_ = std::vector<int64_t>(queries * k);
    CountedIndex made_ = GetParam().make();
    faiss::IndexIVF& index_ = *made_.index;
};

TEST_P(SearchAllocations, OfABatchDoNotGrowWithItsQueries) {
    for (const size_t n : {128, 256}) {
        of_search(0, n);
        EXPECT_LE(of_search(0, n), GetParam().most_of_a_call) << n << " queries";
    }
}

TEST_P(SearchAllocations, OfOneQueryAreThoseOfACall) {
    for (size_t i = 0; i < queries; i++) {
        of_search(i, 1);
    }
    for (size_t i = 0; i < queries; i++) {
        EXPECT_LE(of_search(i, 1), GetParam().most_of_a_call) << "query " << i;
    }
}

/// Allocates in every form there is.
void allocate_in_every_form() {
    constexpr std::align_val_t line{64};
    ::operator delete(::operator new(1));
    ::operator delete[](::operator new[](1));
    ::operator delete(::operator new(1, std::nothrow));
    ::operator delete[](::operator new[](1, std::nothrow));
    ::operator delete(::operator new(1, line), line);
    ::operator delete[](::operator new[](1, line), line);
    ::operator delete(::operator new(1, line, std::nothrow), line);
    ::operator delete[](::operator new[](1, line, std::nothrow), line);
}

TEST(Allocations, OfEveryFormAreCounted) {
    if (!allocations_are_counted()) {
        GTEST_SKIP() << "operator new is the sanitizer's";
    }
    EXPECT_EQ(allocations_of(allocate_in_every_form), 8u);
}

constexpr auto l2 = faiss::METRIC_L2, ip = faiss::METRIC_INNER_PRODUCT;

const Setup setups[] = {
        {"Flat", [] { return make_index<IndexIVFGMMFlat>(l2); }},
        {"Flat_ip", [] { return make_index<IndexIVFGMMFlat>(ip); }},
        {"Flat_unsketched", [] { return make_index<IndexIVFGMMFlat>(l2); }, false},
        // Keys and distances of the lists too, and what FAISS's quantizer takes.
        {"Flat_all_lists", [] { return make_index<IndexIVFGMMFlat>(l2); }, true, nlist, 8},
        {"SQ8", [] { return make_scalar(Type::QT_8bit, l2, true); }},
        {"SQ8_ip_whole", [] { return make_scalar(Type::QT_8bit, ip, false); }},
        {"SQfp16", [] { return make_scalar(Type::QT_fp16, l2, true); }},
        {"SQ6_by_scanner", [] { return make_scalar(Type::QT_6bit, l2, true); }},
};

INSTANTIATE_TEST_SUITE_P(All, SearchAllocations, testing::ValuesIn(setups), [](const auto& info) {
    return info.param.name;
});

} // namespace
} // namespace faiss_gmm
