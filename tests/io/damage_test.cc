// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A damaged file is an error or the same index, never a crash nor a giant allocation: every byte changed,
// every length, and, with the checksums made right as an attacker would, every number replaced.
#include <algorithm>
#include <cstring>
#include <functional>

#include <gtest/gtest.h>
#include <omp.h>

#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/runs/detail/checksum.h"
#include "io_fixture.h"
#include "tests/allocations.h"

namespace faiss_gmm {
namespace {

constexpr size_t far_above = size_t{1} << 60;
constexpr size_t most_at_once = size_t{48}
                                << 20; ///< a piece of 16 MiB, and room to grow for the next

/// A few lists with runs, sketches and guests (or with copies), in a few thousand bytes.
std::unique_ptr<IndexIVFGMMFlat> small_index(SpillStorage storage = SpillStorage::shared) {
    omp_set_num_threads(1); // thousands of searches of next to nothing
    IndexSetup setup;
    setup.d = 4;
    setup.nlist = 4;
    setup.max_lists = 3;
    setup.storage = storage;
    setup.sketch = SketchParameters::Mode::fixed;
    return filled(setup, 1000, 90);
}

uint64_t sum_of(const uint8_t* first, const uint8_t* end) {
    Checksum sum;
    sum.add(first, end - first);
    return sum.value();
}

/// A few lists in blocks, in a few thousand bytes.
std::unique_ptr<faiss::Index> small_index_in_blocks() {
    omp_set_num_threads(1);
    std::unique_ptr<faiss::Index> index(index_factory(4, "IVFGMM4,PQ2x4fs"));
    const std::vector<float> x = float_rows(1000, 4, 5);
    index->train(1000, x.data());
    index->add(90, x.data());
    return index;
}

/// Stock bytes of an index that ends with its lists, and where the parts of our section stand.
struct Section {
    explicit Section(Bytes all) : bytes(std::move(all)) {
        begin = place_of("ilgm") + 4;
        inner = place_of("ilar");
    }
    size_t place_of(const char* key) const {
        const auto found = std::search(bytes.begin(), bytes.end(), key, key + 4);
        return static_cast<size_t>(found - bytes.begin());
    }
    /// Both checksums, over bytes that were changed.
    void make_right() {
        uint8_t* const data = bytes.data();
        const uint64_t state = sum_of(data + begin, data + inner - 8);
        const uint64_t lists = sum_of(data + inner, data + bytes.size() - 8);
        std::memcpy(data + inner - 8, &state, 8);
        std::memcpy(data + bytes.size() - 8, &lists, 8);
    }

