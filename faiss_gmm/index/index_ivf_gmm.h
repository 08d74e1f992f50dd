// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/clone_index.h>
#include <faiss/impl/IDSelector.h>

#include "faiss_gmm/compat/codecs.h"
#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/compat/layout.h"
#include "faiss_gmm/index/codec_parts.h"
#include "faiss_gmm/index/faiss_error.h"
#include "faiss_gmm/index/gmm_quantizer.h"
#include "faiss_gmm/index/list_search.h"
#include "faiss_gmm/index/result_heap.h"
#include "faiss_gmm/index/row_distances.h"
#include "faiss_gmm/index/search_parameters.h"
#include "faiss_gmm/index/statistics.h"
#include "faiss_gmm/runs/mixture_block_lists.h"
#include "faiss_gmm/runs/run_inverted_lists.h"
#include "faiss_gmm/spill/spill_policy.h"
#include "faiss_gmm/train/gmm_trainer.h"

namespace faiss_gmm {

/// Whether and how finely vectors are sketched inside their runs.
struct SketchParameters {
    enum class Mode {
        automatic, ///< where the codec's code is over twice a sketch's size
        none,      ///< chosen runs are scanned whole by the codec
        fixed,     ///< always, with `codes` codes
    };
    Mode mode = Mode::automatic;
    size_t codes = 0; ///< 4-bit codes a summary and a sketch; 0: clamp(d / 4, 1, 256)
};

/// Seconds spent building, summed over calls.
struct BuildTimes {
    double train = 0, add = 0;
    double split = 0; ///< of add: lists into runs
    /// Of train: the rotation and quantizers of summaries and sketches; of add: coding.
    double sketch = 0;
};

/// Bytes held, measured.
struct MemoryUse {
    size_t codes = 0, ids = 0, directory = 0, quantizer = 0;
    size_t total() const {
        return codes + ids + directory + quantizer;
    }
};

/// The face that every IndexIVFGMMOf<Codec> shows beside its stock class: dynamic_cast to it to
/// reach the mixture, the policy and the directory.
///
/// Threads, as FAISS has it of its CPU indices: any number may call const functions of one index at once, its
/// stock class's too (all searches, reconstruct, writing, cloning), and get what one alone would. Whatever
/// changes it (train, add, remove_ids, compact, tune(), a field such as nprobe) wants it for itself: the caller locks.
/// Parameters of one search go through its arguments. Indices of their own need no lock; clones count as such, for
/// what they share is never written to. contrib/docs/faiss.md says it call by call.
class IndexIVFGMM {
public:
    IndexIVFGMM() = default;
    IndexIVFGMM(const IndexIVFGMM&) = delete; ///< io/clone.h copies
    IndexIVFGMM& operator=(const IndexIVFGMM&) = delete;
    virtual ~IndexIVFGMM();

    TrainingParameters training; ///< read by train(); what it says of the engine also by add()
    SpillPolicy spill;           ///< read by train()
    SketchParameters sketch;     ///< read by train()
    float probe_expansion = 0;   ///< lists probed / nprobe; 0: by the measured rule
    float k_factor = 0;          ///< exact distances / k; 0: by the measured rule
    VisitBudget visit_budget = VisitBudget::by_difficulty;

    /// The mixture; K = 0 before train().
    const GaussianMixture& mixture() const;
    /// History of the last train(), an entry an EM iteration.
    const std::vector<TrainingProgress>& training_history() const {
        return history_;
    }
    /// Throws faiss::FaissException for values of the fields above that train() would refuse.
    void check_parameters() const;
    /// Splits every list that is not in split form, so that what is found no longer depends on the
    /// order in which vectors were added. Throws faiss::FaissException.
    void compact();
    /// Puts lists that were filled elsewhere, by this mixture and codec, in place of its own empty ones, and gives
    /// them their runs, list by list: faiss::OnDiskInvertedLists, as merge_ondisk() of io/merge_ondisk.h does. vectors: how
    /// many they hold, a vector's copies as one. Throws faiss::FaissException for an index that is not trained, or not
    /// empty, and for lists of another form; std::bad_alloc, and what the lists throw (they are then there, without runs).
    void replace_lists(std::unique_ptr<faiss::InvertedLists> filled, int64_t vectors);
    /// Throws faiss::FaissException, as one that is doing `what`, where replace_lists() refuses this index.
    void require_room_for_lists(const char* what) const;
    /// Verifies every invariant of lists and directory; throws faiss::FaissException naming the
    /// first that does not hold. O(n d).
    void check() const;
    BuildTimes build_times() const {
        return times_;
    }
    MemoryUse memory_use() const;
    /// The lists with their directory; null for a FastScan codec, whose codes stand in blocks, and where
    /// another kind was put in their place (then the index is a plain IVF).
    const RunInvertedLists* run_lists() const;
    /// Whether lists hold copies of vectors (SpillStorage::copies, trained), so that an id may come
    /// several times.
    bool stores_copies() const;

