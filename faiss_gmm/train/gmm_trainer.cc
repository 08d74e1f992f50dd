// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The EM loop: policy only. What is heavy is behind EStepEngine.
// Phases of a run:
//   1 start     K distinct rows at random, or means_init
//   2 warm up   Lloyd steps (hard passes) on a subsample; covariances from the last of them
//   3 iterate   pass, M-step, means to unit length, balance, re-seed, report, stop?
// With unit_means rows of any length count by their direction: around a mean of length 1 the variance
// of longer rows is that of their lengths, every component answers for every row, and all means become
// one. The steps of phase 2 take rows as they are, for which mean is the best does not depend on a
// row's length; one more gives the covariances of their directions. Phase 3 is of directions alone.
// With max_iter = 0 phase 2 is ten steps on the whole sample, as stock k-means does, and the
// covariances are those of the last hard assignment, around the means that it gave.
// Cost: phase 2 by default 8 steps on 64 rows a component, as much as two over a sample of 256; then
//   6 passes of EM at .6 to 1.25 of a k-means iteration each (bench/results/bench_train.md).
// Determinism: what the engine has; random numbers come from seed + run alone.
// Test: tests/train/gmm_trainer_test.cc.
#include "faiss_gmm/train/gmm_trainer.h"
#include "faiss_gmm/mixture/clock.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/mixture/random.h"
#include "faiss_gmm/train/finite_rows.h"
#include "faiss_gmm/train/maximization.h"
#include "faiss_gmm/train/unit_length.h"

namespace faiss_gmm {
namespace {

constexpr size_t stock_lloyd_steps = 10; ///< FAISS's niter of an IVF's k-means
constexpr size_t warm_start_points = 64; ///< rows a component for the Lloyd steps
constexpr double dead_mass = 0.1;        ///< rows; a component with less is started anew
constexpr double reseed_distance = 1.0;  ///< standard deviations between a half and the middle
constexpr double balance_step = 1.0;     ///< of log(N_k / share) taken off a log-weight

[[noreturn]] void refuse(std::string given, std::string allowed, std::string next) {
    throw Error({"training a mixture", std::move(given), std::move(allowed), std::move(next)});
}

/// `count` different numbers below n, ascending (Floyd's selection by a partial shuffle).
std::vector<int64_t> random_rows(size_t n, size_t count, Random& random) {
    std::vector<int64_t> rows;
    rows.reserve(count);
    // Selection sampling (Knuth, 3.4.2 S): ascending without an array of n numbers.
    for (size_t i = 0; i < n && rows.size() < count; ++i) {
        if (random.uniform() * static_cast<double>(n - i) <
            static_cast<double>(count - rows.size())) {
            rows.push_back(static_cast<int64_t>(i));
        }
    }
    return rows;
}

[[noreturn]] void refuse_bad_row(size_t row) {
    refuse(fmt::format("row {} with NaN or Inf", row),
           "finite numbers",
           "remove or repair that row");
}

/// Chosen rows of another source, ascending. Refuses rows with NaN or Inf by their number there.
class SubsetSource : public VectorSource {
public:
    SubsetSource(VectorSource& whole, std::vector<int64_t> rows)
            : whole_(whole), rows_(std::move(rows)) {}
    size_t rows() const override {
        return rows_.size();
    }
    size_t dimensions() const override {
        return whole_.dimensions();
    }
    size_t max_chunk_rows() const override {
        return std::max<size_t>(1024, (size_t{8} << 20) / (sizeof(float) * dimensions()));
    }
    uint64_t number() const override {
        return number_;
    }
    Chunk read(size_t first, size_t n) override {
        const size_t d = dimensions();
        buffer_.resize(std::max(buffer_.size(), n * d));
        for (size_t i = 0; i < n; ++i) {
            const Chunk one = whole_.read(rows_[first + i], 1);
            if (one.memory != Chunk::Memory::host) {
                refuse("a source in device memory, from which rows are to be picked",
                       "sources in host memory",
                       "copy the rows to the host, or give means_init");
            }
            const float* x = as_f32(one, d, 0, 1, one_).floats();
            if (!all_finite(d, x)) {
                refuse_first_bad_row(rows_[first + i]);
            }
            std::copy_n(x, d, buffer_.begin() + i * d);
        }
        Chunk chunk;
        chunk.x = buffer_.data();
        chunk.n = n;
        chunk.first = first;
        chunk.last = first + n == rows_.size();
        chunk.source = number_;
        return chunk;
    }

private:
    /// `known` is bad; rows before it that were not chosen may be so too.
    [[noreturn]] void refuse_first_bad_row(size_t known) {
        size_t row = 0;
        const size_t d = dimensions();
        while (row < known && all_finite(d, as_f32(whole_.read(row, 1), d, 0, 1, one_).floats())) {
            ++row;
        }
        refuse_bad_row(row);
    }

