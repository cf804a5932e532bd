// The report of job = "compress", and what it says of a block that was trained in place of a run.

#include <gmock/gmock.h>

#include <iterator>
#include <random>
#include <sstream>

#include "cli/compress_runs.h"
#include "support/html.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Compress;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(Compress, ReportsThePointsThatItsFolderIsMeasuredToHave) {
  const test::Ended ended = expect_done(trainer(job("run")));
  EXPECT_THAT(ended.out, HasSubstr("\npoint       perplexity"));
  EXPECT_THAT(ended.out, HasSubstr("report: run/compress/report.html\n"));
  const Json report = json("run", "report.json");
  EXPECT_EQ(report.at("points").items().size(), 3u);
  EXPECT_EQ(report.at("similarity").items().size(), 7u);
  EXPECT_EQ(report.at("gates").at("theta").items().size(), 6u);
  EXPECT_EQ(report.at("corpus").at("rows").as_string(), "data.eval");
  EXPECT_EQ(test::html_fault(file("run", "report.html")), "");
  // Its commands are to be typed as they stand; each point has the loss that evaluation finds.
  const auto loss = [&](const Words& words) {
    const std::string out = expect_done(trainer(words)).out;
    const Json line = Json::parse(out.substr(out.find('{')), "evaluate");
    EXPECT_EQ(line.at("scored_tokens").as_integer(), report.at("corpus").at("tokens").as_integer());
    return line.at("loss").as_number();
  };
  std::vector<Words> commands;
  for (const Json& command : report.at("commands").items()) {
    std::istringstream typed(command.as_string());
    commands.emplace_back(std::istream_iterator<std::string>(typed), std::istream_iterator<std::string>());
    ASSERT_EQ(commands.back().front(), "trainer");
    commands.back().erase(commands.back().begin());
    expect_done(trainer(commands.back()));
  }
  EXPECT_EQ(loss(commands.at(1)), point("run", "shared").at("nll").as_number());
  EXPECT_EQ(loss({"lora.toml", "adapter.method=none", "job=evaluate", "run.dir=other"}),
            point("run", "original").at("nll").as_number());
  EXPECT_EQ(point("run", "shared").at("bytes_disk").as_integer(),
            static_cast<int64_t>(fs::file_size(*this / "run/sharing/fold.safetensors")));
  EXPECT_THAT(fault(job("run", {"fold.report_tokens=9"})), HasSubstr("fold.report_tokens was 0, now 9\n"));
}

TEST_F(Compress, OneTrainedBlockTakesThePlaceOfARunHoweverOftenItIsKilled) {
  const Words words = {"fold.selector=run", "fold.replace=both", "fold.replace_steps=25", "train.batch=4"};
  const test::Ended plan = expect_done(trainer(job("run", joined(words, {"--check"}))));
  EXPECT_THAT(plan.out, HasSubstr("\nstage replace"));
  const test::Ended ended = expect_done(trainer(job("straight", words)));
  EXPECT_THAT(stages("straight"), ElementsAre("probe", "remove", "replace", "group", "share", "report"));
  EXPECT_THAT(ended.out, HasSubstr("replace: the error is "));
  const auto run = numbers(json("straight", "removed.json").at("removed"));
  const int64_t first = json("straight", "replace.json").at("run").at("first").as_integer();
  EXPECT_EQ(static_cast<int64_t>(run.front()), first + 1);
  EXPECT_THAT(json("straight", "fold_plan.json").at("groups").dump(),
              HasSubstr("{\"blocks\":[" + std::to_string(first) + "],\"values\":\"trained\"}"));
  const Json saved = json("straight", "../sharing/sharing.json");
  EXPECT_EQ(saved.at("parameters").as_integer(), json("straight", "share.json").at("parameters_stored").as_integer());
  EXPECT_GT(saved.at("sharing").at("perplexity").at("replaced").as_number(), 1);
  std::mt19937 random(20261130);
  for (int kill = 0; kill < 6; ++kill) {
    test::Process process(trainer(job("run", joined(words, {"checkpoint.every=2"}))));
    test::sleep_seconds(0.02 * static_cast<double>(random() % 60));
    process.send(SIGKILL);
    process.wait();
  }
  expect_done(trainer(job("run", words)));
  for (const char* name : {"replace.json", "replace.safetensors", "fold_plan.json", "../sharing/fold.safetensors"})
    EXPECT_EQ(file("run", name), file("straight", name)) << name;
  EXPECT_THAT(fault(job("run", {"fold.selector=run"})), HasSubstr("fold.replace was \"both\", now \"none\"\n"));
  for (const char* parent : {"fold.parent=mean", "fold.parent=wmean"})  // the trained block is no group's mean
    expect_done(trainer(job(parent, {"fold.selector=run", "fold.replace=mse", "fold.replace_steps=2", parent})));
  expect_done(trainer(
      {"lora.toml", "adapter.method=none", "sharing.method=fold", "sharing.load=run", "job=evaluate", "run.dir=used"}));
}

/// Where no block shares, the folder holds the model of the point "replaced".
TEST_F(Compress, ThePointReplacedIsTheModelWithTheTrainedBlock) {
  const Words words = {"fold.selector=run",    "fold.replace=mse", "fold.replace_steps=20",
                       "fold.replace_lr=0.01", "train.batch=4",    "fold.group=1"};
  expect_done(trainer(job("run", words)));
  const Json report = json("run", "report.json");
  std::vector<std::string> names;
  for (const Json& found : report.at("points").items()) names.push_back(found.at("name").as_string());
  EXPECT_THAT(names, ElementsAre("original", "removed", "replaced"));
  const std::string out = expect_done(trainer({"lora.toml", "adapter.method=none", "sharing.method=fold",
                                               "sharing.load=run", "job=evaluate", "run.dir=used", "train.batch=4"}))
                              .out;
  const Json evaluated = Json::parse(out.substr(out.find('{')), "evaluate");
  const Json replaced = point("run", "replaced");
  EXPECT_EQ(evaluated.at("loss").as_number(), replaced.at("nll").as_number());
  EXPECT_NE(replaced.at("nll").as_number(), point("run", "removed").at("nll").as_number()) << "the block was trained";
  EXPECT_EQ(replaced.at("parameters_stored").as_integer(),
            point("run", "removed").at("parameters_stored").as_integer());
  EXPECT_EQ(replaced.at("layers_computed").as_integer(), 4);

  // Where blocks share, the point is the same model all the same.
  expect_done(
      trainer(job("shares", {"fold.selector=run", "fold.replace=mse", "fold.replace_steps=20", "fold.replace_lr=0.01",
                             "train.batch=4", "fold.keep_head=0", "fold.keep_tail=0"})));
  EXPECT_EQ(point("shares", "replaced").at("nll").as_number(), replaced.at("nll").as_number());
  EXPECT_NE(point("shares", "shared").at("nll").as_number(), replaced.at("nll").as_number());
}

}  // namespace
}  // namespace tessera
