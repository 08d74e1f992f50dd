// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// EM on rows that do not stay on the GPU: what an iteration takes, against the rates of what it is made
// of, all measured in the same run. gpu_cache = 0, so that every pass moves every row.
//   pinned_gb_s   host to device, from the pinned rows themselves
//   staging_gb_s  all threads, from the pageable rows into pinned buffers
//   compute_gb_s  an iteration over rows that lie on the device, as bytes of rows
// Cases: rows in pinned memory, in pageable memory, and (fewer of them) in a mapped file whose pages are
// in memory. `share` is what is achieved over the lowest of the rates that the case depends on; `trainer_share` the same
// of GMMTrainer's iterations, which ask its `interrupt` every 65,536 rows. One JSON line a case, with the plan of the
// device's memory.
//   bench_stream [--n 100000000] [--d 96] [--K 1024] [--iterations 3] [--resident 10000000]
//                [--mapped 10000000] [--file /tmp/rows.f32]
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <cuda_runtime_api.h>
#include <nlohmann/json.hpp>

#include "bench/common/git_commit.h"
#include "bench/common/median.h"
#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/cuda_estep_engine.h"
#include "faiss_gmm/train/cuda/detail/device.h"
#include "faiss_gmm/train/gmm_trainer.h"

namespace {

using namespace faiss_gmm;
using bench::median;
using cuda::check;

double seconds_of(const std::function<void()>& work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    return taken.count();
}

/// Next number of a linear congruential generator (Knuth's MMIX), whose upper bits are used.
uint64_t next(uint64_t& state) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state;
}

/// About N(0, 1): the sum of three uniform numbers of 16 bits.
float roughly_normal(uint64_t& state) {
    const uint64_t bits = next(state);
    const auto sum =
            static_cast<float>((bits >> 48) + (bits >> 32 & 0xffff) + (bits >> 16 & 0xffff));
    return (sum - 98302.5f) * (2.0f / 65536.0f);
}

/// Memory of the process, in large pages where there are any.
class Mapping {
public:
    explicit Mapping(size_t bytes) : bytes_(bytes) {
        data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        require("reserving host memory");
        madvise(data_, bytes, MADV_HUGEPAGE);
    }
    Mapping(const std::string& file, size_t bytes) : bytes_(bytes) {
        const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
        data_ = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
        if (descriptor >= 0) {
            close(descriptor);
        }
        require("mapping a file");
    }
    ~Mapping() {
        if (data_ != MAP_FAILED) {
            munmap(data_, bytes_);
        }
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    float* floats() const {
        return static_cast<float*>(data_);
    }

private:
    void require(const char* doing) const {
        if (data_ == MAP_FAILED) {
            throw Error(
                    {doing,
                     std::to_string(bytes_) + " bytes",
                     "what there is",
                     "give a smaller --n"});
        }
    }
    size_t bytes_;
    void* data_ = MAP_FAILED;
};

struct Shape {
    size_t n = 100000000, d = 96, K = 1024;
    size_t bytes(size_t rows) const {
        return rows * d * sizeof(float);
    }
};

constexpr float sigma = 1.2f;

GaussianMixture make_mixture(const Shape& shape) {
    GaussianMixture mixture;
    mixture.K = shape.K;
    mixture.d = shape.d;
    uint64_t state = 1;
    for (size_t i = 0; i < shape.K * shape.d; ++i) {
        mixture.means.push_back(roughly_normal(state));
    }
    mixture.log_weights.assign(shape.K, -std::log(static_cast<double>(shape.K)));
    mixture.covariances = {sigma * sigma};
    return mixture;
}

/// x [n, d]: the mean of a random component and noise; a row depends on its number alone.
void draw_rows(const Shape& shape, const GaussianMixture& mixture, float* x) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < static_cast<int64_t>(shape.n); ++i) {
        uint64_t state = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ull + 12345;
        next(state);
        const float* mean = &mixture.means[(next(state) >> 33) % shape.K * shape.d];
        float* row = x + i * shape.d;
        for (size_t j = 0; j < shape.d; ++j) {
            row[j] = mean[j] + sigma * roughly_normal(state);
        }
    }
}

