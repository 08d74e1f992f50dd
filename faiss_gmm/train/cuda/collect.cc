// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/train/cuda/collect.h"

#include <algorithm>
#include <string>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/cuda/detail/collect_launch.h"
#include "faiss_gmm/train/cuda/detail/device.h"

namespace faiss_gmm::cuda {

void check_collect(cudaError_t status, const char* doing) {
    if (status != cudaSuccess) {
        check(status, (std::string("collecting candidates on the GPU: ") + doing).c_str());
    }
}

int multiprocessors() {
    int device = 0, count = 0;
    check_collect(cudaGetDevice(&device), "asking for the current device");
    check_collect(
            cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
            "asking for the number of multiprocessors");
    return count;
}

int compute_capability_major() {
    int device = 0, major = 0;
    check_collect(cudaGetDevice(&device), "asking for the current device");
    check_collect(
            cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
            "asking for the compute capability");
    return major;
}

CollectPath best_collect_path(int major) {
    return major == 9 ? CollectPath::hopper : CollectPath::portable;
}

namespace {

// Of rows in the operand's form, the fewer the more their lists take.
constexpr size_t least_wave_bytes = size_t{32} << 20, most_wave_bytes = size_t{96} << 20;
constexpr size_t wave_and_list_bytes = size_t{144} << 20; ///< without rows' numbers and open rows
constexpr int lists_a_multiprocessor = 256; ///< rows whose lists are on their way there

/// A wave's arrays, one after the other in the workspace.
struct WaveShape {
    size_t rows;
    int list_places;
    size_t operand, numbers, entries; ///< bytes
    size_t open_tiles,
            open; ///< 0 where no row is settled; and bytes of these and their rows' count
};

WaveShape wave_shape(const CollectModel& model, CollectPath path) {
    const size_t row = model.padded_width * sizeof(uint16_t);
    // Whole rounds of tiles where they fit, so that no multiprocessor waits for the last ones.
    const bool wide = model.padded_width > hopper_slot_columns; // tiles of half as many rows
    const auto all = static_cast<size_t>(multiprocessors());
    const size_t round = all * (wide ? wave_tile_rows / 2 : wave_tile_rows);
    WaveShape shape{};
    shape.list_places = list_places(model, path);
    shape.entries = all * lists_a_multiprocessor * shape.list_places * sizeof(uint2);
    const size_t left = wave_and_list_bytes - std::min(shape.entries, wave_and_list_bytes);
    const size_t most = std::clamp(left, least_wave_bytes, most_wave_bytes) / row;
    const size_t unit = most >= round ? round : wave_tile_rows;
    shape.rows = std::max<size_t>(unit, most / unit * unit);
    shape.operand = shape.rows * row;
    shape.numbers = 3 * shape.rows * sizeof(float);
    const bool settles = path == CollectPath::hopper && settles_on_hopper(model);
    shape.open_tiles = settles ? std::min(shape.rows / wave_tile_rows, all) : 0;
    shape.open = shape.open_tiles * wave_tile_rows * (row + 3 * sizeof(float) + sizeof(int64_t)) +
                 sizeof(*CollectWave::open);
    return shape;
}

void collect_in_waves(const CollectCall& call, CollectPath path, void* workspace, Stream stream) {
    const WaveShape shape = wave_shape(call.model, path);
    const auto multiply = path == CollectPath::hopper ? multiply_hopper : multiply_portable;
    char* memory = static_cast<char*>(workspace);
    CollectWave wave;
    wave.entries = reinterpret_cast<uint2*>(memory);
    wave.list_places = shape.list_places;
    wave.operand = reinterpret_cast<uint16_t*>(memory + shape.entries);
    wave.f = reinterpret_cast<float*>(memory + shape.entries + shape.operand);
    wave.q = wave.f + shape.rows;
    wave.threshold = wave.q + shape.rows;
    const size_t open_rows = shape.open_tiles * wave_tile_rows;
    CollectWave open;
    open.rows = static_cast<int32_t>(open_rows);
    open.operand =
            reinterpret_cast<uint16_t*>(memory + shape.entries + shape.operand + shape.numbers);
    open.number = reinterpret_cast<int64_t*>(open.operand + open_rows * call.model.padded_width);
    open.f = reinterpret_cast<float*>(open.number + open_rows);
    open.q = open.f + open_rows;
    open.threshold = open.q + open_rows;
    open.entries = wave.entries;
    open.list_places = wave.list_places;
    open.open = reinterpret_cast<unsigned long long*>(open.threshold + open_rows);
    open.open_tiles = static_cast<int32_t>(shape.open_tiles);
    const bool many = call.input.rank > 1, hinted = call.input.hint != nullptr;
    if (shape.open_tiles > 0 && !many && !hinted) {
        wave.open = open.open;
        wave.open_tiles = open.open_tiles;
        // Zeros where no row comes: NaN would be listed before it is dropped.
        check_collect(cudaMemsetAsync(open.operand, 0, shape.open, stream), "clearing open rows");
    }
    const auto rows_at_once = static_cast<int64_t>(shape.rows);
    for (wave.first = 0; wave.first < call.input.n; wave.first += rows_at_once) {
        wave.rows = static_cast<int32_t>(std::min(rows_at_once, call.input.n - wave.first));
        cast_rows(call, wave, stream);
        if (wave.open != nullptr) {
            settle_hopper(call, wave, open, stream);
        } else if (many || !hinted) {
            multiply(call, many ? CollectStep::survey_many : CollectStep::survey, wave, stream);
        }
        multiply(call, many ? CollectStep::list_many : CollectStep::list, wave, stream);
    }
    if (wave.open != nullptr) {
        multiply(call, CollectStep::list, open, stream);
    }
}

} // namespace

int list_places(const CollectModel& model, CollectPath path) {
    if (model.form != CollectForm::linear) {
        return least_list_places; // no rests: what has many entries has too many candidates
    }
    // A row without a list costs in proportion to K d, an entry the same everywhere; where components are few, a row
    // with many entries has more candidates than are worth a list.
    const int64_t K = model.K;
    const int64_t without_list = K * model.d / (path == CollectPath::hopper ? 2048 : 512);
    const int64_t places = std::min(without_list, K * 3 / 16) / 8 * 8;
    return static_cast<int>(std::clamp<int64_t>(places, least_list_places, most_list_places));
}

size_t collect_workspace_bytes(const CollectModel& model, CollectPath path) {
    if (path == CollectPath::plain) {
        return collect_plain_workspace(model);
    }
    const WaveShape shape = wave_shape(model, path);
    return shape.entries + shape.operand + shape.numbers + shape.open;
}

void collect_candidates(
        const CollectModel& model,
        const CollectInput& input,
        const CollectOutput& output,
        CollectPath path,
        void* workspace,
        Stream stream) {
    if (output.capacity < 8 || output.capacity > collect_max_capacity || output.capacity % 8 != 0) {
        throw Error(
                {"collecting candidates on the GPU",
                 "capacity = " + std::to_string(output.capacity),
                 "multiples of 8 from 8 to " + std::to_string(collect_max_capacity),
                 "choose a capacity of 16"});
    }
    if (input.rank < 1 || input.rank > collect_max_rank) {
        throw Error(
                {"collecting candidates on the GPU",
                 "rank = " + std::to_string(input.rank),
                 "1 to " + std::to_string(collect_max_rank),
                 "score all components of a row where more are wanted"});
    }
    const bool asks_for_rest = output.rest != nullptr;
    if (asks_for_rest && (model.form != CollectForm::linear || input.rank != 1 ||
                          !(input.significant >= least_significant))) {
        throw Error(
                {"collecting candidates on the GPU",
                 "a rest asked for, significant = " + std::to_string(input.significant),
                 "a linear model, rank 1 and significant of at least " +
                         std::to_string(least_significant),
                 "list all candidates: rest = nullptr"});
    }
    if (input.n <= 0) {
        return;
    }
    const CollectCall call{model, input, output};
    switch (path) {
    case CollectPath::plain:
        collect_plain(call, workspace, stream);
        break;
    case CollectPath::portable:
    case CollectPath::hopper:
        collect_in_waves(call, path, workspace, stream);
        break;
    }
    check_collect(cudaGetLastError(), "launching the pass");
}

} // namespace faiss_gmm::cuda
