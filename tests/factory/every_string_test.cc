// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The contract, string by string: what each index does, or who refuses it and with which words. A further
// thing to be asked of every index is a field of Row and an entry of columns(). What was seen is recorded as
// properties of the test, which contrib/support_table.py makes a table of.
#include <functional>
#include <set>

#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/VectorTransform.h>
#include <faiss/index_factory.h>
#include <gtest/gtest.h>

#include "faiss_gmm/compat/codecs.h"
#include "faiss_gmm/compat/wrappers.h"
#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/wrappers.h"
#include "faiss_gmm/io/clone.h"
#include "faiss_gmm/io/export_faiss.h"
#include "faiss_gmm/runs/mixture_lists.h"
#include "tests/index/index_fixture.h"
#include "tests/index/stock_twin.h"
#include "tests/index/support_record.h"
#include "tests/io/io_fixture.h"

namespace faiss_gmm {
namespace {

constexpr size_t rows = 1000, queries = 30, d = 32, nlist = 8, k = 10;
constexpr auto l2 = faiss::METRIC_L2, ip = faiss::METRIC_INNER_PRODUCT;

/// What becomes of a request: it works, or the message holds these words.
struct Cell {
    enum class By { nobody, faiss, us, faiss_errs, every_faiss_errs };
    By refused_by = By::nobody;
    const char* words = "";
};
constexpr Cell works{};
/// FAISS 1.7 refuses; a later one may not.
constexpr Cell faiss_refuses(const char* words) {
    return {Cell::By::faiss, words};
}
/// FAISS 1.7 answers, and wrongly, whatever the index below: not asked.
constexpr Cell faiss_errs(const char* how) {
    return {Cell::By::faiss_errs, how};
}
/// The same for every version that has the codec.
constexpr Cell every_faiss_errs(const char* how) {
    return {Cell::By::every_faiss_errs, how};
}
constexpr Cell we_refuse(const char* words) {
    return {Cell::By::us, words};
}

struct Row {
    std::string text;       ///< with IVFGMM8; stock's is the same with IVF8
    Cell search_parameters; ///< nprobe and a selector, for one search
    Cell range_search, remove_ids, reconstruct;
    std::vector<faiss::MetricType> metrics = {l2, ip};
    Cell written{}, cloned{}, exported{}; ///< all work
};

void PrintTo(const Row& row, std::ostream* out) {
    *out << row.text;
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
    for (size_t at = text.find(from); at != std::string::npos;
         at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
    }
}
std::string stock_string(std::string text) {
    const size_t options = text.find("(", text.find("IVFGMM"));
    const size_t comma = text.find(",", text.find("IVFGMM"));
    if (options < comma) {
        text.erase(options, text.find("),") + 1 - options);
    }
    replace_all(text, "IVFGMM", "IVF");
    return text;
}

/// Rounds of training that a test can wait for.
void hurry(faiss::Index* index) {
    faiss::Index* outermost = index;
    hurry_codec(dynamic_cast<faiss::IndexIVF&>(**innermost_slot(&outermost)));
    if (auto* chain = dynamic_cast<faiss::IndexPreTransform*>(index)) {
        for (faiss::VectorTransform* transform : chain->chain) {
            if (auto* opq = dynamic_cast<faiss::OPQMatrix*>(transform)) {
                opq->niter = 2;
                opq->niter_pq_0 = opq->niter_pq = 2;
            }
        }
    }
}

/// A cell of the table: what was said, and by whom; nothing was said where it works.
std::string in_words(const std::string& message, const Cell& cell) {
    if (message.empty()) {
        return "works";
    }
    return cell.refused_by == Cell::By::us ? "we refuse: " + reason_of(message)
                                           : std::string("FAISS refuses: ") + cell.words;
}

class EveryString : public testing::TestWithParam<std::tuple<Row, faiss::MetricType>> {
protected:
    const Row& row() const {
        return std::get<0>(GetParam());
    }
    static faiss::MetricType metric() {
        return std::get<1>(GetParam());
    }
    bool has_ids() const {
        return row().text.rfind("IDMap", 0) == 0;
    }
    /// The id of the i-th vector.
    int64_t id_of(size_t i) const {
        return static_cast<int64_t>(has_ids() ? 3 * i + 7 : i);
    }

