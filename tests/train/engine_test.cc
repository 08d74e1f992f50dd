// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Which engine is taken, with and without CUDA in the build and a GPU in the machine.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "faiss_gmm/mixture/error.h"
#include "faiss_gmm/train/engine.h"
#include "faiss_gmm/train/gmm_trainer.h"
#include "tests/train/random_data.h"

namespace faiss_gmm {
namespace {

TEST(Engine, TheCpuIsAlwaysThere) {
    EngineParameters parameters;
    parameters.kind = EngineKind::cpu;
    EXPECT_NE(make_engine(parameters, {Covariance::full, 3, 2}), nullptr);
}

TEST(Engine, AutomaticAlwaysFindsOne) {
    std::vector<std::string> notes;
    EngineParameters parameters;
    parameters.device = 1000; // no machine has it
    parameters.note = [&](const std::string& text) { notes.push_back(text); };
    EXPECT_NE(make_engine(parameters, {Covariance::tied, 3, 2}), nullptr);
    EXPECT_NE(make_engine(parameters, {Covariance::tied, 3, 100000}), nullptr);
    ASSERT_EQ(notes.size(), built_with_cuda() ? 2u : 0u);
    if (built_with_cuda()) {
        EXPECT_NE(notes[0].find("found "), std::string::npos) << notes[0];
        EXPECT_NE(notes[0].find("; needed "), std::string::npos) << notes[0];
        EXPECT_NE(notes[1].find("given K = 3 comp"), std::string::npos) << notes[1];
        EXPECT_NE(notes[1].find("takes all covariances; K up to"), std::string::npos) << notes[1];
    }
    EXPECT_NE(make_engine({}, {Covariance::tied_spherical, 3, 2}), nullptr);
}

TEST(Engine, AutomaticGoesOnAfterAGpuWithTooLittleMemory) {
    std::vector<std::string> notes;
    EngineParameters parameters;
    parameters.note = [&](const std::string& text) { notes.push_back(text); };
    const OutOfMemory error({"reserving", "12 bytes", "what is free", "free some"});
    EXPECT_NE(make_engine_after(error, parameters), nullptr);
    ASSERT_EQ(notes.size(), 1u);
    EXPECT_NE(notes[0].find("12 bytes"), std::string::npos) << notes[0];
    parameters.note = nullptr;
    EXPECT_NE(make_engine_after(error, parameters), nullptr);
    parameters.kind = EngineKind::cuda; // asked for by name
    EXPECT_THROW(make_engine_after(error, parameters), OutOfMemory);
}

TEST(Engine, CudaIsTakenOrRefusedInWords) {
    EngineParameters parameters;
    parameters.kind = EngineKind::cuda;
    parameters.device = 1000; // no machine has it
    try {
        make_engine(parameters, {Covariance::tied_spherical, 3, 2});
        FAIL() << "expected an error";
    } catch (const Error& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find("given"), std::string::npos) << text;
        EXPECT_NE(text.find("engine=cpu"), std::string::npos) << text;
        EXPECT_EQ(text.find("build without CUDA") == std::string::npos, built_with_cuda()) << text;
    }
}

TEST(Engine, TrainingSaysSoAtTrainOnly) {
    TrainingParameters parameters;
    parameters.engine = EngineKind::cuda;
    parameters.device = 1000;
    const GMMTrainer trainer(parameters); // no error yet
    const auto mixture = testing::random_mixture(Covariance::tied_spherical, 4, 3, 2.0, 0, 1);
    const auto x = testing::draw(mixture, 400, 2);
    EXPECT_THROW(trainer.train(4, 400, 3, x.data()), Error);
    parameters.engine = EngineKind::automatic;
    EXPECT_EQ(GMMTrainer(parameters).train(4, 400, 3, x.data()).mixture.K, 4u);
}

} // namespace
} // namespace faiss_gmm