/// Every row comes anew in every pass.
CudaOptions streaming() {
    CudaOptions options;
    options.gpu_cache = 0;
    return options;
}

/// Seconds of an iteration: pass and M-step.
double iteration_seconds(
        const GaussianMixture& mixture,
        const std::function<void(CudaEStepEngine&)>& read,
        int iterations) {
    const auto engine = make_cuda_engine(streaming());
    engine->begin(mixture);
    const auto iterate = [&] {
        read(*engine);
        engine->maximize_in_place(1e-6);
        engine->begin_again(Assignment::soft);
        check(cudaStreamSynchronize(static_cast<cudaStream_t>(engine->stream())), "an iteration");
    };
    iterate(); // memory is reserved, kernels are loaded
    std::vector<double> seconds;
    for (int i = 0; i < iterations; ++i) {
        seconds.push_back(seconds_of(iterate));
    }
    return median(seconds);
}

/// Seconds of the trainer's iterations over the source, with an interrupt that asks nothing.
double trainer_seconds(const GaussianMixture& mixture, VectorSource& source, int iterations) {
    TrainingParameters parameters;
    parameters.means_init = mixture.means;
    parameters.max_iter = static_cast<size_t>(iterations);
    parameters.tol = 0;
    parameters.interrupt = [] {};
    const auto engine = make_cuda_engine(streaming());
    const TrainingResult result = GMMTrainer(parameters).train(mixture.K, source, *engine);
    std::vector<double> seconds;
    for (const TrainingProgress& progress : result.history) {
        seconds.push_back(progress.seconds);
    }
    return median(seconds);
}

/// Of an iteration over rows of host memory.
struct SourceSeconds {
    double engine = 0, trainer = 0;
};

SourceSeconds source_seconds(
        const GaussianMixture& mixture,
        const Shape& shape,
        const float* x,
        size_t n,
        int iterations) {
    MemorySource source(n, shape.d, x);
    const auto read = [&](CudaEStepEngine& engine) { engine.accumulate(source.read(0, n)); };
    return {iteration_seconds(mixture, read, iterations),
            trainer_seconds(mixture, source, iterations)};
}

/// Iterations over rows on the device, in GB of rows a second.
double compute_rate(
        const GaussianMixture& mixture,
        const Shape& shape,
        const float* x,
        size_t n,
        int iterations) {
    cuda::DeviceArray<float> rows;
    rows.reserve(n * shape.d);
    check(cudaMemcpy(rows.data(), x, shape.bytes(n), cudaMemcpyHostToDevice), "copying rows");
    const auto read = [&](CudaEStepEngine& engine) {
        Chunk chunk;
        chunk.x = rows.data();
        chunk.n = n;
        chunk.memory = Chunk::Memory::device;
        chunk.stream = engine.stream();
        chunk.last = true;
        engine.accumulate(chunk);
    };
    return shape.bytes(n) / iteration_seconds(mixture, read, iterations) * 1e-9;
}

constexpr size_t piece = size_t{16} << 20;

/// GB/s of all threads from x into pinned buffers, as the engine does it.
double staging_rate(const float* x, size_t bytes) {
    cuda::PinnedBytes buffers[4];
    for (auto& buffer : buffers) {
        buffer.reserve(piece);
    }
    const auto* from = reinterpret_cast<const char*>(x);
    const auto copy = [&] {
        for (size_t first = 0; first + piece <= bytes; first += piece) {
            char* to = static_cast<char*>(buffers[first / piece % 4].data());
            constexpr size_t slice = size_t{1} << 20;
#pragma omp parallel for schedule(static)
            for (int64_t s = 0; s < static_cast<int64_t>(piece / slice); ++s) {
                std::memcpy(to + s * slice, from + first + s * slice, slice);
            }
        }
    };
    copy();
    return bytes / piece * piece / seconds_of(copy) * 1e-9;
}

/// GB/s from pinned rows to the device.
double pinned_rate(const float* x, size_t bytes) {
    cuda::DeviceArray<char> to;
    to.reserve(std::min(bytes, size_t{1} << 29));
    const auto copy = [&] {
        for (size_t first = 0; first + to.bytes() <= bytes; first += to.bytes()) {
            check(cudaMemcpyAsync(
                          to.data(),
                          reinterpret_cast<const char*>(x) + first,
                          to.bytes(),
                          cudaMemcpyHostToDevice,
                          nullptr),
                  "copying rows");
        }
        check(cudaDeviceSynchronize(), "copying rows");
    };
    copy();
    return bytes / to.bytes() * to.bytes() / seconds_of(copy) * 1e-9;
}

