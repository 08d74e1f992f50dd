// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// 1 purpose: the cheapest (nprobe, lists probed, exact distances) that reaches a recall.
// 2 a ray is a multiple of the default lists and of the default exact distances, in powers of
//   sqrt(2); along it nprobe grows by rungs, an eighth or 1 at a time, and with it recall, counts and
//   time.
// 5 phases: the truth; the first rung of the default ray that meets the target, by doubling and
//   bisection; from there to neighbouring rays, by steps of 2, then of sqrt(2), as long as time falls;
//   the fastest few settings again, in turns.
// 6 cost: some 30 passes over the queries. Counts prune: a ray of more lists or distances must meet
//   the target a rung lower, or it does more of everything; one of fewer is followed upwards only
//   while it is faster than the best.
// 7 numerics: a result counts when it is among the true k or its distance is at most the k-th, give or
//   take 1e-5 of it: codecs round otherwise than the truth does.
// 9 nothing is set before everything has been measured: an exception leaves the index as it was.
// 10 test: tests/index/tune_test.cc.
#include "faiss_gmm/index/tune.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <iterator>
#include <optional>
#include <random>

#include <fmt/format.h>

#include "faiss_gmm/index/budgeted_search.h"
#include "faiss_gmm/index/codecs.h"
#include "faiss_gmm/index/defaults.h"
#include "faiss_gmm/index/exact_neighbours.h"
#include "faiss_gmm/index/faiss_error.h"
#include "faiss_gmm/index/index_ivf_gmm.h"
#include "faiss_gmm/mixture/clock.h"
#include "faiss_gmm/train/finite_rows.h"

namespace faiss_gmm {
namespace {

constexpr double rung_ratio = 1.125;
constexpr float rounding = 1e-5f;
constexpr double shortest_pass_s = 0.01; // shorter ones are repeated
constexpr size_t exact_queries = 16;     // that time a scan of everything
constexpr double clearly_faster = 0.97;  // on a single pass
constexpr size_t most_finalists = 4, rounds = 5;
constexpr double finalist_ratio = 1.3; // to the fastest, on a single pass

std::vector<uint64_t> distinct_places(const IndexIVFGMM& index) {
    const faiss::InvertedLists& lists = *index.ivf().invlists;
    return index.stores_copies() ? stored_places_once_an_id(lists) : stored_places(lists);
}

/// Queries, what is true of them, and how many results are right.
class Questions {
public:
    /// x [nq, d], copied.
    Questions(
            const faiss::IndexIVF& ivf,
            const std::vector<uint64_t>& places,
            size_t nq,
            const float* x,
            size_t k)
            : Questions(ivf, places, std::vector<float>(x, x + nq * ivf.d), {}, k) {}

    /// The vectors at `asked`, none of which is a right result for itself.
    Questions(
            const faiss::IndexIVF& ivf,
            const std::vector<uint64_t>& places,
            const std::vector<uint64_t>& asked,
            size_t k)
            : Questions(
                      ivf,
                      places,
                      decode_places(ivf, asked.data(), asked.size()),
                      ids_at(*ivf.invlists, asked),
                      k) {}

    size_t nq() const {
        return nq_;
    }
    size_t k() const {
        return k_;
    }
    const float* x() const {
        return x_.data();
    }
    /// Results to ask for: one more where a query finds itself.
    size_t results() const {
        return k_ + (own_.empty() ? 0 : 1);
    }
    /// Share of k among the results ids, distances [results()] of one query that are right.
    double recall(size_t query, const int64_t* ids, const float* distances) const {
        const Truth& truth = truth_[query];
        const int64_t* end = ids + results();
        const bool finds_itself = !own_.empty() && std::find(ids, end, own_[query]) != end;
        if (!own_.empty() && !finds_itself) {
            end--;
        }
        size_t hits = 0;
        for (const int64_t* id = ids; id != end; id++) {
            const bool counts = *id != -1 && std::find(ids, id, *id) == id &&
                                !(finds_itself && *id == own_[query]);
            hits += counts && (std::binary_search(truth.ids.begin(), truth.ids.end(), *id) ||
                               truth.reached_by(distances[id - ids]));
        }
        return static_cast<double>(std::min(hits, k_)) / static_cast<double>(k_);
    }

private:
    struct Truth {
        bool inner_product;
        std::vector<int64_t> ids; // sorted
        float last;               // distance of the k-th
        bool reached_by(float distance) const {
            const float slack = rounding * std::abs(last);
            return inner_product ? distance >= last - slack : distance <= last + slack;
        }
    };

