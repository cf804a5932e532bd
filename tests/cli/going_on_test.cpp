// Runs that go on elsewhere, longer, at another rate or under a newer program, and jobs that work with a checkpoint.

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "io/hdf5_file.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::ContainsRegex;
using testing::EndsWith;
using testing::HasSubstr;

class GoingOn : public test::Workbench {
 protected:
  /// A run of `steps` steps with a checkpoint every 2, all of them kept.
  void train(const std::string& run, int steps, const Words& more = {}, const std::string& recipe = "mos") {
    Words words = {recipe + ".toml",          "run.dir=" + run,    "train.steps=" + std::to_string(steps),
                   "checkpoint.every=2",      "checkpoint.keep=9", "evaluate.every=2",
                   "optimizer.warmup_steps=1"};
    expect_done(trainer(joined(words, more)));
  }
  /// The same, as if it had been stopped after step 4 of 8.
  void stopped_run(const std::string& run, const Words& more = {}, const std::string& recipe = "mos") {
    train(run, 8, more, recipe);
    for (const char* gone : {"checkpoints/step-00000006.h5", "checkpoints/step-00000008.h5", "adapter", "model"})
      fs::remove_all(*this / run / gone);
    forget_end(run);
  }
  Words words_of(const std::string& run, const std::string& recipe = "mos") {
    return {recipe + ".toml",    "run.dir=" + run,   "train.steps=8",           "checkpoint.every=2",
            "checkpoint.keep=9", "evaluate.every=2", "optimizer.warmup_steps=1"};
  }
  fs::path checkpoint(const std::string& run, int step) {
    return *this / run / ("checkpoints/step-0000000" + std::to_string(step) + ".h5");
  }
};

TEST_F(GoingOn, FoldersThatWereMovedOrAreReachedThroughALink) {
  for (const char* recipe : {"mos", "full"}) {
    const std::string name = recipe;
    train(name + "-straight", 8, {}, name);
    stopped_run(name + "-run", {}, name);
    const fs::path moved = *this / (name + "-moved");
    fs::create_directories(moved);
    for (const std::string& part :
         {name + "-run", std::string("base"), std::string("train.jsonl"), std::string("eval.jsonl"), name + ".toml"})
      fs::copy(*this / part, moved / part, fs::copy_options::recursive);
    auto there = trainer(words_of(name + "-run", name));
    there.folder = moved;
    EXPECT_THAT(expect_done(there).out, HasSubstr("going on from step 4 (step-00000004.h5)"));
    EXPECT_EQ(saved_bytes(name + "-moved/" + name + "-run"), saved_bytes(name + "-straight"));

    fs::create_directory_symlink(path(), *this / (name + "-link"));
    const std::string link = (*this / (name + "-link")).string();
    expect_done(trainer(joined(words_of(name + "-run", name),
                               {"data.train=" + link + "/train.jsonl", "model.path=" + link + "/base"})));
    EXPECT_EQ(saved_bytes(name + "-run"), saved_bytes(name + "-straight"));
  }
}

TEST_F(GoingOn, AnotherFolderWithOtherContentsIsRefused) {
  train("first", 2);
  stopped_run("run", {"adapter.load=first/adapter"});
  fs::copy(*this / "first/adapter", *this / "same");
  expect_done(trainer(joined(words_of("run"), {"adapter.load=same", "run.resume=run/checkpoints/step-00000004.h5"})));
  train("second", 4);
  EXPECT_THAT(fault(joined(words_of("run"), {"adapter.load=second/adapter"})),
              testing::AllOf(HasSubstr("this run cannot go on with another recipe\n  adapter.load was \""),
                             HasSubstr("what is there is not what the run began with")));
}

TEST_F(GoingOn, AFinishedRunTrainsLongerAndTellsTheRate) {
  train("straight", 8, {"optimizer.schedule=constant"});
  train("run", 4, {"optimizer.schedule=constant"});
  expect_done(trainer(joined(words_of("run"), {"optimizer.schedule=constant"})));
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
  EXPECT_EQ(timeless_metrics("run"), timeless_metrics("straight"));

  train("linear", 4);
  const test::Ended longer = expect_done(trainer(words_of("linear")));
  EXPECT_THAT(longer.out,
              ContainsRegex("train.steps was 4, now 8; the learning rate of step 5 is 0.00286, that of step "
                            "4 was 0.00167\n"));
  stopped_run("stopped");
  EXPECT_THAT(fault(joined(words_of("stopped"), {"train.steps=9"})), HasSubstr("train.steps was 8, now 9"));
}

