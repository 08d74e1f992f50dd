// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// One EM iteration of the CPU engine against one iteration of faiss::Clustering: same data, threads and
// BLAS, in turns. With --engine what an index of K lists takes: warm start, EM, and the assignment of all
// rows, on that engine.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <CLI/CLI.hpp>
#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench/common/environment.h"
#include "bench/common/program.h"
#include "datasets/vector_file.h"
#include "faiss_gmm/index/gmm_quantizer.h"
#include "faiss_gmm/mixture/clock.h"
#include "faiss_gmm/train/estep_engine.h"
#include "faiss_gmm/train/gmm_trainer.h"

namespace {

using namespace faiss_gmm;

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

/// A line of /proc/self/status in MiB; 0 where there is none.
double status_mib(const std::string& key) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.rfind(key + ":", 0) == 0) {
            return std::stod(line.substr(key.size() + 1)) / 1024;
        }
    }
    return 0;
}

/// Most memory that body() holds beyond what was held before, MiB (Linux).
template <class Body> double peak_extra_mib(Body body) {
#ifdef __GLIBC__
    malloc_trim(0); // what was freed must not hide what is taken now
#endif
    std::ofstream("/proc/self/clear_refs") << "5"; // the peak starts from here
    const double before = status_mib("VmRSS");
    body();
    return status_mib("VmHWM") - before;
}

/// n rows on a curved surface of 12 dimensions, with a little noise, for want of a data set: like
/// descriptors, few of many components matter to a row.
std::vector<float> curved_rows(size_t n, size_t d) {
    constexpr size_t latent = 12, rows_a_seed = 4096;
    const size_t hidden = std::max<size_t>(1, d / 2);
    std::vector<float> in(hidden * latent), out(d * hidden), x(n * d);
    std::mt19937 of_surface(3);
    std::normal_distribution<float> normal;
    for (float& value : in) {
        value = normal(of_surface) / std::sqrt(static_cast<float>(latent));
    }
    for (float& value : out) {
        value = normal(of_surface) / std::sqrt(static_cast<float>(hidden));
    }
    const auto product = [](const float* a, const float* b, size_t length) {
        float sum = 0;
        for (size_t j = 0; j < length; j++) {
            sum += a[j] * b[j];
        }
        return sum;
    };
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < static_cast<int64_t>(n); first += rows_a_seed) {
        std::mt19937 random(static_cast<unsigned>(100 + first));
        std::normal_distribution<float> of_rows;
        std::vector<float> z(latent), bent(hidden);
        for (size_t i = first; i < std::min<size_t>(n, first + rows_a_seed); i++) {
            for (float& value : z) {
                value = of_rows(random);
            }
            for (size_t j = 0; j < hidden; j++) {
                bent[j] = std::tanh(1.5f * product(&in[j * latent], z.data(), latent));
            }
            for (size_t t = 0; t < d; t++) {
                x[i * d + t] =
                        0.03f * of_rows(random) + product(&out[t * hidden], bent.data(), hidden);
            }
        }
    }
    return x;
}

GaussianMixture started_mixture(size_t K, size_t n, size_t d, const std::vector<float>& x) {
    TrainingParameters parameters;
    parameters.max_iter = 2;
    parameters.min_points_per_component = 1;
    return GMMTrainer(parameters).train(K, n, d, x.data()).mixture;
}

double kmeans_iteration_seconds(size_t K, size_t n, size_t d, const std::vector<float>& x) {
    faiss::ClusteringParameters parameters;
    parameters.niter = 4;
    parameters.max_points_per_centroid = static_cast<int>(n / K + 1);
    faiss::Clustering clustering(static_cast<int>(d), static_cast<int>(K), parameters);
    faiss::IndexFlatL2 index(static_cast<int64_t>(d));
    clustering.train(static_cast<int64_t>(n), x.data(), index);
    const auto& stats = clustering.iteration_stats; // times are cumulative
    return (stats.back().time - stats.front().time) / static_cast<double>(stats.size() - 1);
}

double em_iteration_seconds(
        EStepEngine& engine, GaussianMixture& mixture, size_t n, const std::vector<float>& x) {
    const Clock::time_point begin = Clock::now();
    engine.begin(mixture);
    engine.accumulate({x.data(), n, 0});
    mixture = engine.maximize(engine.finish(), 1e-6);
    return seconds_since(begin);
}

const std::map<std::string, EngineKind> engine_names = {
        {"auto", EngineKind::automatic}, {"cpu", EngineKind::cpu}, {"cuda", EngineKind::cuda}};

/// Homes of rows x [n, d] as an index with this mixture assigns them.
std::vector<int64_t>
assigned(const GaussianMixture& mixture, EngineKind engine, size_t n, const float* x) {
    auto state = std::make_shared<CoarseState>();
    state->mixture = mixture;
    GMMQuantizer quantizer(static_cast<int64_t>(mixture.d));
    quantizer.add(static_cast<int64_t>(mixture.K), mixture.means.data());
    quantizer.set_state(state);
    quantizer.engine.kind = engine;
    std::vector<int64_t> homes(n);
    quantizer.assign(static_cast<int64_t>(n), x, homes.data());
    return homes;
}

