// The run folder, metrics.jsonl and what the terminal and log.txt are told.

#include "train/reporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <cstdlib>
#include <future>
#include <set>
#include <thread>

#include "support/paths.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::EndsWith;

Json line(int64_t step, const char* split) { return Json::object().set("step", step).set("split", split); }

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

TEST(MetricsFile, RewindingDropsLaterStepsTheDoneEventAndATornLine) {
  const test::TemporaryFolder root;
  const std::string kept =
      "{\"step\":0,\"split\":\"eval\"}\n{\"step\":1,\"split\":\"train\"}\n{\"step\":2,\"split\":\"train\"}\n{\"step\":2,\"split\":\"eval\"}\n";
  test::write_file(root / "m",
                   kept + "{\"step\":3,\"split\":\"train\"}\n{\"event\":\"done\",\"step\":2}\n{\"step\":2,\"spl");
  MetricsFile(root / "m").rewind(2);
  EXPECT_EQ(test::read_file(root / "m"), kept);
}

TEST(MetricsFile, BlankLinesDoNotCount) {
  const test::TemporaryFolder root;
  test::write_file(root / "m", "\n{\"step\":0,\"split\":\"eval\"}\n  \r\n{\"step\":1,\"split\":\"train\"}\n\n");
  EXPECT_EQ(MetricsFile(root / "m").lines().size(), 2u);
}

TEST(MetricsFile, ALineTornInsideIsNamedWithItsCure) {
  for (const std::string torn : {"{\"step\":1,\"spl", "7", "{\"step\":\"one\"}", "\x01"}) {
    const test::TemporaryFolder root;
    const fs::path file = root / "m";
    test::write_file(file, "{\"step\":0,\"split\":\"eval\"}\n" + torn + "\n{\"step\":2,\"split\":\"train\"}\n");
    std::string message;
    try {
      MetricsFile(file).rewind(2);
    } catch (const UserError& error) {
      message = error.what();
    }
    EXPECT_EQ(message.rfind(file.string() + ":2: this line of metrics is damaged: ", 0), 0u) << message;
    const std::string cure = message.substr(message.rfind("sed "));
    ASSERT_EQ(std::system(cure.c_str()), 0);
    EXPECT_EQ(MetricsFile(file).lines().size(), 2u);
  }
}

TEST(MetricsFile, RewindingToTheStartEmptiesItAndAnAbsentFileStaysAbsent) {
  const test::TemporaryFolder root;
  MetricsFile(root / "absent").rewind(7);
  EXPECT_FALSE(fs::exists(root / "absent"));
  MetricsFile metrics(root / "m");
  metrics.append(line(0, "eval"));
  metrics.rewind(-1);
  EXPECT_EQ(test::read_file(root / "m"), "");
}

TEST(MetricsFile, NumbersSurviveARewindToTheLastBit) {
  const test::TemporaryFolder root;
  MetricsFile metrics(root / "m");
  metrics.append(line(1, "train").set("loss", 0.1 + 0.2).set("tokens", int64_t{1} << 60));
  const std::string before = test::read_file(root / "m");
  metrics.rewind(1);
  EXPECT_EQ(test::read_file(root / "m"), before);
  EXPECT_EQ(metrics.lines().at(0).at("loss").as_number(), 0.1 + 0.2);
}

TEST(MetricsFile, IsDoneOnlyWhenTheLastLineSaysSo) {
  const test::TemporaryFolder root;
  MetricsFile metrics(root / "m");
  EXPECT_FALSE(metrics.done());
  metrics.append(line(1, "train"));
  EXPECT_FALSE(metrics.done());
  metrics.append(Json::object().set("event", "done").set("step", 1));
  ASSERT_TRUE(metrics.done());
  EXPECT_EQ(metrics.done()->at("step").as_integer(), 1);
  metrics.append(line(2, "train"));
  EXPECT_FALSE(metrics.done());
}

TEST(MetricsFile, AnUnwritableFileIsNamed) {
  const test::TemporaryFolder root;
  try {
    MetricsFile(root / "absent/m").append(line(1, "train"));
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()),
              (root / "absent/m").string() + ": cannot be written: No such file or directory");
  }
}

TEST(ProgressKind, FollowsTheRecipeAndIsNoneWhenQuiet) {
  const auto kind = [](const char* progress, bool quiet) {
    return progress_kind({.every = 1, .progress = progress}, quiet, false);
  };
  EXPECT_EQ(kind("live", false), Progress::live);
  EXPECT_EQ(kind("plain", false), Progress::plain);
  EXPECT_EQ(kind("none", false), Progress::none);
  EXPECT_EQ(kind("live", true), Progress::none);
}

TEST(ProgressKind, AutoIsPlainUnderALauncher) {
  EXPECT_EQ(progress_kind({.every = 1, .progress = "auto"}, false, true), Progress::plain);
}

TEST(Reporter, TheLogHasWhatWasSaidEvenWhenTheTerminalIsQuiet) {
  const test::TemporaryFolder root;
  const RunFolder run(root / "run", "auto");
  testing::internal::CaptureStdout();
  {
    Reporter report(&run, Progress::none);
    report.say("data: 3 rows");
    report.progress("step 1/2");
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(test::read_file(run / "log.txt"), "data: 3 rows\nstep 1/2\n");
}

TEST(Reporter, ALiveLineIsOverwrittenAndClosedBeforeOtherLines) {
  testing::internal::CaptureStdout();
  {
    Reporter report(nullptr, Progress::live);
    report.progress("step 1/2");
    report.progress("step 2/2");
    report.say("done");
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "\r\x1b[Kstep 1/2\r\x1b[Kstep 2/2\ndone\n");
}

TEST(Reporter, PlainProgressIsLines) {
  testing::internal::CaptureStdout();
  Reporter(nullptr, Progress::plain).progress("step 1/2");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "step 1/2\n");
}

TEST(Reporter, AContinuedRunAddsToItsLog) {
  const test::TemporaryFolder root;
  const RunFolder run(root / "run", "auto");
  Reporter(&run, Progress::none).say("first");
  Reporter(&run, Progress::none).say("second");
  EXPECT_THAT(test::read_file(run / "log.txt"), EndsWith("first\nsecond\n"));
}

TEST(Reporter, PeakMemoryIsInBytes) { EXPECT_GT(peak_rss_bytes(), 1 << 20); }

}  // namespace
}  // namespace tessera
