// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The collecting pass alone (faiss_gmm/train/cuda/collect.h), by CUDA events, median of many.
//   bench_collect [portable] [NAME-PART]
// Data is made on the device: means N(0, I); `separate`: rows mean + 1.2 N(0, I); `overlap`: a wider
// sigma, by dimension; `isotropic`: rows N(0, I). Hints are the components the rows were drawn from,
// as after the first iteration, where the table says so.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "faiss_gmm/train/cuda/collect.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"

namespace {

using namespace faiss_gmm::cuda;

__device__ uint64_t mixed(uint64_t v) {
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
    return v ^ (v >> 31);
}

__device__ float normal(uint64_t seed, uint64_t i) {
    const uint64_t bits = mixed(mixed(i + 0x9e3779b97f4a7c15ull * seed) + seed);
    const float u = (static_cast<uint32_t>(bits) + 1.0f) * 0x1.0p-32f;
    const float v = static_cast<uint32_t>(bits >> 32) * 0x1.0p-32f;
    return sqrtf(-2 * logf(fminf(u, 1.0f))) * cospif(2 * v);
}

__global__ void fill_normal(float* out, int64_t size, uint64_t seed) {
    for (int64_t i = blockIdx.x * int64_t{256} + threadIdx.x; i < size;
         i += gridDim.x * int64_t{256}) {
        out[i] = normal(seed, i);
    }
}

__global__ void fill_rows(
        float* rows,
        uint16_t* truth,
        const float* means,
        int64_t n,
        int64_t K,
        int64_t d,
        float sigma) {
    for (int64_t e = blockIdx.x * int64_t{256} + threadIdx.x; e < n * d;
         e += gridDim.x * int64_t{256}) {
        const int64_t i = e / d, j = e % d;
        const int64_t k = static_cast<int64_t>(mixed(i + 77) % K);
        rows[e] = (sigma > 0 ? means[k * d + j] + sigma * normal(3, e) : normal(3, e));
        if (j == 0) {
            truth[i] = static_cast<uint16_t>(k);
        }
    }
}

template <class T> T* allocate(size_t count) {
    void* data = nullptr;
    check_collect(cudaMalloc(&data, count * sizeof(T)), "bench memory");
    return static_cast<T*>(data);
}

struct Case {
    const char* name;
    int64_t n, K, d;
    CollectForm form;
    float sigma; ///< 0: isotropic
    bool hint;
    int rank, capacity;
    float predicted_ms;
    ElementType type = ElementType::f32;
};

void run(const Case& c, CollectPath path) {
    const bool squares = c.form == CollectForm::squares;
    float* means = allocate<float>(c.K * c.d);
    float* origin = allocate<float>(c.d);
    float* rows = allocate<float>(c.n * c.d);
    uint16_t* truth = allocate<uint16_t>(c.n);
    fill_normal<<<1024, 256>>>(means, c.K * c.d, 1);
    check_collect(cudaMemset(origin, 0, c.d * sizeof(float)), "origin");
    fill_rows<<<4096, 256>>>(rows, truth, means, c.n, c.K, c.d, c.sigma);
    const double sigma = c.sigma > 0 ? c.sigma : 1.0;
    const int64_t precisions = squares ? c.K * c.d : c.form == CollectForm::quadratic ? c.K : 1;
    const std::vector<double> half(precisions, 1 / (2 * sigma * sigma)), zero(c.K, 0.0);
    double* half_precision = allocate<double>(precisions);
    double* constant = allocate<double>(c.K);
    check_collect(
            cudaMemcpy(half_precision, half.data(), precisions * 8, cudaMemcpyHostToDevice), "in");
    check_collect(cudaMemcpy(constant, zero.data(), c.K * 8, cudaMemcpyHostToDevice), "in");
    CollectModel model;
    const CollectModelBytes bytes = collect_model_bytes(collect_model_shape(c.form, c.K, c.d));
    model.operand = allocate<uint16_t>(bytes.operand / 2);
    model.columns = allocate<float>(bytes.columns / 4);
    model.scale = allocate<float>(bytes.scale / 4);
    CollectModelSource source{c.form, c.K, c.d, means, origin, constant, half_precision};
    CollectInput input;
    input.rows = rows;
    input.n = c.n;
    input.type = c.type;
    input.hint = c.hint ? truth : nullptr;
    input.margin = c.rank > 1 || c.capacity == 8 ? 0.0f : static_cast<float>(std::log(c.K / 1e-5));
    input.rank = c.rank;
    CollectOutput output;
    output.capacity = c.capacity;
    output.component = allocate<uint16_t>(c.n * c.capacity);
    output.count = allocate<uint8_t>(c.n);
    output.best = allocate<uint16_t>(c.n);
    cudaEvent_t from, to;
    cudaEventCreate(&from);
    cudaEventCreate(&to);
    const auto time = [&](auto&& work) {
        std::vector<float> all;
        for (int i = 0; i < 14; ++i) {
            cudaEventRecord(from);
            work();
            cudaEventRecord(to);
            check_collect(cudaEventSynchronize(to), c.name);
            float ms = 0;
            cudaEventElapsedTime(&ms, from, to);
            if (i >= 3) {
                all.push_back(ms);
            }
        }
        std::sort(all.begin(), all.end());
        return all[all.size() / 2];
    };
    const float model_ms = time([&] { prepare_collect_model(source, model, nullptr); });
    void* workspace = allocate<char>(collect_workspace_bytes(model, path));
    const float ms =
            time([&] { collect_candidates(model, input, output, path, workspace, nullptr); });
    // Its parts, over all rows as one wave.
    CollectWave wave;
    wave.rows = static_cast<int32_t>(c.n);
    wave.operand = allocate<uint16_t>((c.n + wave_tile_rows) * model.padded_width);
    wave.f = allocate<float>(c.n);
    wave.q = allocate<float>(c.n);
    wave.threshold = allocate<float>(c.n);
    wave.entries = static_cast<uint2*>(workspace);
    const CollectCall call{model, input, output};
    const auto multiply = path == CollectPath::hopper ? multiply_hopper : multiply_portable;
    const float cast_ms = time([&] { cast_rows(call, wave, nullptr); });
    const float survey_ms = time([&] { multiply(call, CollectStep::survey, wave, nullptr); });
    const float list_ms = time([&] { multiply(call, CollectStep::list, wave, nullptr); });
    std::vector<uint8_t> count(c.n);
    check_collect(cudaMemcpy(count.data(), output.count, c.n, cudaMemcpyDeviceToHost), "out");
    int64_t overflows = 0, candidates = 0;
    for (const uint8_t v : count) {
        overflows += v > c.capacity;
        candidates += v > c.capacity ? 0 : v;
    }
    std::printf(
            "%-12s form %d %9lld %6lld %4lld rank %2d hint %d %8.3f ms (predicted %6.3f) %6.1f "
            "TFLOP/s "
            "%6.2f a row, overflow %.5f, model %.3f ms, cast %.3f, survey %.3f, list %.3f\n",
            c.name,
            static_cast<int>(c.form),
            static_cast<long long>(c.n),
            static_cast<long long>(c.K),
            static_cast<long long>(c.d),
            c.rank,
            c.hint,
            ms,
            c.predicted_ms,
            2.0 * c.n * c.K * c.d * (squares ? 2 : 1) / ms * 1e-9,
            static_cast<double>(candidates) /
                    static_cast<double>(c.n - overflows + (c.n == overflows)),
            static_cast<double>(overflows) / static_cast<double>(c.n),
            model_ms,
            cast_ms,
            survey_ms,
            list_ms);
    std::fflush(stdout);
    for (void* data :
         {static_cast<void*>(means),
          static_cast<void*>(origin),
          static_cast<void*>(rows),
          static_cast<void*>(truth),
          static_cast<void*>(half_precision),
          static_cast<void*>(constant),
          static_cast<void*>(model.operand),
          static_cast<void*>(model.columns),
          static_cast<void*>(model.scale),
          static_cast<void*>(output.component),
          static_cast<void*>(output.count),
          static_cast<void*>(output.best),
          static_cast<void*>(wave.operand),
          static_cast<void*>(wave.f),
          static_cast<void*>(wave.q),
          static_cast<void*>(wave.threshold),
          workspace}) {
        cudaFree(data);
    }
}

} // namespace

