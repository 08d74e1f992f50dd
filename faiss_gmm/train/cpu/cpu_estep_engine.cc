// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The E-step on the CPU: few components of a row matter, so find them cheaply and be exact on them.
//   (1) l_ik = log pi_k + log N(x_i | mu_k, S_k),  L_i = log sum_k exp l_ik,  r_ik = exp(l_ik - L_i)
//   (2) N_k = sum_i r_ik,  f_k = sum_i r_ik (x_i - mu_k),  M_k = sum_i r_ik (x_i - mu_k)(x_i - mu_k)^T
// n rows, d dimensions, K components; x [n, d] fp32, statistics fp64.
// Phases, for waves of blocks of rows, all inside one parallel region a wave:
//   1 score    block x tile of K by sgemm (single-threaded: one block a thread), scores in L2; with
//              cells (component_cells.cc): rows of the block that look into a cell x its components
//   2 collect  per row the components that may lie within the margin of the best
//   3 weigh    exact fp64 log-joints of those, (1); those within the margin become pairs, the home
//              takes what the others leave of 1
//   4 sum      pairs sorted by component, rows in order; each component is summed by one thread
// Cost: 2 n K w flops of GEMM (w = d; diagonal 2 d), about 4 K + 60 d other operations a row where 4
//   candidates a row are usual. Memory beside data and K d arrays: a tile of scores a thread and the
//   pairs of one wave, at most `wave_pairs` of them unless one block alone has more; nothing of size n.
// Numerics: fp32 only chooses candidates, within a proven bound (score_model.cc); all that is kept is
//   fp64. Left out of a row: components with r below min(1e-8, 1e-5 / K), the margin's meaning. 1e-6
//   would do for N_k and means, but what is far weighs in variances: 3e-4 in those of small components.
// Determinism: run_to_run, whatever the threads and the chunks: which components count is decided by
//   exact values, (2) is added in the order of the rows, L_i too. Waves and blocks leave no trace.
// Reference and test: tests/train/naive_em.h, tests/train/cpu_estep_engine_test.cc.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>

#include <cblas.h>
#include <fmt/format.h>
#include <omp.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cpu/component_cells.h"
#include "faiss_gmm/train/cpu/score_model.h"
#include "faiss_gmm/train/estep_engine.h"
#include "faiss_gmm/train/maximization.h"

namespace faiss_gmm {
namespace {

using cpu::ComponentCells;
using cpu::PreparedRow;
using cpu::score_padding;
using cpu::ScoreBounds;
using cpu::ScoreModel;

/// Rows that a thread works on at once, and components that it scores at once.
struct BlockShape {
    size_t rows, columns;
};
constexpr BlockShape whole_shape{256, 1024}; ///< 1 MiB of scores: an L2 cache
constexpr BlockShape cells_shape{1024, 256}; ///< many rows, so that enough of them share a cell
constexpr double negligible_share = 1e-8;    ///< of a row in one component: may be left out
constexpr double negligible_rest = 1e-5;     ///< of a row in all components left out
constexpr size_t wave_pairs = 1 << 20;   ///< pairs held at once, 24 bytes each, twice while sorted
constexpr size_t row_candidates = 4096;  ///< a row with more has all components as candidates
constexpr size_t fewest_in_cells = 4096; ///< components from which EStep::automatic looks in cells
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// The number of "no such row".
constexpr size_t none = std::numeric_limits<size_t>::max();

/// A row's share in a component.
struct Pair {
    uint32_t row; ///< within its wave
    uint32_t component;
    double r;
    double moment; ///< r |x - mu|^2 (spherical forms)
};

/// What is sought among a row's components.
struct Search {
    double margin = 0; ///< nats below the best that must be found
    size_t best = 0;   ///< besides, the so many best
};

struct CandidateList {
    bool all = false;            ///< every component, the list is void
    float peak = minus_infinity; ///< largest lower bound so far
    std::vector<uint32_t> component;
    std::vector<float> upper;

