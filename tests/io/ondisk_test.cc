// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Lists on disk: merged there from shards, searched, changed, written and read; against the same index in memory.
#include <filesystem>

#include <gtest/gtest.h>
#include <omp.h>

#include <faiss/IndexFlat.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

#include "faiss_gmm/io/clone.h"
#include "faiss_gmm/io/export_faiss.h"
#include "faiss_gmm/io/merge_ondisk.h"
#include "io_fixture.h"
#include "tests/allocations.h"
#include "tests/index/support_record.h"

namespace faiss_gmm {
namespace {

constexpr size_t all_rows = 1500;

using OnDisk = faiss::OnDiskInvertedLists;

const OnDisk& disk_lists(const faiss::Index& index) {
    const auto& ours = dynamic_cast<const IndexIVFGMM&>(index);
    return dynamic_cast<const OnDisk&>(ours.run_lists()->inner());
}

/// An index that is trained and holds nothing.
std::unique_ptr<IndexIVFGMMFlat> trained(const IndexSetup& setup) {
    return filled(setup, 2000, 0);
}

std::vector<int64_t> ids_from(size_t first, size_t n) {
    std::vector<int64_t> ids(n);
    for (size_t i = 0; i < n; i++) {
        ids[i] = static_cast<int64_t>(first + i);
    }
    return ids;
}

/// Adds rows [first, end) of x with their numbers.
void add_rows(faiss::Index& index, const std::vector<float>& x, size_t first, size_t end) {
    index.add_with_ids(
            static_cast<int64_t>(end - first),
            x.data() + first * index.d,
            ids_from(first, end - first).data());
}

/// Clones of an empty index that hold rows x among them, in files; the second holds none.
std::vector<std::string>
shards_of(const faiss::Index& empty, const std::vector<float>& x, const Folder& folder) {
    const size_t n = x.size() / empty.d;
    const size_t ends[] = {n / 3, n / 3, n / 3 + 40, n};
    std::vector<std::string> paths;
    size_t first = 0;
    for (const size_t end : ends) {
        const std::unique_ptr<faiss::Index> shard(clone_index(empty));
        if (end > first) {
            add_rows(*shard, x, first, end);
        }
        paths.push_back(folder.file("shard_" + std::to_string(paths.size())));
        write_index(*shard, paths.back());
        first = end;
    }
    return paths;
}

/// The same index in memory and on disk.
struct Twins {
    explicit Twins(std::unique_ptr<faiss::Index> empty, size_t n = all_rows)
            : in_memory(std::move(empty)), on_disk(clone_index(*in_memory)) {
        const std::vector<float> x = float_rows(n, in_memory->d, 6);
        merge_ondisk(*on_disk, shards_of(*in_memory, x, folder), lists());
        add_rows(*in_memory, x, 0, n);
    }
    std::string lists() const {
        return folder.file("lists");
    }