    void fill(faiss::Index& index) const {
        hurry(&index);
        index.train(rows, base_.data());
        if (!has_ids()) {
            index.add(rows, base_.data());
            return;
        }
        std::vector<int64_t> ids(rows);
        for (size_t i = 0; i < rows; i++) {
            ids[i] = id_of(i);
        }
        index.add_with_ids(rows, base_.data(), ids.data());
    }
    void SetUp() override {
        fill(*index_);
        if (has_ids()) {
            for (size_t i = 0; i < rows; i++) {
                const int64_t id = id_of(i);
                oracle_.add(1, base_.data() + i * d, &id);
            }
        } else {
            oracle_.add(rows, base_.data());
        }
        outermost_ = index_.get();
        slot_ = innermost_slot(&outermost_);
        ivf_ = dynamic_cast<faiss::IndexIVF*>(*slot_);
        ours_ = dynamic_cast<IndexIVFGMM*>(ivf_);
        ASSERT_NE(ours_, nullptr);
    }

    /// Searches with the stock class in our place, over the same lists, codes and wrappers.
    Results search_twin(
            size_t nprobe, size_t results = k, const faiss::SearchParameters* params = nullptr) {
        const auto twin = stock_twin(*ivf_);
        twin->nprobe = nprobe;
        *slot_ = twin.get();
        Results found = search(*outermost_, queries_, results, params);
        *slot_ = ivf_;
        return found;
    }
    /// The same entries by the same distances, but for what drops_by_bounds() left out of either.
    static void expect_nearly_all(const Results& got, const Results& wanted) {
        size_t found = 0;
        for (size_t i = 0; i < queries; i++) {
            std::map<int64_t, float> distances;
            for (size_t j = 0; j < got.k; j++) {
                distances[wanted.labels[i * got.k + j]] = wanted.distances[i * got.k + j];
            }
            for (size_t j = 0; j < got.k; j++) {
                const auto same = distances.find(got.labels[i * got.k + j]);
                if (same != distances.end()) {
                    const float distance = got.distances[i * got.k + j];
                    EXPECT_NEAR(distance, same->second, 1e-4 * (1 + std::abs(distance)));
                    found++;
                }
            }
        }
        EXPECT_GE(found, .95 * static_cast<double>(got.labels.size()));
    }
    /// Of another index that should be this one.
    void expect_the_same(faiss::Index& other) {
        EXPECT_EQ(other.ntotal, index_->ntotal);
        faiss::Index* outermost = &other;
        auto* theirs = dynamic_cast<faiss::IndexIVF*>(*innermost_slot(&outermost));
        ASSERT_EQ(typeid(*theirs), typeid(*ivf_));
        const auto& ours = dynamic_cast<IndexIVFGMM&>(*theirs);
        EXPECT_EQ(ours.mixture().means, ours_->mixture().means);
        EXPECT_EQ(ours.stores_copies(), ours_->stores_copies());
        ours.check();
        for (const size_t nprobe : {size_t{2}, nlist}) {
            ivf_->nprobe = theirs->nprobe = nprobe;
            const Results a = search(*index_, queries_, k), b = search(other, queries_, k);
            EXPECT_EQ(a.labels, b.labels) << "nprobe " << nprobe;
            EXPECT_EQ(a.distances, b.distances) << "nprobe " << nprobe;
        }
        EXPECT_EQ(stock_bytes(*index_), stock_bytes(other));
    }
    void expect_sound_ids(const Results& got) const {
        for (size_t i = 0; i < got.n; i++) {
            std::set<int64_t> seen;
            for (size_t j = 0; j < got.k; j++) {
                const int64_t id = got.labels[i * got.k + j];
                EXPECT_EQ(oracle_.rows.count(id), 1u) << "query " << i << ": id " << id;
                EXPECT_TRUE(seen.insert(id).second) << "query " << i << ": id " << id << " twice";
            }
        }
    }
    bool is_in_blocks() const {
        return has_code_blocks(*ivf_);
    }
    /// RaBitQ of several bits looks at them only where the signs' bound, which holds with some probability, passes
    /// the results so far: what it leaves out depends on the order of entries.
    bool drops_by_bounds() const {
        const std::string& text = row().text;
        const size_t at = text.find("RaBitQ");
        if (at == std::string::npos) {
            return false;
        }
        const size_t bits = at + (text.compare(at, 8, "RaBitQfs") == 0 ? 8 : 6);
        return bits < text.size() && std::isdigit(static_cast<unsigned char>(text[bits])) != 0;
    }
    bool is_graph() const {
        return row().text.find("_HNSW") != std::string::npos;
    }