TEST_F(GoingOn, AFinishedRunSaysThatItsFiguresAreOfOtherRows) {
  for (const std::string recipe : {"mos", "full", "spsa"}) {
    const Words words = {recipe + ".toml", "run.dir=" + recipe + "-run", "train.steps=10"};
    expect_done(trainer(words));
    EXPECT_EQ(expect_done(trainer(words)).err, "");
    const std::string note = "note: the printed figures are those of the finished run, of other held-out rows than";
    EXPECT_THAT(expect_done(trainer(joined(words, {"data.eval=train.jsonl"}))).err, HasSubstr(note));
    const test::Ended other = expect_done(trainer(joined(words, {"evaluate.rows=1"})));
    EXPECT_THAT(other.err, testing::AllOf(HasSubstr(note), HasSubstr("the same command with job=evaluate tells")));
    const auto loss = [](const test::Ended& ended, const char* key) {
      return Json::parse(ended.out, "a line").at(key).as_number();
    };
    const test::Ended evaluated = expect_done(trainer(joined(words, {"evaluate.rows=1", "job=evaluate"})));
    EXPECT_NE(loss(evaluated, "loss"), loss(other, "eval_loss"));
  }
  const Words words = {"lora.toml", "run.dir=bare", "train.steps=2", "export.native=false", "export.merged=true"};
  expect_done(trainer(words));
  const std::string said = expect_done(trainer(joined(words, {"evaluate.rows=1"}))).err;
  const std::string file = "run.resume=" + (*this / "bare/checkpoints/step-00000002.h5").string();
  EXPECT_THAT(said, ContainsRegex("job=evaluate run.resume=[^ ]*bare/checkpoints/step-00000002.h5 tells"));
  expect_done(trainer(joined(words, {"evaluate.rows=1", "job=evaluate", file})));
}

TEST_F(GoingOn, AFileTakesAnotherRateIntoANewFolder) {
  stopped_run("run");
  const std::string from = "run.resume=" + checkpoint("run", 4).string();
  const std::string refused = fault(joined(words_of("run"), {"optimizer.lr=0.001"}));
  EXPECT_THAT(refused, EndsWith("in a new folder: run.resume=run/checkpoints/step-00000004.h5\n"));
  const test::Ended ended =
      expect_done(trainer(joined(words_of("run"), {"optimizer.lr=0.001", from, "train.steps=6", "train.clip=0.5"})));
  EXPECT_THAT(ended.out, HasSubstr("optimizer.lr was 0.005, now 0.001; the learning rate of step 5 is "));
  EXPECT_EQ(losses("run-2").size(), 2u);
  EXPECT_EQ(checkpoints("run"), (std::vector<std::string>{"step-00000002.h5", "step-00000004.h5"}));
  for (const char* other : {"optimizer.name=sgd", "adapter.alpha=3", "train.batch=12"})
    EXPECT_THAT(fault(joined(words_of("run"), {other, from})), HasSubstr("cannot go on with another recipe"));
  EXPECT_FALSE(fs::exists(*this / "run-3"));  // of refused starts, nothing is left
}

TEST_F(GoingOn, WhatIsExportedOrGeneratedMayChange) {
  stopped_run("run");
  expect_done(trainer(joined(words_of("run"), {"export.peft=true", "generate.limit=3", "replay.round=1"})));
  EXPECT_TRUE(fs::exists(*this / "run/peft/adapter_config.json"));
}

TEST_F(GoingOn, ADamagedFileNamesAnEarlierOne) {
  train("run", 6);
  const auto damage = [&](int step) {
    fs::resize_file(checkpoint("run", step), fs::file_size(checkpoint("run", step)) - 9);
  };
  damage(6);
  const std::string from = "run.resume=run/checkpoints/step-0000000";
  for (const Words& more : {Words{"job=evaluate"}, Words{"--check"}, Words{}}) {
    const Words words = joined(words_of("run"), more);
    EXPECT_THAT(fault(joined(words, {from + "6.h5"})),
                HasSubstr("\n  an earlier checkpoint is whole: " + from + "4.h5\n"));
    expect_done(trainer(joined(words, {from + "4.h5"})));
  }
  damage(4);
  damage(2);
  EXPECT_THAT(
      fault(joined(words_of("run"), {from + "4.h5"})),
      HasSubstr("no earlier checkpoint beside it is whole: put back a copy, or train anew with run.resume=never"));
  expect_done(trainer(joined(words_of("run"), {"run.resume=never"})));
}