    /// Whether search() chooses runs, so that probe_expansion changes it, and in them vectors by their sketches, so
    /// that k_factor does. Before train(): whether it will, training vectors enough.
    bool chooses_runs() const;
    bool chooses_by_sketches() const;

    /// Whether search() computes exact distances by our own loops: over rows of fp32, fp16 or 8-bit
    /// codes. Else the codec's scanner does.
    bool has_own_distances() const;

    /// This index as the stock class it also is.
    virtual faiss::IndexIVF& ivf() = 0;
    virtual const faiss::IndexIVF& ivf() const = 0;

    /// The same index again, lists, runs and callbacks; its quantizer and what else stock code knows are
    /// cloned by `cloner`. What io/clone.h calls. Throws faiss::FaissException.
    virtual std::unique_ptr<faiss::IndexIVF> copy(faiss::Cloner& cloner) const = 0;
    /// The codec as an index of its stock class alone, over a clone of the quantizer, without lists.
    virtual std::unique_ptr<faiss::IndexIVF> stock_copy(faiss::Cloner& cloner) const = 0;

protected:
    using StockAddCore = std::function<void(
            int64_t n, const float* x, const int64_t* ids, const int64_t* assignment)>;
    using StockSearchPreassigned = std::function<void(
            int64_t k,
            float* distances,
            int64_t* labels,
            const faiss::IVFSearchParameters* params,
            faiss::IndexIVFStats* stats)>;

