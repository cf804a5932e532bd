// The run folder: who holds it, who waits, and what becomes of it.

#include "train/run_folder.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <future>
#include <set>
#include <thread>

#include "core/error.h"
#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

std::string refusal(const fs::path& folder, const std::string& resume) {
  try {
    const RunFolder run(folder, resume, {}, 0ms);
  } catch (const UserError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(RunFolder, IsMadeWithItsParents) {
  const test::TemporaryFolder root;
  const RunFolder run(root / "a/b/run", "auto");
  EXPECT_TRUE(fs::is_directory(root / "a/b/run"));
  EXPECT_EQ(run / "log.txt", root / "a/b/run/log.txt");
}

TEST(RunFolder, ASecondHolderIsRefused) {
  const test::TemporaryFolder root;
  const RunFolder run(root / "run", "auto");
  EXPECT_EQ(refusal(root / "run", "auto"),
            (root / "run").string() +
                ": another process is using this run folder\n  wait for it to end, or set run.dir to another folder");
}

TEST(RunFolder, ThatItWaitsIsSaidAtOnce) {
  const test::TemporaryFolder root;
  const RunFolder run(root / "run", "auto");
  std::vector<std::string> said;
  EXPECT_THROW(RunFolder(
                   root / "run", "auto", [&](const std::string& line) { said.push_back(line); }, 1s),
               UserError);
  EXPECT_EQ(said, std::vector{(root / "run").string() +
                              ": another process is using this run folder: waiting up to 1 s for it to end"});
}

TEST(RunFolder, WhatAnErrorLeftEmptyIsGoneAgain) {
  const test::TemporaryFolder root;
  const auto start = [&](const std::string& file) {
    try {
      const RunFolder run(root / "run", "auto");
      if (!file.empty()) test::write_file(run / file, "");
      throw UserError("", "an error");
    } catch (const UserError&) {
    }
  };
  start("");
  EXPECT_FALSE(fs::exists(root / "run"));
  start("log.txt");
  EXPECT_TRUE(fs::exists(root / "run/log.txt"));
  fs::remove(root / "run/log.txt");
  start("");  // of someone else's
  EXPECT_TRUE(fs::exists(root / "run/.lock"));
}

TEST(RunFolder, WhoWaitedForAFolderThatIsGoneMakesItAnew) {
  const test::TemporaryFolder root;
  std::thread second;
  try {
    const RunFolder first(root / "run", "auto");
    std::promise<void> waits;
    second = std::thread([&] {
      const RunFolder run(
          root / "run", "auto", [&](const std::string&) { waits.set_value(); }, 60s);
      EXPECT_TRUE(fs::exists(root / "run/.lock"));
    });
    waits.get_future().wait();
    throw UserError("", "an error");
  } catch (const UserError&) {
  }
  second.join();
}

TEST(RunFolder, IsFreeAgainWhenItsHolderEnds) {
  const test::TemporaryFolder root;
  { const RunFolder run(root / "run", "auto"); }
  EXPECT_EQ(refusal(root / "run", "auto"), "nothing was thrown");
}

TEST(RunFolder, WaitsForAHolderThatIsEnding) {
  const test::TemporaryFolder root;
  auto first = std::make_unique<RunFolder>(root / "run", "auto");
  std::thread ending([&] { first.reset(); });
  EXPECT_NO_THROW(RunFolder(root / "run", "auto", {}, 60s));
  ending.join();
}

TEST(RunFolder, NeverResumingTakesTheNextFreeNumber) {
  const test::TemporaryFolder root;
  for (const char* expected : {"run", "run-2", "run-3"})
    EXPECT_EQ(RunFolder(root / "run", "never").path(), root / expected);
  EXPECT_EQ(RunFolder(root / "run", "somewhere/step-00000010.h5").path(), root / "run-4");
  fs::remove_all(root / "run-2");
  EXPECT_EQ(RunFolder(root / "run", "never").path(), root / "run-2");
  EXPECT_EQ(RunFolder(root / "run", "auto").path(), root / "run");
}

TEST(RunFolder, APlaceThatCannotHoldItIsNamed) {
  const test::TemporaryFolder root;
  test::write_file(root / "file", "");
  EXPECT_EQ(
      refusal(root / "file/run", "auto"),
      (root / "file/run").string() +
          ": this run folder cannot be made or written: Not a directory\n  set run.dir to a folder that can be written");
  fs::create_directories(root / "run/.lock");
  EXPECT_EQ(
      refusal(root / "run", "auto"),
      (root / "run").string() +
          ": this run folder cannot be made or written: .lock cannot be created: Is a directory\n  set run.dir to a folder that can be written");
}

TEST(RunFolder, StartedSeveralTimesAtOnceEachTakesItsOwn) {
  const test::TemporaryFolder root;
  std::vector<std::unique_ptr<RunFolder>> runs(12);
  std::vector<std::thread> starts;
  for (auto& run : runs) starts.emplace_back([&] { run = std::make_unique<RunFolder>(root / "a/run/", "never"); });
  for (std::thread& start : starts) start.join();
  std::set<std::string> names;
  for (const auto& run : runs) names.insert(run->path().filename().string());
  EXPECT_EQ(names.size(), runs.size());
  EXPECT_EQ(names.count("run"), 1u);
  EXPECT_EQ(names.count("run-12"), 1u);
}

TEST(RunFolder, TheLockHasTheModeThatTheUmaskLeaves) {
  const test::TemporaryFolder root;
  const mode_t before = umask(002);
  const RunFolder run(root / "run", "auto");
  umask(before);
  struct stat status {};
  ASSERT_EQ(stat((root / "run/.lock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0664u);
}

TEST(RunFolder, LosesTheTemporariesOfAKilledRun) {
  const test::TemporaryFolder root;
  fs::create_directories(root / "run/checkpoints");
  for (const char* name :
       {"run/.report.html.tmp-17", "run/checkpoints/.step-00000003.h5.tmp-17", "run/checkpoints/step-00000002.h5"})
    test::write_file(root / name, "x");
  const RunFolder run(root / "run", "auto");
  EXPECT_FALSE(fs::exists(root / "run/.report.html.tmp-17"));
  EXPECT_FALSE(fs::exists(root / "run/checkpoints/.step-00000003.h5.tmp-17"));
  EXPECT_TRUE(fs::exists(root / "run/checkpoints/step-00000002.h5"));
}

}  // namespace
}  // namespace tessera
