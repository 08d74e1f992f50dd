// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/list_search.h"

#include <algorithm>
#include <memory>
#include <unordered_set>
#include <vector>

#include <fmt/format.h>
#include <omp.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/index/faiss_error.h"
#include "faiss_gmm/index/interrupt.h"
#include "faiss_gmm/runs/choose.h"
#include "faiss_gmm/runs/mapped.h"
#include "faiss_gmm/runs/parallel.h"

namespace faiss_gmm {
namespace {

/// Labels of entries [from, to) of a list, as scanners want them. One at a time on a thread: pairs stand
/// in scratch that the thread keeps.
class EntryLabels {
public:
    EntryLabels(const RunInvertedLists& lists, size_t list, size_t from, size_t to, Labels meaning)
            : ids_(&lists, list) {
        if (meaning == Labels::ids) {
            labels_ = ids_.ids + from;
            return;
        }
        thread_local std::vector<int64_t> pairs;
        pairs.resize(to - from);
        for (size_t i = from; i < to; i++) {
            pairs[i - from] = static_cast<int64_t>(faiss::lo_build(list, i));
        }
        labels_ = pairs.data();
    }
    const int64_t* labels() const {
        return labels_;
    }
    const int64_t* ids(size_t from) const {
        return ids_.ids + from;
    }

private:
    faiss::InvertedLists::ScopedIds ids_;
    const int64_t* labels_ = nullptr;
};

/// Calls scan(first, end) for each stretch of [0, n) that the selector lets pass; returns how many
/// it refused.
template <class Scan>
size_t scan_selected(size_t n, const int64_t* ids, const faiss::IDSelector* selector, Scan scan) {
    if (selector == nullptr) {
        scan(size_t{0}, n);
        return 0;
    }
    size_t refused = 0;
    for (size_t i = 0; i < n;) {
        if (!selector->is_member(number_at(ids, i))) {
            refused++;
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n && selector->is_member(number_at(ids, end))) {
            end++;
        }
        scan(i, end);
        if (end < n) {
            refused++; // the entry that ended the stretch
        }
        i = end + 1;
    }
    return refused;
}

/// Calls scan(n, codes, labels) for the stretches of entries [from, to) of a list that the selector lets pass.
template <class Scan>
void scan_stretches(
        const RunInvertedLists& lists,
        size_t list,
        size_t from,
        size_t to,
        const faiss::IDSelector* selector,
        Labels meaning,
        ScanTotals& totals,
        Scan scan) {
    scan_interruptibly(lists.state().codec.d, from, to, [&](size_t first, size_t end) {
        const EntryLabels entries(lists, list, first, end, meaning);
        const faiss::InvertedLists::ScopedCodes codes(&lists, list);
        totals.skipped +=
                scan_selected(end - first, entries.ids(first), selector, [&](size_t a, size_t b) {
                    totals.ndis += b - a;
                    scan(b - a, codes.codes + (first + a) * lists.code_size, entries.labels() + a);
                });
    });
}

/// A piece of a list to be scanned, and the distance of the query to the list's mean.
struct Piece {
    int64_t list;
    size_t from, to;
    float distance;
};

/// What a query with given lists scans: the lists whole, then the guests of theirs that no other
/// brings.
void collect_pieces(
        const RunInvertedLists& lists,
        const ProbedLists& probed,
        const HomeDistances& homes,
        size_t max_codes,
        bool with_guests,
        ProbeRanks& ranks,
        std::vector<Piece>& pieces) {
    const RunDirectory& directory = lists.directory();
    pieces.clear();
    ranks.set(directory.lists.size(), probed);
    const auto is_first = [&](size_t p) {
        return probed.list[p] >= 0 && ranks[probed.list[p]] == static_cast<int32_t>(p);
    };
    for (size_t p = 0; p < probed.n; p++) {
        if (is_first(p)) {
            const auto list = static_cast<size_t>(probed.list[p]);
            pieces.push_back({probed.list[p], 0, lists.list_size(list), probed.distance[p]});
        }
    }
    const size_t own = pieces.size();
    for (size_t p = 0; p < probed.n; p++) {
        if (!with_guests || !is_first(p)) {
            continue;
        }
        const ListRuns& host = directory.lists[probed.list[p]];
        for_each_guest(
                directory,
                host,
                ranks,
                static_cast<int32_t>(p),
                [&](const GuestGroup& group, size_t g) {
                    const ListRuns& home = directory.lists[group.home];
                    if (!home.stale) {
                        const size_t run = host.guests[g].run, from = run * run_size;
                        pieces.push_back({group.home, from, from + home.size_of_run(run), 0});
                    }
                });
    }
    ranks.clear();
    // set_list once a home
    std::sort(pieces.begin() + own, pieces.end(), [](const Piece& a, const Piece& b) {
        return a.list != b.list ? a.list < b.list : a.from < b.from;
    });
    for (size_t i = own; i < pieces.size(); i++) {
        pieces[i].distance = i > own && pieces[i].list == pieces[i - 1].list
                                     ? pieces[i - 1].distance
                                     : homes(pieces[i].list);
    }
    if (max_codes > 0) {
        size_t left = max_codes;
        for (Piece& piece : pieces) {
            piece.to = piece.from + std::min(piece.to - piece.from, left);
            left -= piece.to - piece.from;
        }
    }
}

/// Runs `query(i, pieces, scanner, stats)` for n queries over the threads, each with its pieces
/// collected.
template <class Query>
IVFGMMStats for_each_query(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        const PreassignedQueries& queries,
        bool with_guests,
        Query query) {
    const auto n = static_cast<size_t>(queries.n);
    check_keys("searching given lists", ivf.nlist, n * settings.nprobe, queries.keys);
    const RunCodec& codec = lists.state().codec;
    const size_t d = ivf.d;
    // Blocks, so that a scanner serves several queries.
    const size_t threads = omp_in_parallel() ? 1 : static_cast<size_t>(omp_get_max_threads());
    const size_t block = std::clamp<size_t>(n / (4 * threads), 1, 64);
    const size_t blocks = (n + block - 1) / block;
    std::vector<IVFGMMStats> stats(blocks);
    parallel_for(blocks, [&](size_t b) {
        thread_local ProbeRanks ranks;
        thread_local std::vector<Piece> pieces;
        thread_local std::vector<float> centred;
        centred.resize(d);
        const auto scanner = compat::make_scanner(ivf, nullptr, settings.codec_params);
        for (size_t i = b * block; i < std::min((b + 1) * block, n); i++) {
            stop_if_interrupted();
            const float* q = queries.x + i * d;
            for (size_t t = 0; t < d; t++) {
                centred[t] = codec.d == d ? q[t] - codec.data_mean[t] : q[t];
            }
            const ProbedLists probed{
                    settings.nprobe,
                    queries.keys + i * settings.nprobe,
                    queries.coarse_dis + i * settings.nprobe};
            const HomeDistances homes(codec, nullptr, centred.data());
            collect_pieces(lists, probed, homes, settings.max_codes, with_guests, ranks, pieces);
            IVFGMMStats& mine = stats[b];
            mine.nq++;
            mine.means += homes.computed();
            for (const Piece& piece : pieces) {
                mine.nvisited += piece.to - piece.from;
            }
            for (size_t p = 0; p < probed.n; p++) {
                mine.nlist += probed.list[p] >= 0;
            }
            scanner->set_query(q);
            query(i, pieces, *scanner, mine);
        }
    });
    IVFGMMStats total;
    for (const IVFGMMStats& part : stats) {
        total.add(part);
    }
    return total;
}

/// Copies the hits, those of one id once (a vector's copies are equally far).
void keep_distinct(
        const RunInvertedLists& lists,
        const faiss::RangeSearchResult& all,
        Labels meaning,
        faiss::RangeSearchResult& distinct) {
    std::vector<size_t> kept;
    std::unordered_set<int64_t> seen;
    for (size_t q = 0; q < all.nq; q++) {
        const size_t before = kept.size();
        seen.clear();
        for (size_t i = all.lims[q]; i < all.lims[q + 1]; i++) {
            const int64_t label = all.labels[i];
            const int64_t id =
                    meaning == Labels::ids
                            ? label
                            : lists.get_single_id(faiss::lo_listno(label), faiss::lo_offset(label));
            if (seen.insert(id).second) {
                kept.push_back(i);
            }
        }
        distinct.lims[q] = kept.size() - before;
    }
    distinct.do_allocation(); // turns counts into limits
    for (size_t i = 0; i < kept.size(); i++) {
        distinct.labels[i] = all.labels[kept[i]];
        distinct.distances[i] = all.distances[kept[i]];
    }
}

} // namespace

void check_keys(const char* what, size_t nlist, size_t count, const int64_t* keys) {
    const auto lists = static_cast<int64_t>(nlist);
    const int64_t* wrong = std::find_if(
            keys, keys + count, [lists](int64_t key) { return key < -1 || key >= lists; });
    if (wrong != keys + count) {
        throw_faiss(
                {what,
                 fmt::format("list {}", *wrong),
                 fmt::format("lists 0 to {}, and -1 for none", lists - 1),
                 "take the keys from this index's quantizer"});
    }
}

ScanTotals scan_entries(
        const RunInvertedLists& lists,
        faiss::InvertedListScanner& scanner,
        size_t list,
        size_t from,
        size_t to,
        const faiss::IDSelector* selector,
        Labels meaning,
        ResultHeap& heap) {
    ScanTotals totals;
    scan_stretches(
            lists,
            list,
            from,
            to,
            selector,
            meaning,
            totals,
            [&](size_t n, const uint8_t* codes, const int64_t* labels) {
                scanner.scan_codes(n, codes, labels, heap.distances(), heap.labels(), heap.size());
            });
    return totals;
}

void search_given_lists(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        const PreassignedQueries& queries,
        const ResultArrays& results,
        faiss::IndexIVFStats* stats) {
    check_result_count(results.k);
    const bool inner_product = ivf.metric_type == faiss::METRIC_INNER_PRODUCT;
    const IVFGMMStats total = for_each_query(
            ivf,
            lists,
            settings,
            queries,
            !results.keep_heap,
            [&](size_t i,
                const std::vector<Piece>& pieces,
                faiss::InvertedListScanner& scanner,
                IVFGMMStats& mine) {
                ResultHeap heap = results.heap_of(i, inner_product);
                if (!results.keep_heap) {
                    heap.start();
                }
                int64_t list = -1;
                for (const Piece& piece : pieces) {
                    if (piece.from == piece.to) {
                        continue; // its list's mean may be missing: an index that is not trained
                    }
                    if (piece.list != list) {
                        list = piece.list;
                        scanner.set_list(list, piece.distance);
                    }
                    const ScanTotals totals = scan_entries(
                            lists,
                            scanner,
                            list,
                            piece.from,
                            piece.to,
                            settings.selector,
                            results.meaning,
                            heap);
                    mine.ndis += totals.ndis;
                    mine.nskipped += totals.skipped;
                }
                if (!results.keep_heap) {
                    heap.finish();
                }
            });
    publish(total, stats);
}

void range_search_given_lists(
        const faiss::IndexIVF& ivf,
        const RunInvertedLists& lists,
        const SearchSettings& settings,
        const PreassignedQueries& queries,
        float radius,
        faiss::RangeSearchResult* result,
        Labels meaning,
        bool with_copies,
        faiss::IndexIVFStats* stats) {
    if (with_copies) {
        faiss::RangeSearchResult all(queries.n);
        range_search_given_lists(
                ivf, lists, settings, queries, radius, &all, meaning, false, stats);
        keep_distinct(lists, all, meaning, *result);
        return;
    }
    // One partial result a thread (each holds a buffer of result->buffer_size); merge() empties
    // them.
    std::vector<std::unique_ptr<faiss::RangeSearchPartialResult>> parts(omp_get_max_threads());
    const IVFGMMStats total = for_each_query(
            ivf,
            lists,
            settings,
            queries,
            true,
            [&](size_t i,
                const std::vector<Piece>& pieces,
                faiss::InvertedListScanner& scanner,
                IVFGMMStats& mine) {
                auto& part = parts[omp_get_thread_num()];
                if (!part) {
                    part = std::make_unique<faiss::RangeSearchPartialResult>(result);
                }
                faiss::RangeQueryResult& hits = part->new_result(static_cast<int64_t>(i));
                int64_t list = -1;
                for (const Piece& piece : pieces) {
                    if (piece.from == piece.to) {
                        continue;
                    }
                    if (piece.list != list) {
                        list = piece.list;
                        scanner.set_list(list, piece.distance);
                    }
                    ScanTotals totals;
                    scan_stretches(
                            lists,
                            list,
                            piece.from,
                            piece.to,
                            settings.selector,
                            meaning,
                            totals,
                            [&](size_t n, const uint8_t* codes, const int64_t* labels) {
                                scanner.scan_codes_range(n, codes, labels, radius, hits);
                            });
                    mine.ndis += totals.ndis;
                    mine.nskipped += totals.skipped;
                }
            });
    std::vector<faiss::RangeSearchPartialResult*> raw;
    raw.reserve(parts.size());
    for (auto& part : parts) {
        if (!part) {
            part = std::make_unique<faiss::RangeSearchPartialResult>(result);
        }
        raw.push_back(part.release());
    }
    faiss::RangeSearchPartialResult::merge(raw);
    publish(total, stats);
}

} // namespace faiss_gmm