    void clear() {
        all = false;
        peak = minus_infinity;
        component.clear();
        upper.clear();
    }
    void append(size_t count, const uint32_t* components, const float* uppers) {
        if (component.size() + count > row_candidates) {
            all = true;
            return;
        }
        component.insert(component.end(), components, components + count);
        upper.insert(upper.end(), uppers, uppers + count);
    }
};

/// A thread's buffers.
struct Workspace {
    BlockShape shape;
    std::vector<float> operand;   ///< [rows, w]
    std::vector<float> gathered;  ///< [rows, w], operands of the rows that look into a cell
    std::vector<double> whitened; ///< [rows, d], tied only
    std::vector<double> scratch;  ///< [d]
    std::vector<float> scores;    ///< [rows, columns]
    std::vector<float> groups;    ///< [rows, score_padding] for Search::best
    std::vector<float> sorted_groups;
    std::vector<uint32_t> found_component;
    std::vector<float> found_upper;
    std::vector<PreparedRow> rows;
    std::vector<CandidateList> candidates;
    std::vector<size_t> first_in_cell; ///< [cells + 1] into rows_by_cell
    std::vector<uint32_t> rows_by_cell;
    std::vector<uint32_t> component; ///< exact candidates of one row, ascending
    std::vector<double> joint;       ///< their log-joints
    std::vector<double> distance;    ///< their |x - mu|^2, where log_joint gives it
    std::vector<uint32_t> order;     ///< the best of them first

