// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/budgeted_search.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <cblas.h>
#include <fmt/format.h>
#include <omp.h>

#include <faiss/IndexFlat.h>
#include <faiss/impl/AuxIndexStructures.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/index/defaults.h"
#include "faiss_gmm/index/faiss_error.h"
#include "faiss_gmm/index/list_search.h"
#include "faiss_gmm/index/result_heap.h"
#include "faiss_gmm/runs/parallel.h"
#include "faiss_gmm/runs/prefetch.h"
#include "faiss_gmm/runs/select.h"
#include "faiss_gmm/runs/sketch_scan.h"
#include "faiss_gmm/runs/vector_ops.h"

namespace faiss_gmm {
namespace {

// Queries of a thread that share one matrix product with the means: as many as keep its distances in
// 1 MiB, from 16 to 128.
constexpr size_t product_numbers = size_t{1} << 18, least_queries = 16, most_queries = 128;

/// What a thread keeps from query to query.
struct Scratch {
    std::vector<float> centred, rotated,
            means; // of a block of queries: [b, d], [b, kept], [b, nlist]
    std::vector<int64_t> lists;
    std::vector<float> list_distances;
    std::vector<float> negated;
    std::vector<int32_t> positions;
    std::vector<std::pair<float, int32_t>> nearest;
    QueryTables tables;
    ChoiceScratch choice;
    std::vector<ChosenRun> chosen;
    ScanScratch scan;
    std::vector<Candidate> candidates;
    std::vector<uint64_t> places;
    std::vector<const uint8_t*> rows;
    std::vector<float> distances;
};

class BudgetedSearch {
public:
    BudgetedSearch(
            const faiss::IndexIVF& ivf,
            const RunInvertedLists& lists,
            const SearchSettings& settings,
            const ResultArrays& results)
            : ivf_(ivf), lists_(lists), codec_(lists.state().codec), directory_(lists.directory()),
              settings_(settings), results_(results), k_(results.k),
              budget_(settings.budget(ivf.ntotal, ivf.nlist)),
              flat_(dynamic_cast<const faiss::IndexFlat*>(ivf.quantizer) != nullptr) {}

    /// Queries x [n, d] of one block, the first of which has the results of query `first`.
    void search_block(size_t first, size_t n, const float* x, IVFGMMStats& stats) const {
        thread_local Scratch scratch;
        const size_t d = codec_.d, nlist = ivf_.nlist;
        centre(n, x, scratch);
        scratch.rotated.resize(n * codec_.kept);
        codec_.rotate_queries(n, scratch.centred.data(), scratch.rotated.data());
        if (flat_) {
            distances_to_means(n, scratch);
        } else {
            scratch.lists.resize(n * settings_.lists);
            scratch.list_distances.resize(n * settings_.lists);
            search_quantizer(n, x, scratch);
        }
        // The scanner tests no selector: what it is handed has passed, or is tested by
        // scan_entries.
        const auto scanner = compat::make_scanner(ivf_, nullptr, settings_.codec_params);
        for (size_t i = 0; i < n; i++) {
            ResultHeap heap = results_.heap_of(first + i, codec_.inner_product);
            heap.start();
            const float* centred = scratch.centred.data() + i * d;
            const float* all = flat_ ? scratch.means.data() + i * nlist : nullptr;
            const ProbedLists probed =
                    flat_ ? nearest_lists(all, scratch)
                          : ProbedLists{
                                    settings_.lists,
                                    scratch.lists.data() + i * settings_.lists,
                                    scratch.list_distances.data() + i * settings_.lists};
            const HomeDistances homes(codec_, all, centred);
            stats.nq++;
            stats.means += flat_ ? nlist : 0;
            if (probed.n > 0 && std::isfinite(probed.distance[0])) {
                scanner->set_query(x + i * d);
                search_lists(
                        x + i * d,
                        probed,
                        homes,
                        scratch.rotated.data() + i * codec_.kept,
                        *scanner,
                        scratch,
                        heap,
                        stats);
            }
            stats.means += homes.computed();
            heap.finish();
            if (results_.meaning == Labels::ids) {
                look_up_ids(heap.labels());
            }
        }
    }

private:
    void centre(size_t n, const float* x, Scratch& scratch) const {
        const size_t d = codec_.d;
        scratch.centred.resize(n * d);
        for (size_t i = 0; i < n; i++) {
            for (size_t t = 0; t < d; t++) {
                scratch.centred[i * d + t] = x[i * d + t] - codec_.data_mean[t];
            }
        }
    }

