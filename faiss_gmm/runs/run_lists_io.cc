// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The section of our lists within a file of FAISS's; lists in blocks have another (detail/block_lists_io.h).
// Numbers as FAISS writes them: little-endian, 64-bit sizes.
//   "ilgm" | version | lists: number, bytes a code, sizes | what the index over them asked to keep |
//   state: mixture, policy, codec, difficulty | directory | checksum of all this |
//   the inner lists, by FAISS's own writer | checksum of these
// What follows from other parts is not written but made anew (centred means, guests' summaries and groups), so
// that no fact stands there twice; rotated means are written, since products differ between machines
// and constants were computed from them.
// Versions: 1, the first.
// Reading believes nothing: sizes are bounded by what came before them, arrays come in pieces, and what
// a search walks through is checked (RunInvertedLists::check_structure) before it is used.
// Tests: tests/io.
#include "faiss_gmm/runs/run_lists_io.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <system_error>
#include <typeinfo>
#include <utility>

#include <fmt/format.h>

#include <faiss/impl/FaissException.h>
#include <faiss/index_io.h>
#include <faiss/invlists/InvertedListsIOHook.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/compat/layout.h"
#include "faiss_gmm/runs/detail/block_lists_io.h"
#include "faiss_gmm/runs/detail/state_io.h"
#include "faiss_gmm/runs/run_inverted_lists.h"