TEST_F(GoingOn, KeysThatDoNothingMayChange) {
  train("straight", 8);
  stopped_run("run");
  const test::Ended ended = expect_done(trainer(joined(
      words_of("run"), {"spsa.probes=4", "optimizer.momentum=0.5", "generate.seed=3", "optimizer.final_ratio=0"})));
  EXPECT_THAT(ended.out, testing::Not(HasSubstr("now 4")));
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));

  train("lora-straight", 8, {"optimizer.name=sgd"}, "lora");
  stopped_run("lora-run", {"optimizer.name=sgd", "optimizer.beta1=0.5"}, "lora");
  const Words lora = joined(words_of("lora-run", "lora"), {"optimizer.name=sgd"});
  EXPECT_THAT(fault(joined(lora, {"optimizer.momentum=0.5", "adapter.shards=2"})),
              testing::AllOf(HasSubstr("optimizer.momentum was 0.9, now 0.5"), testing::Not(HasSubstr("shards was"))));
  expect_done(trainer(joined(lora, {"adapter.shards=2", "optimizer.beta2=0.5"})));  // and beta1 is back
  EXPECT_EQ(saved_bytes("lora-run"), saved_bytes("lora-straight"));
  expect_done(
      trainer({"lora.toml", "job=evaluate", "adapter.shards=8", "run.resume=" + checkpoint("lora-run", 4).string()}));
}

TEST_F(GoingOn, JobsTakeACheckpoint) {
  for (const std::string recipe : {"mos", "lora", "full", "rps"}) {
    train(recipe + "-run", 8, {}, recipe);
    train(recipe + "-short", 4, {"optimizer.schedule=constant"}, recipe);
    const std::string result = recipe == "full"  ? "model/model.safetensors"
                               : recipe == "rps" ? "sharing/rps.safetensors"
                                                 : "adapter/" + recipe + ".safetensors";
    const std::string before = test::read_file(*this / (recipe + "-run") / result);
    for (const int step : {2, 8}) {
      const Words words = {recipe + ".toml", "run.dir=" + recipe + "-run",
                           "run.resume=" + checkpoint(recipe + "-run", step).string()};
      const Json line = Json::parse(expect_done(trainer(joined(words, {"job=evaluate"}))).out, "evaluate");
      EXPECT_EQ(line.at("loss").as_number(), losses(recipe + "-run", "eval").at(static_cast<size_t>(step / 2)))
          << recipe;
      const test::Ended exported = expect_done(trainer(joined(words, {"job=export"})));
      const std::string folder = recipe + "-run-" + std::to_string(step == 2 ? 2 : 3);
      EXPECT_THAT(exported.out, HasSubstr(folder + "/model\n"));
      if (step == 8) {
        EXPECT_EQ(test::read_file(*this / folder / result), before);
      } else {
        EXPECT_NE(test::read_file(*this / folder / result), before);
      }
      EXPECT_EQ(test::read_file(*this / (recipe + "-run") / result), before);
      expect_done(trainer(joined(words, {"job=generate", "generate.limit=2", "generate.max_new_tokens=3"})));
    }
  }
  const std::string from = "run.resume=" + checkpoint("mos-run", 4).string();
  for (const std::string job : {"evaluate", "export", "generate"})
    EXPECT_THAT(fault({"mos.toml", "job=" + job, "run.dir=mos-run", from, "adapter.alpha=3"}),
                HasSubstr("the checkpoint belongs to another recipe\n  adapter.alpha was 16.0, now 3.0\n"));
  EXPECT_THAT(fault({"lora.toml", "job=evaluate", from}), HasSubstr("adapter.method was \"mos\", now \"lora\""));
}