    Bytes bytes;
    size_t begin = 0, inner = 0;
};

/// Reads bytes as a file: an index, or what was said.
struct Read {
    std::unique_ptr<faiss::Index> index;
    std::string error;
};
Read read_file(const std::string& path, const Bytes& bytes) {
    put(path, bytes);
    Read read;
    read.error = refusal([&] { read.index.reset(read_index(path)); });
    return read;
}

void search_in_every_way(const faiss::Index& index) {
    const std::vector<float> queries = float_rows(3, index.d, 4);
    for (const size_t nprobe : {1, 3, 4}) {
        IVFGMMSearchParameters params;
        params.nprobe = nprobe;
        search(index, queries, 5, &params);
    }
    faiss::RangeSearchResult found(3);
    index.range_search(3, queries.data(), 1, &found);
}

/// Whatever it holds, nothing may crash: results or an exception.
void use(faiss::Index& index) {
    refusal([&] { search_in_every_way(index); });
    refusal([&] {
        const std::vector<float> more = float_rows(50, index.d, 8);
        index.add(50, more.data());
        index.remove_ids(faiss::IDSelectorRange(5, 30));
        search_in_every_way(index);
    });
}
TEST(Damage, EveryByteOfAFile) {
    const auto original = small_index();
    const Folder folder;
    const std::string path = folder.file("index");
    write_index(*original, path);
    const Bytes sound = contents(path);
    const Bytes stock = stock_bytes(*original);
    ASSERT_EQ(sound.size(), stock.size() + 24);
    ASSERT_TRUE(std::equal(stock.begin(), stock.end(), sound.begin()));
    for (size_t at = 0; at < sound.size(); at++) {
        for (const int change : {1, 0x80, 0xff}) {
            Bytes damaged = sound;
            damaged[at] = static_cast<uint8_t>(damaged[at] ^ change);
            const Read read = read_file(path, damaged);
            if (read.index) {
                ASSERT_EQ(stock_bytes(*read.index), stock) << "byte " << at;
            } else {
                expect_four_parts(read.error, path);
            }
            ASSERT_FALSE(HasFailure()) << "byte " << at;
        }
    }
}

TEST(Damage, EveryByteOfASectionThatStockCodeReads) {
    const Section sound(stock_bytes(*small_index()));
    for (size_t at = sound.begin; at < sound.bytes.size(); at++) {
        Bytes damaged = sound.bytes;
        damaged[at] ^= 0x10;
        const std::string message = refusal([&] { from_stock_bytes(damaged); });
        ASSERT_NE(message, "") << "byte " << at;
        expect_four_parts(message, "");
    }
}

TEST(Damage, EveryLength) {
    const auto original = small_index();
    const Folder folder;
    const std::string path = folder.file("index");
    write_index(*original, path);
    const Bytes sound = contents(path), stock = stock_bytes(*original);
    for (size_t length = 0; length < sound.size(); length++) {
        const Read read = read_file(path, Bytes(sound.begin(), sound.begin() + length));
        if (length == stock.size()) { // as FAISS itself would have written it
            ASSERT_TRUE(read.index) << read.error;
            EXPECT_EQ(stock_bytes(*read.index), stock);
        } else {
            ASSERT_FALSE(read.index) << length << " bytes";
            expect_four_parts(read.error, path);
        }
    }
    Bytes longer = sound;
    longer.push_back(0);
    EXPECT_FALSE(read_file(path, longer).index);
    longer = stock;
    longer.push_back(0);
    EXPECT_NE(read_file(path, longer).error.find("more bytes follow"), std::string::npos);
}

class DamageOfStorage : public testing::TestWithParam<SpillStorage> {};

TEST_P(DamageOfStorage, HugeNumbersWithTheirChecksumsMadeRight) {
    const Section sound(stock_bytes(*small_index(GetParam())));
    const Folder folder;
    size_t refused = 0;
    for (size_t at = sound.begin; at + 8 <= sound.bytes.size() - 8; at++) {
        for (const size_t number : {far_above, at % 2 == 0 ? size_t{1} << 36 : SIZE_MAX}) {
            Section damaged = sound;
            std::memcpy(damaged.bytes.data() + at, &number, 8);
            damaged.make_right();
            forget_largest_allocation();
            const Read read = read_file(folder.file("index"), damaged.bytes);
            if (allocations_are_counted()) {
                ASSERT_LT(largest_allocation(), most_at_once) << "byte " << at;
            }
            if (read.index) {
                use(*read.index);
            } else {
                expect_four_parts(read.error, "");
                refused++;
            }
            ASSERT_FALSE(HasFailure()) << "byte " << at;
        }
    }
    EXPECT_GT(refused, 1000u);
}

INSTANTIATE_TEST_SUITE_P(
        All,
        DamageOfStorage,
        testing::Values(SpillStorage::shared, SpillStorage::copies),
        [](const auto& info) { return info.param == SpillStorage::shared ? "shared" : "copies"; });

TEST(Damage, EveryByteWithItsChecksumsMadeRight) {
    const Section sound(stock_bytes(*small_index()));
    const Folder folder;
    const uint64_t seed = test_seed();
    std::mt19937_64 random(seed);
    size_t refused = 0, used = 0;
    for (size_t at = sound.begin; at < sound.bytes.size() - 8; at++) {
        for (const uint64_t change : {uint64_t{1}, 1 + random() % 255}) {
            Section damaged = sound;
            damaged.bytes[at] = static_cast<uint8_t>(damaged.bytes[at] ^ change);
            damaged.make_right();
            const Read read = read_file(folder.file("index"), damaged.bytes);
            if (read.index) {
                use(*read.index);
                used++;
            } else {
                expect_four_parts(read.error, "");
                refused++;
            }
            ASSERT_FALSE(HasFailure()) << "byte " << at << ", FAISS_GMM_TEST_SEED=" << seed;
        }
    }
    EXPECT_GT(refused, 500u);
    EXPECT_GT(used, 500u);
}

TEST(DamageOfBlocks, EveryByteOfASectionThatStockCodeReads) {
    const auto original = small_index_in_blocks();
    const Bytes sound = stock_bytes(*original);
    const std::string key = "ilgb";
    const auto begin = std::search(sound.begin(), sound.end(), key.begin(), key.end());
    ASSERT_NE(begin, sound.end());
    for (size_t at = begin - sound.begin() + key.size(); at < sound.size(); at++) {
        Bytes damaged = sound;
        damaged[at] ^= 0x10;
        const std::string message = refusal([&] { from_stock_bytes(damaged); });
        ASSERT_NE(message, "") << "byte " << at;
        expect_four_parts(message, "");
    }
    for (size_t length = begin - sound.begin() + key.size(); length < sound.size(); length++) {
        const Bytes cut(sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(length));
        EXPECT_NE(refusal([&] { from_stock_bytes(cut); }), "") << length << " bytes";
    }
}

/// The state's checksum ends before the ids of the first list.
TEST(DamageOfBlocks, HugeNumbersWithTheirChecksumsMadeRight) {
    const auto original = small_index_in_blocks();
    const Bytes sound = stock_bytes(*original);
    const std::string key = "ilgb";
    const size_t begin =
            std::search(sound.begin(), sound.end(), key.begin(), key.end()) - sound.begin() + 4;
    const auto& lists = dynamic_cast<const faiss::BlockInvertedLists&>(
            *dynamic_cast<const faiss::IndexIVF&>(*original).invlists);
    size_t inner = sound.size() - 8;
    for (size_t l = 0; l < lists.nlist; l++) {
        inner -= lists.ids[l].size() * sizeof(int64_t) + lists.codes[l].size();
    }
    size_t refused = 0;
    for (size_t at = begin; at + 8 <= sound.size() - 8; at++) {
        for (const size_t number : {far_above, size_t{1} << 36, SIZE_MAX}) {
            Bytes damaged = sound;
            std::memcpy(damaged.data() + at, &number, 8);
            const uint64_t state = sum_of(damaged.data() + begin, damaged.data() + inner - 8);
            const uint64_t codes =
                    sum_of(damaged.data() + inner, damaged.data() + damaged.size() - 8);
            std::memcpy(damaged.data() + inner - 8, &state, 8);
            std::memcpy(damaged.data() + damaged.size() - 8, &codes, 8);
            forget_largest_allocation();
            std::unique_ptr<faiss::Index> index;
            const std::string message =
                    refusal([&] { index = promoted(from_stock_bytes(damaged)); });
            if (allocations_are_counted()) {
                ASSERT_LT(largest_allocation(), most_at_once) << "byte " << at;
            }
            if (index) {
                refusal([&] { search(*index, float_rows(3, 4, 4), 5); });
            } else {
                expect_four_parts(message, "");
                refused++;
            }
            ASSERT_FALSE(HasFailure()) << "byte " << at;
        }
    }
    EXPECT_GT(refused, 300u);
}

/// Blocks that the codec does not read.
TEST(DamageOfBlocks, OfAnotherForm) {
    const auto index = small_index_in_blocks();
    auto& ivf = dynamic_cast<faiss::IndexIVFPQFastScan&>(*index);
    ivf.bbs = 64;
    std::unique_ptr<faiss::Index> stock = from_stock_bytes(stock_bytes(*index));
    const std::string message = refusal([&] { promote(stock.get()); });
    expect_four_parts(message, "blocks of another form");
    EXPECT_EQ(stock->ntotal, 90) << "as it was";
}

/// Blocks that stock code does not search: it would end the process.
TEST(DamageOfBlocks, OfMoreEntriesThanCanBeSearched) {
    const auto index = small_index_in_blocks();
    auto& ivf = dynamic_cast<faiss::IndexIVFPQFastScan&>(*index);
    auto& lists = dynamic_cast<faiss::BlockInvertedLists&>(*ivf.invlists);
    ivf.bbs = 192;
    lists.block_size = lists.block_size / lists.n_per_block * 192;
    lists.n_per_block = 192;
    for (size_t l = 0; l < lists.nlist; l++) {
        lists.codes[l].resize((lists.ids[l].size() + 191) / 192 * lists.block_size);
    }
    const std::string message = refusal([&] { from_stock_bytes(stock_bytes(*index)); });
    expect_four_parts(message, "blocks of 192 entries");
}

TEST(Damage, NoIndexAtAll) {
    const Folder folder;
    const auto message_for = [&](const std::string& path) {
        return refusal([&] { delete read_index(path); });
    };
    expect_four_parts(message_for(folder.file("none")), "No such file");
    expect_four_parts(message_for(folder.path().string()), "no ordinary file");
    put(folder.file("empty"), {});
    expect_four_parts(message_for(folder.file("empty")), folder.file("empty"));
    put(folder.file("text"), Bytes(1000, 'x'));
    expect_four_parts(message_for(folder.file("text")), "byte");
}

TEST(Damage, ASectionWithinASection) {
    const RunInvertedLists twice(
            std::make_unique<RunInvertedLists>(std::make_unique<faiss::ArrayInvertedLists>(2, 4)));
    faiss::VectorIOWriter writer;
    faiss::write_InvertedLists(&twice, &writer);
    faiss::VectorIOReader reader;
    reader.data = writer.data;
    expect_four_parts(refusal([&] { faiss::read_InvertedLists(&reader); }), "within another");
    // And the next one is read again.
    const Section sound(stock_bytes(*small_index()));
    EXPECT_TRUE(from_stock_bytes(sound.bytes));
}

TEST(Damage, ALaterFormat) {
    Section later(stock_bytes(*small_index()));
    later.bytes[later.begin] = 2;
    later.make_right();
    expect_four_parts(refusal([&] { from_stock_bytes(later.bytes); }), "format version 2");
}

} // namespace
} // namespace faiss_gmm
