// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Phases: 1 find the one IVFGMM<n>... component and take its options off; 2 let the stock factory
// build the string with IVF<n>... in its place; 3 exchange the IVF that lies inside the wrappers
// for ours.
#include "faiss_gmm/factory/index_factory.h"

#include <cctype>
#include <charconv>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include <faiss/index_factory.h>

#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/index/wrappers.h"

namespace faiss_gmm {
namespace {

constexpr std::string_view token = "IVFGMM";
constexpr const char* codecs =
        "the codecs Flat, SQ, PQ, RQ, LSQ, PRQ, PLSQ, those x4fs, and SH, and where FAISS "
        "has them RaBitQ, RaBitQfs and EDEN: ";

/// The string being read, for messages that mark a place in it.
class FactoryString {
public:
    explicit FactoryString(std::string text) : text_(std::move(text)) {}

    const std::string& text() const {
        return text_;
    }
    [[noreturn]] void
    refuse(size_t from, size_t to, const std::string& what, const std::string& allowed) const {
        const std::string marked(std::max<size_t>(1, to - from), '^');
        throw_faiss(
                {"reading an index_factory string",
                 fmt::format("{}\n    {}\n    {}{}\n", what, text_, std::string(from, ' '), marked),
                 allowed,
                 "correct the marked place"});
    }

private:
    std::string text_;
};

/// An IVFGMM component: its place in the string, and what it asks for.
struct Component {
    size_t from = 0, to = 0;
    std::string stock; ///< the stock component that stands for it: IVF<n>[_HNSW<m>]
    size_t options_from = 0, options_to = 0;
};

size_t end_of_number(const std::string& text, size_t at) {
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0) {
        at++;
    }
    return at;
}

size_t end_of_parentheses(const FactoryString& string, size_t at) {
    const std::string& text = string.text();
    size_t depth = 0;
    for (size_t i = at; i < text.size(); i++) {
        depth += text[i] == '(';
        depth -= text[i] == ')';
        if (depth == 0) {
            return i + 1;
        }
    }
    string.refuse(at, at + 1, "a parenthesis that is not closed", "key=value,... in parentheses");
}

Component read_component(const FactoryString& string, size_t at) {
    const std::string& text = string.text();
    constexpr const char* form = "IVFGMM<n>[k][_HNSW<m>][(key=value,...)],<codec>";
    Component component;
    component.from = at;
    const size_t digits = at + token.size();
    size_t end = end_of_number(text, digits);
    const std::string number = text.substr(digits, end - digits);
    if (number.empty() || number.size() > 9 || std::stoul(number) == 0) {
        string.refuse(
                at,
                std::max(end, digits),
                "a number of lists from 1 to 999999999 is missing",
                form);
    }
    size_t nlist = std::stoul(number);
    if (end < text.size() && text[end] == 'k') {
        nlist *= 1024;
        end++;
    }
    if (nlist > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        string.refuse(at, end, "more lists than there can be", "from 1 to 2147483647 lists");
    }
    component.stock = fmt::format("IVF{}", nlist);
    if (text.compare(end, 5, "_HNSW") == 0) {
        const size_t after = end_of_number(text, end + 5);
        if (after - end - 5 > 4) {
            string.refuse(end, after, "too many links a node", "_HNSW<m> with m up to 9999");
        }
        component.stock += text.substr(end, after - end);
        end = after;
    }
    if (end < text.size() && text[end] == '(') {
        const size_t after = end_of_parentheses(string, end);
        component.options_from = end + 1;
        component.options_to = after - 1;
        end = after;
    }
    if (end == text.size() || text[end] != ',') {
        string.refuse(end, end + 1, "a codec is missing after the component", form);
    }
    component.to = end;
    return component;
}

std::optional<Component> find_component(const FactoryString& string) {
    std::optional<Component> found;
    const std::string& text = string.text();
    for (size_t at = text.find(token); at != std::string::npos; at = text.find(token, at + 1)) {
        const char before = at == 0 ? ',' : text[at - 1];
        if (before == '(' && at > 1 && text[at - 2] != ',' && text[at - 2] != '(') {
            string.refuse(
                    at,
                    at + token.size(),
                    "an IVFGMM inside another component",
                    "an IVFGMM of its own, or in parentheses of its own");
        }
        if (before != ',' && before != '(') {
            continue;
        }
        if (found) {
            string.refuse(at, at + token.size(), "a second IVFGMM", "one IVFGMM a string");
        }
        found = read_component(string, at);
    }
    return found;
}

std::optional<double> read_number(const std::string& text) {
    double value = 0;
    const char* end = text.data() + text.size();
    const std::from_chars_result read = std::from_chars(text.data(), end, value);
    const bool whole = read.ec == std::errc() && read.ptr == end;
    if (!whole || !(value >= 0) || value > std::numeric_limits<int32_t>::max()) {
        return std::nullopt;
    }
    return value;
}

std::optional<size_t> read_count(const std::string& text) {
    const auto value = read_number(text);
    if (!value || *value != static_cast<double>(static_cast<size_t>(*value))) {
        return std::nullopt;
    }
    return static_cast<size_t>(*value);
}

/// One key: what its values look like, and how one is taken; false for a value that is none of
/// them.
struct Key {
    std::string values;
    std::function<bool(const std::string& value, IndexIVFGMM& index)> take;
};

template <class Field> Key count_key(size_t least, Field field) {
    return {least == 0 ? "a whole number below 2^31" : "a whole number from 1 to below 2^31",
            [=](const std::string& value, IndexIVFGMM& index) {
                const auto count = read_count(value);
                if (!count || *count < least) {
                    return false;
                }
                auto& taken = field(index);
                taken = static_cast<std::decay_t<decltype(taken)>>(*count);
                return true;
            }};
}

template <class Field> Key number_key(Field field) {
    return {"a number from 0", [=](const std::string& value, IndexIVFGMM& index) {
                const auto number = read_number(value);
                if (!number) {
                    return false;
                }
                field(index) = static_cast<float>(*number);
                return true;
            }};
}

template <class Enum, class Field> Key word_key(std::map<std::string, Enum> words, Field field) {
    std::string values;
    for (const auto& [word, value] : words) {
        values += (values.empty() ? "" : " | ") + word;
    }
    return {values, [=](const std::string& value, IndexIVFGMM& index) {
                const auto found = words.find(value);
                if (found == words.end()) {
                    return false;
                }
                field(index) = found->second;
                return true;
            }};
}

bool take_sketch(const std::string& value, IndexIVFGMM& index) {
    if (value == "auto") {
        index.sketch = SketchParameters();
        return true;
    }
    if (value == "none") {
        index.sketch.mode = SketchParameters::Mode::none;
        return true;
    }
    const auto codes = read_count(value);
    if (!codes || *codes < 1 || *codes > 256) {
        return false;
    }
    index.sketch.mode = SketchParameters::Mode::fixed;
    index.sketch.codes = *codes;
    return true;
}

/// Whether codes hold what a vector's list mean leaves of it, where the codec has that choice.
bool take_by_residual(const std::string& value, IndexIVFGMM& index) {
    bool* by_residual = by_residual_of(index.ivf());
    if (by_residual == nullptr || (value != "true" && value != "false")) {
        return false;
    }
    *by_residual = value == "true";
    return true;
}

const std::map<std::string, Key>& keys() {
    static const std::map<std::string, Key> all = {
            {"covariance",
             word_key<Covariance>(
                     {{"tied_spherical", Covariance::tied_spherical},
                      {"spherical", Covariance::spherical},
                      {"diagonal", Covariance::diagonal}},
                     [](IndexIVFGMM& index) -> Covariance& { return index.training.covariance; })},
            {"mixing",
             word_key<Mixing>(
                     {{"uniform", Mixing::uniform},
                      {"free", Mixing::free},
                      {"balanced", Mixing::balanced}},
                     [](IndexIVFGMM& index) -> Mixing& { return index.training.mixing; })},
            {"max_iter",
             count_key(0, [](IndexIVFGMM& index) -> size_t& { return index.training.max_iter; })},
            {"n_init",
             count_key(1, [](IndexIVFGMM& index) -> size_t& { return index.training.n_init; })},
            {"seed",
             count_key(0, [](IndexIVFGMM& index) -> uint64_t& { return index.training.seed; })},
            {"estep",
             word_key<EStep>(
                     {{"automatic", EStep::automatic},
                      {"exact", EStep::exact},
                      {"nearest_cells", EStep::nearest_cells}},
                     [](IndexIVFGMM& index) -> EStep& { return index.training.estep; })},
            {"engine",
             word_key<EngineKind>(
                     {{"auto", EngineKind::automatic},
                      {"cpu", EngineKind::cpu},
                      {"cuda", EngineKind::cuda}},
                     [](IndexIVFGMM& index) -> EngineKind& { return index.training.engine; })},
            {"device",
             count_key(0, [](IndexIVFGMM& index) -> int& { return index.training.device; })},
            {"gpu_cache",
             count_key(0, [](IndexIVFGMM& index) -> size_t& { return index.training.gpu_cache; })},
            {"gpu_memory",
             count_key(0, [](IndexIVFGMM& index) -> size_t& { return index.training.gpu_memory; })},
            {"order",
             {"responsibility | air | soar",
              [](const std::string& value, IndexIVFGMM& index) {
                  const auto order = parse_spill_order(value);
                  index.spill.order = order.value_or(index.spill.order);
                  return order.has_value();
              }}},
            {"lambda", number_key([](IndexIVFGMM& index) -> float& { return index.spill.lambda; })},
            {"spill",
             {"never | threshold(t) | threshold(1/K) | always | fraction(f)",
              [](const std::string& value, IndexIVFGMM& index) {
                  return parse_spill_rule(value, index.spill);
              }}},
            {"max_lists",
             count_key(1, [](IndexIVFGMM& index) -> size_t& { return index.spill.max_lists; })},
            {"m", count_key(1, [](IndexIVFGMM& index) -> size_t& { return index.spill.m; })},
            {"storage",
             word_key<SpillStorage>(
                     {{"shared", SpillStorage::shared}, {"copies", SpillStorage::copies}},
                     [](IndexIVFGMM& index) -> SpillStorage& { return index.spill.storage; })},
            {"budget",
             word_key<VisitBudget>(
                     {{"by_difficulty", VisitBudget::by_difficulty}, {"even", VisitBudget::even}},
                     [](IndexIVFGMM& index) -> VisitBudget& { return index.visit_budget; })},
            {"by_residual",
             {"true | false, of a codec that has the choice (all but Flat, SH, RaBitQ, EDEN)",
              take_by_residual}},
            {"sketch", {"auto | none | a number of codes from 1 to 256", take_sketch}},
            {"probe_expansion",
             number_key([](IndexIVFGMM& index) -> float& { return index.probe_expansion; })},
            {"k_factor", number_key([](IndexIVFGMM& index) -> float& { return index.k_factor; })},
    };
    return all;
}

std::string names_of_keys() {
    std::string names;
    for (const auto& [name, key] : keys()) {
        names += (names.empty() ? "" : ", ") + name;
    }
    return names;
}

/// Takes key=value at [from, to); `taken` holds the keys that came before it.
void take_option(
        const FactoryString& string,
        size_t from,
        size_t to,
        std::set<std::string>& taken,
        IndexIVFGMM& index) {
    const std::string& text = string.text();
    const size_t equals = std::min(text.find('=', from), to);
    const std::string name = text.substr(from, equals - from);
    const auto found = keys().find(name);
    if (found == keys().end()) {
        string.refuse(
                from,
                equals,
                fmt::format("unknown key \"{}\"", name),
                "the keys " + names_of_keys());
    }
    if (!taken.insert(name).second) {
        string.refuse(from, to, fmt::format("a second {}", name), "each key once");
    }
    const std::string value = equals < to ? text.substr(equals + 1, to - equals - 1) : "";
    if (!found->second.take(value, index)) {
        string.refuse(
                std::min(equals + 1, to),
                to,
                fmt::format("\"{}\" is no value of {}", value, name),
                found->second.values);
    }
}

void take_options(const FactoryString& string, const Component& component, IndexIVFGMM& index) {
    const std::string& text = string.text();
    std::set<std::string> taken;
    size_t from = component.options_from, depth = 0;
    for (size_t i = from; i < component.options_to + (component.options_to > 0); i++) {
        const bool at_end = i == component.options_to;
        depth += !at_end && text[i] == '(';
        depth -= !at_end && text[i] == ')';
        if (at_end || (text[i] == ',' && depth == 0)) {
            take_option(string, from, i, taken, index);
            from = i + 1;
        }
    }
    if (taken.count("m") == 0) {
        index.spill.m = std::max(index.spill.m, index.spill.max_lists);
    }
    try {
        index.check_parameters();
    } catch (const faiss::FaissException& error) {
        string.refuse(
                component.options_from,
                component.options_to,
                error.what(),
                "values that fit together");
    }
}

} // namespace

