// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Every route by which a search can reach the index: what is used there, and the recall it reaches with nprobe = 8 on the
// embedded set. Routes that are documented as one find the very same; each other one finds at least what a plain IVF
// finds over the same lists, and some stated share more. What was seen is recorded for contrib/support_table.py.
#include <functional>
#include <numeric>

#include <faiss/IVFlib.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexShards.h>
#include <faiss/VectorTransform.h>
#include <faiss/index_factory.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "faiss_gmm/compat/results.h"
#include "faiss_gmm/compat/wrappers.h"
#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/wrappers.h"
#include "faiss_gmm/io/clone.h"
#include "faiss_gmm/io/export_faiss.h"
#include "faiss_gmm/io/merge_ondisk.h"
#include "index_fixture.h"
#include "support_record.h"
#include "tests/io/io_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t k = 10, nlist = 64, nprobe = 8;

const Dataset& data() {
    static const Dataset set = load_dataset(embedded_dataset_folder(), Metric::l2);
    return set;
}
const std::vector<float>& queries() {
    return data().query;
}
int64_t count() {
    return static_cast<int64_t>(data().nq);
}

using Holder = std::unique_ptr<faiss::Index>;

faiss::IndexIVF& ivf_in(faiss::Index& index) {
    faiss::Index* outermost = &index;
    return dynamic_cast<faiss::IndexIVF&>(**innermost_slot(&outermost));
}

/// Made once of a string, trained on the base and filled with it; nprobe lists are probed.
faiss::Index& filled(const std::string& text) {
    static std::map<std::string, Holder> all;
    Holder& index = all[text];
    if (!index) {
        index.reset(faiss_gmm::index_factory(static_cast<int>(data().d), text.c_str()));
        index->train(static_cast<int64_t>(data().n), data().base.data());
        index->add(static_cast<int64_t>(data().n), data().base.data());
        ivf_in(*index).nprobe = nprobe;
    }
    return *index;
}
faiss::Index& ours() {
    return filled("IVFGMM64,Flat");
}
faiss::IndexIVF& our_ivf() {
    return ivf_in(ours());
}

/// Searches an index by some route.
using Call = std::function<void(Results&)>;

/// What a route found, what it used, and the vectors it visited a query.
struct Found {
    Results results{0, k};
    std::string used;
    double visited = 0;
};

/// Vectors a query in the nprobe nearest lists.
double in_probed_lists(const faiss::IndexIVF& index) {
    std::vector<float> distances(data().nq * nprobe);
    std::vector<int64_t> lists(data().nq * nprobe);
    index.quantizer->search(count(), queries().data(), nprobe, distances.data(), lists.data());
    size_t vectors = 0;
    for (const int64_t list : lists) {
        vectors += list < 0 ? 0 : index.invlists->list_size(list);
    }
    return static_cast<double>(vectors) / static_cast<double>(data().nq);
}

/// By a route that ends in `index`, an IndexIVFGMM or, where nothing of it is used, any.
Found found_by(const faiss::IndexIVF& index, const Call& call) {
    Found found{Results(data().nq, k), "", 0};
    indexIVFGMM_stats.reset();
    call(found.results);
    const auto* face = dynamic_cast<const IndexIVFGMM*>(&index);
    found.used = face != nullptr ? way_of_search(*face) : "plain lists, by FAISS";
    found.visited = indexIVFGMM_stats.nq == 0 ? in_probed_lists(index)
                                              : static_cast<double>(indexIVFGMM_stats.nvisited) /
                                                        static_cast<double>(data().nq);
    return found;
}
Found searched(faiss::Index& index, const faiss::SearchParameters* params = nullptr) {
    return found_by(ivf_in(index), [&](Results& results) {
        results = search(index, queries(), k, params);
    });
}

double recall(const Results& results) {
    static const RecallMeasure measure = data().recall_measure(k);
    return measure.recall(results.labels.data());
}