    Folder folder;
    std::unique_ptr<faiss::Index> in_memory, on_disk;
};

/// Results alone: routes of indices inside wrappers.
void expect_same_results(const faiss::Index& a, const faiss::Index& b) {
    const std::vector<float> queries = float_rows(40, a.d, 99);
    const Results first = search(a, queries, 10), second = search(b, queries, 10);
    EXPECT_EQ(first.labels, second.labels);
    EXPECT_EQ(first.distances, second.distances);
}

class OnDiskLists : public testing::TestWithParam<IndexSetup> {};

TEST_P(OnDiskLists, FindWhatListsInMemoryFind) {
    const Twins twins(trained(GetParam()));
    EXPECT_EQ(disk_lists(*twins.on_disk).filename, twins.lists());
    EXPECT_EQ(twins.on_disk->ntotal, twins.in_memory->ntotal);
    as_gmm(*twins.on_disk).check();
    expect_same_searches(*twins.in_memory, *twins.on_disk);
    dynamic_cast<faiss::IndexIVF&>(*twins.on_disk).nprobe = 2;
    indexIVFGMM_stats.reset();
    search(*twins.on_disk, float_rows(20, twins.on_disk->d, 9), 5);
    const IndexIVFGMM& face = as_gmm(*twins.on_disk);
    record_piece("OnDiskInvertedLists", lists_asked_for(face), way_of_search(face));
    if (GetParam().storage == SpillStorage::shared) {
        size_t runs = 0;
        for (const ListRuns& list : as_gmm(*twins.on_disk).run_lists()->directory().lists) {
            EXPECT_EQ(list.split_entries, list.covered);
            runs += list.runs();
        }
        EXPECT_GE(runs, all_rows / run_size);
    }
}

TEST_P(OnDiskLists, AreWrittenAndRead) {
    const Twins twins(trained(GetParam()));
    const std::string path = twins.folder.file("index");
    write_index(*twins.on_disk, path);
    for (const int flags : {0, faiss::IO_FLAG_READ_ONLY, faiss::IO_FLAG_MMAP}) {
        SCOPED_TRACE(flags);
        const std::unique_ptr<faiss::Index> read(read_index(path, flags));
        EXPECT_EQ(disk_lists(*read).read_only, flags != 0);
        as_gmm(*read).check();
        expect_same_searches(*twins.in_memory, *read);
    }
    const Folder elsewhere;
    std::filesystem::rename(path, elsewhere.file("index"));
    std::filesystem::rename(twins.lists(), elsewhere.file("lists"));
    expect_four_parts(refusal([&] { delete read_index(elsewhere.file("index")); }), twins.lists());
    const std::unique_ptr<faiss::Index> read(
            read_index(elsewhere.file("index"), faiss::IO_FLAG_ONDISK_SAME_DIR));
    expect_same_searches(*twins.in_memory, *read);
    record_piece("OnDiskInvertedLists.written_and_read", lists_asked_for(as_gmm(*read)), "works");
}

TEST_P(OnDiskLists, Change) {
    Twins twins(trained(GetParam()));
    const std::vector<float> more = float_rows(700, twins.on_disk->d, 7);
    const auto on_both = [&](auto change) {
        change(*twins.in_memory);
        change(*twins.on_disk);
        ASSERT_EQ(twins.in_memory->ntotal, twins.on_disk->ntotal);
        as_gmm(*twins.on_disk).check();
        as_gmm(*twins.in_memory).compact();
        as_gmm(*twins.on_disk).compact();
        as_gmm(*twins.on_disk).check();
        if (GetParam().storage == SpillStorage::shared) {
            expect_same_searches(*twins.in_memory, *twins.on_disk);
        } else { // in plain lists what a range finds comes in the order in which it was added
            expect_same_results(*twins.in_memory, *twins.on_disk);
        }
    };
    on_both([&](faiss::Index& index) {
        index.add_with_ids(300, more.data(), ids_from(2000, 300).data());
    });
    on_both([](faiss::Index& index) { index.remove_ids(faiss::IDSelectorRange(100, 1200)); });
    on_both([&](faiss::Index& index) {
        index.add_with_ids(700, more.data(), ids_from(3000, 700).data());
    });
    if (GetParam().storage == SpillStorage::shared) {
        on_both([&](faiss::Index& index) {
            auto& ivf = dynamic_cast<faiss::IndexIVF&>(index);
            ivf.set_direct_map_type(faiss::DirectMap::Hashtable);
            ivf.update_vectors(60, ids_from(2100, 60).data(), more.data() + 400 * index.d);
            ivf.set_direct_map_type(faiss::DirectMap::NoMap);
        });
    }
    const std::string path = twins.folder.file("index");
    write_index(*twins.on_disk, path);
    expect_same_searches(*twins.on_disk, *std::unique_ptr<faiss::Index>(read_index(path)));

    twins.in_memory->reset();
    twins.on_disk->reset();
    EXPECT_EQ(twins.on_disk->ntotal, 0);
    EXPECT_EQ(search(*twins.on_disk, more, 1).labels[0], -1);
    write_index(*twins.on_disk, path);
    EXPECT_EQ(std::unique_ptr<faiss::Index>(read_index(path))->ntotal, 0);
    on_both([&](faiss::Index& index) {
        index.add_with_ids(700, more.data(), ids_from(0, 700).data());
    });
}

TEST_P(OnDiskLists, ReadOnlyRefuseToChange) {
    const Twins twins(trained(GetParam()));
    const std::string path = twins.folder.file("index"), plain = twins.folder.file("plain");
    write_index(*twins.on_disk, path);
    write_index(
            *twins.in_memory, plain); // lists in memory, mapped where they stand in the index file
    for (const std::string& file : {path, plain}) {
        SCOPED_TRACE(file);
        const std::unique_ptr<faiss::Index> read(read_index(file, faiss::IO_FLAG_MMAP));
        const std::unique_ptr<faiss::Index> other(clone_index(*twins.in_memory));
        auto& ivf = dynamic_cast<faiss::IndexIVF&>(*read);
        const std::vector<float> x = float_rows(2000, read->d, 7);
        const auto expect_refused = [&](auto change) {
            expect_four_parts(refusal(change), "mapped read-only");
        };
        expect_refused([&] { read->add(20, x.data()); });
        expect_refused([&] { read->add_with_ids(20, x.data(), ids_from(9000, 20).data()); });
        expect_refused([&] { read->remove_ids(faiss::IDSelectorRange(0, 9)); });
        expect_refused([&] { read->reset(); });
        expect_refused([&] { read->train(2000, x.data()); });
        expect_refused([&] { as_gmm(*read).compact(); });
        expect_refused([&] { ivf.merge_from(*other, 0); });
        expect_refused([&] { dynamic_cast<faiss::IndexIVF&>(*other).merge_from(*read, 0); });
        if (GetParam().storage == SpillStorage::shared) {
            ivf.set_direct_map_type(faiss::DirectMap::Hashtable);
            expect_refused([&] { ivf.update_vectors(1, ids_from(3, 1).data(), x.data()); });
            ivf.set_direct_map_type(faiss::DirectMap::NoMap);
            expect_refused([&] {
                dynamic_cast<const faiss::IndexIVF&>(*other).copy_subset_to(
                        ivf, FAISS_GMM_SUBSET_TYPE(0), 0, 10);
            });
        }
        as_gmm(*read).check();
        expect_same_searches(*twins.in_memory, *read);
    }
}

std::vector<IndexSetup> disk_setups() {
    std::vector<IndexSetup> setups;
    for (const IndexSetup& setup : all_setups()) {
        for (const char* name : {"never_ip", "always", "always_unsketched", "copies"}) {
            if (setup.name == name) {
                setups.push_back(setup);
            }
        }
    }
    return setups;
}
INSTANTIATE_TEST_SUITE_P(All, OnDiskLists, testing::ValuesIn(disk_setups()), setup_name);

TEST(OnDiskListsOf, OtherCodecsAndWrappers) {
    for (const char* description :
         {"IVFGMM16,SQ8",
          "IVFGMM16,SQ6",
          "IVFGMM16,PQ4x4",
          "IVFGMM16(sketch=4),RQ2x4",
          "IVFGMM16_HNSW8,Flat",
          "PCA8,IVFGMM16,Flat"}) {
        SCOPED_TRACE(description);
        std::unique_ptr<faiss::Index> empty(index_factory(16, description));
        empty->train(2000, float_rows(2000, 16, 5).data());
        const Twins twins(std::move(empty));
        expect_same_results(*twins.in_memory, *twins.on_disk);
        const std::string path = twins.folder.file("index");
        write_index(*twins.on_disk, path);
        const std::unique_ptr<faiss::Index> read(read_index(path));
        EXPECT_EQ(read->ntotal, twins.in_memory->ntotal);
        expect_same_results(*twins.in_memory, *read);
    }
}

/// Entries stand where their types may stand, whatever the codes' size.
TEST(OnDiskListsOf, AlignedIds) {
    std::unique_ptr<faiss::Index> empty(index_factory(5, "IVFGMM8,SQ8"));
    empty->train(2000, float_rows(2000, 5, 5).data());
    const Twins twins(std::move(empty), 501);
    const OnDisk& lists = disk_lists(*twins.on_disk);
    for (size_t l = 0; l < lists.nlist; l++) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(lists.get_ids(l)) % alignof(int64_t), 0u);
    }
}

