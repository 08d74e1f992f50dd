// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Codes of run means and vectors, and the tables that score them.
//   (1) |q - x|^2 = |q - c|^2 + (|r|^2 + 2 <c, r>) - 2 <q, r> + (|e|^2 + 2 <c + r, e>) - 2 <q, e>
//       for x = c + r + e
// c home's mean, r decoded residual of the run's mean, e decoded residual of the vector to c + r,
// all relative to the data's mean and, but for |q - c|^2, in the space of A [kept, d].
//   (2) T_m[j] = min(63, round(scale (t_mj - min_j t_mj))), t_mj = -2 <A q, centroid_mj> (inner
//       product: minus <A q, centroid_mj>); both kinds of codes on one scale
// Source: Babenko and Lempitsky, "The inverted multi-index" (residual codes); Andre et al., VLDB
// 2015 (tables).
// Numerics: fp32; constants are computed from decoded codes in one order, so that they can be made
// anew.
#include "faiss_gmm/runs/run_codec.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <cblas.h>
#include <fmt/format.h>

#include "faiss_gmm/runs/split.h"
#include "faiss_gmm/runs/tables.h"
#include "faiss_gmm/runs/vector_ops.h"
#include "faiss_gmm/train/unit_length.h"

namespace faiss_gmm {
namespace {

constexpr float clipped_range =
        0.75f; // share of the widest table's range that is resolved (measured)
constexpr size_t rotation_sample = 60000;
constexpr size_t fewest_runs = 16;

size_t padded_codes(size_t codes) {
    return (codes + 3) / 4 * 4;
}

/// Row numbers of each list's members, in ascending order.
std::vector<std::vector<uint32_t>> members_by_list(size_t n, const int32_t* home, size_t nlist) {
    std::vector<std::vector<uint32_t>> members(nlist);
    for (size_t i = 0; i < n; i++) {
        if (home[i] >= 0) {
            members[home[i]].push_back(static_cast<uint32_t>(i));
        }
    }
    return members;
}

/// Tables of one quantizer before scaling, of factor * y [kept]. Returns the widest range.
float tables_of(
        const FourBitQuantizer& quantizer,
        size_t kept,
        const float* y,
        float factor,
        float* tables) {
    const size_t codes = quantizer.codes();
    thread_local std::vector<float> dealt;
    dealt.resize(2 * codes);
    quantizer.deal(kept, y, dealt.data());
    for (float& value : dealt) {
        value *= factor;
    }
    return unscaled_tables(codes, dealt.data(), quantizer.pq.get_centroids(0, 0), tables);
}

/// The nearest below, from 0 on; 0 for NaN, which comes of distances beyond fp32.
uint16_t in_16_bits(float value) {
    return value > 0 ? static_cast<uint16_t>(std::min(value, 65535.0f)) : uint16_t{0};
}

} // namespace

size_t automatic_codes(size_t d) {
    return std::clamp<size_t>(d / 4, 1, 256);
}

size_t enough_training_vectors(size_t d) {
    return std::max(fewest_runs * run_size, d);
}

void FourBitQuantizer::deal(size_t kept, const float* y, float* dealt) const {
    const size_t last = 2 * pq.M - 1;
    for (size_t m = 0; m < pq.M; m++) {
        dealt[2 * m] = m < kept ? y[m] : 0.0f;
        dealt[2 * m + 1] = last - m < kept ? y[last - m] : 0.0f;
    }
}

void FourBitQuantizer::encode(size_t kept, const float* y, uint8_t* code, float* decoded) const {
    thread_local std::vector<float> dealt;
    thread_local std::vector<uint8_t> packed;
    dealt.resize(2 * pq.M);
    packed.resize(pq.code_size);
    deal(kept, y, dealt.data());
    pq.compute_code(dealt.data(), packed.data());
    for (size_t m = 0; m < pq.M; m++) {
        code[m] = (packed[m / 2] >> (4 * (m % 2))) & 15;
    }
    decode(kept, code, decoded);
}

void FourBitQuantizer::decode(size_t kept, const uint8_t* code, float* decoded) const {
    const size_t last = 2 * pq.M - 1;
    for (size_t m = 0; m < pq.M; m++) {
        const float* centroid = pq.get_centroids(m, code[m]);
        if (m < kept) {
            decoded[m] = centroid[0];
        }
        if (last - m < kept) {
            decoded[last - m] = centroid[1];
        }
    }
}

void FourBitQuantizer::train(size_t codes, size_t n, size_t kept, const float* y, uint64_t seed) {
    pq = faiss::ProductQuantizer(2 * codes, codes, 4);
    pq.cp.niter = 12;
    pq.cp.seed = static_cast<int>(seed % 0x7fffffff);
    pq.cp.min_points_per_centroid = 1; // too few rows are for our own warning, not for stderr
    std::vector<float> dealt(n * 2 * codes);
    for (size_t i = 0; i < n; i++) {
        deal(kept, y + i * kept, dealt.data() + i * 2 * codes);
    }
    pq.train(n, dealt.data());
}

void ConstantRange::widen(float constant) {
    if (!known) {
        low = constant;
        width = 0;
        known = true;
        return;
    }
    const float high = std::max(low + width, constant);
    low = std::min(low, constant);
    width = high - low;
    while (low + width < high) { // rounding must not leave the value that widened it outside
        width = std::nextafter(width, INFINITY);
    }
}

uint16_t ConstantRange::code(float constant) const {
    if (!(width > 0)) {
        return 0;
    }
    const float unit = std::clamp((constant - low) / width, 0.0f, 1.0f);
    return in_16_bits(std::round(unit * saturated_score));
}

void RunCodec::set_means(
        size_t dimensions, size_t lists, const float* means, const float* mean_of_data, bool ip) {
    d = dimensions;
    nlist = lists;
    inner_product = ip;
    by_direction = ip && of_unit_length(nlist, d, means);
    data_mean.assign(d, 0.0f);
    if (!ip && mean_of_data != nullptr) {
        data_mean.assign(mean_of_data, mean_of_data + d);
    }
    centred_means.resize(nlist * d);
    mean_norms.resize(nlist);
    for (size_t k = 0; k < nlist; k++) {
        float* centred = centred_means.data() + k * d;
        for (size_t t = 0; t < d; t++) {
            centred[t] = means[k * d + t] - data_mean[t];
        }
        mean_norms[k] = dot(d, centred, centred);
    }
    if (trained) {
        rotated_means.resize(nlist * kept);
        rotate_queries(nlist, centred_means.data(), rotated_means.data());
    }
}

const float* RunCodec::as_modelled(size_t n, const float* x, std::vector<float>& buffer) const {
    if (!by_direction) {
        return x;
    }
    buffer.resize(n * d);
    to_unit_length(n, d, x, buffer.data());
    return buffer.data();
}

float RunCodec::weight_in_mean(const float* x) const {
    return by_direction ? static_cast<float>(unit_length_factor(d, x)) : 1.0f;
}

void RunCodec::multiply_means(size_t n, const float* centred, float factor, float* out) const {
    cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasTrans,
            static_cast<int>(n),
            static_cast<int>(nlist),
            static_cast<int>(d),
            factor,
            centred,
            static_cast<int>(d),
            centred_means.data(),
            static_cast<int>(d),
            0.0f,
            out,
            static_cast<int>(nlist));
}

