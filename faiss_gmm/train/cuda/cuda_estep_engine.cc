// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The E-step on a GPU: what runs when, and where its numbers lie.
//   Rows are cut into blocks: a constant number of rows, a function of d alone. What is added up is
//   grouped by block, so the bits depend neither on chunks nor on memory. A wave is as many blocks as
//   the buffers hold; it goes through
//   1 collect  one product of low precision per wave, fused with the collection of candidates
//   2 order    rows by block and provisional home          (order.cu)
//   3 weigh    comparisons in fp32 (compare.cu), exact responsibilities and the homes' sums (weigh.cu)
//   4 sum      the other pairs, by block and component     (order.cu, weigh.cu)
//   5 left     rows without a list: dense products where their bound allows (dense.cu, dense_wgmma.cu,
//              dense_wide_wgmma.cu), the others in fp64    (exact.cu)
// The host waits twice a wave: for the number of rows left to 5 after 2, and for that of pairs after 3. 5 runs beside
// 3 and 4 where the workspace has room for both. Four sets of fp64 sums
// (3, 4, both of 5), each in the order of the blocks, become one in finish().
// tied: rows are whitened as a wave begins, and all else sees a tied_spherical mixture; full: all rows go
// to the exact tier (matrices.cu). Their factors and M-step are the host's work, once a pass.
// Rows of host memory come through two buffers of a wave each, copied on a stream of their own while
// the wave before is worked on; what fits stays for the next pass over the same source. Pinned rows are
// copied from where they lie, and waited for once a chunk; others through four pinned buffers that all
// threads fill, and between two of them the host launches phases 4 and 5 if their numbers have come.
// Memory: plan.cc. One workspace serves phase 1, the segments of 3 and 4, and both tiers of 5; more
// pairs than there is room for go through phase 4 in parts of whole groups. Of size n are only 2 bytes a row
// of a source, for as many of its first rows as working memory leaves room for: its provisional home, from which
// the next pass over that source starts; rows without one start from nothing.
// Test: tests/train/cuda/cuda_estep_engine_test.cc.
#include "faiss_gmm/train/cuda/cuda_estep_engine.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/collect.h"
#include "faiss_gmm/train/cuda/detail/dense.h"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/cuda/detail/exact.h"
#include "faiss_gmm/train/cuda/detail/matrices.h"
#include "faiss_gmm/train/cuda/detail/model.h"
#include "faiss_gmm/train/cuda/detail/order.h"
#include "faiss_gmm/train/cuda/detail/plan.h"
#include "faiss_gmm/train/cuda/detail/weigh.h"
#include "faiss_gmm/train/maximization.h"

namespace faiss_gmm {
namespace cuda {
namespace {

constexpr size_t bounce_bytes = size_t{16} << 20; ///< of pageable rows that are pinned at once
constexpr size_t bounce_slice = size_t{1} << 20;  ///< that a thread copies
constexpr int bounce_count = 4;
constexpr double negligible_share =
        1e-8; ///< of a row in one component: may be left out of variances
constexpr double negligible_rest = 1e-5; ///< of a row in all components left out
constexpr float least_full_share = 1e-12f;
constexpr size_t most_components = 65536, most_dimensions = 2048;

ElementType element_of(RowElement element) {
    switch (element) {
    case RowElement::f16:
        return ElementType::f16;
    case RowElement::bf16:
        return ElementType::bf16;
    case RowElement::u8:
        return ElementType::u8;
    case RowElement::i8:
        return ElementType::i8;
    default:
        return ElementType::f32;
    }
}

/// Throws Error where rows in device memory do not lie at multiples of their numbers' size.
void require_aligned(const Chunk& chunk) {
    const size_t bytes = bytes_of(chunk.element);
    if (reinterpret_cast<uintptr_t>(chunk.x) % bytes != 0) {
        throw Error(
                {"reading rows from the device's memory",
                 fmt::format("numbers of {} bytes at an address that is no multiple of it", bytes),
                 fmt::format("addresses that are multiples of {}", bytes),
                 "copy the rows to such an address"});
    }
}

/// Whether a mixture may come of another by an M-step: its means moved by less than half of how far
/// apart they lie, in the mean of squares.
bool follows(const GaussianMixture& before, const GaussianMixture& mixture) {
    const size_t K = mixture.K, d = mixture.d;
    std::vector<double> sum(d, 0);
    double moved = 0, squares = 0;
    for (size_t i = 0; i < K * d; ++i) {
        const double mean = mixture.means[i], shift = mean - before.means[i];
        moved += shift * shift;
        squares += mean * mean;
        sum[i % d] += mean;
    }
    double spread = squares;
    for (const double value : sum) {
        spread -= value * value / static_cast<double>(K);
    }
    return moved <= spread / 4;
}

/// One set of sums in one array.
class Sums {
public:
    void reserve(size_t K, size_t d, bool diagonal) {
        array_.reserve((diagonal ? 2 : 1) * K * d + 3 * K);
    }
    void clear(size_t K, size_t d, bool diagonal, cudaStream_t stream) {
        reserve(K, d, diagonal);
        const size_t vectors = (diagonal ? 2 : 1) * K * d, count = vectors + 3 * K;
        check(cudaMemsetAsync(array_.data(), 0, count * sizeof(double), stream), "clearing sums");
        view_.first_moment = array_.data();
        view_.second_moment = diagonal ? array_.data() + K * d : nullptr;
        view_.mass = array_.data() + vectors;
        view_.moment = view_.mass + K;
        view_.log_likelihood = view_.moment + K;
    }
    void forget() {
        view_ = PassSums();
    }
    bool empty() const {
        return view_.first_moment == nullptr;
    }
    const PassSums& view() const {
        return view_;
    }

private:
    DeviceArray<double> array_;
    PassSums view_;
};

/// What the host is told once a wave; pinned.
struct WaveCounts {
    int pairs = 0;
    int
            left[most_wave_blocks +
                 1]; ///< where each block's rows of the dense tier begin, then the exact's
    unsigned long long bad_row = 0, candidates = 0; ///< of the pass until now
};

/// `count` numbers of the device, in the order of the stream.
template <class T> void read_counts(T* to, const T* from, size_t count, cudaStream_t stream) {
    check(cudaMemcpyAsync(to, from, count * sizeof(T), cudaMemcpyDeviceToHost, stream),
          "reading counts");
}

constexpr unsigned long long no_row = ~0ull;

/// Numbers on the device that are counted over a pass.
struct PassCounters {
    unsigned long long bad_row, shared_rows;
    unsigned long long candidates; ///< of rows with a list, where time_phases is set
    unsigned long long
            bad_ranked_row; ///< of one top_responsibilities(), which is no part of the pass
    double of_rows[2];      ///< log-likelihood of rows without a list, and the dense tier's moment
};

[[noreturn]] void refuse_row(unsigned long long row) {
    throw Error(
            {"running the E-step",
             fmt::format("row {} with NaN or Inf", row),
             "finite numbers",
             "remove or repair that row"});
}

/// Marks on a stream between which time is taken, if it is wanted.
class PhaseClock {
public:
    explicit PhaseClock(bool wanted) : wanted_(wanted) {}
    ~PhaseClock() {
        forget(marks_);
        forget(last_);
    }
    PhaseClock(const PhaseClock&) = delete;
    PhaseClock& operator=(const PhaseClock&) = delete;
    /// What was running until now belongs to `phase`; null: to none.
    void mark(const char* phase, cudaStream_t stream) {
        if (!wanted_) {
            return;
        }
        cudaEvent_t event = nullptr;
        check(cudaEventCreate(&event), "making a CUDA event");
        marks_.push_back({phase, event});
        check(cudaEventRecord(event, stream), "recording a CUDA event");
    }
    void start_pass() {
        forget(last_);
        last_.swap(marks_);
    }
    std::vector<std::pair<std::string, double>> last_pass() const {
        std::vector<std::pair<std::string, double>> phases;
        for (size_t i = 1; i < last_.size(); ++i) {
            float ms = 0;
            if (last_[i].phase == nullptr) {
                continue;
            }
            check(cudaEventSynchronize(last_[i].event), "waiting for a CUDA event");
            check(cudaEventElapsedTime(&ms, last_[i - 1].event, last_[i].event), "reading a time");
            const auto seen = std::find_if(phases.begin(), phases.end(), [&](const auto& phase) {
                return phase.first == last_[i].phase;
            });
            if (seen == phases.end()) {
                phases.push_back({last_[i].phase, ms});
            } else {
                seen->second += ms;
            }
        }
        return phases;
    }

private:
    struct Mark {
        const char* phase;
        cudaEvent_t event;
    };
    static void forget(std::vector<Mark>& marks) {
        for (const Mark& mark : marks) {
            cudaEventDestroy(mark.event);
        }
        marks.clear();
    }
    bool wanted_;
    std::vector<Mark> marks_, last_;
};

class Engine : public CudaEStepEngine {
public:
    ~Engine() override {
        // A pass may have been given up: nothing that is still running may lose its memory.
        cudaStreamSynchronize(copy_stream_.get());
        cudaStreamSynchronize(left_stream_.get());
        cudaStreamSynchronize(stream_.get());
    }
    /// With options.device current.
    explicit Engine(const CudaOptions& options)
            : options_(options), path_(path_for(options)), clock_(options.time_phases) {}