TEST(OnDiskListsOf, AnIndexRefusesToBeCloned) {
    const Twins twins(trained(IndexSetup()));
    expect_four_parts(refusal([&] { delete clone_index(*twins.on_disk); }), "another class than");
    const std::unique_ptr<faiss::Index> stock(export_faiss(*twins.on_disk)); // into memory
    dynamic_cast<faiss::IndexIVF&>(*stock).nprobe = 16;
    IVFGMMSearchParameters all;
    all.nprobe = 16;
    const std::vector<float> queries = float_rows(20, 16, 9);
    EXPECT_EQ(search(*stock, queries, 5).labels, search(*twins.on_disk, queries, 5, &all).labels);
}

/// Neither the vectors of all lists nor what their splits leave are in memory together.
TEST(OnDiskListsOf, MemoryFollowsTheLongestList) {
    if (!allocations_are_counted()) {
        GTEST_SKIP() << "a sanitizer has its own operator new";
    }
    IndexSetup setup;
    setup.d = 64;
    setup.nlist = 128;
    const auto empty = filled(setup, 6000, 0);
    const std::unique_ptr<faiss::Index> on_disk(clone_index(*empty));
    const Folder folder;
    constexpr size_t n = 60000, vector_bytes = n * 64 * sizeof(float);
    const auto shards = shards_of(*empty, float_rows(n, 64, 6), folder);
    constexpr size_t threads = 2;
    const int usual = omp_get_max_threads();
    omp_set_num_threads(threads);
    const size_t held =
            most_held_during([&] { merge_ondisk(*on_disk, shards, folder.file("lists")); });
    omp_set_num_threads(usual);
    size_t longest = 0;
    for (size_t l = 0; l < setup.nlist; l++) {
        longest = std::max(longest, disk_lists(*on_disk).list_size(l));
    }
    ASSERT_LT(longest, n / 20) << "lists even enough to tell them from all";
    // Of each list that is split: rows as decoded, ordered, rotated (as many dimensions here), copied codes, ids and order.
    const size_t splitting = threads * longest * (4 * 64 * sizeof(float) + 64);
    // For good: the directory beyond its blocks (guests), the mixture; for the time: summaries and sketches before they
    // are packed, an eighth of fp32 rows at most, and means of runs with room to grow, three times a 32nd of the rows.
    const size_t directory = vector_bytes / 8 + 3 * vector_bytes / run_size;
    EXPECT_LT(held, splitting + directory + (size_t{2} << 20));
    EXPECT_LT(held, vector_bytes) << "what all lists take";
}

