// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Times an EM iteration of the CUDA engine, rows resident on the device: E-step and M-step, parameters
// ready for the next one. CUDA events, warm-up, median; the device's copy, gather and fp16 product
// rates from the same run beside it. One JSON line a case.
//   bench_estep [--data separate|overlap|isotropic|FILE]... [--n 1000000] [--K 1024] [--d 128]
//               [--covariance tied_spherical] [--element f32] [--path automatic|portable|hopper|plain]
//               [--tier automatic|dense|exact] [--top m]...
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <nlohmann/json.hpp>

#include "bench/common/git_commit.h"
#include "bench/common/median.h"
#include "datasets/drawn_rows.h"
#include "datasets/vector_file.h"
#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/cuda_estep_engine.h"
#include "faiss_gmm/train/cuda/detail/device.h"

namespace {

using namespace faiss_gmm;
using bench::median;
using cuda::check;
using cuda::DeviceArray;

__global__ void draw(DrawnRows rows, size_t n, float* x) {
    const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at < n * rows.d) {
        x[at] = rows.number(at / rows.d, at % rows.d);
    }
}

/// What rows of bytes are multiplied by, u8: and moved by.
constexpr float byte_scale = 10, byte_shift = 128;

template <class T> __device__ T element(float value);
template <> __device__ __half element(float value) {
    return __float2half_rn(value);
}
template <> __device__ __nv_bfloat16 element(float value) {
    return __float2bfloat16_rn(value);
}
template <> __device__ uint8_t element(float value) {
    return static_cast<uint8_t>(fminf(fmaxf(byte_shift + byte_scale * value, 0.0f), 255.0f));
}
template <> __device__ int8_t element(float value) {
    return static_cast<int8_t>(fminf(fmaxf(byte_scale * value, -128.0f), 127.0f));
}

template <class T> __global__ void cast(size_t count, const float* x, T* out) {
    const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at < count) {
        out[at] = element<T>(x[at]);
    }
}

/// x [count] as numbers of the type, in `out`; f32: x itself.
template <class T> const void* cast_into(DeviceArray<char>& out, size_t count, const float* x) {
    out.reserve(count * sizeof(T));
    auto* numbers = reinterpret_cast<T*>(out.data());
    cast<<<static_cast<unsigned>((count + 255) / 256), 256>>>(count, x, numbers);
    return numbers;
}
const void* as_element(RowElement type, DeviceArray<char>& out, size_t count, const float* x) {
    return type == RowElement::f16    ? cast_into<__half>(out, count, x)
           : type == RowElement::bf16 ? cast_into<__nv_bfloat16>(out, count, x)
           : type == RowElement::u8   ? cast_into<uint8_t>(out, count, x)
           : type == RowElement::i8   ? cast_into<int8_t>(out, count, x)
                                      : x;
}

// Every option's names and what they mean.
const std::map<std::string, RowElement> elements = {
        {"f32", RowElement::f32},
        {"f16", RowElement::f16},
        {"bf16", RowElement::bf16},
        {"u8", RowElement::u8},
        {"i8", RowElement::i8}};
const std::map<std::string, CudaPath> paths = {
        {"automatic", CudaPath::automatic},
        {"portable", CudaPath::portable},
        {"hopper", CudaPath::hopper},
        {"plain", CudaPath::plain}};
const std::map<std::string, CudaTier> tiers = {
        {"automatic", CudaTier::automatic}, {"dense", CudaTier::dense}, {"exact", CudaTier::exact}};
const std::map<std::string, Covariance> covariances = {
        {"tied_spherical", Covariance::tied_spherical},
        {"spherical", Covariance::spherical},
        {"diagonal", Covariance::diagonal},
        {"tied", Covariance::tied},
        {"full", Covariance::full}};
const std::set<std::string> drawn_names = {"separate", "overlap", "isotropic"};

__global__ void gather_rows(size_t rows, const float4* x, const uint32_t* order, float4* out) {
    const size_t warp = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    if (warp < rows) { // rows of 512 bytes; every 16th is written, so that reading is what counts
        const float4 v = x[static_cast<size_t>(order[warp]) * 32 + threadIdx.x % 32];
        if (warp % 16 == 0 || v.x == 12345.0f) {
            out[warp / 16 * 32 + threadIdx.x % 32] = v;
        }
    }
}