void RunCodec::rotate_queries(size_t n, const float* centred, float* out) const {
    if (n == 0) {
        return;
    }
    cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasTrans,
            static_cast<int>(n),
            static_cast<int>(kept),
            static_cast<int>(d),
            1.0f,
            centred,
            static_cast<int>(d),
            rotation.A.data(),
            static_cast<int>(d),
            0.0f,
            out,
            static_cast<int>(kept));
}

void RunCodec::rotate_residuals(size_t n, const float* x, size_t list, float* y) const {
    // Differences first: with the mean far from zero the product of x alone would cancel.
    constexpr size_t rows = 256;
    thread_local std::vector<float> residual;
    residual.resize(rows * d);
    const float* centred = centred_means.data() + list * d;
    for (size_t first = 0; first < n; first += rows) {
        const size_t count = std::min(rows, n - first);
        for (size_t i = 0; i < count; i++) {
            const float* row = x + (first + i) * d;
            for (size_t t = 0; t < d; t++) {
                residual[i * d + t] = (row[t] - data_mean[t]) - centred[t];
            }
        }
        rotate_queries(count, residual.data(), y + first * kept);
    }
}

RunCodec::RunMeans RunCodec::train(
        size_t n,
        const float* x,
        const int32_t* home,
        size_t sketch_codes,
        uint64_t seed,
        const std::function<void(const std::string&)>& warning) {
    trained = false;
    const size_t asked = sketch_codes == 0 ? automatic_codes(d) : sketch_codes;
    kept = std::min(d, 2 * asked);
    const auto members = members_by_list(n, home, nlist);
    size_t runs = 0;
    std::vector<size_t> first_run(nlist + 1, 0), first_row(nlist + 1, 0);
    for (size_t k = 0; k < nlist; k++) {
        runs += (members[k].size() + run_size - 1) / run_size;
        first_run[k + 1] = runs;
        first_row[k + 1] = first_row[k] + members[k].size();
    }
    const size_t rows = first_row[nlist];
    if (runs < fewest_runs || rows < d) {
        if (warning) {
            warning(fmt::format(
                    "lists stay plain, without runs and sketches: {} training vectors in {} runs, "
                    "at least {} vectors and {} runs are needed",
                    rows,
                    runs,
                    d,
                    fewest_runs));
        }
        return {};
    }

    // A: principal directions of residuals to the means.
    const size_t sample = std::min(rows, std::max(rotation_sample, d));
    std::vector<float> residuals(sample * d);
    {
        std::vector<uint32_t> order;
        order.reserve(rows);
        for (const auto& list : members) {
            order.insert(order.end(), list.begin(), list.end());
        }
        for (size_t i = 0; i < sample; i++) {
            const size_t row = order[i * rows / sample];
            const float* centred = centred_means.data() + home[row] * d;
            for (size_t t = 0; t < d; t++) {
                residuals[i * d + t] = (x[row * d + t] - data_mean[t]) - centred[t];
            }
        }
    }
    rotation = faiss::PCAMatrix(static_cast<int>(d), static_cast<int>(kept));
    rotation.train(static_cast<int64_t>(sample), residuals.data());
    rotation.b.clear();
    rotation.have_bias = false;
    residuals.clear();
    residuals.shrink_to_fit();
    rotated_means.resize(nlist * kept);
    rotate_queries(nlist, centred_means.data(), rotated_means.data());

    // Runs of the training vectors, their means, and what remains of the vectors.
    std::vector<float> run_means(runs * kept), rotated(rows * kept);
    RunMeans means{std::vector<float>(runs * d), std::vector<int32_t>(runs)};
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t k = 0; k < static_cast<int64_t>(nlist); k++) {
        const size_t size = members[k].size();
        std::vector<float> gathered(size * d), y(size * kept);
        for (size_t i = 0; i < size; i++) {
            std::copy_n(x + members[k][i] * d, d, gathered.data() + i * d);
        }
        rotate_residuals(size, gathered.data(), k, y.data());
        std::vector<uint32_t> order;
        balanced_split(size, kept, y.data(), order);
        for (size_t i = 0; i < size; i++) {
            float* mean = run_means.data() + (first_run[k] + i / run_size) * kept;
            const float* row = y.data() + order[i] * kept;
            const size_t in_run = std::min(run_size, size - i / run_size * run_size);
            const float share = 1.0f / static_cast<float>(in_run);
            add_scaled(kept, share, row, mean);
            const size_t run = first_run[k] + i / run_size;
            const float* x_i = gathered.data() + order[i] * d;
            add_scaled(d, share * weight_in_mean(x_i), x_i, means.mean.data() + run * d);
            means.home[run] = static_cast<int32_t>(k);
            std::copy_n(row, kept, rotated.data() + (first_row[k] + i) * kept);
        }
    }
    const size_t codes = padded_codes(asked);
    summary.train(codes, runs, kept, run_means.data(), seed);

    // Residuals to decoded runs, of an even sample of the vectors.
    const size_t sketched = std::min<size_t>(rows, 20000);
    std::vector<float> leftovers(sketched * kept), decoded(kept);
    std::vector<uint8_t> code(codes);
    size_t list = 0;
    for (size_t i = 0; i < sketched; i++) {
        const size_t row = i * rows / sketched;
        while (row >= first_row[list + 1]) {
            list++;
        }
        const size_t run = first_run[list] + (row - first_row[list]) / run_size;
        summary.encode(kept, run_means.data() + run * kept, code.data(), decoded.data());
        for (size_t t = 0; t < kept; t++) {
            leftovers[i * kept + t] = rotated[row * kept + t] - decoded[t];
        }
    }
    sketch.train(codes, sketched, kept, leftovers.data(), seed + 1);
    trained = true;
    return means;
}