    Workspace(Workspace&&) = default; // rows point into the buffers, which a move keeps
    Workspace(const ScoreModel& model, BlockShape block_shape) : shape(block_shape) {
        const size_t d = model.mixture().d;
        // The exact form's rows need an operand even where there is no product.
        const size_t width = std::max(model.operand_width(), d);
        operand.resize(shape.rows * width);
        whitened.resize(model.needs_whitening() ? shape.rows * d : 0);
        scratch.resize(d);
        found_component.resize(shape.columns + score_padding);
        found_upper.resize(shape.columns + score_padding);
        rows.resize(shape.rows);
        candidates.resize(shape.rows);
        for (size_t i = 0; i < shape.rows; ++i) {
            rows[i].operand = &operand[i * width];
            rows[i].whitened = whitened.empty() ? nullptr : &whitened[i * d];
        }
    }
};

/// Rows that one thread works on.
struct Block {
    const float* x = nullptr; ///< [count, d]
    size_t count = 0;
    const ComponentCells* cells = nullptr; ///< null: every component is looked at
    const int32_t* nearest = nullptr;      ///< [count, cells->probed()], the cells looked into
};

/// What a candidate's upper bound must reach; finite, so that padding (-infinity) never does.
float threshold_of(float peak, double slack, double margin) {
    const double threshold = peak - 2 * slack - margin * (1 + 1e-6) - 1e-6;
    return static_cast<float>(std::max<double>(threshold, std::numeric_limits<float>::lowest()));
}

/// Scores [rows, padded columns] of `rows` operands in components from `first` on.
void score(
        const ScoreModel& model,
        size_t rows,
        const float* operand,
        size_t first,
        size_t columns,
        size_t padded,
        float* scores) {
    const size_t width = model.operand_width();
    cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasTrans,
            static_cast<int>(rows),
            static_cast<int>(columns),
            static_cast<int>(width),
            1.0f,
            operand,
            static_cast<int>(width),
            model.operand() + first * width,
            static_cast<int>(width),
            0.0f,
            scores,
            static_cast<int>(padded));
}

size_t padded_columns(size_t columns) {
    return (columns + score_padding - 1) / score_padding * score_padding;
}

/// Collects what may matter of row i's scores [padded] in `columns` components from `first` on.
/// `number`: what the components are called; null: as they are counted.
void collect(
        const ScoreModel& model,
        const Search& search,
        size_t first,
        size_t columns,
        float* scores,
        const uint32_t* number,
        size_t i,
        Workspace& work) {
    CandidateList& list = work.candidates[i];
    if (list.all) {
        return;
    }
    const size_t padded = padded_columns(columns);
    std::fill(scores + columns, scores + padded, minus_infinity);
    const ScoreBounds bounds = model.bounds(first, work.rows[i]);
    const double slack = work.rows[i].slack;
    list.peak = std::max(list.peak, largest_lower_bound(scores, bounds, padded));
    float threshold = threshold_of(list.peak, slack, search.margin);
    if (search.best > 1) {
        float* groups = &work.groups[i * score_padding];
        raise_group_bounds(scores, bounds, padded, groups);
        work.sorted_groups.assign(groups, groups + score_padding);
        const auto last = work.sorted_groups.begin() + (search.best - 1);
        std::nth_element(
                work.sorted_groups.begin(), last, work.sorted_groups.end(), std::greater<float>());
        threshold = std::min(threshold, threshold_of(*last, slack, 0));
    }
    const size_t found = collect_above(
            scores,
            bounds,
            padded,
            threshold,
            static_cast<uint32_t>(first),
            work.found_component.data(),
            work.found_upper.data());
    for (size_t f = 0; number != nullptr && f < found; ++f) {
        work.found_component[f] = number[work.found_component[f]];
    }
    list.append(found, work.found_component.data(), work.found_upper.data());
}

/// Candidates among all components.
void find_anywhere(
        const ScoreModel& model, const Search& search, const Block& block, Workspace& work) {
    const size_t K = model.mixture().K, tile = work.shape.columns;
    for (size_t first = 0; first < K; first += tile) {
        const size_t columns = std::min(tile, K - first);
        const size_t padded = padded_columns(columns);
        score(model, block.count, work.operand.data(), first, columns, padded, work.scores.data());
        for (size_t i = 0; i < block.count; ++i) {
            collect(model, search, first, columns, &work.scores[i * padded], nullptr, i, work);
        }
    }
}

/// The block's rows by the cells that they look into, in order.
void sort_by_cell(const Block& block, Workspace& work) {
    const size_t probed = block.cells->probed();
    std::vector<size_t>& first = work.first_in_cell;
    first.assign(block.cells->count() + 1, 0);
    for (size_t j = 0; j < block.count * probed; ++j) {
        ++first[block.nearest[j] + 1];
    }
    for (size_t g = 0; g < block.cells->count(); ++g) {
        first[g + 1] += first[g];
    }
    work.rows_by_cell.resize(block.count * probed);
    std::vector<size_t> next(first.begin(), first.end() - 1);
    for (size_t j = 0; j < block.count * probed; ++j) {
        work.rows_by_cell[next[block.nearest[j]]++] = static_cast<uint32_t>(j / probed);
    }
}

/// Candidates among the components of the cells that each row looks into.
void find_in_cells(const Search& search, const Block& block, Workspace& work) {
    const ScoreModel& model = block.cells->scores();
    const size_t width = model.operand_width(), tile = work.shape.columns;
    sort_by_cell(block, work);
    work.gathered.resize(work.shape.rows * width);
    for (size_t g = 0; g < block.cells->count(); ++g) {
        const uint32_t* rows = work.rows_by_cell.data() + work.first_in_cell[g];
        const size_t count = work.first_in_cell[g + 1] - work.first_in_cell[g];
        if (count == 0) {
            continue;
        }
        for (size_t i = 0; i < count; ++i) {
            std::copy_n(work.rows[rows[i]].operand, width, &work.gathered[i * width]);
        }
        for (size_t first = block.cells->begin(g); first < block.cells->end(g); first += tile) {
            const size_t columns = std::min(tile, block.cells->end(g) - first);
            const size_t padded = padded_columns(columns);
            score(model, count, work.gathered.data(), first, columns, padded, work.scores.data());
            for (size_t i = 0; i < count; ++i) {
                collect(model,
                        search,
                        first,
                        columns,
                        &work.scores[i * padded],
                        block.cells->components(),
                        rows[i],
                        work);
            }
        }
    }
}

/// Phases 1 and 2 for a block: fills the workspace's rows and candidates. Returns the first row with
/// NaN or Inf, or `none`.
size_t find_candidates(
        const ScoreModel& model, const Search& search, const Block& block, Workspace& work) {
    const size_t d = model.mixture().d;
    const ScoreModel& scored = block.cells != nullptr ? block.cells->scores() : model;
    const size_t width = scored.operand_width();
    for (size_t i = 0; i < block.count; ++i) {
        if (!scored.prepare(block.x + i * d, work.scratch.data(), work.rows[i])) {
            return i;
        }
        work.candidates[i].clear();
        work.candidates[i].all =
                width == 0 || std::isinf(work.rows[i].slack) || search.best > score_padding;
    }
    if (width == 0) {
        return none;
    }
    work.scores.resize(work.shape.rows * work.shape.columns);
    if (search.best > 1) {
        work.groups.assign(work.shape.rows * score_padding, minus_infinity);
    }
    if (block.cells != nullptr) {
        find_in_cells(search, block, work);
    } else {
        find_anywhere(model, search, block, work);
    }
    return none;
}

/// Every component that row i may have: candidates, or all that it looks at.
void list_components(
        const ScoreModel& model,
        const Search& search,
        const Block& block,
        size_t i,
        Workspace& work) {
    const CandidateList& list = work.candidates[i];
    work.component.clear();
    if (list.all && block.cells == nullptr) {
        work.component.resize(model.mixture().K);
        std::iota(work.component.begin(), work.component.end(), 0);
        return;
    }
    if (list.all) {
        const size_t probed = block.cells->probed();
        for (size_t j = 0; j < probed; ++j) {
            const size_t cell = block.nearest[i * probed + j];
            work.component.insert(
                    work.component.end(),
                    block.cells->components() + block.cells->begin(cell),
                    block.cells->components() + block.cells->end(cell));
        }
    } else {
        // Later tiles may have raised the peak since a candidate was collected.
        const float threshold =
                search.best > 1 ? minus_infinity
                                : threshold_of(list.peak, work.rows[i].slack, search.margin);
        for (size_t c = 0; c < list.component.size(); ++c) {
            if (list.upper[c] >= threshold) {
                work.component.push_back(list.component[c]);
            }
        }
    }
    if (block.cells != nullptr) { // tiles ascend, cells do not
        std::sort(work.component.begin(), work.component.end());
    }
}

/// The first half of phase 3: exact log-joints of row i's candidates, ascending by component.
void evaluate_candidates(
        const ScoreModel& model,
        const Search& search,
        const Block& block,
        size_t i,
        Workspace& work) {
    const float* x = block.x + i * model.mixture().d;
    list_components(model, search, block, i, work);
    work.joint.clear();
    work.distance.clear();
    for (const uint32_t k : work.component) {
        double distance = 0;
        work.joint.push_back(model.log_joint(x, work.rows[i], k, work.scratch.data(), distance));
        work.distance.push_back(distance);
    }
}

/// Position of the best candidate, the lower component of equals.
size_t best_candidate(const Workspace& work) {
    return std::max_element(work.joint.begin(), work.joint.end()) - work.joint.begin();
}

/// log sum exp of the candidates that count: those within `margin` of the best, an exact rule.
double log_normaliser(const Workspace& work, size_t best, double margin) {
    const double top = work.joint[best];
    double sum = 0;
    for (const double value : work.joint) {
        if (value >= top - margin) {
            sum += std::exp(value - top);
        }
    }
    return top + std::log(sum);
}

/// Pairs of one block and what it adds to the pass.
struct BlockResult {
    std::vector<Pair> pairs;
    std::vector<double> log_likelihood; ///< [rows]
    size_t shared_rows = 0;
    size_t bad_row = none;

