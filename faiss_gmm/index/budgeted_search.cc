// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/budgeted_search.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include <fmt/format.h>
#include <omp.h>

#include <faiss/IndexFlat.h>
#include <faiss/impl/AuxIndexStructures.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/index/defaults.h"
#include "faiss_gmm/index/faiss_error.h"
#include "faiss_gmm/index/interrupt.h"
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
constexpr size_t least_shared_budget =
        16 * run_size; ///< vectors that queries may get more or fewer of

/// Lists' codes as a block of queries asks for them, each list's once, and all given back at its end.
class HeldCodes {
public:
    struct Scratch {
        std::vector<const uint8_t*> of_list; ///< [nlist], null outside of a call
        std::vector<size_t> held;
    };
    HeldCodes(const faiss::InvertedLists& lists, Scratch& scratch)
            : lists_(lists), scratch_(scratch) {
        scratch_.of_list.resize(lists.nlist, nullptr);
        scratch_.held.reserve(lists.nlist);
    }
    HeldCodes(const HeldCodes&) = delete;
    HeldCodes& operator=(const HeldCodes&) = delete;
    ~HeldCodes() {
        for (const size_t list : scratch_.held) {
            lists_.release_codes(list, scratch_.of_list[list]);
            scratch_.of_list[list] = nullptr;
        }
        scratch_.held.clear();
    }

    const uint8_t* operator[](size_t list) {
        if (scratch_.of_list[list] == nullptr) {
            scratch_.of_list[list] = lists_.get_codes(list);
            scratch_.held.push_back(list);
        }
        return scratch_.of_list[list];
    }

private:
    const faiss::InvertedLists& lists_;
    Scratch& scratch_;
};

/// One query on its way.
struct Query {
    size_t number = 0;        ///< in its block
    const float* x = nullptr; ///< [d]
    ProbedLists probed;
    std::vector<int64_t> lists; ///< probed, where they are our own choice
    std::vector<float> list_distances;
    std::vector<ChosenRun> chosen;
    std::vector<uint64_t> places; ///< of the candidates: list << 32 | offset, as in FAISS's pairs
    std::vector<const uint8_t*> rows;
};

/// What a thread keeps from query to query.
struct Scratch {
    std::vector<float> centred, rotated,
            means;              // of a block of queries: [b, d], [b, kept], [b, nlist]
    std::vector<int64_t> lists; // [b, lists], where a quantizer finds them
    std::vector<float> list_distances;
    std::vector<float> negated;
    std::vector<int32_t> positions;
    QueryTables tables;
    ChoiceScratch choice;
    ScanScratch scan;
    std::vector<Candidate> candidates;
    std::vector<float> distances; // of the candidates
    Query query;
    HeldCodes::Scratch codes;
    RowDistances row_distances;
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
              average_budget_(settings.average_budget(ivf.ntotal, ivf.nlist)),
              budget_(settings.budget(ivf.ntotal, ivf.nlist)),
              exact_(settings.exact_distances(k_, ivf.ntotal, ivf.nlist)),
              compares_all_(dynamic_cast<const faiss::IndexFlat*>(ivf.quantizer) != nullptr),
              flat_(compares_all_ && settings.quantizer_params == nullptr) {}