    /// |q - c|^2 (inner product: <q, c>) to all means, by one product.
    void distances_to_means(size_t n, Scratch& scratch) const {
        const size_t d = codec_.d, nlist = ivf_.nlist;
        scratch.means.resize(n * nlist);
        cblas_sgemm(
                CblasRowMajor,
                CblasNoTrans,
                CblasTrans,
                static_cast<int>(n),
                static_cast<int>(nlist),
                static_cast<int>(d),
                codec_.inner_product ? 1.0f : -2.0f,
                scratch.centred.data(),
                static_cast<int>(d),
                codec_.centred_means.data(),
                static_cast<int>(d),
                0.0f,
                scratch.means.data(),
                static_cast<int>(nlist));
        for (size_t i = 0; i < n; i++) {
            const float* q = scratch.centred.data() + i * d;
            const float norm = dot(d, q, q);
            float* row = scratch.means.data() + i * nlist;
            for (size_t l = 0; l < nlist && !codec_.inner_product; l++) {
                row[l] = std::max(0.0f, row[l] + norm + codec_.mean_norms[l]);
            }
            if (!std::isfinite(norm)) { // marks the query: NaN, Inf, or too large to square
                row[0] = NAN;
            }
        }
    }

    void search_quantizer(size_t n, const float* x, Scratch& scratch) const {
        ivf_.quantizer->search(
                static_cast<int64_t>(n),
                x,
                static_cast<int64_t>(settings_.lists),
                scratch.list_distances.data(),
                scratch.lists.data(),
                settings_.quantizer_params);
    }

    /// The nearest of all lists, nearest first; none for a query that is not finite.
    ProbedLists nearest_lists(const float* all, Scratch& scratch) const {
        const size_t nlist = ivf_.nlist, count = settings_.lists;
        if (!std::isfinite(all[0])) {
            return {};
        }
        const float* values = all;
        if (codec_.inner_product) { // the largest products are wanted
            scratch.negated.resize(nlist);
            std::transform(all, all + nlist, scratch.negated.begin(), std::negate<float>());
            values = scratch.negated.data();
        }
        scratch.positions.resize(nlist);
        const size_t found = select_values(values, nlist, count, scratch.positions.data());
        auto& nearest = scratch.nearest;
        nearest.resize(found);
        for (size_t i = 0; i < found; i++) {
            nearest[i] = {values[scratch.positions[i]], scratch.positions[i]};
        }
        std::sort(nearest.begin(), nearest.end());
        scratch.lists.resize(count);
        scratch.list_distances.resize(count);
        for (size_t p = 0; p < count; p++) {
            scratch.lists[p] = nearest[p].second;
            scratch.list_distances[p] = all[nearest[p].second];
        }
        return {count, scratch.lists.data(), scratch.list_distances.data()};
    }

