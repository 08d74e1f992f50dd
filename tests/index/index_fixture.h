// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the tests of an index share: data, an oracle by brute force, a codec that writes down every
// code it is asked to compare.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <faiss/IndexIVFFlat.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/IDSelector.h>
#include <gtest/gtest.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/compat/scanner.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "tests/seed.h"

namespace faiss_gmm {

/// n rows x [n, d] around some centres: whole numbers, so small that fp32 distances are exact.
inline std::vector<float> whole_rows(size_t n, size_t d, uint64_t seed, size_t centres = 20) {
    std::mt19937_64 random(seed);
    std::mt19937_64 of_centres(77); // base and queries share them
    std::vector<float> centre(centres * d), x(n * d);
    for (float& v : centre) {
        v = static_cast<float>(of_centres() % 41) - 20;
    }
    for (size_t i = 0; i < n; i++) {
        const float* c = centre.data() + random() % centres * d;
        for (size_t t = 0; t < d; t++) {
            x[i * d + t] = c[t] + static_cast<float>(random() % 13) - 6;
        }
    }
    return x;
}

/// The same with normal noise.
inline std::vector<float> float_rows(size_t n, size_t d, uint64_t seed, size_t centres = 20) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x = whole_rows(n, d, seed, centres);
    for (float& v : x) {
        v = 0.05f * v + 0.2f * normal(random);
    }
    return x;
}

/// What an index should hold, searched by brute force in double precision.
class Oracle {
public:
    Oracle(size_t d, faiss::MetricType metric) : d_(d), metric_(metric) {}

    void add(size_t n, const float* x, const int64_t* ids = nullptr) {
        for (size_t i = 0; i < n; i++) {
            const int64_t id = ids != nullptr ? ids[i] : next_id_ + static_cast<int64_t>(i);
            rows[id].assign(x + i * d_, x + (i + 1) * d_);
        }
        next_id_ += static_cast<int64_t>(n);
    }
    double distance(const float* q, int64_t id) const {
        const std::vector<float>& row = rows.at(id);
        double sum = 0;
        for (size_t t = 0; t < d_; t++) {
            const double difference = static_cast<double>(q[t]) - row[t];
            sum += metric_ == faiss::METRIC_L2 ? difference * difference
                                               : static_cast<double>(q[t]) * row[t];
        }
        return sum;
    }
    bool better(double a, double b) const {
        return metric_ == faiss::METRIC_L2 ? a < b : a > b;
    }
    /// Distances of all rows that the selector lets pass, best first.
    std::vector<double> sorted(const float* q, const faiss::IDSelector* selector = nullptr) const {
        std::vector<double> all;
        for (const auto& row : rows) {
            if (selector == nullptr || selector->is_member(row.first)) {
                all.push_back(distance(q, row.first));
            }
        }
        std::sort(all.begin(), all.end(), [this](double a, double b) { return better(a, b); });
        return all;
    }

    std::map<int64_t, std::vector<float>> rows;

private:
    size_t d_;
    faiss::MetricType metric_;
    int64_t next_id_ = 0;
};

/// Distances and ids of n queries.
struct Results {
    Results(size_t queries, size_t results)
            : n(queries), k(results), distances(n * k, -7), labels(n * k, -7) {}
    size_t n, k;
    std::vector<float> distances;
    std::vector<int64_t> labels;
};

inline Results
search(const faiss::Index& index,
       const std::vector<float>& queries,
       size_t k,
       const faiss::SearchParameters* params = nullptr) {
    Results results(queries.size() / index.d, k);
    index.search(
            static_cast<int64_t>(results.n),
            queries.data(),
            static_cast<int64_t>(k),
            results.distances.data(),
            results.labels.data(),
            params);
    return results;
}

/// search_preassigned of keys [n, nprobe], whose means are `coarse` [n, nprobe] away.
inline Results search_keys(
        const faiss::IndexIVF& index,
        const std::vector<float>& queries,
        size_t k,
        const std::vector<int64_t>& keys,
        const std::vector<float>& coarse,
        const faiss::SearchParametersIVF& params,
        bool store_pairs = false,
        faiss::IndexIVFStats* stats = nullptr) {
    Results results(queries.size() / index.d, k);
    index.search_preassigned(
            static_cast<int64_t>(results.n),
            queries.data(),
            static_cast<int64_t>(k),
            keys.data(),
            coarse.data(),
            results.distances.data(),
            results.labels.data(),
            store_pairs,
            &params,
            stats);
    return results;
}