    const uint64_t seed_ = test_seed();
    std::vector<float> base_ = float_rows(rows, d, seed_);
    std::vector<float> queries_ = float_rows(queries, d, seed_ + 1);
    Oracle oracle_{d, metric()};
    std::unique_ptr<faiss::Index> index_{faiss_gmm::index_factory(d, row().text.c_str(), metric())};
    faiss::Index* outermost_ = nullptr;
    faiss::Index** slot_ = nullptr;
    faiss::IndexIVF* ivf_ = nullptr;
    IndexIVFGMM* ours_ = nullptr;

public:
    void search_as_stock();
    void write_and_read();
    void clone();
    void export_to_stock();
    void search_with_parameters();
    void search_a_range();
    void remove_some();
    void reconstruct_some();
};

/// What is asked of every index beside training, adding and searching.
struct Column {
    const char* name;
    Cell Row::*expected;
    void (EveryString::*ask)();
};
const std::vector<Column>& columns() {
    static const std::vector<Column> all = {
            {"written_and_read", &Row::written, &EveryString::write_and_read},
            {"cloned", &Row::cloned, &EveryString::clone},
            {"exported", &Row::exported, &EveryString::export_to_stock},
            {"search_parameters", &Row::search_parameters, &EveryString::search_with_parameters},
            {"range_search", &Row::range_search, &EveryString::search_a_range},
            {"reconstruct", &Row::reconstruct, &EveryString::reconstruct_some},
            {"remove_ids",
             &Row::remove_ids,
             &EveryString::remove_some}, // last: it changes the index
    };
    return all;
}

void EveryString::write_and_read() {
    const Folder folder;
    write_index(*index_, folder.file("index"));
    const std::unique_ptr<faiss::Index> read(read_index(folder.file("index")));
    expect_the_same(*read);
    const auto through_stock_code = promoted(from_stock_bytes(stock_bytes(*index_)));
    expect_the_same(*through_stock_code);
}

void EveryString::clone() {
    std::unique_ptr<faiss::Index> first(clone_index(*index_));
    const std::unique_ptr<faiss::Index> second(clone_index(*first));
    first.reset(); // nothing of it is the other's
    expect_the_same(*second);
}

void EveryString::export_to_stock() {
    const std::unique_ptr<faiss::Index> exported(export_faiss(*index_));
    const std::unique_ptr<faiss::Index> read = from_stock_bytes(stock_bytes(*exported));
    faiss::Index* outermost = read.get();
    auto* stock = dynamic_cast<faiss::IndexIVF*>(*innermost_slot(&outermost));
    EXPECT_EQ(dynamic_cast<IndexIVFGMM*>(stock), nullptr);
    // By what is read, not by a key among the bytes: FAISS writes the padding of blocks as memory left it.
    EXPECT_EQ(dynamic_cast<MixtureLists*>(stock->invlists), nullptr);
    for (faiss::Index* refined : {outermost_, outermost}) { // what ties leave out is found too
        if (auto* refine = dynamic_cast<faiss::IndexRefine*>(refined)) {
            refine->k_factor = static_cast<float>(rows) / k;
        }
    }
    for (const size_t nprobe : {size_t{2}, nlist}) {
        stock->nprobe = nprobe;
        const Results got = search(*read, queries_, k), wanted = search_twin(nprobe);
        if (is_in_blocks()) { // entries stand in the same order
            EXPECT_EQ(got.labels, wanted.labels);
        }
        if (drops_by_bounds()) {
            expect_nearly_all(got, wanted);
        } else {
            EXPECT_EQ(got.distances, wanted.distances) << "nprobe " << nprobe;
        }
    }
}

void EveryString::search_with_parameters() {
    std::vector<int64_t> third;
    for (size_t i = 0; i < rows; i += 3) {
        third.push_back(id_of(i));
    }
    faiss::IDSelectorBatch selector(third.size(), third.data());
    faiss::SearchParametersIVF params;
    params.nprobe = nlist;
    params.sel = &selector;
    const Results got = search(*index_, queries_, k, &params);
    expect_sound_ids(got);
    for (const int64_t id : got.labels) {
        EXPECT_TRUE(selector.is_member(id)) << id;
    }
    if (!ours_->stores_copies()) { // where the twin finds vectors twice
        if (drops_by_bounds()) {
            expect_nearly_all(got, search_twin(nlist, k, &params));
            return;
        }
        const Results wanted = selected(search_twin(nlist, rows), selector, k);
        for (size_t i = 0; i < got.distances.size(); i++) {
            EXPECT_NEAR(
                    got.distances[i], wanted.distances[i], 1e-4 * (1 + std::abs(got.distances[i])));
        }
    }
}

void EveryString::search_a_range() {
    ivf_->nprobe = nlist;
    const Results nearest = search(*index_, queries_, k);
    const float radius = nearest.distances[k - 1];
    faiss::RangeSearchResult hits(1);
    index_->range_search(1, queries_.data(), radius, &hits);
    const std::set<int64_t> found(hits.labels, hits.labels + hits.lims[1]);
    EXPECT_EQ(found.size(), hits.lims[1]);
    // Blocks round distances before a range is cut by them, and what refines cuts it by those of the codes.
    if (is_in_blocks() || dynamic_cast<faiss::IndexRefine*>(outermost_) != nullptr) {
        const auto twin = stock_twin(*ivf_);
        twin->nprobe = nlist;
        faiss::RangeSearchResult wanted(1);
        *slot_ = twin.get();
        outermost_->range_search(1, queries_.data(), radius, &wanted);
        *slot_ = ivf_;
        EXPECT_EQ(found, std::set<int64_t>(wanted.labels, wanted.labels + wanted.lims[1]));
        return;
    }
    for (size_t j = 0; j < k; j++) {
        if (metric() == l2 ? nearest.distances[j] < radius : nearest.distances[j] > radius) {
            EXPECT_EQ(found.count(nearest.labels[j]), 1u) << nearest.labels[j];
        }
    }
}

void EveryString::remove_some() {
    std::vector<int64_t> gone;
    for (size_t i = 0; i < rows / 2; i++) {
        gone.push_back(id_of(2 * i));
    }
    const faiss::IDSelectorBatch selector(gone.size(), gone.data());
    EXPECT_EQ(index_->remove_ids(selector), gone.size());
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows - gone.size()));
    ours_->check();
    ivf_->nprobe = nlist;
    const Results got = search(*index_, queries_, k);
    expect_sound_ids(got);
    for (const int64_t id : got.labels) {
        EXPECT_FALSE(selector.is_member(id)) << id;
    }
}