    /// How codes are stored, where our own loops read them.
    virtual std::optional<StoredRows> stored_rows() const = 0;
    /// The quantizer as it is. Throws for null, which FAISS's constructors read, and for one of other dimensions, at
    /// which they lose what they made.
    static faiss::Index* required(faiss::Index* quantizer, size_t d);
    /// Throws for a metric or codec that a mixture's lists do not hold, and for no dimensions or lists.
    void check_supported() const;
    /// Puts the lists under those of this library; once, at construction.
    void attach();
    /// At construction over a copy of `stock` that owns nothing yet: takes over its quantizer, or a mixture's in
    /// place of a flat one, and its lists.
    void begin_around(faiss::IndexIVF& stock);
    /// At construction over a copy of `stock` that owns nothing yet: takes its parts over. Throws Error
    /// where they do not fit together; all is then stock's as before.
    void adopt(faiss::IndexIVF& stock);
    std::unique_ptr<faiss::InvertedLists> copy_of_lists() const;
    void copy_fields_to(IndexIVFGMM& copy) const;
    /// Learns mixture, rotation and quantizers, and fills the coarse quantizer unless it holds
    /// nlist vectors.
    void train_coarse(int64_t n, const float* x);
    /// From here on a GMMQuantizer assigns where `training` says.
    void assign_by_engine();
    /// add_core: codes through the codec's own in blocks, copies where the storage asks for them,
    /// then runs.
    void add_spilled(
            int64_t n,
            const float* x,
            const int64_t* ids,
            const int64_t* assignment,
            const StockAddCore& stock);
    /// Whether search() has runs to choose from under these parameters.
    bool searches_by_runs(const faiss::SearchParameters* params) const;
    void search_by_runs(
            int64_t n,
            const float* x,
            ResultArrays results,
            const faiss::SearchParameters* params) const;
    void search_and_reconstruct_by_runs(
            int64_t n,
            const float* x,
            int64_t k,
            float* distances,
            int64_t* labels,
            float* reconstructed,
            const faiss::SearchParameters* params) const;
    void search_lists(
            const PreassignedQueries& queries,
            ResultArrays results,
            const faiss::IVFSearchParameters* params,
            faiss::IndexIVFStats* stats,
            const StockSearchPreassigned& stock) const;
    /// Calls stock code that asks a selector within a parallel region, or searches for us within one: what the
    /// selector throws is thrown afterwards. Parameters of classes that are neither FAISS's nor ours are handed on
    /// as they are.
    static void with_guarded_selector(
            const faiss::SearchParameters* params,
            const std::function<void(const faiss::SearchParameters*)>& stock);
    /// Throws for those that stock code would throw for within a parallel region.
    void check_search_parameters(const faiss::SearchParameters* params) const;
    /// Throws for keys that name no list.
    void check_given_lists(
            const PreassignedQueries& queries, const faiss::IVFSearchParameters* params) const;
    void range_search_lists(
            const PreassignedQueries& queries,
            float radius,
            faiss::RangeSearchResult* result,
            bool store_pairs,
            const faiss::IVFSearchParameters* params,
            faiss::IndexIVFStats* stats) const;
    /// range_search over the nprobe nearest lists; with copies each id once.
    void range_search_nprobe(
            int64_t n,
            const float* x,
            float radius,
            faiss::RangeSearchResult* result,
            const faiss::SearchParameters* params) const;
    /// Gives what stock code wrote its runs.
    void organise();
    /// Adds the means that a flat quantizer compared n queries with to the statistics.
    void count_coarse(int64_t n) const;
    /// Throws where lists of the other would not mean here what they meant there.
    void check_mergeable(const faiss::Index& other) const;
    void refuse_with_copies(const char* what) const;
    void refuse_with_blocks(const char* what) const;
    /// Where lists that are mapped read-only would end the process, or be left without runs.
    void refuse_read_only(const char* what) const;
    /// Throws for ids that stock code would find missing when half of the others are updated.
    void check_updatable(int64_t n, const int64_t* ids) const;
    /// Throws for a subset that stock code would divide by zero for, read beyond lists for, or abort at, and
    /// for a direct map that would not learn of it.
    void check_subset(const faiss::IndexIVF& into, int subset_type, int64_t a1, int64_t a2) const;
    /// copy_subset_to by ids, of an index that stores copies.
    void copy_vectors_to(faiss::IndexIVF& into, int subset_type, int64_t a1, int64_t a2) const;
    static int64_t entries_of(const faiss::IndexIVF& index) {
        return static_cast<int64_t>(index.invlists->compute_ntotal());
    }
    /// Throws for a number of rows below zero, which would be taken for a huge one.
    static void refuse_below_zero(const char* what, int64_t n);
    /// Throws for NaN or Inf in x [n, d], naming the first row.
    void refuse_rows_not_finite(const char* what, int64_t n, const float* x) const;
    /// A selector whose answers cannot fail.
    struct SortedIds : faiss::IDSelector {
        std::vector<int64_t> ids; ///< ascending, each once
        bool is_member(int64_t id) const override;
    };
    /// The stored ids that a selector lets pass. Throws what it throws.
    SortedIds stored_members(const faiss::IDSelector& selector) const;

private:
    RunInvertedLists* lists();
    MixtureLists* kept() const; ///< the lists, where they are of this library; else null
    std::unique_ptr<GMMQuantizer> own_quantizer_like(const faiss::Index& flat) const;
    void learn_codec(CoarseState& state, size_t n, const float* x);
    void count_means(size_t means) const;
    bool is_flat() const; ///< the quantizer compares all means
    void
    probe(int64_t n,
          const float* x,
          const SearchSettings& settings,
          std::vector<int64_t>& keys,
          std::vector<float>& coarse_dis) const;
    void search_all_lists(
            int64_t n,
            const float* x,
            const ResultArrays& results,
            const SearchSettings& settings) const;
    void check_stored_copies() const;
    bool holds_copies_of(const IndexIVFGMM& other) const;
    bool keeps_heaps() const; ///< parallel_mode asks for the caller's heaps to be added to
    void search_copies(
            const PreassignedQueries& queries,
            const ResultArrays& results,
            const SearchSettings& settings,
            faiss::IndexIVFStats* stats) const;
    void make_room(int64_t n, const int64_t* assignment);
    void add_copies(
            int64_t n,
            const float* x,
            const int64_t* ids,
            const int64_t* homes,
            const StockAddCore& stock);
    void learn_around(
            GaussianMixture mixture, const std::vector<float>& data_mean, size_t n, const float* x);
    void calibrate_spill(CoarseState& state, size_t n, const float* x, const int32_t* home) const;
    EngineParameters placing_engine() const;
    void estimate_from_lists();
    DecodeEntries decoder() const;
    void bring_into_order(const std::function<std::vector<size_t>(OrganiseTimes&)>& step);
    void follow_in_direct_map(const std::vector<size_t>& lists);
    TrainingParameters index_training() const;
    TrainingParameters training_around_quantizer() const;
    void check_around_lists() const;
    std::string memo() const;
    bool take_memo(const std::string& text);
    void keep_memo();

