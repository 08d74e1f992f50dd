// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/describe.h"

#include <cstdlib>
#include <memory>
#include <typeinfo>
#if __has_include(<cxxabi.h>)
#include <cxxabi.h>
#endif

#include <fmt/format.h>

#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexRowwiseMinMax.h>
#include <faiss/IndexShards.h>

#include "faiss_gmm/index/codecs.h"

namespace faiss_gmm {
namespace {

/// The class of an index as FAISS's users write it: without namespaces, and IndexIDMap for its template.
std::string class_of(const faiss::Index& index) {
    std::string name = typeid(index).name();
#if __has_include(<cxxabi.h>)
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> plain(
            abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
    if (status == 0) {
        name = plain.get();
    }
#endif
    for (const std::string part : {"faiss_gmm::", "faiss::", "Template<Index>"}) {
        for (size_t at = name.find(part); at != std::string::npos; at = name.find(part, at)) {
            name.erase(at, part.size());
        }
    }
    return name;
}

std::string metric_of(const faiss::Index& index) {
    switch (index.metric_type) {
    case faiss::METRIC_L2:
        return "L2";
    case faiss::METRIC_INNER_PRODUCT:
        return "inner product";
    default:
        return fmt::format("metric {}", static_cast<int>(index.metric_type));
    }
}

struct RunCounts {
    size_t runs = 0, guests = 0, without_run = 0;
};
RunCounts count_runs(const RunInvertedLists& lists) {
    RunCounts counts;
    for (size_t l = 0; l < lists.nlist; l++) {
        const ListRuns& list = lists.directory().lists[l];
        counts.runs += list.stale ? 0 : list.runs();
        counts.guests += list.guests.size();
        counts.without_run += lists.list_size(l) - list.usable_entries();
    }
    return counts;
}

std::string in_runs(const RunInvertedLists& lists) {
    const RunCounts counts = count_runs(lists);
    return fmt::format(
            "{} runs of {} vectors, {} sketches, {} guests in further lists, {} vectors without a "
            "run",
            counts.runs,
            run_size,
            lists.directory().sketched ? "with" : "without",
            counts.guests,
            counts.without_run);
}

bool holds_copies(const CoarseState& state) {
    return state.mixture.K > 0 && state.spill.storage == SpillStorage::copies;
}

/// How the lists of an IndexIVFGMM hold its vectors.
std::string lists_of(const IndexIVFGMM& index) {
    const faiss::IndexIVF& ivf = index.ivf();
    const RunInvertedLists* lists = index.run_lists();
    if (dynamic_cast<const MixtureBlockLists*>(ivf.invlists) != nullptr) {
        return "plain lists, in blocks of a FastScan codec";
    }
    if (lists == nullptr) {
        return "of another class, in place of its own";
    }
    if (lists->has_runs()) {
        return in_runs(*lists);
    }
    const size_t entries = lists->compute_ntotal();
    if (index.stores_copies()) {
        return fmt::format("{} copies of the vectors, in plain lists", entries);
    }
    if (index.mixture().K == 0) {
        return fmt::format("{} entries in plain lists: no mixture was learnt yet", entries);
    }
    return fmt::format(
            "{} entries in plain lists: {}",
            entries,
            keeps_plain_lists(ivf) ? "the codec's stay so"
                                   : "there were too few training vectors for runs");
}

std::string searches_of(const IndexIVFGMM& index) {
    const faiss::IndexIVF& ivf = index.ivf();
    const RunInvertedLists* lists = index.run_lists();
    if (lists == nullptr || (!lists->has_runs() && !index.stores_copies())) {
        return fmt::format("those of a plain IVF in {} lists (nprobe)", ivf.nprobe);
    }
    if (index.stores_copies()) {
        return fmt::format(
                "those of a plain IVF in {} lists (nprobe), each id returned once", ivf.nprobe);
    }
    if (ivf.nprobe >= ivf.nlist) {
        return "exact in all lists";
    }
    const SearchSettings settings =
            resolve_settings(ivf, nullptr, index.probe_expansion, index.k_factor);
    return fmt::format(
            "about {} vectors of the best runs in {} lists (nprobe {}){}",
            settings.budget(ivf.ntotal, ivf.nlist),
            settings.lists,
            ivf.nprobe,
            lists->directory().sketched ? ", of which sketches choose those that are compared"
                                        : ", all compared");
}

/// What is there of ours in a stock index, and of what use.
std::string stock_lists(const faiss::IndexIVF& index) {
    if (dynamic_cast<const MixtureBlockLists*>(index.invlists) != nullptr) {
        return "plain lists of faiss_gmm, in blocks: searches are as an IndexIVFGMM's; promote() "
               "makes one of it";
    }
    const auto* lists = dynamic_cast<const RunInvertedLists*>(index.invlists);
    if (lists == nullptr) {
        return "stock: nothing of faiss_gmm";
    }
    const char* promote = "promote() makes an IndexIVFGMM of it";
    if (lists->has_runs()) {
        return fmt::format(
                "of faiss_gmm, {}: unused, searches are those of a plain IVF; {}",
                in_runs(*lists),
                promote);
    }
    if (holds_copies(lists->state())) {
        return fmt::format(
                "of faiss_gmm, {} copies of the vectors: searches return an id as often as it is "
                "stored; {}",
                lists->compute_ntotal(),
                promote);
    }
    return fmt::format("plain lists of faiss_gmm: searches are as an IndexIVFGMM's; {}", promote);
}

class Description {
public:
    std::string text;

    void add(const faiss::Index& index, size_t depth) {
        if (const auto* chain = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
            line(depth,
                 fmt::format("{} of {} transformations", class_of(index), chain->chain.size()));
            add_inner(chain->index, depth);
        } else if (const auto* map = dynamic_cast<const faiss::IndexIDMap*>(&index)) {
            line(depth, fmt::format("{} of {} ids", class_of(index), map->id_map.size()));
            add_inner(map->index, depth);
        } else if (const auto* refine = dynamic_cast<const faiss::IndexRefine*>(&index)) {
            line(depth,
                 fmt::format(
                         "{}, k_factor {}, by {}",
                         class_of(index),
                         refine->k_factor,
                         refine->refine_index != nullptr ? class_of(*refine->refine_index)
                                                         : "no index"));
            add_inner(refine->base_index, depth);
        } else if (
                const auto* scaled = dynamic_cast<const faiss::IndexRowwiseMinMaxBase*>(&index)) {
            line(depth, class_of(index));
            add_inner(scaled->index, depth);
        } else if (const auto* shards = dynamic_cast<const faiss::IndexShards*>(&index)) {
            add_parts(*shards, depth);
        } else if (const auto* replicas = dynamic_cast<const faiss::IndexReplicas*>(&index)) {
            add_parts(*replicas, depth);
        } else if (const auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) {
            add_ivf(*ivf, depth);
        } else {
            line(depth, sizes(index));
        }
    }

private:
    static std::string sizes(const faiss::Index& index) {
        return fmt::format(
                "{}: {} vectors of {} dimensions, {}{}",
                class_of(index),
                index.ntotal,
                index.d,
                metric_of(index),
                index.is_trained ? "" : ", not trained");
    }
    void line(size_t depth, const std::string& words) {
        text += std::string(2 * depth, ' ') + words + "\n";
    }
    void add_inner(const faiss::Index* inner, size_t depth) {
        if (inner != nullptr) {
            add(*inner, depth + 1);
        }
    }
    template <class Parts> void add_parts(const Parts& parts, size_t depth) {
        line(depth, fmt::format("{} of {}", class_of(parts), parts.count()));
        for (int i = 0; i < static_cast<int>(parts.count()); i++) {
            add_inner(parts.at(i), depth);
        }
    }
    void add_ivf(const faiss::IndexIVF& index, size_t depth) {
        const auto* ours = dynamic_cast<const IndexIVFGMM*>(&index);
        line(depth,
             fmt::format(
                     "{}, {} lists, codes of {} bytes",
                     sizes(index),
                     index.nlist,
                     index.code_size));
        if (index.invlists == nullptr || index.quantizer == nullptr) {
            line(depth + 1, "without lists or quantizer");
            return;
        }
        line(depth + 1,
             fmt::format(
                     "quantizer: {} of {} means",
                     class_of(*index.quantizer),
                     index.quantizer->ntotal));
        if (ours == nullptr) {
            line(depth + 1, "lists: " + stock_lists(index));
            return;
        }
        line(depth + 1, "lists: " + lists_of(*ours));
        const MemoryUse use = ours->memory_use();
        line(depth + 1,
             fmt::format(
                     "bytes: {} of codes, {} of ids, {} of runs and mixture, {} of the quantizer",
                     use.codes,
                     use.ids,
                     use.directory,
                     use.quantizer));
        line(depth + 1, "searches: " + searches_of(*ours));
    }
};

} // namespace

std::string describe(const faiss::Index& index) {
    Description description;
    description.add(index, 0);
    return description.text;
}

} // namespace faiss_gmm
