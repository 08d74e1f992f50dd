// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The section of our lists within a file of FAISS's. Numbers as FAISS writes them: little-endian, 64-bit sizes.
//   "ilgm" | version | lists: number, bytes a code, sizes | what the index over them asked to keep |
//   state: mixture, policy, codec, difficulty | directory | checksum of all this |
//   the inner lists, by FAISS's own writer | checksum of these
// What follows from other parts is not written but made anew (centred means, guests' summaries and groups), so
// that no fact stands there twice; rotated means are written, since products differ between machines
// and constants were computed from them.
// Versions: 1, the first.
// Reading believes nothing: sizes are bounded by what came before them, arrays come in pieces, and what
// a search walks through is checked (RunInvertedLists::check_structure) before it is used.
// Tests: tests/io.
#include "faiss_gmm/runs/run_lists_io.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <typeinfo>
#include <utility>

#include <fmt/format.h>

#include <faiss/impl/FaissException.h>
#include <faiss/index_io.h>
#include <faiss/invlists/InvertedListsIOHook.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/runs/detail/policy_io.h"
#include "faiss_gmm/runs/detail/section_io.h"
#include "faiss_gmm/runs/run_inverted_lists.h"

namespace faiss_gmm {
namespace {

constexpr const char* lists_key = "ilgm";
constexpr uint32_t format_version = 1;
constexpr size_t most_lists = 0x7fffffff, most_dimensions = size_t{1} << 24;
constexpr size_t most_lists_a_run = 1024; // rows of memberships are made anew, a row a guest
constexpr size_t largest_parameters = size_t{1} << 20;
constexpr size_t most_codes = 256, most_entries = size_t{1} << 40;

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

/// That a section is being read by this thread: one within it would cost a damaged file nothing, and us the stack.
class Within {
public:
    Within() {
        depth++;
    }
    ~Within() {
        depth--;
    }
    Within(const Within&) = delete;
    Within& operator=(const Within&) = delete;
    static bool another() {
        return depth > 1;
    }

private:
    static inline thread_local size_t depth = 0;
};

/// Lists in memory, from FAISS's own form: what its reader does, but for the allocations.
std::unique_ptr<faiss::InvertedLists>
read_array_lists(SectionReader& section, const std::vector<uint64_t>& sizes, size_t code_size) {
    uint64_t nlist = 0, bytes = 0, count = 0;
    uint32_t form = 0;
    section.number(nlist, "the number of inner lists");
    section.number(bytes, "bytes a code");
    section.number(form, "the form of the lists' sizes");
    section.number(count, "the number of the lists' sizes");
    const bool full = form == faiss::fourcc("full"), sparse = form == faiss::fourcc("sprs");
    section.require(
            nlist == sizes.size() && bytes == code_size && (full || sparse) && count <= 2 * nlist,
            fmt::format("{} inner lists of {} bytes a code, form {:08x}", nlist, bytes, form),
            fmt::format("{} lists of {}, full or sparse", sizes.size(), code_size));
    std::vector<uint64_t> numbers, inner(sizes.size(), 0);
    section.array(numbers, count, "the lists' sizes");
    if (full) {
        inner = std::move(numbers);
    } else {
        for (size_t i = 0; i + 1 < numbers.size(); i += 2) {
            section.require(
                    numbers[i] < nlist,
                    fmt::format("a size of list {}", numbers[i]),
                    fmt::format("lists up to {}", nlist));
            inner[numbers[i]] = numbers[i + 1];
        }
    }
    section.require(inner == sizes, "inner lists of other sizes", "the sizes named before");
    auto lists = std::make_unique<faiss::ArrayInvertedLists>(nlist, code_size);
    for (size_t l = 0; l < nlist; l++) {
        section.array(compat::owned_vector(lists->codes[l], 0), sizes[l] * code_size, "codes");
        compat::settle(lists->codes[l]);
        section.array(compat::owned_vector(lists->ids[l], 0), sizes[l], "ids");
        compat::settle(lists->ids[l]);
    }
    return lists;
}

std::unique_ptr<faiss::InvertedLists> read_inner_lists(
        faiss::IOReader& in, int io_flags, const std::vector<uint64_t>& sizes, size_t code_size) {
    constexpr const char* what = "the checksum of the inner lists";
    constexpr const char* part = "the inner lists";
    std::unique_ptr<faiss::InvertedLists> lists;
    if ((io_flags & faiss::IO_FLAG_SKIP_IVF_DATA) !=
        0) { // mapped: not read, so not summed up either
        lists.reset(faiss::read_InvertedLists(&in, io_flags));
        uint64_t unread = 0;
        SectionReader(in, part).number(unread, what);
    } else {
        SectionReader section(in, part);
        uint32_t kind = 0;
        section.number(kind, "the kind of the inner lists");
        if (kind == faiss::fourcc("ilar")) {
            lists = read_array_lists(section, sizes, code_size);
        } else {
            section.push_back(&kind, sizeof kind);
            try {
                lists.reset(faiss::read_InvertedLists(&section, io_flags));
            } catch (const faiss::FaissException& error) {
                section.refuse(error.what(), "lists that FAISS can read");
            }
        }
        section.checksum(what);
    }
    bool as_named = lists && lists->nlist == sizes.size() && lists->code_size == code_size;
    for (size_t l = 0; as_named && l < sizes.size(); l++) {
        as_named = lists->list_size(l) == sizes[l];
    }
    SectionReader(in, part).require(
            as_named, "inner lists of another number or size", "the sizes named before");
    return lists;
}

} // namespace

/// Not in the anonymous namespace: FAISS knows classes by their names.
class RunListsIOHook : public faiss::InvertedListsIOHook {
public:
    RunListsIOHook() : faiss::InvertedListsIOHook(lists_key, typeid(RunInvertedLists).name()) {}