__global__ void shuffle_order(uint32_t rows, uint32_t* order) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < rows) { // odd multiplier, power of two rows: a permutation
        order[i] = (i * 2654435761u + 12345u) & (rows - 1);
    }
}

class Timer {
public:
    explicit Timer(cudaStream_t stream) : stream_(stream) {
        check(cudaEventCreate(&begin_), "making an event");
        check(cudaEventCreate(&end_), "making an event");
    }
    ~Timer() {
        cudaEventDestroy(begin_);
        cudaEventDestroy(end_);
    }
    double milliseconds(const std::function<void()>& work) {
        check(cudaEventRecord(begin_, stream_), "recording an event");
        work();
        check(cudaEventRecord(end_, stream_), "recording an event");
        check(cudaEventSynchronize(end_), "waiting for an event");
        float elapsed = 0;
        check(cudaEventElapsedTime(&elapsed, begin_, end_), "reading a time");
        return elapsed;
    }
    /// Of `repeats`, after `warm` that do not count.
    std::vector<double> times(const std::function<void()>& work, int warm, int repeats) {
        std::vector<double> all;
        for (int r = 0; r < warm + repeats; ++r) {
            const double ms = milliseconds(work);
            if (r >= warm) {
                all.push_back(ms);
            }
        }
        std::sort(all.begin(), all.end());
        return all;
    }

private:
    cudaStream_t stream_;
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

nlohmann::json rates() {
    nlohmann::json result;
    Timer timer(nullptr);
    constexpr size_t bytes = size_t{1} << 30;
    DeviceArray<char> from, to;
    from.reserve(bytes);
    to.reserve(bytes);
    check(cudaMemset(from.data(), 1, bytes), "filling memory");
    const auto copied = timer.times(
            [&] { cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice); },
            3,
            10);
    result["copy_tb_s"] = 2.0 * bytes / median(copied) * 1e-9;
    constexpr uint32_t rows = 1u << 20;
    DeviceArray<float> x, out;
    DeviceArray<uint32_t> order;
    x.reserve(rows * size_t{128});
    out.reserve(rows * size_t{128} / 16);
    order.reserve(rows);
    shuffle_order<<<rows / 256, 256>>>(rows, order.data());
    const auto gathered = timer.times(
            [&] {
                gather_rows<<<rows / 8, 256>>>(
                        rows,
                        reinterpret_cast<const float4*>(x.data()),
                        order.data(),
                        reinterpret_cast<float4*>(out.data()));
            },
            3,
            10);
    result["gather_512_tb_s"] = rows * 512.0 / median(gathered) * 1e-9;
    // cuBLAS as found at run time; the library itself does not need it.
    void* library = nullptr;
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
        library = library != nullptr ? library : dlopen(name, RTLD_NOW);
    }
    result["fp16_tflop_s"] = nullptr;
    if (library == nullptr) {
        return result;
    }
    using Create = int (*)(void**);
    using Product =
            int (*)(void*,
                    int,
                    int,
                    int,
                    int,
                    int,
                    const void*,
                    const void*,
                    int,
                    int,
                    const void*,
                    int,
                    int,
                    const void*,
                    void*,
                    int,
                    int,
                    int,
                    int);
    const auto create = reinterpret_cast<Create>(dlsym(library, "cublasCreate_v2"));
    const auto product = reinterpret_cast<Product>(dlsym(library, "cublasGemmEx"));
    void* handle = nullptr;
    if (create == nullptr || product == nullptr || create(&handle) != 0) {
        return result;
    }
    constexpr int m = 8192;
    DeviceArray<__half> a;
    DeviceArray<float> random;
    a.reserve(size_t{3} * m * m);
    // Random halves: the bits of normal numbers between 1 and 2.
    std::vector<uint16_t> host(size_t{2} * m * m);
    uint32_t state = 1;
    for (uint16_t& v : host) {
        state = state * 1664525u + 1013904223u;
        v = static_cast<uint16_t>(0x3c00u | (state >> 22) | ((state >> 31) << 15));
    }
    check(cudaMemcpy(a.data(), host.data(), host.size() * 2, cudaMemcpyHostToDevice), "copying");
    const float one = 1, zero = 0;
    constexpr int half = 2, compute32 = 68;
    const auto multiplied = timer.times(
            [&] {
                product(handle,
                        1,
                        0,
                        m,
                        m,
                        m,
                        &one,
                        a.data(),
                        half,
                        m,
                        a.data() + size_t{m} * m,
                        half,
                        m,
                        &zero,
                        a.data() + 2 * size_t{m} * m,
                        half,
                        m,
                        compute32,
                        -1);
            },
            3,
            10);
    result["fp16_tflop_s"] = 2.0 * m * m * static_cast<double>(m) / median(multiplied) * 1e-9;
    return result;
}