/// The file as a version wrote it that did not know these keys and fields.
void write_as_before(const fs::path& file) {
  const fs::path old = file.string() + ".old";
  {
    const Hdf5File from = Hdf5File::open(file);
    Hdf5File to = Hdf5File::create(old);
    for (const char* name : {"format_version", "rules", "step", "rows_consumed", "ranks", "tokens"})
      to.write_integer(std::string("/meta/") + name, from.read_integer(std::string("/meta/") + name));
    for (const char* name : {"seconds", "last_loss", "best_loss"})
      to.write_number(std::string("/meta/") + name, from.read_number(std::string("/meta/") + name));
    for (const char* name : {"first_eval", "last_eval", "data_hash", "base_fingerprint"})
      to.write_text(std::string("/meta/") + name, from.read_text(std::string("/meta/") + name));
    const Json recipe = Json::parse(from.read_text("/meta/recipe"), "recipe");
    Json kept = Json::object();
    for (const auto& [key, value] : recipe.members())
      if (key != "train.freeze" && key != "spsa.side_by_side" && key != "adapter.scale") kept.set(key, value);
    to.write_text("/meta/recipe", kept.dump());
    for (const std::string& slot : from.list("/pool")) to.write("/pool/" + slot, from.read("/pool/" + slot).view());
    for (const std::string& slot : from.list("/optimizer"))
      for (const std::string& state : from.list("/optimizer/" + slot))
        to.write("/optimizer/" + slot + "/" + state, from.read("/optimizer/" + slot + "/" + state).view());
    to.seal();
  }
  fs::rename(old, file);
}

TEST_F(GoingOn, AKeyThatAnOlderVersionDidNotWriteStoodAtItsDefault) {
  train("straight", 8);
  stopped_run("run");
  write_as_before(checkpoint("run", 4));
  fs::rename(*this / "base", *this / "moved");
  const Words moved = joined(words_of("run"), {"model.path=moved"});
  EXPECT_THAT(fault(joined(moved, {"adapter.scale=rs"})), HasSubstr("adapter.scale was \"standard\", now \"rs\""));
  expect_done(trainer(moved));
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
}

TEST_F(GoingOn, AChangedConfigIsRefusedThoughTheWeightsAreTheSame) {
  for (const char* recipe : {"mos", "full"}) {
    const std::string run = std::string(recipe) + "-run";
    stopped_run(run, {}, recipe);
    replace("base/config.json", "\"rms_norm_eps\"", "\"rope_theta\": 500000, \"rms_norm_eps\"");
    EXPECT_THAT(fault(words_of(run, recipe)),
                testing::AllOf(HasSubstr("this run cannot go on with another base model"), HasSubstr("rope")));
    EXPECT_THAT(fault({std::string(recipe) + ".toml", "job=evaluate", "run.resume=" + checkpoint(run, 4).string()}),
                HasSubstr("has another config.json now"));
    replace("base/config.json", "\"rope_theta\": 500000, ", "\n\n");
    expect_done(trainer(words_of(run, recipe)));
  }
  replace("base/config.json", "\"rms_norm_eps\"", "\"rope_theta\": 500000, \"rms_norm_eps\"");
  EXPECT_THAT(fault({"mos.toml", "job=evaluate", "run.dir=mos-run"}),
              HasSubstr("belongs to another config.json: rope_theta was 10000.0 and is 500000.0\n"));
  replace("mos-run/adapter/adapter.json", "\"config_numbers\"", "\"there_were_none\"");
  EXPECT_THAT(fault({"mos.toml", "job=evaluate", "run.dir=mos-run"}), HasSubstr("was saved with config_fingerprint "));
  replace("mos-run/adapter/adapter.json", "\"config_fingerprint\"", "\"once_there_was_none\"");
  expect_done(trainer({"mos.toml", "job=evaluate", "run.dir=mos-run"}));
}

TEST_F(GoingOn, SeveralNewRunsAtOnceTakeAFolderEach) {
  stopped_run("first");
  const std::string file = checkpoint("first", 4).string();
  for (const std::string& resume : {std::string("never"), file}) {
    const bool is_new = resume == "never";
    const Words folders = is_new ? Words{"run", "run-2", "run-3"} : Words{"first-2", "first-3", "first-4"};
    std::vector<std::unique_ptr<test::Process>> starts;
    for (int i = 0; i < 3; ++i)
      starts.push_back(std::make_unique<test::Process>(
          trainer(joined(words_of(is_new ? "run" : "first"), {"run.resume=" + resume}))));
    for (auto& start : starts) EXPECT_EQ(start->wait(60).exit_code, 0);
    for (const std::string& folder : folders) EXPECT_EQ(saved_bytes(folder), saved_bytes(folders[0])) << folder;
    EXPECT_FALSE(fs::exists(*this / (is_new ? "run-4" : "first-5")));
  }
}