    Questions(
            const faiss::IndexIVF& ivf,
            const std::vector<uint64_t>& places,
            std::vector<float> x,
            std::vector<int64_t> own,
            size_t k)
            : nq_(x.size() / ivf.d), k_(k), x_(std::move(x)), own_(std::move(own)) {
        const bool inner_product = ivf.metric_type == faiss::METRIC_INNER_PRODUCT;
        const ExactNeighbours all = exact_neighbours(ivf, places, nq_, x_.data(), results());
        for (size_t i = 0; i < nq_; i++) {
            const int64_t* ids = all.ids.data() + i * results();
            const float* distances = all.distances.data() + i * results();
            Truth truth{inner_product, {}, distances[0]};
            for (size_t j = 0; j < results() && truth.ids.size() < k_; j++) {
                if (own_.empty() || ids[j] != own_[i]) {
                    truth.ids.push_back(ids[j]);
                    truth.last = inner_product ? std::min(truth.last, distances[j])
                                               : std::max(truth.last, distances[j]);
                }
            }
            std::sort(truth.ids.begin(), truth.ids.end());
            truth_.push_back(std::move(truth));
        }
    }
    static std::vector<int64_t>
    ids_at(const faiss::InvertedLists& lists, const std::vector<uint64_t>& places) {
        std::vector<int64_t> ids;
        ids.reserve(places.size());
        for (const uint64_t place : places) {
            ids.push_back(lists.get_single_id(faiss::lo_listno(place), faiss::lo_offset(place)));
        }
        return ids;
    }

    size_t nq_, k_;
    std::vector<float> x_;
    std::vector<int64_t> own_; // ids of the queries themselves, or empty
    std::vector<Truth> truth_;
};

/// Searches with one setting after another.
class Meter {
public:
    Meter(const IndexIVFGMM& index, const Questions& questions)
            : ivf_(index.ivf()), questions_(questions),
              distances_(questions.nq() * questions.results()),
              ids_(questions.nq() * questions.results()) {}