    void write(const faiss::InvertedLists* stock, faiss::IOWriter* out) const override {
        try {
            write_lists(dynamic_cast<const RunInvertedLists&>(*stock), *out);
        } catch (const Error& error) {
            throw faiss::FaissException(error.what());
        }
    }
    faiss::InvertedLists* read(faiss::IOReader* in, int io_flags) const override {
        try {
            return read_lists(*in, io_flags).release();
        } catch (const Error& error) {
            throw faiss::FaissException(error.what());
        }
    }

private:
    static void write_lists(const RunInvertedLists& lists, faiss::IOWriter& out) {
        if (lists.directory().max_lists > most_lists_a_run) {
            throw Error(
                    {"writing an IVFGMM index",
                     fmt::format("max_lists = {}", lists.directory().max_lists),
                     fmt::format("up to {}", most_lists_a_run),
                     "train with fewer max_lists"});
        }
        SectionWriter(out).number(faiss::fourcc(lists_key), "key");
        SectionWriter section(out);
        section.number(format_version, "the format version");
        section.number(uint64_t{lists.nlist}, "the number of lists");
        section.number(uint64_t{lists.code_size}, "bytes a code");
        std::vector<uint64_t> sizes(lists.nlist);
        for (size_t l = 0; l < lists.nlist; l++) {
            sizes[l] = lists.list_size(l);
        }
        section.array(sizes, sizes.size(), "the lists' sizes");
        const std::string parameters = lists.kept_for_index();
        section.number(uint64_t{parameters.size()}, "the size of the parameters");
        section.bytes(reinterpret_cast<const uint8_t*>(parameters.data()), parameters.size());
        StateIO<SectionWriter> io(section, lists.nlist);
        io.state(lists.state());
        io.directory(lists.directory(), lists.state(), sizes);
        section.checksum("checksum");
        faiss::write_InvertedLists(&lists.inner(), &section);
        section.checksum("checksum");
    }

    static std::unique_ptr<RunInvertedLists> read_lists(faiss::IOReader& in, int io_flags) {
        const Within within;
        SectionReader section(in);
        section.require(!Within::another(), "such a section within another", "stock lists");
        uint32_t version = 0;
        uint64_t nlist = 0, code_size = 0, parameter_bytes = 0;
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
        std::vector<uint64_t> sizes;
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
        std::vector<char> parameters;
        section.array(parameters, parameter_bytes, "the parameters");

        auto state = std::make_shared<CoarseState>();
        RunDirectory directory;
        StateIO<SectionReader> io(section, nlist);
        io.state(*state);
        if (state->mixture.K > 0) {
            directory.take_shape(state->spill, state->sketched);
        }
        section.require(
                directory.max_lists <= std::min<size_t>(nlist, most_lists_a_run),
                fmt::format("{} lists a run", directory.max_lists),
                fmt::format("up to {}, and as many as there are", most_lists_a_run));
        io.directory(directory, *state, sizes);
        section.checksum("the checksum of the state");

        auto lists = std::make_unique<RunInvertedLists>(
                read_inner_lists(in, io_flags, sizes, code_size));
        lists->restore(std::move(state), std::move(directory));
        lists->keep_for_index(std::string(parameters.begin(), parameters.end()));
        return lists;
    }
};

namespace {
StockSearchWarning& warning_of_the_process() {
    static StockSearchWarning warning;
    return warning;
}
} // namespace

void set_stock_search_warning(StockSearchWarning warning) {
    warning_of_the_process() = std::move(warning);
}

const StockSearchWarning& stock_search_warning() {
    return warning_of_the_process();
}

void register_lists_io() {
    static std::once_flag once;
    std::call_once(once, [] {
        faiss::InvertedListsIOHook::add_callback(new RunListsIOHook); // FAISS's from here on
    });
}

} // namespace faiss_gmm