struct Case {
    std::string data = "separate", covariance = "tied_spherical", path = "automatic";
    std::string element = "f32", tier = "automatic";
    size_t n = 1000000, K = 1024, d = 128;
    double threshold = 0;
};

/// Rows on the device, and a mixture to begin with.
struct Problem {
    DeviceArray<float> x;
    GaussianMixture mixture;
    double sigma = 0; ///< of drawn rows
};

GaussianMixture uniform_mixture(const Case& c, std::vector<float> means, double variance) {
    GaussianMixture mixture;
    mixture.K = c.K;
    mixture.d = c.d;
    mixture.covariance = covariances.at(c.covariance);
    mixture.means = std::move(means);
    mixture.log_weights.assign(c.K, -std::log(double(c.K)));
    mixture.covariances.assign(
            GaussianMixture::covariance_size(mixture.covariance, c.K, c.d), variance);
    if (mixture.covariance == Covariance::tied || mixture.covariance == Covariance::full) {
        for (size_t i = 0; i < mixture.covariances.size(); ++i) {
            mixture.covariances[i] *= i / c.d % c.d == i % c.d ? 1.0 : 0.0;
        }
    }
    return mixture;
}

void drawn_problem(const Case& c, Problem& problem) {
    const DrawnRows drawn = drawn_rows(c.data, c.n, c.K, c.d);
    problem.sigma = drawn.sigma;
    problem.x.reserve(c.n * c.d);
    draw<<<static_cast<unsigned>((c.n * c.d + 255) / 256), 256>>>(drawn, c.n, problem.x.data());
    cuda::check_launch("drawing rows");
    std::vector<float> means = drawn.means();
    if (drawn.spread == 0) { // nothing to begin with
        DrawnRows start = drawn;
        start.spread = 0.25f;
        means = start.means();
    }
    problem.mixture = uniform_mixture(c, std::move(means), problem.sigma * problem.sigma);
}

/// The rows of a vector file, at most c.n of them; n and d as read. The mixture's means are rows: Lloyd
/// steps come before what is timed.
void read_problem(Case& c, Problem& problem) {
    const VectorFile file(c.data);
    c.n = std::min(c.n, file.rows());
    c.d = file.dimensions();
    if (c.n < c.K) {
        throw Error(
                {"beginning with rows of " + c.data + " as means",
                 std::to_string(c.n) + " rows for K = " + std::to_string(c.K),
                 "at least K rows",
                 "give a smaller --K or another file"});
    }
    std::vector<float> x(c.n * c.d);
    file.to_float(0, c.n, x.data());
    problem.x.reserve(x.size());
    check(cudaMemcpy(problem.x.data(), x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice),
          "copying rows");
    std::vector<float> means;
    for (size_t k = 0; k < c.K; ++k) {
        const auto row = x.begin() + static_cast<std::ptrdiff_t>(c.n / c.K * k * c.d);
        means.insert(means.end(), row, row + static_cast<std::ptrdiff_t>(c.d));
    }
    problem.mixture = uniform_mixture(c, std::move(means), 1.0);
}

constexpr int lloyd_steps = 10;

