// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The file of the lists: list by list the codes of all shards, then their ids; room for a multiple of 8 entries a list,
// so that ids stand where int64_t may stand.
#include "faiss_gmm/io/merge_ondisk.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>
#include <system_error>
#include <typeinfo>

#include <fmt/format.h>

#include <faiss/IndexPreTransform.h>
#include <faiss/impl/io.h>
#include <faiss/index_io.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/io/atomic_file.h"
#include "faiss_gmm/io/clone.h"
#include "faiss_gmm/io/index_io.h"

namespace faiss_gmm {
namespace {

constexpr size_t entries_grain = 8;

constexpr const char* doing = "merging indices to disk";

using OnDisk = faiss::OnDiskInvertedLists;

[[noreturn]] void
refuse(const std::string& given, const std::string& allowed, const std::string& next) {
    throw_faiss({doing, given, allowed, next});
}

/// The index of this library, and the IndexPreTransforms around it; null where there is another inside.
IndexIVFGMM* bare(faiss::Index& index, std::vector<faiss::Index*>* around = nullptr) {
    faiss::Index* inner = &index;
    while (auto* chain = dynamic_cast<faiss::IndexPreTransform*>(inner)) {
        if (around != nullptr) {
            around->push_back(chain);
        }
        inner = chain->index;
    }
    return dynamic_cast<IndexIVFGMM*>(inner);
}

/// The codec and the quantizer: what says which code a vector has in which list.
std::vector<uint8_t> codec_bytes(const IndexIVFGMM& index) {
    Cloner cloner;
    const std::unique_ptr<faiss::IndexIVF> codec = index.stock_copy(cloner);
    codec->ntotal = 0; // what differs, and may
    codec->nprobe = 1;
    codec->direct_map = faiss::DirectMap();
    faiss::VectorIOWriter writer;
    faiss::write_index(codec.get(), &writer);
    return writer.data;
}

bool same_model(const GaussianMixture& a, const GaussianMixture& b) {
    return a.covariance == b.covariance && a.means == b.means && a.log_weights == b.log_weights &&
           a.covariances == b.covariances;
}

/// One of the indices that are merged; codes and ids stay in its file.
class Shard {
public:
    explicit Shard(const std::string& path)
            : path_(path),
              index_(read_index(path, faiss::IO_FLAG_MMAP | faiss::IO_FLAG_SKIP_PRECOMPUTE_TABLE)),
              ours_(bare(*index_)) {
        if (ours_ == nullptr || ours_->run_lists() == nullptr) {
            const faiss::Index& other = *index_;
            refuse(fmt::format("{}, which holds {}", path, typeid(other).name()),
                   "indices of this library of a codec with a code a vector",
                   "build the shards from the index that is filled");
        }
        // Of no use here, and a twentieth of the vectors' memory.
        dynamic_cast<RunInvertedLists&>(*ours_->ivf().invlists).forget_runs();
    }
    void check_trained_as(const IndexIVFGMM& target, const std::vector<uint8_t>& codec) const {
        const CoarseState& state = ours_->run_lists()->state();
        const CoarseState& wanted = target.run_lists()->state();
        const auto require = [&](bool holds, const char* what) {
            if (!holds) {
                refuse(fmt::format("{}, an index of {}", path_, what),
                       "shards that were trained as the index that is filled",
                       "read each shard from the file of the trained index, and add vectors to it");
            }
        };
        require(ours_->ivf().nlist == target.ivf().nlist &&
                        ours_->ivf().code_size == target.ivf().code_size,
                "another number of lists or size of codes");
        require(same_model(state.mixture, wanted.mixture), "another mixture");
        require(ours_->stores_copies() == target.stores_copies() &&
                        (!target.stores_copies() || state.spill == wanted.spill),
                "another storage");
        require(codec_bytes(*ours_) == codec, "another codec");
    }
    const std::string& path() const {
        return path_;
    }
    const faiss::InvertedLists& lists() const {
        return *ours_->ivf().invlists;
    }
    int64_t vectors() const {
        return ours_->ivf().ntotal;
    }

private:
    std::string path_;
    std::unique_ptr<faiss::Index> index_;
    IndexIVFGMM* ours_;
};

/// Places of all lists in a file.
std::vector<OnDisk::List>
layout_of(const std::vector<Shard>& shards, size_t nlist, size_t code_size) {
    std::vector<OnDisk::List> lists(nlist);
    size_t offset = 0;
    for (size_t l = 0; l < nlist; l++) {
        for (const Shard& shard : shards) {
            lists[l].size += shard.lists().list_size(l);
        }
        lists[l].capacity = (lists[l].size + entries_grain - 1) / entries_grain * entries_grain;
        lists[l].offset = offset;
        offset += lists[l].capacity * (code_size + sizeof(int64_t));
    }
    return lists;
}

size_t end_of(const std::vector<OnDisk::List>& lists, size_t code_size) {
    return lists.back().offset + lists.back().capacity * (code_size + sizeof(int64_t));
}

void write_lists(
        const std::vector<Shard>& shards,
        const std::vector<OnDisk::List>& lists,
        size_t code_size,
        faiss::IOWriter& file) {
    const std::vector<uint8_t> nothing(entries_grain * std::max(code_size, sizeof(int64_t)));
    for (size_t l = 0; l < lists.size(); l++) {
        const size_t padding = lists[l].capacity - lists[l].size;
        for (const Shard& shard : shards) {
            faiss::InvertedLists::ScopedCodes codes(&shard.lists(), l);
            file(codes.get(), code_size, shard.lists().list_size(l));
        }
        file(nothing.data(), code_size, padding);
        for (const Shard& shard : shards) {
            faiss::InvertedLists::ScopedIds ids(&shard.lists(), l);
            file(ids.get(), sizeof(int64_t), shard.lists().list_size(l));
        }
        file(nothing.data(), sizeof(int64_t), padding);
    }
}

bool is_same_file(const std::string& a, const std::string& b) {
    std::error_code missing;
    return std::filesystem::equivalent(a, b, missing);
}

} // namespace

void merge_ondisk(
        faiss::Index& index, const std::vector<std::string>& shards, const std::string& path) {
    std::vector<faiss::Index*> around;
    IndexIVFGMM* const target = bare(index, &around);
    if (target == nullptr) {
        refuse(typeid(index).name(),
               "an index of this library, or IndexPreTransform around one",
               "make one by faiss_gmm::index_factory, and train it");
    }
    target->require_room_for_lists(doing);
    faiss::IndexIVF& ivf = target->ivf();

    const std::vector<uint8_t> codec = codec_bytes(*target);
    std::vector<Shard> read;
    read.reserve(shards.size());
    int64_t vectors = 0;
    for (const std::string& shard : shards) {
        if (is_same_file(shard, path)) {
            refuse(fmt::format("{}, which is a shard", path),
                   "a file of its own for the lists",
                   "choose another name");
        }
        read.emplace_back(shard);
        read.back().check_trained_as(*target, codec);
        vectors += read.back().vectors();
    }
    const size_t code_size = ivf.code_size;
    std::vector<OnDisk::List> lists = layout_of(read, ivf.nlist, code_size);
    const size_t bytes = end_of(lists, code_size);
    if (bytes == 0) {
        refuse(fmt::format("{} shards without vectors", shards.size()),
               "at least one vector",
               "add vectors to the shards, and write them");
    }
    AtomicFile file(path);
    write_lists(read, lists, code_size, file);
    file.commit();

    auto on_disk = std::make_unique<OnDisk>(ivf.nlist, code_size, path.c_str());
    on_disk->lists = std::move(lists);
    on_disk->totsize = bytes;
    on_disk->do_mmap();
    target->replace_lists(std::move(on_disk), vectors);
    for (faiss::Index* wrapper : around) {
        wrapper->ntotal = vectors;
    }
}

} // namespace faiss_gmm