int main(int argc, char** argv) {
    CollectPath path = CollectPath::hopper;
    std::string part;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "portable") == 0) {
            path = CollectPath::portable;
        } else {
            part = argv[i];
        }
    }
    constexpr CollectForm linear = CollectForm::linear;
    constexpr int64_t million = 1000000;
    const Case cases[] = {
            {"separate", million, 1024, 128, linear, 1.2f, true, 1, 16, 0.45f},
            {"separate", million, 1024, 128, linear, 1.2f, false, 1, 16, 0.8f},
            {"separate", million, 1024, 96, linear, 1.2f, true, 1, 16, 0.36f},
            {"separate", million, 4096, 128, linear, 1.2f, true, 1, 16, 1.6f},
            {"separate", million, 16384, 96, linear, 1.2f, true, 1, 16, 5.0f},
            {"separate", million, 1024, 384, linear, 1.2f, true, 1, 16, 1.3f},
            {"separate", million, 1024, 960, linear, 1.2f, true, 1, 16, 2.9f},
            {"overlap", million, 1024, 128, linear, 1.55f, true, 1, 16, 0.45f},
            {"overlap", million, 1024, 128, linear, 1.7f, true, 1, 16, 0.55f},
            {"overlap", million, 1024, 128, linear, 1.7f, false, 1, 16, 0.9f},
            {"overlap", million, 4096, 128, linear, 1.55f, true, 1, 16, 1.8f},
            {"isotropic", million, 1024, 128, linear, 0.0f, false, 1, 16, 1.5f},
            {"quadratic", million, 1024, 128, CollectForm::quadratic, 1.2f, true, 1, 16, 0.5f},
            {"squares", million, 1024, 128, CollectForm::squares, 1.2f, true, 1, 16, 0.95f},
            {"top1", million, 1024, 128, linear, 1.2f, false, 1, 8, 0.5f},
            {"top16", million, 1024, 128, linear, 1.2f, false, 16, 32, 2.0f},
            {"bytes", million, 1024, 128, linear, 0.0f, false, 1, 16, 0.45f, ElementType::u8},
    };
    cudaDeviceProp properties{};
    cudaGetDeviceProperties(&properties, 0);
    std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
    for (const Case& c : cases) {
        if (part.empty() || std::string(c.name).find(part) != std::string::npos) {
            run(c, path);
        }
    }
}