faiss::Index* index_factory(int d, const char* description, faiss::MetricType metric) {
    compat::require_matching_faiss();
    if (description == nullptr) {
        throw_faiss(
                {"reading a factory string",
                 "no description (a null pointer)",
                 "IVFGMM<n>,<codec>, with what faiss::index_factory knows around it",
                 "pass a string: IVFGMM1024,Flat"});
    }
    const FactoryString string(description);
    const std::optional<Component> component = find_component(string);
    if (!component) {
        return faiss::index_factory(d, description, metric);
    }
    std::string stock = string.text();
    stock.replace(component->from, component->to - component->from, component->stock);
    std::unique_ptr<faiss::Index> built;
    try {
        built.reset(faiss::index_factory(d, stock.c_str(), metric));
    } catch (const std::exception& error) { // faiss::FaissException, or std::stoi's
        string.refuse(
                0,
                string.text().size(),
                fmt::format("the stock factory refuses \"{}\": {}", stock, error.what()),
                "what faiss::index_factory accepts around and after the component");
    }
    faiss::Index* outermost = built.get();
    faiss::Index** slot = innermost_slot(&outermost);
    auto* ivf = dynamic_cast<faiss::IndexIVF*>(*slot);
    if (const auto refusal = ivf != nullptr ? refusal_of_codec(*ivf) : std::nullopt) {
        string.refuse(
                component->to + 1, string.text().size(), refusal->why, codecs + refusal->instead);
    }
    std::unique_ptr<faiss::IndexIVF> index = ivf != nullptr ? in_place_of(*ivf) : nullptr;
    if (!index) {
        string.refuse(
                component->to + 1,
                string.text().size(),
                "a codec that lists of a mixture do not hold",
                std::string(codecs) + "use one of these");
    }
    take_options(string, *component, dynamic_cast<IndexIVFGMM&>(*index));
    const std::unique_ptr<faiss::Index> replaced(*slot);
    *slot = index.release();
    if (slot == &outermost) {
        static_cast<void>(built.release()); // it was the one replaced
        return outermost;
    }
    return built.release();
}

} // namespace faiss_gmm