    VectorSource& whole_;
    std::vector<int64_t> rows_;
    std::vector<float> buffer_, one_;
    uint64_t number_ = new_number();
};

/// Rows between two calls of TrainingParameters::interrupt. Engines fill waves from host memory whatever the pieces;
/// pieces of device memory are waves of their own.
constexpr size_t interrupt_rows = size_t{1} << 16, interrupt_device_rows = size_t{1} << 21;

bool is_on_device(VectorSource& source) {
    return source.read(0, 1).memory == Chunk::Memory::device;
}

void accumulate(VectorSource& source, EStepEngine& engine, const std::function<void()>& interrupt) {
    const size_t n = source.rows();
    size_t most = source.max_chunk_rows();
    if (interrupt && n > interrupt_rows) {
        most = std::min(most, is_on_device(source) ? interrupt_device_rows : interrupt_rows);
    }
    for (size_t first = 0; first < n; first += most) {
        if (interrupt && first > 0) {
            interrupt();
        }
        Chunk chunk;
        chunk.n = std::min(most, n - first);
        chunk.first = first;
        chunk.last = first + chunk.n == n;
        chunk.source = source.number();
        // To gather rows takes a host longer than what a GPU then does with them.
        engine.accumulate(engine.holds(chunk) ? chunk : source.read(first, chunk.n));
    }
}

/// Unit length, as stock's spherical k-means; a mean of zero stays.
std::vector<float> unit_length(const std::vector<float>& means, size_t d) {
    std::vector<float> result(means.size());
    to_unit_length(means.size() / d, d, means.data(), result.data());
    return result;
}

/// Standard deviation of component k in its mean direction.
double typical_deviation(const GaussianMixture& mixture, size_t k) {
    const size_t d = mixture.d;
    double sum = 0;
    switch (mixture.covariance) {
    case Covariance::tied_spherical:
        return std::sqrt(mixture.covariances[0]);
    case Covariance::spherical:
        return std::sqrt(mixture.covariances[k]);
    case Covariance::diagonal:
        for (size_t j = 0; j < d; ++j) {
            sum += mixture.covariances[k * d + j];
        }
        break;
    case Covariance::tied:
    case Covariance::full:
        for (size_t j = 0; j < d; ++j) {
            const size_t first = mixture.covariance == Covariance::full ? k * d * d : 0;
            sum += mixture.covariances[first + j * d + j];
        }
        break;
    }
    return std::sqrt(sum / d);
}

bool any_dead(const std::vector<double>& N_k) {
    return std::any_of(N_k.begin(), N_k.end(), [](double N) { return N < dead_mass; });
}

/// Components of (almost) no mass take half of the heaviest one each: the two means stand on both
/// sides of the old one in a random direction. Returns how many.
size_t reseed_dead(GaussianMixture& mixture, const std::vector<double>& N_k, Random& random) {
    const size_t K = mixture.K, d = mixture.d;
    std::vector<double> mass = N_k;
    size_t count = 0;
    for (size_t k = 0; k < K; ++k) {
        if (N_k[k] >= dead_mass) {
            continue;
        }
        const size_t heavy = std::max_element(mass.begin(), mass.end()) - mass.begin();
        if (heavy == k || mass[heavy] < 2 * dead_mass) {
            continue; // nothing left to halve
        }
        const double step =
                reseed_distance * typical_deviation(mixture, heavy) / std::sqrt(double(d));
        for (size_t j = 0; j < d; ++j) {
            const double offset = random.uniform() < 0.5 ? -step : step;
            const double mu = mixture.means[heavy * d + j];
            mixture.means[k * d + j] = static_cast<float>(mu + offset);
            mixture.means[heavy * d + j] = static_cast<float>(mu - offset);
        }
        const size_t total = mixture.covariances.size();
        if (mixture.covariance != Covariance::tied_spherical &&
            mixture.covariance != Covariance::tied) {
            const size_t block = total / K;
            std::copy_n(
                    mixture.covariances.begin() + heavy * block,
                    block,
                    mixture.covariances.begin() + k * block);
        }
        if (mixture.mixing == Mixing::free) {
            // A weight of zero is given up whatever it was; the heavy one's is shared.
            mixture.log_weights[heavy] -= std::log(2.0);
        }
        mixture.log_weights[k] = mixture.log_weights[heavy];
        mass[heavy] /= 2;
        mass[k] = mass[heavy];
        ++count;
    }
    return count;
}

void normalise(std::vector<double>& log_weights) {
    const double top = *std::max_element(log_weights.begin(), log_weights.end());
    double sum = 0;
    for (const double value : log_weights) {
        sum += std::exp(value - top);
    }
    const double norm = top + std::log(sum);
    for (double& value : log_weights) {
        value -= norm;
    }
}

/// Lowers the log-weight of components above their share n / K, raises the others.
void balance(GaussianMixture& mixture, const SufficientStatistics& statistics) {
    const double share = static_cast<double>(statistics.rows) / mixture.K;
    for (size_t k = 0; k < mixture.K; ++k) {
        // Bounded: an almost empty component's logarithm says little.
        const double excess = std::log(std::max(statistics.N_k[k] / share, 0.05));
        mixture.log_weights[k] -= balance_step * excess;
    }
    normalise(mixture.log_weights);
}

/// A component with too few rows to have a variance of its own starts with the variance of all.
void pool_poor_covariances(
        GaussianMixture& mixture, const std::vector<double>& N_k, double enough) {
    const size_t K = mixture.K;
    if (mixture.covariance == Covariance::tied_spherical ||
        mixture.covariance == Covariance::tied) {
        return;
    }
    const size_t block = mixture.covariances.size() / K;
    std::vector<double> pooled(block, 0.0);
    double total = 0;
    for (size_t k = 0; k < K; ++k) {
        for (size_t j = 0; j < block; ++j) {
            pooled[j] += N_k[k] * mixture.covariances[k * block + j];
        }
        total += N_k[k];
    }
    for (size_t k = 0; k < K; ++k) {
        for (size_t j = 0; j < block && N_k[k] < enough; ++j) {
            mixture.covariances[k * block + j] = pooled[j] / total;
        }
    }
}

/// One run, from its start to its last iteration.
class Run {
public:
    Run(const TrainingParameters& parameters,
        size_t K,
        VectorSource& source,
        EStepEngine& engine,
        size_t number)
            : parameters_(parameters), source_(source), engine_(engine), number_(number),
              random_(parameters.seed + number), directions_(source),
              by_direction_(parameters.unit_means && directions_.changes_any()) {
        mixture_.K = K;
        mixture_.d = source.dimensions();
        mixture_.mixing = parameters.mixing;
    }

