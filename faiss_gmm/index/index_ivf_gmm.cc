// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/index/index_ivf_gmm.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <numeric>
#include <random>
#include <unordered_set>

#include <fmt/format.h>

#include <faiss/IndexFlat.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/IDSelector.h>

#include "faiss_gmm/index/budgeted_search.h"
#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/index/list_search.h"
#include "faiss_gmm/index/written_bytes.h"
#include "faiss_gmm/mixture/clock.h"
#include "faiss_gmm/runs/component_ranking.h"
#include "faiss_gmm/runs/mapped.h"
#include "faiss_gmm/runs/parallel.h"
#include "faiss_gmm/runs/vector_ops.h"
#include "faiss_gmm/train/finite_rows.h"
#include "faiss_gmm/train/unit_length.h"

namespace faiss_gmm {
namespace {

constexpr int64_t add_block = 65536;          // above it stock add_core would re-enter ours
constexpr size_t codec_rows_per_list = 64;    // training vectors a list for rotation and quantizers
constexpr size_t codec_rows_of_few_lists = 8; // at least so many times what they cannot do without

/// Adds the seconds of its life to a sum.
class Stopwatch {
public:
    explicit Stopwatch(double& sum) : sum_(sum) {}
    ~Stopwatch() {
        sum_ += seconds_since(begin_);
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

private:
    double& sum_;
    Clock::time_point begin_ = Clock::now();
};

/// `most` of n row numbers, ascending: a random subset.
std::vector<int64_t> sample_rows(size_t n, size_t most, uint64_t seed) {
    std::vector<int64_t> rows(n);
    for (size_t i = 0; i < n; i++) {
        rows[i] = static_cast<int64_t>(i);
    }
    if (n > most) {
        std::mt19937_64 random(seed);
        for (size_t i = 0; i < most; i++) {
            std::swap(rows[i], rows[i + random() % (n - i)]);
        }
        rows.resize(most);
        std::sort(rows.begin(), rows.end());
    }
    return rows;
}

std::vector<float> gather(size_t d, const float* x, const std::vector<int64_t>& rows) {
    std::vector<float> gathered(rows.size() * d);
    parallel_for(rows.size(), [&](size_t i) {
        std::copy_n(x + rows[i] * d, d, gathered.data() + i * d);
    });
    return gathered;
}

/// Whether sketches pay: the codec's code is over twice their size.
bool wants_sketches(const SketchParameters& sketch, size_t code_size, size_t d) {
    switch (sketch.mode) {
    case SketchParameters::Mode::none:
        return false;
    case SketchParameters::Mode::fixed:
        return true;
    case SketchParameters::Mode::automatic:
        return code_size > 2 * ((automatic_codes(d) + 3) / 4 * 4 / 2);
    }
    return false;
}

/// Asks another selector. Where that throws, nothing is selected any more, and the exception is kept.
class GuardedSelector : public faiss::IDSelector {
public:
    explicit GuardedSelector(const faiss::IDSelector& asked) : asked_(asked) {}
    bool is_member(int64_t id) const override {
        if (failed_) {
            return false;
        }
        try {
            return asked_.is_member(id);
        } catch (...) {
            if (!failed_.exchange(true)) {
                failure_ = std::current_exception();
            }
            return false;
        }
    }
    /// After all threads are done with it.
    void rethrow() const {
        if (failure_) {
            std::rethrow_exception(failure_);
        }
    }

private:
    const faiss::IDSelector& asked_;
    mutable std::atomic<bool> failed_{false};
    mutable std::exception_ptr failure_;
};

} // namespace

IndexIVFGMM::~IndexIVFGMM() = default;

const RunInvertedLists* IndexIVFGMM::run_lists() const {
    return dynamic_cast<const RunInvertedLists*>(ivf().invlists);
}

RunInvertedLists* IndexIVFGMM::lists() {
    return dynamic_cast<RunInvertedLists*>(ivf().invlists);
}

MixtureLists* IndexIVFGMM::kept() const {
    return dynamic_cast<MixtureLists*>(ivf().invlists);
}

const GaussianMixture& IndexIVFGMM::mixture() const {
    static const GaussianMixture untrained;
    const MixtureLists* lists = kept();
    return lists != nullptr ? lists->state().mixture : untrained;
}

faiss::Index* IndexIVFGMM::required(faiss::Index* quantizer, size_t d) {
    const bool of_other_rows = quantizer != nullptr && static_cast<size_t>(quantizer->d) != d;
    if (quantizer == nullptr || of_other_rows) {
        throw_faiss(
                {"constructing an IVFGMM index",
                 of_other_rows ? fmt::format("{} dimensions, a quantizer of {}", d, quantizer->d)
                               : "no quantizer (a null pointer)",
                 "a quantizer of the same dimension",
                 "pass one, or leave the argument out: the index then makes a GMMQuantizer"});
    }
    return quantizer;
}

void IndexIVFGMM::check_supported() const {
    const faiss::IndexIVF& index = ivf();
    if (index.d < 1 || index.nlist < 1) {
        throw_faiss(
                {"constructing an IVFGMM index",
                 fmt::format("{} dimensions, {} lists", index.d, index.nlist),
                 "at least one of each",
                 "pass the length of the vectors, and the number of lists"});
    }
    if (index.metric_type != faiss::METRIC_L2 && index.metric_type != faiss::METRIC_INNER_PRODUCT) {
        throw_faiss(
                {"constructing an IVFGMM index",
                 fmt::format("metric {}", static_cast<int>(index.metric_type)),
                 "METRIC_L2 and METRIC_INNER_PRODUCT",
                 "choose one of these, or a stock IVF index"});
    }
    if (const auto refusal = refusal_of_codec(index)) {
        throw_faiss(
                {"constructing an IVFGMM index",
                 refusal->why,
                 "Flat, scalar, product and additive quantizers, RaBitQ, EDEN, FastScan, spectral "
                 "hashes",
                 refusal->instead});
    }
}

void IndexIVFGMM::attach() {
    check_supported();
    faiss::IndexIVF& index = ivf();
    std::unique_ptr<faiss::InvertedLists> stock(index.invlists);
    index.own_invlists = false;
    index.invlists = nullptr;
    if (!stock) { // as FAISS allows since 1.12
        throw_faiss(
                {"constructing an IVFGMM index",
                 "own_invlists = false",
                 "lists of its own",
                 "leave own_invlists out, and give filled lists to replace_lists() after "
                 "training"});
    }
    if (const auto* blocks = dynamic_cast<const faiss::BlockInvertedLists*>(stock.get())) {
        index.replace_invlists(new MixtureBlockLists(*blocks), true);
    } else {
        index.replace_invlists(new RunInvertedLists(std::move(stock)), true);
    }
    keep_memo();
}

TrainingParameters IndexIVFGMM::index_training() const {
    const faiss::IndexIVF& index = ivf();
    TrainingParameters parameters = training;
    parameters.unit_means = index.metric_type == faiss::METRIC_INNER_PRODUCT;
    const bool for_mixtures_only =
            training.covariance == Covariance::tied || training.covariance == Covariance::full;
    const bool nearest_mean_only = !is_flat();
    const bool nearest_mean =
            training.covariance == Covariance::tied_spherical && training.mixing == Mixing::uniform;
    if (for_mixtures_only || (nearest_mean_only && !nearest_mean)) {
        throw Error(
                {"training an IVFGMM index",
                 for_mixtures_only
                         ? "a covariance that assigns by full matrices"
                         : "a covariance or mixing other than tied_spherical and uniform, and a "
                           "quantizer that searches by distance alone",
                 for_mixtures_only ? "tied_spherical, spherical or diagonal"
                                   : "tied_spherical with uniform mixing over such a quantizer",
                 "set training.covariance and training.mixing, or use a flat quantizer"});
    }
    parameters.interrupt = [interrupt = training.interrupt] {
        faiss::InterruptCallback::check();
        if (interrupt) {
            interrupt();
        }
    };
    return parameters;
}

void IndexIVFGMM::check_parameters() const {
    at_faiss_seam([&] {
        spill.check();
        const GMMTrainer trainer(index_training());
        if (sketch.mode == SketchParameters::Mode::fixed && (sketch.codes > 256)) {
            throw Error(
                    {"reading the parameters of an IVFGMM index",
                     fmt::format("sketch.codes = {}", sketch.codes),
                     "0 (by the dimension) to 256",
                     "ask for fewer codes"});
        }
        const bool copies = spill.storage == SpillStorage::copies;
        if (keeps_plain_lists(ivf()) && (copies || sketch.mode == SketchParameters::Mode::fixed)) {
            throw Error(
                    {"reading the parameters of an IVFGMM index",
                     copies ? "storage=copies for a codec whose lists stay plain"
                            : "sketches for a codec whose lists stay plain",
                     "storage=shared and sketch=auto or none for FastScan, spectral hashes and "
                     "codes of "
                     "no bits",
                     "leave both as they are, or take the codec that FastScan packs: PQ, RQ, LSQ, "
                     "PRQ, PLSQ, RaBitQ"});
        }
    });
}

/// What is stored was placed by the old policy: its copies must mean the same under the new one.
void IndexIVFGMM::check_stored_copies() const {
    const RunInvertedLists* runs = run_lists();
    if (runs == nullptr || ivf().ntotal == 0 || runs->state().mixture.K == 0) {
        return;
    }
    const bool copies = spill.storage == SpillStorage::copies;
    if (copies != stores_copies() || (copies && spill.max_lists < runs->state().spill.max_lists)) {
        throw Error(
                {"training an IVFGMM index that holds vectors",
                 "another storage, or fewer max_lists than they were stored with",
                 "the same storage, and with storage=copies at least as many max_lists",
                 "reset() the index first, or keep spill as it was"});
    }
}

/// Of a mixture around the means that the quantizer holds.
TrainingParameters IndexIVFGMM::training_around_quantizer() const {
    const faiss::IndexIVF& index = ivf();
    TrainingParameters parameters = index_training();
    const size_t d = index.d;
    std::vector<float>& means = parameters.means_init;
    parameters.keep_means = true;
    means.resize(index.nlist * d);
    index.quantizer->reconstruct_n(0, static_cast<int64_t>(index.nlist), means.data());
    // Given means of another length say something of lengths: rows then keep theirs.
    parameters.unit_means = parameters.unit_means && of_unit_length(index.nlist, d, means.data());
    return parameters;
}

void IndexIVFGMM::train_coarse(int64_t n, const float* x) {
    const Stopwatch watch(times_.train);
    faiss::IndexIVF& index = ivf();
    const size_t d = index.d, nlist = index.nlist;
    check_parameters();
    check_stored_copies();
    const bool keeps_means =
            index.quantizer->is_trained && static_cast<size_t>(index.quantizer->ntotal) == nlist;
    TrainingParameters parameters = keeps_means ? training_around_quantizer() : index_training();
    parameters.progress = [progress = parameters.progress](const TrainingProgress& now) {
        faiss::InterruptCallback::check(); // as stock does after each iteration of k-means
        return !progress || progress(now);
    };
    TrainingResult result = GMMTrainer(parameters).train(nlist, n, d, x);
    history_ = std::move(result.history);
    if (!keeps_means) {
        index.quantizer->reset();
        if (!index.quantizer->is_trained) {
            index.quantizer->train(static_cast<int64_t>(nlist), result.mixture.means.data());
        }
        index.quantizer->add(static_cast<int64_t>(nlist), result.mixture.means.data());
    }
    learn_around(std::move(result.mixture), result.data_mean, n, x);
}

void IndexIVFGMM::learn_around(
        GaussianMixture mixture, const std::vector<float>& data_mean, size_t n, const float* x) {
    MixtureLists* lists = kept();
    if (lists == nullptr) {
        return;
    }
    const faiss::IndexIVF& index = ivf();
    auto state = std::make_shared<CoarseState>();
    state->mixture = std::move(mixture);
    state->spill = spill;
    // No list holds a member twice, so these many can be meant.
    state->spill.max_lists = std::min({spill.max_lists, spill.m, index.nlist});
    state->codec.set_means(
            index.d,
            index.nlist,
            state->mixture.means.data(),
            data_mean.data(),
            index.metric_type == faiss::METRIC_INNER_PRODUCT);
    if (!keeps_plain_lists(index)) { // else the mixture says which list, and that is all
        learn_codec(*state, n, x);
    }
    lists->set_state(state);
    if (auto* quantizer = dynamic_cast<GMMQuantizer*>(index.quantizer)) {
        quantizer->set_state(state);
    }
}

/// Rotation and quantizers of summaries and sketches, and what else is measured on them.
void IndexIVFGMM::learn_codec(CoarseState& state, size_t n, const float* x) {
    const faiss::IndexIVF& index = ivf();
    const size_t d = index.d;
    const size_t sampled = std::max(
            codec_rows_per_list * index.nlist,
            codec_rows_of_few_lists * enough_training_vectors(d));
    const std::vector<int64_t> rows = sample_rows(n, sampled, training.seed + 1);
    const std::vector<float> sample = gather(d, x, rows);
    RunCodec::RunMeans members; // what is placed: runs, or vectors
    if (spill.storage == SpillStorage::shared) {
        const Stopwatch watch(times_.sketch);
        ComponentRanking ranking(
                engine_parameters(training),
                state.mixture,
                state.codec,
                rows.size(),
                Assignment::hard);
        TopResponsibilities top;
        ranking.rank(rows.size(), sample.data(), 1, top);
        members = state.codec.train(
                rows.size(),
                sample.data(),
                top.component.data(),
                sketch.mode == SketchParameters::Mode::fixed ? sketch.codes : 0,
                training.seed,
                training.warning);
        state.sketched = state.codec.trained && wants_sketches(sketch, index.code_size, d);
    }
    if (state.codec.trained) {
        const size_t most = training.max_points_per_component;
        const double rows_a_list = static_cast<double>(n) / static_cast<double>(index.nlist);
        state.difficulty.learn(
                state.codec,
                rows.size(),
                sample.data(),
                most > 0 ? std::min(rows_a_list, static_cast<double>(most)) : rows_a_list);
        calibrate_spill(state, members.home.size(), members.mean.data(), members.home.data());
    } else {
        std::vector<float> buffer;
        const float* modelled = state.codec.as_modelled(rows.size(), sample.data(), buffer);
        calibrate_spill(state, rows.size(), modelled, nullptr);
    }
}

/// Sets the threshold of rule fraction from n members x [n, d] as modelled; home: null where it is the best
/// component.
void IndexIVFGMM::calibrate_spill(
        CoarseState& state, size_t n, const float* x, const int32_t* home) const {
    if (state.spill.rule != SpillRule::fraction || state.mixture.K < 2 || n == 0) {
        return;
    }
    const size_t m = std::min(state.spill.m, state.mixture.K);
    ComponentRanking ranking(
            exact_engine(engine_parameters(training)), state.mixture, state.codec, n);
    TopResponsibilities top;
    ranking.rank_modelled(n, x, m, top);
    std::vector<float> border(n);
    for (size_t i = 0; i < n; i++) {
        border[i] = border_log_responsibility(
                home != nullptr ? home[i] : top.component[i * m], candidates_of(top, m, i));
    }
    calibrate(state.spill, std::move(border));
}

/// Where train() was never called (a quantizer that came filled): learns from what the lists hold.
void IndexIVFGMM::estimate_from_lists() {
    RunInvertedLists* runs = lists();
    faiss::IndexIVF& index = ivf();
    const size_t d = index.d, nlist = index.nlist;
    const size_t total = runs->compute_ntotal();
    if (static_cast<size_t>(index.quantizer->ntotal) != nlist || total < nlist) {
        return;
    }
    const size_t most = training.max_points_per_component * nlist;
    const std::vector<int64_t> rows = sample_rows(total, most > 0 ? most : total, training.seed);
    std::vector<float> x(rows.size() * d);
    size_t list = 0, first = 0;
    for (size_t i = 0; i < rows.size(); i++) {
        const auto row = static_cast<size_t>(rows[i]);
        while (row >= first + runs->list_size(list)) {
            first += runs->list_size(list++);
        }
        index.reconstruct_from_offset(
                static_cast<int64_t>(list), static_cast<int64_t>(row - first), x.data() + i * d);
    }
    TrainingResult result =
            GMMTrainer(training_around_quantizer()).train(nlist, rows.size(), d, x.data());
    learn_around(std::move(result.mixture), result.data_mean, rows.size(), x.data());
}

DecodeEntries IndexIVFGMM::decoder() const {
    const faiss::IndexIVF& index = ivf();
    return [&index](size_t list, size_t first, size_t n, float* x) {
        for (size_t i = 0; i < n; i++) {
            index.reconstruct_from_offset(
                    static_cast<int64_t>(list), static_cast<int64_t>(first + i), x + i * index.d);
        }
    };
}

bool IndexIVFGMM::stores_copies() const {
    const RunInvertedLists* runs = run_lists();
    return runs != nullptr && runs->state().mixture.K > 0 &&
           runs->state().spill.storage == SpillStorage::copies;
}

bool IndexIVFGMM::chooses_runs() const {
    const RunInvertedLists* runs = run_lists();
    if (mixture().K > 0 || runs == nullptr) {
        return runs != nullptr && runs->has_runs();
    }
    return !keeps_plain_lists(ivf()) && spill.storage == SpillStorage::shared;
}

bool IndexIVFGMM::chooses_by_sketches() const {
    if (mixture().K > 0) {
        return chooses_runs() && run_lists()->directory().sketched;
    }
    return chooses_runs() && wants_sketches(sketch, ivf().code_size, ivf().d);
}

void IndexIVFGMM::count_coarse(int64_t n) const {
    if (is_flat()) {
        count_means(static_cast<size_t>(n) * ivf().nlist);
    }
}

void IndexIVFGMM::count_means(size_t means) const {
    IVFGMMStats stats;
    stats.means = means;
    faiss::IndexIVFStats none; // the queries themselves are counted where their lists are scanned
    publish(stats, &none);
}

void IndexIVFGMM::check_mergeable(const faiss::Index& other) const {
    const auto* theirs = dynamic_cast<const IndexIVFGMM*>(&other);
    if (theirs == this) {
        throw_faiss(
                {"merging two indices",
                 "an index and itself, which would be emptied",
                 "two indices",
                 "merge a clone (clone_index of io/clone.h)"});
    }
    if (theirs != nullptr) {
        theirs->refuse_read_only("merging two indices"); // it is emptied
    }
    if (!ivf().is_trained || !other.is_trained) { // stock compares means that are not there
        throw_faiss(
                {"merging two indices",
                 "an index that is not trained",
                 "trained indices",
                 "train both, with the same means"});
    }
    const bool their_copies = theirs != nullptr && theirs->stores_copies();
    if (their_copies ? !holds_copies_of(*theirs) : stores_copies()) {
        throw_faiss(
                {"merging two indices",
                 "indices that store their vectors another number of times",
                 "storage=shared on both sides, or storage=copies with at most this index's "
                 "max_lists",
                 "build both with the same storage and max_lists"});
    }
}

/// Whether as many copies of a vector are expected here as the other index may hold.
bool IndexIVFGMM::holds_copies_of(const IndexIVFGMM& other) const {
    const auto max_lists = [](const IndexIVFGMM& index) {
        return index.run_lists()->state().spill.max_lists;
    };
    return stores_copies() && max_lists(*this) >= max_lists(other);
}

/// Copies every entry of these vectors; each counts once.
void IndexIVFGMM::copy_vectors_to(
        faiss::IndexIVF& into, int subset_type, int64_t a1, int64_t a2) const {
    const auto is_wanted = [&](int64_t id) {
        return subset_type == 0 ? a1 <= id && id < a2 : id % a1 == a2;
    };
    const faiss::InvertedLists& lists = *ivf().invlists;
    std::unordered_set<int64_t> copied;
    for (size_t l = 0; l < lists.nlist; l++) {
        const faiss::InvertedLists::ScopedIds ids(&lists, l);
        const faiss::InvertedLists::ScopedCodes codes(&lists, l);
        for (size_t i = 0; i < lists.list_size(l); i++) {
            const int64_t id = number_at(ids.ids, i);
            if (is_wanted(id)) {
                into.invlists->add_entries(l, 1, &id, codes.codes + i * lists.code_size);
                copied.insert(id);
            }
        }
    }
    into.ntotal += static_cast<int64_t>(copied.size());
}

void IndexIVFGMM::refuse_with_copies(const char* what) const {
    if (stores_copies()) {
        throw_faiss(
                {what,
                 "an index with storage=copies, where a vector has several codes",
                 "storage=shared",
                 "build the index with storage=shared, or remove and add the vectors"});
    }
}

/// Where stock code would end the process, or leave a vector out.
void IndexIVFGMM::refuse_with_blocks(const char* what) const {
    if (has_code_blocks(ivf())) {
        throw_faiss(
                {what,
                 "an index of a FastScan codec, whose codes stand in blocks",
                 "a codec with a code a vector: this FAISS cannot do it with blocks",
                 "take the codec that FastScan packs (PQ, RQ, LSQ, PRQ, PLSQ, RaBitQ), or build "
                 "the index "
                 "anew"});
    }
}

void IndexIVFGMM::refuse_read_only(const char* what) const {
    const RunInvertedLists* runs = run_lists();
    if (runs != nullptr && !runs->is_writable()) {
        throw_faiss(
                {what,
                 "an index whose lists are mapped read-only from a file",
                 "lists in memory, or on disk and open for writing",
                 "read the index without IO_FLAG_MMAP and IO_FLAG_READ_ONLY"});
    }
}

void IndexIVFGMM::check_updatable(int64_t n, const int64_t* ids) const {
    const faiss::DirectMap& map = ivf().direct_map;
    const auto refuse = [](const std::string& given, const char* allowed, const char* next) {
        throw_faiss({"updating vectors", given, allowed, next});
    };
    if (map.no()) {
        refuse("an index without a direct map",
               "an index that knows where each id lies",
               "call make_direct_map(), or remove and add the vectors");
    }
    std::unordered_set<int64_t> seen;
    for (int64_t i = 0; i < n; i++) {
        const auto count = static_cast<int64_t>(map.array.size());
        const auto place = map.hashtable.find(ids[i]);
        const bool stored = map.type == faiss::DirectMap::Array
                                    ? ids[i] >= 0 && ids[i] < count && map.array[ids[i]] >= 0
                                    : place != map.hashtable.end() && place->second >= 0;
        if (!stored) {
            refuse(fmt::format("id {}, which is not stored", ids[i]),
                   "ids of stored vectors",
                   "add the vector in place of updating it");
        }
        if (!seen.insert(ids[i]).second) {
            refuse(fmt::format("id {} twice", ids[i]),
                   "each id once",
                   "keep the vector that is to stay");
        }
    }
}

void IndexIVFGMM::check_subset(
        const faiss::IndexIVF& into, int subset_type, int64_t a1, int64_t a2) const {
    // FAISS names them since 1.7.4.
    constexpr int id_range = 0, id_mod = 1, element_range = 2, share_of_lists = 3;
    const int64_t stored = entries_of(ivf());
    const auto* ours = dynamic_cast<const IndexIVFGMM*>(&into);
    if (ours != nullptr) {
        ours->refuse_read_only("copying a subset");
    }
    const auto refuse = [&](const std::string& given, const std::string& allowed) {
        throw_faiss({"copying a subset", given, allowed, "see faiss::IndexIVF::copy_subset_to"});
    };
    if (&into == &ivf()) {
        refuse("an index to be copied into itself", "two indices");
    }
    if (!into.direct_map.no()) {
        refuse("an index with a direct map to copy into", "an index without one");
    }
    if (has_code_blocks(into)) {
        refuse("an index of a FastScan codec to copy into, whose codes stand in blocks",
               "an index of the same codec");
    }
    if (stores_copies()) {
        if (subset_type != id_range && subset_type != id_mod) {
            refuse("entries of an index with storage=copies, where a vector has several",
                   "vectors by their ids: SUBSET_TYPE_ID_RANGE, SUBSET_TYPE_ID_MOD");
        }
        if (ours != nullptr && !ours->holds_copies_of(*this)) {
            refuse("vectors of an index with storage=copies for one that does not expect as many "
                   "copies",
                   "an index with storage=copies and at least this one's max_lists, or a stock "
                   "one");
        }
        if (into.nlist != ivf().nlist || into.code_size != ivf().code_size) {
            refuse(fmt::format("{} lists of {} bytes a code", into.nlist, into.code_size),
                   fmt::format("{} lists of {}", ivf().nlist, ivf().code_size));
        }
    }
    if ((subset_type == id_mod || subset_type == share_of_lists) && a1 < 1) {
        refuse(fmt::format("parts of 1 / {}", a1), "a divisor of at least 1");
    }
    if (subset_type == element_range && !(0 <= a1 && a1 <= a2 && a2 <= stored)) {
        refuse(fmt::format("elements {} to {}", a1, a2),
               fmt::format("a range of the {} elements", stored));
    }
    if (subset_type == share_of_lists && !(0 <= a2 && a2 < a1)) {
        refuse(fmt::format("part {} of {}", a2, a1), "one of the parts, from 0 on");
    }
    if (!stores_copies() && FAISS_GMM_SUBSETS_NEED_ALL_ROWS && stored != ivf().ntotal) {
        refuse(fmt::format("{} of {} vectors stored (the others held NaN)", stored, ivf().ntotal),
               "an index that stores every vector, with FAISS up to 1.7.3");
    }
}

void IndexIVFGMM::refuse_below_zero(const char* what, int64_t n) {
    if (n < 0) {
        throw_faiss(
                {what,
                 fmt::format("n = {}", n),
                 "n from 0",
                 "pass the number of rows that the arrays hold"});
    }
}

void IndexIVFGMM::refuse_rows_not_finite(const char* what, int64_t n, const float* x) const {
    const size_t bad = first_bad_row(static_cast<size_t>(n), ivf().d, x);
    if (bad < static_cast<size_t>(n)) {
        throw_faiss(
                {what,
                 fmt::format("row {} with NaN or Inf", bad),
                 "finite numbers",
                 "remove or repair this row"});
    }
}

IndexIVFGMM::SortedIds IndexIVFGMM::stored_members(const faiss::IDSelector& selector) const {
    const faiss::InvertedLists* lists = ivf().invlists;
    std::vector<std::vector<int64_t>> of_list(lists->nlist);
    parallel_for(lists->nlist, [&](size_t l) {
        const faiss::InvertedLists::ScopedIds ids(lists, l);
        for (size_t i = 0; i < lists->list_size(l); i++) {
            const int64_t id = number_at(ids.ids, i);
            if (selector.is_member(id)) {
                of_list[l].push_back(id);
            }
        }
    });
    SortedIds members;
    for (const std::vector<int64_t>& part : of_list) {
        members.ids.insert(members.ids.end(), part.begin(), part.end());
    }
    std::sort(members.ids.begin(), members.ids.end());
    members.ids.erase(std::unique(members.ids.begin(), members.ids.end()), members.ids.end());
    return members;
}

bool IndexIVFGMM::SortedIds::is_member(int64_t id) const {
    return std::binary_search(ids.begin(), ids.end(), id);
}

/// A GPU where it pays and is there: lists that lose entries or come from elsewhere are organised without
/// one too.
EngineParameters IndexIVFGMM::placing_engine() const {
    EngineParameters engine = exact_engine(engine_parameters(training));
    if (engine.kind == EngineKind::cuda) {
        engine.kind = EngineKind::automatic;
    }
    return engine;
}

void IndexIVFGMM::assign_by_engine() {
    if (auto* quantizer = dynamic_cast<GMMQuantizer*>(ivf().quantizer)) {
        quantizer->engine = exact_engine(engine_parameters(training));
    }
}

void IndexIVFGMM::add_spilled(
        int64_t n,
        const float* x,
        const int64_t* ids,
        const int64_t* assignment,
        const StockAddCore& stock) {
    const Stopwatch watch(times_.add);
    faiss::IndexIVF& index = ivf();
    const size_t d = index.d;
    if (!index.is_trained) { // an empty quantizer may leave the keys unwritten
        throw_faiss(
                {"adding vectors",
                 "an index that is not trained",
                 "a trained index",
                 "call train() first"});
    }
    if (assignment == nullptr) {
        throw_faiss(
                {"adding vectors",
                 "no assignment to lists",
                 "a list a vector",
                 "call add() or add_with_ids(), or assign by the quantizer"});
    }
    check_keys("adding vectors", index.nlist, static_cast<size_t>(n), assignment);
    if (!index.direct_map.no()) {
        refuse_with_copies("adding to an index with a direct map");
    }
    std::vector<int64_t> own_ids;
    if (ids == nullptr && index.direct_map.type == faiss::DirectMap::Hashtable) {
        own_ids.resize(n); // stock code maps ids that it does not know to arbitrary ones
        std::iota(own_ids.begin(), own_ids.end(), index.ntotal);
        ids = own_ids.data();
    }
    make_room(n, assignment);
    for (int64_t first = 0; first < n; first += add_block) {
        const int64_t count = std::min(add_block, n - first);
        const float* block = x + first * d;
        const int64_t* block_ids = ids == nullptr ? nullptr : ids + first;
        std::vector<int64_t> homes(assignment + first, assignment + first + count);
        for (int64_t i = 0; i < count; i++) {
            if (!all_finite(d, block + i * d)) { // belongs nowhere, whatever the quantizer says
                homes[i] = -1;
            }
        }
        if (stores_copies()) {
            add_copies(count, block, block_ids, homes.data(), stock);
        } else {
            stock(count, block, block_ids, homes.data());
        }
    }
    organise();
}

/// Room in the lists for rows assigned so.
void IndexIVFGMM::make_room(int64_t n, const int64_t* assignment) {
    RunInvertedLists* runs = lists();
    if (runs == nullptr) {
        return;
    }
    std::vector<size_t> arriving(runs->nlist, 0);
    for (int64_t i = 0; i < n; i++) {
        if (assignment[i] >= 0 && static_cast<size_t>(assignment[i]) < runs->nlist) {
            arriving[assignment[i]]++;
        }
    }
    runs->make_room(arriving);
}

/// The code of each row in every list that its own responsibilities choose; ntotal counts rows.
/// All of them, or, where stock code throws, none.
void IndexIVFGMM::add_copies(
        int64_t n,
        const float* x,
        const int64_t* ids,
        const int64_t* homes,
        const StockAddCore& stock) {
    faiss::IndexIVF& index = ivf();
    const CoarseState& state = run_lists()->state();
    const size_t d = index.d, m = std::min(state.spill.m, state.mixture.K);
    const int64_t before = index.ntotal;
    std::vector<int64_t> own_ids(n);
    for (int64_t i = 0; i < n; i++) {
        own_ids[i] = ids != nullptr ? ids[i] : before + i;
    }
    std::vector<int64_t> placed; // rows that have a home: the others hold NaN or Inf
    for (int64_t i = 0; i < n; i++) {
        if (homes[i] >= 0) {
            placed.push_back(i);
        }
    }
    const std::vector<float> gathered = gather(d, x, placed);
    std::vector<float> buffer;
    const float* modelled = state.codec.as_modelled(placed.size(), gathered.data(), buffer);
    ComponentRanking ranking(
            exact_engine(engine_parameters(training)), state.mixture, state.codec, placed.size());
    TopResponsibilities top;
    ranking.rank_modelled(placed.size(), modelled, m, top);
    std::vector<float> copies;
    std::vector<int64_t> copy_ids, copy_lists;
    std::vector<int32_t> chosen;
    for (size_t i = 0; i < placed.size(); i++) {
        const auto home = static_cast<int32_t>(homes[placed[i]]);
        const float* row = gathered.data() + i * d;
        choose_lists(
                state.spill,
                state.mixture,
                home,
                squared_distance(d, modelled + i * d, state.mixture.means.data() + home * d),
                candidates_of(top, m, i),
                chosen);
        for (size_t j = 1; j < chosen.size(); j++) {
            copies.insert(copies.end(), row, row + d);
            copy_ids.push_back(own_ids[placed[i]]);
            copy_lists.push_back(chosen[j]);
        }
    }
    std::vector<size_t> sizes(index.nlist);
    for (size_t l = 0; l < index.nlist; l++) {
        sizes[l] = index.invlists->list_size(l);
    }
    try {
        stock(n, x, own_ids.data(), homes);
        for (size_t first = 0; first < copy_ids.size(); first += add_block) {
            const size_t count = std::min<size_t>(add_block, copy_ids.size() - first);
            stock(static_cast<int64_t>(count),
                  copies.data() + first * d,
                  copy_ids.data() + first,
                  copy_lists.data() + first);
        }
    } catch (...) { // a vector in some of its lists only would be found or not by chance
        for (size_t l = 0; l < index.nlist; l++) {
            index.invlists->resize(l, std::min(sizes[l], index.invlists->list_size(l)));
        }
        index.ntotal = before;
        throw;
    }
    index.ntotal = before + n;
}

void IndexIVFGMM::organise() {
    RunInvertedLists* runs = lists();
    if (runs == nullptr || keeps_plain_lists(ivf())) {
        return;
    }
    runs->engine = placing_engine();
    const faiss::IndexIVF& index = ivf();
    const size_t enough = std::max(
            training.min_points_per_component * index.nlist, enough_training_vectors(index.d));
    if (runs->state().mixture.K == 0 && static_cast<size_t>(index.ntotal) >= enough) {
        estimate_from_lists();
    }
    bring_into_order([&](OrganiseTimes& times) { return runs->organise(decoder(), times); });
}

/// Runs a step that moves entries within their lists; the direct map follows, also where it fails.
void IndexIVFGMM::bring_into_order(const std::function<std::vector<size_t>(OrganiseTimes&)>& step) {
    OrganiseTimes times;
    std::vector<size_t> moved;
    try {
        moved = step(times);
    } catch (...) {
        moved.resize(ivf().nlist);
        std::iota(moved.begin(), moved.end(), size_t{0});
        follow_in_direct_map(moved);
        throw;
    }
    follow_in_direct_map(moved);
    times_.split += times.split;
    times_.sketch += times.sketch;
}

void IndexIVFGMM::compact() {
    RunInvertedLists* runs = lists();
    if (runs == nullptr || keeps_plain_lists(ivf())) {
        return;
    }
    refuse_read_only("compacting an index");
    at_faiss_seam([&] {
        if (!stores_copies() && !runs->state().codec.trained) {
            estimate_from_lists();
        }
        runs->engine = placing_engine();
        bring_into_order([&](OrganiseTimes& times) { return runs->compact(decoder(), times); });
    });
}

void IndexIVFGMM::check() const {
    if (const RunInvertedLists* runs = run_lists()) {
        at_faiss_seam([&] { runs->check(decoder()); });
    }
    check_around_lists();
}

/// What check() asks of the index around its lists.
void IndexIVFGMM::check_around_lists() const {
    const faiss::IndexIVF& index = ivf();
    const faiss::InvertedLists* lists = index.invlists;
    if (lists == nullptr) {
        return;
    }
    // Rows that stock code could not place (NaN) count in ntotal and stand nowhere.
    const faiss::IDSelectorAll all;
    const size_t stored =
            stores_copies() ? stored_members(all).ids.size() : lists->compute_ntotal();
    if (stored > static_cast<size_t>(index.ntotal)) {
        throw_faiss(
                {"checking an IVFGMM index",
                 fmt::format("{} vectors in lists, ntotal = {}", stored, index.ntotal),
                 "each vector counted once",
                 "rebuild the index, and report how it came to this"});
    }
    const GaussianMixture& trained = mixture();
    if (trained.K > 0 && static_cast<size_t>(index.quantizer->ntotal) != trained.K) {
        throw_faiss(
                {"checking an IVFGMM index",
                 fmt::format(
                         "{} means in the quantizer, {} components",
                         index.quantizer->ntotal,
                         trained.K),
                 "as many means as components",
                 "do not change the quantizer after training"});
    }
    if (!index.direct_map.no()) {
        // Of entries with one id (copies, or added so) the map names one.
        const auto names = [&](uint64_t place, int64_t id) {
            const size_t list = faiss::lo_listno(place), offset = faiss::lo_offset(place);
            return list < lists->nlist && offset < lists->list_size(list) &&
                   lists->get_single_id(list, offset) == id;
        };
        for (size_t l = 0; l < lists->nlist; l++) {
            const faiss::InvertedLists::ScopedIds ids(lists, l);
            for (size_t i = 0; i < lists->list_size(l); i++) {
                const int64_t id = number_at(ids.ids, i);
                if (!names(static_cast<uint64_t>(index.direct_map.get(id)), id)) {
                    throw_faiss(
                            {"checking an IVFGMM index",
                             fmt::format(
                                     "id {} at list {} offset {}, elsewhere in the direct map",
                                     id,
                                     l,
                                     i),
                             "a direct map that names each entry's place",
                             "rebuild the direct map, and report how it came to this"});
                }
            }
        }
    }
}

void IndexIVFGMM::follow_in_direct_map(const std::vector<size_t>& moved) {
    faiss::DirectMap& map = ivf().direct_map;
    if (map.no()) {
        return;
    }
    const RunInvertedLists* runs = run_lists();
    for (const size_t l : moved) {
        const faiss::InvertedLists::ScopedIds ids(runs, l);
        for (size_t i = 0; i < runs->list_size(l); i++) {
            const auto place = static_cast<int64_t>(faiss::lo_build(l, i));
            const int64_t id = number_at(ids.ids, i);
            if (map.type == faiss::DirectMap::Hashtable) {
                map.hashtable[id] = place;
            } else if (id >= 0 && static_cast<size_t>(id) < map.array.size()) {
                map.array[id] = place; // others: FAISS threw half way of making the map
            }
        }
    }
}

MemoryUse IndexIVFGMM::memory_use() const {
    MemoryUse use;
    const faiss::IndexIVF& index = ivf();
    for (size_t l = 0; l < index.nlist; l++) {
        use.codes += index.invlists->list_size(l) * index.code_size;
        use.ids += index.invlists->list_size(l) * sizeof(int64_t);
    }
    use.quantizer = written_bytes(*index.quantizer);
    if (const RunInvertedLists* runs = run_lists()) {
        const CoarseState& state = runs->state();
        use.directory = runs->directory().memory_bytes() + state.codec.memory_bytes() +
                        state.difficulty.memory_bytes() +
                        state.mixture.means.size() * sizeof(float);
    }
    return use;
}

bool IndexIVFGMM::keeps_heaps() const {
    const faiss::IndexIVF& index = ivf();
    return (index.parallel_mode & index.PARALLEL_MODE_NO_HEAP_INIT) != 0;
}

bool IndexIVFGMM::has_own_distances() const {
    return stored_rows().has_value();
}

bool IndexIVFGMM::is_flat() const {
    return dynamic_cast<const faiss::IndexFlat*>(ivf().quantizer) != nullptr;
}

bool IndexIVFGMM::searches_by_runs(const faiss::SearchParameters* params) const {
    const RunInvertedLists* runs = run_lists();
    const faiss::IndexIVF& index = ivf();
    const SearchSettings settings = resolve_settings(index, params, probe_expansion, k_factor);
    if (runs == nullptr || settings.nprobe == index.nlist) {
        return runs != nullptr && !is_flat(); // a graph does not find all lists
    }
    return runs->has_runs();
}

/// The lists of each query, nearest first, for routes that scan them whole: all where nprobe is nlist,
/// also where the quantizer would not find them all.
void IndexIVFGMM::probe(
        int64_t n,
        const float* x,
        const SearchSettings& settings,
        std::vector<int64_t>& keys,
        std::vector<float>& coarse_dis) const {
    const faiss::IndexIVF& index = ivf();
    const size_t nprobe = settings.nprobe, d = index.d;
    keys.resize(n * nprobe);
    coarse_dis.resize(n * nprobe);
    const bool is_filled = static_cast<size_t>(index.quantizer->ntotal) == index.nlist;
    const faiss::SearchParameters* of_quantizer = settings.quantizer_params;
    const bool all_wanted = of_quantizer == nullptr || of_quantizer->sel == nullptr;
    if (nprobe < index.nlist || is_flat() || !is_filled || !all_wanted) {
        index.quantizer->search(
                n, x, static_cast<int64_t>(nprobe), coarse_dis.data(), keys.data(), of_quantizer);
        count_coarse(n);
        return;
    }
    std::vector<float> means(nprobe * d);
    index.quantizer->reconstruct_n(0, static_cast<int64_t>(nprobe), means.data());
    const auto distance = index.metric_type == faiss::METRIC_INNER_PRODUCT ? dot : squared_distance;
    parallel_for(static_cast<size_t>(n), [&](size_t i) {
        for (size_t l = 0; l < nprobe; l++) {
            keys[i * nprobe + l] = static_cast<int64_t>(l);
            coarse_dis[i * nprobe + l] = distance(d, x + i * d, means.data() + l * d);
        }
    });
    count_means(static_cast<size_t>(n) * nprobe);
}

/// Search of all lists of a quantizer that does not find them all.
void IndexIVFGMM::search_all_lists(
        int64_t n,
        const float* x,
        const ResultArrays& results,
        const SearchSettings& settings) const {
    const faiss::IndexIVF& index = ivf();
    constexpr int64_t at_once = 1024;
    std::vector<int64_t> keys;
    std::vector<float> coarse_dis;
    const IVFGMMSearchParameters resolved = settings.parameters_of_lists();
    for (int64_t first = 0; first < n; first += at_once) {
        const int64_t count = std::min(at_once, n - first);
        probe(count, x + first * index.d, settings, keys, coarse_dis);
        index.search_preassigned(
                count,
                x + first * index.d,
                results.k,
                keys.data(),
                coarse_dis.data(),
                results.distances + first * results.k,
                results.labels + first * results.k,
                results.meaning == Labels::list_and_offset,
                &resolved);
    }
}

void IndexIVFGMM::search_by_runs(
        int64_t n,
        const float* x,
        ResultArrays results,
        const faiss::SearchParameters* params) const {
    const faiss::IndexIVF& index = ivf();
    SearchSettings settings = resolve_settings(index, params, probe_expansion, k_factor);
    settings.visit_budget = visit_budget;
    settings.own_distances = stored_rows();
    if (settings.nprobe == index.nlist) {
        search_all_lists(n, x, results, settings);
        return;
    }
    results.keep_heap = keeps_heaps();
    budgeted_search(index, *run_lists(), settings, n, x, results);
}

void IndexIVFGMM::search_and_reconstruct_by_runs(
        int64_t n,
        const float* x,
        int64_t k,
        float* distances,
        int64_t* labels,
        float* reconstructed,
        const faiss::SearchParameters* params) const {
    const faiss::IndexIVF& index = ivf();
    search_by_runs(n, x, {k, distances, labels, Labels::list_and_offset}, params);
    for (int64_t i = 0; i < n * k; i++) {
        float* row = reconstructed + i * index.d;
        if (labels[i] < 0) {
            std::fill(row, row + index.d, NAN); // as stock
            continue;
        }
        const auto list = static_cast<int64_t>(faiss::lo_listno(labels[i]));
        const auto offset = static_cast<int64_t>(faiss::lo_offset(labels[i]));
        index.reconstruct_from_offset(list, offset, row);
        labels[i] = index.invlists->get_single_id(list, offset);
    }
}

void IndexIVFGMM::search_lists(
        const PreassignedQueries& queries,
        ResultArrays results,
        const faiss::IVFSearchParameters* params,
        faiss::IndexIVFStats* stats,
        const StockSearchPreassigned& stock) const {
    const faiss::IndexIVF& index = ivf();
    const RunInvertedLists* runs = run_lists();
    results.keep_heap = keeps_heaps();
    if (runs == nullptr) {
        check_given_lists(queries, params); // stock code would end the process
        with_guarded_selector(params, [&](const faiss::SearchParameters* guarded) {
            const auto* of_lists = dynamic_cast<const faiss::IVFSearchParameters*>(guarded);
            stock(results.k, results.distances, results.labels, of_lists, stats);
        });
        return;
    }
    const SearchSettings settings = resolve_settings(index, params, 0, 0);
    if (stores_copies()) {
        search_copies(queries, results, settings, stats);
    } else {
        search_given_lists(index, *runs, settings, queries, results, stats);
    }
}

void IndexIVFGMM::check_search_parameters(const faiss::SearchParameters* params) const {
    static_cast<void>(resolve_settings(ivf(), params, 0, 0));
}

void IndexIVFGMM::with_guarded_selector(
        const faiss::SearchParameters* params,
        const std::function<void(const faiss::SearchParameters*)>& stock) {
    const auto own = params != nullptr && params->sel != nullptr
                             ? compat::copied<IVFGMMSearchParameters>(*params)
                             : nullptr;
    if (!own) {
        stock(params);
        return;
    }
    GuardedSelector guarded(*params->sel);
    own->sel = &guarded;
    stock(own.get());
    guarded.rethrow();
}

void IndexIVFGMM::check_given_lists(
        const PreassignedQueries& queries, const faiss::IVFSearchParameters* params) const {
    const SearchSettings settings = resolve_settings(ivf(), params, 0, 0);
    if (queries.keys == nullptr) {
        return; // FastScan's own search has them found later
    }
    check_keys(
            "searching given lists",
            ivf().nlist,
            static_cast<size_t>(queries.n) * settings.nprobe,
            queries.keys);
}

/// Plain lists, scanned whole; of a vector's copies the first stays.
void IndexIVFGMM::search_copies(
        const PreassignedQueries& queries,
        const ResultArrays& results,
        const SearchSettings& settings,
        faiss::IndexIVFStats* stats) const {
    const faiss::IndexIVF& index = ivf();
    const RunInvertedLists* runs = run_lists();
    if (results.keep_heap) {
        refuse_with_copies("adding to the caller's heaps");
    }
    check_result_count(results.k);
    // A vector's copies lie in at most max_lists lists: that many times k hold k distinct ones.
    const auto wide = static_cast<int64_t>(results.k * runs->state().spill.max_lists);
    std::vector<float> wide_distances(queries.n * wide);
    std::vector<int64_t> wide_labels(queries.n * wide);
    search_given_lists(
            index,
            *runs,
            settings,
            queries,
            {wide, wide_distances.data(), wide_labels.data(), results.meaning},
            stats);
    const bool inner_product = index.metric_type == faiss::METRIC_INNER_PRODUCT;
    parallel_for(static_cast<size_t>(queries.n), [&](size_t i) {
        ResultHeap heap = results.heap_of(i, inner_product);
        heap.start();
        std::unordered_set<int64_t> seen;
        int64_t kept = 0;
        for (int64_t j = 0; j < wide && kept < results.k; j++) {
            const int64_t label = wide_labels[i * wide + j];
            if (label == -1) {
                continue;
            }
            const int64_t id =
                    results.meaning == Labels::list_and_offset
                            ? runs->get_single_id(faiss::lo_listno(label), faiss::lo_offset(label))
                            : label;
            if (seen.insert(id).second) {
                heap.push(wide_distances[i * wide + j], label);
                kept++;
            }
        }
        heap.finish();
    });
}

void IndexIVFGMM::range_search_lists(
        const PreassignedQueries& queries,
        float radius,
        faiss::RangeSearchResult* result,
        bool store_pairs,
        const faiss::IVFSearchParameters* params,
        faiss::IndexIVFStats* stats) const {
    const faiss::IndexIVF& index = ivf();
    const RunInvertedLists* runs = run_lists();
    range_search_given_lists(
            index,
            *runs,
            resolve_settings(index, params, 0, 0),
            queries,
            radius,
            result,
            store_pairs ? Labels::list_and_offset : Labels::ids,
            stores_copies(),
            stats);
}

void IndexIVFGMM::range_search_nprobe(
        int64_t n,
        const float* x,
        float radius,
        faiss::RangeSearchResult* result,
        const faiss::SearchParameters* params) const {
    const faiss::IndexIVF& index = ivf();
    const SearchSettings settings = resolve_settings(index, params, 0, 0);
    std::vector<int64_t> keys;
    std::vector<float> coarse_dis;
    probe(n, x, settings, keys, coarse_dis);
    const IVFGMMSearchParameters resolved = settings.parameters_of_lists();
    range_search_lists(
            {n, x, keys.data(), coarse_dis.data()}, radius, result, false, &resolved, nullptr);
}

} // namespace faiss_gmm
