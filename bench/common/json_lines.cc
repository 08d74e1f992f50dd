// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "bench/common/json_lines.h"

namespace faiss_gmm::bench {

nlohmann::ordered_json to_json(const SearchReport& report, const SearchRow& row) {
    nlohmann::ordered_json parameters = row.parameters;
    parameters["metric"] = report.metric;
    parameters["lists_asked"] =
            row.setting.lists; // 0: by the index's rule; "lists" is what came of it
    parameters["batch"] = batch_size;
    parameters["rounds"] = timing_rounds;
    parameters["build_threads"] = report.build_threads;
    const Environment& environment = report.environment;
    return {
            {"index", row.index},
            {"nprobe", row.setting.nprobe},
            {"lists", row.counts.lists},
            {"k_factor", row.setting.k_factor},
            {"parameters", parameters},
            {"dataset", report.dataset},
            {"n", report.n},
            {"d", report.d},
            {"nq", report.nq},
            {"k", neighbours},
            {"recall_at_10", row.recall},
            {"ndis", row.counts.ndis},
            {"nvisited", row.counts.nvisited},
            {"nscored", row.counts.nscored},
            {"bytes_read", row.counts.bytes_read},
            {"qps", row.qps},
            {"p50_us", row.p50_us},
            {"p99_us", row.p99_us},
            {"threads", report.threads},
            {"train_s", row.build.train_s},
            {"add_s", row.build.add_s},
            {"split_s", row.build.split_s},
            {"sketch_s", row.build.sketch_s},
            {"bytes_per_vector", row.build.bytes_per_vector},
            {"faiss_version", environment.faiss_version},
            {"simd", environment.simd},
            {"faiss_simd", environment.faiss_simd},
            {"cpu", environment.cpu},
            {"git_commit", environment.git_commit},
            {"date", environment.date},
    };
}

std::string json_lines(const SearchReport& report) {
    std::string lines;
    for (const SearchRow& row : report.rows) {
        lines += to_json(report, row).dump() + '\n';
    }
    return lines;
}

} // namespace faiss_gmm::bench