    /// Fills in what is measured of point's setting.
    void measure(TuningPoint& point) {
        const size_t nq = queries_for(point);
        const IVFGMMStats before = indexIVFGMM_stats;
        double seconds = pass_seconds(point);
        count(before, static_cast<double>(nq), point);
        grade(nq, point);
        size_t passes = 1;
        for (; seconds < shortest_pass_s; passes++) {
            seconds += pass_seconds(point);
        }
        point.us = 1e6 * seconds / static_cast<double>(passes * nq);
    }
    /// Microseconds a query, once more.
    double time(const TuningPoint& point) {
        return 1e6 * pass_seconds(point) / static_cast<double>(queries_for(point));
    }

private:
    size_t queries_for(const TuningPoint& point) const {
        const bool scans_all = point.nprobe == ivf_.nlist && ivf_.max_codes == 0;
        return scans_all ? std::min(questions_.nq(), exact_queries) : questions_.nq();
    }
    double pass_seconds(const TuningPoint& point) {
        IVFGMMSearchParameters parameters;
        parameters.nprobe = point.nprobe;
        parameters.max_codes = ivf_.max_codes;
        parameters.probe_expansion = point.probe_expansion();
        const double exact = static_cast<double>(point.k_factor) * questions_.k();
        const size_t results = questions_.results(), more = results - questions_.k();
        parameters.k_factor =
                exact > 0 ? static_cast<float>((exact + static_cast<double>(more)) / results) : 0;
        const Clock::time_point start = Clock::now();
        ivf_.search(
                static_cast<int64_t>(queries_for(point)),
                questions_.x(),
                static_cast<int64_t>(results),
                distances_.data(),
                ids_.data(),
                &parameters);
        return seconds_since(start);
    }
    void count(const IVFGMMStats& before, double queries, TuningPoint& point) const {
        const IVFGMMStats& now = indexIVFGMM_stats;
        point.ndis = static_cast<double>(now.ndis - before.ndis) / queries;
        point.nscored = static_cast<double>(now.nscored - before.nscored) / queries;
        point.nvisited = static_cast<double>(now.nvisited - before.nvisited) / queries;
        const size_t bytes =
                now.bytes_read(ivf_.code_size, ivf_.d) - before.bytes_read(ivf_.code_size, ivf_.d);
        point.bytes_read = static_cast<double>(bytes) / queries;
    }
    void grade(size_t nq, TuningPoint& point) const {
        const size_t results = questions_.results();
        double sum = 0, squares = 0;
        for (size_t i = 0; i < nq; i++) {
            const double recall = questions_.recall(
                    i, ids_.data() + i * results, distances_.data() + i * results);
            sum += recall;
            squares += recall * recall;
        }
        const auto n = static_cast<double>(nq);
        point.recall = sum / n;
        const double spread = std::max(0.0, squares - sum * sum / n);
        point.standard_error = nq > 1 ? std::sqrt(spread / (n - 1) / n) : 0;
    }

    const faiss::IndexIVF& ivf_;
    const Questions& questions_;
    std::vector<float> distances_;
    std::vector<int64_t> ids_;
};

/// Lists probed and exact distances as multiples of the defaults, in powers of sqrt(2).
struct Ray {
    int lists = 0, exact = 0;
};

size_t times_root_two(size_t n, int power) {
    return static_cast<size_t>(std::lround(static_cast<double>(n) * std::pow(2.0, 0.5 * power)));
}

/// Numbers of lists from 1 to below nlist.
std::vector<size_t> nprobe_rungs(size_t nlist) {
    std::vector<size_t> rungs;
    for (size_t nprobe = 1; nprobe < nlist;) {
        rungs.push_back(nprobe);
        nprobe =
                std::max(nprobe + 1, static_cast<size_t>(static_cast<double>(nprobe) * rung_ratio));
    }
    return rungs;
}

/// The way from setting to setting.
class Exploration {
public:
    Exploration(
            const IndexIVFGMM& index,
            const Questions& questions,
            const TuningParameters& parameters)
            : nlist_(index.ivf().nlist), ntotal_(static_cast<size_t>(index.ivf().ntotal)),
              parameters_(parameters), k_(static_cast<size_t>(parameters.k)),
              rungs_(nprobe_rungs(nlist_)), meter_(index, questions) {
        const RunInvertedLists* runs = index.run_lists();
        chooses_lists_ = runs != nullptr && runs->has_runs();
        chooses_exact_ = chooses_lists_ && runs->directory().sketched;
    }

    void run() {
        climb({}, 0);
        for (int wider = 2; best_.point == nullptr && chooses_lists_ && wider <= 4; wider += 2) {
            climb({wider, 2 * wider}, 0);
        }
        if (best_.point == nullptr) {
            measure({nlist_, 0, 0});
            return;
        }
        for (const int step : {2, 1}) {
            while (moves(step)) {
            }
        }
    }

    TuningReport report() {
        TuningReport report;
        const std::vector<TuningPoint*> last = finalists();
        report.reached = !last.empty();
        report.chosen = report.reached ? fastest(last) : highest_recall();
        report.complete = !stopped_;
        report.points.assign(points_.begin(), points_.end());
        return report;
    }

private:
    struct Best {
        Ray ray;
        size_t rung = 0;
        const TuningPoint* point = nullptr;
    };

