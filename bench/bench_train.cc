// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// One EM iteration against one iteration of faiss::Clustering: same data, threads and BLAS, in
// turns.
#include <algorithm>
#include <cstdio>
#include <fstream>
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

/// n rows around 4 K centres of unequal spread, for want of a data set.
std::vector<float> clustered_rows(size_t n, size_t d, size_t groups, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> centres(groups * d), x(n * d);
    for (float& value : centres) {
        value = 3 * normal(random);
    }
    for (size_t i = 0; i < n; i++) {
        const size_t group = random() % groups;
        for (size_t t = 0; t < d; t++) {
            x[i * d + t] = centres[group * d + t] + normal(random);
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

} // namespace

int main(int argc, char** argv) {
    CLI::App app{
            "Times an EM iteration of the CPU engine against an iteration of faiss::Clustering.\n"
            "example: bench_train --data base.u8bin --n 262144 --K 1024"};
    std::string data, json;
    size_t n = 262144, d = 128, K = 1024, rounds = 5;
    int threads = bench::default_threads();
    app.add_option("--data", data, "Vector file (.fvecs, .u8bin, ...); else clustered random rows")
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
    app.add_option("--json", json, "Append a JSON line to this file");
    return bench::run_program("error", app, argc, argv, [&] {
        bench::set_threads(threads);
        std::vector<float> x;
        if (data.empty()) {
            x = clustered_rows(n, d, 4 * K, 1);
        } else {
            const VectorFile file(data);
            n = std::min(n, file.rows());
            d = file.dimensions();
            x.resize(n * d);
            file.to_float(0, n, x.data());
        }
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
        const nlohmann::json line = {
                {"bench", "train"},
                {"data", data.empty() ? "clustered random rows" : data},
                {"n", n},
                {"d", d},
                {"K", K},
                {"threads", threads},
                {"em_iteration_s", median(em)},
                {"kmeans_iteration_s", median(kmeans)},
                {"ratio", median(em) / median(kmeans)},
                {"extra_memory_mib", extra}};
        fmt::print(
                "n {}, d {}, K {}, {} threads: EM {:.3f} s, k-means {:.3f} s an iteration, ratio "
                "{:.2f}; "
                "extra memory {:.0f} MiB\n",
                n,
                d,
                K,
                threads,
                median(em),
                median(kmeans),
                median(em) / median(kmeans),
                extra);
        if (!json.empty()) {
            std::ofstream(json, std::ios::app) << line.dump() << "\n";
        }
    });
}