    void search_lists(
            const float* query,
            const ProbedLists& probed,
            const HomeDistances& homes,
            const float* rotated_query,
            faiss::InvertedListScanner& scanner,
            Scratch& scratch,
            ResultHeap& heap,
            IVFGMMStats& stats) const {
        codec_.build_tables(
                rotated_query, directory_.summary_range, directory_.sketch_range, scratch.tables);
        const ChoiceCounts choice = choose_runs(
                directory_,
                codec_,
                scratch.tables,
                probed,
                homes,
                budget_,
                scratch.choice,
                scratch.chosen);
        stats.nscored += choice.summaries;
        stats.bytes_scored += choice.blocks * codec_.summary_layout().bytes();
        stats.nvisited += choice.vectors;
        if (directory_.sketched) {
            const ScanCounts scan = scan_sketches(
                    directory_,
                    codec_,
                    scratch.tables,
                    scratch.chosen,
                    settings_.exact_distances(k_, ivf_.ntotal),
                    settings_.selector,
                    lists_,
                    scratch.scan,
                    scratch.candidates);
            stats.nscored += scan.sketches;
            stats.nskipped += scan.skipped;
            stats.bytes_scored += scratch.chosen.size() * codec_.sketch_layout().bytes();
            exact_distances(query, homes, scanner, scratch, heap);
            stats.ndis += scratch.candidates.size();
        } else {
            scan_chosen_runs(homes, scanner, scratch, heap, stats);
        }
        scan_entries_without_run(probed, scanner, heap, stats);
    }

    /// The codec's distances of the candidates.
    void exact_distances(
            const float* query,
            const HomeDistances& homes,
            faiss::InvertedListScanner& scanner,
            Scratch& scratch,
            ResultHeap& heap) const {
        // A place is list << 32 | offset, as in FAISS's pairs. Home by home.
        std::vector<uint64_t>& places = scratch.places;
        places.clear();
        for (const Candidate& candidate : scratch.candidates) {
            places.push_back(faiss::lo_build(candidate.home, candidate.entry));
        }
        std::sort(places.begin(), places.end());
        const size_t n = places.size(), code_size = lists_.code_size;
        const auto first_of_home = [&](size_t i) {
            return i == 0 || faiss::lo_listno(places[i]) != faiss::lo_listno(places[i - 1]);
        };
        std::vector<const uint8_t*>& rows = scratch.rows;
        rows.resize(n);
        const uint8_t* codes = nullptr;
        for (size_t i = 0; i < n; i++) {
            if (first_of_home(i)) {
                codes = lists_.get_codes(faiss::lo_listno(places[i]));
            }
            rows[i] = codes + faiss::lo_offset(places[i]) * code_size;
        }
        if (settings_.own_distances) {
            scratch.distances.resize(n);
            row_distances(
                    codec_.inner_product,
                    codec_.d,
                    query,
                    rows.data(),
                    n,
                    scratch.distances.data());
            for (size_t i = 0; i < n; i++) {
                heap.push(scratch.distances[i], static_cast<int64_t>(places[i]));
            }
        } else {
            scan_rows(places, homes, scanner, rows, heap);
        }
        for (size_t i = 0; i < n; i++) {
            if (first_of_home(i)) {
                lists_.release_codes(
                        faiss::lo_listno(places[i]),
                        rows[i] - faiss::lo_offset(places[i]) * code_size);
            }
        }
    }

    /// Distances by the codec's scanner, rows prefetched.
    void scan_rows(
            const std::vector<uint64_t>& places,
            const HomeDistances& homes,
            faiss::InvertedListScanner& scanner,
            const std::vector<const uint8_t*>& rows,
            ResultHeap& heap) const {
        int64_t home = -1;
        for_each_row_prefetched(rows.data(), rows.size(), lists_.code_size, [&](size_t i) {
            const auto list = static_cast<int64_t>(faiss::lo_listno(places[i]));
            if (list != home) {
                home = list;
                scanner.set_list(home, homes(home));
            }
            heap.push(scanner.distance_to_code(rows[i]), static_cast<int64_t>(places[i]));
        });
    }

    /// From list and offset, which results are known by until they are final, to ids.
    void look_up_ids(int64_t* labels) const {
        for (size_t j = 0; j < k_ && labels[j] >= 0; j++) {
            labels[j] =
                    lists_.get_single_id(faiss::lo_listno(labels[j]), faiss::lo_offset(labels[j]));
        }
    }