/// Every result is there once, stands in order, has its own distance, and ends in -1 only.
/// tolerance 0: distances bit for bit.
inline void expect_sound(
        const Oracle& oracle,
        const std::vector<float>& queries,
        const Results& got,
        double tolerance = 0,
        const faiss::IDSelector* selector = nullptr) {
    const size_t d = queries.size() / got.n;
    for (size_t i = 0; i < got.n; i++) {
        std::set<int64_t> seen;
        for (size_t j = 0; j < got.k; j++) {
            const int64_t id = got.labels[i * got.k + j];
            if (id == -1) {
                for (size_t rest = j; rest < got.k; rest++) {
                    ASSERT_EQ(got.labels[i * got.k + rest], -1) << "query " << i;
                }
                break;
            }
            ASSERT_EQ(oracle.rows.count(id), 1u) << "query " << i << ": id " << id;
            ASSERT_TRUE(seen.insert(id).second) << "query " << i << ": id " << id << " twice";
            ASSERT_TRUE(selector == nullptr || selector->is_member(id)) << id << " not selected";
            const double truth = oracle.distance(queries.data() + i * d, id);
            const float distance = got.distances[i * got.k + j];
            ASSERT_LE(std::abs(distance - truth), tolerance * std::abs(truth)) << "query " << i;
            if (j > 0) {
                ASSERT_FALSE(oracle.better(distance, got.distances[i * got.k + j - 1]));
            }
        }
    }
}

/// Sound, and the k best there are: equal to brute force up to ties.
inline void expect_exact(
        const Oracle& oracle,
        const std::vector<float>& queries,
        const Results& got,
        double tolerance = 0,
        const faiss::IDSelector* selector = nullptr) {
    expect_sound(oracle, queries, got, tolerance, selector);
    const size_t d = queries.size() / got.n;
    for (size_t i = 0; i < got.n; i++) {
        const std::vector<double> truth = oracle.sorted(queries.data() + i * d, selector);
        for (size_t j = 0; j < got.k; j++) {
            if (j >= truth.size()) {
                ASSERT_EQ(got.labels[i * got.k + j], -1) << "query " << i << ", result " << j;
                continue;
            }
            ASSERT_GE(got.labels[i * got.k + j], 0) << "query " << i << ", result " << j;
            ASSERT_LE(
                    std::abs(got.distances[i * got.k + j] - truth[j]),
                    tolerance * std::abs(truth[j]))
                    << "query " << i << ", result " << j;
        }
    }
}

/// What a range search found for query i, ids and distances, in no order of its own.
inline std::vector<std::pair<int64_t, float>>
hits_of(const faiss::RangeSearchResult& result, size_t i) {
    std::vector<std::pair<int64_t, float>> hits;
    for (size_t j = result.lims[i]; j < result.lims[i + 1]; j++) {
        hits.emplace_back(result.labels[j], result.distances[j]);
    }
    std::sort(hits.begin(), hits.end());
    return hits;
}

/// Two results with the same distances, and the same ids but for ties with the last.
inline void expect_equal_up_to_ties(const Results& a, const Results& b) {
    ASSERT_EQ(a.distances, b.distances);
    for (size_t i = 0; i < a.n; i++) {
        const float* distances = a.distances.data() + i * a.k;
        std::set<int64_t> ids_a, ids_b;
        for (size_t j = 0; j < a.k; j++) {
            ASSERT_EQ(a.labels[i * a.k + j] < 0, b.labels[i * a.k + j] < 0);
            if (distances[j] != distances[a.k - 1]) {
                ids_a.insert(a.labels[i * a.k + j]);
                ids_b.insert(b.labels[i * a.k + j]);
            }
        }
        ASSERT_EQ(ids_a, ids_b) << "query " << i;
    }
}

/// Share of the results whose distance is at most the true k-th (ties count).
inline double recall(const Oracle& oracle, const std::vector<float>& queries, const Results& got) {
    const size_t d = queries.size() / got.n;
    size_t hits = 0;
    for (size_t i = 0; i < got.n; i++) {
        const double last = oracle.sorted(queries.data() + i * d)[got.k - 1];
        for (size_t j = 0; j < got.k; j++) {
            const int64_t id = got.labels[i * got.k + j];
            hits += id >= 0 && !oracle.better(last, oracle.distance(queries.data() + i * d, id));
        }
    }
    return static_cast<double>(hits) / static_cast<double>(got.n * got.k);
}