/// Of some of the rows [n, d] on the device, in double precision: the mean largest responsibility, and how many
/// components of a row have more than 1e-5 of it.
nlohmann::json responsibilities_of(const GaussianMixture& mixture, size_t n, const float* x) {
    const size_t K = mixture.K, d = mixture.d;
    const bool matrices =
            mixture.covariance == Covariance::tied || mixture.covariance == Covariance::full;
    constexpr size_t most_rows = 8192, most_work = size_t{1} << 33;
    const size_t affordable = most_work / (K * d * (matrices ? d : 1));
    const size_t rows = std::min({n, most_rows, std::max<size_t>(affordable, 1)});
    std::vector<float> some(rows * d);
    for (size_t i = 0; i < rows; ++i) {
        check(cudaMemcpy(
                      &some[i * d],
                      x + i * (n / rows) * d,
                      d * sizeof(float),
                      cudaMemcpyDeviceToHost),
              "reading some rows");
    }
    std::vector<double> log_r(rows * K);
    mixture.log_responsibilities(rows, some.data(), log_r.data());
    double largest = 0;
    for (size_t i = 0; i < rows; ++i) {
        largest += std::exp(*std::max_element(&log_r[i * K], &log_r[i * K] + K));
    }
    const auto shares = std::count_if(
            log_r.begin(), log_r.end(), [](double value) { return value > std::log(1e-5); });
    return {{"rows", rows},
            {"mean_largest", largest / static_cast<double>(rows)},
            {"above_1e-5_a_row", static_cast<double>(shares) / static_cast<double>(rows)}};
}

