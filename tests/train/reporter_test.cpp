// What the terminal and log.txt are told.

#include "train/reporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/paths.h"

namespace tessera {
namespace {

using ::testing::EndsWith;

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