void EveryString::reconstruct_some() {
    ivf_->make_direct_map();
    struct Unmapped { // nothing is removed through a map
        faiss::IndexIVF* index;
        ~Unmapped() {
            index->set_direct_map_type(faiss::DirectMap::NoMap);
        }
    } const unmapped{ivf_};
    std::vector<float> x(d);
    double left = 0, length = 0;
    for (size_t i = 0; i < rows; i += 50) {
        index_->reconstruct(id_of(i), x.data());
        for (size_t t = 0; t < d; t++) {
            left += std::pow(x[t] - base_[i * d + t], 2);
            length += std::pow(base_[i * d + t], 2);
        }
    }
    if (ivf_->code_size == 0) { // of each the mean of its list, which may have length 1
        std::vector<int64_t> list(1);
        std::vector<float> mean(d);
        ivf_->quantizer->assign(1, base_.data(), list.data());
        ivf_->quantizer->reconstruct(list[0], mean.data());
        index_->reconstruct(id_of(0), x.data());
        EXPECT_EQ(x, mean);
    } else if (row().text.find("L2norm") == std::string::npos) { // lengths are lost there
        EXPECT_LT(left, 0.7 * length);
    }
}

void EveryString::search_as_stock() {
    EXPECT_EQ(index_->ntotal, static_cast<int64_t>(rows));
    ours_->check();
    EXPECT_EQ(ours_->mixture().K, nlist);
    ivf_->nprobe = nlist;
    const Results got = search(*index_, queries_, k);
    expect_sound_ids(got);
    if (!ours_->stores_copies()) {
        const Results same_lists = search_twin(nlist);
        if (!is_graph()) {
            expect_equal_up_to_ties(got, same_lists);
        }
        for (size_t i = 0; i < got.distances.size();
             i++) { // a graph's coarse distances are rounded
            EXPECT_NEAR(
                    got.distances[i],
                    same_lists.distances[i],
                    1e-4 * (1 + std::abs(got.distances[i])));
        }
    }
    std::unique_ptr<faiss::Index> stock(
            faiss::index_factory(d, stock_string(row().text).c_str(), metric()));
    faiss::Index* outermost = stock.get();
    auto* stock_ivf = dynamic_cast<faiss::IndexIVF*>(*innermost_slot(&outermost));
    if (const bool* by_residual = by_residual_of(*ivf_)) {
        *by_residual_of(*stock_ivf) = *by_residual;
    }
    fill(*stock);
    for (const size_t nprobe : {nlist, size_t{2}}) {
        ivf_->nprobe = stock_ivf->nprobe = nprobe;
        const double theirs = recall(oracle_, queries_, search(*stock, queries_, k));
        const Results few = search(*index_, queries_, k);
        expect_sound_ids(few);
        EXPECT_GT(recall(oracle_, queries_, few), 0.8 * theirs - 0.05) << "nprobe " << nprobe;
    }
}