    std::shared_ptr<const MixtureLists::IndexMemo> memo_; ///< ends with this index
    std::vector<TrainingProgress> history_;
    BuildTimes times_;
};

/// How an IndexIVFGMMOf is made of a stock index: constructor by constructor.
struct TakeOver {};
struct InPlaceOf {};

/// An IVF index over a Gaussian mixture. Codec: a stock IVF class, which this is in every
/// dynamic_cast.
///
/// Constructed as the stock class is, or without a quantizer: then it owns a GMMQuantizer.
/// What FAISS does with a Codec it does with this; written by faiss::write_index and read by faiss::read_index it
/// is a stock index over its lists, which promote() of io/index_io.h turns back. faiss::clone_index refuses: io/clone.h
/// clones. Where they differ: train() runs EM, add() spills runs and sketches vectors, search() visits nprobe *
/// ntotal / nlist vectors of the best runs (README, "How it works").
template <class Codec> class IndexIVFGMMOf : public Codec, public IndexIVFGMM {
public:
    /// codec: what the stock constructor takes behind nlist, the metric among it.
    template <class... Arguments>
    IndexIVFGMMOf(size_t d, size_t nlist, Arguments... codec)
            : IndexIVFGMMOf(
                      std::make_unique<GMMQuantizer>(
                              static_cast<int64_t>(d), metric_among(codec...)),
                      d,
                      nlist,
                      codec...) {}
    template <class... Arguments>
    IndexIVFGMMOf(faiss::Index* quantizer, size_t d, size_t nlist, Arguments... codec)
            : Codec(compat::checked(required(quantizer, d)), d, nlist, codec...) {
        attach();
    }

    /// Over quantizer, lists and codes of a stock index whose lists are of this library: read from a file by
    /// stock code, or copied. They are this index's from here on, and `stock` is only good to be destroyed. Throws
    /// faiss::FaissException where they do not fit together; `stock` is then as it was.
    IndexIVFGMMOf(TakeOver, Codec& stock) : Codec(compat::checked(stock)) {
        own_nothing();
        at_faiss_seam([&] {
            check_codec(stock);
            compat::give_packer(stock, 0);
            adopt(stock);
        });
        take_parts<Codec>(*this, stock);
    }

    /// An untrained index with the codec, the parameters and the quantizer of a stock one; in place of a flat
    /// quantizer it owns a GMMQuantizer. `stock` is only good to be destroyed, also where this throws.
    IndexIVFGMMOf(InPlaceOf, Codec& stock) : Codec(compat::checked(stock)) {
        own_nothing();
        take_parts<Codec>(*this, stock);
        begin_around(stock);
        attach();
    }

    faiss::IndexIVF& ivf() override {
        return *this;
    }
    const faiss::IndexIVF& ivf() const override {
        return *this;
    }

    void train(int64_t n, const float* x) override {
        refuse_below_zero("training an index", n);
        refuse_read_only("training an index");
        at_faiss_seam([&] { train_coarse(n, x); });
        Codec::train(n, x);
        at_faiss_seam([&] { organise(); }); // what is stored keeps its place and its code
    }

    void add_with_ids(int64_t n, const float* x, const int64_t* xids) override {
        refuse_below_zero("adding vectors", n);
        assign_by_engine();
        Codec::add_with_ids(n, x, xids);
    }

    void add_core(
            int64_t n,
            const float* x,
            const int64_t* xids,
            const int64_t* precomputed_idx FAISS_GMM_CONTEXT_PARAMETER) override {
        refuse_below_zero("adding vectors", n);
        refuse_with_blocks("adding vectors with their lists given");
        refuse_read_only("adding vectors");
        at_faiss_seam([&] {
            add_spilled(
                    n,
                    x,
                    xids,
                    precomputed_idx,
                    [&](int64_t rows,
                        const float* rows_x,
                        const int64_t* ids,
                        const int64_t* assignment) {
                        Codec::add_core(rows, rows_x, ids, assignment FAISS_GMM_CONTEXT_ARGUMENT);
                    });
        });
    }

    void
    search(int64_t n,
           const float* x,
           int64_t k,
           float* distances,
           int64_t* labels,
           const faiss::SearchParameters* params = nullptr) const override {
        refuse_below_zero("searching an index", n);
        if (searches_by_runs(params)) {
            search_by_runs(n, x, {k, distances, labels}, params);
        } else {
            const faiss::SearchParametersIVF stock = stock_parameters(params);
            // Those of a codec as they are. None where none were given: FastScan takes none before 1.8.
            const bool as_they_are = params == nullptr || is_for_lists(params);
            const auto search = [&](const faiss::SearchParameters* given) {
                Codec::search(n, x, k, distances, labels, given);
            };
            with_guarded_selector(
                    as_they_are ? params : &stock, std::cref(search)); // which allocates nothing
            count_coarse(n);
        }
    }

    void search_preassigned(
            int64_t n,
            const float* x,
            int64_t k,
            const int64_t* assign,
            const float* centroid_dis,
            float* distances,
            int64_t* labels,
            bool store_pairs,
            const faiss::IVFSearchParameters* params = nullptr,
            faiss::IndexIVFStats* stats = nullptr) const override {
        refuse_below_zero("searching given lists", n);
        if (!compat::searches_given_blocks) {
            refuse_with_blocks("searching given lists, or reconstructing what a search finds");
        }
        const Labels meaning = store_pairs ? Labels::list_and_offset : Labels::ids;
        search_lists(
                {n, x, assign, centroid_dis},
                {k, distances, labels, meaning},
                params,
                stats,
                [&](int64_t wide_k,
                    float* wide_distances,
                    int64_t* wide_labels,
                    const faiss::IVFSearchParameters* stock_params,
                    faiss::IndexIVFStats* stock_stats) {
                    Codec::search_preassigned(
                            n,
                            x,
                            wide_k,
                            assign,
                            centroid_dis,
                            wide_distances,
                            wide_labels,
                            store_pairs,
                            stock_params,
                            stock_stats);
                });
    }

    void range_search(
            int64_t n,
            const float* x,
            float radius,
            faiss::RangeSearchResult* result,
            const faiss::SearchParameters* params = nullptr) const override {
        refuse_below_zero("searching an index by radius", n);
        if (run_lists() == nullptr) {
            check_search_parameters(params);
            with_guarded_selector(params, [&](const faiss::SearchParameters* given) {
                Codec::range_search(n, x, radius, result, given);
            });
        } else {
            range_search_nprobe(n, x, radius, result, params);
        }
    }

    void range_search_preassigned(
            int64_t n,
            const float* x,
            float radius,
            const int64_t* keys,
            const float* coarse_dis,
            faiss::RangeSearchResult* result,
            bool store_pairs = false,
            const faiss::IVFSearchParameters* params = nullptr,
            faiss::IndexIVFStats* stats = nullptr) const
            FAISS_GMM_RANGE_SEARCH_PREASSIGNED_OVERRIDE {
        refuse_below_zero("searching given lists by radius", n);
        if (!compat::searches_given_blocks) {
            refuse_with_blocks("range search of given lists");
        }
        if (run_lists() == nullptr) {
            check_given_lists({n, x, keys, coarse_dis}, params);
            with_guarded_selector(params, [&](const faiss::SearchParameters* given) {
                const auto* of_lists = dynamic_cast<const faiss::IVFSearchParameters*>(given);
                Codec::range_search_preassigned(
                        n, x, radius, keys, coarse_dis, result, store_pairs, of_lists, stats);
            });
        } else {
            range_search_lists(
                    {n, x, keys, coarse_dis}, radius, result, store_pairs, params, stats);
        }
    }

    void search_and_reconstruct(
            int64_t n,
            const float* x,
            int64_t k,
            float* distances,
            int64_t* labels,
            float* recons,
            const faiss::SearchParameters* params = nullptr) const override {
        refuse_below_zero("searching an index", n);
        if (searches_by_runs(params)) {
            search_and_reconstruct_by_runs(n, x, k, distances, labels, recons, params);
        } else {
            const faiss::SearchParametersIVF stock = stock_parameters(params);
            Codec::search_and_reconstruct(
                    n, x, k, distances, labels, recons, is_for_lists(params) ? params : &stock);
            count_coarse(n);
        }
    }

    void reconstruct_from_offset(int64_t list_no, int64_t offset, float* recons) const override {
        compat::reconstruct_from_offset<Codec>(*this, list_no, offset, recons);
    }

    size_t remove_ids(const faiss::IDSelector& sel) override {
        if (!compat::removes_from_blocks) {
            refuse_with_blocks("removing vectors");
        }
        refuse_read_only("removing vectors");
        const int64_t before = this->ntotal;
        int64_t removed = 0;
        if (!this->direct_map.no()) {
            refuse_with_copies("removing from an index with a direct map");
            removed = remove_entries(sel); // stock code looks up the ids of an array, or refuses
        } else {
            // Asked here: stock code asks within a parallel region, where a selector that throws ends the process.
            const SortedIds members = stored_members(sel);
            removed = remove_entries(members);
            if (stores_copies()) {
                removed = static_cast<int64_t>(members.ids.size());
            }
        }
        this->ntotal = before - removed;
        at_faiss_seam([&] { organise(); });
        return static_cast<size_t>(removed);
    }

    void update_vectors(int nv, const int64_t* idx, const float* v) override {
        refuse_below_zero("updating vectors", nv);
        assign_by_engine();
        refuse_with_copies("updating vectors");
        refuse_with_blocks("updating vectors");
        refuse_read_only("updating vectors");
        refuse_rows_not_finite("updating vectors", nv, v);
        check_updatable(nv, idx);
        Codec::update_vectors(nv, idx, v);
        at_faiss_seam([&] { organise(); });
    }

    void merge_from(faiss::Index& other, int64_t add_id) override {
        if (!compat::merges_blocks) {
            refuse_with_blocks("merging two indices");
        }
        refuse_read_only("merging two indices");
        check_mergeable(other);
        Codec::merge_from(other, add_id);
        at_faiss_seam([&] { organise(); });
    }

    void copy_subset_to(
            faiss::IndexIVF& other,
            FAISS_GMM_SUBSET_TYPE subset_type,
            int64_t a1,
            int64_t a2) const override {
        refuse_with_blocks("copying a subset");
        check_subset(other, static_cast<int>(subset_type), a1, a2);
        if (entries_of(*this) == 0) {
            return;
        }
        if (stores_copies()) {
            copy_vectors_to(other, static_cast<int>(subset_type), a1, a2);
        } else {
            // Stock's own count goes wrong where shares of lists are rounded.
            const int64_t more = other.ntotal - entries_of(other);
            Codec::copy_subset_to(other, subset_type, a1, a2);
            other.ntotal = entries_of(other) + more;
        }
        if (auto* ours = dynamic_cast<IndexIVFGMMOf*>(&other)) {
            at_faiss_seam([&] { ours->organise(); });
        }
    }

    void reset() override {
        refuse_read_only("emptying an index");
        Codec::reset();
    }

    std::unique_ptr<faiss::IndexIVF> copy(faiss::Cloner& cloner) const override {
        return at_faiss_seam([&]() -> std::unique_ptr<faiss::IndexIVF> {
            std::unique_ptr<faiss::InvertedLists> lists = copy_of_lists();
            const std::unique_ptr<Codec> parts = codec_alone(cloner);
            parts->invlists = lists.release();
            parts->own_invlists = true;
            auto copied = std::make_unique<IndexIVFGMMOf>(TakeOver(), *parts);
            copy_fields_to(*copied);
            return copied;
        });
    }

    std::unique_ptr<faiss::IndexIVF> stock_copy(faiss::Cloner& cloner) const override {
        return codec_alone(cloner);
    }

protected:
    std::optional<StoredRows> stored_rows() const override {
        // These very classes: one derived from them may differ.
        if constexpr (std::is_same_v<Codec, faiss::IndexIVFFlat>) {
            return StoredRows();
        } else if constexpr (std::is_same_v<Codec, faiss::IndexIVFScalarQuantizer>) {
            return rows_of(this->sq, this->by_residual);
        } else {
            return {};
        }
    }

private:
    template <class... Arguments>
    IndexIVFGMMOf(
            std::unique_ptr<GMMQuantizer> quantizer, size_t d, size_t nlist, Arguments... codec)
            : Codec(quantizer.get(), d, nlist, codec...) {
        static_cast<faiss::IndexIVF*>(this)->own_fields =
                true; // SpectralHash has another of that name
        static_cast<void>(quantizer.release());
        attach();
    }

    /// Returns how many entries went, counted here: FAISS 1.9 to 1.13 say 0 for what they removed from blocks.
    int64_t remove_entries(const faiss::IDSelector& members) {
        const int64_t entries = entries_of(*this);
        Codec::remove_ids(members);
        return entries - entries_of(*this);
    }
    /// After a copy construction.
    void own_nothing() noexcept {
        forget_parts<Codec>(*this);
        faiss::IndexIVF& index = *this;
        index.own_fields = index.own_invlists = false;
    }
    std::unique_ptr<Codec> codec_alone(faiss::Cloner& cloner) const {
        const Codec& original = *this;
        auto alone = std::make_unique<Codec>(original);
        forget_parts(*alone);
        faiss::IndexIVF& index = *alone;
        index.own_fields = index.own_invlists = false;
        index.invlists = nullptr;
        clone_parts(*alone, original, cloner);
        index.quantizer = cloner.clone_Index(this->quantizer);
        index.own_fields = true;
        return alone;
    }

    /// That what our own loops read of the codec, and stock code of blocks, is there.
    static void check_codec(const Codec& stock) {
        if constexpr (std::is_same_v<Codec, faiss::IndexIVFScalarQuantizer>) {
            const size_t ranges = 2 * static_cast<size_t>(stock.d);
            const bool has_ranges = stock.sq.qtype == faiss::ScalarQuantizer::QT_8bit;
            require_codec(
                    stock.sq.d == static_cast<size_t>(stock.d) &&
                            !(has_ranges && stock.is_trained && stock.sq.trained.size() != ranges),
                    "a scalar quantizer of another dimension",
                    "that of the index");
        }
        if constexpr (std::is_base_of_v<faiss::IndexIVFFastScan, Codec>) {
            const auto* lists = dynamic_cast<const MixtureBlockLists*>(stock.invlists);
            const auto entries = static_cast<size_t>(stock.bbs);
            require_codec(
                    lists != nullptr && lists->n_per_block == entries &&
                            lists->block_size ==
                                    entries * (stock.M2 / 2 + compat::bytes_of_factors(stock)),
                    "blocks of another form",
                    "lists in the blocks that the codec reads");
        }
    }
    static void require_codec(bool holds, const char* given, const char* allowed) {
        if (!holds) {
            throw Error(
                    {"making an IVFGMM index of a stock one",
                     given,
                     allowed,
                     "read an undamaged copy of the file, or build the index again"});
        }
    }
    static std::optional<StoredRows> rows_of(const faiss::ScalarQuantizer& sq, bool by_residual) {
        switch (sq.qtype) {
        case faiss::ScalarQuantizer::QT_fp16:
            return StoredRows{StoredRows::Form::fp16, by_residual};
        case faiss::ScalarQuantizer::QT_8bit:
            return StoredRows{
                    StoredRows::Form::bytes,
                    by_residual,
                    sq.trained.data(),
                    sq.trained.data() + sq.d};
        default:
            return {};
        }
    }
    static faiss::MetricType metric_among() {
        return faiss::METRIC_L2;
    }
    template <class First, class... Rest>
    static faiss::MetricType metric_among(First first, Rest... rest) {
        if constexpr (std::is_same_v<First, faiss::MetricType>) {
            return first;
        } else {
            return metric_among(rest...);
        }
    }

    static bool is_for_lists(const faiss::SearchParameters* params) {
        return dynamic_cast<const faiss::SearchParametersIVF*>(params) != nullptr;
    }
    /// What stock search code understands of parameters that know nothing of lists.
    faiss::SearchParametersIVF stock_parameters(const faiss::SearchParameters* params) const {
        faiss::SearchParametersIVF stock;
        stock.nprobe = this->nprobe;
        stock.max_codes = this->max_codes;
        if (params != nullptr) {
            stock.sel = params->sel;
        }
        return stock;
    }
};

using IndexIVFGMMFlat = IndexIVFGMMOf<faiss::IndexIVFFlat>;
using IndexIVFGMMScalarQuantizer = IndexIVFGMMOf<faiss::IndexIVFScalarQuantizer>;

} // namespace faiss_gmm