class MergeRefuses : public testing::Test {
protected:
    void expect_refused(
            faiss::Index& index, const std::vector<std::string>& shards, const std::string& given) {
        const std::string path = folder.file("lists");
        put(path, before);
        expect_four_parts(refusal([&] { merge_ondisk(index, shards, path); }), given);
        EXPECT_EQ(contents(path), before);
    }
    std::vector<std::string> shard(const faiss::Index& index) {
        write_index(index, folder.file("shard"));
        return {folder.file("shard")};
    }

    const Bytes before{'b', 'e', 'f', 'o', 'r', 'e'};
    const Folder folder{};
    const IndexSetup setup{};
    std::unique_ptr<IndexIVFGMMFlat> empty = trained(setup);
    std::unique_ptr<IndexIVFGMMFlat> full = filled(setup);
};

TEST_F(MergeRefuses, IndicesThatCannotBeFilled) {
    const auto shards = shard(*full);
    expect_refused(*full, shards, "holds 1500 vectors");
    IndexIVFGMMFlat untrained(16, 16);
    expect_refused(untrained, shards, "not trained");
    faiss::IndexFlatL2 flat(16);
    expect_refused(flat, shards, "IndexFlatL2");
    const std::unique_ptr<faiss::Index> blocks(index_factory(16, "IVFGMM4,PQ4x4fs"));
    expect_refused(*blocks, shards, "blocks");
    empty->set_direct_map_type(faiss::DirectMap::Hashtable);
    expect_refused(*empty, shards, "direct map");
    const std::unique_ptr<faiss::Index> mapped(index_factory(16, "IDMap,IVFGMM16,Flat"));
    expect_refused(*mapped, shards, "IndexIDMap");
    const std::unique_ptr<faiss::Index> refined(index_factory(16, "IVFGMM16,Flat,RFlat"));
    expect_refused(*refined, shards, "IndexRefine");
}

TEST_F(MergeRefuses, ShardsThatWereTrainedOtherwise) {
    IndexSetup other = setup;
    other.nlist = 12;
    expect_refused(*empty, shard(*filled(other)), "another number of lists");
    expect_refused(*empty, shard(*filled(setup, 1900)), "another mixture");
    other = setup;
    other.storage = SpillStorage::copies;
    expect_refused(*empty, shard(*filled(other)), "another storage");
    expect_refused(*empty, shard(faiss::IndexFlatL2(16)), "IndexFlat");
    // The same mixture and bytes a code, another codec.
    std::unique_ptr<faiss::Index> residual(index_factory(16, "IVFGMM16,SQ8"));
    std::unique_ptr<faiss::Index> plain(index_factory(16, "IVFGMM16(by_residual=false),SQ8"));
    const std::vector<float> x = float_rows(2000, 16, 5);
    residual->train(2000, x.data());
    plain->train(2000, x.data());
    ASSERT_EQ(as_gmm(*residual).mixture().means, as_gmm(*plain).mixture().means);
    plain->add(100, x.data());
    expect_refused(*residual, shard(*plain), "another codec");
}

