// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The collecting pass against double precision: no candidate that the definition demands is missing,
// none is listed that the bounds do not excuse, and every U lies between the score and the score plus
// the proven gap. Each case runs on every path that the device offers; without a device all skip.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include "faiss_gmm/train/cuda/collect.h"
#include "faiss_gmm/train/cuda/collect_bound.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/collect_tile.cuh"

namespace faiss_gmm::cuda {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

template <class T> class Buffer {
public:
    explicit Buffer(size_t size, size_t offset = 0) : size_(size), offset_(offset) {
        check_collect(cudaMalloc(&data_, (size + offset + 32) * sizeof(T)), "test memory");
        check_collect(cudaMemset(data_, 0xa5, (size + offset + 32) * sizeof(T)), "poison");
    }
    explicit Buffer(const std::vector<T>& values, size_t offset = 0)
            : Buffer(values.size(), offset) {
        check_collect(
                cudaMemcpy(data(), values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "in");
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        cudaFree(data_);
    }
    T* data() const {
        return data_ + offset_;
    }
    std::vector<T> host() const {
        std::vector<T> values(size_);
        check_collect(
                cudaMemcpy(values.data(), data(), size_ * sizeof(T), cudaMemcpyDeviceToHost),
                "out");
        return values;
    }

private:
    T* data_ = nullptr;
    size_t size_, offset_;
};

/// A mixture and rows, all in host memory.
struct Problem {
    CollectForm form = CollectForm::linear;
    int64_t n = 0, K = 0, d = 0;
    std::vector<float> means, rows, origin;
    std::vector<double> constant, half_precision;
    std::vector<uint16_t> truth; ///< the component a row was drawn from

    double h(int64_t k, int64_t j) const {
        return half_precision
                [form == CollectForm::linear      ? 0
                 : form == CollectForm::quadratic ? k
                                                  : k * d + j];
    }
    /// The score of the definition, double precision.
    double score(int64_t i, int64_t k, double* magnitude = nullptr) const {
        double sum = constant[k], size = std::abs(constant[k]);
        for (int64_t j = 0; j < d; ++j) {
            const double y = static_cast<double>(rows[i * d + j]) - origin[j];
            const double c = static_cast<double>(means[k * d + j]) - origin[j];
            const double own = form == CollectForm::linear ? 0.0 : y * y;
            sum += h(k, j) * (2 * y * c - c * c - own);
            size += h(k, j) * (2 * std::abs(y * c) + c * c + own);
        }
        if (magnitude != nullptr) {
            *magnitude = size;
        }
        return sum;
    }
};

Problem draw(CollectForm form, int64_t n, int64_t K, int64_t d, double sigma, uint64_t seed) {
    Problem problem;
    problem.form = form;
    problem.n = n;
    problem.K = K;
    problem.d = d;
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    problem.means.resize(K * d);
    for (float& m : problem.means) {
        m = static_cast<float>(normal(random) + 3.0); // an origin that matters
    }
    problem.origin.resize(d);
    for (int64_t j = 0; j < d; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < K; ++k) {
            sum += problem.means[k * d + j];
        }
        problem.origin[j] = static_cast<float>(sum / K);
    }
    std::uniform_real_distribution<double> spread(0.5, 2.0);
    const int64_t precisions = form == CollectForm::linear      ? 1
                               : form == CollectForm::quadratic ? K
                                                                : K * d;
    problem.half_precision.resize(precisions);
    for (double& h : problem.half_precision) {
        h = 1 / (2 * sigma * sigma * (precisions == 1 ? 1.0 : spread(random)));
    }
    problem.constant.resize(K);
    for (int64_t k = 0; k < K; ++k) {
        problem.constant[k] = -std::log(static_cast<double>(K)) + 0.1 * normal(random);
        for (int64_t j = 0; j < d; ++j) {
            problem.constant[k] += 0.5 * std::log(2 * problem.h(k, j));
        }
    }
    problem.rows.resize(n * d);
    problem.truth.resize(n);
    for (int64_t i = 0; i < n; ++i) {
        const int64_t k = static_cast<int64_t>(random() % K);
        problem.truth[i] = static_cast<uint16_t>(k);
        for (int64_t j = 0; j < d; ++j) {
            problem.rows[i * d + j] = static_cast<float>(
                    problem.means[k * d + j] + normal(random) / std::sqrt(2 * problem.h(k, j)));
        }
    }
    return problem;
}

/// All scores [n, K] and the largest magnitude of a row's terms [n], by all cores.
struct Scores {
    std::vector<double> value, magnitude;