    void begin(const GaussianMixture& mixture, Assignment assignment) override;
    bool holds(const Chunk& chunk) override;
    void accumulate(const Chunk& chunk) override;
    SufficientStatistics finish() override;
    GaussianMixture
    maximize(const SufficientStatistics& statistics, double reg_covar) const override;
    void top_responsibilities(const Chunk& chunk, size_t m, TopResponsibilities& out) override;

    PassSummary advance(double reg_covar) override;
    void maximize_in_place(double reg_covar) override;
    void begin_again(Assignment assignment) override;
    GaussianMixture mixture() override;
    CudaPassCounts counts() const override {
        return counts_;
    }
    void rank_on_device(
            const Chunk& chunk,
            size_t m,
            int32_t* component,
            float* log_responsibility,
            float* squared_distance) override;
    std::vector<std::pair<std::string, double>> phase_milliseconds() override {
        return clock_.last_pass();
    }
    void* stream() const override {
        return stream_.get();
    }

private:
    void require_ready() const;
    void start_pass(Assignment assignment);
    PairRule rule_for(Assignment assignment) const;
    void prepare_collecting();
    /// Rows that come through the buffers `turns_`: so many at once, a wave of them at most.
    struct Staging {
        size_t rows = 0, row_bytes = 0;
        bool both = true; ///< or the next one alone
    };
    Staging staging_of(const Chunk& chunk) const;
    void reserve_wave(const Staging& staging, size_t rows_to_come);
    void reserve_for(size_t blocks, const Staging& staging);
    void release_wave();
    [[noreturn]] void refuse_for_memory() const;
    size_t wave_rows() const {
        return wave_blocks_ * block_rows_;
    }
    /// Waves end at multiples of their size, whatever chunks they come of.
    size_t rows_to_end_of_wave() const {
        return wave_rows() - processed_ % wave_rows();
    }
    void accumulate_pieces(const Chunk& chunk);
    void take_element(const Chunk& chunk);
    size_t row_bytes() const {
        return d_ * bytes_of(element_);
    }
    Rows rows_at(const void* data) const {
        return Rows(data, element_of(element_), d_);
    }
    void require_in_order(const Chunk& chunk) const;
    bool keeps(const Chunk& chunk) const;
    bool keep_a_wave_more(size_t bytes);
    void choose_row_buffer(const Chunk& chunk);
    void stage(const Chunk& chunk, size_t from, size_t count);
    void copy_from_host(void* to, const void* from, size_t bytes, cudaStream_t stream);
    void flush();
    void start_wave(const Rows& given, size_t rows, size_t first_row);
    void tell_left_rows();
    void tell_pairs();
    void end_wave();
    bool reserve_homes(size_t rows);
    void drop_homes_beyond(size_t rows);
    uint16_t* homes_of_next_rows() const;
    void choose_hints(const Chunk& chunk);
    Rows whiten(const Rows& x, size_t rows);
    void sum_scatter(const Rows& x, size_t rows);
    RowLists row_lists(const Rows& x, size_t rows, uint16_t* home) const;
    RowLists
    collect(const Rows& x,
            size_t rows,
            const PairRule& rule,
            int rank,
            uint16_t* home,
            bool home_is_hint);
    bool sums_up_rests(const PairRule& rule) const;
    size_t planned_pairs_of_wave() const {
        return planned_pairs * wave_rows();
    }
    void sum_other_pairs(int pairs, int listed, size_t from);
    void sum_pairs_of(const KeptPairs& kept, const GroupRange& range, int pairs, size_t from);
    void sum_left_rows(const int* left, cudaStream_t stream);
    size_t left_rows_bytes() const;
    size_t room_for_left_rows() const;
    bool dense_applies() const;
    DenseShape shape_of_dense_tier() const;
    SegmentSums segment_sums(bool with_likelihood, size_t from) const;
    size_t segments_at_once(size_t from) const;
    template <class Sum>
    void sum_segments(
            const Grouping& grouping,
            int items,
            bool with_likelihood,
            size_t from,
            const PassSums& into,
            const Sum& sum);
    ExactBuffers exact_buffers() const;
    void combine();
    PassSummary summarize();
    void fetch(std::vector<double>& to, const double* from, size_t count);
    void step(double reg_covar, PassSummary* summary);
    PassCounters read_counters();
    std::vector<double> fetch_scatter();
    void rank(const Rows& given, size_t rows, size_t first_row, size_t m, const TopOutput& out);
    Scratch scratch() const {
        return {scratch_.data(), scratch_.bytes()};
    }

    CudaOptions options_;
    CollectPath path_;
    PhaseClock clock_;
    OwnedStream stream_;
    Event ordered_, counted_, consumed_;
    OwnedStream left_stream_; ///< of phase 5, beside 3 and 4
    Event left_added_;
    bool ready_ = false;
    GaussianMixture before_; ///< the parameters of the pass, if before_is_current_
    bool before_is_current_ = false;
    size_t K_ = 0, d_ = 0;
    Covariance covariance_ = Covariance::tied_spherical;
    Assignment assignment_ = Assignment::soft;
    PairRule rule_;
    DeviceMixture mixture_;

    CollectModel collect_model_;
    DeviceArray<uint16_t> collect_operand_;
    DeviceArray<float> collect_columns_, collect_scale_;
    /// For what works on a wave: collecting, the segments' sums, the dense and the exact tier, one after the
    /// other but for phase 5, which may have a part beside 3 and 4. Nothing stays in it.
    DeviceBytes workspace_;
    size_t workspace_bytes_ = 0, scratch_bytes_ = 0; ///< what is to be held
    size_t planned_blocks_ = 0;                      ///< for waves of these

    // Of a wave.
    size_t block_rows_ = 0, wave_blocks_ = 0;
    bool long_waves_asked_ = false; ///< wave_blocks_ is what there was room for of long ones
    DeviceArray<uint16_t> component_, home_;
    /// Provisional homes of the first rows of source hinted_source_, most_wave_rows in each array: the next
    /// pass's hints.
    std::vector<DeviceArray<uint16_t>> homes_;
    uint64_t hinted_source_ = 0;
    size_t homes_planned_ = 0; ///< rows, where the blocks of a wave were chosen
    size_t homes_fitting_ = 0; ///< rows, by what working memory leaves
    size_t homes_allowed_ = 0; ///< rows, by what gpu_memory leaves beside these blocks
    size_t homes_known_ = 0;   ///< rows whose homes are known from passes before
    size_t homes_seen_ = 0;    ///< in this pass
    DeviceArray<uint8_t> count_, kept_;
    DeviceArray<float> share_, weight_, rest_;
    DeviceArray<uint16_t> error_;
    DeviceArray<AgainstHome> against_;
    DeviceArray<uint32_t> row_keys_, row_numbers_, pair_keys_;
    DeviceArray<RowShare> pairs_;
    DeviceArray<int> first_pair_, group_offset_, group_first_, left_count_;
    DeviceArray<char> scratch_;
    DeviceArray<double> row_values_, row_tiles_; ///< of rows without a list: likelihoods, moments
    DeviceArray<float> white_high_, white_low_;
    DeviceArray<float> dense_scale_;
    DeviceBytes dense_operand_;
    bool dense_is_prepared_ = false; ///< for this pass
    PinnedBytes host_counts_;
    /// The wave that is under way: phases 1 to 3 are launched.
    struct Wave {
        bool open = false;
        RowLists lists;
        Grouping grouping;
        const uint32_t* order = nullptr;
        size_t first_row = 0;
        size_t segments_from = 0; ///< byte of the workspace: what lies before it is phase 5's
    };
    Wave wave_;

    // Rows on their way from the host, or from chunks that end within a block.
    struct RowBuffer {
        DeviceBytes rows;
        Event filled, used; ///< on the copying stream, on the working stream
    };
    OwnedStream copy_stream_;
    RowBuffer turns_[2];
    int turn_ = 0;
    /// Waves of source cached_source_, from its first row on.
    std::vector<std::unique_ptr<RowBuffer>> cache_;
    uint64_t cached_source_ = 0;
    size_t cached_wave_bytes_ = 0;
    RowElement cached_element_ = RowElement::f32;
    size_t cached_rows_ = 0; ///< that lie in cache_, from the source's first on
    RowBuffer* filling_ = nullptr;
    RowBuffer* in_use_ = nullptr; ///< by the wave under way
    bool filling_stays_ = false;  ///< *filling_ is of cache_
    size_t filling_room_ = 0;     ///< rows that *filling_ takes
    size_t filling_first_ = 0;    ///< number of its first row in its source
    size_t staged_ = 0;           ///< rows in *filling_
    struct Bounce {
        PinnedBytes memory;
        Event sent;
    };
    Bounce bounces_[bounce_count];
    int bounce_ = 0;
    bool reads_chunk_ = false; ///< copies from the chunk's own memory may be under way