TEST_F(MergeRefuses, FilesThatAreNotThere) {
    expect_refused(*empty, {folder.file("none")}, "No such file");
    expect_refused(*empty, {}, "without vectors");
    expect_refused(*empty, shard(*empty), "without vectors");
    const auto shards = shard(*full);
    for (const std::string& path :
         {folder.file("none/lists"), std::string("/proc/faiss_gmm_lists")}) {
        expect_four_parts(refusal([&] { merge_ondisk(*empty, shards, path); }), path);
    }
    expect_four_parts(refusal([&] { merge_ondisk(*empty, shards, shards[0]); }), "is a shard");
    EXPECT_EQ(empty->ntotal, 0);
    EXPECT_NE(
            dynamic_cast<const faiss::ArrayInvertedLists*>(&empty->run_lists()->inner()), nullptr);
    merge_ondisk(*empty, shards, folder.file("lists")); // nothing of it left a mark
    full->compact();
    expect_same_searches(*full, *empty);
}

TEST(ReplaceLists, RefusesWhatDoesNotFit) {
    const auto empty = trained(IndexSetup());
    const auto expect_refused = [&](IndexIVFGMM& index,
                                    std::unique_ptr<faiss::InvertedLists> lists,
                                    const std::string& given) {
        expect_four_parts(refusal([&] { index.replace_lists(std::move(lists), 0); }), given);
    };
    const auto lists = [](size_t nlist, size_t code_size) {
        return std::make_unique<faiss::ArrayInvertedLists>(nlist, code_size);
    };
    expect_refused(*empty, nullptr, "no lists");
    expect_refused(*empty, lists(15, 64), "15 lists");
    expect_refused(*empty, lists(16, 63), "63 bytes");
    expect_refused(*filled(IndexSetup()), lists(16, 64), "1500 vectors");
    IndexIVFGMMFlat untrained(16, 16);
    expect_refused(untrained, lists(16, 64), "not trained");
}

/// A file that ends early would end the process that searches it.
TEST(OnDiskListsOf, DamagedFiles) {
    const Twins twins(trained(IndexSetup()));
    const std::string path = twins.folder.file("index");
    write_index(*twins.on_disk, path);
    const auto expect_refused = [&](const std::string& given) {
        for (const int flags : {0, faiss::IO_FLAG_MMAP}) {
            expect_four_parts(refusal([&] { delete read_index(path, flags); }), given);
        }
    };
    const Bytes lists = contents(twins.lists());
    put(twins.lists(), Bytes(lists.begin(), lists.end() - 1));
    expect_refused(std::to_string(lists.size() - 1) + " bytes");
    std::filesystem::remove(twins.lists());
    expect_refused("No such file");
    put(twins.lists(), lists);
    expect_same_searches(*twins.in_memory, *std::unique_ptr<faiss::Index>(read_index(path)));

    const auto& runs = *as_gmm(*twins.on_disk).run_lists();
    auto& stored = const_cast<OnDisk&>(disk_lists(*twins.on_disk));
    const auto expect_place_refused = [&](auto damage) {
        const auto places = stored.lists;
        const auto slots = stored.slots;
        damage(stored);
        faiss::VectorIOWriter writer;
        faiss::write_InvertedLists(&runs, &writer);
        stored.lists = places;
        stored.slots = slots;
        faiss::VectorIOReader reader;
        reader.data = writer.data;
        expect_four_parts(refusal([&] { delete faiss::read_InvertedLists(&reader); }), "at byte");
    };
    expect_place_refused([](OnDisk& lists) { lists.lists[3].offset = lists.totsize; });
    expect_place_refused([](OnDisk& lists) { lists.lists[3].offset = SIZE_MAX; });
    expect_place_refused([](OnDisk& lists) { lists.lists[3].capacity = SIZE_MAX; });
    expect_place_refused([](OnDisk& lists) { lists.lists[3].capacity = lists.lists[3].size - 1; });
    expect_place_refused([](OnDisk& lists) { lists.slots.emplace_back(8, lists.totsize); });
}

} // namespace
} // namespace faiss_gmm