/// The route by the book, made once, that others are compared with.
const Found& by_search() {
    static const Found found = searched(ours());
    return found;
}
void keys_of(const faiss::IndexIVF& index, std::vector<int64_t>& keys, std::vector<float>& coarse) {
    keys.resize(data().nq * nprobe);
    coarse.resize(data().nq * nprobe);
    index.quantizer->search(count(), queries().data(), nprobe, coarse.data(), keys.data());
}
Found preassigned(faiss::Index& index) {
    return found_by(ivf_in(index), [&](Results& results) {
        std::vector<int64_t> keys;
        std::vector<float> coarse;
        keys_of(ivf_in(index), keys, coarse);
        faiss::SearchParametersIVF params;
        params.nprobe = nprobe;
        results = search_keys(ivf_in(index), queries(), k, keys, coarse, params);
    });
}
const Found& by_given_lists() {
    static const Found found = preassigned(ours());
    return found;
}
/// Stock's own index over our lists and means.
faiss::Index& exported() {
    static const Holder index = [] {
        Holder made(export_faiss(ours()));
        ivf_in(*made).nprobe = nprobe;
        return made;
    }();
    return *index;
}
const Found& by_stock() {
    static const Found found = searched(exported());
    return found;
}

/// What a route is held to.
struct Bound {
    enum class As { search, given_lists, recall_of_given_lists, stock, none };
    As the_same_as = As::none;
    /// Recall beyond that of stock over the same lists at equal nprobe.
    double at_least = 0, at_most = 1;
    /// Vectors visited, in those of nprobe lists of average length.
    double least_visited = 0.9, most_visited = 1.1;
};
constexpr Bound like_search{Bound::As::search};
constexpr Bound like_given_lists{Bound::As::given_lists};
constexpr Bound like_stock{Bound::As::stock};
/// What lies beyond the radius is not there to be compared.
constexpr Bound up_to_a_radius{Bound::As::recall_of_given_lists};
/// Its own lists, by budget.
constexpr Bound budgeted(double at_least) {
    return {Bound::As::none, at_least};
}
/// Lists and what spills into them.
constexpr Bound whole_lists(double at_least, double most_visited) {
    return {Bound::As::none, at_least, 1, 0.9, most_visited};
}

struct Route {
    std::string section, name;
    std::function<Found()> search;
    Bound bound;
};
void PrintTo(const Route& route, std::ostream* out) {
    *out << route.name;
}

void record(const Route& route, const std::string& used, double recall, double visited) {
    testing::Test::RecordProperty("route", route.name);
    testing::Test::RecordProperty("section", route.section);
    testing::Test::RecordProperty("used", used);
    testing::Test::RecordProperty("recall", fmt::format("{:.3f}", recall));
    testing::Test::RecordProperty("visited", fmt::format("{:.0f}", visited));
}

void expect_bound(const Bound& bound, double got, double of_stock, double visited) {
    const double average = static_cast<double>(nprobe * data().n) / nlist;
    EXPECT_GE(got, of_stock + bound.at_least);
    EXPECT_LE(got, of_stock + bound.at_most);
    EXPECT_GE(visited, bound.least_visited * average);
    EXPECT_LE(visited, bound.most_visited * average);
}

class Routes : public testing::TestWithParam<Route> {};

TEST_P(Routes, ReachTheirRecall) {
    const Route& route = GetParam();
    const Found found = route.search();
    const double got = recall(found.results);
    record(route, found.used, got, found.visited);
    expect_bound(route.bound, got, recall(by_stock().results), found.visited);
    if (route.bound.the_same_as == Bound::As::recall_of_given_lists) {
        EXPECT_EQ(got, recall(by_given_lists().results));
        EXPECT_EQ(found.used, by_given_lists().used);
    }
    for (const auto& [as, same] :
         {std::pair<Bound::As, const Found&>{Bound::As::search, by_search()},
          {Bound::As::given_lists, by_given_lists()},
          {Bound::As::stock, by_stock()}}) {
        if (route.bound.the_same_as == as) {
            expect_equal_up_to_ties(found.results, same.results);
            EXPECT_EQ(found.used, same.used);
            EXPECT_DOUBLE_EQ(found.visited, same.visited);
        }
    }
}

// Routes to the index as it is.