    // Of a pass.
    RowElement element_ = RowElement::f32; ///< of its rows
    size_t rows_ = 0, processed_ = 0;
    CudaPassCounts counts_;
    Sums home_sums_, pair_sums_, dense_sums_, exact_sums_, total_;
    DeviceArray<double> scatter_sums_;
    Scatter scatter_;
    DeviceArray<PassCounters> counters_;
};

void Engine::require_ready() const {
    if (!ready_) {
        throw Error(
                {"running the E-step",
                 "rows before a mixture",
                 "begin(mixture) first",
                 "call begin()"});
    }
}

void Engine::begin(const GaussianMixture& mixture, Assignment assignment) {
    mixture.check();
    const std::string refused = cuda_refuses(mixture.covariance, mixture.K, mixture.d);
    if (!refused.empty()) {
        throw Error({"running the E-step on the GPU", refused, cuda_limits(), "choose engine=cpu"});
    }
    const DeviceGuard guard(options_.device);
    ready_ = false;
    const bool same_shape = K_ == mixture.K && d_ == mixture.d && covariance_ == mixture.covariance;
    if (!same_shape) {
        // What fitted says nothing of this shape.
        wave_blocks_ = planned_blocks_ = 0;
        release_wave(); // its parameters may need the room
        homes_.clear();
        scratch_.release();
        group_offset_.release();
        group_first_.release();
    }
    if (!same_shape || !before_is_current_ || !follows(before_, mixture)) {
        homes_seen_ = 0; // homes under another mixture are no hints
    }
    K_ = mixture.K;
    d_ = mixture.d;
    covariance_ = mixture.covariance;
    before_ = mixture;
    before_is_current_ = true;
    block_rows_ = block_rows_for(d_);
    try {
        mixture_.upload(mixture, stream_.get());
        start_pass(assignment);
    } catch (const OutOfMemory&) {
        refuse_for_memory();
    }
}

/// Too little memory for the least wave.
void Engine::refuse_for_memory() const {
    const CudaPlan least = plan_for(options_, covariance_, 0, K_, d_, 1);
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    throw OutOfMemory(
            {fmt::format(
                     "running the E-step for K = {}, d = {} on device {}", K_, d_, options_.device),
             fmt::format(
                     "{} of {} MiB of its memory free, beside what the engine has of it already",
                     free >> 20,
                     total >> 20),
             fmt::format("{} MiB for the engine ({})", (least.total() >> 20) + 1, least.text()),
             "free device memory, ask for fewer components, or choose engine=cpu"});
}

void Engine::begin_again(Assignment assignment) {
    require_ready();
    const DeviceGuard guard(options_.device);
    start_pass(assignment);
}

PairRule Engine::rule_for(Assignment assignment) const {
    PairRule rule;
    rule.hard = assignment == Assignment::hard;
    if (rule.hard) {
        return rule;
    }
    const double K = static_cast<double>(K_);
    const bool tied = covariance_ == Covariance::tied_spherical || covariance_ == Covariance::tied;
    const double otherwise =
            tied ? negligible_rest : std::min(negligible_share, negligible_rest / K);
    const double threshold = options_.pair_threshold > 0 ? options_.pair_threshold : otherwise;
    rule.threshold = static_cast<float>(threshold);
    rule.margin = static_cast<float>(std::max(std::log(K / negligible_rest), -std::log(threshold)));
    // Less than gets a share, and together with others like it still little.
    rule.significant = static_cast<float>(-std::log(std::min(threshold, negligible_rest)));
    return rule;
}

void Engine::start_pass(Assignment assignment) {
    clock_.start_pass();
    clock_.mark(nullptr, stream_.get());
    assignment_ = assignment;
    rule_ = rule_for(assignment);
    rows_ = processed_ = staged_ = 0;
    wave_.open = false;
    in_use_ = nullptr;
    counts_ = CudaPassCounts();
    const bool diagonal = covariance_ == Covariance::diagonal;
    home_sums_.clear(K_, d_, diagonal, stream_.get());
    pair_sums_.clear(K_, d_, diagonal, stream_.get());
    scatter_ = scatter_for(covariance_, K_, d_);
    const size_t outer = scatter_.numbers(d_);
    if (outer > 0) {
        scatter_sums_.reserve(outer);
        scatter_.sums = scatter_sums_.data();
        scatter_.first = scatter_.sums + size_t(scatter_.slots) * scatter_.matrices * d_ * d_;
        check(cudaMemsetAsync(scatter_.sums, 0, outer * sizeof(double), stream_.get()),
              "clearing sums");
    }
    exact_sums_.forget();
    dense_sums_.forget();
    dense_is_prepared_ = false;
    counters_.reserve(1);
    check(cudaMemsetAsync(counters_.data(), 0, sizeof(PassCounters), stream_.get()),
          "clearing counters");
    check(cudaMemsetAsync(&counters_.data()->bad_row, 0xff, sizeof(no_row), stream_.get()),
          "clearing counters");
    if (covariance_ != Covariance::full) {
        prepare_collecting();
    }
    if (dense_applies()) {
        dense_scale_.reserve(
                dense_scale_count(covariance_, static_cast<int>(K_), static_cast<int>(d_)));
        find_dense_scales(
                mixture_.view(),
                mixture_.origin(),
                shape_of_dense_tier(),
                dense_scale_.data(),
                stream_.get());
    }
    clock_.mark("prepare", stream_.get());
    ready_ = true;
}

void Engine::prepare_collecting() {
    const MixtureView view = mixture_.view();
    CollectModelSource source;
    source.form = form_of(covariance_);
    source.K = static_cast<int64_t>(K_);
    source.d = static_cast<int64_t>(d_);
    source.means = view.means;
    source.origin = mixture_.origin();
    source.half_precision = view.half_precision;
    source.constant = view.constant;
    const CollectModelBytes bytes =
            collect_model_bytes(collect_model_shape(source.form, source.K, source.d));
    collect_operand_.reserve(bytes.operand / sizeof(uint16_t));
    collect_columns_.reserve(bytes.columns / sizeof(float));
    collect_scale_.reserve(bytes.scale / sizeof(float));
    collect_model_.operand = collect_operand_.data();
    collect_model_.columns = collect_columns_.data();
    collect_model_.scale = collect_scale_.data();
    prepare_collect_model(source, collect_model_, stream_.get());
}

/// Of a chunk that is accumulated. Of rows on the device only what does not fill a block waits for more.
Engine::Staging Engine::staging_of(const Chunk& chunk) const {
    Staging staging;
    staging.row_bytes = row_bytes();
    if (chunk.memory == Chunk::Memory::host) {
        staging.rows = most_wave_rows;
    } else if (!chunk.last && (staged_ + chunk.n) % block_rows_ != 0) {
        staging.rows = block_rows_;
    }
    return staging;
}

/// Buffers for a wave: as many blocks as memory allows, any number of them gives the same bits.
void Engine::reserve_wave(const Staging& staging, size_t rows_to_come) {
    const size_t source_rows = rows_ + rows_to_come;
    // Rows from the host come no quicker in longer waves, and the first of them later.
    const bool asks_for_long = staging.rows <= block_rows_ && rows_to_come > usual_wave_rows;
    const bool has_begun = rows_ > 0 || staged_ > 0 || wave_.open;
    size_t blocks = wave_blocks_;
    if (blocks == 0 || (asks_for_long && !long_waves_asked_ && !has_begun)) {
        const size_t at_once = asks_for_long ? rows_to_come : 0;
        const size_t fitting = wave_blocks_for(options_, covariance_, source_rows, at_once, K_, d_);
        if (fitting >= blocks) { // otherwise there stay as many as are: what they take would stay
            blocks = fitting;
            homes_planned_ = source_rows;
            if (options_.gpu_memory > 0) {
                drop_homes_beyond(source_rows);
            }
        }
        long_waves_asked_ = asks_for_long;
    }
    while (true) {
        // A wave that has begun keeps its size.
        const bool may_shrink = blocks > 1 && staged_ == 0 && !wave_.open;
        try {
            reserve_for(blocks, staging);
            if (reserve_homes(source_rows) || !may_shrink) { // without hints all rows are surveyed
                wave_blocks_ = blocks;
                return;
            }
        } catch (const OutOfMemory&) {
            if (!may_shrink) {
                refuse_for_memory();
            }
        }
        release_wave();
        blocks /= 2;
    }
}

/// What grows with a wave, and the rows that stay.
void Engine::release_wave() {
    turns_[0].rows.release();
    turns_[1].rows.release();
    pair_keys_.release();
    pairs_.release();
    component_.release();
    share_.release();
    rest_.release();
    error_.release();
    against_.release();
    weight_.release();
    white_high_.release();
    white_low_.release();
    cache_.clear();
    cached_rows_ = 0;
    workspace_.release();
}

/// All that a wave needs.
void Engine::reserve_for(size_t blocks, const Staging& staging) {
    const size_t rows = blocks * block_rows_, groups = blocks * K_, pairs = planned_pairs * rows;
    const bool diagonal = covariance_ == Covariance::diagonal;
    component_.reserve(rows * pass_capacity);
    share_.reserve(rows * pass_capacity);
    rest_.reserve(rows);
    error_.reserve(rows * pass_capacity);
    against_.reserve(rows);
    weight_.reserve(rows);
    count_.reserve(rows);
    home_.reserve(rows);
    kept_.reserve(rows);
    row_keys_.reserve(2 * rows);
    row_numbers_.reserve(2 * rows);
    first_pair_.reserve(rows + 1);
    for (RowBuffer& turn : turns_) {
        const bool is_wanted = staging.both || &turn != &turns_[turn_];
        if (is_wanted && (staged_ == 0 || &turn != filling_)) { // what is being filled stays
            turn.rows.reserve(std::min(staging.rows, rows) * staging.row_bytes);
        }
    }
    if (covariance_ == Covariance::tied) {
        white_high_.reserve(rows * d_);
        white_low_.reserve(rows * d_);
    }
    pair_keys_.reserve(2 * pairs);
    pairs_.reserve(2 * pairs);
    group_offset_.reserve(groups + blocks + 2);
    group_first_.reserve(groups + 1);
    row_values_.reserve(2 * rows);
    row_tiles_.reserve(2 * (rows / 1024 + 1));
    host_counts_.reserve(sizeof(WaveCounts));
    if (dense_applies()) {
        dense_operand_.reserve(dense_bytes(shape_of_dense_tier()).pass);
        dense_sums_.reserve(K_, d_, diagonal);
    }
    exact_sums_.reserve(K_, d_, diagonal);
    total_.reserve(K_, d_, diagonal);
    if (planned_blocks_ != blocks) {
        const CudaPlan plan = plan_for(options_, covariance_, 0, K_, d_, blocks);
        workspace_bytes_ = plan.workspace();
        scratch_bytes_ = sorting_bytes(rows, groups, pairs).scratch;
        const size_t room = std::max(options_.gpu_memory, plan.total()) - plan.total();
        homes_fitting_ = most_homes(options_, covariance_, K_, d_);
        homes_allowed_ = options_.gpu_memory == 0
                                 ? homes_fitting_
                                 : room / sizeof(uint16_t) / most_wave_rows * most_wave_rows;
        planned_blocks_ = blocks;
    }
    workspace_.reserve(workspace_bytes_);
    scratch_.reserve(scratch_bytes_);
}

/// Segments whose sums the workspace holds from byte `from` on; whole blocks of threads.
size_t Engine::segments_at_once(size_t from) const {
    return (workspace_.size() - from) / segment_bytes(covariance_, d_) / segment_rows *
           segment_rows;
}

SegmentSums Engine::segment_sums(bool with_likelihood, size_t from) const {
    const size_t segments = segments_at_once(from);
    auto* vectors = reinterpret_cast<float*>(static_cast<char*>(workspace_.data()) + from);
    SegmentSums sums;
    sums.first_moment = vectors;
    vectors += segments * d_;
    if (covariance_ == Covariance::diagonal) {
        sums.second_moment = vectors;
        vectors += segments * d_;
    }
    sums.mass = reinterpret_cast<double*>(vectors);
    sums.moment = sums.mass + segments;
    sums.log_likelihood = with_likelihood ? sums.moment + segments : nullptr;
    return sums;
}

/// sum(table, segments, sums, whether they are the last) for as many segments of the groups of `items` as
/// the workspace holds from byte `from` on, adds what they leave to `into`, and goes on with the next.
template <class Sum>
void Engine::sum_segments(
        const Grouping& grouping,
        int items,
        bool with_likelihood,
        size_t from,
        const PassSums& into,
        const Sum& sum) {
    const cudaStream_t stream = stream_.get();
    const GroupArrays arrays{group_offset_.data(), group_first_.data()};
    const SegmentTable table{grouping.groups(), arrays.offset, arrays.first};
    const SegmentSums sums = segment_sums(with_likelihood, from);
    const int at_once = static_cast<int>(
            std::min<size_t>(segments_at_once(from), std::numeric_limits<int>::max() / 2));
    for (int left = static_cast<int>(most_segments(items, grouping.groups())); left > 0;
         left -= at_once) {
        const int here = std::min(left, at_once);
        sum(table, here, sums, here == left);
        add_segments(grouping, static_cast<int>(d_), table, here, sums, into, stream);
        if (here < left) {
            skip_segments(arrays, grouping.groups(), here, stream);
        }
    }
}

ExactBuffers Engine::exact_buffers() const {
    ExactBuffers buffers;
    buffers.rows = static_cast<int>(exact_rows_for(K_));
    buffers.joint = static_cast<double*>(workspace_.data());
    buffers.share = buffers.joint + buffers.rows * K_;
    return buffers;
}

bool Engine::holds(const Chunk& chunk) {
    require_ready();
    if (chunk.source == 0 || chunk.source != cached_source_ || chunk.first != rows_ ||
        (rows_ > 0 && element_ != cached_element_)) {
        return false;
    }
    const DeviceGuard guard(options_.device);
    reserve_wave(staging_of(chunk), chunk.n); // here: it may cost what was kept
    return keeps(chunk);
}

/// Whether the rows are in cache_ now, and the pass is about to take them from there: after rows of device
/// memory it may have left it until the next wave.
bool Engine::keeps(const Chunk& chunk) const {
    const bool on_the_way = staged_ > 0 ? filling_stays_ : processed_ % wave_rows() == 0;
    return on_the_way && chunk.source != 0 && chunk.source == cached_source_ &&
           chunk.memory == Chunk::Memory::host &&
           cached_wave_bytes_ == wave_rows() * d_ * bytes_of(cached_element_) &&
           chunk.first + chunk.n <= cached_rows_;
}

/// What is kept of a source, rows and homes, is kept by a row's place in the pass.
void Engine::require_in_order(const Chunk& chunk) const {
    if (chunk.source != 0 && chunk.first != rows_) {
        throw Error(
                {"running the E-step",
                 fmt::format(
                         "rows from {} on of a source, after {} rows of the pass",
                         chunk.first,
                         rows_),
                 "a source's rows in their order, from the first one on",
                 "begin() anew, or give Chunk::source = 0 for a part of the rows"});
    }
}

void Engine::accumulate(const Chunk& chunk) {
    require_ready();
    if (chunk.n == 0) {
        return;
    }
    require_in_order(chunk);
    const DeviceGuard guard(options_.device);
    const bool on_device = chunk.memory == Chunk::Memory::device;
    take_element(chunk);
    choose_hints(chunk);
    reserve_wave(staging_of(chunk), chunk.n);
    if (chunk.x == nullptr && !keeps(chunk)) {
        throw Error(
                {"running the E-step",
                 fmt::format("{} rows without an address", chunk.n),
                 "such rows only where holds() has just said so",
                 "give the rows"});
    }
    if (on_device) {
        consumed_.record(static_cast<cudaStream_t>(chunk.stream));
        consumed_.block(stream_.get());
    }
    try {
        accumulate_pieces(chunk);
        if (on_device) {
            end_wave(); // it may read the chunk
        }
    } catch (...) {
        cudaStreamSynchronize(copy_stream_.get()); // the caller may give the chunk up
        cudaStreamSynchronize(left_stream_.get());
        cudaStreamSynchronize(stream_.get());
        reads_chunk_ = false;
        throw;
    }
    rows_ += chunk.n;
    if (on_device) {
        consumed_.record(stream_.get());
        consumed_.block(static_cast<cudaStream_t>(chunk.stream));
    } else if (reads_chunk_) {
        copy_stream_.synchronize();
        reads_chunk_ = false;
    }
}

void Engine::accumulate_pieces(const Chunk& chunk) {
    const bool on_device = chunk.memory == Chunk::Memory::device;
    for (size_t from = 0; from < chunk.n;) {
        const size_t left = chunk.n - from;
        size_t take;
        if (on_device && staged_ == 0 && (left >= block_rows_ || chunk.last)) {
            // In place: whole blocks, and the rest too where nothing follows.
            take = std::min(left, rows_to_end_of_wave());
            if (!(chunk.last && take == left)) {
                take = take / block_rows_ * block_rows_;
            }
            const char* rows = static_cast<const char*>(chunk.x) + from * row_bytes();
            start_wave(rows_at(rows), take, chunk.first + from);
        } else {
            if (staged_ == 0) {
                choose_row_buffer(chunk);
                filling_first_ = chunk.first + from;
            }
            // Rows of device memory only fill up a block, then go on in place.
            const size_t room =
                    on_device ? block_rows_ - staged_ % block_rows_ : filling_room_ - staged_;
            take = std::min(left, room);
            stage(chunk, from, take);
            if (on_device ? staged_ % block_rows_ == 0 : staged_ == filling_room_) {
                flush();
            }
        }
        from += take;
    }
}

/// The element type of the pass is that of its first chunk.
void Engine::take_element(const Chunk& chunk) {
    const RowElement element = chunk.x == nullptr ? cached_element_ : chunk.element; // see holds()
    if (chunk.memory == Chunk::Memory::device) {
        require_aligned(chunk);
    }
    if (rows_ == 0) {
        element_ = element;
    }
    if (element != element_) {
        throw Error(
                {"running the E-step",
                 fmt::format(
                         "a chunk of numbers of {} bytes, or of another kind, after numbers of {}",
                         bytes_of(element),
                         bytes_of(element_)),
                 "one element type in a pass",
                 "convert the rows, or begin() anew"});
    }
}

/// One buffer more for a wave that stays. False: there is no room for it.
bool Engine::keep_a_wave_more(size_t bytes) {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    // The two buffers that take turns must fit too.
    if (free <= total / 8 + 3 * bytes || (cache_.size() + 1) * bytes > options_.gpu_cache) {
        return false;
    }
    auto buffer = std::make_unique<RowBuffer>();
    try {
        buffer->rows.reserve(bytes);
    } catch (const OutOfMemory&) { // what was free is somebody else's by now
        return false;
    }
    cache_.push_back(std::move(buffer));
    return true;
}

/// Where the next rows go: to the cache if they are to stay, or else to the buffer whose turn it is.
void Engine::choose_row_buffer(const Chunk& chunk) {
    const bool on_device = chunk.memory == Chunk::Memory::device;
    const size_t wave = processed_ / wave_rows();
    const size_t bytes = (on_device ? block_rows_ : wave_rows()) * row_bytes();
    const bool may_stay = chunk.source != 0 && !on_device && options_.gpu_cache > 0 &&
                          processed_ % wave_rows() == 0;
    const bool others = chunk.source != cached_source_ || cached_wave_bytes_ != bytes ||
                        cached_element_ != element_;
    if (may_stay && wave == 0 && others) {
        cache_.clear();
        cached_rows_ = 0;
        cached_source_ = chunk.source;
        cached_wave_bytes_ = bytes;
        cached_element_ = element_;
    }
    const bool stays = may_stay && chunk.source == cached_source_;
    filling_stays_ =
            stays && (wave < cache_.size() || (wave == cache_.size() && keep_a_wave_more(bytes)));
    if (filling_stays_) {
        filling_ = cache_[wave].get();
    } else {
        turn_ = 1 - turn_;
        filling_ = &turns_[turn_];
        filling_->rows.reserve(bytes);
    }
    filling_room_ = on_device ? block_rows_ : rows_to_end_of_wave();
    filling_->used.block(copy_stream_.get());
}

/// Copies rows of the chunk behind those that wait for their block to fill.
void Engine::stage(const Chunk& chunk, size_t from, size_t count) {
    const cudaStream_t copying = copy_stream_.get();
    if (filling_stays_) { // what the cache has need not come again
        const size_t first = processed_ + staged_;
        const size_t there = std::min(count, std::max(cached_rows_, first) - first);
        staged_ += there;
        from += there;
        count -= there;
    }
    if (count == 0) {
        return;
    }
    char* to = static_cast<char*>(filling_->rows.data()) + staged_ * row_bytes();
    staged_ += count;
    const char* rows = static_cast<const char*>(chunk.x) + from * row_bytes();
    const size_t bytes = count * row_bytes();
    if (chunk.memory == Chunk::Memory::host) {
        copy_from_host(to, rows, bytes, copying);
        return;
    }
    consumed_.block(copying); // here: until the chunk is there to be read
    check(cudaMemcpyAsync(to, rows, bytes, cudaMemcpyDeviceToDevice, copying), "copying rows");
    filling_->filled.record(copying);
    filling_->filled.block(stream_.get()); // and before the chunk may be written again
}

/// Pinned memory goes directly (accumulate() waits for it), the rest by way of pinned buffers.
void Engine::copy_from_host(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    cudaPointerAttributes attributes{};
    const bool known = cudaPointerGetAttributes(&attributes, from) == cudaSuccess;
    if (!known) {
        cudaGetLastError();
    }
    if (known && attributes.type == cudaMemoryTypeHost) {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copying rows");
        reads_chunk_ = true;
        return;
    }
    const char* source = static_cast<const char*>(from);
    char* target = static_cast<char*>(to);
    for (size_t first = 0; first < bytes; first += bounce_bytes) {
        const size_t here = std::min(bounce_bytes, bytes - first);
        if (wave_.open && counted_.reached()) {
            end_wave();
        }
        Bounce& bounce = bounces_[bounce_];
        bounce_ = (bounce_ + 1) % bounce_count;
        bounce.memory.reserve(bounce_bytes);
        bounce.sent.synchronize();
        char* pinned = static_cast<char*>(bounce.memory.data());
        const auto slices = static_cast<int64_t>((here + bounce_slice - 1) / bounce_slice);
#pragma omp parallel for schedule(static) if (slices > 1)
        for (int64_t s = 0; s < slices; ++s) {
            const size_t at = static_cast<size_t>(s) * bounce_slice;
            std::memcpy(pinned + at, source + first + at, std::min(bounce_slice, here - at));
        }
        check(cudaMemcpyAsync(target + first, pinned, here, cudaMemcpyHostToDevice, stream),
              "copying rows");
        bounce.sent.record(stream);
    }
}

void Engine::flush() {
    if (staged_ == 0) {
        return;
    }
    const size_t rows = staged_;
    staged_ = 0;
    RowBuffer& buffer = *filling_;
    buffer.filled.record(copy_stream_.get());
    end_wave(); // before the working stream waits for these rows
    buffer.filled.block(stream_.get());
    if (filling_stays_ && processed_ <= cached_rows_) { // no gap before them
        cached_rows_ = std::max(cached_rows_, processed_ + rows);
    }
    start_wave(rows_at(buffer.rows.data()), rows, filling_first_);
    in_use_ = &buffer;
}

/// The rows as the view of the mixture scores them.
Rows Engine::whiten(const Rows& x, size_t rows) {
    if (covariance_ != Covariance::tied) {
        return x;
    }
    const auto d = static_cast<int>(d_);
    whiten_rows(
            x,
            rows,
            d,
            mixture_.given_origin(),
            mixture_.inverse(),
            white_high_.data(),
            white_low_.data(),
            stream_.get());
    return Rows(white_high_.data(), ElementType::f32, d_, white_low_.data());
}

/// Of tied: the outer products of all rows, block by block.
void Engine::sum_scatter(const Rows& x, size_t rows) {
    for (size_t first = 0; first < rows; first += block_rows_) {
        Rows block = x;
        block.data = static_cast<const char*>(x.data) + first * d_ * element_bytes(x.type);
        add_scatter(
                block,
                static_cast<int>(std::min(block_rows_, rows - first)),
                static_cast<int>(d_),
                mixture_.given_origin(),
                scatter_,
                stream_.get());
    }
}

RowLists Engine::row_lists(const Rows& x, size_t rows, uint16_t* home) const {
    RowLists lists;
    lists.x = x;
    lists.rows = static_cast<int>(rows);
    lists.capacity = pass_capacity;
    lists.component = component_.data();
    lists.count = count_.data();
    lists.home = home;
    lists.share = share_.data();
    lists.error = error_.data();
    lists.against = against_.data();
    return lists;
}

/// Whether candidates that get no share are summed up where they are found, without a place in a list.
bool Engine::sums_up_rests(const PairRule& rule) const {
    return form_of(covariance_) == CollectForm::linear && !rule.hard &&
           rule.significant < rule.margin;
}

/// Phase 1. Rank 1: all that the rule asks for; more: the best by the quick scores.
RowLists Engine::collect(
        const Rows& x,
        size_t rows,
        const PairRule& rule,
        int rank,
        uint16_t* home,
        bool home_is_hint) {
    RowLists lists = row_lists(x, rows, home);
    if (options_.tier != CudaTier::automatic || covariance_ == Covariance::full) {
        check(cudaMemsetAsync(lists.count, 0, rows, stream_.get()), "clearing lists");
        check(cudaMemsetAsync(lists.home, 0, rows * sizeof(*lists.home), stream_.get()),
              "clearing homes");
        return lists;
    }
    CollectInput input;
    input.rows = x.data;
    input.type = x.type;
    input.n = static_cast<int64_t>(rows);
    // The bounds know nothing of the rounding of the margin itself.
    const auto widened = [](float nats) { return nats * 1.0001f + 1e-4f; };
    input.margin = widened(rank == 1 ? rule.margin : 0);
    input.rank = rank;
    input.hint = home_is_hint ? home : nullptr;
    CollectOutput output;
    output.component = lists.component;
    output.count = lists.count;
    output.best = lists.home;
    output.capacity = lists.capacity;
    if (rank == 1 && sums_up_rests(rule)) {
        input.significant = widened(rule.significant);
        output.rest = rest_.data();
        lists.rest = rest_.data();
    }
    collect_candidates(collect_model_, input, output, path_, workspace_.data(), stream_.get());
    return lists;
}

/// Those of a longer source, which a plan for this one does not count.
void Engine::drop_homes_beyond(size_t rows) {
    const size_t arrays = (rows + most_wave_rows - 1) / most_wave_rows;
    homes_.resize(std::min(homes_.size(), arrays));
    homes_seen_ = std::min(homes_seen_, homes_.size() * most_wave_rows);
    homes_known_ = std::min(homes_known_, homes_.size() * most_wave_rows);
}

/// Room for the homes of the source's first rows. False: too little memory for more than there is.
bool Engine::reserve_homes(size_t rows) {
    const size_t allowed = std::min(homes_fitting_, std::max(homes_allowed_, homes_planned_));
    const size_t needed = hinted_source_ == 0 ? 0 : std::min(rows, allowed);
    while (homes_.size() * most_wave_rows < needed) {
        DeviceArray<uint16_t> more;
        try {
            more.reserve(most_wave_rows);
        } catch (const OutOfMemory&) {
            return false;
        }
        homes_.push_back(std::move(more));
    }
    return true;
}

/// Where those of the pass's next rows belong, up to the end of a wave; null: there is no room for them.
uint16_t* Engine::homes_of_next_rows() const {
    const size_t array = processed_ / most_wave_rows;
    return hinted_source_ == 0 || array >= homes_.size()
                   ? nullptr
                   : homes_[array].data() + processed_ % most_wave_rows;
}

/// Hints are those of the pass before over the same source.
void Engine::choose_hints(const Chunk& chunk) {
    if (rows_ > 0) {
        return;
    }
    if (chunk.source != hinted_source_) {
        hinted_source_ = chunk.source;
        homes_seen_ = 0;
    }
    homes_known_ = homes_seen_;
    homes_seen_ = 0;
}

/// Phases 1 to 3 of a wave; all waves but the last one of a pass are whole blocks. The rows must stay
/// until end_wave().
void Engine::start_wave(const Rows& given, size_t rows, size_t first_row) {
    end_wave();
    const cudaStream_t stream = stream_.get();
    const Rows x = whiten(given, rows);
    if (covariance_ == Covariance::tied) {
        sum_scatter(given, rows);
        clock_.mark("whiten", stream);
    }
    wave_.first_row = first_row;
    Grouping& grouping = wave_.grouping;
    grouping.K = static_cast<int>(K_);
    grouping.block_rows = static_cast<int>(block_rows_);
    grouping.blocks = static_cast<int>((rows + block_rows_ - 1) / block_rows_);
    uint16_t* homes = homes_of_next_rows();
    const bool homes_stay = homes != nullptr;
    wave_.lists =
            collect(x,
                    rows,
                    rule_,
                    1,
                    homes_stay ? homes : home_.data(),
                    homes_stay && processed_ + rows <= homes_known_);
    homes_seen_ = homes_stay ? processed_ + rows : homes_seen_;
    classify_left_rows(
            mixture_.view(),
            mixture_.origin(),
            dense_applies() ? dense_scale_.data() : nullptr,
            wave_.lists,
            stream);
    clock_.mark("collect", stream);
    if (options_.time_phases) {
        count_candidates(wave_.lists, &counters_.data()->candidates, stream);
        clock_.mark("count candidates", stream);
    }
    const GroupArrays arrays{group_offset_.data(), group_first_.data()};
    wave_.order = order_rows(
            wave_.lists,
            grouping,
            row_keys_.data(),
            row_numbers_.data(),
            arrays,
            scratch(),
            stream);
    tell_left_rows();
    clock_.mark("order", stream);
    WeighOutput weighed;
    weighed.kept = kept_.data();
    weighed.weight = weight_.data();
    weighed.shared_rows = &counters_.data()->shared_rows;
    weighed.bad_row = &counters_.data()->bad_row;
    compare_candidates(
            mixture_.view(),
            wave_.lists,
            wave_.order,
            group_offset_.data() + grouping.groups(),
            stream);
    clock_.mark("compare", stream);
    const auto weigh_segments =
            [&](const SegmentTable& table, int segments, const SegmentSums& sums, bool last) {
                weighed.sums = sums;
                weigh(mixture_.view(),
                      rule_,
                      wave_.lists,
                      wave_.order,
                      table,
                      segments,
                      first_row,
                      weighed,
                      stream);
                clock_.mark("weigh", stream);
                if (last) {
                    tell_pairs();
                }
            };
    wave_.segments_from = room_for_left_rows();
    sum_segments(
            grouping,
            static_cast<int>(rows),
            true,
            wave_.segments_from,
            home_sums_.view(),
            weigh_segments);
    clock_.mark("add homes", stream);
    wave_.open = true;
    processed_ += rows;
    counts_.rows += rows;
}

/// How many rows phase 5 has to do.
void Engine::tell_left_rows() {
    const int* listed = group_offset_.data() + wave_.grouping.groups();
    auto* counts = static_cast<WaveCounts*>(host_counts_.data());
    read_counts(counts->left, listed, wave_.grouping.blocks + 1, stream_.get());
    ordered_.record(stream_.get());
}

/// Where the pairs of the weighed rows go, and what the host needs to know of them.
void Engine::tell_pairs() {
    const cudaStream_t stream = stream_.get();
    const int* listed = group_offset_.data() + wave_.grouping.groups();
    const int rows = wave_.lists.rows;
    place_pairs(kept_.data(), rows, listed, first_pair_.data(), scratch(), stream);
    auto* counts = static_cast<WaveCounts*>(host_counts_.data());
    read_counts(&counts->pairs, first_pair_.data() + rows, 1, stream);
    read_counts(&counts->bad_row, &counters_.data()->bad_row, 1, stream);
    read_counts(&counts->candidates, &counters_.data()->candidates, 1, stream);
    counted_.record(stream);
    clock_.mark("place pairs", stream);
}

/// Phases 4 and 5 of the wave that is under way.
void Engine::end_wave() {
    if (!wave_.open) {
        return;
    }
    wave_.open = false;
    const cudaStream_t stream = stream_.get();
    const auto* counts = static_cast<const WaveCounts*>(host_counts_.data());
    ordered_.synchronize();
    const int rows = wave_.lists.rows, listed = counts->left[0];
    const bool beside = listed < rows && wave_.segments_from > 0;
    try {
        if (beside) {
            sum_left_rows(counts->left, left_stream_.get());
            left_added_.record(left_stream_.get());
        }
        counted_.synchronize();
        if (counts->bad_row != no_row && listed == rows) {
            // Of all rows so far; with rows left a lower one may follow.
            refuse_row(counts->bad_row);
        }
        if (counts->pairs > 0) {
            sum_other_pairs(counts->pairs, listed, beside ? wave_.segments_from : 0);
            clock_.mark("sum pairs", stream);
        }
    } catch (...) {
        // What comes next on the other stream does not wait for this one.
        cudaStreamSynchronize(left_stream_.get());
        throw;
    }
    if (beside) {
        left_added_.block(stream);
        clock_.mark("rows without a list, after others", stream);
    } else if (listed < rows) {
        sum_left_rows(counts->left, stream);
    }
    if (in_use_ != nullptr) {
        in_use_->used.record(stream);
        in_use_ = nullptr;
    }
    counts_.pairs += counts->pairs;
    counts_.candidates = counts->candidates;
    const int exact = rows - counts->left[wave_.grouping.blocks];
    counts_.exact_rows += exact;
    counts_.dense_rows += rows - listed - exact;
}

/// Phase 4. More pairs than planned take turns: as many groups at once as there is room for. A row has one
/// pair at most with a component, so a group always fits.
void Engine::sum_other_pairs(int pairs, int listed, size_t from) {
    const cudaStream_t stream = stream_.get();
    KeptPairs kept;
    kept.lists = wave_.lists;
    kept.grouping = wave_.grouping;
    kept.order = wave_.order;
    kept.kept = kept_.data();
    kept.sorted_rows = listed;
    const int groups = kept.grouping.groups();
    const size_t room = planned_pairs_of_wave();
    if (static_cast<size_t>(pairs) <= room) {
        sum_pairs_of(kept, {0, groups}, pairs, from); // place_pairs() has placed them
        return;
    }
    std::vector<int> of_group(groups);
    count_pairs(kept, group_first_.data(), stream);
    read_counts(of_group.data(), group_first_.data(), groups, stream);
    stream_.synchronize();
    for (GroupRange range; range.begin < groups; range.begin = range.end) {
        size_t here = 0;
        while (range.end < groups && here + of_group[range.end] <= room) {
            here += of_group[range.end++];
        }
        if (here > 0) {
            place_pairs_of(kept, range, first_pair_.data(), scratch(), stream);
            sum_pairs_of(kept, range, static_cast<int>(here), from);
        }
    }
}

/// Phase 4 for the pairs of some groups, which have their places.
void Engine::sum_pairs_of(const KeptPairs& kept, const GroupRange& range, int pairs, size_t from) {
    const cudaStream_t stream = stream_.get();
    gather_pairs(kept, range, first_pair_.data(), pair_keys_.data(), pairs_.data(), stream);
    const RowShare* sorted = order_pairs(
            pairs,
            kept.grouping,
            planned_pairs_of_wave(),
            pair_keys_.data(),
            pairs_.data(),
            {group_offset_.data(), group_first_.data()},
            scratch(),
            stream);
    clock_.mark("order pairs", stream);
    sum_segments(
            kept.grouping,
            pairs,
            false,
            from,
            pair_sums_.view(),
            [&](const SegmentTable& table, int segments, const SegmentSums& sums, bool) {
                sum_pairs(mixture_.view(), kept.lists.x, sorted, table, segments, sums, stream);
            });
}

bool Engine::dense_applies() const {
    return covariance_ != Covariance::full && assignment_ == Assignment::soft &&
           options_.tier != CudaTier::exact;
}

DenseShape Engine::shape_of_dense_tier() const {
    return dense_shape(path_, covariance_, static_cast<int>(K_), static_cast<int>(d_));
}

/// Of the workspace, from its beginning on, what phase 5 takes; on a multiple of 256.
size_t Engine::left_rows_bytes() const {
    const ExactBuffers exact = exact_buffers();
    const size_t dense = dense_applies() ? dense_bytes(shape_of_dense_tier()).chunk : 0;
    const size_t bytes = std::max(dense, 2 * sizeof(double) * exact.rows * K_);
    return (bytes + 255) / 256 * 256;
}

/// left_rows_bytes() where the workspace holds sums of segments behind them, in no more than a few pieces: then 5,
/// which is many short kernels, runs beside 3 and 4. 0 where it does not.
size_t Engine::room_for_left_rows() const {
    constexpr size_t most_pieces = 4;
    const size_t taken = left_rows_bytes();
    const bool fits = taken < workspace_.size() &&
                      most_pieces * segments_at_once(taken) >=
                              most_segments(wave_.lists.rows, wave_.grouping.groups());
    return fits ? taken : 0;
}

/// Phase 5. left[b]: where in the order block b's rows of the dense tier begin; left[blocks]: where
/// those of the exact tier do.
void Engine::sum_left_rows(const int* left, cudaStream_t stream) {
    const RowLists& lists = wave_.lists;
    const int blocks = wave_.grouping.blocks, exact_rows = lists.rows - left[blocks];
    const bool diagonal = covariance_ == Covariance::diagonal;
    const auto mark = [&](const char* phase) {
        if (stream == stream_.get()) { // beside others it has no time of its own
            clock_.mark(phase, stream);
        }
    };
    double* log_likelihood = row_values_.data();
    double* moment = log_likelihood + wave_rows();
    check(cudaMemset2DAsync(
                  log_likelihood,
                  wave_rows() * sizeof(double),
                  0,
                  lists.rows * sizeof(double),
                  2,
                  stream),
          "clearing likelihoods");
    if (left[0] < left[blocks]) {
        const DenseShape shape = shape_of_dense_tier();
        const DenseBuffers buffers = place_dense_buffers(
                shape, dense_operand_.data(), workspace_.data(), dense_scale_.data());
        if (dense_sums_.empty()) {
            dense_sums_.clear(K_, d_, diagonal, stream);
        }
        if (!dense_is_prepared_) {
            prepare_dense(mixture_.view(), mixture_.origin(), shape, buffers, stream);
            dense_is_prepared_ = true;
        }
        const DenseRows dense{lists.x, wave_.order, left, blocks};
        const DenseOutput output{log_likelihood, moment, &counters_.data()->shared_rows};
        sum_densely(
                mixture_.view(),
                mixture_.origin(),
                shape,
                buffers,
                dense,
                dense_sums_.view(),
                output,
                stream);
        mark("dense rows");
    }
    if (exact_rows > 0) {
        if (exact_sums_.empty()) {
            exact_sums_.clear(K_, d_, diagonal, stream);
        }
        ExactRows exact;
        exact.x = lists.x;
        exact.row = wave_.order + left[blocks];
        exact.count = exact_rows;
        PairRule all = rule_;
        // A share costs d^2 for full, and for the others nothing is saved by leaving it out.
        all.threshold = covariance_ == Covariance::full ? least_full_share : 0;
        all.margin = 800; // exp underflows
        sum_exactly(
                mixture_.view(),
                all,
                exact,
                exact_buffers(),
                wave_.first_row,
                exact_sums_.view(),
                scatter_,
                log_likelihood,
                &counters_.data()->shared_rows,
                &counters_.data()->bad_row,
                stream);
        mark("exact rows");
    }
    add_row_values(
            log_likelihood,
            wave_rows(),
            lists.rows,
            static_cast<int>(block_rows_),
            row_tiles_.data(),
            counters_.data()->of_rows,
            stream);
    mark("add likelihoods");
}

/// The pass's sums as one set.
void Engine::combine() {
    flush();
    end_wave();
    const bool diagonal = covariance_ == Covariance::diagonal;
    total_.clear(K_, d_, diagonal, stream_.get());
    if (covariance_ == Covariance::full && !exact_sums_.empty()) {
        combine_first_moments(scatter_, static_cast<int>(d_), exact_sums_.view(), stream_.get());
    }
    add_sums(
            static_cast<int>(K_),
            static_cast<int>(d_),
            diagonal,
            home_sums_.view(),
            pair_sums_.view(),
            dense_sums_.view(),
            exact_sums_.view(),
            &counters_.data()->of_rows[1],
            total_.view(),
            stream_.get());
}

/// Once the stream has come so far.
PassCounters Engine::read_counters() {
    PassCounters counters{};
    check(cudaMemcpyAsync(
                  &counters,
                  counters_.data(),
                  sizeof counters,
                  cudaMemcpyDeviceToHost,
                  stream_.get()),
          "reading counters");
    stream_.synchronize();
    return counters;
}

/// Of the sums that combine() made; refuses the pass's rows with NaN or Inf.
PassSummary Engine::summarize() {
    const PassCounters counters = read_counters();
    if (counters.bad_row != no_row) {
        refuse_row(counters.bad_row);
    }
    const PassSums& sums = total_.view();
    PassSummary summary;
    summary.rows = rows_;
    summary.shared_rows = counters.shared_rows;
    summary.sum_log_likelihood = counters.of_rows[0];
    fetch(summary.N_k, sums.mass, K_);
    std::vector<double> log_likelihood;
    fetch(log_likelihood, sums.log_likelihood, K_);
    stream_.synchronize();
    for (const double value : log_likelihood) {
        summary.sum_log_likelihood += value;
    }
    return summary;
}

/// Once the stream has come so far.
void Engine::fetch(std::vector<double>& to, const double* from, size_t count) {
    to.resize(count);
    check(cudaMemcpyAsync(
                  to.data(), from, count * sizeof(double), cudaMemcpyDeviceToHost, stream_.get()),
          "reading the statistics");
}

SufficientStatistics Engine::finish() {
    require_ready();
    const DeviceGuard guard(options_.device);
    combine();
    SufficientStatistics statistics;
    static_cast<PassSummary&>(statistics) = summarize();
    const PassSums& sums = total_.view();
    const bool diagonal = covariance_ == Covariance::diagonal;
    fetch(statistics.first_moment, sums.first_moment, K_ * d_);
    fetch(statistics.second_moment,
          diagonal ? sums.second_moment : sums.moment,
          diagonal ? K_ * d_ : K_);
    stream_.synchronize();
    if (covariance_ == Covariance::tied) {
        unwhiten(mixture_.factors(), K_, d_, statistics.first_moment);
    }
    if (covariance_ == Covariance::tied_spherical) {
        double total = 0;
        for (const double value : statistics.second_moment) {
            total += value;
        }
        statistics.second_moment = {total};
    } else if (covariance_ == Covariance::tied) {
        std::vector<float> origin(d_);
        check(cudaMemcpy(
                      origin.data(),
                      mixture_.given_origin(),
                      d_ * sizeof(float),
                      cudaMemcpyDeviceToHost),
              "reading the origin");
        statistics.second_moment = fetch_scatter();
        scatter_around_means(
                before_, origin, statistics.N_k, statistics.first_moment, statistics.second_moment);
    } else if (covariance_ == Covariance::full) {
        statistics.second_moment = fetch_scatter();
    }
    return statistics;
}

/// [matrices, d, d] of the pass.
std::vector<double> Engine::fetch_scatter() {
    combine_scatter(scatter_, static_cast<int>(d_), stream_.get());
    scatter_.slots = 1; // so that it may be asked for again
    std::vector<double> sums(scatter_.matrices * d_ * d_);
    check(cudaMemcpyAsync(
                  sums.data(),
                  scatter_.sums,
                  sums.size() * sizeof(double),
                  cudaMemcpyDeviceToHost,
                  stream_.get()),
          "reading the statistics");
    stream_.synchronize();
    return sums;
}

GaussianMixture Engine::maximize(const SufficientStatistics& statistics, double reg_covar) const {
    require_ready();
    if (before_is_current_) {
        return maximize_on_host(before_, statistics, reg_covar);
    }
    GaussianMixture current;
    const DeviceGuard guard(options_.device);
    mixture_.download(current, stream_.get());
    return maximize_on_host(current, statistics, reg_covar);
}

void Engine::maximize_in_place(double reg_covar) {
    step(reg_covar, nullptr);
}

PassSummary Engine::advance(double reg_covar) {
    PassSummary summary;
    step(reg_covar, &summary);
    return summary;
}

/// The M-step, and the pass's summary if it is wanted: the host then waits.
void Engine::step(double reg_covar, PassSummary* summary) {
    require_ready();
    const DeviceGuard guard(options_.device);
    if (has_matrices(covariance_)) { // factors are the host's work
        const SufficientStatistics statistics = finish();
        before_ = maximize_on_host(before_, statistics, reg_covar);
        mixture_.upload(before_, stream_.get());
        if (summary != nullptr) {
            *summary = statistics;
        }
        return;
    }
    combine();
    clock_.mark("combine", stream_.get());
    if (summary != nullptr) {
        *summary = summarize(); // before rows that it refuses spoil the parameters
    }
    mixture_.maximize(total_.view(), static_cast<double>(rows_), reg_covar, stream_.get());
    clock_.mark("maximize", stream_.get());
    before_is_current_ = false;
}

GaussianMixture Engine::mixture() {
    require_ready();
    if (before_is_current_) {
        return before_;
    }
    const DeviceGuard guard(options_.device);
    GaussianMixture current;
    mixture_.download(current, stream_.get());
    return current;
}

void Engine::rank(
        const Rows& given, size_t rows, size_t first_row, size_t m, const TopOutput& out) {
    const cudaStream_t stream = stream_.get();
    const Rows x = whiten(given, rows);
    const size_t listed = std::min(m, K_);
    const PairRule rule = rule_for(assignment_);
    // Rows with NaN or Inf get no components, nor any row more than there are.
    check(cudaMemsetAsync(out.component, 0xff, rows * m * sizeof(int32_t), stream),
          "clearing components");
    left_count_.reserve(1);
    check(cudaMemsetAsync(left_count_.data(), 0, sizeof(int), stream), "clearing counts");
    const RowsLeft left{row_numbers_.data(), left_count_.data()};
    RowLists lists;
    if (listed <= collect_max_rank) {
        // Without what the pass does for its sums: the normaliser is asked for by itself.
        PairRule all_listed = rule;
        all_listed.significant = rule.margin;
        lists = collect(x, rows, all_listed, static_cast<int>(listed), home_.data(), false);
    } else {
        lists = row_lists(x, rows, home_.data());
        check(cudaMemsetAsync(lists.count, 0, rows, stream), "clearing lists");
    }
    rank_candidates(
            mixture_.view(),
            rule,
            lists,
            static_cast<int>(m),
            first_row,
            &counters_.data()->bad_ranked_row,
            left,
            out,
            stream);
    auto* counts = static_cast<WaveCounts*>(host_counts_.data());
    read_counts(&counts->pairs, left.count, 1, stream);
    stream_.synchronize();
    if (counts->pairs > 0) {
        ExactRows exact;
        exact.x = x;
        exact.row = left.row;
        exact.count = counts->pairs;
        rank_exactly(
                mixture_.view(),
                rule,
                exact,
                exact_buffers(),
                static_cast<int>(m),
                first_row,
                &counters_.data()->bad_ranked_row,
                out,
                stream);
    }
    if (covariance_ == Covariance::tied) { // not of whitened rows
        measure_distances(
                given,
                static_cast<int>(rows),
                static_cast<int>(d_),
                mixture_.given_means(),
                static_cast<int>(m),
                out,
                stream);
    }
}

void Engine::rank_on_device(
        const Chunk& chunk,
        size_t m,
        int32_t* component,
        float* log_responsibility,
        float* squared_distance) {
    require_ready();
    const DeviceGuard guard(options_.device);
    require_aligned(chunk);
    end_wave(); // its lists are in the buffers that are used here
    reserve_wave(Staging(), 0);
    consumed_.record(static_cast<cudaStream_t>(chunk.stream));
    consumed_.block(stream_.get());
    const size_t bytes = d_ * bytes_of(chunk.element);
    for (size_t first = 0; first < chunk.n; first += wave_rows()) {
        const size_t rows = std::min(wave_rows(), chunk.n - first);
        const TopOutput out{
                component + first * m,
                log_responsibility + first * m,
                squared_distance + first * m};
        const Rows x(
                static_cast<const char*>(chunk.x) + first * bytes, element_of(chunk.element), d_);
        rank(x, rows, chunk.first + first, m, out);
    }
    consumed_.record(stream_.get());
    consumed_.block(static_cast<cudaStream_t>(chunk.stream));
}

void Engine::top_responsibilities(const Chunk& chunk, size_t m, TopResponsibilities& out) {
    require_ready();
    out.component.assign(chunk.n * m, -1);
    const bool soft = assignment_ == Assignment::soft;
    out.log_responsibility.assign(soft ? chunk.n * m : 0, -std::numeric_limits<float>::infinity());
    out.squared_distance.assign(chunk.n * m, std::numeric_limits<float>::infinity());
    if (chunk.n == 0 || m == 0) {
        return;
    }
    const DeviceGuard guard(options_.device);
    end_wave(); // its lists are in the buffers that are used here
    const bool on_device = chunk.memory == Chunk::Memory::device;
    const size_t bytes = d_ * bytes_of(chunk.element), listed = std::min(m, K_);
    Staging staging; // not in the buffer that is being filled
    staging.rows = on_device ? 0 : chunk.n;
    staging.row_bytes = bytes;
    staging.both = false;
    reserve_wave(staging, 0);
    // The best of so many rows lie where pairs of a pass would.
    const size_t most = std::min(2 * planned_pairs_of_wave() / listed, wave_rows());
    auto* component = reinterpret_cast<int32_t*>(pair_keys_.data());
    auto* log_responsibility = reinterpret_cast<float*>(pairs_.data());
    float* squared_distance = log_responsibility + most * listed;
    void* staged_rows = turns_[1 - turn_].rows.data();
    if (on_device) {
        require_aligned(chunk);
        consumed_.record(static_cast<cudaStream_t>(chunk.stream));
        consumed_.block(stream_.get());
    }
    const cudaStream_t stream = stream_.get();
    check(cudaMemsetAsync(&counters_.data()->bad_ranked_row, 0xff, sizeof(no_row), stream),
          "clearing counters");
    for (size_t first = 0; first < chunk.n; first += most) {
        const size_t rows = std::min(most, chunk.n - first);
        const void* x = static_cast<const char*>(chunk.x) + first * bytes;
        if (!on_device) {
            copy_from_host(staged_rows, x, rows * bytes, stream);
            x = staged_rows;
        }
        rank(Rows(x, element_of(chunk.element), d_),
             rows,
             chunk.first + first,
             listed,
             {component, log_responsibility, squared_distance});
        const PassCounters counters = read_counters();
        if (counters.bad_ranked_row != no_row) {
            refuse_row(counters.bad_ranked_row);
        }
        const auto fetch = [&](auto* to, const auto* from) {
            check(cudaMemcpy2DAsync(
                          to + first * m,
                          m * sizeof(*to),
                          from,
                          listed * sizeof(*to),
                          listed * sizeof(*to),
                          rows,
                          cudaMemcpyDeviceToHost,
                          stream),
                  "reading the best components");
        };
        fetch(out.component.data(), component);
        if (soft) {
            fetch(out.log_responsibility.data(), log_responsibility);
        }
        fetch(out.squared_distance.data(), squared_distance);
        stream_.synchronize();
    }
}

} // namespace
} // namespace cuda

std::string cuda_refuses(Covariance covariance, size_t K, size_t d) {
    static_cast<void>(covariance);
    if (K > cuda::most_components || d > cuda::most_dimensions) {
        return fmt::format("K = {} components, d = {} dimensions", K, d);
    }
    return {};
}

std::string cuda_limits() {
    return fmt::format(
            "all covariances; K up to {}, d up to {}",
            cuda::most_components,
            cuda::most_dimensions);
}

namespace {

cuda::DeviceAnswer ask_device(int device) {
    cuda::DeviceAnswer answer;
    answer.status = cudaGetDeviceCount(&answer.count);
    if (answer.status != cudaSuccess) {
        cudaGetLastError();
        cudaDriverGetVersion(&answer.driver);
    } else if (device >= 0 && device < answer.count) {
        cudaDeviceGetAttribute(&answer.major, cudaDevAttrComputeCapabilityMajor, device);
        cudaDeviceGetAttribute(&answer.minor, cudaDevAttrComputeCapabilityMinor, device);
    }
    return answer;
}

} // namespace

std::string cuda_obstacle(int device) {
    return cuda::obstacle_of(ask_device(device), device);
}

std::string cuda_requirements(int device) {
    return cuda::needed_for(ask_device(device), device);
}

std::unique_ptr<CudaEStepEngine> make_cuda_engine(const CudaOptions& options) {
    const std::string found = cuda_obstacle(options.device);
    if (!found.empty()) {
        throw Error(
                {"starting the CUDA engine",
                 found,
                 cuda_requirements(options.device),
                 "look at nvidia-smi, or choose engine=cpu"});
    }
    const cuda::DeviceGuard guard(options.device);
    return std::make_unique<cuda::Engine>(options);
}

} // namespace faiss_gmm