/// What the scanners of one index were asked for: query -> codes compared.
class ScanLog {
public:
    struct Code {
        int64_t list;
        const uint8_t* code;
        bool operator<(const Code& other) const {
            return code < other.code;
        }
    };

    void note(const float* query, int64_t list, const uint8_t* codes, size_t n, size_t code_size) {
        const std::lock_guard<std::mutex> guard(lock_);
        for (size_t i = 0; i < n; i++) {
            codes_[query].push_back({list, codes + i * code_size});
        }
    }
    void note_list(const float* query, int64_t list, float distance) {
        const std::lock_guard<std::mutex> guard(lock_);
        list_distances_[query].emplace_back(list, distance);
    }
    void clear() {
        codes_.clear();
        list_distances_.clear();
    }
    size_t total() const {
        size_t sum = 0;
        for (const auto& query : codes_) {
            sum += query.second.size();
        }
        return sum;
    }
    void expect_none_twice() const {
        for (const auto& query : codes_) {
            std::set<const uint8_t*> seen;
            for (const Code& code : query.second) {
                ASSERT_TRUE(seen.insert(code.code).second)
                        << "a code of list " << code.list << " compared twice";
            }
        }
    }
    const std::map<const float*, std::vector<Code>>& codes() const {
        return codes_;
    }
    const std::map<const float*, std::vector<std::pair<int64_t, float>>>& list_distances() const {
        return list_distances_;
    }

private:
    std::mutex lock_;
    std::map<const float*, std::vector<Code>> codes_;
    std::map<const float*, std::vector<std::pair<int64_t, float>>> list_distances_;
};

/// A scanner that passes everything on and writes it down.
class CountingScanner : public faiss::InvertedListScanner {
public:
    CountingScanner(faiss::InvertedListScanner* inner, std::shared_ptr<ScanLog> log, size_t bytes)
            : inner_(inner), log_(std::move(log)), bytes_(bytes) {
        keep_max = inner->keep_max;
        code_size = bytes;
    }
    void set_query(const float* query) override {
        query_ = query;
        inner_->set_query(query);
    }
    void set_list(int64_t list, float distance) override {
        list_no = list;
        log_->note_list(query_, list, distance);
        inner_->set_list(list, distance);
    }
    float distance_to_code(const uint8_t* code) const override {
        log_->note(query_, list_no, code, 1, bytes_);
        return inner_->distance_to_code(code);
    }
    size_t
    scan_codes(size_t n, const uint8_t* codes, const int64_t* ids, FAISS_GMM_RESULTS_PARAMETER)
            const override {
        log_->note(query_, list_no, codes, n, bytes_);
        return inner_->scan_codes(n, codes, ids, FAISS_GMM_RESULTS_ARGUMENT);
    }
    void scan_codes_range(
            size_t n,
            const uint8_t* codes,
            const int64_t* ids,
            float radius,
            faiss::RangeQueryResult& result) const override {
        log_->note(query_, list_no, codes, n, bytes_);
        inner_->scan_codes_range(n, codes, ids, radius, result);
    }

private:
    std::unique_ptr<faiss::InvertedListScanner> inner_;
    std::shared_ptr<ScanLog> log_;
    size_t bytes_;
    const float* query_ = nullptr;
};

/// IndexIVFFlat whose scanners write down what they compare.
struct CountingFlat : faiss::IndexIVFFlat {
    using faiss::IndexIVFFlat::IndexIVFFlat;

    std::shared_ptr<ScanLog> log = std::make_shared<ScanLog>();

    faiss::InvertedListScanner* get_InvertedListScanner(
            bool store_pairs,
            const faiss::IDSelector* selector FAISS_GMM_CODEC_PARAMETERS_PARAMETER) const override {
        return new CountingScanner(
                faiss::IndexIVFFlat::get_InvertedListScanner(
                        store_pairs, selector FAISS_GMM_CODEC_PARAMETERS_ARGUMENT),
                log,
                code_size);
    }
};

using CountingIndex = IndexIVFGMMOf<CountingFlat>;

/// One way to set an index up.
struct IndexSetup {
    std::string name;
    SpillRule rule = SpillRule::always;
    size_t max_lists = 2;
    SpillOrder order = SpillOrder::responsibility;
    SpillStorage storage = SpillStorage::shared;
    SketchParameters::Mode sketch = SketchParameters::Mode::automatic;
    size_t d = 16;
    faiss::MetricType metric = faiss::METRIC_L2;
    size_t nlist = 16;
    float tau = 0;
    float fraction = 0.2f; ///< enough that guests are met in small sets

