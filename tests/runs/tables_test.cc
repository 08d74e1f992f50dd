// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// Tables of a query against the definition in double precision, on every target of the machine.
#include "faiss_gmm/runs/tables.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "tests/seed.h"

namespace faiss_gmm {
namespace {

/// Calls check() with each target that this machine has as the only one.
template <class Check> void on_every_target(Check check) {
    for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
        const int64_t target = targets & -targets;
        SCOPED_TRACE(hwy::TargetName(target));
        hwy::SetSupportedTargetsForTest(target);
        hwy::GetChosenTarget().Update(target);
        check();
        hwy::SetSupportedTargetsForTest(0);
        hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    }
}

TEST(Tables, HoldProductsAboveTheirLeast) {
    std::mt19937_64 random(test_seed());
    std::normal_distribution<float> normal;
    for (const size_t codes : {1, 4, 5, 96}) {
        std::vector<float> y(2 * codes), centroids(codes * table_entries * 2);
        std::generate(y.begin(), y.end(), [&] { return normal(random); });
        std::generate(centroids.begin(), centroids.end(), [&] { return normal(random); });
        y[0] = 0; // one dimension that says nothing
        on_every_target([&] {
            std::vector<float> tables(codes * table_entries + 1, -7);
            const float widest = unscaled_tables(codes, y.data(), centroids.data(), tables.data());
            EXPECT_EQ(tables.back(), -7) << "written past the end";
            EXPECT_EQ(widest, *std::max_element(tables.begin(), tables.end() - 1));
            for (size_t m = 0; m < codes; m++) {
                double exact[table_entries];
                for (size_t j = 0; j < table_entries; j++) {
                    const float* c = centroids.data() + (m * table_entries + j) * 2;
                    exact[j] = static_cast<double>(y[2 * m]) * c[0] +
                               static_cast<double>(y[2 * m + 1]) * c[1];
                }
                const double least = *std::min_element(exact, exact + table_entries);
                for (size_t j = 0; j < table_entries; j++) {
                    ASSERT_NEAR(tables[m * table_entries + j], exact[j] - least, 1e-5);
                    ASSERT_GE(tables[m * table_entries + j], 0);
                }
            }
        });
    }
}

TEST(Tables, AreRoundedAndCapped) {
    std::mt19937_64 random(test_seed());
    std::uniform_real_distribution<float> uniform(0, 100);
    std::vector<float> values(7 * table_entries);
    std::generate(values.begin(), values.end(), [&] { return uniform(random); });
    values[0] = 0;
    values[1] = 1e30f; // far past what an integer holds
    for (const float scale : {0.0f, 0.1f, 1.0f, 3.7f}) {
        on_every_target([&] {
            std::vector<uint8_t> tables(values.size() + 1, 99);
            scale_tables(values.size(), values.data(), scale, tables.data());
            EXPECT_EQ(tables.back(), 99) << "written past the end";
            for (size_t i = 0; i < values.size(); i++) {
                const double wanted = std::min<double>(largest_entry, values[i] * double{scale});
                ASSERT_NEAR(tables[i], wanted, 0.5 + 1e-4) << values[i] << " * " << scale;
            }
        });
    }
}

} // namespace
} // namespace faiss_gmm