TEST_P(EveryString, DoesOrSaysWhoDoesNot) {
    RecordProperty("string", row().text);
    RecordProperty("metric", metric() == l2 ? "L2" : "IP");
    RecordProperty("lists", kind_of_lists(*ours_));
    search_as_stock();
    for (const Column& column : columns()) {
        SCOPED_TRACE(column.name);
        const Cell& expected = row().*column.expected;
        if (expected.refused_by == Cell::By::faiss_errs ||
            expected.refused_by == Cell::By::every_faiss_errs) {
            const bool of_the_oldest = expected.refused_by == Cell::By::faiss_errs &&
                                       compat::may_do_more_than_the_oldest;
            const std::string who =
                    of_the_oldest ? "not asked; FAISS 1.7.3 errs: " : "FAISS errs: ";
            RecordProperty(column.name, who + expected.words);
            continue;
        }
        const std::string message = refusal([&] { (this->*column.ask)(); });
        RecordProperty(column.name, in_words(message, expected));
        const bool may_work =
                expected.refused_by == Cell::By::nobody ||
                (expected.refused_by == Cell::By::faiss && compat::may_do_more_than_the_oldest);
        if (message.empty()) {
            EXPECT_TRUE(may_work) << "should be refused with: " << expected.words;
            continue;
        }
        EXPECT_NE(expected.refused_by, Cell::By::nobody) << message;
        EXPECT_NE(message.find(expected.words), std::string::npos) << message;
        if (expected.refused_by == Cell::By::us) {
            expect_four_parts(message, "");
        }
    }
}