    TrainingResult train() {
        const Clock::time_point began = Clock::now();
        start();
        if (parameters_.max_iter == 0) {
            lloyd(source_, parameters_.keep_means ? 1 : stock_lloyd_steps, true);
        } else {
            warm_up();
            warm_start_seconds_ = seconds_since(began);
            iterate();
        }
        result_.mixture = std::move(mixture_);
        return std::move(result_);
    }
    double last_log_likelihood() const {
        return last_log_likelihood_;
    }

private:
    /// Phase 1.
    void start() {
        const size_t K = mixture_.K, d = mixture_.d;
        mixture_.log_weights.assign(K, -std::log(static_cast<double>(K)));
        if (!parameters_.means_init.empty()) {
            mixture_.means = parameters_.means_init;
            return;
        }
        SubsetSource chosen(source_, random_rows(source_.rows(), K, random_));
        mixture_.means.reserve(K * d);
        for (size_t first = 0; first < K;) {
            const size_t count = std::min(chosen.max_chunk_rows(), K - first);
            const Chunk chunk = chosen.read(first, count);
            mixture_.means.insert(mixture_.means.end(), chunk.floats(), chunk.floats() + count * d);
            first += count;
        }
        if (parameters_.unit_means) {
            mixture_.means = unit_length(mixture_.means, d);
        }
    }

    /// Of a Lloyd step.
    SufficientStatistics pass(VectorSource& rows) {
        engine_.begin(mixture_, Assignment::hard);
        accumulate(rows, engine_, parameters_.interrupt);
        return engine_.finish();
    }