Found with_parameters(bool of_ours) {
    IVFGMMSearchParameters own;
    faiss::SearchParametersIVF stock;
    own.nprobe = stock.nprobe = nprobe;
    our_ivf().nprobe = 1; // the call's counts
    Found found = searched(ours(), of_ours ? &own : &stock);
    our_ivf().nprobe = nprobe;
    return found;
}
Found in_parallel_mode(int mode) {
    our_ivf().parallel_mode = mode;
    Found found = searched(ours());
    our_ivf().parallel_mode = 0;
    return found;
}
Found reconstructed() {
    return found_by(our_ivf(), [](Results& results) {
        std::vector<float> rows(data().nq * k * data().d);
        ours().search_and_reconstruct(
                count(),
                queries().data(),
                k,
                results.distances.data(),
                results.labels.data(),
                rows.data());
    });
}
Found one_by_one() {
    return found_by(our_ivf(), [](Results& results) {
        for (size_t i = 0; i < data().nq; i++) {
            ours().search(
                    1,
                    queries().data() + i * data().d,
                    k,
                    results.distances.data() + i * k,
                    results.labels.data() + i * k);
        }
    });
}
Found by_ivflib() {
    return found_by(our_ivf(), [](Results& results) {
        faiss::SearchParametersIVF params;
        params.nprobe = nprobe;
        faiss::ivflib::search_with_parameters(
                &ours(),
                count(),
                queries().data(),
                k,
                results.distances.data(),
                results.labels.data(),
                &params);
    });
}
Found with_centroids() {
    return found_by(our_ivf(), [](Results& results) {
        std::vector<int64_t> of_query(data().nq), of_result(data().nq * k);
        faiss::ivflib::search_and_return_centroids(
                &ours(),
                count(),
                queries().data(),
                k,
                results.distances.data(),
                results.labels.data(),
                of_query.data(),
                of_result.data());
    });
}
/// Just beyond the true tenth; of what is found the ten best.
Found by_range() {
    Found found = found_by(our_ivf(), [](Results& results) {
        for (size_t i = 0; i < data().nq; i++) {
            const float* q = queries().data() + i * data().d;
            const int32_t tenth = data().truth.ids[i * data().truth.k + k - 1];
            const float* row = data().base.data() + tenth * data().d;
            float radius = 0.5f; // distances are whole numbers
            for (size_t t = 0; t < data().d; t++) {
                radius += (q[t] - row[t]) * (q[t] - row[t]);
            }
            faiss::RangeSearchResult hits(1);
            ours().range_search(1, q, radius, &hits);
            std::vector<std::pair<float, int64_t>> sorted;
            for (size_t j = 0; j < hits.lims[1]; j++) {
                sorted.emplace_back(hits.distances[j], hits.labels[j]);
            }
            std::sort(sorted.begin(), sorted.end());
            sorted.resize(k, {INFINITY, -1});
            for (size_t j = 0; j < k; j++) {
                results.distances[i * k + j] = sorted[j].first;
                results.labels[i * k + j] = sorted[j].second;
            }
        }
    });
    return found;
}
Found within(faiss::Index&& wrapper) {
    return found_by(our_ivf(), [&](Results& results) { results = search(wrapper, queries(), k); });
}
Found in_id_map() {
    faiss::IndexIDMap map; // of a filled index: constructed over one it would have to be empty
    map.index = &ours();
    map.d = ours().d;
    map.is_trained = true;
    map.ntotal = ours().ntotal;
    map.id_map.resize(data().n);
    std::iota(map.id_map.begin(), map.id_map.end(), 0);
    return found_by(our_ivf(), [&](Results& results) { results = search(map, queries(), k); });
}
Found in_pre_transform() {
    const int d = static_cast<int>(data().d);
    faiss::RemapDimensionsTransform same(d, d, true);
    return within(faiss::IndexPreTransform(&same, &ours()));
}
Found in_refine() {
    faiss::IndexFlatL2 exact(static_cast<int64_t>(data().d));
    exact.add(static_cast<int64_t>(data().n), data().base.data());
    return within(faiss::IndexRefine(&ours(), &exact));
}
Found in_replicas() {
    faiss::IndexReplicas replicas(static_cast<int>(data().d));
    const Holder second(clone_index(ours()));
    ivf_in(*second).nprobe = nprobe;
    replicas.add_replica(&ours());
    replicas.add_replica(second.get());
    return found_by(our_ivf(), [&](Results& results) { results = search(replicas, queries(), k); });
}
Found written_and_read() {
    const Folder folder;
    write_index(ours(), folder.file("index"));
    const Holder read(read_index(folder.file("index")));
    ivf_in(*read).nprobe = nprobe;
    return searched(*read);
}
Found cloned() {
    const Holder clone(clone_index(ours()));
    ivf_in(*clone).nprobe = nprobe;
    return searched(*clone);
}
Found on_disk() {
    const Folder folder;
    write_index(ours(), folder.file("shard"));
    const Holder empty(clone_index(ours()));
    empty->reset();
    merge_ondisk(*empty, {folder.file("shard")}, folder.file("lists"));
    ivf_in(*empty).nprobe = nprobe;
    return searched(*empty);
}
Found read_by_stock(bool then_promoted) {
    const Folder folder;
    write_index(ours(), folder.file("index"));
    Holder read(faiss::read_index(folder.file("index").c_str()));
    if (then_promoted) {
        read.reset(promote(read.release()));
    }
    ivf_in(*read).nprobe = nprobe;
    return searched(*read);
}

