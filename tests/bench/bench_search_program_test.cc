// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// The program as a user runs it: what goes where, and exit codes.
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "tests/bench/reports.h"
#include "tests/datasets/files.h"

using namespace faiss_gmm;
using namespace faiss_gmm::test;

namespace {

struct Outcome {
    int code;
    std::string out, err;
};

std::string text_of(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

Outcome
run(const TemporaryFolder& folder,
    const std::string& arguments,
    const std::string& program = BENCH_SEARCH) {
    const std::string out = folder.path() + "/stdout", err = folder.path() + "/stderr";
    const int status = std::system(
            ("'" + program + "' " + arguments + " >'" + out + "' 2>'" + err + "'").c_str());
    return {WEXITSTATUS(status), text_of(out), text_of(err)};
}

void write_set(const TemporaryFolder& folder) {
    const Dataset set = synthetic_set(1000, 20, 8);
    folder.write("base.fvecs", texmex(8, set.base));
    folder.write("query.fbin", big_ann(20, 8, set.query));
    folder.write("gt.ibin", big_ann(20, 10, set.truth.ids) + bytes_of(set.truth.distances));
}

} // namespace

TEST(BenchSearchProgram, WritesResultsAndPicture) {
    const TemporaryFolder folder;
    write_set(folder);
    const Outcome outcome =
            run(folder,
                folder.path() + " --metric l2 --index IVF8,Flat IVF4,SQ8 --nprobe 1,4 --threads 1" +
                        " --json " + folder.path() + "/o.jsonl --plot " + folder.path() + "/o.svg");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("recall@10"), std::string::npos);
    EXPECT_EQ(outcome.err, ""); // no progress where nobody watches
    std::ifstream lines(folder.path() + "/o.jsonl");
    size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
        EXPECT_EQ(nlohmann::json::parse(line)["n"], 1000);
    }
    EXPECT_EQ(count, 4u);
    EXPECT_EQ(text_of(folder.path() + "/o.svg").rfind("<svg ", 0), 0u);
}

TEST(BenchSearchProgram, JsonAloneGoesToStdout) {
    const TemporaryFolder folder;
    write_set(folder);
    const Outcome outcome =
            run(folder,
                folder.path() +
                        " --metric cosine-ip --index IVF8,Flat --nprobe 2 --max-rows 500 --json -");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    const auto json = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(json["n"], 500);
    EXPECT_EQ(json["parameters"]["metric"], "cosine-ip");
    EXPECT_NE(outcome.err.find("recall@10"), std::string::npos);
}

TEST(BenchSearchProgram, ExitCodes) {
    const TemporaryFolder folder;
    EXPECT_EQ(run(folder, "--help").code, 0);
    EXPECT_NE(run(folder, "--help").out.find("Example: bench_search"), std::string::npos);
    EXPECT_EQ(run(folder, "").code, 2);
    EXPECT_EQ(run(folder, folder.path() + " --metric angular --index IVF8,Flat").code, 2);
    EXPECT_EQ(run(folder, folder.path() + " --metric l2").code, 2);
    EXPECT_EQ(run(folder, folder.path() + " --metric l2 --index IVF8,Flat --nprobe 0").code, 2);
    EXPECT_EQ(run(folder, folder.path() + "/none --metric l2 --index IVF8,Flat").code, 2);
    const Outcome empty = run(folder, folder.path() + " --metric l2 --index IVF8,Flat");
    EXPECT_EQ(empty.code, 1);
    EXPECT_NE(empty.err.find("no base.*"), std::string::npos);
    write_set(folder);
    EXPECT_EQ(run(folder, folder.path() + " --metric l2 --index IVF8,Nonsense").code, 1);
    EXPECT_EQ(
            run(folder, folder.path() + " --index IVF8,Flat").code,
            2); // no metric is safe to guess
}

TEST(BenchSearchProgram, RefusesPathsBeforeItMeasures) {
    const TemporaryFolder folder;
    write_set(folder);
    for (const char* option : {"--json", "--plot"}) {
        for (const std::string& path : {folder.path() + "/none/o", folder.path()}) {
            const Outcome outcome =
                    run(folder,
                        folder.path() + " --metric l2 --index IVF8,Flat " + option + " " + path);
            EXPECT_EQ(outcome.code, 1);
            EXPECT_NE(outcome.err.find("writing '" + path + "'"), std::string::npos) << outcome.err;
            EXPECT_EQ(outcome.out, ""); // nothing was measured
        }
    }
}

TEST(BenchTuneProgram, TunesToEachTargetAndRefusesWhatItCannotTune) {
    const TemporaryFolder folder;
    write_set(folder);
    const auto tune = [&](const std::string& arguments) {
        return run(folder, folder.path() + " --metric l2 --index " + arguments, BENCH_TUNE);
    };
    for (const char* own : {"", " --own"}) {
        const Outcome outcome = tune(std::string("IVFGMM8,Flat --recall .5,1") + own);
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        EXPECT_NE(outcome.out.find("recall, other half"), std::string::npos);
        EXPECT_NE(outcome.out.find("\n0.5 "), std::string::npos) << outcome.out;
        EXPECT_NE(outcome.out.find("\n1 "), std::string::npos) << outcome.out;
    }
    EXPECT_EQ(tune("IVFGMM8,Flat --recall 1.5").code, 1);
    const Outcome stock = tune("IVF8,Flat");
    EXPECT_EQ(stock.code, 1);
    EXPECT_NE(stock.err.find("'IVF8,Flat'"), std::string::npos) << stock.err;
    EXPECT_EQ(tune("").code, 2);
}

TEST(DemoProgram, ExplainsItselfAndRefusesWhatItDoesNotKnow) {
    const TemporaryFolder folder;
    const auto demo = [&](const std::string& arguments) { return run(folder, arguments, DEMO); };
    EXPECT_EQ(demo("--help").code, 0);
    EXPECT_NE(demo("--help").out.find("--plot"), std::string::npos);
    EXPECT_EQ(demo("--what").code, 2);
    const Outcome nowhere = demo("--plot " + folder.path() + "/none/demo.svg");
    EXPECT_EQ(nowhere.code, 1);
    EXPECT_NE(nowhere.err.find("writing '"), std::string::npos);
}