    /// Phase 2: Lloyd steps, then the parameters' shape from the last one's assignment.
    void lloyd(VectorSource& sample, size_t steps, bool report) {
        for (size_t step = 1; step <= steps; ++step) {
            const Clock::time_point began = Clock::now();
            if (step < steps || by_direction_) {
                // Hard passes need no more than distances: equal variances, whatever they are.
                mixture_.covariance = Covariance::tied_spherical;
                mixture_.mixing = Mixing::uniform;
                mixture_.covariances = {1.0};
            } else {
                // The last assignment also gives the covariances.
                take_shape(1.0);
            }
            const SufficientStatistics statistics = pass(sample);
            if (report && step == 1) {
                take_data_mean(statistics);
            }
            maximize(statistics);
            const size_t reseeded =
                    step < steps ? reseed_dead(mixture_, statistics.N_k, random_) : 0;
            if (reseeded > 0 && parameters_.unit_means) {
                mixture_.means = unit_length(mixture_.means, mixture_.d);
            }
            if (step == steps && !by_direction_) {
                pool_poor_covariances(mixture_, statistics.N_k, 2);
            }
            if (report && !reported(statistics, step, reseeded, began)) {
                if (step < steps) { // the shape is still that of a Lloyd step
                    take_shape(mixture_.covariances[0]);
                }
                break;
            }
        }
        if (by_direction_) {
            take_shape_of_directions(sample);
        }
    }

    /// Covariances of the directions of these rows. The means stay: as in stock's spherical k-means, long
    /// rows count for more in them.
    void take_shape_of_directions(VectorSource& sample) {
        UnitLengthSource directions(sample);
        take_shape(1.0);
        const SufficientStatistics statistics = pass(directions);
        const std::vector<float> means = mixture_.means;
        mixture_ = engine_.maximize(statistics, parameters_.reg_covar);
        replace_means(mixture_, statistics.N_k, means);
        pool_poor_covariances(mixture_, statistics.N_k, 2);
    }

    /// Gives the mixture its own covariance shape, all variances equal, and its mixing.
    void take_shape(double variance) {
        const size_t K = mixture_.K, d = mixture_.d;
        mixture_.covariance = parameters_.covariance;
        mixture_.mixing = parameters_.mixing;
        const bool matrix =
                mixture_.covariance == Covariance::tied || mixture_.covariance == Covariance::full;
        const size_t size = GaussianMixture::covariance_size(mixture_.covariance, K, d);
        mixture_.covariances.assign(size, matrix ? 0.0 : variance);
        for (size_t i = 0; matrix && i < size; i += d * d) {
            for (size_t j = 0; j < d; ++j) {
                mixture_.covariances[i + j * d + j] = variance;
            }
        }
    }

    void warm_up() {
        const size_t n = source_.rows();
        const size_t most = warm_start_points * mixture_.K;
        const bool given = !parameters_.means_init.empty();
        const size_t steps = given ? 1 : std::max<size_t>(1, parameters_.warm_start_iterations);
        // Rows are picked from host memory alone; start() has refused what it could not pick from.
        if (n <= most || is_on_device(source_)) {
            lloyd(source_, steps, false);
        } else {
            SubsetSource subset(source_, random_rows(n, most, random_));
            lloyd(subset, steps, false);
        }
    }

    /// The responsibilities of a row sum to one, so the moments hold the sum of the rows too.
    void take_data_mean(const SufficientStatistics& statistics) {
        const size_t K = mixture_.K, d = mixture_.d;
        result_.data_mean.resize(d);
        for (size_t j = 0; j < d; ++j) {
            double sum = 0;
            for (size_t k = 0; k < K; ++k) {
                sum += statistics.first_moment[k * d + j] +
                       statistics.N_k[k] * mixture_.means[k * d + j];
            }
            result_.data_mean[j] = static_cast<float>(sum / static_cast<double>(statistics.rows));
        }
    }

    /// The M-step and what policy makes of its means.
    void maximize(const SufficientStatistics& statistics) {
        const std::vector<float> before =
                parameters_.keep_means || first_pass_ ? mixture_.means : std::vector<float>();
        mixture_ = engine_.maximize(statistics, parameters_.reg_covar);
        const bool given = !parameters_.means_init.empty();
        if (parameters_.keep_means || (first_pass_ && given)) {
            // Given means stay for good, or at least until EM moves them.
            replace_means(mixture_, statistics.N_k, before);
        } else if (parameters_.unit_means) {
            replace_means(mixture_, statistics.N_k, unit_length(mixture_.means, mixture_.d));
        }
        first_pass_ = false;
    }