/// Two of them, each with half of the rows.
Found in_shards() {
    std::vector<Holder> parts;
    faiss::IndexShards shards(static_cast<int>(data().d), false, true);
    const auto half = static_cast<int64_t>(data().n / 2);
    for (size_t i = 0; i < 2; i++) {
        parts.emplace_back(clone_index(ours()));
        parts.back()->reset();
        parts.back()->add(half, data().base.data() + i * half * data().d);
        ivf_in(*parts.back()).nprobe = nprobe;
        shards.add_shard(parts.back().get());
    }
    return found_by(
            ivf_in(*parts[0]), [&](Results& results) { results = search(shards, queries(), k); });
}

#ifdef FAISS_GMM_HAS_SHARDS_IVF
/// The same with one quantizer, which holds our means.
Found in_shards_ivf() {
    const auto d = static_cast<int64_t>(data().d);
    faiss::IndexFlatL2 common(d);
    std::vector<float> means(nlist * d);
    our_ivf().quantizer->reconstruct_n(0, nlist, means.data());
    common.add(nlist, means.data());
    faiss::IndexShardsIVF shards(&common, nlist, false, false);
    IndexIVFGMMFlat first(d, nlist, faiss::METRIC_L2), second(d, nlist, faiss::METRIC_L2);
    shards.addIndex(&first);
    shards.addIndex(&second);
    shards.train(static_cast<int64_t>(data().n), data().base.data());
    shards.add(static_cast<int64_t>(data().n), data().base.data());
    first.nprobe = second.nprobe = nprobe;
    return found_by(first, [&](Results& results) { results = search(shards, queries(), k); });
}
#endif
#ifdef FAISS_GMM_HAS_INDEPENDENT_QUANTIZER
Found with_independent_quantizer() {
    return within(faiss::IndexIVFIndependentQuantizer(our_ivf().quantizer, &our_ivf()));
}
#endif
#ifdef FAISS_GMM_HAS_CODES_OF_RESULTS
Found with_codes() {
    return found_by(our_ivf(), [](Results& results) {
        std::vector<uint8_t> codes(data().nq * k * our_ivf().code_size);
        our_ivf().search_and_return_codes(
                count(),
                queries().data(),
                k,
                results.distances.data(),
                results.labels.data(),
                codes.data());
    });
}
#endif
#ifdef FAISS_GMM_HAS_SEARCH1
Found by_search1() {
    return found_by(our_ivf(), [](Results& results) {
        for (size_t i = 0; i < data().nq; i++) {
            compat::search1(
                    our_ivf(),
                    queries().data() + i * data().d,
                    k,
                    results.distances.data() + i * k,
                    results.labels.data() + i * k);
        }
    });
}
#endif