/// Strings of codecs that not every FAISS has.
struct LaterString {
    std::string text;
    bool there;
};
std::vector<LaterString> later_strings() {
    return {
            {"IVFGMM8,SQbf16", compat::has_bf16},
            {"IVFGMM8,SQ0", compat::has_turbo_quant},
            {"IVFGMM8,SQtqmse1", compat::has_turbo_quant},
            {"IVFGMM8,SQtqmse2", compat::has_turbo_quant},
            {"IVFGMM8,SQtqmse3", compat::has_turbo_quant},
            {"IVFGMM8,SQtqmse4", compat::has_turbo_quant},
            {"IVFGMM8,SQtqmse8", compat::has_turbo_quant},
            {"IVFGMM8,SQtq2", compat::has_turbo_quant},
            {"IVFGMM8,SQtq3", compat::has_turbo_quant},
            {"IVFGMM8,SQtq4", compat::has_turbo_quant},
            {"IVFGMM8,SQtq5", compat::has_turbo_quant},
            {"IVFGMM8,RaBitQ", compat::has_rabitq},
            {"IVFGMM8,RaBitQ4", compat::has_rabitq_bits},
            {"IVFGMM8,RaBitQ9", compat::has_rabitq_bits},
            {"RR32,IVFGMM8,RaBitQ", compat::has_rabitq},
            {"IVFGMM8_HNSW8,RaBitQ4", compat::has_rabitq_bits},
            {"IVFGMM8,RaBitQfs", compat::holds_rabitq_blocks},
            {"IVFGMM8,RaBitQfs4_64", compat::holds_rabitq_blocks},
            {"IVFGMM8,EDEN", compat::has_eden},
            {"IVFGMM8,EDEN4", compat::has_eden},
            {"IVFGMM8,EDEN8BIASED", compat::has_eden},
            {"RR32,IVFGMM8(spill=always),EDEN2", compat::has_eden},
    };
}

