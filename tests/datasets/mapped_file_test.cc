// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
#include "datasets/mapped_file.h"

#include <utility>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/datasets/files.h"

using namespace faiss_gmm;
using namespace faiss_gmm::test;

TEST(MappedFile, HoldsTheBytes) {
    const TemporaryFolder folder;
    const MappedFile file(folder.write("a", "abc"));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.data()), file.size()), "abc");
}

TEST(MappedFile, Moves) {
    const TemporaryFolder folder;
    MappedFile file(folder.write("a", "abc"));
    MappedFile taken(std::move(file));
    EXPECT_EQ(taken.size(), 3u);
    MappedFile other(folder.write("b", "defgh"));
    other = std::move(taken);
    EXPECT_EQ(other.data()[0], 'a');
}

TEST(MappedFile, AnEmptyFileIsEmpty) {
    const TemporaryFolder folder;
    EXPECT_EQ(MappedFile(folder.write("a", "")).size(), 0u);
}

TEST(MappedFile, RefusesWhatIsNoReadableFile) {
    const TemporaryFolder folder;
    const std::string missing = folder.path() + "/missing";
    EXPECT_NE(error_of([&] { MappedFile file(missing); }).find(missing), std::string::npos);
    EXPECT_NE(error_of([&] { MappedFile file(folder.path()); }).find("folder"), std::string::npos);
    const std::string pipe = folder.path() + "/pipe";
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    EXPECT_NE(error_of([&] { MappedFile file(pipe); }).find("pipe"), std::string::npos);
}