namespace faiss_gmm {
namespace {

constexpr const char* lists_key = "ilgm";
constexpr const char* inner_checksum = "the checksum of the inner lists";
constexpr const char* inner_part = "the inner lists";

/// That a section is being read by this thread: one within it would cost a damaged file nothing, and us the stack.
class Within {
public:
    Within() {
        depth++;
    }
    ~Within() {
        depth--;
    }
    Within(const Within&) = delete;
    Within& operator=(const Within&) = delete;
    static bool another() {
        return depth > 1;
    }

private:
    static inline thread_local size_t depth = 0;
};

/// Lists in memory, from FAISS's own form: what its reader does, but for the allocations.
std::unique_ptr<faiss::InvertedLists>
read_array_lists(SectionReader& section, const std::vector<uint64_t>& sizes, size_t code_size) {
    uint64_t nlist = 0, bytes = 0, count = 0;
    uint32_t form = 0;
    section.number(nlist, "the number of inner lists");
    section.number(bytes, "bytes a code");
    section.number(form, "the form of the lists' sizes");
    section.number(count, "the number of the lists' sizes");
    const bool full = form == faiss::fourcc("full"), sparse = form == faiss::fourcc("sprs");
    section.require(
            nlist == sizes.size() && bytes == code_size && (full || sparse) && count <= 2 * nlist,
            fmt::format("{} inner lists of {} bytes a code, form {:08x}", nlist, bytes, form),
            fmt::format("{} lists of {}, full or sparse", sizes.size(), code_size));
    std::vector<uint64_t> numbers, inner(sizes.size(), 0);
    section.array(numbers, count, "the lists' sizes");
    if (full) {
        inner = std::move(numbers);
    } else {
        for (size_t i = 0; i + 1 < numbers.size(); i += 2) {
            section.require(
                    numbers[i] < nlist,
                    fmt::format("a size of list {}", numbers[i]),
                    fmt::format("lists up to {}", nlist));
            inner[numbers[i]] = numbers[i + 1];
        }
    }
    section.require(inner == sizes, "inner lists of other sizes", "the sizes named before");
    auto lists = std::make_unique<faiss::ArrayInvertedLists>(nlist, code_size);
    for (size_t l = 0; l < nlist; l++) {
        section.array(compat::owned_vector(lists->codes[l], 0), sizes[l] * code_size, "codes");
        compat::settle(lists->codes[l]);
        section.array(compat::owned_vector(lists->ids[l], 0), sizes[l], "ids");
        compat::settle(lists->ids[l]);
    }
    return lists;
}

/// Whether these stand in the file of an index (IO_FLAG_MMAP), which has no name to FAISS: its writer would refer to
/// nothing.
bool are_of_an_index_file(const faiss::InvertedLists& lists) {
    const auto* on_disk = dynamic_cast<const faiss::OnDiskInvertedLists*>(&lists);
    return on_disk != nullptr && on_disk->read_only && on_disk->filename.empty();
}

/// Any lists as FAISS writes those in memory.
void write_array_lists(const faiss::InvertedLists& lists, SectionWriter& section) {
    section.number(faiss::fourcc("ilar"), "kind");
    section.number<uint64_t>(lists.nlist, "lists");
    section.number<uint64_t>(lists.code_size, "bytes a code");
    section.number(faiss::fourcc("full"), "form");
    section.number<uint64_t>(lists.nlist, "sizes");
    for (size_t l = 0; l < lists.nlist; l++) {
        section.number<uint64_t>(lists.list_size(l), "size");
    }
    for (size_t l = 0; l < lists.nlist; l++) {
        const size_t size = lists.list_size(l);
        faiss::InvertedLists::ScopedCodes codes(&lists, l);
        faiss::InvertedLists::ScopedIds ids(&lists, l);
        section.bytes(codes.get(), size * lists.code_size);
        section.bytes(reinterpret_cast<const uint8_t*>(ids.get()), size * sizeof(int64_t));
    }
}

/// Whether bytes [offset, offset + n of `size` each) lie within the first `end`.
bool lies_within(size_t offset, size_t n, size_t size, size_t end) {
    return offset <= end && (n == 0 || size <= (end - offset) / n);
}

/// That lists and free places lie within the bytes that are said to be there.
void check_disk_lists(const faiss::OnDiskInvertedLists& lists, const SectionReader& section) {
    section.require(
            lists.lists.size() == lists.nlist,
            fmt::format("{} places of {} lists on disk", lists.lists.size(), lists.nlist),
            "a place for each");
    for (const faiss::OnDiskInvertedLists::List& list : lists.lists) {
        section.require(
                list.size <= list.capacity &&
                        (list.capacity == 0 || lies_within(
                                                       list.offset,
                                                       list.capacity,
                                                       lists.code_size + sizeof(int64_t),
                                                       lists.totsize)),
                fmt::format(
                        "a list of {} entries with room for {} at byte {}",
                        list.size,
                        list.capacity,
                        list.offset),
                fmt::format("lists within {} bytes", lists.totsize));
    }
    for (const faiss::OnDiskInvertedLists::Slot& slot : lists.slots) {
        section.require(
                lies_within(slot.offset, slot.capacity, 1, lists.totsize),
                fmt::format("{} free bytes at byte {}", slot.capacity, slot.offset),
                fmt::format("free ones within {} bytes", lists.totsize));
    }
}

/// Maps the file, if it is as long as is said: else a search would end the process.
void map_disk_lists(faiss::OnDiskInvertedLists& lists, const SectionReader& section) {
    std::error_code failed;
    const auto bytes = std::filesystem::file_size(lists.filename, failed);
    section.require(
            !failed && bytes >= lists.totsize,
            failed ? fmt::format("lists in {}, {}", lists.filename, failed.message())
                   : fmt::format("lists in {}, of {} bytes", lists.filename, bytes),
            fmt::format(
                    "a file of {} bytes there (IO_FLAG_ONDISK_SAME_DIR: beside the index)",
                    lists.totsize));
    lists.do_mmap();
}

/// Lists in a file of their own, as FAISS's reader has them, but mapped only once it is known to hold them: for writing,
/// unless a flag says otherwise.
std::unique_ptr<faiss::InvertedLists> read_disk_lists(SectionReader& section, int io_flags) {
    std::unique_ptr<faiss::InvertedLists> lists(
            faiss::read_InvertedLists(&section, faiss::IO_FLAG_SKIP_IVF_DATA));
    section.checksum(inner_checksum);
    auto& on_disk = dynamic_cast<faiss::OnDiskInvertedLists&>(*lists);
    on_disk.read_only = (io_flags & faiss::IO_FLAG_READ_ONLY) != 0 ||
                        (io_flags & faiss::IO_FLAG_MMAP) == faiss::IO_FLAG_MMAP;
    if ((io_flags & faiss::IO_FLAG_ONDISK_SAME_DIR) != 0) {
        const std::filesystem::path index = section.name, file = on_disk.filename;
        on_disk.filename = (index.parent_path() / file.filename()).string();
    }
    check_disk_lists(on_disk, section);
    if (on_disk.totsize > 0) { // else nothing was ever added
        map_disk_lists(on_disk, section);
    }
    return lists;
}

/// Lists in memory when they were written, mapped where they stand in this file: not read, so not summed up either.
std::unique_ptr<faiss::InvertedLists>
map_array_lists(faiss::IOReader& in, const SectionReader& section, int io_flags) {
    auto* file = dynamic_cast<faiss::FileIOReader*>(&in);
    section.require(
            file != nullptr &&
                    std::fseek(file->f, -static_cast<long>(sizeof(uint32_t)), SEEK_CUR) == 0,
            "lists to be mapped (IO_FLAG_MMAP) from what is no file",
            "a faiss::FileIOReader");
    std::unique_ptr<faiss::InvertedLists> lists(faiss::read_InvertedLists(&in, io_flags));
    uint64_t unread = 0;
    SectionReader(in, inner_part).number(unread, inner_checksum);
    return lists;
}

std::unique_ptr<faiss::InvertedLists> read_inner_lists(
        faiss::IOReader& in, int io_flags, const std::vector<uint64_t>& sizes, size_t code_size) {
    std::unique_ptr<faiss::InvertedLists> lists;
    SectionReader section(in, inner_part);
    uint32_t kind = 0;
    section.number(kind, "the kind of the inner lists");
    try {
        if (kind == faiss::fourcc("ilod")) {
            section.push_back(&kind, sizeof kind);
            lists = read_disk_lists(section, io_flags);
        } else if ((io_flags & faiss::IO_FLAG_SKIP_IVF_DATA) != 0) {
            lists = map_array_lists(in, section, io_flags);
        } else if (kind == faiss::fourcc("ilar")) {
            lists = read_array_lists(section, sizes, code_size);
            section.checksum(inner_checksum);
        } else {
            section.push_back(&kind, sizeof kind);
            lists.reset(faiss::read_InvertedLists(&section, io_flags));
            section.checksum(inner_checksum);
        }
    } catch (const faiss::FaissException& error) {
        section.refuse(error.what(), "lists that FAISS can read");
    }
    bool as_named = lists && lists->nlist == sizes.size() && lists->code_size == code_size;
    for (size_t l = 0; as_named && l < sizes.size(); l++) {
        as_named = lists->list_size(l) == sizes[l];
    }
    section.require(as_named, "inner lists of another number or size", "the sizes named before");
    return lists;
}

} // namespace

/// Not in the anonymous namespace: FAISS knows classes by their names.
class RunListsIOHook : public faiss::InvertedListsIOHook {
public:
    RunListsIOHook() : faiss::InvertedListsIOHook(lists_key, typeid(RunInvertedLists).name()) {}

