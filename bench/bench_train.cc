// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// One EM iteration of the CPU engine against one iteration of faiss::Clustering: same data, threads and
// BLAS, in turns. With --engine what an index of K lists takes on that engine: train() and add() of all
// rows; --check compares the lists of the first rows with those of the CPU engine.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
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
#include "bench/common/git_commit.h"
#include "bench/common/median.h"
#include "bench/common/program.h"
#include "datasets/drawn_rows.h"
#include "datasets/vector_file.h"
#include "faiss_gmm/factory/index_factory.h"
#include "faiss_gmm/index/gmm_quantizer.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/mixture/clock.h"
#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/estep_engine.h"
#include "faiss_gmm/train/gmm_trainer.h"

namespace {

using namespace faiss_gmm;
using bench::median;

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

/// What is farther apart than this has no excuse: two components within it are a tie.
constexpr double tie_nats = 1e-3;

/// The list of each of the index's n rows.
std::vector<int64_t> lists_of(const faiss::IndexIVF& index, size_t n) {
    std::vector<int64_t> lists(n, -1);
    for (size_t l = 0; l < index.nlist; l++) {
        const faiss::InvertedLists::ScopedIds ids(index.invlists, l);
        for (size_t i = 0; i < index.invlists->list_size(l); i++) {
            lists[ids[i]] = static_cast<int64_t>(l);
        }
    }
    return lists;
}

/// How lists differ from the homes that the CPU engine gives the first rows: how many do, and how many
/// nats at most the CPU's is the better one (tied_spherical, uniform).
nlohmann::json
against_cpu(IndexIVFGMM& index, const float* x, const std::vector<int64_t>& lists, size_t rows) {
    const GaussianMixture& mixture = index.mixture();
    auto& quantizer = dynamic_cast<GMMQuantizer&>(*index.ivf().quantizer);
    quantizer.engine.kind = EngineKind::cpu;
    std::vector<int64_t> homes(rows);
    const Clock::time_point began = Clock::now();
    quantizer.assign(static_cast<int64_t>(rows), x, homes.data());
    const double seconds = seconds_since(began);
    const auto distance = [&](size_t i, int64_t k) {
        double sum = 0;
        for (size_t t = 0; t < mixture.d; t++) {
            const double difference =
                    static_cast<double>(x[i * mixture.d + t]) - mixture.means[k * mixture.d + t];
            sum += difference * difference;
        }
        return sum;
    };
    size_t other = 0, beyond = 0;
    double largest = 0;
    for (size_t i = 0; i < rows; i++) {
        if (lists[i] != homes[i]) {
            const double nats =
                    (distance(i, lists[i]) - distance(i, homes[i])) / (2 * mixture.covariances[0]);
            other++;
            beyond += std::abs(nats) > tie_nats;
            largest = std::max(largest, std::abs(nats));
        }
    }
    return {{"rows", rows},
            {"other_lists", other},
            {"largest_difference_nats", largest},
            {"beyond_a_tie", beyond},
            {"cpu_assign_s", seconds}};
}

/// Trains and fills an index on one engine; the lists of `check` rows are compared with those of the CPU
/// engine.
nlohmann::json time_an_index(
        const std::string& engine, size_t K, size_t n, size_t d, const float* x, size_t check) {
    const std::string description = fmt::format("IVFGMM{}(engine={},estep=exact),Flat", K, engine);
    const std::unique_ptr<faiss::Index> owner(
            index_factory(static_cast<int>(d), description.c_str()));
    auto& index = dynamic_cast<IndexIVFGMM&>(*owner);
    index.training.min_points_per_component = 1;
    index.training.tol = 0;
    index.training.warning = [](const std::string& text) { fmt::print(stderr, "{}\n", text); };
    const auto say = [began = Clock::now()](const std::string& text) {
        fmt::print(stderr, "{:8.2f} s  {}\n", seconds_since(began), text);
    };
    index.training.progress = [&](const TrainingProgress& progress) {
        say(fmt::format(
                "EM iteration {} in {:.2f} s, {:.3f} nats",
                progress.iteration,
                progress.seconds,
                progress.mean_log_likelihood));
        return true;
    };
    const auto rows = static_cast<int64_t>(n);
    Clock::time_point began = Clock::now();
    owner->train(rows, x);
    const double train = seconds_since(began);
    say("trained");
    began = Clock::now();
    owner->add(rows, x);
    const double add = seconds_since(began);
    say("added");
    const std::vector<TrainingProgress>& history = index.training_history();
    std::vector<double> iterations;
    for (const TrainingProgress& progress : history) {
        iterations.push_back(progress.seconds);
    }
    const BuildTimes times = index.build_times();
    nlohmann::json line = {
            {"bench", "train_index"},
            {"index", description},
            {"train_s", train},
            {"warm_start_s", history.front().warm_start_seconds},
            {"em_iterations_s", iterations},
            {"mean_log_likelihood", history.back().mean_log_likelihood},
            {"imbalance", history.back().imbalance},
            {"shared_fraction", history.back().shared_fraction},
            {"add_s", add},
            {"of_add_split_s", times.split},
            {"of_train_and_add_sketch_s", times.sketch},
            {"of_add_lists_s", times.add}};
    if (check > 0) {
        const std::vector<int64_t> lists = lists_of(index.ivf(), n);
        line["against_cpu"] = against_cpu(index, x, lists, std::min(n, check));
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
    std::string data, drawn, json, engine;
    size_t check = 0;
    size_t n = 262144, d = 128, K = 1024, rounds = 5;
    int threads = bench::default_threads();
    CLI::Option* with_data =
            app.add_option(
                       "--data",
                       data,
                       "Vector file (.fvecs, .u8bin, ...); else rows on a curved surface")
                    ->check(CLI::ExistingFile);
    app.add_option("--drawn", drawn, "Without --data: separate, overlap or isotropic rows instead")
            ->check(CLI::IsMember({"separate", "overlap", "isotropic"}))
            ->excludes(with_data);
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
        if (drawn == "overlap" && K < 4) {
            throw Error(
                    {"drawing rows whose components overlap",
                     "--K " + std::to_string(K),
                     "at least 4",
                     "give a larger --K, or --drawn separate"});
        }
        if (!drawn.empty()) {
            x = drawn_rows(drawn, n, K, d).rows(n);
        } else if (data.empty()) {
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
        line["data"] = !drawn.empty() ? drawn : data.empty() ? "curved random rows" : data;
        line["git_commit"] = bench::git_commit();
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