std::vector<Row> all_rows() {
    const Cell no_parameters = faiss_refuses("search params not supported for this index");
    const Cell not_its_own = compat::wrappers_take_parameters
                                     ? faiss_refuses("params have incorrect type")
                                     : no_parameters;
    const Cell no_range = faiss_refuses("not implemented");
    const Cell no_removal = faiss_refuses("remove_ids not implemented for this type of index");
    const Cell no_decoding = faiss_refuses("reconstruct_from_offset not implemented");
    const Cell no_way_back = faiss_refuses("reverse transform not implemented");
    const Cell no_reconstruction = faiss_refuses("reconstruct not implemented");
    const Cell renumbered = faiss_errs("IndexIDMap takes it that removing renumbers what is left");
    const Cell misread = faiss_errs("only blocks of 32 are decoded as they were written");
    const Cell misread_factors =
            every_faiss_errs("blocks are decoded as if they held no factors behind their codes");
    const Cell blocks = compat::removes_from_blocks ? works : we_refuse("FastScan");
    const Cell renumbered_blocks = compat::removes_from_blocks ? renumbered : blocks;
    const auto in_runs = [](const std::string& text) {
        return Row{text, works, works, works, works};
    };
    const auto in_blocks = [&](const std::string& text,
                               const std::vector<faiss::MetricType>& metrics = {l2, ip}) {
        return Row{text, no_parameters, no_range, blocks, works, metrics};
    };
    const auto refined = [&](const std::string& text) {
        return Row{text, not_its_own, no_range, no_removal, works};
    };
    std::vector<Row> all = {
            in_runs("IVFGMM8,Flat"),
            in_runs("IVFGMM8,SQ8"),
            in_runs("IVFGMM8,SQ6"),
            in_runs("IVFGMM8,SQ4"),
            in_runs("IVFGMM8,SQfp16"),
            in_runs("IVFGMM8,PQ4x4"), // with polysemous training
            in_runs("IVFGMM8,PQ16np"),
            in_runs("IVFGMM8,PQ16x4np"),
            in_runs("IVFGMM8,RQ4x4"),
            in_runs("IVFGMM8,RQ2x4_2x3"),
            in_runs("IVFGMM8,RQ3x4_Nfloat"),
            in_runs("IVFGMM8,RQ3x4_Nqint8"),
            in_runs("IVFGMM8,RQ3x6_Ncqint8"),
            in_runs("IVFGMM8,LSQ3x4_Ncqint4"),
            in_runs("IVFGMM8,PRQ2x2x4"),
            in_runs("IVFGMM8,PRQ2x2x4_Nqint4"),
            in_runs("IVFGMM8,PLSQ2x2x4_Nfloat"),
            // FAISS's blocks of additive codes take one form for L2 and another for inner products.
            in_blocks("IVFGMM8,PQ16x4fs"),
            in_blocks("IVFGMM8,PQ16x4fsr"),
            {"IVFGMM8,PQ16x4fsr_64", no_parameters, no_range, blocks, misread},
            {"IVFGMM8,PQ16x4fs_160", no_parameters, no_range, blocks, misread},
            in_blocks("IVFGMM8,RQ8x4fs_Nlsq2x4", {l2}),
            in_blocks("IVFGMM8,RQ8x4fsr_32_Nrq2x4", {l2}),
            in_blocks("IVFGMM8,RQ8x4fsr", {ip}),
            in_blocks("IVFGMM8,LSQ4x4fs_Nlsq2x4", {l2}),
            in_blocks("IVFGMM8,LSQ4x4fs", {ip}),
            in_blocks("IVFGMM8,PRQ2x4x4fs_Nrq2x4", {l2}),
            in_blocks("IVFGMM8,PRQ2x4x4fs", {ip}),
            in_blocks("IVFGMM8,PLSQ2x2x4fsr_Nlsq2x4", {l2}),
            in_blocks("IVFGMM8,PLSQ2x2x4fs", {ip}),
            {"IVFGMM8,ITQ32,SH", works, works, works, no_decoding, {l2}},
            {"IVFGMM8,PCAR16,SH2g", works, works, works, no_decoding, {l2}},
            // Options of ours.
            in_runs("IVFGMM8(sketch=8),PQ16x4np"),
            in_runs("IVFGMM8(by_residual=false),PQ8x4np"),
            in_runs("IVFGMM8(by_residual=false,spill=always),RQ4x4"),
            in_runs("IVFGMM8(storage=copies,spill=always),PQ16x4np"),
            in_runs("IVFGMM8(covariance=diagonal,mixing=free),PQ16x4np"),
            in_runs("IVFGMM8_HNSW8,PQ16x4np"),
            in_runs("IVFGMM8_HNSW8,RQ4x4_Nfloat"),
            in_blocks("IVFGMM8_HNSW8,PQ16x4fs"),
            // Transformations before it.
            in_runs("OPQ8,IVFGMM8,PQ8x4np"),
            in_runs("OPQ8_16,IVFGMM8,PQ8x4np"),
            in_runs("PCA16,IVFGMM8,Flat"),
            in_runs("PCAR16,IVFGMM8,SQ8"),
            in_runs("RR32,IVFGMM8,RQ4x4"),
            in_runs("Pad40,IVFGMM8,PQ8x4np"),
            in_runs("L2norm,IVFGMM8,SQ8"),
            in_runs("L2norm,PCAR16,IVFGMM8,PQ8x4np"),
            in_blocks("PCA16,IVFGMM8,PQ8x4fs"),
            {"PCAW16,IVFGMM8,SQfp16", works, works, works, no_way_back},
            {"ITQ32,IVFGMM8,SQ8", works, works, works, no_way_back},
            // Wrappers around it.
            {"IDMap,IVFGMM8,PQ8x4np", no_parameters, works, renumbered, no_reconstruction},
            {"IDMap2,IVFGMM8,SQ8", no_parameters, works, renumbered, works},
            {"IDMap2,IVFGMM8,PQ16x4fs", no_parameters, no_range, renumbered_blocks, works},
            refined("IVFGMM8,PQ8x4np,RFlat"),
            refined("IVFGMM8,PQ16x4fs,RFlat"),
            refined("IVFGMM8,PQ8x4np,Refine(SQ8)"),
            refined("PCAR16,IVFGMM8,PQ8x4np,Refine(PQ16x4np)"),
    };
    for (const LaterString& later : later_strings()) {
        if (later.there) {
            const bool blocks_of_codes = later.text.find("fs") != std::string::npos;
            if (blocks_of_codes) {
                all.push_back({later.text, no_parameters, no_range, blocks, misread_factors});
            } else {
                all.push_back(in_runs(later.text));
            }
        }
    }
    return all;
}