    explicit Scores(const Problem& problem)
            : value(problem.n * problem.K), magnitude(problem.n, 0.0) {
        const unsigned workers = std::max(1u, std::thread::hardware_concurrency());
        std::vector<std::thread> threads;
        for (unsigned w = 0; w < workers; ++w) {
            threads.emplace_back([this, &problem, w, workers] {
                for (int64_t i = w; i < problem.n; i += workers) {
                    for (int64_t k = 0; k < problem.K; ++k) {
                        double size = 0;
                        value[i * problem.K + k] = problem.score(i, k, &size);
                        if (std::isfinite(size)) {
                            magnitude[i] = std::max(magnitude[i], size);
                        }
                    }
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
    }
};

struct DeviceModel {
    Buffer<float> means, origin;
    Buffer<double> constant, half_precision;
    Buffer<uint16_t> operand;
    Buffer<float> columns, scale;
    CollectModel model;

    explicit DeviceModel(const Problem& problem)
            : means(problem.means), origin(problem.origin), constant(problem.constant),
              half_precision(problem.half_precision),
              operand(collect_model_bytes(collect_model_shape(problem.form, problem.K, problem.d))
                              .operand /
                      2),
              columns(collect_model_bytes(collect_model_shape(problem.form, problem.K, problem.d))
                              .columns /
                      4),
              scale(collect_model_bytes(collect_model_shape(problem.form, problem.K, problem.d))
                            .scale /
                    4) {
        model.operand = operand.data();
        model.columns = columns.data();
        model.scale = scale.data();
        CollectModelSource source;
        source.form = problem.form;
        source.K = problem.K;
        source.d = problem.d;
        source.means = means.data();
        source.origin = origin.data();
        source.constant = constant.data();
        source.half_precision = half_precision.data();
        prepare_collect_model(source, model, nullptr);
    }
};

struct Options {
    float margin = 18.0f;
    int rank = 1, capacity = 16;
    float significant = 0; ///< above 0: what is not of the list is asked for as a rest
    const std::vector<uint16_t>* hint = nullptr;
    ElementType type = ElementType::f32;
    size_t offset = 0; ///< elements by which the rows' address is off
};

struct Result {
    std::vector<uint16_t> component, best;
    std::vector<uint8_t> count;
    std::vector<float> rest;
    std::vector<unsigned char> workspace;

    bool overflowed(int64_t i, int capacity) const {
        return count[i] == capacity + 1;
    }
    std::vector<uint16_t> list(int64_t i, int capacity) const {
        return {component.begin() + i * capacity, component.begin() + i * capacity + count[i]};
    }
};

template <class T> std::vector<T> converted(const std::vector<float>& rows) {
    std::vector<T> values;
    values.reserve(rows.size());
    for (const float v : rows) {
        values.push_back(static_cast<T>(v));
    }
    return values;
}

template <class T>
Result collect_as(
        const Problem& problem,
        const DeviceModel& device,
        const Options& options,
        CollectPath path,
        bool keep_workspace) {
    const Buffer<T> rows(converted<T>(problem.rows), options.offset);
    Buffer<uint16_t> component(problem.n * options.capacity), best(problem.n);
    Buffer<uint8_t> count(problem.n);
    Buffer<float> rest(problem.n);
    Buffer<unsigned char> workspace(collect_workspace_bytes(device.model, path));
    const Buffer<uint16_t> hint(
            options.hint != nullptr ? *options.hint : std::vector<uint16_t>(problem.n));
    CollectInput input;
    input.rows = rows.data();
    input.type = options.type;
    input.n = problem.n;
    input.hint = options.hint != nullptr ? hint.data() : nullptr;
    input.margin = options.margin;
    input.rank = options.rank;
    input.significant = options.significant;
    CollectOutput output;
    output.component = component.data();
    output.count = count.data();
    output.best = best.data();
    output.capacity = options.capacity;
    output.rest = options.significant > 0 ? rest.data() : nullptr;
    collect_candidates(device.model, input, output, path, workspace.data(), nullptr);
    check_collect(cudaDeviceSynchronize(), "running the pass");
    Result result{component.host(), best.host(), count.host(), rest.host(), {}};
    if (keep_workspace) {
        result.workspace = workspace.host();
    }
    return result;
}

Result
collect(const Problem& problem,
        const DeviceModel& device,
        const Options& options,
        CollectPath path,
        bool keep_workspace = false) {
    switch (options.type) {
    case ElementType::f16:
        return collect_as<__half>(problem, device, options, path, keep_workspace);
    case ElementType::bf16:
        return collect_as<__nv_bfloat16>(problem, device, options, path, keep_workspace);
    case ElementType::u8:
        return collect_as<uint8_t>(problem, device, options, path, keep_workspace);
    case ElementType::i8:
        return collect_as<int8_t>(problem, device, options, path, keep_workspace);
    default:
        return collect_as<float>(problem, device, options, path, keep_workspace);
    }
}

const char* name(CollectPath path) {
    return path == CollectPath::plain      ? "plain"
           : path == CollectPath::portable ? "portable"
                                           : "hopper";
}

bool has_device() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

std::vector<CollectPath> paths() {
    std::vector<CollectPath> all{CollectPath::plain, CollectPath::portable};
    if (best_collect_path(compute_capability_major()) == CollectPath::hopper) {
        all.push_back(CollectPath::hopper);
    }
    return all;
}

/// What the bounds are of a model's arrays, by the formulas of collect_bound.h.
struct Bounds {
    const Problem& problem;
    const std::vector<float> columns, scale;
    const double c; ///< of squares, otherwise 0
    const double shifted;

    Bounds(const Problem& of_problem, const DeviceModel& device)
            : problem(of_problem), columns(device.columns.host()), scale(device.scale.host()),
              c(problem.form == CollectForm::squares ? squares_error(device.model.padded_width)
                                                     : 0),
              shifted(shift()) {}
    double axis(int64_t j) const {
        return problem.form == CollectForm::squares ? scale[collect_scales + j] : 1.0;
    }
    double centred(int64_t i, int64_t j) const {
        return static_cast<double>(problem.rows[i * problem.d + j]) - problem.origin[j];
    }
    /// What takes the largest b_k to 0.
    double shift() const {
        double largest = -infinity;
        for (int64_t k = 0; k < problem.K; ++k) {
            double base = problem.constant[k];
            for (int64_t j = 0; j < problem.d; ++j) {
                const double c =
                        static_cast<double>(problem.means[k * problem.d + j]) - problem.origin[j];
                base -= problem.h(k, j) * c * c;
            }
            largest = std::max(largest, base);
        }
        return -largest;
    }
    /// What the pass's scores of a row have in common beside the log-joint.
    double common(int64_t i) const {
        double sum = shifted;
        for (int64_t j = 0; j < problem.d && problem.form == CollectForm::squares; ++j) {
            sum += scale[collect_scales + problem.d + j] * centred(i, j) * centred(i, j);
        }
        return sum;
    }
    /// The row's unit in nats, f and q.
    struct Row {
        double f = 0, q = 0, common = 0;
    };
    Row row(int64_t i) const {
        double squares = 0, fourths = 0;
        for (int64_t j = 0; j < problem.d; ++j) {
            const double y = axis(j) * centred(i, j);
            squares += y * y;
            fourths += y * y * y * y;
        }
        double F =
                std::min<double>(collect_norm_aimed_at / std::sqrt(squares), scale[scale_row_cap]);
        if (problem.form == CollectForm::squares) {
            F = std::min(F, collect_norm_aimed_at / (squares_ratio * std::sqrt(fourths)));
        }
        Row row;
        row.f = F * scale[scale_operand];
        row.q = problem.form == CollectForm::quadratic ? row.f * squares : 0.0;
        row.common = common(i);
        return row;
    }
    /// In the row's unit.
    double gap(const Row& row, int64_t k) const {
        const int64_t tile = k / collect_tile, place = column_place(k % collect_tile);
        if (problem.form == CollectForm::squares) {
            const int64_t tiles = (problem.K + collect_tile - 1) / collect_tile;
            const float* own = &columns[tiles * collect_columns + tile * collect_own_columns];
            return own[own_gap + place] + row.f * own[own_gap_base + place];
        }
        const float* errors = &columns[tile * collect_columns + column_errors];
        return errors[0] + row.f * errors[1] + row.q * errors[2];
    }
    /// The least and the largest u, nats, that a score may have: (6), of other forms s and s + gap.
    double least(const Row& row, double score) const {
        return (1 + c) * (score + row.common);
    }
    double largest(const Row& row, double score, int64_t k) const {
        return (1 - c) * (score + row.common) + gap(row, k) / row.f;
    }
    /// What l is at least.
    double lower(const Row& row, double score, int64_t k) const {
        return least(row, score) - gap(row, k) / row.f;
    }
    /// What a u must reach where the rank-th l is such.
    double threshold(double lower, double margin) const {
        return (1 + c) / (1 - c) * (lower - margin);
    }
};

std::string label(const Problem& problem, const Options& options, CollectPath path) {
    return std::string(name(path)) + " form " + std::to_string(static_cast<int>(problem.form)) +
           " (" + std::to_string(problem.n) + ", " + std::to_string(problem.K) + ", " +
           std::to_string(problem.d) + ") rank " + std::to_string(options.rank) +
           (options.hint != nullptr ? " hint" : "");
}

/// (6) of collect.h: the rank-th largest of a row's lower bounds that a survey keeps, for whom four lanes
/// see its components, by a path whose two halves of a row's components may be surveyed by themselves.
double kept_at_rank(
        const std::vector<double>& lower, const CollectModel& model, int rank, CollectPath path) {
    const auto K = static_cast<int64_t>(lower.size());
    const bool few = model.padded_K / collect_tile <= small_survey_tiles;
    const int group = few ? small_survey_group : survey_group;
    const bool halves = path == CollectPath::hopper &&
                        (model.padded_width > hopper_slot_columns ||
                         !hopper_has_slots(model.form, CollectStep::survey_many));
    std::vector<double> kept;
    for (int half = 0; half < (halves ? 2 : 1); ++half) {
        for (int lane = 0; lane < 4; ++lane) {
            std::vector<double> largest;
            for (int64_t tile = half; tile < model.padded_K / collect_tile;
                 tile += halves ? 2 : 1) {
                for (int first = 0; first < 32;
                     first += group) { // columns 8 (c / 2) + 2 lane + c % 2
                    double value = -infinity;
                    for (int c = first; c < first + group; ++c) {
                        const int64_t k = tile * collect_tile + c / 2 * 8 + 2 * lane + c % 2;
                        value = std::max(value, k < K ? lower[k] : -infinity);
                    }
                    largest.push_back(value);
                }
            }
            std::sort(largest.begin(), largest.end(), std::greater<double>());
            largest.resize(survey_largest, -infinity);
            kept.insert(kept.end(), largest.begin(), largest.end());
        }
    }
    std::sort(kept.begin(), kept.end(), std::greater<double>());
    return kept[rank - 1];
}

/// Compares every row's list with double precision. Returns the number of rows that overflowed.
int64_t expect_right(
        const Problem& problem,
        const Scores& all_scores,
        const DeviceModel& device,
        const Options& options,
        const Result& result,
        CollectPath path) {
    const std::string what = label(problem, options, path);
    const Bounds bounds(problem, device);
    const bool by_survey = options.rank > 1 && path != CollectPath::plain;
    int64_t overflows = 0, missing = 0, unexcused = 0, unsorted = 0, lists = 0;
    int64_t needless = 0, wrong_best = 0;
    std::vector<double> sorted;
    for (int64_t i = 0; i < problem.n; ++i) {
        const std::vector<double> scores(
                all_scores.value.begin() + i * problem.K,
                all_scores.value.begin() + (i + 1) * problem.K);
        const double largest_magnitude = all_scores.magnitude[i];
        sorted = scores;
        std::sort(sorted.begin(), sorted.end(), std::greater<double>());
        const double at_rank = problem.K >= options.rank ? sorted[options.rank - 1] : -infinity;
        const Bounds::Row row = bounds.row(i);
        std::vector<double> lowers(problem.K, -infinity);
        double highest = -infinity; // a bound of the largest u
        for (int64_t k = 0; k < problem.K; ++k) {
            if (std::isfinite(scores[k])) {
                lowers[k] = bounds.lower(row, scores[k], k);
                highest = std::max(highest, bounds.least(row, scores[k]));
            }
        }
        double lower_at_rank = -infinity;
        if (by_survey) {
            lower_at_rank = kept_at_rank(lowers, device.model, options.rank, path);
        } else if (problem.K >= options.rank) {
            std::sort(lowers.begin(), lowers.end(), std::greater<double>());
            lower_at_rank = lowers[options.rank - 1];
        }
        const double threshold = std::isfinite(lower_at_rank)
                                         ? bounds.threshold(lower_at_rank, options.margin)
                                         : -infinity;
        const double slack = 1e-5 * largest_magnitude;
        // Whether the bounds let k be listed.
        const auto may_be_listed = [&](int64_t k) {
            return std::isfinite(scores[k]) &&
                   bounds.largest(row, scores[k], k) >= threshold - slack;
        };
        const double demanded = at_rank - options.margin;
        if (result.overflowed(i, options.capacity)) {
            ++overflows;
            int64_t may = 0;
            for (int64_t k = 0; k < problem.K; ++k) {
                may += may_be_listed(k);
            }
            // Lists also overflow on the way, where the threshold has not grown yet.
            needless += std::isfinite(threshold) && may <= options.capacity &&
                        options.capacity <= 16 && options.hint != nullptr &&
                        scores[(*options.hint)[i]] > sorted[0] - 1;
            continue;
        }
        const std::vector<uint16_t> list = result.list(i, options.capacity);
        lists += static_cast<int64_t>(list.size());
        unsorted += !std::is_sorted(list.begin(), list.end()) ||
                    std::adjacent_find(list.begin(), list.end()) != list.end();
        for (int64_t k = 0; k < problem.K; ++k) {
            const bool listed =
                    std::binary_search(list.begin(), list.end(), static_cast<uint16_t>(k));
            missing += scores[k] >= demanded && !listed && std::isfinite(scores[k]);
            unexcused += listed && !may_be_listed(k);
        }
        wrong_best +=
                options.rank == 1 &&
                !(bounds.largest(row, scores[result.best[i]], result.best[i]) >= highest - slack);
    }
    EXPECT_EQ(missing, 0) << what;
    EXPECT_EQ(unexcused, 0) << what;
    EXPECT_EQ(unsorted, 0) << what;
    EXPECT_EQ(needless, 0) << what;
    EXPECT_EQ(wrong_best, 0) << what;
    std::printf(
            "  %-58s %6.2f a row, %lld of %lld overflow\n",
            what.c_str(),
            static_cast<double>(lists) / std::max<int64_t>(1, problem.n - overflows),
            static_cast<long long>(overflows),
            static_cast<long long>(problem.n));
    return overflows;
}

class CollectTest : public ::testing::Test {
protected:
    void SetUp() override {
        if (!has_device()) {
            GTEST_SKIP() << "no CUDA device";
        }
    }
    /// All paths, with and without hints. Returns the overflows of the last.
    int64_t run(const Problem& problem, Options options = {}) {
        const DeviceModel device(problem);
        const Scores scores(problem);
        int64_t overflows = 0;
        for (const CollectPath path : paths()) {
            for (const bool hinted : {false, true}) {
                if (hinted && options.rank > 1) {
                    continue;
                }
                options.hint = hinted ? &problem.truth : nullptr;
                const Result result = collect(problem, device, options, path);
                overflows = expect_right(problem, scores, device, options, result, path);
            }
        }
        return overflows;
    }
};

constexpr CollectForm forms[] = {CollectForm::linear, CollectForm::quadratic, CollectForm::squares};

TEST_F(CollectTest, Sizes) {
    const int64_t sizes[][3] = {
            {300, 1, 1},
            {300, 2, 3},
            {257, 100, 17},
            {500, 129, 33},
            {300, 1000, 96},
            {1, 300, 64},
            {513, 1024, 128},
            {200, 777, 130},
            {150, 600, 384},
            {129, 300, 961},
            {64, 70, 2048},
            {130, 4097, 100},
            {70, 257, 513},
            {300, 128, 8}};
    for (const CollectForm form : forms) {
        for (const auto& size : sizes) {
            run(draw(form, size[0], size[1], size[2], 1.2, size[1] + size[2]));
        }
    }
}

TEST_F(CollectTest, LargestNumberOfComponents) {
    for (const CollectForm form : forms) {
        Options options;
        options.capacity = 32;
        run(draw(form, 64, 65536, 24, 0.3, 5), options);
    }
}

TEST_F(CollectTest, Overlap) {
    for (const CollectForm form : forms) {
        Options options;
        options.capacity = 32;
        run(draw(form, 400, 1024, 32, 1.2, 7), options);
        run(draw(form, 400, 500, 160, 3.5, 8), options);
    }
}

/// Where scores lie between the bounds that a pass has made of them: 0 at L, 1 at U.
struct SeenBounds {
    const Problem& problem;
    const Bounds& bounds;
    double highest = -1, lowest = 2;
    int64_t seen = 0;

    void see(const Bounds::Row& row, int64_t i, int64_t k, double u) {
        double magnitude = 0;
        const double score = problem.score(i, k, &magnitude);
        const double upper = u / row.f;
        const double slack = 3e-7 * magnitude; // f is known to fp32
        const double least = bounds.least(row, score);
        const double largest = bounds.largest(row, score, k);
        EXPECT_LE(least, upper + slack) << "row " << i << " component " << k;
        EXPECT_GE(largest, upper - slack) << "row " << i << " component " << k;
        const double place = (largest - upper) / (largest - least);
        highest = std::max(highest, place);
        lowest = std::min(lowest, place);
        ++seen;
    }
    void print(const std::string& what) const {
        std::printf(
                "  %-58s %lld scores between %.3f and %.3f of L .. U\n",
                what.c_str(),
                static_cast<long long>(seen),
                lowest,
                highest);
    }
};

/// What stands in row i's list on its way, U by component: of the lists with which the workspace of the fast paths begins,
/// places that nothing was written to are poisoned.
std::map<int64_t, float> entries_of(
        const Problem& problem,
        const DeviceModel& device,
        const Result& result,
        CollectPath path,
        int64_t i) {
    std::map<int64_t, float> entries;
    const int count = list_places(device.model, path);
    const auto* places = reinterpret_cast<const uint2*>(result.workspace.data()) + i * count;
    for (int e = 0; e < count; ++e) {
        if (places[e].y == 0xa5a5a5a5u) {
            continue;
        }
        EXPECT_LT(places[e].y, problem.K) << "row " << i << " place " << e;
        float upper = 0;
        static_assert(sizeof(upper) == sizeof(places[e].x));
        std::memcpy(&upper, &places[e].x, sizeof(upper));
        EXPECT_TRUE(entries.emplace(places[e].y, upper).second) << "row " << i << " twice";
    }
    return entries;
}

/// U of row i by component: all of them by the reference, those of its list on its way by the fast paths.
std::map<int64_t, float> upper_bounds_of(
        const Problem& problem,
        const DeviceModel& device,
        const Result& result,
        CollectPath path,
        int64_t i) {
    if (path != CollectPath::plain) {
        return entries_of(problem, device, result, path, i);
    }
    std::map<int64_t, float> all;
    const auto* upper =
            reinterpret_cast<const float*>(result.workspace.data()) + i * device.model.padded_K;
    for (int64_t k = 0; k < problem.K; ++k) {
        all.emplace(k, upper[k]);
    }
    return all;
}

TEST_F(CollectTest, EveryUpperBoundHolds) {
    // A margin that keeps all of fewer components than a list has places: the lists on their way hold every U.
    const int64_t sizes[][2] = {{64, 1}, {60, 31}, {64, 128}, {63, 300}, {40, 1027}, {33, 2048}};
    for (const CollectForm form : forms) {
        for (const auto& size : sizes) {
            const Problem problem = draw(form, 128, size[0], size[1], 2.0, size[0] + 1000);
            const DeviceModel device(problem);
            const Bounds bounds(problem, device);
            for (const CollectPath path : paths()) {
                const std::vector<uint16_t> hint(problem.n, 0); // rows stay in their places then
                Options options;
                options.margin = 1e6f;
                options.capacity = 32;
                options.hint = &hint;
                const Result result = collect(problem, device, options, path, true);
                SeenBounds seen{problem, bounds};
                for (int64_t i = 0; i < problem.n; ++i) {
                    const Bounds::Row row = bounds.row(i);
                    for (const auto& [k, u] : upper_bounds_of(problem, device, result, path, i)) {
                        seen.see(row, i, k, u);
                    }
                }
                EXPECT_EQ(seen.seen, problem.n * problem.K);
                seen.print(label(problem, options, path));
            }
        }
    }
}

/// Twins of every fourth component: equal, a rounding apart, and a little apart.
void add_near_ties(Problem& problem) {
    for (int64_t k = 0; k + 3 < problem.K; k += 4) {
        for (int64_t twin = 1; twin < 4; ++twin) {
            for (int64_t j = 0; j < problem.d; ++j) {
                const float m = problem.means[k * problem.d + j];
                problem.means[(k + twin) * problem.d + j] = twin == 1   ? m
                                                            : twin == 2 ? std::nextafter(m, 100.0f)
                                                                        : m + 1e-4f;
                if (problem.form == CollectForm::squares) {
                    problem.half_precision[(k + twin) * problem.d + j] =
                            problem.half_precision[k * problem.d + j];
                }
            }
            problem.constant[k + twin] = problem.constant[k];
            if (problem.form == CollectForm::quadratic) {
                problem.half_precision[k + twin] = problem.half_precision[k];
            }
        }
    }
}

/// Even components and their rows, 100 sigma from the others.
void move_even_components(Problem& problem) {
    for (int64_t k = 0; k < problem.K; k += 2) {
        problem.means[k * problem.d] += 100;
    }
    for (int64_t i = 0; i < problem.n; ++i) {
        problem.rows[i * problem.d] += problem.truth[i] % 2 == 0 ? 100 : 0;
    }
}

/// One component's variances a ten-thousandth of what they were.
void make_thin(Problem& problem, int64_t k) {
    const bool squares = problem.form == CollectForm::squares;
    for (int64_t j = 0; j < (squares ? problem.d : 1); ++j) {
        problem.half_precision[squares ? k * problem.d + j : k] *= 1e4;
    }
    problem.constant[k] += 0.5 * std::log(1e4) * static_cast<double>(problem.d);
}

/// Of more components than a list has places, all U of the reference and those listed by the fast paths, where
/// rounding is least kind.
TEST_F(CollectTest, UpperBoundsHoldAmongManyComponents) {
    const auto check = [&](const Problem& problem, float margin) {
        const DeviceModel device(problem);
        const Bounds bounds(problem, device);
        for (const CollectPath path : paths()) {
            Options options;
            options.margin = margin;
            options.capacity = 32;
            options.hint = &problem.truth;
            const Result result = collect(problem, device, options, path, true);
            SeenBounds seen{problem, bounds};
            int64_t lists = 0;
            for (int64_t i = 0; i < problem.n; ++i) {
                const Bounds::Row row = bounds.row(i);
                const bool overflowed = result.overflowed(i, options.capacity);
                if (overflowed && path != CollectPath::plain) {
                    continue;
                }
                const auto upper = upper_bounds_of(problem, device, result, path, i);
                for (const auto& [k, u] : upper) {
                    seen.see(row, i, k, u);
                }
                if (!overflowed) {
                    ++lists;
                    for (const uint16_t k : result.list(i, options.capacity)) {
                        EXPECT_EQ(upper.count(k), 1u) << "row " << i << " component " << k;
                    }
                }
            }
            if (path == CollectPath::plain) {
                EXPECT_EQ(seen.seen, problem.n * problem.K);
            } else {
                EXPECT_GE(lists, problem.n / 8) << label(problem, options, path);
                EXPECT_GE(seen.seen, lists);
            }
            seen.print(label(problem, options, path));
        }
    };
    for (const CollectForm form : forms) {
        const int64_t sizes[][2] = {{129, 48}, {300, 128}, {1000, 64}, {1000, 300}};
        for (const auto& [K, d] : sizes) {
            check(draw(form, 256, K, d, 1.5, K), 18);
        }
        Problem ties = draw(form, 256, 400, 128, 1.2, 11);
        add_near_ties(ties);
        check(ties, 0);
        check(ties, 18);
        Problem groups = draw(form, 256, 300, 64, 1.0, 13);
        move_even_components(groups);
        check(groups, 18);
        if (form != CollectForm::linear) {
            Problem thin = draw(form, 256, 300, 48, 1.0, 17);
            make_thin(thin, 50);
            check(thin, 18);
        }
    }
}

TEST_F(CollectTest, NearTies) {
    for (const CollectForm form : forms) {
        Problem problem = draw(form, 300, 400, 128, 1.2, 11);
        add_near_ties(problem);
        Options options;
        options.margin = 0;
        run(problem, options);
        options.rank = 4;
        run(problem, options);
    }
}

TEST_F(CollectTest, FarGroupsComponentsAndRows) {
    for (const CollectForm form : forms) {
        Problem problem = draw(form, 300, 300, 64, 1.0, 13);
        move_even_components(problem);
        run(problem);
        // One component a million sigma off: its own group of eight may be listed everywhere.
        for (int64_t j = 0; j < problem.d; ++j) {
            problem.means[77 * problem.d + j] = 1e6f;
        }
        run(problem);
        // Rows far off, of no use (|y|^2 overflows), not numbers, and at the origin itself.
        const auto set_row = [&](int64_t i, float value) {
            std::fill_n(problem.rows.begin() + i * problem.d, problem.d, value);
        };
        problem = draw(form, 300, 300, 64, 1.0, 14);
        set_row(3, 1e6f);
        set_row(4, -1e12f);
        std::copy(
                problem.origin.begin(), problem.origin.end(), problem.rows.begin() + 8 * problem.d);
        const Scores scores(problem); // rows 5 to 7 overflow and are not judged
        set_row(5, 1e30f);
        problem.rows[6 * problem.d + 5] = std::nanf("");
        problem.rows[7 * problem.d + 5] = infinity;
        const DeviceModel device(problem);
        for (const CollectPath path : paths()) {
            Options options;
            options.hint = &problem.truth;
            const Result result = collect(problem, device, options, path);
            for (const int64_t i : {5, 6, 7}) {
                EXPECT_TRUE(result.overflowed(i, options.capacity)) << name(path) << " row " << i;
            }
            options.hint = nullptr; // rows may overflow on the way
            expect_right(problem, scores, device, options, result, path);
        }
    }
}

TEST_F(CollectTest, TinyVarianceAndAbsentComponents) {
    for (const CollectForm form : {CollectForm::quadratic, CollectForm::squares}) {
        Problem problem = draw(form, 300, 300, 48, 1.0, 17);
        make_thin(problem, 50);
        run(problem);
    }
    for (const CollectForm form : forms) {
        Problem problem = draw(form, 300, 140, 48, 1.0, 19);
        for (int64_t k = 1; k < problem.K; k += 3) {
            problem.constant[k] = -infinity;
        }
        run(problem);
    }
}

/// Components of next to no variance in an axis, as those whose rows all have zero there: the bounds of the
/// others are as before, and those of their own rows too where the origin is their mean.
TEST_F(CollectTest, VariancesNearZeroCostNoLists) {
    for (const int64_t step : {400, 7, 2}) { // one component, 58, every other
        // Two groups a hundred thousand deviations apart: no origin is near both.
        for (const bool apart : {false, true}) {
            if (apart && step != 7) {
                continue;
            }
            Problem problem = draw(CollectForm::squares, 800, 400, 64, 0.7, 47);
            constexpr double variance = 1e-9;
            const auto is_thin = [&](int64_t k) { return k % step == 0; };
            const auto axis = [&](int64_t k) { return k / step % 5; };
            const auto place = [&](int64_t k) { return apart && k / step % 2 == 1 ? 5.0f : 2.0f; };
            for (int64_t k = 0; k < problem.K; k += step) {
                double& h = problem.half_precision[k * problem.d + axis(k)];
                problem.constant[k] += 0.5 * std::log(0.5 / variance / h);
                h = 0.5 / variance;
                problem.means[k * problem.d + axis(k)] = place(k);
            }
            int64_t thin_rows = 0;
            for (int64_t i = 0; i < problem.n; ++i) {
                const int64_t k = problem.truth[i];
                if (is_thin(k)) { // half of them exactly there
                    const float off = i % 2 == 0 ? 0.0f : i % 4 == 1 ? 3e-5f : -3e-5f;
                    problem.rows[i * problem.d + axis(k)] = place(k) + off;
                    ++thin_rows;
                }
            }
            const int64_t axes = std::min<int64_t>(5, (problem.K + step - 1) / step);
            std::fill_n(problem.origin.begin(), axes, apart ? 3.5f : 2.0f);
            Options options;
            options.capacity = 32;
            const int64_t overflows = run(problem, options);
            EXPECT_LE(overflows, apart ? thin_rows : 0) << "step " << step;
        }
    }
}

/// Every fourth component's twin differs in an axis alone, where its variance is next to none: rows that have
/// the mean's number there tie, others do not.
TEST_F(CollectTest, NearTiesWithVariancesNearZero) {
    Problem problem = draw(CollectForm::squares, 400, 256, 64, 0.7, 53);
    const std::vector<float> drawn = problem.means;
    for (int64_t k = 0; k + 1 < problem.K; k += 4) {
        const int64_t twin = k + 1, j = k / 4 % problem.d;
        for (int64_t l = 0; l < problem.d; ++l) {
            problem.means[twin * problem.d + l] = problem.means[k * problem.d + l];
            problem.half_precision[twin * problem.d + l] =
                    problem.half_precision[k * problem.d + l];
        }
        problem.constant[twin] = problem.constant[k];
        problem.half_precision[twin * problem.d + j] = 1e8;
        problem.origin[j] = problem.means[k * problem.d + j];
    }
    for (int64_t i = 0; i < problem.n; ++i) {
        const int64_t k = problem.truth[i] / 4 * 4, j = k / 4 % problem.d;
        if (problem.truth[i] % 4 == 1) { // the twin has moved
            problem.truth[i] = static_cast<uint16_t>(k);
            for (int64_t l = 0; l < problem.d; ++l) {
                problem.rows[i * problem.d + l] +=
                        problem.means[k * problem.d + l] - drawn[(k + 1) * problem.d + l];
            }
        }
        if (problem.truth[i] == k && i % 3 != 0) {
            const float mean = problem.means[k * problem.d + j];
            problem.rows[i * problem.d + j] = i % 3 == 1 ? mean : mean + 1e-5f;
        }
    }
    Options options;
    options.capacity = 32;
    for (const float margin : {0.0f, 18.0f}) {
        options.margin = margin;
        EXPECT_EQ(run(problem, options), 0) << "margin " << margin;
    }
}

TEST_F(CollectTest, ElementTypesAndAlignment) {
    for (const int64_t d : {int64_t{96}, int64_t{101}, int64_t{260}}) {
        Problem problem = draw(CollectForm::linear, 260, 200, d, 1.2, 23);
        // Whole numbers between 0 and 127: exact in every element type.
        const auto whole = [](std::vector<float>& values) {
            for (float& v : values) {
                v = std::round(std::clamp(64 + 8 * (v - 3), 0.0f, 127.0f));
            }
        };
        whole(problem.means);
        whole(problem.rows);
        whole(problem.origin);
        problem.half_precision[0] /= 64;
        const Scores scores(problem);
        const DeviceModel device(problem);
        for (const CollectPath path : paths()) {
            Options options;
            const Result expected = collect(problem, device, options, path);
            expect_right(problem, scores, device, options, expected, path);
            for (const ElementType type :
                 {ElementType::f32,
                  ElementType::f16,
                  ElementType::bf16,
                  ElementType::u8,
                  ElementType::i8}) {
                for (const size_t offset : {0, 1, 2, 3}) {
                    options.type = type;
                    options.offset = offset;
                    const Result result = collect(problem, device, options, path);
                    ASSERT_EQ(result.count, expected.count) << name(path) << static_cast<int>(type);
                    for (int64_t i = 0; i < problem.n; ++i) {
                        if (!result.overflowed(i, options.capacity)) {
                            ASSERT_EQ(
                                    result.list(i, options.capacity),
                                    expected.list(i, options.capacity));
                        }
                    }
                }
            }
        }
    }
}

TEST_F(CollectTest, OverflowAndCapacities) {
    Problem problem = draw(CollectForm::linear, 500, 1024, 64, 1.0, 29);
    std::mt19937_64 random(31);
    std::normal_distribution<float> normal;
    for (float& x : problem.rows) {
        x = 3 + normal(random); // no structure: dozens of candidates a row
    }
    for (const int capacity : {8, 16, 24, 32}) {
        Options options;
        options.capacity = capacity;
        const int64_t overflows = run(problem, options);
        EXPECT_TRUE(capacity == 32 || overflows > 0);
    }
}

TEST_F(CollectTest, TopOfEachRow) {
    for (const CollectForm form : forms) {
        for (const int rank : {2, 4, 5, 16}) {
            for (const int64_t d : {int64_t{24}, int64_t{100}, int64_t{200}}) {
                Options options;
                options.rank = rank;
                options.margin = 0;
                options.capacity = 32;
                run(draw(form, 300, 1000, d, 2.0, 37), options);
                run(draw(form, 100, 10, d, 2.0, 38), options); // rank may exceed K
                // So few components that the survey's groups are hardly more than the rank.
                EXPECT_LE(run(draw(form, 100, 48, d, 2.0, 39), options), 10) << "rank " << rank;
            }
        }
    }
}

/// Lists made with a hint are right, and those that the survey makes, but for rows that overflow on the way.
TEST_F(CollectTest, HintsOfAnyKind) {
    for (const CollectForm form : forms) {
        const Problem problem = draw(form, 1500, 1000, 96, 1.6, 41);
        const Scores scores(problem);
        const DeviceModel device(problem);
        // The component at each place of a row's order.
        const auto placed = [&](int place) {
            std::vector<uint16_t> hint(problem.n), order(problem.K);
            for (int64_t i = 0; i < problem.n; ++i) {
                std::iota(order.begin(), order.end(), uint16_t{0});
                const double* row = &scores.value[i * problem.K];
                std::nth_element(
                        order.begin(), order.begin() + place, order.end(), [&](auto a, auto b) {
                            return row[a] > row[b];
                        });
                hint[i] = order[place];
            }
            return hint;
        };
        const struct {
            const char* name;
            std::vector<uint16_t> hint;
            double judged; ///< share of rows that must not overflow, at least
        } hints[] = {
                {"the best", placed(0), 0.9},
                {"the second", placed(1), 0.8},
                {"the fourth", placed(3), 0.5},
                {"one in the middle", placed(500), 0.0},
                {"none that there is", std::vector<uint16_t>(problem.n, 65535), 0.0}};
        Options options;
        options.margin = 6;
        for (const CollectPath path : paths()) {
            const Result surveyed = collect(problem, device, options, path);
            for (const auto& hint : hints) {
                SCOPED_TRACE(hint.name);
                Options given = options;
                given.hint = &hint.hint;
                const Result result = collect(problem, device, given, path);
                const int64_t overflows =
                        expect_right(problem, scores, device, options, result, path);
                EXPECT_GE(problem.n - overflows, hint.judged * problem.n);
                int64_t other = 0, compared = 0;
                for (int64_t i = 0; i < problem.n; ++i) {
                    if (result.overflowed(i, options.capacity)) {
                        continue;
                    }
                    ++compared;
                    other += surveyed.overflowed(i, options.capacity) ||
                             result.list(i, options.capacity) !=
                                     surveyed.list(i, options.capacity) ||
                             result.best[i] != surveyed.best[i];
                }
                EXPECT_EQ(other, 0) << "of " << compared;
            }
        }
    }
}

/// Rows whose rest is of use: lists of what is significant, and the sum over the others of the margin.
struct RestsSeen {
    int64_t rows = 0, listed_only_so = 0;
};

RestsSeen expect_rests(
        const Problem& problem,
        const Scores& all_scores,
        const DeviceModel& device,
        const Options& options,
        const Result& result,
        const Result& all_listed,
        CollectPath path) {
    const std::string what = label(problem, options, path);
    const Bounds bounds(problem, device);
    RestsSeen seen;
    int64_t missing = 0, unexcused = 0, unsorted = 0, wrong_rests = 0;
    for (int64_t i = 0; i < problem.n; ++i) {
        if (result.overflowed(i, options.capacity)) {
            EXPECT_TRUE(all_listed.overflowed(i, options.capacity)) << what;
            continue;
        }
        seen.listed_only_so += all_listed.overflowed(i, options.capacity);
        const double* scores = &all_scores.value[i * problem.K];
        const double top = *std::max_element(scores, scores + problem.K);
        const Bounds::Row row = bounds.row(i);
        const double slack = 1e-5 * all_scores.magnitude[i];
        double highest_lower = -infinity, widest = 0;
        for (int64_t k = 0; k < problem.K; ++k) {
            highest_lower = std::max(highest_lower, bounds.lower(row, scores[k], k));
            widest = std::max(widest, bounds.gap(row, k) / row.f);
        }
        const std::vector<uint16_t> list = result.list(i, options.capacity);
        unsorted += !std::is_sorted(list.begin(), list.end()) ||
                    std::adjacent_find(list.begin(), list.end()) != list.end();
        double rest = 0, doubtful = 0; // those that the bounds let be of the sum or not
        for (int64_t k = 0; k < problem.K; ++k) {
            const bool listed =
                    std::binary_search(list.begin(), list.end(), static_cast<uint16_t>(k));
            missing += !listed && scores[k] >= top - options.significant;
            unexcused += listed && bounds.largest(row, scores[k], k) <
                                           highest_lower - options.significant - slack;
            if (!listed &&
                bounds.largest(row, scores[k], k) >= highest_lower - options.margin - slack) {
                const bool for_sure = scores[k] >= top - options.margin;
                (for_sure ? rest : doubtful) += std::exp(scores[k] - top);
            }
        }
        const double off = std::exp(widest + slack);
        wrong_rests +=
                !(result.rest[i] >= rest / off - 1e-12 &&
                  result.rest[i] <= (rest + doubtful) * off + 1e-12);
        seen.rows += result.rest[i] > 0;
    }
    EXPECT_EQ(missing, 0) << what;
    EXPECT_EQ(unexcused, 0) << what;
    EXPECT_EQ(unsorted, 0) << what;
    EXPECT_EQ(wrong_rests, 0) << what;
    return seen;
}

TEST_F(CollectTest, WhatIsNotListedIsSummedUp) {
    struct {
        int64_t K, d;
        double sigma;
    } const sizes[] = {{1024, 128, 1.75}, {300, 40, 1.0}, {700, 200, 2.3}, {5000, 130, 1.6}};
    for (const auto& size : sizes) {
        const Problem problem =
                draw(CollectForm::linear, 1000, size.K, size.d, size.sigma, size.K + size.d);
        const DeviceModel device(problem);
        const Scores scores(problem);
        for (const CollectPath path : paths()) {
            Result surveyed;
            for (const bool hinted : {false, true}) {
                Options options;
                options.margin = 18.4f;
                options.capacity = 32;
                options.hint = hinted ? &problem.truth : nullptr;
                const Result all_listed = collect(problem, device, options, path);
                options.significant = 11.52f;
                const Result result = collect(problem, device, options, path);
                const RestsSeen seen =
                        expect_rests(problem, scores, device, options, result, all_listed, path);
                EXPECT_GT(seen.rows, problem.n / 10) << label(problem, options, path);
                EXPECT_GT(seen.listed_only_so, 0) << label(problem, options, path);
                // The threshold's origin changes no bit, but for lists that overflow on the way.
                int64_t only_one = 0;
                for (int64_t i = 0; i < problem.n && hinted; ++i) {
                    const bool overflows = result.overflowed(i, options.capacity);
                    const bool overflowed = surveyed.overflowed(i, options.capacity);
                    only_one += overflows != overflowed;
                    if (!overflows && !overflowed) {
                        EXPECT_EQ(result.rest[i], surveyed.rest[i]) << i;
                        EXPECT_EQ(
                                result.list(i, options.capacity),
                                surveyed.list(i, options.capacity))
                                << i;
                    }
                }
                EXPECT_LE(only_one, problem.n / 100);
                surveyed = result;
            }
        }
    }
}

TEST_F(CollectTest, BesideAFarComponentNothingIsSummedUp) {
    // Its bound, 1e4 deviations away, is of more nats than a sum may be off; the plain path knows that no row has it.
    Problem problem = draw(CollectForm::linear, 500, 512, 96, 1.6, 71);
    for (int64_t j = 0; j < problem.d; ++j) {
        problem.means[300 * problem.d + j] += 1e4f;
    }
    const DeviceModel device(problem);
    const Scores scores(problem);
    for (const CollectPath path : paths()) {
        Options options;
        options.margin = 18.4f;
        options.capacity = 32;
        options.hint = &problem.truth; // a survey of the largest U alone sees the far one's group
        const Result all_listed = collect(problem, device, options, path);
        options.significant = 11.52f;
        const Result result = collect(problem, device, options, path);
        expect_rests(problem, scores, device, options, result, all_listed, path);
        int64_t several = 0;
        for (int64_t i = 0; i < problem.n && path != CollectPath::plain; ++i) {
            ASSERT_EQ(result.count[i], all_listed.count[i]) << name(path) << i;
            if (!result.overflowed(i, options.capacity)) {
                ASSERT_EQ(result.rest[i], 0) << name(path) << i;
                ASSERT_EQ(result.list(i, 32), all_listed.list(i, 32)) << name(path) << i;
                several += result.count[i] >
                           8 + 1; // the far one's eight are listed wherever they may be
            }
        }
        EXPECT_TRUE(path == CollectPath::plain || several > 0) << name(path);
    }
}

TEST_F(CollectTest, WhatIsTooMuchToBeSummedUpIsListed) {
    // A component at the rows' place, and so many in the same place whose weight is so many nats less. Of 370 the sum
    // is 2^-8: nothing in 32 bits behind that.
    struct {
        int64_t K, twins;
        double nats;
        float significant;
        int listed;
    } const cases[] = {
            {256, 3, 11.7, 11.5f, 1},
            {256, 30, 11.7, 11.5f, 31},
            {8192, 370, std::log(370 * 256.0), least_significant, 33}};
    for (const auto& [K, twins, nats, significant, listed] : cases) {
        Problem problem = draw(CollectForm::linear, 200, K, 128, 1.2, 3);
        for (int64_t k = 1; k <= twins; ++k) {
            std::copy_n(
                    problem.means.begin(), problem.d, problem.means.begin() + 8 * k * problem.d);
            problem.constant[8 * k] = problem.constant[0] - nats;
        }
        for (int64_t i = 0; i < problem.n; ++i) {
            std::copy_n(problem.means.begin(), problem.d, problem.rows.begin() + i * problem.d);
        }
        const DeviceModel device(problem);
        for (const CollectPath path : paths()) {
            Options options;
            options.capacity = 32;
            options.significant = significant;
            const Result result = collect(problem, device, options, path);
            for (int64_t i = 0; i < problem.n; ++i) {
                ASSERT_EQ(result.count[i], listed) << name(path);
                if (listed <= options.capacity) {
                    const double rest = listed == 1 ? twins * std::exp(-nats) : 0;
                    ASSERT_NEAR(result.rest[i], rest, 1e-6) << name(path);
                }
            }
        }
    }
}

TEST_F(CollectTest, ARowThatListsMoreThanItHasPlacesOverflows) {
    const int64_t sizes[][2] = {{1024, 128}, {8192, 128}, {8192, 200}};
    for (const auto& [K, d] : sizes) {
        const Problem drawn = draw(CollectForm::linear, 200, K, d, 1.2, 5);
        // Components in the place of the first, where all rows are, so far apart: little enough to be summed up.
        const auto expect = [&](int64_t twins, int64_t apart, CollectPath path, int count) {
            Problem problem = drawn;
            for (int64_t k = 1; k <= twins; ++k) {
                const auto mean = problem.means.begin() + apart * k * problem.d;
                std::copy_n(problem.means.begin(), problem.d, mean);
                problem.constant[apart * k] = problem.constant[0] - 16;
            }
            for (int64_t i = 0; i < problem.n; ++i) {
                std::copy_n(problem.means.begin(), problem.d, problem.rows.begin() + i * problem.d);
            }
            Options options;
            options.capacity = 32;
            options.significant = 11.5f;
            const std::vector<uint16_t> hint(problem.n, 0);
            for (const bool hinted : {false, true}) {
                options.hint = hinted ? &hint : nullptr;
                const Result result = collect(problem, DeviceModel(problem), options, path);
                for (int64_t i = 0; i < problem.n; ++i) {
                    ASSERT_EQ(result.count[i], count) << label(problem, options, path) << twins;
                    if (count == 1) {
                        ASSERT_NEAR(result.rest[i], twins * std::exp(-16.0), 1e-6);
                    }
                }
            }
        };
        for (const CollectPath path : paths()) {
            const int places = list_places(DeviceModel(drawn).model, path);
            const bool all_fit = path == CollectPath::plain;
            expect(places - 1, 5, path, 1);
            expect(places, 5, path, all_fit ? 1 : 33);
            if (places > most_of_a_tile) {
                expect(most_of_a_tile - 1, 1, path, 1);
                expect(most_of_a_tile, 1, path, all_fit ? 1 : 33);
            }
        }
    }
}

TEST_F(CollectTest, SameBitsEveryTimeAndInAnyCut) {
    for (const CollectForm form : forms) {
        for (const int64_t d : {int64_t{100}, int64_t{300}}) {
            const Problem problem = draw(form, 40000, 600, d, 3.0, 43);
            const DeviceModel device(problem);
            for (const CollectPath path : paths()) {
                if (path == CollectPath::plain) {
                    continue;
                }
                for (const int rank : {1, 8}) {
                    Options options;
                    options.rank = rank;
                    options.capacity = rank == 1 ? 16 : 32;
                    options.margin = rank == 1 ? 12.0f : 0.0f;
                    const Result first = collect(problem, device, options, path);
                    const auto same = [&](const Result& other, int64_t at) {
                        for (size_t i = 0; i < other.count.size(); ++i) {
                            const int64_t own = at + static_cast<int64_t>(i);
                            if (other.count[i] != first.count[own]) {
                                return false;
                            }
                            if (!first.overflowed(own, options.capacity) &&
                                (other.list(i, options.capacity) !=
                                         first.list(own, options.capacity) ||
                                 (rank == 1 && other.best[i] != first.best[own]))) {
                                return false;
                            }
                        }
                        return true;
                    };
                    for (int repeat = 0; repeat < 3; ++repeat) {
                        ASSERT_TRUE(same(collect(problem, device, options, path), 0))
                                << label(problem, options, path);
                    }
                    Problem part = problem;
                    const int64_t cut = 12345;
                    part.n -= cut;
                    part.rows.erase(part.rows.begin(), part.rows.begin() + cut * d);
                    ASSERT_TRUE(same(collect(part, device, options, path), cut))
                            << label(problem, options, path);
                }
            }
        }
    }
}

/// Rows that a survey settles and rows that it leaves open, few of them and more than have places, in two
/// waves: each as if it came alone.
TEST_F(CollectTest, OpenRowsFewAndMany) {
    const int64_t d = 128, cut = 30000, copies = 16;
    const Problem problem = draw(CollectForm::linear, cut, 200, d, 1.0, 47);
    const DeviceModel device(problem);
    Problem copied = problem;
    copied.n = copies * cut;
    for (int64_t copy = 1; copy < copies; ++copy) {
        copied.rows.insert(copied.rows.end(), problem.rows.begin(), problem.rows.end());
    }
    for (const CollectPath path : paths()) {
        if (path == CollectPath::plain) {
            continue;
        }
        for (const bool many : {false, true}) {
            Options options;
            options.margin = many ? 85.0f : 30.0f;
            options.capacity = 32;
            const Result few = collect(problem, device, options, path);
            const Result all = collect(copied, device, options, path);
            int64_t several = 0, other = 0;
            for (int64_t i = 0; i < copied.n; ++i) {
                const int64_t own = i % cut;
                several += all.count[i] > 1;
                other += few.count[own] != all.count[i] ||
                         (!few.overflowed(own, options.capacity) &&
                          (few.best[own] != all.best[i] ||
                           few.list(own, options.capacity) != all.list(i, options.capacity)));
            }
            EXPECT_EQ(other, 0);
            // There are places for 256 rows a multiprocessor.
            EXPECT_GT(several, many ? 100000 : 0);
            EXPECT_LT(several, many ? copied.n - 1000 : 10000);
        }
    }
}

} // namespace
} // namespace faiss_gmm::cuda