    void clear() {
        pairs.clear();
        log_likelihood.clear();
        shared_rows = 0;
        bad_row = none;
    }
};

/// The second half of phase 3, soft: responsibilities of the row evaluated last.
void weigh_softly(
        const Workspace& work, const Search& search, size_t K, uint32_t row, BlockResult& result) {
    const size_t best = best_candidate(work);
    const double norm = log_normaliser(work, best, search.margin);
    double rest = 1;
    double second = 0;
    const double least = work.joint[best] - search.margin;
    const size_t home_at = result.pairs.size();
    result.pairs.push_back({row, work.component[best], 1, 0});
    for (size_t c = 0; c < work.joint.size(); ++c) {
        if (c == best || work.joint[c] < least) {
            continue;
        }
        const double r = std::exp(work.joint[c] - norm);
        result.pairs.push_back({row, work.component[c], r, r * work.distance[c]});
        rest -= r;
        second = std::max(second, r);
    }
    result.pairs[home_at].r = rest;
    result.pairs[home_at].moment = rest * work.distance[best];
    result.log_likelihood.push_back(norm);
    result.shared_rows += second > 1.0 / K;
}

void weigh_hard(const Workspace& work, uint32_t row, BlockResult& result) {
    const size_t best = best_candidate(work);
    result.pairs.push_back({row, work.component[best], 1, work.distance[best]});
    result.log_likelihood.push_back(work.joint[best]);
}

/// Carries the first exception out of a parallel region, where none may escape.
class ExceptionRelay {
public:
    template <class F> void run(F&& f) noexcept {
        try {
            f();
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!first_) {
                first_ = std::current_exception();
            }
        }
    }
    void rethrow() const {
        if (first_) {
            std::rethrow_exception(first_);
        }
    }

private:
    std::mutex mutex_;
    std::exception_ptr first_;
};

class CpuEStepEngine : public EStepEngine {
public:
    explicit CpuEStepEngine(EStep estep) : estep_(estep) {}
    using EStepEngine::begin;
    void begin(const GaussianMixture& mixture, Assignment assignment) override;
    void accumulate(const Chunk& chunk) override;
    SufficientStatistics finish() override;
    GaussianMixture
    maximize(const SufficientStatistics& statistics, double reg_covar) const override;
    void top_responsibilities(const Chunk& chunk, size_t m, TopResponsibilities& out) override;

private:
    bool looks_in_cells(const GaussianMixture& mixture) const;
    void require_ready(const Chunk& chunk) const;
    void prepare_workspaces();
    Chunk part_of(const Chunk& chunk, size_t first, size_t most);
    static size_t most_wave_blocks();
    size_t next_wave_blocks() const;
    void weigh_wave(const Chunk& wave, size_t blocks);
    Block block_of(const Chunk& wave, size_t b) const;
    void rank_wave(const Chunk& wave, size_t first, size_t m, TopResponsibilities& out);
    const BlockShape& shape() const {
        return cells_ ? cells_shape : whole_shape;
    }
    void sort_pairs(size_t blocks);
    void add_rows(const float* x, size_t d, size_t begin, size_t end, double* sum) const;
    void sum_components(const float* x);
    void sum_tied_moment(const float* x, size_t blocks);
    const ScoreModel& model() const {
        return *model_;
    }
    Search soft_search(size_t best) const;