    /// Without sketches the codec's scanner takes the chosen runs whole.
    void scan_chosen_runs(
            const HomeDistances& homes,
            faiss::InvertedListScanner& scanner,
            Scratch& scratch,
            ResultHeap& heap,
            IVFGMMStats& stats) const {
        auto& chosen = scratch.chosen;
        std::sort(chosen.begin(), chosen.end(), [](const ChosenRun& a, const ChosenRun& b) {
            return a.home != b.home ? a.home < b.home : a.run < b.run;
        });
        int32_t home = -1;
        for (const ChosenRun& run : chosen) {
            if (run.home != home) {
                home = run.home;
                scanner.set_list(home, homes(home));
            }
            const size_t first = run.run * run_size;
            const ScanTotals totals = scan_entries(
                    lists_,
                    scanner,
                    home,
                    first,
                    first + run.size,
                    settings_.selector,
                    Labels::list_and_offset,
                    heap);
            stats.ndis += totals.ndis;
            stats.nskipped += totals.skipped;
        }
    }

    void scan_entries_without_run(
            const ProbedLists& probed,
            faiss::InvertedListScanner& scanner,
            ResultHeap& heap,
            IVFGMMStats& stats) const {
        for (size_t p = 0; p < probed.n; p++) {
            if (probed.list[p] < 0) {
                continue;
            }
            const size_t l = probed.list[p];
            stats.nlist++;
            const size_t from = directory_.lists[l].usable_entries(), to = lists_.list_size(l);
            if (from == to) {
                continue;
            }
            scanner.set_list(static_cast<int64_t>(l), probed.distance[p]);
            const ScanTotals totals = scan_entries(
                    lists_,
                    scanner,
                    l,
                    from,
                    to,
                    settings_.selector,
                    Labels::list_and_offset,
                    heap);
            stats.ndis += totals.ndis;
            stats.nskipped += totals.skipped;
            stats.nvisited += to - from;
        }
    }