    bool meets(const TuningPoint& point) const {
        return point.recall - parameters_.standard_errors * point.standard_error >=
               parameters_.recall;
    }

    TuningPoint setting(const Ray& ray, size_t rung) const {
        TuningPoint point;
        const size_t nprobe = point.nprobe = rungs_[rung];
        if (chooses_lists_) {
            point.lists = std::clamp(
                    times_root_two(default_lists_probed(nprobe, nlist_), ray.lists),
                    nprobe,
                    nlist_);
        }
        if (chooses_exact_) {
            SearchSettings settings;
            settings.nprobe = nprobe;
            const size_t visited = settings.average_budget(ntotal_, nlist_);
            const size_t exact = std::clamp(
                    times_root_two(default_exact_distances(k_, visited), ray.exact),
                    k_,
                    std::max(k_, ntotal_));
            point.k_factor = static_cast<float>(exact) / static_cast<float>(k_);
        }
        return point;
    }

    /// What is known of a setting, measured now if it was not before; null where no more may be.
    const TuningPoint* measure(TuningPoint point) {
        for (const TuningPoint& known : points_) {
            if (known.nprobe == point.nprobe && known.lists == point.lists &&
                known.k_factor == point.k_factor) {
                return &known;
            }
        }
        stopped_ = stopped_ || points_.size() >= parameters_.max_settings ||
                   (!points_.empty() && seconds_since(start_) > parameters_.max_seconds);
        if (stopped_) {
            return nullptr;
        }
        meter_.measure(point);
        points_.push_back(point);
        stopped_ = parameters_.progress && !parameters_.progress(point);
        return &points_.back();
    }

    /// From a rung upwards to the first that meets the target, unless one that fails takes as long as
    /// the best there is.
    void climb(const Ray& ray, size_t from) {
        size_t low = from, step = 1;
        for (size_t rung = from; rung < rungs_.size(); step *= 2) {
            const TuningPoint* point = measure(setting(ray, rung));
            if (point == nullptr) {
                return;
            }
            if (meets(*point)) {
                bisect(ray, low, rung);
                return;
            }
            if (best_.point != nullptr && point->us >= best_.point->us) {
                return;
            }
            low = rung + 1;
            rung = rung + 1 == rungs_.size() ? rungs_.size()
                                             : std::min(rung + step, rungs_.size() - 1);
        }
    }

    /// From a rung downwards as long as the target is met.
    void descend(const Ray& ray, size_t from) {
        size_t met = from + 1, step = 1;
        for (size_t rung = from;; step *= 2) {
            const TuningPoint* point = measure(setting(ray, rung));
            const bool meets_target = point != nullptr && meets(*point);
            met = meets_target ? rung : met;
            if (!meets_target || rung == 0) {
                if (met <= from) {
                    bisect(ray, meets_target ? rung : rung + 1, met);
                }
                return;
            }
            rung -= std::min(rung, step);
        }
    }

    /// The first rung of [low, met] that meets the target, as `met` does.
    void bisect(const Ray& ray, size_t low, size_t met) {
        while (low < met) {
            const size_t middle = (low + met) / 2;
            const TuningPoint* point = measure(setting(ray, middle));
            if (point == nullptr) {
                break;
            }
            (meets(*point) ? met : low) = meets(*point) ? middle : middle + 1;
        }
        const TuningPoint* point = measure(setting(ray, met));
        if (best_.point == nullptr || point->us < clearly_faster * best_.point->us) {
            best_ = {ray, met, point};
        }
    }