float RunCodec::summary_constant(size_t list, const float* decoded_run) const {
    if (inner_product) {
        return 0;
    }
    const float* c = rotated_means.data() + list * kept;
    return dot(kept, decoded_run, decoded_run) + 2 * dot(kept, c, decoded_run);
}

float RunCodec::sketch_constant(size_t list, const float* decoded_run, const float* decoded) const {
    if (inner_product) {
        return 0;
    }
    const float* c = rotated_means.data() + list * kept;
    return dot(kept, decoded, decoded) +
           2 * (dot(kept, c, decoded) + dot(kept, decoded_run, decoded));
}

void RunCodec::build_tables(
        const float* rotated_query,
        const ConstantRange& summary_range,
        const ConstantRange& sketch_range,
        QueryTables& tables) const {
    const size_t summary_entries = summary.codes() * table_entries;
    const size_t sketch_entries = sketch.codes() * table_entries;
    tables.values.resize(summary_entries + sketch_entries);
    tables.summary.resize(summary_entries);
    tables.sketch.resize(sketch_entries);
    const float factor = inner_product ? -1.0f : -2.0f;
    float* values = tables.values.data();
    const float widest = std::max(
            tables_of(summary, kept, rotated_query, factor, values),
            tables_of(sketch, kept, rotated_query, factor, values + summary_entries));

    // One scale for tables and constants; a constant's share of the score must fit 16 bits too.
    float scale = widest > 0 ? largest_entry / (clipped_range * widest) : INFINITY;
    const float width = std::max(summary_range.width, sketch_range.width);
    if (width > 0) {
        scale = std::min(scale, 65535.0f / width);
    }
    tables.scale = std::isfinite(scale) ? scale : 1.0f;
    tables.summary_scale = in_16_bits(summary_range.width * tables.scale);
    tables.sketch_scale = in_16_bits(sketch_range.width * tables.scale);
    scale_tables(summary_entries, values, tables.scale, tables.summary.data());
    scale_tables(sketch_entries, values + summary_entries, tables.scale, tables.sketch.data());
}

size_t RunCodec::memory_bytes() const {
    const size_t floats = data_mean.size() + centred_means.size() + mean_norms.size() +
                          rotation.A.size() + rotation.PCAMat.size() + rotated_means.size() +
                          summary.pq.centroids.size() + sketch.pq.centroids.size();
    return floats * sizeof(float);
}

} // namespace faiss_gmm