    const faiss::IndexIVF& ivf_;
    const RunInvertedLists& lists_;
    const RunCodec& codec_;
    const RunDirectory& directory_;
    const SearchSettings& settings_;
    const ResultArrays& results_;
    size_t k_;
    size_t budget_;
    bool flat_;
};

/// The search into arrays of its own, then into the caller's heaps.
void add_to_heaps(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        int64_t n,
        const float* x,
        const ResultArrays& heaps) {
    std::vector<float> distances(n * heaps.k);
    std::vector<int64_t> labels(n * heaps.k);
    budgeted_search(
            ivf, lists, settings, n, x, {heaps.k, distances.data(), labels.data(), heaps.meaning});
    for (int64_t i = 0; i < n; i++) {
        ResultHeap heap = heaps.heap_of(i, ivf.metric_type == faiss::METRIC_INNER_PRODUCT);
        for (int64_t j = i * heaps.k; j < (i + 1) * heaps.k && labels[j] >= 0; j++) {
            heap.push(distances[j], labels[j]);
        }
    }
}

} // namespace

size_t SearchSettings::budget(size_t ntotal, size_t nlist) const {
    const auto vectors = static_cast<size_t>(std::ceil(
            static_cast<double>(nprobe) * static_cast<double>(ntotal) /
            static_cast<double>(nlist)));
    return max_codes > 0 ? std::min(vectors, max_codes) : vectors;
}

void check_result_count(int64_t k) {
    if (k <= 0) {
        throw_faiss(
                {"searching an IVFGMM index",
                 fmt::format("k = {}", k),
                 "k from 1",
                 "ask for at least one result a query"});
    }
}

size_t SearchSettings::exact_distances(size_t k, size_t ntotal) const {
    if (k_factor == 0) {
        return default_exact_distances(k);
    }
    const double wanted = std::round(static_cast<double>(k) * k_factor);
    return std::max(k, static_cast<size_t>(std::min(wanted, static_cast<double>(ntotal))));
}

faiss::IVFSearchParameters SearchSettings::stock_parameters() const {
    faiss::IVFSearchParameters parameters;
    parameters.nprobe = nprobe;
    parameters.max_codes = max_codes;
    parameters.sel = const_cast<faiss::IDSelector*>(selector);
    return parameters;
}

SearchSettings resolve_settings(
        const faiss::IndexIVF& ivf,
        const faiss::SearchParameters* params,
        float probe_expansion,
        float k_factor) {
    SearchSettings settings;
    settings.nprobe = ivf.nprobe;
    settings.max_codes = ivf.max_codes;
    settings.k_factor = k_factor;
    if (params != nullptr) {
        settings.selector = params->sel;
        const auto* stock = dynamic_cast<const faiss::SearchParametersIVF*>(params);
        const auto* ours = dynamic_cast<const IVFGMMSearchParameters*>(params);
        if (stock != nullptr) {
            settings.nprobe = stock->nprobe;
            settings.max_codes = stock->max_codes;
            settings.quantizer_params = stock->quantizer_params;
            settings.codec_params = params;
        } else if (typeid(*params) != typeid(faiss::SearchParameters)) {
            throw_faiss(
                    {"searching an IVFGMM index",
                     "search parameters of another index type",
                     "SearchParameters, SearchParametersIVF or IVFGMMSearchParameters",
                     "pass one of these, wrapped as the index's wrappers ask for"});
        }
        if (ours != nullptr) {
            settings.codec_params = ours->codec_params;
            probe_expansion = ours->probe_expansion == 0 ? probe_expansion : ours->probe_expansion;
            settings.k_factor = ours->k_factor == 0 ? k_factor : ours->k_factor;
        }
    }
    if (settings.nprobe == 0) {
        throw_faiss(
                {"searching an IVFGMM index",
                 "nprobe = 0",
                 "nprobe from 1 to nlist",
                 "set nprobe to at least 1"});
    }
    for (const float factor : {probe_expansion, settings.k_factor}) {
        if (!(factor >= 0) || std::isinf(factor)) {
            throw_faiss(
                    {"searching an IVFGMM index",
                     fmt::format(
                             "probe_expansion = {}, k_factor = {}",
                             probe_expansion,
                             settings.k_factor),
                     "finite numbers from 0",
                     "use 0 for the index's own rule"});
        }
    }
    settings.nprobe = std::min(settings.nprobe, ivf.nlist);
    const double wanted =
            probe_expansion > 0
                    ? std::ceil(
                              static_cast<double>(probe_expansion) *
                                      static_cast<double>(settings.nprobe) -
                              1e-6)
                    : static_cast<double>(default_lists_probed(settings.nprobe, ivf.nlist));
    settings.lists = static_cast<size_t>(std::clamp(wanted, 1.0, static_cast<double>(ivf.nlist)));
    return settings;
}

void budgeted_search(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        int64_t n,
        const float* x,
        const ResultArrays& results) {
    check_result_count(results.k);
    if (results.keep_heap) {
        add_to_heaps(ivf, lists, settings, n, x, results);
        return;
    }
    const BudgetedSearch search(ivf, lists, settings, results);
    const auto threads = static_cast<size_t>(omp_get_max_threads());
    const size_t share = (static_cast<size_t>(n) + threads - 1) / threads;
    const size_t most = std::clamp(product_numbers / ivf.nlist, least_queries, most_queries);
    const size_t block = std::clamp<size_t>(share, 1, most);
    const size_t blocks = (static_cast<size_t>(n) + block - 1) / block;
    std::vector<IVFGMMStats> stats(blocks);
    parallel_for(blocks, [&](size_t b) {
        const size_t first = b * block;
        const size_t count = std::min(block, static_cast<size_t>(n) - first);
        if (faiss::InterruptCallback::is_interrupted()) {
            throw faiss::FaissException("search interrupted");
        }
        search.search_block(first, count, x + first * ivf.d, stats[b]);
    });
    IVFGMMStats total;
    for (const IVFGMMStats& part : stats) {
        total.add(part);
    }
    publish(total, nullptr);
}

} // namespace faiss_gmm