    /// Queries x [n, d] of one block, the first of which has the results of query `first`.
    void search_block(size_t first, size_t n, const float* x, IVFGMMStats& stats) const {
        thread_local Scratch scratch;
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
        HeldCodes codes(lists_, scratch.codes);
        Query& query = scratch.query;
        for (size_t i = 0; i < n; i++) {
            stop_if_interrupted();
            query.number = i;
            query.x = x + i * codec_.d;
            ResultHeap heap = results_.heap_of(first + i, codec_.inner_product);
            heap.start();
            find_lists(scratch, query, stats);
            if (query.probed.n > 0) {
                const HomeDistances homes(
                        codec_,
                        flat_ ? scratch.means.data() + i * ivf_.nlist : nullptr,
                        scratch.centred.data() + i * codec_.d);
                search_lists(query, homes, *scanner, scratch, codes, heap, stats);
                stats.means += homes.computed();
            }
            heap.finish();
            if (results_.meaning == Labels::ids) {
                look_up_ids(heap.labels());
            }
        }
    }

private:
    /// Phase 1: none for a query that is not finite.
    void find_lists(Scratch& scratch, Query& query, IVFGMMStats& stats) const {
        stats.nq++;
        if (compares_all_) {
            stats.means += ivf_.nlist;
        }
        if (flat_) {
            find_nearest_lists(scratch.means.data() + query.number * ivf_.nlist, scratch, query);
        } else {
            const size_t at = query.number * settings_.lists;
            query.probed = {
                    settings_.lists, scratch.lists.data() + at, scratch.list_distances.data() + at};
            if (!std::isfinite(query.probed.distance[0])) {
                query.probed = {};
            }
        }
    }

    /// Phases 2 to 4.
    void search_lists(
            Query& query,
            const HomeDistances& homes,
            faiss::InvertedListScanner& scanner,
            Scratch& scratch,
            HeldCodes& codes,
            ResultHeap& heap,
            IVFGMMStats& stats) const {
        scanner.set_query(query.x);
        codec_.build_tables(
                scratch.rotated.data() + query.number * codec_.kept,
                directory_.summary_range,
                directory_.sketch_range,
                scratch.tables);
        const ChoiceCounts choice = choose_runs(
                directory_,
                codec_,
                scratch.tables,
                query.probed,
                homes,
                budget_of(query, scratch),
                scratch.choice,
                query.chosen);
        stats.nscored += choice.summaries;
        stats.bytes_scored += choice.blocks * codec_.summary_layout().bytes();
        stats.nvisited += choice.vectors;
        if (directory_.sketched) {
            const ScanCounts scan = scan_sketches(
                    codec_,
                    scratch.tables,
                    query.chosen,
                    exact_,
                    settings_.selector,
                    lists_,
                    scratch.scan,
                    scratch.candidates);
            stats.nscored += scan.sketches;
            stats.nskipped += scan.skipped;
            stats.bytes_scored += query.chosen.size() * codec_.sketch_layout().bytes();
            find_rows(scratch.candidates, codes, query);
            exact_distances(query, homes, scanner, scratch, heap);
            stats.ndis += scratch.candidates.size();
        } else {
            scan_chosen_runs(query.chosen, homes, scanner, heap, stats);
        }
        scan_entries_without_run(query.probed, scanner, heap, stats);
    }

    /// Vectors that this query may visit. Even are budgets of a few runs, too coarse to be shared out, and
    /// those of searches with a selector: the nearest mean says little of how far the selected lie.
    size_t budget_of(const Query& query, const Scratch& scratch) const {
        if (settings_.visit_budget == VisitBudget::even || settings_.selector != nullptr ||
            budget_ < least_shared_budget) {
            return budget_;
        }
        const float* q = scratch.centred.data() + query.number * codec_.d;
        const double length = codec_.inner_product ? std::sqrt(dot(codec_.d, q, q)) : 1;
        double least = std::numeric_limits<double>::infinity(), sum = 0;
        size_t lists = 0;
        for (size_t p = 0; p < query.probed.n; p++) {
            const int64_t list = query.probed.list[p];
            if (list < 0) {
                continue;
            }
            double distance = query.probed.distance[p];
            if (codec_.inner_product) { // of the query brought to length 1
                distance = std::max(0.0, 1 + codec_.mean_norms[list] - 2 * distance / length);
            }
            least = std::min(least, distance);
            sum += distance;
            lists++;
        }
        if (lists == 0 || !(length > 0)) {
            return budget_;
        }
        // The lists probed must hold what the hardest query may visit, or the easy ones' saving is lost.
        const double held = static_cast<double>(lists) / static_cast<double>(settings_.nprobe);
        const double spread =
                std::clamp((held - 1) / (QueryDifficulty::largest_share - 1), 0.0, 1.0);
        const double share =
                lists_.state().difficulty.share(least, sum / static_cast<double>(lists), lists);
        const double vectors = (1 + spread * (share - 1)) * static_cast<double>(average_budget_);
        const auto wanted = static_cast<size_t>(std::lround(std::max(1.0, vectors)));
        return settings_.max_codes > 0 ? std::min(wanted, settings_.max_codes) : wanted;
    }