    /// Tries the neighbouring rays; whether one of them was faster.
    bool moves(int step) {
        const TuningPoint* before = best_.point;
        for (const Ray& by : {Ray{0, step}, Ray{0, -step}, Ray{step, 0}, Ray{-step, 0}}) {
            if ((by.exact != 0 && !chooses_exact_) || (by.lists != 0 && !chooses_lists_)) {
                continue;
            }
            const Ray ray{best_.ray.lists + by.lists, best_.ray.exact + by.exact};
            if (by.exact < 0 || by.lists < 0) {
                climb(ray, best_.rung);
            } else if (best_.rung > 0) {
                descend(ray, best_.rung - 1);
            }
        }
        return best_.point != before;
    }

    /// Whether b does at most as much as a of everything that is counted, and less of something.
    static bool does_less(const TuningPoint& b, const TuningPoint& a) {
        const double more[] = {
                a.ndis - b.ndis,
                a.nscored - b.nscored,
                a.nvisited - b.nvisited,
                a.bytes_read - b.bytes_read};
        return *std::min_element(std::begin(more), std::end(more)) >= 0 &&
               *std::max_element(std::begin(more), std::end(more)) > 0;
    }

    /// The fastest few of those that meet the target and have none that does less.
    std::vector<TuningPoint*> finalists() {
        std::vector<TuningPoint*> last;
        for (TuningPoint& point : points_) {
            const bool beaten =
                    std::any_of(points_.begin(), points_.end(), [&](const TuningPoint& other) {
                        return meets(other) && does_less(other, point);
                    });
            if (meets(point) && !beaten) {
                last.push_back(&point);
            }
        }
        std::sort(last.begin(), last.end(), [](const TuningPoint* a, const TuningPoint* b) {
            return a->us < b->us;
        });
        size_t kept = 0;
        while (kept < std::min(last.size(), most_finalists) &&
               last[kept]->us <= finalist_ratio * last[0]->us) {
            kept++;
        }
        last.resize(kept);
        return last;
    }

    /// Times the finalists in turns.
    const TuningPoint& fastest(const std::vector<TuningPoint*>& last) {
        std::vector<std::vector<double>> us(last.size());
        for (size_t round = 0; round < rounds; round++) {
            for (size_t i = 0; i < last.size(); i++) {
                us[i].push_back(meter_.time(*last[i]));
            }
        }
        for (size_t i = 0; i < last.size(); i++) {
            std::sort(us[i].begin(), us[i].end());
            last[i]->us = us[i][rounds / 2];
        }
        return **std::min_element(
                last.begin(), last.end(), [](const TuningPoint* a, const TuningPoint* b) {
                    return a->us < b->us;
                });
    }

    const TuningPoint& highest_recall() const {
        return *std::max_element(
                points_.begin(), points_.end(), [](const TuningPoint& a, const TuningPoint& b) {
                    return a.recall != b.recall ? a.recall < b.recall : a.us > b.us;
                });
    }

