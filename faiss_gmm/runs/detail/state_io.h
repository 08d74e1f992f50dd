// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The parts that a section of any of our lists begins with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "faiss_gmm/runs/detail/policy_io.h"
#include "faiss_gmm/runs/detail/section_io.h"
#include "faiss_gmm/runs/run_inverted_lists.h"

namespace faiss_gmm {

constexpr uint32_t format_version = 1;
constexpr size_t most_lists = 0x7fffffff, most_dimensions = size_t{1} << 24;
constexpr size_t most_lists_a_run = 1024; // rows of memberships are made anew, a row a guest
constexpr size_t largest_parameters = size_t{1} << 20;
constexpr size_t most_codes = 256, most_entries = size_t{1} << 40;

/// What stands before the state in a section: version | lists: number, bytes a code, sizes | what the index
/// over them asked to keep.
struct SectionBegin {
    uint64_t nlist = 0, code_size = 0;
    std::vector<uint64_t> sizes;
    std::string parameters;

    SectionBegin() = default;
    SectionBegin(const faiss::InvertedLists& lists, size_t bytes_a_code, const MixtureLists& kept)
            : nlist(lists.nlist), code_size(bytes_a_code), sizes(lists.nlist),
              parameters(kept.kept_for_index()) {
        for (size_t l = 0; l < nlist; l++) {
            sizes[l] = lists.list_size(l);
        }
    }
    void write(SectionWriter& section) const {
        section.number(format_version, "the format version");
        section.number(nlist, "the number of lists");
        section.number(code_size, "bytes a code");
        section.array(sizes, sizes.size(), "the lists' sizes");
        section.number(uint64_t{parameters.size()}, "the size of the parameters");
        section.bytes(reinterpret_cast<const uint8_t*>(parameters.data()), parameters.size());
    }
    void read(SectionReader& section) {
        uint32_t version = 0;
        uint64_t parameter_bytes = 0;
        section.number(version, "the format version");
        section.require(
                version == format_version,
                fmt::format("format version {}", version),
                fmt::format("version {} (a later one needs a later faiss_gmm)", format_version));
        section.number(nlist, "the number of lists");
        section.number(code_size, "bytes a code");
        section.require(
                nlist > 0 && nlist <= most_lists && code_size <= most_entries,
                fmt::format("{} lists of {} bytes a code", nlist, code_size),
                fmt::format("1 to {} lists", most_lists));
        section.array(sizes, nlist, "the lists' sizes");
        for (size_t l = 0; l < nlist; l++) {
            section.require(
                    sizes[l] <= most_entries && sizes[l] * double(code_size) <= most_entries,
                    fmt::format("{} entries of {} bytes in list {}", sizes[l], code_size, l),
                    fmt::format("up to {} bytes", most_entries));
        }
        section.number(parameter_bytes, "the size of the parameters");
        section.require(
                parameter_bytes <= largest_parameters,
                fmt::format("{} bytes of parameters", parameter_bytes),
                fmt::format("up to {}", largest_parameters));
        std::vector<char> text;
        section.array(text, parameter_bytes, "the parameters");
        parameters.assign(text.begin(), text.end());
    }
};

/// Writes (SectionWriter) and reads (SectionReader) the same things in the same order: one function for
/// both, so that they cannot differ.
template <class Section> class StateIO {
public:
    StateIO(Section& section, size_t nlist) : section_(section), nlist_(nlist) {}

    template <class State> void state(State& state) {
        mixture(state.mixture);
        policy(state.spill);
        section_.flag(state.sketched, "sketched");
        codec(state.codec, state.mixture);
        difficulty(state.difficulty);
        if constexpr (Section::reads) {
            const bool trained = state.codec.trained;
            section_.require(
                    trained || !state.sketched,
                    "sketches without their quantizer",
                    "sketches of a trained quantizer");
            section_.require(
                    state.mixture.K > 0 || !trained,
                    "quantizers without a mixture",
                    "a mixture where there are quantizers");
        }
    }

    template <class Directory>
    void directory(Directory& runs, const CoarseState& state, const std::vector<uint64_t>& sizes) {
        constant_range(runs.summary_range);
        constant_range(runs.sketch_range);
        for (size_t l = 0; l < nlist_; l++) {
            if constexpr (Section::reads) {
                runs.lists.emplace_back();
            }
            list(runs.lists[l], runs, state, sizes[l]);
        }
    }

private:
    template <class Mixture> void mixture(Mixture& mixture) {
        section_.number(mixture.K, "the number of components");
        if (mixture.K == 0) {
            return;
        }
        section_.number(mixture.d, "the dimension");
        section_.choice(mixture.covariance, Covariance::diagonal, "covariance");
        section_.choice(mixture.mixing, Mixing::balanced, "mixing");
        if constexpr (Section::reads) {
            section_.require(
                    mixture.K == nlist_ && mixture.d > 0 && mixture.d <= most_dimensions,
                    fmt::format("{} components of {} dimensions", mixture.K, mixture.d),
                    fmt::format("{} components, one a list", nlist_));
        }
        section_.array(mixture.means, mixture.K * mixture.d, "means");
        section_.array(mixture.log_weights, mixture.K, "log-weights");
        section_.array(
                mixture.covariances,
                GaussianMixture::covariance_size(mixture.covariance, mixture.K, mixture.d),
                "covariances");
        if constexpr (Section::reads) {
            mixture.check();
        }
    }

    template <class Policy> void policy(Policy& policy) {
        transfer_policy(section_, policy);
        if constexpr (Section::reads) {
            policy.check();
        }
    }

    template <class Codec, class Mixture> void codec(Codec& codec, const Mixture& mixture) {
        section_.flag(codec.inner_product, "inner product");
        if (mixture.K == 0) {
            return;
        }
        const size_t d = mixture.d;
        section_.array(codec.data_mean, d, "the data's mean");
        finite(codec.data_mean, "the data's mean");
        if constexpr (Section::reads) { // not trained yet: set_means() rotates nothing
            const std::vector<float> data_mean = codec.data_mean;
            codec.set_means(d, nlist_, mixture.means.data(), data_mean.data(), codec.inner_product);
        }
        section_.flag(codec.trained, "trained");
        if (!codec.trained) {
            return;
        }
        section_.number(codec.kept, "dimensions kept");
        if constexpr (Section::reads) {
            section_.require(
                    codec.kept > 0 && codec.kept <= d,
                    fmt::format("{} dimensions kept", codec.kept),
                    fmt::format("1 to {}", d));
            codec.rotation = faiss::PCAMatrix(static_cast<int>(d), static_cast<int>(codec.kept));
            codec.rotation.have_bias = false;
            codec.rotation.is_trained = true;
        }
        section_.array(codec.rotation.A, codec.kept * d, "the rotation");
        finite(codec.rotation.A, "the rotation");
        section_.array(codec.rotated_means, nlist_ * codec.kept, "rotated means");
        finite(codec.rotated_means, "rotated means");
        quantizer(codec.summary, codec.kept);
        quantizer(codec.sketch, codec.kept);
    }

    template <class Quantizer> void quantizer(Quantizer& quantizer, size_t kept) {
        uint64_t codes = quantizer.codes();
        section_.number(codes, "codes");
        if constexpr (Section::reads) {
            section_.require(
                    codes > 0 && codes <= most_codes && codes % 4 == 0 && 2 * codes >= kept,
                    fmt::format("{} codes for {} dimensions", codes, kept),
                    fmt::format("a multiple of 4 up to {}, half the dimensions", most_codes));
            quantizer.pq = faiss::ProductQuantizer(2 * codes, codes, 4);
        }
        section_.array(quantizer.pq.centroids, 2 * codes * 16, "centroids");
        finite(quantizer.pq.centroids, "centroids");
    }

    template <class Difficulty> void difficulty(Difficulty& difficulty) {
        std::vector<double> typical = difficulty.typical();
        uint64_t count = typical.size();
        section_.number(count, "difficulties");
        if constexpr (Section::reads) {
            section_.require(
                    count <= QueryDifficulty::most_lists,
                    fmt::format("{} difficulties", count),
                    fmt::format("up to {}", QueryDifficulty::most_lists));
        }
        section_.array(typical, count, "difficulties");
        finite(typical, "difficulties");
        if constexpr (Section::reads) {
            difficulty = QueryDifficulty(std::move(typical));
        }
    }

    template <class Range> void constant_range(Range& range) {
        section_.number(range.low, "the least constant");
        section_.number(range.width, "the range of constants");
        section_.flag(range.known, "known constants");
        if constexpr (Section::reads) {
            section_.require(
                    std::isfinite(range.low) && std::isfinite(range.width) && range.width >= 0,
                    fmt::format("constants from {}, {} wide", range.low, range.width),
                    "finite numbers");
        }
    }

    template <class List, class Directory>
    void list(List& list, const Directory& runs, const CoarseState& state, uint64_t size) {
        section_.number(list.covered, "entries in runs");
        section_.number(list.split_entries, "entries in split form");
        section_.flag(list.stale, "stale");
        uint64_t guests = list.guests.size();
        section_.number(guests, "the number of guests");
        if constexpr (Section::reads) {
            // A stale list may have shrunk since.
            const size_t most = list.stale ? most_entries : size;
            section_.require(
                    list.covered <= most && list.split_entries <= list.covered &&
                            guests <= SectionReader::largest_count &&
                            (state.codec.trained || (list.covered == 0 && guests == 0)),
                    fmt::format(
                            "{} entries, {} in runs, {} in split form, {} guests",
                            size,
                            list.covered,
                            list.split_entries,
                            guests),
                    "runs of entries that there are");
        }
        if (!state.codec.trained) {
            return;
        }
        constant_range(list.summary_constants);
        constant_range(list.sketch_constants);
        section_.array(list.guests, guests, "guests");
        section_.array(list.further, list.runs() * runs.stride(), "memberships");
        const BlockLayout summaries = state.codec.summary_layout();
        const BlockLayout sketches = state.codec.sketch_layout();
        // Guests' summaries, behind the list's own, are not written.
        blocks(list.summaries,
               (list.runs() + run_size - 1) / run_size * summaries.bytes(),
               "summaries");
        blocks(list.sketches, runs.sketched ? list.runs() * sketches.bytes() : 0, "sketches");
    }

    template <class Bytes> void blocks(Bytes& blocks, size_t count, const char* what) {
        if constexpr (Section::reads) {
            section_.array(buffer_, count, what);
            blocks.resize(count);
            std::copy(buffer_.begin(), buffer_.end(), blocks.data());
        } else {
            section_.bytes(blocks.data(), count);
        }
    }

    template <class Number> void finite(const std::vector<Number>& numbers, const char* what) {
        if constexpr (Section::reads) {
            for (const Number number : numbers) {
                if (!std::isfinite(number)) {
                    section_.refuse(fmt::format("{} in {}", number, what), "finite numbers");
                }
            }
        }
    }

    Section& section_;
    size_t nlist_;
    std::vector<uint8_t> buffer_;
};

} // namespace faiss_gmm