    /// Phase 3.
    void iterate() {
        const size_t n = source_.rows();
        VectorSource& rows = by_direction_ ? directions_ : source_;
        for (size_t iteration = 1; iteration <= parameters_.max_iter; ++iteration) {
            const Clock::time_point began = Clock::now();
            const double before = last_log_likelihood_;
            const PassSummary statistics = expect_and_maximize(rows, iteration == 1);
            const double change =
                    std::abs(statistics.sum_log_likelihood / static_cast<double>(n) - before);
            const bool last = iteration == parameters_.max_iter;
            // A re-seeded component needs an iteration to settle: none after the last one.
            size_t reseeded = 0;
            if (!last && !parameters_.keep_means && any_dead(statistics.N_k)) {
                fetch();
                reseeded = reseed_dead(mixture_, statistics.N_k, random_);
            }
            if (reseeded > 0 && parameters_.mixing != Mixing::uniform) {
                normalise(mixture_.log_weights);
            }
            if (reseeded > 0 && parameters_.unit_means) {
                mixture_.means = unit_length(mixture_.means, mixture_.d);
            }
            if (!reported(statistics, iteration, reseeded, began)) {
                break;
            }
            if (iteration > 1 && reseeded == 0 && change < parameters_.tol) {
                result_.converged = true;
                break;
            }
        }
        fetch();
    }

    /// A pass of EM and its M-step. Where policy has no say in the parameters they stay with the engine; the
    /// first pass gives the mean of the data too.
    PassSummary expect_and_maximize(VectorSource& rows, bool first) {
        if (at_engine_) {
            engine_.begin_again(Assignment::soft);
        } else {
            engine_.begin(mixture_, Assignment::soft);
        }
        accumulate(rows, engine_, parameters_.interrupt);
        const bool policy = parameters_.mixing == Mixing::balanced || parameters_.unit_means ||
                            parameters_.keep_means;
        if (!first && !policy) {
            at_engine_ = true;
            return engine_.advance(parameters_.reg_covar);
        }
        SufficientStatistics statistics = engine_.finish();
        if (first) {
            take_data_mean(statistics);
        }
        maximize(statistics);
        if (parameters_.mixing == Mixing::balanced) {
            balance(mixture_, statistics);
        }
        return PassSummary(std::move(statistics));
    }

    /// Takes back the parameters that stayed with the engine.
    void fetch() {
        if (at_engine_) {
            mixture_ = engine_.mixture();
            at_engine_ = false;
        }
    }

    /// Writes the iteration down and tells the callback; false: stop.
    bool reported(
            const PassSummary& statistics,
            size_t iteration,
            size_t reseeded,
            Clock::time_point began) {
        const double n = static_cast<double>(statistics.rows);
        TrainingProgress progress;
        progress.run = number_;
        progress.iteration = iteration;
        progress.mean_log_likelihood = statistics.sum_log_likelihood / n;
        progress.change = iteration > 1 ? progress.mean_log_likelihood - last_log_likelihood_ : 0;
        progress.smallest_N_k = *std::min_element(statistics.N_k.begin(), statistics.N_k.end());
        double squares = 0;
        for (const double N : statistics.N_k) {
            squares += (N / n) * (N / n);
        }
        progress.imbalance = mixture_.K * squares;
        progress.shared_fraction = static_cast<double>(statistics.shared_rows) / n;
        progress.reseeded = reseeded;
        progress.seconds = seconds_since(began);
        progress.warm_start_seconds = warm_start_seconds_;
        last_log_likelihood_ = progress.mean_log_likelihood;
        result_.history.push_back(progress);
        if (parameters_.progress && !parameters_.progress(progress)) {
            result_.stopped = true;
            return false;
        }
        return true;
    }