    void write(const faiss::InvertedLists* stock, faiss::IOWriter* out) const override {
        try {
            write_lists(dynamic_cast<const RunInvertedLists&>(*stock), *out);
        } catch (const Error& error) {
            throw faiss::FaissException(error.what());
        }
    }
    faiss::InvertedLists* read(faiss::IOReader* in, int io_flags) const override {
        try {
            return read_lists(*in, io_flags).release();
        } catch (const Error& error) {
            throw faiss::FaissException(error.what());
        }
    }

private:
    static void write_lists(const RunInvertedLists& lists, faiss::IOWriter& out) {
        if (lists.directory().max_lists > most_lists_a_run) {
            throw Error(
                    {"writing an IVFGMM index",
                     fmt::format("max_lists = {}", lists.directory().max_lists),
                     fmt::format("up to {}", most_lists_a_run),
                     "train with fewer max_lists"});
        }
        SectionWriter(out).number(faiss::fourcc(lists_key), "key");
        SectionWriter section(out);
        const SectionBegin begin(lists, lists.code_size, lists);
        begin.write(section);
        StateIO<SectionWriter> io(section, lists.nlist);
        io.state(lists.state());
        io.directory(lists.directory(), lists.state(), begin.sizes);
        section.checksum("checksum");
        if (are_of_an_index_file(lists.inner())) {
            write_array_lists(lists.inner(), section);
        } else {
            faiss::write_InvertedLists(&lists.inner(), &section);
        }
        section.checksum("checksum");
    }

    static std::unique_ptr<RunInvertedLists> read_lists(faiss::IOReader& in, int io_flags) {
        const Within within;
        SectionReader section(in);
        section.require(!Within::another(), "such a section within another", "stock lists");
        SectionBegin begin;
        begin.read(section);
        auto state = std::make_shared<CoarseState>();
        RunDirectory directory;
        StateIO<SectionReader> io(section, begin.nlist);
        io.state(*state);
        if (state->mixture.K > 0) {
            directory.take_shape(state->spill, state->sketched);
            section.require(
                    state->spill.max_lists <= begin.nlist,
                    fmt::format("max_lists = {} of {} lists", state->spill.max_lists, begin.nlist),
                    "at most all lists");
        }
        section.require(
                directory.max_lists <= std::min<size_t>(begin.nlist, most_lists_a_run),
                fmt::format("{} lists a run", directory.max_lists),
                fmt::format("up to {}, and as many as there are", most_lists_a_run));
        io.directory(directory, *state, begin.sizes);
        section.checksum("the checksum of the state");

        auto lists = std::make_unique<RunInvertedLists>(
                read_inner_lists(in, io_flags, begin.sizes, begin.code_size));
        lists->restore(std::move(state), std::move(directory));
        lists->keep_for_index(std::move(begin.parameters));
        return lists;
    }
};

namespace {
StockSearchWarning& warning_of_the_process() {
    static StockSearchWarning warning;
    return warning;
}
} // namespace

void set_stock_search_warning(StockSearchWarning warning) {
    warning_of_the_process() = std::move(warning);
}

const StockSearchWarning& stock_search_warning() {
    return warning_of_the_process();
}

void register_lists_io() {
    compat::require_matching_faiss();
    static std::once_flag once;
    std::call_once(once, [] {
        faiss::InvertedListsIOHook::add_callback(new RunListsIOHook); // FAISS's from here on
        faiss::InvertedListsIOHook::add_callback(new BlockListsIOHook);
    });
}

} // namespace faiss_gmm