std::vector<Route> all_routes() {
    const std::string as_it_is = "`IVFGMM64,Flat`", others = "Other strings",
                      stock = "`IVF64,Flat` of FAISS, for comparison";
    std::vector<Route> all = {
            {as_it_is, "search", [] { return by_search(); }, budgeted(0.03)},
            {as_it_is, "search, query by query", one_by_one, like_search},
            {as_it_is,
             "search with SearchParametersIVF",
             [] { return with_parameters(false); },
             like_search},
            {as_it_is,
             "search with IVFGMMSearchParameters",
             [] { return with_parameters(true); },
             like_search},
            {as_it_is, "search, parallel_mode 1", [] { return in_parallel_mode(1); }, like_search},
            {as_it_is, "search, parallel_mode 2", [] { return in_parallel_mode(2); }, like_search},
            {as_it_is, "search, parallel_mode 3", [] { return in_parallel_mode(3); }, like_search},
            {as_it_is, "search_and_reconstruct", reconstructed, like_search},
            {as_it_is, "IndexIDMap", in_id_map, like_search},
            {as_it_is, "IndexPreTransform", in_pre_transform, like_search},
            {as_it_is, "IndexRefine", in_refine, like_search},
            {as_it_is, "IndexReplicas", in_replicas, like_search},
            {as_it_is,
             "IndexShards of two, each with half of the vectors",
             in_shards,
             budgeted(0.03)},
            {as_it_is,
             "faiss_gmm::write_index, faiss_gmm::read_index, search",
             written_and_read,
             like_search},
            {as_it_is, "faiss_gmm::clone_index, search", cloned, like_search},
            {as_it_is, "merge_ondisk (lists on disk), search", on_disk, like_search},
            {as_it_is,
             "faiss::read_index, promote, search",
             [] { return read_by_stock(true); },
             like_search},
            {as_it_is, "search_preassigned", [] { return by_given_lists(); }, whole_lists(0, 1.1)},
            {as_it_is, "ivflib::search_with_parameters", by_ivflib, like_given_lists},
            {as_it_is, "ivflib::search_and_return_centroids", with_centroids, like_given_lists},
            {as_it_is, "range_search to the true tenth", by_range, up_to_a_radius},
            {as_it_is,
             "faiss::read_index, search (a stock index over our lists)",
             [] { return read_by_stock(false); },
             like_stock},
            {as_it_is, "export_faiss, search (stock lists)", [] { return by_stock(); }, like_stock},
    };
#ifdef FAISS_GMM_HAS_SHARDS_IVF
    all.push_back(
            {as_it_is,
             "IndexShardsIVF of two, each with half of the vectors",
             in_shards_ivf,
             whole_lists(0, 1.1)});
#endif
#ifdef FAISS_GMM_HAS_INDEPENDENT_QUANTIZER
    all.push_back(
            {as_it_is,
             "IndexIVFIndependentQuantizer",
             with_independent_quantizer,
             like_given_lists});
#endif
#ifdef FAISS_GMM_HAS_CODES_OF_RESULTS
    all.push_back({as_it_is, "search_and_return_codes", with_codes, like_given_lists});
#endif
#ifdef FAISS_GMM_HAS_SEARCH1
    all.push_back({as_it_is, "search1", by_search1, like_stock});
#endif
    const auto add_strings =
            [&](const std::string& text, const Bound& searched_by, const Bound& given_lists) {
                all.push_back(
                        {others,
                         "`" + text + "`: search",
                         [=] { return searched(filled(text)); },
                         searched_by});
                all.push_back(
                        {others,
                         "`" + text + "`: search_preassigned",
                         [=] { return preassigned(filled(text)); },
                         given_lists});
            };
    const std::string spilling = "IVFGMM64(spill=always,max_lists=3),Flat",
                      copying = "IVFGMM64(storage=copies,spill=threshold(1/K),max_lists=8),Flat";
    const Bound no_more_than_stock{Bound::As::none, 0, 0};
    add_strings("IVFGMM64(spill=never),Flat", budgeted(0.03), no_more_than_stock);
    add_strings(spilling, budgeted(0.03), whole_lists(0.02, 2.5));
    add_strings("IVFGMM64(sketch=none),Flat", budgeted(0.03), whole_lists(0, 1.1));
    add_strings("IVFGMM64(budget=even),Flat", budgeted(0.02), whole_lists(0, 1.1));
    add_strings("IVFGMM64_HNSW32,Flat", budgeted(0.03), whole_lists(0, 1.1));
    add_strings(copying, whole_lists(0.01, 1.6), whole_lists(0.01, 1.6));
    all.push_back(
            {others,
             "`" + spilling + "`: export_faiss with guests, search",
             [=] {
                 const Holder stock_index(
                         export_faiss(filled(spilling), ExportedLists::with_guests));
                 ivf_in(*stock_index).nprobe = nprobe;
                 // Ids come as often as they stand there: ask for more, keep each once.
                 return found_by(ivf_in(*stock_index), [&](Results& results) {
                     const Results more = search(*stock_index, queries(), 3 * k);
                     for (size_t i = 0; i < data().nq; i++) {
                         std::set<int64_t> seen;
                         size_t kept = 0;
                         for (size_t j = 0; j < 3 * k && kept < k; j++) {
                             if (seen.insert(more.labels[i * 3 * k + j]).second) {
                                 results.distances[i * k + kept] = more.distances[i * 3 * k + j];
                                 results.labels[i * k + kept++] = more.labels[i * 3 * k + j];
                             }
                         }
                     }
                 });
             },
             whole_lists(0.02, 3.5)});
    all.push_back(
            {stock,
             "search",
             [] { return searched(filled("IVF64,Flat")); },
             whole_lists(-0.02, 1.1)});
    return all;
}