    template <class Index> void apply(Index& index) const {
        index.spill.rule = rule;
        index.spill.max_lists = max_lists;
        index.spill.order = order;
        index.spill.tau = tau;
        index.spill.fraction = fraction;
        index.spill.storage = storage;
        index.sketch.mode = sketch;
    }
    std::unique_ptr<CountingIndex> trained(const std::vector<float>& x) const {
        auto index = std::make_unique<CountingIndex>(d, nlist, metric);
        apply(*index);
        index->train(static_cast<int64_t>(x.size() / d), x.data());
        return index;
    }
};

inline void PrintTo(const IndexSetup& setup, std::ostream* out) {
    *out << setup.name;
}
inline std::string setup_name(const testing::TestParamInfo<IndexSetup>& info) {
    return info.param.name;
}

/// Every rule, order and storage, with and without sketches, both metrics, d that no number of
/// codes divides.
inline std::vector<IndexSetup> all_setups() {
    using Mode = SketchParameters::Mode;
    const auto shared = SpillStorage::shared, copies = SpillStorage::copies;
    const auto first = SpillOrder::responsibility;
    const auto l2 = faiss::METRIC_L2, ip = faiss::METRIC_INNER_PRODUCT;
    return {
            {"never", SpillRule::never, 2, first, shared, Mode::automatic, 16, l2},
            {"never_ip", SpillRule::never, 2, first, shared, Mode::automatic, 25, ip},
            {"never_unsketched", SpillRule::never, 2, first, shared, Mode::none, 8, l2},
            {"always", SpillRule::always, 2, first, shared, Mode::automatic, 25, l2},
            {"always_ip", SpillRule::always, 2, first, shared, Mode::automatic, 16, ip},
            {"always_4_air",
             SpillRule::always,
             4,
             SpillOrder::air,
             shared,
             Mode::automatic,
             13,
             l2},
            {"always_5_soar_ip",
             SpillRule::always,
             5,
             SpillOrder::soar,
             shared,
             Mode::automatic,
             40,
             ip},
            {"always_unsketched", SpillRule::always, 3, first, shared, Mode::none, 16, l2},
            {"threshold_3",
             SpillRule::threshold,
             3,
             first,
             shared,
             Mode::automatic,
             8,
             l2,
             16,
             1e-12f},
            {"fraction_soar",
             SpillRule::fraction,
             3,
             SpillOrder::soar,
             shared,
             Mode::automatic,
             31,
             l2},
            {"copies", SpillRule::always, 2, first, copies, Mode::automatic, 16, l2},
            {"copies_ip", SpillRule::always, 3, first, copies, Mode::automatic, 25, ip},
            {"copies_threshold", SpillRule::threshold, 3, first, copies, Mode::automatic, 8, l2},
    };
}

/// Those whose search is our own.
inline std::vector<IndexSetup> shared_setups() {
    std::vector<IndexSetup> setups = all_setups();
    setups.erase(
            std::remove_if(
                    setups.begin(),
                    setups.end(),
                    [](const IndexSetup& s) { return s.storage == SpillStorage::copies; }),
            setups.end());
    return setups;
}

/// Adds n rows x [n, d] in batches of random sizes up to `largest`.
inline void
add_in_batches(faiss::Index& index, const std::vector<float>& x, size_t largest, uint64_t seed) {
    std::mt19937_64 random(seed);
    const size_t n = x.size() / index.d;
    for (size_t first = 0; first < n;) {
        const size_t count = std::min(n - first, 1 + random() % largest);
        index.add(static_cast<int64_t>(count), x.data() + first * index.d);
        first += count;
    }
}

/// The message of the FaissException that body() throws; empty if it throws none.
template <class Body> std::string refusal(Body body) {
    try {
        body();
    } catch (const faiss::FaissException& error) {
        return error.what();
    }
    return "";
}

/// What was being done, what was given, what is allowed, what to do next.
inline void expect_four_parts(const std::string& message, const std::string& given) {
    const size_t at = message.find(": given "), allowed = message.find("; allowed: ");
    ASSERT_NE(at, std::string::npos) << message;
    ASSERT_NE(allowed, std::string::npos) << message;
    EXPECT_GT(at, 0u) << message;
    EXPECT_NE(message.find("; ", allowed + 2), std::string::npos) << message;
    EXPECT_EQ(message.back(), '.') << message;
    EXPECT_NE(message.substr(at, allowed - at).find(given), std::string::npos) << message;
}

} // namespace faiss_gmm
