// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#pragma once

// What the implementations of collect.h share on the host.

#include <type_traits>

#include <cuda_runtime_api.h>

#include "faiss_gmm/train/cuda/collect.h"

namespace faiss_gmm::cuda {

/// Throws Error naming what was done and what the runtime answered; nothing for success.
void check_collect(cudaError_t status, const char* doing);

int multiprocessors();

struct CollectCall {
    CollectModel model;
    CollectInput input;
    CollectOutput output;
};

/// What the tensor cores' kernels do with the scores of a wave.
enum class CollectStep {
    survey,      ///< raise thresholds to the row's largest L
    survey_many, ///< to a value that the L of `rank` components reach
    list,        ///< list what reaches the threshold, and the margin below the largest L
    list_many,   ///< list what reaches the threshold
    settle, ///< survey, and list rows of one candidate; the others are left open (settle_hopper)
};

/// Rows that are in the form of the operand; device memory. Both kernels work on tiles of
/// wave_tile_rows rows or less.
struct CollectWave {
    int64_t first = 0; ///< row of the call
    int32_t rows = 0;
    uint16_t* operand = nullptr; ///< fp16 [rows up to wave_tile_rows, padded_width]
    float* f = nullptr;          ///< [rows] collect_bound.h; 1 where the threshold is closed
    float* q = nullptr;          ///< [rows]
    float* threshold = nullptr;  ///< [rows] a component below it is none; closed: no use; settled
    /// [rows that all blocks work on at once, list_places]: lists on their way.
    uint2* entries = nullptr;
    int32_t list_places = 0; ///< a row that lists more overflows
    /// [1] or null: how many rows of the call settling has left open until now. As many as find a place in so
    /// many tiles are listed there in the end; where there are more, the wave lists all its rows.
    unsigned long long* open = nullptr;
    int32_t open_tiles = 0;
    /// [open_tiles * wave_tile_rows] of those tiles: rows of the call. Null: of a wave.
    int64_t* number = nullptr;
};

constexpr int wave_tile_rows = 256;
/// Up to so many columns collect_wgmma.cu has tiles of 256 rows, of 128 beyond; of 128 too for steps that are not
/// worth kernels of their own.
constexpr int hopper_slot_columns = 128;
constexpr bool hopper_has_slots(CollectForm form, CollectStep step) {
    switch (step) {
    case CollectStep::survey: // settle_hopper() surveys the other forms
        return form == CollectForm::squares;
    case CollectStep::survey_many:
        return form == CollectForm::linear;
    case CollectStep::list_many: // in stages a row may have candidates in fewer tiles (mark_places)
    case CollectStep::list:
    case CollectStep::settle:
        return true;
    }
    return true;
}
constexpr int rest_bits = 38; ///< of a rest, behind the point: whole sums are the same in any order
constexpr int least_list_places = 80, most_list_places = 376;
constexpr int most_of_a_tile = 96; ///< a row that lists more of one tile overflows
/// Of a list on its way. What listing costs beyond is better spent on a row without a list.
int list_places(const CollectModel& model, CollectPath path);

static_assert(
        least_significant >= 11.1f && most_list_places * 1.52e-5 * (1LL << rest_bits) < 0x1.0p32,
        "exp(-11.1) each, in 32 bits");

/// Rows of the call from wave.first on, into the wave.
void cast_rows(const CollectCall& call, const CollectWave& wave, Stream stream);

void multiply_portable(
        const CollectCall& call, CollectStep step, const CollectWave& wave, Stream stream);
void multiply_hopper(
        const CollectCall& call, CollectStep step, const CollectWave& wave, Stream stream);

/// Whether settle_hopper() is there for such a model.
inline bool settles_on_hopper(const CollectModel& model) {
    return model.form != CollectForm::squares && model.padded_width <= hopper_slot_columns;
}
/// For rank 1: lists rows of one candidate. The others get thresholds, and go into `open` too as long as there
/// are places.
void settle_hopper(
        const CollectCall& call, const CollectWave& wave, const CollectWave& open, Stream stream);

void collect_plain(const CollectCall& call, void* workspace, Stream stream);
size_t collect_plain_workspace(const CollectModel& model);

/// Calls launch(form, step), each a std::integral_constant.
template <class Launch>
void with_form_and_step(CollectForm form, CollectStep step, const Launch& launch) {
    const auto with_step = [&](auto constant_form) {
        switch (step) {
        case CollectStep::survey:
            launch(constant_form, std::integral_constant<CollectStep, CollectStep::survey>{});
            break;
        case CollectStep::survey_many:
            launch(constant_form, std::integral_constant<CollectStep, CollectStep::survey_many>{});
            break;
        case CollectStep::list:
            launch(constant_form, std::integral_constant<CollectStep, CollectStep::list>{});
            break;
        case CollectStep::list_many:
            launch(constant_form, std::integral_constant<CollectStep, CollectStep::list_many>{});
            break;
        case CollectStep::settle: // settle_hopper()
            break;
        }
    };
    switch (form) {
    case CollectForm::linear:
        with_step(std::integral_constant<CollectForm, CollectForm::linear>{});
        break;
    case CollectForm::quadratic:
        with_step(std::integral_constant<CollectForm, CollectForm::quadratic>{});
        break;
    case CollectForm::squares:
        with_step(std::integral_constant<CollectForm, CollectForm::squares>{});
        break;
    }
}

} // namespace faiss_gmm::cuda