std::vector<std::tuple<Row, faiss::MetricType>> all_cells() {
    std::vector<std::tuple<Row, faiss::MetricType>> all;
    for (const Row& row : all_rows()) {
        for (const auto metric : row.metrics) {
            all.emplace_back(row, metric);
        }
    }
    return all;
}

std::string name_of(const testing::TestParamInfo<std::tuple<Row, faiss::MetricType>>& info) {
    const auto& [row, metric] = info.param;
    std::string name = row.text + (metric == l2 ? "" : "_ip");
    for (char& c : name) {
        c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
    }
    return name;
}

INSTANTIATE_TEST_SUITE_P(All, EveryString, testing::ValuesIn(all_cells()), name_of);

/// Strings that no index is made of.
struct Refused {
    std::string text;
    faiss::MetricType metric;
    Cell by;
};
void PrintTo(const Refused& refused, std::ostream* out) {
    *out << refused.text;
}

class RefusedStrings : public testing::TestWithParam<Refused> {};

TEST_P(RefusedStrings, SayWhoRefusesThem) {
    const std::string& text = GetParam().text;
    const faiss::MetricType metric = GetParam().metric;
    const Cell& by = GetParam().by;
    const std::string message =
            refusal([&] { delete faiss_gmm::index_factory(d, text.c_str(), metric); });
    EXPECT_NE(message.find(text), std::string::npos) << message;
    EXPECT_NE(message.find("; allowed: "), std::string::npos) << message;
    EXPECT_NE(message.find(by.words), std::string::npos) << message;
    const std::string stock =
            refusal([&] { delete faiss::index_factory(d, stock_string(text).c_str(), metric); });
    EXPECT_EQ(stock.empty(), by.refused_by == Cell::By::us) << stock;
    RecordProperty("string", text);
    RecordProperty("metric", metric == l2 ? "L2" : "IP");
    RecordProperty(
            "lists",
            (by.refused_by == Cell::By::us ? "we refuse: " : "FAISS refuses: ") +
                    std::string(by.words));
}

std::vector<Refused> refused_strings() {
    const Cell unknown = faiss_refuses("could not parse");
    std::vector<Refused> all = {
            {"IVFGMM8,PQ4+4",
             l2,
             we_refuse("IVFPQR, whose refining codes stand outside of the lists, by id")},
            {"IVFGMM8,FlatDedup",
             l2,
             we_refuse("IVFFlatDedup, where an entry stands for vectors kept outside of the lists, "
                       "by id")},
            {"IVFGMM8,FlatPanorama4",
             l2,
             compat::has_panorama
                     ? we_refuse("IVFFlatPanorama, whose lists are laid out in levels that runs "
                                 "would cut")
                     : unknown},
            {"IVFGMM8,RQ8x4fs",
             l2,
             faiss_refuses("Search type must be lsq2x4 or rq2x4 for L2 metric")},
            {"IVFGMM8,PQ8x8fs", l2, unknown},
            {"IVFGMM8,PQ16x4fs_192",
             l2,
             we_refuse("FastScan in blocks of 192 entries, whose first search ends the process")},
            {"IVFGMM8,LSH", l2, unknown},
            {"IVFGMM8(storage=copies),PQ16x4fs",
             l2,
             we_refuse("storage=copies for a codec whose lists stay plain")},
            {"IVFGMM8(sketch=8),PQ16x4fs",
             l2,
             we_refuse("sketches for a codec whose lists stay plain")},
            {"IVFGMM8_HNSW8(covariance=diagonal),Flat",
             l2,
             we_refuse("a quantizer that searches by distance alone")},
    };
    for (const LaterString& later : later_strings()) {
        if (!later.there) {
            all.push_back({later.text, l2, unknown});
        }
    }
    if (compat::has_rabitq_blocks && !compat::holds_rabitq_blocks) {
        for (Refused& refused : all) {
            if (refused.text.find("RaBitQfs") != std::string::npos) {
                refused.by = we_refuse("keeps factors of an entry outside of the lists, by id");
            }
        }
    }
    return all;
}

INSTANTIATE_TEST_SUITE_P(All, RefusedStrings, testing::ValuesIn(refused_strings()));

} // namespace
} // namespace faiss_gmm
