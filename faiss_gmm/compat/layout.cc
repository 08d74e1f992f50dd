// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "faiss_gmm/compat/layout.h"

#include <array>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <faiss/IndexIVFAdditiveQuantizer.h>
#include <faiss/IndexIVFAdditiveQuantizerFastScan.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexIVFSpectralHash.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/impl/FaissException.h>
#include <faiss/utils/utils.h>

#include "faiss_gmm/compat/faiss_version.h"
#include "faiss_gmm/mixture/error.h"

namespace faiss_gmm::compat {
namespace {

constexpr int64_t d = 8;
constexpr size_t nlist = 5;

/// What differs, in words: "given" of the message.
using Difference = std::optional<std::string>;

std::string text_of(int version) {
    return fmt::format("{}.{}.{}", version / 1000000, version / 1000 % 1000, version % 1000);
}

/// Of the loaded FAISS; empty before 1.9, which does not say it.
std::string loaded_version() {
#if FAISS_GMM_FAISS_AT_LEAST(1, 9)
    return faiss::get_version();
#else
    return "";
#endif
}

/// Two objects that FAISS's own constructor, make(memory), makes in room that was filled with different bytes: what
/// it did not write differs in every byte. Where their end is not the class's end by our headers no member
/// can be trusted, and they are not destroyed.
template <class Class> class Probe {
public:
    template <class Make> explicit Probe(Make make) {
        for (size_t i = 0; i < rooms_.size(); i++) {
            rooms_[i].reset(new (alignment) unsigned char[room]);
            std::fill_n(rooms_[i].get(), room, fills[i]);
            make(rooms_[i].get());
        }
        for (size_t b = 0; b < room; b++) {
            if (rooms_[0][b] != fills[0] || rooms_[1][b] != fills[1]) {
                end_ = b + 1;
            }
        }
    }
    Probe(const Probe&) = delete;
    Probe& operator=(const Probe&) = delete;
    ~Probe() {
        if (fits()) {
            for (auto& memory : rooms_) {
                std::launder(reinterpret_cast<Class*>(memory.get()))->~Class();
            }
        }
    }
    /// Behind the last member there may be room, less than the alignment.
    bool fits() const {
        return end_ <= sizeof(Class) && end_ + alignof(Class) > sizeof(Class);
    }
    size_t end() const {
        return end_;
    }
    Class& object() {
        return *std::launder(reinterpret_cast<Class*>(rooms_[0].get()));
    }

private:
    static constexpr size_t room = sizeof(Class) + 4096;
    static constexpr std::align_val_t alignment{64};
    static constexpr std::array<unsigned char, 2> fills = {0x00, 0xff};
    struct Free {
        void operator()(unsigned char* memory) const {
            operator delete[](memory, alignment);
        }
    };
    std::array<std::unique_ptr<unsigned char[], Free>, 2> rooms_;
    size_t end_ = 0;
};

Difference size_differs(const char* name, size_t by_headers, size_t end) {
    return fmt::format(
            "headers in which {} takes {} bytes, and a library{} whose constructor fills {}",
            name,
            by_headers,
            loaded_version().empty() ? "" : " of FAISS " + loaded_version(),
            end);
}

template <class Class, class... Arguments>
Difference compare_size(const char* name, Arguments... arguments) {
    const Probe<Class> probe([&](void* memory) { new (memory) Class(arguments...); });
    return probe.fits() ? Difference() : size_differs(name, sizeof(Class), probe.end());
}

/// IndexIVF itself, through the codec that adds nothing to it: what the constructor was given, and lists that
/// FAISS put into it, stand where our headers have them.
Difference compare_members(faiss::Index& quantizer) {
    faiss::ArrayInvertedLists lists(nlist, d * sizeof(float));
    Probe<faiss::IndexIVFFlat> probe([&](void* memory) {
        new (memory) faiss::IndexIVFFlat(&quantizer, d, nlist, faiss::METRIC_INNER_PRODUCT);
    });
    if (!probe.fits()) {
        return size_differs("IndexIVFFlat", sizeof(faiss::IndexIVFFlat), probe.end());
    }
    faiss::IndexIVF& index = probe.object();
    index.replace_invlists(&lists, false);
    const bool same = index.d == d && index.metric_type == faiss::METRIC_INNER_PRODUCT &&
                      index.quantizer == &quantizer && index.nlist == nlist &&
                      index.invlists == &lists && !index.own_invlists &&
                      index.code_size == d * sizeof(float) && index.direct_map.no();
    return same ? Difference() : "headers and a library in which IndexIVF has other members";
}

Difference compare_with_loaded() {
    const std::string version = text_of(layout_here.version);
    if (!loaded_version().empty() && loaded_version() != version) {
        return fmt::format(
                "headers of FAISS {} and a library of FAISS {}", version, loaded_version());
    }
    for (const Difference& difference :
         {compare_size<faiss::IndexFlat>("IndexFlat", d),
          compare_size<faiss::ArrayInvertedLists>("ArrayInvertedLists", nlist, 32),
          compare_size<faiss::BlockInvertedLists>("BlockInvertedLists", nlist, 32, 64)}) {
        if (difference) {
            return difference;
        }
    }
    using namespace faiss;
    IndexFlat quantizer(d);
    Index* const q = &quantizer;
    if (Difference difference = compare_members(quantizer)) {
        return difference;
    }
    for (const Difference& difference :
         {compare_size<IndexIVFScalarQuantizer>(
                  "IndexIVFScalarQuantizer", q, d, nlist, ScalarQuantizer::QT_8bit),
          compare_size<IndexIVFPQ>("IndexIVFPQ", q, d, nlist, 2, 4),
          compare_size<IndexIVFResidualQuantizer>("IndexIVFResidualQuantizer", q, d, nlist, 2, 4),
          compare_size<IndexIVFLocalSearchQuantizer>(
                  "IndexIVFLocalSearchQuantizer", q, d, nlist, 2, 4),
          compare_size<IndexIVFProductResidualQuantizer>(
                  "IndexIVFProductResidualQuantizer", q, d, nlist, 2, 2, 4),
          compare_size<IndexIVFProductLocalSearchQuantizer>(
                  "IndexIVFProductLocalSearchQuantizer", q, d, nlist, 2, 2, 4),
          compare_size<IndexIVFPQFastScan>("IndexIVFPQFastScan", q, d, nlist, 2, 4),
          compare_size<IndexIVFResidualQuantizerFastScan>(
                  "IndexIVFResidualQuantizerFastScan", q, d, nlist, 2, 4),
          compare_size<IndexIVFLocalSearchQuantizerFastScan>(
                  "IndexIVFLocalSearchQuantizerFastScan", q, d, nlist, 2, 4),
          compare_size<IndexIVFProductResidualQuantizerFastScan>(
                  "IndexIVFProductResidualQuantizerFastScan", q, d, nlist, 2, 2, 4),
          compare_size<IndexIVFProductLocalSearchQuantizerFastScan>(
                  "IndexIVFProductLocalSearchQuantizerFastScan", q, d, nlist, 2, 2, 4),
          compare_size<IndexIVFSpectralHash>("IndexIVFSpectralHash", q, d, nlist, 8, 1.0f)}) {
        if (difference) {
            return difference;
        }
    }
    return {};
}

/// Of the first translation unit that differs. Units are compared before main(), one after another.
Difference& difference_of_units() {
    static Difference difference;
    return difference;
}

Difference compare_units(const Layout& unit) {
    const Layout& own = layout_here;
    if (unit.version != own.version) {
        return fmt::format(
                "a program with headers of FAISS {} and faiss_gmm with those of {}",
                text_of(unit.version),
                text_of(own.version));
    }
    struct Size {
        const char* name;
        size_t in_unit, in_library;
    };
    for (const Size& size :
         {Size{"IndexIVF", unit.index_ivf, own.index_ivf},
          Size{"SearchParametersIVF", unit.search_parameters, own.search_parameters},
          Size{"IndexFlat", unit.index_flat, own.index_flat},
          Size{"InvertedLists", unit.lists, own.lists},
          Size{"BlockInvertedLists", unit.block_lists, own.block_lists}}) {
        if (size.in_unit != size.in_library) {
            return fmt::format(
                    "a program with headers in which {} takes {} bytes, and faiss_gmm with those "
                    "in which "
                    "it takes {}",
                    size.name,
                    size.in_unit,
                    size.in_library);
        }
    }
    return {};
}

} // namespace

LayoutCheck::LayoutCheck(const Layout& layout) noexcept {
    if (!difference_of_units()) {
        difference_of_units() = compare_units(layout);
    }
}

void require_matching_faiss() {
    // Not both: where units differ, what they inlined may stand in place of what destroys our probes.
    static const Difference difference =
            difference_of_units() ? difference_of_units() : compare_with_loaded();
    if (difference) {
        const Problem problem = {
                "using FAISS",
                *difference,
                "one release of FAISS for program, faiss_gmm and the library that is loaded",
                "compile all of them anew against the headers of the FAISS that is loaded"};
        throw faiss::FaissException(Error(problem).what());
    }
}

} // namespace faiss_gmm::compat