    size_t nlist_, ntotal_;
    const TuningParameters& parameters_;
    size_t k_;
    std::vector<size_t> rungs_;
    Meter meter_;
    bool chooses_lists_, chooses_exact_;
    std::deque<TuningPoint> points_; // best_ points into it
    Best best_;
    bool stopped_ = false;
    Clock::time_point start_ = Clock::now();
};

[[noreturn]] void refuse(const std::string& given, const char* allowed, const char* next) {
    throw_faiss({"tuning an IVFGMM index", given, allowed, next});
}

void check(const faiss::IndexIVF& ivf, const TuningParameters& parameters) {
    if (!ivf.is_trained || ivf.ntotal == 0) {
        refuse(ivf.is_trained ? "an index without vectors" : "an index that is not trained",
               "an index that is trained and filled",
               "call train() and add() first");
    }
    if (keeps_plain_lists(ivf)) {
        refuse("an index of a codec whose lists stay plain (FastScan, spectral hashes)",
               "a codec in runs, or Flat, whose distances can be compared with the true ones",
               "set nprobe by a measurement of your own");
    }
    if (parameters.k < 1) {
        refuse(fmt::format("k = {}", parameters.k), "k from 1", "ask for at least one result");
    }
    if (!(parameters.recall > 0 && parameters.recall <= 1)) {
        refuse(fmt::format("a target recall of {}", parameters.recall),
               "above 0, up to 1",
               "give a share such as 0.95");
    }
    if (!(parameters.standard_errors >= 0) || std::isinf(parameters.standard_errors) ||
        parameters.sample < 1 || parameters.max_settings < 1 || !(parameters.max_seconds >= 0)) {
        refuse(fmt::format(
                       "standard_errors = {}, sample = {}, max_settings = {}, max_seconds = {}",
                       parameters.standard_errors,
                       parameters.sample,
                       parameters.max_settings,
                       parameters.max_seconds),
               "finite standard_errors from 0, sample and max_settings from 1, max_seconds from 0",
               "keep the defaults of TuningParameters");
    }
    if ((ivf.parallel_mode & ivf.PARALLEL_MODE_NO_HEAP_INIT) != 0) {
        refuse("parallel_mode with PARALLEL_MODE_NO_HEAP_INIT",
               "a mode in which search() starts the results itself",
               "clear that bit of parallel_mode while tuning");
    }
}

void check_enough(size_t vectors, size_t needed, int64_t k) {
    if (vectors < needed) {
        refuse(fmt::format("k = {} and {} vectors in the index", k, vectors),
               needed == static_cast<size_t>(k) ? "at least k vectors"
                                                : "more than k vectors where they are the queries",
               "add vectors or ask for fewer results");
    }
}

TuningReport
tune_on(IndexIVFGMM& index,
        const Questions& questions,
        const TuningParameters& parameters,
        Clock::time_point start) {
    const double truth_s = seconds_since(start);
    Exploration exploration(index, questions, parameters);
    exploration.run();
    TuningReport report = exploration.report();
    report.nq = questions.nq();
    report.truth_s = truth_s;
    report.total_s = seconds_since(start);
    const TuningPoint& chosen = report.chosen;
    index.ivf().nprobe = chosen.nprobe;
    index.probe_expansion = chosen.lists > 0 ? chosen.probe_expansion() : index.probe_expansion;
    index.k_factor = chosen.k_factor > 0 ? chosen.k_factor : index.k_factor;
    return report;
}

} // namespace

TuningReport
tune(IndexIVFGMM& index, int64_t nq, const float* queries, const TuningParameters& parameters) {
    const Clock::time_point start = Clock::now();
    const faiss::IndexIVF& ivf = index.ivf();
    check(ivf, parameters);
    if (nq < 1 || queries == nullptr) {
        refuse(fmt::format("{} queries", queries == nullptr ? 0 : nq),
               "at least one",
               "give queries, or leave them out to ask the index's own vectors");
    }
    const auto n = static_cast<size_t>(nq);
    const size_t bad = first_bad_row(n, ivf.d, queries);
    if (bad < n) {
        refuse(fmt::format("query {} with NaN or Inf", bad),
               "finite numbers",
               "remove or repair this query");
    }
    const auto k = static_cast<size_t>(parameters.k);
    const std::vector<uint64_t> places = distinct_places(index);
    check_enough(places.size(), k, parameters.k);
    return at_faiss_seam([&] {
        return tune_on(index, Questions(ivf, places, n, queries, k), parameters, start);
    });
}

TuningReport tune(IndexIVFGMM& index, const TuningParameters& parameters) {
    const Clock::time_point start = Clock::now();
    const faiss::IndexIVF& ivf = index.ivf();
    check(ivf, parameters);
    const auto k = static_cast<size_t>(parameters.k);
    const std::vector<uint64_t> places = distinct_places(index);
    check_enough(places.size(), k + 1, parameters.k);
    std::vector<uint64_t> asked;
    std::mt19937_64 random(parameters.seed);
    std::sample(places.begin(), places.end(), std::back_inserter(asked), parameters.sample, random);
    return at_faiss_seam(
            [&] { return tune_on(index, Questions(ivf, places, asked, k), parameters, start); });
}

} // namespace faiss_gmm