void write_file(const std::string& file, const float* x, size_t bytes) {
    std::FILE* out = std::fopen(file.c_str(), "wb");
    if (out == nullptr || std::fwrite(x, 1, bytes, out) != bytes || std::fclose(out) != 0) {
        throw Error(
                {"writing " + file,
                 std::to_string(bytes) + " bytes",
                 "room for them",
                 "give --file"});
    }
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"Times EM on rows that stream from host memory to the GPU"};
    Shape shape;
    int iterations = 3;
    size_t resident = 10000000, mapped = 10000000;
    std::string file = "/tmp/bench_stream_rows.f32";
    app.add_option("--n", shape.n, "Rows in host memory")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    app.add_option("--d", shape.d, "Dimensions")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--K", shape.K, "Components")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--iterations", iterations, "Iterations timed")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    app.add_option("--resident", resident, "Rows on the device for the rate of computing")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    app.add_option("--mapped", mapped, "Rows in the mapped file; 0: none")->capture_default_str();
    app.add_option("--file", file, "Where that file is written")->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    try {
        resident = std::min(resident, shape.n);
        mapped = std::min(mapped, shape.n);
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, 0), "asking for the device");
        const GaussianMixture mixture = make_mixture(shape);
        const Mapping rows(shape.bytes(shape.n));
        const float* x = rows.floats();
        const double drawn = seconds_of([&] { draw_rows(shape, mixture, rows.floats()); });
        const size_t sample = std::min(shape.bytes(shape.n), size_t{4} << 30);
        const double compute = compute_rate(mixture, shape, x, resident, iterations);
        const double staging = staging_rate(x, sample);
        const SourceSeconds pageable = source_seconds(mixture, shape, x, shape.n, iterations);
        SourceSeconds from_file;
        if (mapped > 0) {
            write_file(file, x, shape.bytes(mapped));
            const Mapping view(file, shape.bytes(mapped));
            unlink(file.c_str());
            from_file = source_seconds(mixture, shape, view.floats(), mapped, iterations);
        }
        const double pinned_in = seconds_of([&] {
            check(cudaHostRegister(rows.floats(), shape.bytes(shape.n), cudaHostRegisterDefault),
                  "pinning the rows");
        });
        const double link = pinned_rate(x, sample);
        const SourceSeconds pinned = source_seconds(mixture, shape, x, shape.n, iterations);
        check(cudaHostUnregister(rows.floats()), "releasing the rows");
        const auto print = [&](const char* source, size_t n, SourceSeconds seconds, bool staged) {
            const auto rate = [&](double s) { return shape.bytes(n) / s * 1e-9; };
            const double direct = std::min(compute, link);
            const double lowest = staged ? std::min(direct, staging) : direct;
            const CudaPlan plan = cuda_plan(streaming(), mixture.covariance, n, shape.K, shape.d);
            nlohmann::json line = {
                    {"bench", "stream"},
                    {"git_commit", bench::git_commit()},
                    {"cuda", CUDART_VERSION},
                    {"source", source},
                    {"n", n},
                    {"d", shape.d},
                    {"K", shape.K},
                    {"iteration_s", seconds.engine},
                    {"gb_s", rate(seconds.engine)},
                    {"share", rate(seconds.engine) / lowest},
                    {"trainer_iteration_s", seconds.trainer},
                    {"trainer_share", rate(seconds.trainer) / lowest},
                    {"pinned_gb_s", link},
                    {"staging_gb_s", staging},
                    {"compute_gb_s", compute},
                    {"draw_s", drawn},
                    {"pin_s", pinned_in},
                    {"plan", plan.text()},
                    {"device", properties.name}};
            std::printf("%s\n", line.dump().c_str());
        };
        print("pinned", shape.n, pinned, false);
        print("pageable", shape.n, pageable, true);
        if (mapped > 0) {
            print("mapped", mapped, from_file, true);
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
