// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// An index over lists that were written, read or copied: what it asks its lists to keep, and how it takes over
// the parts of a stock index over such lists.
#include <typeinfo>

#include <fmt/format.h>

#include <faiss/IndexFlat.h>
#include <faiss/impl/io.h>

#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/runs/detail/policy_io.h"
#include "faiss_gmm/runs/detail/section_io.h"

namespace faiss_gmm {
namespace {

/// What the lists keep for their index. Of training what says which model is learnt; what says where
/// (engine, device, gpu_*), the callbacks and means_init are a process's own.
struct Memo {
    bool own_quantizer = false; ///< a GMMQuantizer, which FAISS writes as an IndexFlat
    TrainingParameters training;
    SpillPolicy spill;
    SketchParameters sketch;
    float probe_expansion = 0, k_factor = 0;
    VisitBudget visit_budget = VisitBudget::by_difficulty;
};

/// Writes and reads in one order. The version is that of the lists' section.
template <class Section, class AMemo> void transfer(Section& section, AMemo& memo) {
    section.flag(memo.own_quantizer, "own quantizer");
    auto& training = memo.training;
    section.choice(training.covariance, Covariance::full, "covariance");
    section.choice(training.mixing, Mixing::balanced, "mixing");
    section.number(training.max_iter, "max_iter");
    section.number(training.tol, "tol");
    section.number(training.n_init, "n_init");
    section.number(training.seed, "seed");
    section.choice(training.estep, EStep::nearest_cells, "estep");
    section.number(training.reg_covar, "reg_covar");
    section.number(training.min_points_per_component, "min_points_per_component");
    section.number(training.max_points_per_component, "max_points_per_component");
    section.number(training.warm_start_iterations, "warm_start_iterations");
    transfer_policy(section, memo.spill);
    section.choice(memo.sketch.mode, SketchParameters::Mode::fixed, "sketch");
    section.number(memo.sketch.codes, "codes a sketch");
    section.number(memo.probe_expansion, "probe_expansion");
    section.number(memo.k_factor, "k_factor");
    section.choice(memo.visit_budget, VisitBudget::even, "budget");
}

bool is_stock_flat(const faiss::Index& index) {
    const std::type_info& type = typeid(index);
    return type == typeid(faiss::IndexFlat) || type == typeid(faiss::IndexFlatL2) ||
           type == typeid(faiss::IndexFlatIP);
}

} // namespace

std::string IndexIVFGMM::memo() const {
    const Memo memo{
            dynamic_cast<const GMMQuantizer*>(ivf().quantizer) != nullptr,
            training,
            spill,
            sketch,
            probe_expansion,
            k_factor,
            visit_budget};
    faiss::VectorIOWriter writer;
    SectionWriter section(writer);
    transfer(section, memo);
    return std::string(writer.data.begin(), writer.data.end());
}

/// Takes the fields; returns whether the quantizer was a GMMQuantizer.
bool IndexIVFGMM::take_memo(const std::string& text) {
    if (text.empty()) { // lists that no index was over
        return false;
    }
    faiss::VectorIOReader reader;
    reader.name = "what an index's lists keep for it";
    reader.data.assign(text.begin(), text.end());
    SectionReader section(reader);
    Memo memo;
    transfer(section, memo);
    section.require(
            reader.rp == text.size(), "bytes behind the parameters", "the parameters alone");
    training = memo.training;
    spill = memo.spill;
    sketch = memo.sketch;
    probe_expansion = memo.probe_expansion;
    k_factor = memo.k_factor;
    visit_budget = memo.visit_budget;
    return memo.own_quantizer;
}

std::unique_ptr<GMMQuantizer> IndexIVFGMM::own_quantizer_like(const faiss::Index& flat) const {
    auto quantizer = std::make_unique<GMMQuantizer>(ivf().d, ivf().metric_type);
    if (flat.ntotal > 0) {
        std::vector<float> means(flat.ntotal * flat.d);
        flat.reconstruct_n(0, flat.ntotal, means.data());
        quantizer->add(flat.ntotal, means.data());
    }
    return quantizer;
}

void IndexIVFGMM::begin_around(faiss::IndexIVF& stock) {
    faiss::IndexIVF& index = ivf();
    std::swap(index.own_invlists, stock.own_invlists);
    if (is_stock_flat(*stock.quantizer)) {
        index.quantizer = own_quantizer_like(*stock.quantizer).release();
        index.own_fields = true; // the stock one goes with its index
    } else {
        std::swap(index.own_fields, stock.own_fields);
    }
}

void IndexIVFGMM::adopt(faiss::IndexIVF& stock) {
    faiss::IndexIVF& index = ivf();
    const MixtureLists* lists = kept();
    const auto refuse = [](const std::string& given, const char* allowed) {
        throw Error(
                {"making an IVFGMM index of a stock one",
                 given,
                 allowed,
                 "read an undamaged copy of the file, or build the index again"});
    };
    if (lists == nullptr || index.quantizer == nullptr) {
        refuse("an index over other lists", "one over lists of this library, and a quantizer");
    }
    const CoarseState& state = lists->state();
    const bool inner_product = index.metric_type == faiss::METRIC_INNER_PRODUCT;
    if (!inner_product && index.metric_type != faiss::METRIC_L2) {
        refuse(fmt::format("metric {}", static_cast<int>(index.metric_type)),
               "METRIC_L2 and METRIC_INNER_PRODUCT");
    }
    if (index.ntotal < 0) {
        refuse(fmt::format("ntotal = {}", index.ntotal), "a number of vectors from 0");
    }
    if (index.invlists->nlist != index.nlist || index.quantizer->d != index.d) {
        refuse(fmt::format(
                       "{} lists, a quantizer of {} dimensions",
                       index.invlists->nlist,
                       index.quantizer->d),
               "as many as the index has");
    }
    if (state.mixture.K > 0 && (state.mixture.d != static_cast<size_t>(index.d) ||
                                state.codec.inner_product != inner_product)) {
        refuse(fmt::format(
                       "a mixture of {} dimensions for {}",
                       state.mixture.d,
                       state.codec.inner_product ? "inner products" : "distances"),
               "the dimensions and the metric of the index");
    }
    spill = state.spill;
    const bool own_quantizer = take_memo(lists->kept_for_index());
    check_around_lists(); // parameters are checked by train(), which alone reads them

    std::unique_ptr<GMMQuantizer> quantizer;
    if (own_quantizer && is_stock_flat(*index.quantizer)) {
        quantizer = own_quantizer_like(*index.quantizer);
        quantizer->set_state(lists->shared_state());
    }
    keep_memo();
    // Nothing fails from here on.
    if (quantizer) {
        index.quantizer = quantizer.release();
        index.own_fields = true; // the stock one goes with its index
    } else {
        index.own_fields = stock.own_fields;
        stock.own_fields = false;
    }
    index.own_invlists = stock.own_invlists;
    stock.own_invlists = false;
}

/// From here on the lists ask this index for its memo, while it lives.
void IndexIVFGMM::keep_memo() {
    memo_ = std::make_shared<const MixtureLists::IndexMemo>([this] { return memo(); });
    kept()->ask_index(memo_);
}

void IndexIVFGMM::require_room_for_lists(const char* what) const {
    const faiss::IndexIVF& index = ivf();
    const RunInvertedLists* lists = run_lists();
    const auto require = [&](bool holds, const std::string& given, const char* allowed) {
        if (!holds) {
            throw_faiss(
                    {what,
                     given,
                     allowed,
                     "train an index, or read one that was written before any vector was added"});
        }
    };
    require(lists != nullptr,
            "an index whose codes stand in blocks or in lists of another class",
            "a codec with a code a vector, over its own lists");
    require(index.is_trained, "an index that is not trained", "a trained index");
    require(index.ntotal == 0 && lists->compute_ntotal() == 0,
            fmt::format("an index that holds {} vectors", index.ntotal),
            "an empty index");
    require(index.direct_map.no(), "an index with a direct map", "an index without one");
}

void IndexIVFGMM::replace_lists(std::unique_ptr<faiss::InvertedLists> filled, int64_t vectors) {
    constexpr const char* doing = "putting filled lists into an IVFGMM index";
    require_room_for_lists(doing);
    faiss::IndexIVF& index = ivf();
    if (filled == nullptr || filled->nlist != index.nlist || filled->code_size != index.code_size) {
        throw_faiss(
                {doing,
                 filled == nullptr
                         ? "no lists"
                         : fmt::format(
                                   "{} lists of {} bytes a code", filled->nlist, filled->code_size),
                 fmt::format("{} lists of {}", index.nlist, index.code_size),
                 "fill lists by the codec of this index, as many as it has"});
    }
    auto runs = std::make_unique<RunInvertedLists>(std::move(filled));
    runs->set_state(run_lists()->shared_state());
    index.replace_invlists(runs.release(), true);
    index.ntotal = vectors;
    keep_memo();
    at_faiss_seam([&] { organise(); });
}

std::unique_ptr<faiss::InvertedLists> IndexIVFGMM::copy_of_lists() const {
    const MixtureLists* lists = kept();
    if (lists == nullptr) {
        throw Error(
                {"copying an IVFGMM index",
                 "other lists in place of its own",
                 "the lists that it was made with",
                 "use faiss::clone_index for stock lists"});
    }
    return lists->copy();
}

void IndexIVFGMM::copy_fields_to(IndexIVFGMM& copy) const {
    copy.training = training;
    copy.spill = spill;
    copy.sketch = sketch;
    copy.probe_expansion = probe_expansion;
    copy.k_factor = k_factor;
    copy.visit_budget = visit_budget;
    copy.history_ = history_;
    copy.times_ = times_;
}

} // namespace faiss_gmm