    /// Where the candidates' rows stand, home by home where a home asks for preparation; the first of
    /// them are on their way then.
    void find_rows(const std::vector<Candidate>& candidates, HeldCodes& codes, Query& query) const {
        query.places.clear();
        query.rows.clear();
        for (const Candidate& candidate : candidates) {
            query.places.push_back(faiss::lo_build(candidate.home, candidate.entry));
        }
        if (!settings_.own_distances || settings_.own_distances->residual) {
            std::sort(query.places.begin(), query.places.end());
        }
        for (const uint64_t place : query.places) {
            const uint8_t* of_list = codes[faiss::lo_listno(place)];
            query.rows.push_back(of_list + faiss::lo_offset(place) * lists_.code_size);
            if (query.rows.size() <= items_ahead(lists_.code_size)) {
                prefetch_bytes(query.rows.back(), lists_.code_size);
            }
        }
    }

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
        codec_.multiply_means(
                n,
                scratch.centred.data(),
                codec_.inner_product ? 1.0f : -2.0f,
                scratch.means.data());
        for (size_t i = 0; i < n; i++) {
            const float* q = scratch.centred.data() + i * d;
            const float norm = dot(d, q, q);
            float* row = scratch.means.data() + i * nlist;
            if (!codec_.inner_product) {
                const float* mean_norms = codec_.mean_norms.data();
                for (size_t l = 0; l < nlist; l++) {
                    row[l] = std::max(0.0f, row[l] + norm + mean_norms[l]);
                }
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

    /// The nearest of all lists, the very nearest first; none for a query that is not finite.
    void find_nearest_lists(const float* all, Scratch& scratch, Query& query) const {
        const size_t nlist = ivf_.nlist, count = settings_.lists;
        query.probed = {};
        if (!std::isfinite(all[0])) {
            return;
        }
        const float* values = all;
        if (codec_.inner_product) { // the largest products are wanted
            scratch.negated.resize(nlist);
            std::transform(all, all + nlist, scratch.negated.begin(), std::negate<float>());
            values = scratch.negated.data();
        }
        std::vector<int32_t>& found = scratch.positions;
        found.resize(nlist);
        found.resize(select_values(values, nlist, count, found.data()));
        const auto nearer = [values](int32_t a, int32_t b) {
            return values[a] != values[b] ? values[a] < values[b] : a < b;
        };
        if (found.size() > count) {
            std::nth_element(found.begin(), found.begin() + (count - 1), found.end(), nearer);
        }
        std::iter_swap(
                found.begin(), std::min_element(found.begin(), found.begin() + count, nearer));
        query.lists.assign(found.begin(), found.begin() + count);
        query.list_distances.resize(count);
        for (size_t p = 0; p < count; p++) {
            query.list_distances[p] = all[found[p]];
        }
        query.probed = {count, query.lists.data(), query.list_distances.data()};
    }

    /// The candidates' distances by our own loops or the codec's scanner.
    void exact_distances(
            const Query& query,
            const HomeDistances& homes,
            faiss::InvertedListScanner& scanner,
            Scratch& scratch,
            ResultHeap& heap) const {
        const size_t n = query.rows.size(), ahead = items_ahead(lists_.code_size);
        scratch.distances.resize(n);
        float* out = scratch.distances.data();
        const std::optional<StoredRows>& own = settings_.own_distances;
        if (!own) {
            for_each_home(query, [&](size_t home, size_t from, size_t to) {
                scanner.set_list(static_cast<int64_t>(home), homes(home));
                for (size_t i = from; i < to; i++) {
                    if (i + ahead < n) {
                        prefetch_bytes(query.rows[i + ahead], lists_.code_size);
                    }
                    out[i] = scanner.distance_to_code(query.rows[i]);
                }
            });
        } else {
            RowDistances& distances = scratch.row_distances;
            const float* centred = scratch.centred.data() + query.number * codec_.d;
            distances.set_query(
                    *own, codec_.inner_product, codec_.d, own->residual ? centred : query.x);
            if (own->residual) {
                for_each_home(query, [&](size_t home, size_t from, size_t to) {
                    distances.set_home(
                            codec_.centred_means.data() + home * codec_.d,
                            codec_.inner_product ? homes(home) : 0);
                    distances(query.rows.data() + from, to - from, n - to, out + from);
                });
            } else {
                distances(query.rows.data(), n, 0, out);
            }
        }
        for (size_t i = 0; i < n; i++) {
            heap.push(out[i], static_cast<int64_t>(query.places[i]));
        }
    }

    /// Calls visit(home, from, to) for each stretch of a query's rows of one home.
    template <class Visit> static void for_each_home(const Query& query, Visit visit) {
        for (size_t from = 0, to = 0; from < query.places.size(); from = to) {
            const size_t home = faiss::lo_listno(query.places[from]);
            while (to < query.places.size() && faiss::lo_listno(query.places[to]) == home) {
                to++;
            }
            visit(home, from, to);
        }
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
            std::vector<ChosenRun>& chosen,
            const HomeDistances& homes,
            faiss::InvertedListScanner& scanner,
            ResultHeap& heap,
            IVFGMMStats& stats) const {
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
    size_t average_budget_; ///< vectors that queries may visit, max_codes aside
    size_t budget_;         ///< and with it
    size_t exact_;          ///< vectors that get their exact distance
    bool compares_all_;     ///< the quantizer compares a query with all means
    bool flat_;             ///< and by our own product
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
        for (int64_t j = i * heaps.k; j < (i + 1) * heaps.k; j++) {
            if (labels[j] != -1) { // others may be ids below zero
                heap.push(distances[j], labels[j]);
            }
        }
    }
}

} // namespace

size_t SearchSettings::average_budget(size_t ntotal, size_t nlist) const {
    return static_cast<size_t>(std::ceil(
            static_cast<double>(nprobe) * static_cast<double>(ntotal) /
            static_cast<double>(nlist)));
}

size_t SearchSettings::budget(size_t ntotal, size_t nlist) const {
    const size_t vectors = average_budget(ntotal, nlist);
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

size_t SearchSettings::exact_distances(size_t k, size_t ntotal, size_t nlist) const {
    const double wanted =
            k_factor > 0 ? std::round(static_cast<double>(k) * k_factor)
                         : static_cast<double>(default_exact_distances(k, budget(ntotal, nlist)));
    return std::max(k, static_cast<size_t>(std::min(wanted, static_cast<double>(ntotal))));
}

IVFGMMSearchParameters SearchSettings::parameters_of_lists() const {
    IVFGMMSearchParameters parameters;
    parameters.nprobe = nprobe;
    parameters.max_codes = max_codes;
    parameters.sel = const_cast<faiss::IDSelector*>(selector);
    parameters.codec_params = const_cast<faiss::SearchParameters*>(codec_params);
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
        search.search_block(first, count, x + first * ivf.d, stats[b]);
    });
    IVFGMMStats total;
    for (const IVFGMMStats& part : stats) {
        total.add(part);
    }
    publish(total, nullptr);
}

} // namespace faiss_gmm
