// metrics.jsonl: lines that are added, and lines that a run which goes on takes back.

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/error.h"
#include "support/paths.h"
#include "train/run_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

Json line(int64_t step, const char* split) { return Json::object().set("step", step).set("split", split); }

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

}  // namespace
}  // namespace tessera