std::string name_of(const testing::TestParamInfo<Route>& info) {
    std::string name = info.param.section + info.param.name;
    for (char& c : name) {
        c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
    }
    return name;
}
INSTANTIATE_TEST_SUITE_P(All, Routes, testing::ValuesIn(all_routes()), name_of);

/// A share of the vectors that is searched alone: recall is of those.
class SelectedShares : public testing::TestWithParam<size_t> {};

TEST_P(SelectedShares, ReachTheirRecall) {
    const size_t d = data().d, percent = GetParam();
    std::vector<float> base;
    std::vector<int64_t> ids, position(data().n, -1);
    for (size_t i = 0; i < data().n; i++) {
        if ((i * 7919) % 100 < percent) { // spread over the lists
            position[i] = static_cast<int64_t>(ids.size());
            ids.push_back(static_cast<int64_t>(i));
            base.insert(base.end(), data().base.data() + i * d, data().base.data() + (i + 1) * d);
        }
    }
    const GroundTruth truth = exact_ground_truth(
            d, ids.size(), base.data(), data().nq, queries().data(), k, faiss::METRIC_L2);
    const RecallMeasure measure(
            d, ids.size(), base.data(), data().nq, queries().data(), truth, k, faiss::METRIC_L2);
    const faiss::IDSelectorBatch selector(ids.size(), ids.data());
    faiss::SearchParametersIVF params;
    params.nprobe = nprobe;
    params.sel = const_cast<faiss::IDSelectorBatch*>(&selector);
    const auto recall_of = [&](Results results) {
        for (int64_t& label : results.labels) {
            if (label >= 0) {
                label = position[label];
                EXPECT_GE(label, 0) << "not selected";
            }
        }
        return measure.recall(results.labels.data());
    };
    const double of_stock = recall_of(searched(exported(), &params).results);
    const auto try_one = [&](const std::string& route, const Found& found, const Bound& bound) {
        SCOPED_TRACE(route);
        const double got = recall_of(found.results);
        expect_bound(bound, got, of_stock, found.visited);
        RecordProperty("selected." + route, fmt::format("{:.3f}", got));
        RecordProperty("visited." + route, fmt::format("{:.0f}", found.visited));
        RecordProperty("used." + route, found.used);
    };
    RecordProperty("selected", fmt::format("{}%", percent));
    try_one("search", searched(ours(), &params), budgeted(0.01));
    try_one("search_preassigned",
            found_by(
                    our_ivf(),
                    [&](Results& results) {
                        std::vector<int64_t> keys;
                        std::vector<float> coarse;
                        keys_of(our_ivf(), keys, coarse);
                        results = search_keys(our_ivf(), queries(), k, keys, coarse, params);
                    }),
            whole_lists(0, 1.1));
    try_one("stock", searched(exported(), &params), whole_lists(0, 1.1));
}

INSTANTIATE_TEST_SUITE_P(All, SelectedShares, testing::Values(1, 10, 50));

} // namespace
} // namespace faiss_gmm