nlohmann::json run(Case c, const std::vector<size_t>& top, int repeats) {
    Problem problem;
    const bool from_file = drawn_names.count(c.data) == 0;
    if (from_file) {
        if (bytes_of(elements.at(c.element)) == 1) {
            throw Error(
                    {"timing the rows of a file",
                     "--element " + c.element,
                     "f32, f16, bf16",
                     "leave --element out"});
        }
        read_problem(c, problem);
    } else {
        drawn_problem(c, problem);
    }
    const RowElement type = elements.at(c.element);
    DeviceArray<char> typed;
    const void* rows = as_element(type, typed, c.n * c.d, problem.x.data());
    GaussianMixture& mixture = problem.mixture;
    if (bytes_of(type) == 1) {
        for (float& mean : mixture.means) {
            mean = byte_scale * mean + (type == RowElement::u8 ? byte_shift : 0);
        }
        for (double& value : mixture.covariances) {
            value *= byte_scale * byte_scale;
        }
    }
    CudaOptions options;
    options.path = paths.at(c.path);
    options.tier = tiers.at(c.tier);
    options.pair_threshold = c.threshold;
    options.time_phases = false;
    const auto engine = make_cuda_engine(options);
    Chunk chunk;
    chunk.x = rows;
    chunk.element = type;
    chunk.n = c.n;
    chunk.memory = Chunk::Memory::device;
    chunk.stream = engine->stream();
    chunk.last = true;
    chunk.source = VectorSource::new_number();
    const auto begin = [&](CudaEStepEngine& with) {
        chunk.stream = with.stream();
        with.begin(mixture, from_file ? Assignment::hard : Assignment::soft);
        for (int step = 0; from_file && step < lloyd_steps; ++step) {
            with.accumulate(chunk);
            with.maximize_in_place(1e-6);
            with.begin_again(step + 1 < lloyd_steps ? Assignment::hard : Assignment::soft);
        }
    };
    begin(*engine);
    Timer timer(static_cast<cudaStream_t>(engine->stream()));
    CudaPassCounts counts;
    const auto iterate = [&] {
        engine->accumulate(chunk);
        engine->maximize_in_place(1e-6);
        counts = engine->counts();
        engine->begin_again(Assignment::soft);
    };
    const auto times = timer.times(iterate, 3, repeats);
    nlohmann::json line = {
            {"bench", "estep"},
            {"git_commit", bench::git_commit()},
            {"cuda", CUDART_VERSION},
            {"repeats", repeats},
            {"data", c.data},
            {"n", c.n},
            {"K", c.K},
            {"d", c.d},
            {"covariance", c.covariance},
            {"element", c.element},
            {"path", c.path},
            {"tier", c.tier},
            {"sigma", problem.sigma},
            {"iteration_ms", median(times)},
            {"fastest_ms", times.front()},
            {"slowest_ms", times.back()},
            {"other_pairs_a_row", double(counts.pairs) / c.n},
            {"dense_rows", counts.dense_rows},
            {"exact_rows", counts.exact_rows},
            {"tflop_s", 2.0 * c.n * c.K * c.d / median(times) * 1e-9}};
    CudaOptions timed = options;
    timed.time_phases = true;
    const auto observed = make_cuda_engine(timed);
    begin(*observed);
    for (int r = 0; r < 3; ++r) {
        observed->accumulate(chunk);
        observed->maximize_in_place(1e-6);
        counts = observed->counts();
        observed->begin_again(Assignment::soft);
    }
    const size_t listed = c.n - counts.dense_rows - counts.exact_rows;
    line["candidates_a_row"] = static_cast<double>(counts.candidates) /
                               static_cast<double>(std::max<size_t>(listed, 1));
    if (type == RowElement::f32) {
        line["responsibilities"] = responsibilities_of(observed->mixture(), c.n, problem.x.data());
    }
    for (const auto& [phase, ms] : observed->phase_milliseconds()) {
        line["phases_ms"][phase] = ms;
    }
    begin(*engine);
    for (const size_t m : top) {
        DeviceArray<int32_t> component;
        DeviceArray<float> log_responsibility, distance;
        component.reserve(c.n * m);
        log_responsibility.reserve(c.n * m);
        distance.reserve(c.n * m);
        const auto ranked = timer.times(
                [&] {
                    engine->rank_on_device(
                            chunk, m, component.data(), log_responsibility.data(), distance.data());
                },
                2,
                repeats);
        line["top_ms"][std::to_string(m)] = median(ranked);
    }
    return line;
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"Times an EM iteration of the CUDA engine"};
    std::vector<std::string> data = {"separate", "overlap", "isotropic"};
    Case c;
    std::vector<size_t> top;
    int repeats = 10;
    bool with_rates = true;
    app.add_option("--data", data, "separate, overlap, isotropic, or a vector file")
            ->capture_default_str()
            ->check(CLI::IsMember(drawn_names) | CLI::ExistingFile);
    app.add_option("--n", c.n, "Rows")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--K", c.K, "Components")
            ->capture_default_str()
            ->check(CLI::Range(size_t{4}, size_t{65536}));
    app.add_option("--d", c.d, "Dimensions")
            ->capture_default_str()
            ->check(CLI::Range(size_t{1}, size_t{2048}));
    app.add_option("--covariance", c.covariance, "Kind")
            ->capture_default_str()
            ->check(CLI::IsMember(covariances));
    app.add_option("--element", c.element, "Type of the rows' numbers")
            ->capture_default_str()
            ->check(CLI::IsMember(elements));
    app.add_option("--path", c.path, "Of the engine")
            ->capture_default_str()
            ->check(CLI::IsMember(paths));
    app.add_option("--tier", c.tier, "Of all rows")
            ->capture_default_str()
            ->check(CLI::IsMember(tiers));
    app.add_option("--threshold", c.threshold, "Responsibility from which pairs count; 0: default")
            ->capture_default_str()
            ->check(CLI::Range(0.0, 1.0));
    app.add_option("--top", top, "Time top_responsibilities with these m too")
            ->check(CLI::PositiveNumber);
    app.add_option("--repeats", repeats, "Iterations timed")
            ->capture_default_str()
            ->check(CLI::PositiveNumber);
    app.add_flag("!--no-rates", with_rates, "Skip the device's own rates");
    CLI11_PARSE(app, argc, argv);
    try {
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, 0), "asking for the device");
        const nlohmann::json measured = with_rates ? rates() : nlohmann::json();
        for (const std::string& name : data) {
            c.data = name;
            nlohmann::json line = run(c, top, repeats);
            line["device"] = properties.name;
            if (with_rates) {
                line["rates"] = measured;
            }
            std::printf("%s\n", line.dump().c_str());
            std::fflush(stdout);
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
