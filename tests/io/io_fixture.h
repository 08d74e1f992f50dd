// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// What the tests of files share: indices of every setup, bytes of them, files that go with the test.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

#include <faiss/impl/io.h>
#include <faiss/index_io.h>
#include <gtest/gtest.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/io/index_io.h"
#include "tests/index/index_fixture.h"

namespace faiss_gmm {

using Bytes = std::vector<uint8_t>;

/// A folder of its own, gone with this object.
class Folder {
public:
    Folder() {
        std::string name =
                (std::filesystem::temp_directory_path() / "faiss_gmm_io_XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("no temporary folder");
        }
        path_ = name;
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::permissions(path_, std::filesystem::perms::owner_all, ignored);
        std::filesystem::remove_all(path_, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    std::string file(const std::string& name) const {
        return (path_ / name).string();
    }
    std::vector<std::string> files() const {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(path_)) {
            names.push_back(entry.path().filename().string());
        }
        std::sort(names.begin(), names.end());
        return names;
    }
    const std::filesystem::path& path() const {
        return path_;
    }

private:
    std::filesystem::path path_;
};

inline Bytes contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

inline void put(const std::string& path, const Bytes& bytes) {
    std::filesystem::remove(path); // overwriting makes some file systems wait for the disk
    std::ofstream file(path, std::ios::binary);
    file.write(
            reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}

/// As FAISS's own writer leaves it: no trailer.
inline Bytes stock_bytes(const faiss::Index& index) {
    faiss::VectorIOWriter writer;
    faiss::write_index(&index, &writer);
    return writer.data;
}

inline std::unique_ptr<faiss::Index> from_stock_bytes(const Bytes& bytes) {
    faiss::VectorIOReader reader;
    reader.data = bytes;
    return std::unique_ptr<faiss::Index>(faiss::read_index(&reader));
}

inline std::unique_ptr<faiss::Index> promoted(std::unique_ptr<faiss::Index> index) {
    faiss::Index* const ours = promote(index.get());
    static_cast<void>(index.release());
    return std::unique_ptr<faiss::Index>(ours);
}

inline IndexIVFGMM& as_gmm(faiss::Index& index) {
    return dynamic_cast<IndexIVFGMM&>(index);
}

/// An index of stock codecs (not the fixture's, which counts) that holds rows.
inline std::unique_ptr<IndexIVFGMMFlat>
filled(const IndexSetup& setup, size_t trained_on = 2000, size_t rows = 1500) {
    auto index = std::make_unique<IndexIVFGMMFlat>(setup.d, setup.nlist, setup.metric);
    setup.apply(*index);
    const std::vector<float> x = float_rows(trained_on, setup.d, 5);
    index->train(static_cast<int64_t>(trained_on), x.data());
    add_in_batches(*index, float_rows(rows, setup.d, 6), 400, 3);
    return index;
}

/// Results, and what the searches touched.
struct Searched {
    Results results;
    IVFGMMStats stats;
};
inline Searched
searched(const faiss::Index& index, const std::vector<float>& queries, size_t nprobe) {
    IVFGMMSearchParameters params;
    params.nprobe = nprobe;
    indexIVFGMM_stats.reset();
    Searched all{search(index, queries, 10, &params), {}};
    all.stats = indexIVFGMM_stats;
    return all;
}

/// What the factory makes of a description, trained and with 1,000 of float_rows(2000, 16, 5).
inline std::unique_ptr<faiss::Index> filled(const char* description) {
    std::unique_ptr<faiss::Index> index(index_factory(16, description));
    const std::vector<float> x = float_rows(2000, 16, 5);
    index->train(2000, x.data());
    if (std::string(description).rfind("IDMap", 0) == 0) {
        std::vector<int64_t> ids(1000);
        for (size_t i = 0; i < ids.size(); i++) {
            ids[i] = static_cast<int64_t>(7 * i + 3);
        }
        index->add_with_ids(1000, x.data(), ids.data());
    } else {
        index->add(1000, x.data());
    }
    return index;
}

/// The same ids, distances and counts at several nprobe, ranges too.
inline void expect_same_searches(const faiss::Index& a, const faiss::Index& b) {
    const std::vector<float> queries = float_rows(40, a.d, 99);
    const auto nlist = dynamic_cast<const faiss::IndexIVF&>(a).nlist;
    for (const size_t nprobe : {size_t{1}, size_t{2}, size_t{5}, nlist}) {
        const Searched first = searched(a, queries, nprobe), second = searched(b, queries, nprobe);
        EXPECT_EQ(first.results.labels, second.results.labels) << "nprobe " << nprobe;
        EXPECT_EQ(first.results.distances, second.results.distances) << "nprobe " << nprobe;
        EXPECT_EQ(first.stats.ndis, second.stats.ndis);
        EXPECT_EQ(first.stats.nscored, second.stats.nscored);
        EXPECT_EQ(first.stats.nvisited, second.stats.nvisited);
        EXPECT_EQ(first.stats.nlist, second.stats.nlist);
        EXPECT_EQ(first.stats.bytes_scored, second.stats.bytes_scored);
        EXPECT_EQ(first.stats.means, second.stats.means);
    }
    const size_t n = queries.size() / a.d;
    faiss::RangeSearchResult in_a(n), in_b(n);
    const float radius = searched(a, queries, nlist).results.distances[5];
    a.range_search(static_cast<int64_t>(n), queries.data(), radius, &in_a);
    b.range_search(static_cast<int64_t>(n), queries.data(), radius, &in_b);
    for (size_t i = 0; i < n; i++) {
        EXPECT_EQ(hits_of(in_a, i), hits_of(in_b, i)) << "query " << i;
    }
}

/// The same changes to both, and the same searches after each.
inline void expect_same_life(faiss::Index& a, faiss::Index& b) {
    expect_same_searches(a, b);
    as_gmm(b).check();
    const std::vector<float> more = float_rows(300, a.d, 7);
    for (faiss::Index* index : {&a, &b}) {
        index->add(300, more.data());
        index->remove_ids(faiss::IDSelectorRange(50, 120));
    }
    ASSERT_EQ(a.ntotal, b.ntotal);
    expect_same_searches(a, b);
    as_gmm(b).check();
    as_gmm(a).compact();
    as_gmm(b).compact();
    expect_same_searches(a, b);
    as_gmm(b).check();
    EXPECT_EQ(stock_bytes(a), stock_bytes(b));
}

} // namespace faiss_gmm
