// Stops of what a run does beside its steps, and of the other jobs: nothing half done is left.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "cli/stops.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Stops;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(Stops, TheJobsThatPrepareEvaluateAndGenerateLeaveToo) {
  expect_done(trainer({"mos.toml", "train.steps=2", "run.dir=run"}));
  repeat("train.jsonl", 1000);
  repeat("eval.jsonl", 3000);
  const auto expect_left = [&](const Words& words, const std::function<bool()>& moment,
                               const testing::Matcher<std::string>& end =
                                   EndsWith("; the same command starts again\n")) {
    const test::Ended ended = stop(trainer(words), SIGTERM, moment, 5);
    EXPECT_THAT(ended.err, end) << words.back();
    EXPECT_EQ(ended.out, "") << words.back();
  };
  const auto after = [](double seconds) {
    test::sleep_seconds(seconds);
    return true;
  };
  const auto files_in = [&](const std::string& folder) {
    return fs::exists(*this / folder) ? std::distance(fs::directory_iterator(*this / folder), {}) : 0;
  };
  expect_left({"mos.toml", "run.dir=next", "data.cache=cache", "job=prepare"}, [&] { return after(0.3); });
  expect_left({"mos.toml", "run.dir=next", "data.cache=cache", "--show-batch"}, [&] { return after(0.3); });
  EXPECT_EQ(files_in("cache"), 0);
  const Words evaluate = {"mos.toml", "run.dir=run", "data.cache=cache", "job=evaluate", "train.micro_batch=1"};
  expect_left(evaluate, [&] { return files_in("cache") == 1 && after(0.3); });
  const fs::path samples = *this / "run/samples.jsonl";
  expect_left(
      {"mos.toml", "run.dir=run", "job=generate", "generate.max_new_tokens=400"}, [&] { return after(0.5); },
      testing::AnyOf(EndsWith("stopped while planning; the same command starts again\n"),
                     EndsWith("requests are answered; the same command goes on\n")));
  EXPECT_FALSE(fs::exists(samples));
  EXPECT_THAT(temporaries("run"), IsEmpty());
}

TEST_F(Stops, TrainingLeavesThePreparationOfData) {
  repeat("train.jsonl", 1000);
  const auto command = trainer({"mos.toml", "train.steps=2", "run.dir=run", "data.cache=cache"});
  const test::Ended ended = stop(command, SIGTERM, [&] {
    const bool has_begun = fs::exists(*this / "run/.lock");
    if (has_begun) test::sleep_seconds(0.2);
    return has_begun;
  });
  EXPECT_EQ(ended.err, "stopped while preparing data; the same command starts again\n");
  expect_done(command);
}

TEST_F(Stops, AnExportIsLeftWithoutAFolderAndMadeByTheSameCommand) {
  widen(256, 2048);  // 14 MB
  const auto command = [&](const std::string& job) {
    return trainer({"mos.toml", "job=" + job, "train.steps=1", "train.batch=1", "data.eval=", "export.merged=true",
                    "run.dir=run"});
  };
  const auto is_writing = [&] {
    const auto names = [](const fs::path& folder) {
      std::vector<std::string> all;
      std::error_code gone;
      for (const auto& entry : fs::directory_iterator(folder, gone)) all.push_back(entry.path().filename().string());
      return all;
    };
    for (const std::string& name : names(*this / "run"))
      if (name.rfind(".model.tmp-", 0) == 0)
        for (const std::string& file : names(*this / "run" / name))
          if (file.find("model.safetensors") != std::string::npos) return true;
    return false;
  };
  std::set<std::string> adapters, models;
  for (const std::string job : {"train", "export"}) {
    test::Process process(command(job));
    ASSERT_TRUE(hold(process, is_writing)) << process.wait().err;
    process.send(SIGTERM);
    process.send(SIGCONT);
    const test::Ended ended = process.wait();
    EXPECT_EQ(ended.exit_code, 130) << ended.out << ended.err;
    EXPECT_THAT(ended.err, testing::EndsWith(std::string("stopped while exporting; the same command ") +
                                             (job == "train" ? "goes on\n" : "starts again\n")));
    EXPECT_FALSE(fs::exists(*this / "run/model"));
    EXPECT_THAT(temporaries("run"), IsEmpty());
    EXPECT_EQ(newest_checkpoint("run"), 1);
    adapters.insert(test::read_file(*this / "run/adapter/mos.safetensors"));
    expect_done(command(job));
    adapters.insert(test::read_file(*this / "run/adapter/mos.safetensors"));
    models.insert(test::read_file(*this / "run/model/model.safetensors"));
    fs::remove_all(*this / "run/model");
  }
  EXPECT_EQ(adapters.size(), 1u) << "it is as it was trained, before and after";
  EXPECT_EQ(models.size(), 1u) << "both jobs export the same";
}

TEST_F(Stops, DataThatAreCutShortWhileTheyAreReadAreToldAndNothingIsKept) {
  repeat("train.jsonl", 3000);
  const Words words = {"mos.toml", "job=prepare", "data.cache=cache", "run.dir=run"};
  test::Process process(trainer(words));
  ASSERT_TRUE(hold(process, [&] {
    return holds("/proc/" + std::to_string(process.pid()) + "/maps", (*this / "train.jsonl").string());
  }));
  fs::resize_file(*this / "train.jsonl", 100);
  process.send(SIGCONT);
  const test::Ended ended = process.wait();
  EXPECT_EQ(ended.exit_code, 2);
  EXPECT_THAT(ended.err, HasSubstr("a file that was mapped into memory was cut short"));
  EXPECT_FALSE(fs::exists(*this / "cache"));
}

TEST_F(Stops, AReplayIsLeft) {
  expect_done(trainer({"spsa.toml", "train.steps=800", "spsa.probes=64", "train.batch=1", "log.every=500",
                       "train.sequence_length=16", "checkpoint.every=0", "spsa.digest_every=100000", "run.dir=run"}));
  const Words words = {"spsa.toml", "train.steps=800", "spsa.probes=64", "job=replay", "run.dir=run", "run.threads=1"};
  test::Process process(trainer(words));
  const auto is_reading_the_log = [&] {
    std::error_code gone;
    for (const auto& file : fs::directory_iterator("/proc/" + std::to_string(process.pid()) + "/fd", gone))
      if (fs::read_symlink(file, gone).extension() == ".tsb") return true;
    return false;
  };
  ASSERT_TRUE(hold(process, is_reading_the_log)) << process.wait().err;
  process.send(SIGTERM);
  process.send(SIGCONT);
  const test::Ended ended = process.wait();
  EXPECT_EQ(ended.exit_code, 130) << ended.err;
  EXPECT_EQ(ended.err, "stopped while replaying; the same command starts again\n");
  EXPECT_EQ(ended.out, "");
  expect_done(trainer(words));
}

}  // namespace
}  // namespace tessera
