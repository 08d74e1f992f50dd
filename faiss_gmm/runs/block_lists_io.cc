// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/runs/detail/block_lists_io.h"

#include <memory>
#include <typeinfo>

#include <faiss/impl/FaissException.h>
#include <faiss/index_io.h>

#include "faiss_gmm/runs/detail/state_io.h"
#include "faiss_gmm/runs/mixture_block_lists.h"

namespace faiss_gmm {
namespace {

constexpr const char* block_lists_key = "ilgb";

size_t bytes_of_blocks(uint64_t entries, uint64_t entries_a_block, uint64_t code_size) {
    return (entries + entries_a_block - 1) / entries_a_block * entries_a_block * code_size;
}

void write_lists(const MixtureBlockLists& lists, faiss::IOWriter& out) {
    SectionWriter(out).number(faiss::fourcc(block_lists_key), "key");
    SectionWriter section(out);
    const SectionBegin begin(lists, lists.block_size / lists.n_per_block, lists);
    begin.write(section);
    section.number(uint64_t{lists.n_per_block}, "entries a block");
    StateIO<SectionWriter>(section, lists.nlist).state(lists.state());
    section.checksum("checksum");
    for (size_t l = 0; l < lists.nlist; l++) {
        section.array(lists.ids[l], lists.list_size(l), "ids");
        section.bytes(lists.codes[l].get(), lists.codes[l].size());
    }
    section.checksum("checksum");
}

std::unique_ptr<MixtureBlockLists> read_lists(faiss::IOReader& in) {
    SectionReader section(in);
    SectionBegin begin;
    begin.read(section);
    uint64_t entries_a_block = 0;
    section.number(entries_a_block, "entries a block");
    section.require(
            can_search_blocks_of(entries_a_block) && begin.code_size > 0 &&
                    begin.code_size <= most_dimensions,
            fmt::format("blocks of {} entries of {} bytes", entries_a_block, begin.code_size),
            fmt::format("multiples of {} up to {} entries", block_grain, most_entries_a_block));
    auto state = std::make_shared<CoarseState>();
    StateIO<SectionReader>(section, begin.nlist).state(*state);
    section.checksum("the checksum of the state");

    auto lists = std::make_unique<MixtureBlockLists>(
            begin.nlist, entries_a_block, entries_a_block * begin.code_size);
    std::vector<uint8_t> blocks;
    for (size_t l = 0; l < begin.nlist; l++) {
        section.array(lists->ids[l], begin.sizes[l], "ids");
        section.array(
                blocks,
                bytes_of_blocks(begin.sizes[l], entries_a_block, begin.code_size),
                "blocks of codes");
        lists->codes[l].resize(blocks.size());
        std::copy(blocks.begin(), blocks.end(), lists->codes[l].get());
    }
    section.checksum("the checksum of the inner lists");
    lists->set_state(std::move(state));
    lists->keep_for_index(std::move(begin.parameters));
    return lists;
}

} // namespace

BlockListsIOHook::BlockListsIOHook()
        : faiss::InvertedListsIOHook(block_lists_key, typeid(MixtureBlockLists).name()) {}

void BlockListsIOHook::write(const faiss::InvertedLists* lists, faiss::IOWriter* out) const {
    try {
        write_lists(dynamic_cast<const MixtureBlockLists&>(*lists), *out);
    } catch (const Error& error) {
        throw faiss::FaissException(error.what());
    }
}

faiss::InvertedLists* BlockListsIOHook::read(faiss::IOReader* in, int) const {
    try {
        return read_lists(*in).release();
    } catch (const Error& error) {
        throw faiss::FaissException(error.what());
    }
}

} // namespace faiss_gmm