    EStep estep_;
    std::unique_ptr<ScoreModel> model_;
    std::unique_ptr<ComponentCells> cells_; ///< null: every component is looked at
    Assignment assignment_ = Assignment::soft;
    std::vector<Workspace> workspaces_; ///< one a thread
    // Of the wave.
    std::vector<float> converted_; ///< its rows, where they are not f32
    const int32_t* nearest_cells_ = nullptr;
    std::vector<BlockResult> blocks_;
    std::vector<Pair> sorted_;    ///< by component, rows in order
    std::vector<size_t> offsets_; ///< [K + 1] into sorted_
    double pairs_per_block_ = 0;  ///< of the last wave; 0: none yet
    // Of the pass.
    size_t rows_ = 0;
    double sum_log_likelihood_ = 0;
    size_t shared_rows_ = 0;
    std::vector<double> N_k_;
    std::vector<double> sum_x_;  ///< [K, d], sum of r x
    std::vector<double> moment_; ///< [K] for both spherical forms, else as the covariance
};

Search CpuEStepEngine::soft_search(size_t best) const {
    const double K = static_cast<double>(model().mixture().K);
    return {std::max(-std::log(negligible_share), std::log(K / negligible_rest)), best};
}

bool CpuEStepEngine::looks_in_cells(const GaussianMixture& mixture) const {
    const bool wanted = estep_ == EStep::nearest_cells ||
                        (estep_ == EStep::automatic && mixture.K >= fewest_in_cells &&
                         mixture.covariance == Covariance::tied_spherical);
    return wanted && cpu::near_means_matter(mixture.covariance);
}

void CpuEStepEngine::begin(const GaussianMixture& mixture, Assignment assignment) {
    const bool in_cells = looks_in_cells(mixture);
    // The workspaces are of a shape; they are made anew when it changes.
    const bool same_shape = model_ && model().mixture().d == mixture.d &&
                            model().mixture().covariance == mixture.covariance &&
                            (cells_ != nullptr) == in_cells;
    auto new_model = std::make_unique<ScoreModel>(mixture); // both, or where one throws none
    auto new_cells = in_cells ? std::make_unique<ComponentCells>(mixture, assignment) : nullptr;
    model_ = std::move(new_model);
    cells_ = std::move(new_cells);
    if (!same_shape) {
        workspaces_.clear();
    }
    assignment_ = assignment;
    const size_t K = mixture.K, d = mixture.d;
    rows_ = 0;
    sum_log_likelihood_ = 0;
    shared_rows_ = 0;
    pairs_per_block_ = 0;
    N_k_.assign(K, 0.0);
    sum_x_.assign(K * d, 0.0);
    const bool trace = mixture.covariance == Covariance::tied_spherical;
    moment_.assign(trace ? K : mixture.covariances.size(), 0.0);
}

void CpuEStepEngine::require_ready(const Chunk& chunk) const {
    if (!model_) {
        throw Error(
                {"running the E-step",
                 "rows before a mixture",
                 "begin(mixture) first",
                 "call begin()"});
    }
    if (chunk.memory != Chunk::Memory::host) {
        throw Error(
                {"running the E-step on the CPU",
                 "a chunk in device memory",
                 "host memory",
                 "give the CPU engine a source in host memory"});
    }
}

void CpuEStepEngine::prepare_workspaces() {
    const size_t threads = omp_get_max_threads();
    while (workspaces_.size() < threads) {
        workspaces_.emplace_back(model(), shape());
    }
}

[[noreturn]] void refuse_row(size_t row) {
    throw Error(
            {"running the E-step",
             fmt::format("row {} with NaN or Inf", row),
             "finite numbers",
             "remove or repair that row"});
}

size_t CpuEStepEngine::most_wave_blocks() {
    const size_t threads = omp_get_max_threads();
    return std::max<size_t>(64, 4 * threads);
}