/// How the homes of two engines differ: how many do, and by how much at most the second one's is further
/// away, relative to the squared distance of the first's.
nlohmann::json differences(
        const GaussianMixture& mixture,
        const float* x,
        const std::vector<int64_t>& a,
        const std::vector<int64_t>& b) {
    const auto distance = [&](size_t i, int64_t k) {
        double sum = 0;
        for (size_t t = 0; t < mixture.d; t++) {
            const double difference =
                    static_cast<double>(x[i * mixture.d + t]) - mixture.means[k * mixture.d + t];
            sum += difference * difference;
        }
        return sum;
    };
    size_t other = 0;
    double excess = 0;
    for (size_t i = 0; i < b.size(); i++) {
        if (a[i] != b[i]) {
            other++;
            excess = std::max(excess, std::abs(distance(i, b[i]) / distance(i, a[i]) - 1));
        }
    }
    return {{"rows", b.size()}, {"other_homes", other}, {"largest_relative_excess", excess}};
}

/// Trains and assigns with one engine; `check` rows are assigned by the CPU engine too.
nlohmann::json time_an_index(
        const std::string& engine, size_t K, size_t n, size_t d, const float* x, size_t check) {
    TrainingParameters parameters;
    parameters.engine = engine_names.at(engine);
    parameters.estep = EStep::exact;
    parameters.min_points_per_component = 1;
    parameters.tol = 0;
    parameters.warning = [](const std::string& text) { fmt::print(stderr, "{}\n", text); };
    Clock::time_point began = Clock::now();
    const TrainingResult result = GMMTrainer(parameters).train(K, n, d, x);
    const double train = seconds_since(began);
    std::vector<double> iterations;
    for (const TrainingProgress& progress : result.history) {
        iterations.push_back(progress.seconds);
    }
    began = Clock::now();
    const std::vector<int64_t> homes = assigned(result.mixture, parameters.engine, n, x);
    const double assign = seconds_since(began);
    nlohmann::json line = {
            {"bench", "train_index"},
            {"engine", engine},
            {"train_s", train},
            {"warm_start_s", result.history.front().warm_start_seconds},
            {"em_iterations_s", iterations},
            {"mean_log_likelihood", result.history.back().mean_log_likelihood},
            {"imbalance", result.history.back().imbalance},
            {"shared_fraction", result.history.back().shared_fraction},
            {"assign_s", assign}};
    if (check > 0) {
        line["against_cpu"] = differences(
                result.mixture,
                x,
                homes,
                assigned(result.mixture, EngineKind::cpu, std::min(n, check), x));
    }
    return line;
}

nlohmann::json
compare_with_kmeans(size_t rounds, size_t K, size_t n, size_t d, const std::vector<float>& x) {
    GaussianMixture mixture = started_mixture(K, n, d, x);
    std::vector<double> em, kmeans;
    double extra = 0;
    for (size_t round = 0; round < rounds; round++) {
        extra = std::max(extra, peak_extra_mib([&] {
                             const auto engine = make_cpu_engine();
                             em.push_back(em_iteration_seconds(*engine, mixture, n, x));
                         }));
        kmeans.push_back(kmeans_iteration_seconds(K, n, d, x));
    }
    return {{"bench", "train"},
            {"em_iteration_s", median(em)},
            {"kmeans_iteration_s", median(kmeans)},
            {"ratio", median(em) / median(kmeans)},
            {"extra_memory_mib", extra}};
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"Times an EM iteration of the CPU engine against an iteration of "
                 "faiss::Clustering, or, with\n"
                 "--engine, training and assignment of an index; one JSON line.\n"
                 "example: bench_train --data base.u8bin --n 262144 --K 1024"};
    std::string data, json, engine;
    size_t check = 0;
    size_t n = 262144, d = 128, K = 1024, rounds = 5;
    int threads = bench::default_threads();
    app.add_option(
               "--data", data, "Vector file (.fvecs, .u8bin, ...); else rows on a curved surface")
            ->check(CLI::ExistingFile);
    app.add_option("--n", n, "Rows")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--d", d, "Dimensions of random rows")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    app.add_option("--K", K, "Components")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--rounds", rounds, "Turns")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--threads", threads, "Threads")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    app.add_option("--engine", engine, "Time an index on this engine: auto, cpu, cuda")
            ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
    app.add_option("--check", check, "Rows whose lists are compared with those of the CPU engine")
            ->capture_default_str();
    app.add_option("--json", json, "Append a JSON line to this file");
    return bench::run_program("error", app, argc, argv, [&] {
        bench::set_threads(threads);
        std::vector<float> x;
        if (data.empty()) {
            x = curved_rows(n, d);
        } else {
            const VectorFile file(data);
            n = std::min(n, file.rows());
            d = file.dimensions();
            x.resize(n * d);
            file.to_float(0, n, x.data());
        }
        nlohmann::json line = engine.empty() ? compare_with_kmeans(rounds, K, n, d, x)
                                             : time_an_index(engine, K, n, d, x.data(), check);
        line["data"] = data.empty() ? "curved random rows" : data;
        line["n"] = n;
        line["d"] = d;
        line["K"] = K;
        line["threads"] = threads;
        fmt::print("{}\n", line.dump());
        if (!json.empty()) {
            std::ofstream(json, std::ios::app) << line.dump() << "\n";
        }
    });
}