    const TrainingParameters& parameters_;
    VectorSource& source_;
    EStepEngine& engine_;
    size_t number_;
    Random random_;
    UnitLengthSource directions_;
    bool by_direction_; ///< the mixture is one of directions, and not all rows are such
    GaussianMixture mixture_;
    TrainingResult result_;
    bool first_pass_ = true;
    double warm_start_seconds_ = 0;
    bool at_engine_ = false; ///< the parameters: mixture_ is of an earlier pass
    double last_log_likelihood_ = -std::numeric_limits<double>::infinity();
};

} // namespace

EngineParameters engine_parameters(const TrainingParameters& parameters) {
    EngineParameters engine;
    engine.kind = parameters.engine;
    engine.device = parameters.device;
    engine.gpu_memory = parameters.gpu_memory;
    engine.gpu_cache = parameters.gpu_cache;
    engine.estep = parameters.estep;
    engine.note = parameters.warning;
    return engine;
}

GMMTrainer::GMMTrainer(TrainingParameters parameters) : parameters_(std::move(parameters)) {
    const TrainingParameters& p = parameters_;
    if (!(p.reg_covar >= 0) || !std::isfinite(p.reg_covar)) {
        refuse(fmt::format("reg_covar = {}", p.reg_covar),
               "finite numbers from 0",
               "use the default of 1e-6");
    }
    if (!(p.tol >= 0)) {
        refuse(fmt::format("tol = {}", p.tol), "numbers from 0", "use the default of 1e-3");
    }
    if (p.n_init == 0) {
        refuse("n_init = 0", "n_init from 1", "use the default of 1");
    }
    if (p.keep_means && p.means_init.empty()) {
        refuse("keep_means without means_init", "both", "give the means that are to be kept");
    }
}

TrainingResult GMMTrainer::train(size_t K, size_t n, size_t d, const float* x) const {
    if (d == 0) {
        refuse("d = 0", "d from 1", "give rows of at least one number");
    }
    const size_t bad = first_bad_row(n, d, x);
    if (bad < n) {
        refuse_bad_row(bad);
    }
    const std::unique_ptr<EStepEngine> engine = make_engine(K, d);
    std::unique_ptr<EStepEngine> other;
    try {
        return train(K, n, d, x, *engine);
    } catch (const OutOfMemory& error) {
        other = make_engine_after(error, engine_parameters(parameters_));
    }
    return train(K, n, d, x, *other);
}

std::unique_ptr<EStepEngine> GMMTrainer::make_engine(size_t K, size_t d) const {
    return faiss_gmm::make_engine(engine_parameters(parameters_), {parameters_.covariance, K, d});
}

TrainingResult
GMMTrainer::train(size_t K, size_t n, size_t d, const float* x, EStepEngine& engine) const {
    const size_t most = parameters_.max_points_per_component;
    if (most > 0 && n / most >= K && n > most * K) {
        Random random(parameters_.seed);
        SampledSource source(d, x, random_rows(n, most * K, random));
        return train(K, source, engine);
    }
    MemorySource source(n, d, x);
    return train(K, source, engine);
}

TrainingResult GMMTrainer::train(size_t K, VectorSource& source, EStepEngine& engine) const {
    const size_t n = source.rows(), d = source.dimensions();
    if (K == 0 || d == 0) {
        refuse(fmt::format("K = {} components, d = {} dimensions", K, d),
               "both from 1",
               "ask for at least one component");
    }
    if (n < K) {
        refuse(fmt::format("n = {} rows for K = {} components", n, K),
               "n >= K",
               n == 0 ? std::string("give some rows")
                      : fmt::format(
                                "give at least {} rows or ask for at most {} components", K, n));
    }
    const std::vector<float>& means = parameters_.means_init;
    if (!means.empty() && means.size() != K * d) {
        refuse(fmt::format("means_init of {} numbers", means.size()),
               fmt::format("K * d = {} numbers", K * d),
               "give one mean a component");
    }
    const size_t least = parameters_.min_points_per_component * K;
    if (n < least && parameters_.warning) {
        parameters_.warning(fmt::format(
                "WARNING clustering {} points to {} centroids: please provide at least {} training "
                "points",
                n,
                K,
                least));
    }
    TrainingResult best;
    double best_log_likelihood = 0;
    for (size_t number = 0; number < parameters_.n_init; ++number) {
        Run run(parameters_, K, source, engine, number);
        TrainingResult result = run.train();
        const bool stopped = result.stopped;
        if (number == 0 || run.last_log_likelihood() > best_log_likelihood) {
            best_log_likelihood = run.last_log_likelihood();
            best = std::move(result);
        }
        best.stopped = stopped;
        if (stopped) {
            break;
        }
    }
    return best;
}

} // namespace faiss_gmm