/// Blocks of the next wave, so that its pairs stay near wave_pairs. Any number gives the same bits.
size_t CpuEStepEngine::next_wave_blocks() const {
    // Before anything is known of the data every component may be a pair of every row.
    const double pairs = pairs_per_block_ > 0
                                 ? 1.25 * pairs_per_block_
                                 : static_cast<double>(shape().rows) * model().mixture().K / 2;
    return std::clamp<size_t>(static_cast<size_t>(wave_pairs / pairs), 1, most_wave_blocks());
}

/// At most `most` rows from `first` on, as f32.
Chunk CpuEStepEngine::part_of(const Chunk& chunk, size_t first, size_t most) {
    return as_f32(chunk, model().mixture().d, first, std::min(most, chunk.n - first), converted_);
}

void CpuEStepEngine::accumulate(const Chunk& chunk) {
    require_ready(chunk);
    prepare_workspaces();
    for (size_t first = 0; first < chunk.n;) {
        const Chunk wave = part_of(chunk, first, next_wave_blocks() * shape().rows);
        const size_t used = (wave.n + shape().rows - 1) / shape().rows;
        weigh_wave(wave, used);
        size_t pairs = 0;
        for (size_t b = 0; b < used; ++b) {
            const BlockResult& block = blocks_[b];
            if (block.bad_row != none) {
                refuse_row(wave.first + b * shape().rows + block.bad_row);
            }
            for (const double value : block.log_likelihood) {
                sum_log_likelihood_ += value;
            }
            shared_rows_ += block.shared_rows;
            pairs += block.pairs.size();
        }
        pairs_per_block_ = static_cast<double>(pairs) / used;
        sort_pairs(used);
        sum_components(wave.floats());
        if (model().mixture().covariance == Covariance::tied) {
            sum_tied_moment(wave.floats(), used);
        }
        rows_ += wave.n;
        first += wave.n;
    }
}

/// Block b of the rows whose nearest cells are known.
Block CpuEStepEngine::block_of(const Chunk& wave, size_t b) const {
    const size_t first = b * shape().rows;
    Block block;
    block.x = wave.floats() + first * model().mixture().d;
    block.count = std::min(shape().rows, wave.n - first);
    if (cells_) {
        block.cells = cells_.get();
        block.nearest = nearest_cells_ + first * cells_->probed();
    }
    return block;
}

/// Phases 1 to 3 of a wave.
void CpuEStepEngine::weigh_wave(const Chunk& wave, size_t blocks) {
    const size_t K = model().mixture().K;
    const Search search = assignment_ == Assignment::soft ? soft_search(0) : Search();
    blocks_.resize(std::max(blocks_.size(), blocks));
    nearest_cells_ = cells_ ? cells_->nearest(wave) : nullptr;
    ExceptionRelay relay;
#pragma omp parallel for schedule(dynamic) if (blocks > 1)
    for (int64_t b = 0; b < static_cast<int64_t>(blocks); ++b) {
        relay.run([&] {
            Workspace& work = workspaces_[omp_get_thread_num()];
            BlockResult& result = blocks_[b];
            result.clear();
            const Block block = block_of(wave, b);
            result.bad_row = find_candidates(model(), search, block, work);
            if (result.bad_row != none) {
                return;
            }
            for (size_t i = 0; i < block.count; ++i) {
                const auto row = static_cast<uint32_t>(b * shape().rows + i);
                evaluate_candidates(model(), search, block, i, work);
                if (assignment_ == Assignment::soft) {
                    weigh_softly(work, search, K, row, result);
                } else {
                    weigh_hard(work, row, result);
                }
            }
        });
    }
    relay.rethrow();
}

/// A counting sort by component that keeps the order of the rows.
void CpuEStepEngine::sort_pairs(size_t blocks) {
    const size_t K = model().mixture().K;
    offsets_.assign(K + 1, 0);
    for (size_t b = 0; b < blocks; ++b) {
        for (const Pair& pair : blocks_[b].pairs) {
            ++offsets_[pair.component + 1];
        }
    }
    for (size_t k = 0; k < K; ++k) {
        offsets_[k + 1] += offsets_[k];
    }
    sorted_.resize(offsets_[K]);
    std::vector<size_t> next(offsets_.begin(), offsets_.end() - 1);
    for (size_t b = 0; b < blocks; ++b) {
        for (const Pair& pair : blocks_[b].pairs) {
            sorted_[next[pair.component]++] = pair;
        }
    }
}

