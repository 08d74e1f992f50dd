// SPDX-License-Identifier: MIT
// Copyright (c) 2026 the faiss_gmm authors
//
// A file that was there stays until the new one is whole: failures at every byte, kills, a full disk, folders that
// may not be written to.
#include <csignal>
#include <cstdlib>
#include <stdexcept>

#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "faiss_gmm/io/atomic_file.h"
#include "io_fixture.h"

namespace faiss_gmm {
namespace {

std::unique_ptr<IndexIVFGMMFlat> small_index() {
    IndexSetup setup;
    setup.d = 4;
    setup.nlist = 4;
    return filled(setup, 600, 40);
}

/// Passes on `most` bytes, then does something else.
struct LimitedWriter : faiss::IOWriter {
    LimitedWriter(faiss::IOWriter& behind, size_t limit, std::function<void()> end)
            : out(behind), most(limit), at_end(std::move(end)) {}
    size_t operator()(const void* bytes, size_t size, size_t n) override {
        const size_t now = std::min(most, size * n);
        out(bytes, 1, now);
        most -= now;
        if (now < size * n) {
            at_end();
            return 0;
        }
        return n;
    }
    faiss::IOWriter& out;
    size_t most;
    std::function<void()> at_end;
};

const Bytes before{'b', 'e', 'f', 'o', 'r', 'e'};

TEST(AtomicFile, KeepsWhatWasThereWhereWritingThrowsAtAnyByte) {
    const auto index = small_index();
    const Folder folder;
    const std::string path = folder.file("index");
    put(path, before);
    const size_t whole = stock_bytes(*index).size() + 24;
    for (size_t most = 0; most < whole; most++) {
        EXPECT_THROW(
                {
                    AtomicFile file(path);
                    LimitedWriter writer(file, most, [] { throw std::runtime_error("the end"); });
                    write_index(*index, writer);
                    file.commit();
                },
                std::runtime_error);
        ASSERT_EQ(contents(path), before);
        ASSERT_EQ(folder.files(), std::vector<std::string>{"index"});
    }
}

TEST(AtomicFile, AWriterThatTakesLessIsAnError) {
    const auto index = small_index();
    const size_t whole = stock_bytes(*index).size() + 24;
    for (size_t most = 0; most < whole; most += 7) {
        faiss::VectorIOWriter memory;
        LimitedWriter writer(memory, most, [] {});
        EXPECT_NE(refusal([&] { write_index(*index, writer); }), "") << most << " bytes";
    }
}

TEST(AtomicFile, KeepsWhatWasThereWhereTheProcessIsKilled) {
    const auto index = small_index();
    const Folder folder;
    const std::string path = folder.file("index");
    put(path, before);
    const size_t whole = stock_bytes(*index).size() + 24;
    for (size_t most = 0; most < whole; most += whole / 10) {
        const pid_t child = fork();
        if (child == 0) {
            AtomicFile file(path);
            LimitedWriter writer(file, most, [] { std::_Exit(7); });
            write_index(*index, writer);
            std::_Exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        ASSERT_TRUE(WIFEXITED(status));
        ASSERT_EQ(WEXITSTATUS(status), 7);
        ASSERT_EQ(contents(path), before);
    }
    write_index(*index, path); // what the killed left behind is in nobody's way
    const std::unique_ptr<faiss::Index> read(read_index(path));
    EXPECT_EQ(stock_bytes(*read), stock_bytes(*index));
}

TEST(AtomicFile, KeepsWhatWasThereOnAFullDisk) {
    const auto index = small_index();
    const Folder folder;
    const std::string path = folder.file("index");
    put(path, before);
    rlimit usual;
    getrlimit(RLIMIT_FSIZE, &usual);
    const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit little{1000, usual.rlim_max};
    setrlimit(RLIMIT_FSIZE, &little);
    const std::string message = refusal([&] { write_index(*index, path); });
    setrlimit(RLIMIT_FSIZE, &usual);
    std::signal(SIGXFSZ, ignored);
    expect_four_parts(message, "at byte 1000 of " + path);
    EXPECT_EQ(contents(path), before);
    EXPECT_EQ(folder.files(), std::vector<std::string>{"index"});
}

TEST(AtomicFile, NamesAFolderThatMayNotBeWrittenTo) {
    const auto index = small_index();
    const Folder folder;
    const std::string missing = folder.file("none/index");
    expect_four_parts(refusal([&] { write_index(*index, missing); }), "No such file");
    const std::string in_proc = "/proc/faiss_gmm_index"; // read-only for root too
    expect_four_parts(refusal([&] { write_index(*index, in_proc); }), in_proc);
    expect_four_parts(refusal([&] { write_index(*index, folder.path()); }), "no ordinary file");
    if (geteuid() == 0) {
        return; // root writes everywhere
    }
    std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_read);
    expect_four_parts(
            refusal([&] { write_index(*index, folder.file("index")); }), "Permission denied");
}

TEST(AtomicFile, KeepsPermissionsAndLinks) {
    const Folder folder;
    const std::string path = folder.file("index"), link = folder.file("link");
    put(path, before);
    ::chmod(path.c_str(), 0640);
    std::filesystem::create_symlink(path, link);
    AtomicFile file(link);
    file("after", 1, 5);
    EXPECT_EQ(contents(link), before);
    file.commit();
    EXPECT_EQ(contents(path), Bytes({'a', 'f', 't', 'e', 'r'}));
    EXPECT_TRUE(std::filesystem::is_symlink(link));
    struct stat status;
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0640u);
}

TEST(AtomicFile, TakesMoreThanItsBuffer) {
    const Folder folder;
    Bytes bytes(5 << 20);
    std::mt19937 random(3);
    for (uint8_t& byte : bytes) {
        byte = static_cast<uint8_t>(random());
    }
    AtomicFile file(folder.file("large"));
    for (size_t first = 0, n = 1; first < bytes.size(); first += n, n = 2 * n + 1) {
        n = std::min(n, bytes.size() - first);
        file(bytes.data() + first, 1, n);
    }
    file.commit();
    EXPECT_EQ(contents(folder.file("large")), bytes);
}

} // namespace
} // namespace faiss_gmm
