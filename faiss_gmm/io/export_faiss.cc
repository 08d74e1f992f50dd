// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/io/export_faiss.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/io/clone.h"

namespace faiss_gmm {
namespace {

/// Entries of one list, ids beside codes.
struct Entries {
    std::vector<int64_t> ids;
    std::vector<uint8_t> codes; ///< [ids, code_size]

    void add(size_t code_size, size_t n, const int64_t* more_ids, const uint8_t* more_codes) {
        ids.insert(ids.end(), more_ids, more_ids + n);
        codes.insert(codes.end(), more_codes, more_codes + n * code_size);
    }
    void sort(size_t code_size) {
        std::vector<size_t> order(ids.size());
        std::iota(order.begin(), order.end(), size_t{0});
        std::stable_sort(
                order.begin(), order.end(), [this](size_t a, size_t b) { return ids[a] < ids[b]; });
        Entries sorted;
        sorted.ids.reserve(ids.size());
        sorted.codes.reserve(codes.size());
        for (const size_t i : order) {
            sorted.add(code_size, 1, &ids[i], codes.data() + i * code_size);
        }
        *this = std::move(sorted);
    }
};

/// Entries [first, first + n) of list `home` with the codes that they have in another list.
void add_guests(
        const faiss::IndexIVF& index,
        size_t home,
        size_t first,
        size_t n,
        size_t list,
        Entries& entries) {
    const size_t d = index.d;
    std::vector<float> x(n * d);
    for (size_t i = 0; i < n; i++) {
        index.reconstruct_from_offset(
                static_cast<int64_t>(home), static_cast<int64_t>(first + i), x.data() + i * d);
    }
    const std::vector<int64_t> lists(n, static_cast<int64_t>(list));
    std::vector<uint8_t> codes(n * index.code_size);
    index.encode_vectors(static_cast<int64_t>(n), x.data(), lists.data(), codes.data());
    faiss::InvertedLists::ScopedIds ids(index.invlists, home);
    entries.add(index.code_size, n, ids.get() + first, codes.data());
}

Entries exported_list(
        const faiss::IndexIVF& index,
        const RunInvertedLists* runs,
        size_t list,
        ExportedLists which) {
    Entries entries;
    const size_t size = index.invlists->list_size(list);
    {
        faiss::InvertedLists::ScopedIds ids(index.invlists, list);
        faiss::InvertedLists::ScopedCodes codes(index.invlists, list);
        entries.add(index.code_size, size, ids.get(), codes.get());
    }
    if (which == ExportedLists::with_guests && runs != nullptr) {
        for (const Guest& guest : runs->directory().lists[list].guests) {
            const ListRuns& home = runs->directory().lists[guest.home];
            if (!home.stale) {
                add_guests(
                        index,
                        guest.home,
                        guest.run * run_size,
                        home.size_of_run(guest.run),
                        list,
                        entries);
            }
        }
    }
    entries.sort(index.code_size);
    return entries;
}

/// Stock lists with the entries of ours.
std::unique_ptr<faiss::InvertedLists>
exported_lists(const faiss::IndexIVF& index, const RunInvertedLists* runs, ExportedLists which) {
    if (const auto* blocks = dynamic_cast<const MixtureBlockLists*>(index.invlists)) {
        return blocks->stock_copy();
    }
    auto lists = std::make_unique<faiss::ArrayInvertedLists>(index.nlist, index.code_size);
    for (size_t l = 0; l < index.nlist; l++) {
        const Entries entries = exported_list(index, runs, l, which);
        lists->add_entries(l, entries.ids.size(), entries.ids.data(), entries.codes.data());
    }
    return lists;
}

/// Clones wrappers, and exports what lies in them.
struct Exporter : Cloner {
    ExportedLists which = ExportedLists::as_stored;

    faiss::Index* clone_Index(const faiss::Index* index) override {
        const auto* ours = dynamic_cast<const IndexIVFGMM*>(index);
        if (ours == nullptr) {
            return Cloner::clone_Index(index);
        }
        std::unique_ptr<faiss::InvertedLists> lists =
                exported_lists(ours->ivf(), ours->run_lists(), which);
        std::unique_ptr<faiss::IndexIVF> stock = ours->stock_copy(*this);
        stock->direct_map = faiss::DirectMap();
        stock->invlists = lists.release();
        stock->own_invlists = true;
        return stock.release();
    }
};

} // namespace

faiss::Index* export_faiss(const faiss::Index& index, ExportedLists lists) {
    Exporter exporter;
    exporter.which = lists;
    return exporter.clone_Index(&index);
}

} // namespace faiss_gmm