/// sum [d] += r x over the sorted pairs [begin, end), in their order.
void CpuEStepEngine::add_rows(
        const float* x, size_t d, size_t begin, size_t end, double* sum) const {
    constexpr size_t line = 64 / sizeof(float);
    size_t p = begin;
    for (; p + 4 <= end; p += 4) {
        double r[4];
        const float* rows[4];
        for (size_t i = 0; i < 4; ++i) {
            r[i] = sorted_[p + i].r;
            rows[i] = x + sorted_[p + i].row * d;
            // A component's rows are scattered over the wave, which no prefetcher foresees.
            const size_t ahead = std::min(p + i + 4, sorted_.size() - 1);
            const float* next = x + sorted_[ahead].row * d;
            for (size_t j = 0; j < std::min<size_t>(d, 256); j += line) {
                __builtin_prefetch(next + j);
            }
        }
        cpu::add_four_scaled(sum, r, rows, d);
    }
    for (; p < end; ++p) {
        cpu::add_scaled(sum, sorted_[p].r, x + sorted_[p].row * d, d);
    }
}

/// Phase 4 of a wave.
void CpuEStepEngine::sum_components(const float* x) {
    const GaussianMixture& mixture = model().mixture();
    const size_t K = mixture.K, d = mixture.d;
    const size_t piece = std::max<size_t>(1, K / (16 * omp_get_max_threads()));
    // Starting threads costs more than a small wave.
#pragma omp parallel if (sorted_.size() * d > 16384)
    {
        std::vector<double> difference(mixture.covariance == Covariance::full ? d : 0);
#pragma omp for schedule(dynamic, piece)
        for (int64_t k = 0; k < static_cast<int64_t>(K); ++k) {
            const float* mu = &mixture.means[k * d];
            add_rows(x, d, offsets_[k], offsets_[k + 1], &sum_x_[k * d]);
            for (size_t p = offsets_[k]; p < offsets_[k + 1]; ++p) {
                const Pair& pair = sorted_[p];
                const float* row = x + pair.row * d;
                N_k_[k] += pair.r;
                switch (mixture.covariance) {
                case Covariance::tied_spherical:
                case Covariance::spherical:
                    moment_[k] += pair.moment;
                    break;
                case Covariance::diagonal:
                    cpu::add_scaled_squares(&moment_[k * d], pair.r, row, mu, d);
                    break;
                case Covariance::tied:
                    break; // one matrix for all: sum_tied_moment
                case Covariance::full:
                    for (size_t j = 0; j < d; ++j) {
                        difference[j] = static_cast<double>(row[j]) - mu[j];
                    }
                    for (size_t j = 0; j < d; ++j) {
                        cpu::add_scaled(
                                &moment_[(k * d + j) * d],
                                pair.r * difference[j],
                                difference.data(),
                                j + 1);
                    }
                    break;
                }
            }
        }
    }
}

/// The one matrix of a tied mixture: threads share its rows, each adds all pairs in order.
void CpuEStepEngine::sum_tied_moment(const float* x, size_t blocks) {
    const GaussianMixture& mixture = model().mixture();
    const size_t d = mixture.d;
    const size_t pairs = sorted_.size();
#pragma omp parallel if (pairs * d * d > 65536)
    {
        std::vector<double> difference(d);
        const size_t threads = omp_get_num_threads();
        for (size_t b = 0; b < blocks; ++b) {
            for (const Pair& pair : blocks_[b].pairs) {
                const float* row = x + pair.row * d;
                const float* mu = &mixture.means[pair.component * d];
                for (size_t j = 0; j < d; ++j) {
                    difference[j] = static_cast<double>(row[j]) - mu[j];
                }
                for (size_t j = omp_get_thread_num(); j < d; j += threads) {
                    cpu::add_scaled(
                            &moment_[j * d], pair.r * difference[j], difference.data(), j + 1);
                }
            }
        }
    }
}

void mirror_lower(size_t d, double* matrix) {
    for (size_t i = 0; i < d; ++i) {
        for (size_t j = 0; j < i; ++j) {
            matrix[j * d + i] = matrix[i * d + j];
        }
    }
}

SufficientStatistics CpuEStepEngine::finish() {
    require_ready(Chunk());
    const GaussianMixture& mixture = model().mixture();
    const size_t K = mixture.K, d = mixture.d;
    SufficientStatistics statistics;
    statistics.rows = rows_;
    statistics.sum_log_likelihood = sum_log_likelihood_;
    statistics.N_k = N_k_;
    statistics.shared_rows = shared_rows_;
    statistics.first_moment = sum_x_;
    for (size_t k = 0; k < K; ++k) {
        cpu::add_scaled(&statistics.first_moment[k * d], -N_k_[k], &mixture.means[k * d], d);
    }
    statistics.second_moment = moment_;
    switch (mixture.covariance) {
    case Covariance::tied_spherical: {
        double total = 0;
        for (const double value : moment_) {
            total += value;
        }
        statistics.second_moment = {total};
        break;
    }
    case Covariance::tied:
        mirror_lower(d, statistics.second_moment.data());
        break;
    case Covariance::full:
        for (size_t k = 0; k < K; ++k) {
            mirror_lower(d, &statistics.second_moment[k * d * d]);
        }
        break;
    default:
        break;
    }
    return statistics;
}

