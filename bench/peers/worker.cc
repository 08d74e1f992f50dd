// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// 1 purpose: one index of ours in a process of its own, for bench/peers/run. Lines of JSON on stdin
//   are requests, each is answered by one line on stdout; bench/peers/README.md has the protocol,
//   and worker.py speaks it for the other libraries.
// 5 phases: `open` loads the set and builds the index; then any number of `batches` and `singles`.
// 10 test: tests/bench/peers_test.py.
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <malloc.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "bench/common/bench_index.h"
#include "bench/common/environment.h"
#include "bench/common/measurement.h"
#include "datasets/dataset.h"
#include "faiss_gmm/mixture/error.h"

namespace {

using namespace faiss_gmm;
using namespace faiss_gmm::bench;
using Json = nlohmann::ordered_json;

constexpr double shortest_pass_s = .05; ///< short passes are repeated until they took this long

/// Bytes of this process in memory, after what was freed has gone back to the system.
size_t resident_bytes() {
    malloc_trim(0);
    std::ifstream statm("/proc/self/statm");
    size_t size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

/// What one process holds: a set and an index over it.
class Worker {
public:
    Json answer(const Json& request) {
        const std::string what = request.at("do");
        if (what == "open") {
            return open(request);
        }
        if (what == "batches" || what == "singles") {
            return what == "batches" ? batches(request) : singles(request);
        }
        throw Error(
                {"answering a request",
                 fmt::format("\"do\": \"{}\"", what),
                 "open, batches, singles",
                 "use the bench/peers/run that comes with this program"});
    }

private:
    Json open(const Json& request) {
        set_ = load_dataset(request.at("data"), parse_metric(request.at("metric")));
        measurement_ = std::make_unique<Measurement>(set_);
        const ThreadScope threads(request.at("build_threads"));
        const size_t before = resident_bytes();
        index_ = std::make_unique<BenchIndex>(
                request.at("build").at("index"), set_.d, faiss_metric(set_.metric));
        index_->train(set_);
        index_->add(set_);
        const size_t after = resident_bytes();
        const BuildFigures& build = index_->build();
        const Environment environment = describe_environment();
        return {{"version",
                 fmt::format(
                         "{} over FAISS {} (SIMD {})",
                         environment.git_commit,
                         environment.faiss_version,
                         environment.faiss_simd)},
                {"build_s", build.train_s + build.add_s},
                {"memory_bytes", after > before ? after - before : 0},
                {"counted_bytes", build.bytes_per_vector * double(set_.n)},
                {"parameters", index_->parameters()}};
    }

    Json batches(const Json& request) {
        configure(request.at("settings"));
        const ThreadScope threads(request.at("threads"));
        const TimedQueries timed = measurement_->time_batches(*index_, shortest_pass_s);
        return {{"queries", timed.queries},
                {"seconds", timed.seconds},
                {"recall", measurement_->recall()}};
    }

    Json singles(const Json& request) {
        configure(request.at("settings"));
        return {
                {"latencies_us",
                 measurement_->time_single_queries(
                         *index_, request.at("round"), request.at("rounds"))}};
    }

    void configure(const Json& settings) {
        if (index_ == nullptr) {
            throw Error(
                    {"searching",
                     "no index",
                     "a request after `open` has been answered",
                     "open an index first"});
        }
        index_->configure({settings.at("nprobe"), settings.at("lists"), settings.at("k_factor")});
    }

    Dataset set_;
    std::unique_ptr<Measurement> measurement_;
    std::unique_ptr<BenchIndex> index_;
};

} // namespace

int main() {
    Worker worker;
    for (std::string line; std::getline(std::cin, line);) {
        Json answer;
        try {
            answer = worker.answer(Json::parse(line));
        } catch (const std::exception& error) {
            answer = {{"error", error.what()}};
        }
        fmt::print("{}\n", answer.dump());
        std::fflush(stdout);
    }
    return 0;
}