TEST_F(GoingOn, ADivergedRunNamesAWayThatWorks) {
  // A healthy beginning at a warm-up's rates, then far too much:
  // the checkpoints in between hold finite numbers that are lost.
  for (const bool has_checkpoint : {true, false}) {
    const Words words = {"mos.toml", "run.dir=run", "optimizer.lr=1e30", "checkpoint.keep=9", "checkpoint.every=1"};
    const std::string said = fault(
        joined(words, {has_checkpoint ? "optimizer.warmup_steps=3" : "optimizer.warmup_steps=0", "train.clip=0"}));
    EXPECT_FALSE(checkpoints("run").empty());  // "whole", and of no use
    const size_t begin = said.find("run.resume=");
    ASSERT_NE(begin, std::string::npos) << said;
    EXPECT_EQ(said.substr(begin, 16) == "run.resume=never", !has_checkpoint) << said;
    std::istringstream hint(said.substr(begin, said.find('\n', begin) - begin));
    Words cure = {"mos.toml", "run.dir=run"};
    for (std::string word; hint >> word;) cure.push_back(word);
    EXPECT_EQ(cure.at(3), "optimizer.lr=1e+29") << said;
    EXPECT_EQ(cure.at(4), "train.clip=1") << said;
    cure.push_back("train.steps=5");
    cure.push_back("optimizer.lr=1e-3");  // a tenth of what is far too much is still too much
    expect_done(trainer(cure));
    fs::remove_all(*this / "run");
    fs::remove_all(*this / "run-2");
  }
}

TEST_F(GoingOn, CheckpointsThatAreGoneAreMissed) {
  stopped_run("run");
  for (const int step : {2, 4}) fs::remove(checkpoint("run", step));
  EXPECT_THAT(fault(words_of("run")), HasSubstr("no checkpoint is here any more"));
  EXPECT_GT(metrics("run").size(), 8u);
}

TEST_F(GoingOn, MetricsTornInsideHaveACure) {
  train("straight", 8);
  stopped_run("run");
  std::vector<std::string> lines;
  std::ifstream file(*this / "run/metrics.jsonl");
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  std::string text;
  for (size_t i = 0; i < lines.size(); ++i) text += i == 2 ? "{\"step\":9,\"sp\n\n" + lines[i] + "\n" : lines[i] + "\n";
  test::write_file(*this / "run/metrics.jsonl", text);
  const std::string said = fault(words_of("run"));
  EXPECT_THAT(said, HasSubstr("run/metrics.jsonl:3: this line of metrics is damaged: "));
  ASSERT_EQ(std::system(fmt::format("cd '{}' && {}", path().string(), said.substr(said.find("sed -i"))).c_str()), 0);
  expect_done(trainer(words_of("run")));
  EXPECT_EQ(timeless_metrics("run"), timeless_metrics("straight"));
}

TEST_F(GoingOn, ADamagedNewerCheckpointTakesNobodysPlace) {
  stopped_run("run");
  fs::remove(checkpoint("run", 2));
  test::write_file(checkpoint("run", 8), "damaged");
  const fs::path told = *this / "run/metrics.jsonl";
  test::write_file(told, "");
  test::Process killed(trainer(joined(words_of("run"), {"checkpoint.keep=1"})));
  ASSERT_TRUE(test::wait_until(
      [&] { return test::read_file(told).find("{\"step\":7,") != std::string::npos || !killed.running(); }));
  killed.send(SIGKILL);
  killed.wait();
  expect_done(trainer(joined(words_of("run"), {"checkpoint.keep=1"})));
  EXPECT_EQ(checkpoints("run").back(), "step-00000008.h5");
  EXPECT_LE(checkpoints("run").size(), 2u);  // beside it the one gone on from
}

}  // namespace
}  // namespace tessera