GaussianMixture
CpuEStepEngine::maximize(const SufficientStatistics& statistics, double reg_covar) const {
    return maximize_on_host(model().mixture(), statistics, reg_covar);
}

/// Writes the best of the row evaluated last as row `at` of `out`, m a row.
void rank(
        const ScoreModel& model,
        const float* x,
        double margin,
        size_t m,
        size_t at,
        Workspace& work,
        TopResponsibilities& out) {
    const GaussianMixture& mixture = model.mixture();
    const size_t given = std::min(m, work.joint.size());
    const double norm = log_normaliser(work, best_candidate(work), margin);
    std::vector<uint32_t>& order = work.order;
    order.resize(work.joint.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(
            order.begin(), order.begin() + given, order.end(), [&](uint32_t a, uint32_t c) {
                // Candidates ascend by component, so a < c is the lower of equals.
                return work.joint[a] != work.joint[c] ? work.joint[a] > work.joint[c] : a < c;
            });
    for (size_t c = 0; c < given; ++c) {
        const uint32_t k = work.component[order[c]];
        out.component[at * m + c] = static_cast<int32_t>(k);
        if (!out.log_responsibility.empty()) {
            out.log_responsibility[at * m + c] = static_cast<float>(work.joint[order[c]] - norm);
        }
        out.squared_distance[at * m + c] = static_cast<float>(
                cpu::squared_distance(x, &mixture.means[k * mixture.d], mixture.d));
    }
}

void CpuEStepEngine::top_responsibilities(const Chunk& chunk, size_t m, TopResponsibilities& out) {
    require_ready(chunk);
    out.component.assign(chunk.n * m, -1);
    out.log_responsibility.assign(
            assignment_ == Assignment::soft ? chunk.n * m : 0, minus_infinity);
    out.squared_distance.assign(chunk.n * m, std::numeric_limits<float>::infinity());
    prepare_workspaces();
    const size_t most = most_wave_blocks() * shape().rows;
    for (size_t first = 0; first < chunk.n; first += most) {
        const Chunk wave = part_of(chunk, first, most);
        rank_wave(wave, first, m, out);
    }
}

/// The best components of a wave, which are rows from `first` on of `out`.
void CpuEStepEngine::rank_wave(
        const Chunk& wave, size_t first, size_t m, TopResponsibilities& out) {
    const size_t wanted = std::min(m, model().mixture().K);
    const Search search = assignment_ == Assignment::soft ? soft_search(wanted) : Search{0, wanted};
    nearest_cells_ = cells_ ? cells_->nearest(wave) : nullptr;
    const size_t blocks = (wave.n + shape().rows - 1) / shape().rows;
    std::atomic<size_t> bad_row{none};
    ExceptionRelay relay;
#pragma omp parallel for schedule(dynamic) if (blocks > 1)
    for (int64_t b = 0; b < static_cast<int64_t>(blocks); ++b) {
        relay.run([&] {
            Workspace& work = workspaces_[omp_get_thread_num()];
            const size_t begin = b * shape().rows;
            const Block block = block_of(wave, b);
            const size_t bad = find_candidates(model(), search, block, work);
            if (bad != none) {
                size_t seen = bad_row;
                while (begin + bad < seen && !bad_row.compare_exchange_weak(seen, begin + bad)) {
                }
                return;
            }
            for (size_t i = 0; i < block.count; ++i) {
                evaluate_candidates(model(), search, block, i, work);
                if (work.joint.size() < wanted) { // components of weight zero are no candidates
                    work.candidates[i].all = true;
                    evaluate_candidates(model(), search, block, i, work);
                }
                const float* x = block.x + i * model().mixture().d;
                rank(model(), x, search.margin, m, first + begin + i, work, out);
            }
        });
    }
    relay.rethrow();
    if (bad_row != none) {
        refuse_row(wave.first + bad_row);
    }
}

} // namespace

std::unique_ptr<EStepEngine> make_cpu_engine(EStep estep) {
    return std::make_unique<CpuEStepEngine>(estep);
}

} // namespace faiss_gmm
