// What users type: stored recipes, folders with a slash, keys outside their section, paths of the wrong kind.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class AsTyped : public test::Workbench {
 protected:
  void train(const Words& more) {
    expect_done(trainer(joined({"lora.toml", "train.steps=4", "checkpoint.every=2"}, more)));
  }
};

TEST_F(AsTyped, AStoredRecipeStandsForItsRunWhereverItWasMoved) {
  train({"run.dir=one"});
  train({"run.dir=two", "train.seed=9", "optimizer.lr=0.001"});
  fs::rename(*this / "two", *this / "moved");
  const auto loss_by = [&](const Words& words) {
    const std::string out = expect_done(trainer(joined(words, {"job=evaluate"}))).out;
    return Json::parse(out.substr(out.find('{')), "evaluate").at("loss").as_number();
  };
  EXPECT_EQ(loss_by({"moved/recipe.toml"}), losses("moved", "eval").back());
  EXPECT_EQ(loss_by({"one/recipe.toml"}), losses("one", "eval").back());
  EXPECT_THAT(expect_done(trainer({"moved/recipe.toml", "train.steps=6"})).out, HasSubstr("going on from step 4"));
  EXPECT_EQ(losses("moved").size(), 6u);
  EXPECT_FALSE(fs::exists(*this / "runs"));
  test::Command inside = trainer({"recipe.toml", "train.steps=8"});
  inside.folder = *this / "moved";
  expect_done(inside);
  EXPECT_EQ(losses("moved").size(), 8u);
}

TEST_F(AsTyped, TheRecipeOfABranchGoesOnWithTheBranch) {
  train({"run.dir=run"});
  train({"run.dir=run", "run.resume=run/checkpoints/step-00000002.h5", "train.steps=6", "optimizer.lr=0.001"});
  EXPECT_THAT(test::read_file(*this / "run-2/recipe.toml"), Not(HasSubstr("resume")));
  expect_done(trainer({"run-2/recipe.toml", "train.steps=7"}));
  EXPECT_EQ(losses("run-2").size(), 5u);  // steps 3 to 7
  EXPECT_FALSE(fs::exists(*this / "run-3"));
}

TEST_F(AsTyped, ASlashBehindAFolderSaysNothing) {
  train({"run.dir=a/run/"});
  EXPECT_FALSE(fs::exists(*this / "a/run/.cache"));
  EXPECT_TRUE(fs::exists(*this / "a/.cache"));
}

TEST_F(AsTyped, ALengthOnTheCommandLineTakesThePlaceOfTheRecipes) {
  expect_done(trainer({"lora.toml", "run.dir=run", "train.epochs=1"}));  // the recipe has steps
  EXPECT_EQ(losses("run").size(), 4u);                                   // 78 rows, 24 a step
  EXPECT_THAT(test::read_file(*this / "run/recipe.toml"), Not(HasSubstr("\nsteps = ")));
  EXPECT_THAT(fault({"lora.toml", "run.dir=both", "train.steps=4", "train.epochs=1"}), HasSubstr("are both given"));
}

TEST_F(AsTyped, WhatIsNoCheckpointIsNamed) {
  train({"run.dir=run"});
  const auto said = [&](const std::string& path) { return fault({"lora.toml", "job=evaluate", "run.resume=" + path}); };
  for (const std::string folder : {"run", "run/checkpoints"}) {
    EXPECT_THAT(expect_done(trainer({"lora.toml", "job=evaluate", "run.resume=" + folder})).err,
                HasSubstr("the weights after step 4: run/checkpoints/step-00000004.h5\n"));
    const std::string text =
        fault({"lora.toml", "run.dir=other", "run.resume=" + folder});  // a training names it itself
    EXPECT_THAT(text, HasSubstr("is a folder\n"));
    EXPECT_THAT(text, HasSubstr("step-00000004.h5"));
  }
  const std::string what = "run.resume is \"auto\", \"never\", or the path of a checkpoint";
  for (const char* path : {"", "yes"}) EXPECT_THAT(said(path), HasSubstr(what)) << path;
  test::write_file(*this / "round-00000004.safetensors", "x");
  EXPECT_THAT(said("round-00000004.safetensors"), HasSubstr("job=replay replay.round=N"));
}

TEST_F(AsTyped, ThereIsSomethingToExport) {
  train({"run.dir=run"});
  EXPECT_THAT(fault({"run/recipe.toml", "job=export", "export.merged=false"}), HasSubstr("there is nothing to export"));
  expect_done(trainer({"run/recipe.toml", "job=export"}));
  EXPECT_TRUE(fs::exists(*this / "run/model/model.safetensors"));
}

TEST_F(AsTyped, NamesAreFoundWhereTheyBelong) {
  EXPECT_THAT(fault({"lora.toml", "rank=4"}), HasSubstr("did you mean adapter.rank?"));
  EXPECT_THAT(fault({"absent.toml"}), HasSubstr("absent.toml: this recipe does not exist"));
  train({"run.dir=run"});
  EXPECT_THAT(fault({"run"}), HasSubstr("run: this recipe is a folder\n  of the run in this folder: run/recipe.toml"));
  EXPECT_THAT(fault({"lora.toml", "data.cache=train.jsonl", "--check"}), HasSubstr("is a file\n  name a folder"));
}

TEST_F(AsTyped, AnAdapterThatIsGoneIsWrittenAgainFromACheckpoint) {
  train({"run.dir=run"});
  const std::string before = saved_bytes("run");
  fs::remove_all(*this / "run/adapter");
  const std::string said = fault({"lora.toml", "run.dir=run", "job=evaluate"});
  EXPECT_THAT(said, HasSubstr("the training has ended, and its adapter is gone: "));
  const size_t at = said.find("run.resume=");
  ASSERT_NE(at, std::string::npos);
  const std::string word = said.substr(at, said.find('\n', at) - at);
  expect_done(trainer({"lora.toml", "run.dir=run", "job=export", word}));
  EXPECT_TRUE(test::read_file(*this / "run-2/adapter/lora.safetensors") == before);
}

TEST_F(AsTyped, ALogThatIsGoneIsNotStartedAnewWhereSnapshotsAre) {
  expect_done(trainer({"spsa.toml", "run.dir=run", "train.steps=20"}));
  const std::string before = saved_bytes("run");
  forget_end("run");
  test::write_file(*this / "run/figures.json", "{");  // measured again
  expect_done(trainer({"spsa.toml", "run.dir=run", "train.steps=20"}));
  EXPECT_EQ(saved_bytes("run"), before);
  forget_end("run");
  fs::remove_all(*this / "run/log");
  const std::string snapshots = test::read_file(*this / "run/checkpoints/latest");
  EXPECT_THAT(fault({"spsa.toml", "run.dir=run", "train.steps=20"}),
              HasSubstr("this log has no rounds, and snapshots up to round 20 are in run/checkpoints"));
  EXPECT_EQ(test::read_file(*this / "run/checkpoints/latest"), snapshots);
}

TEST_F(AsTyped, ABranchOfProcessesThatShareAFolderIsTrainedAsTheHintSays) {
  const Words words = {"spsa.toml", "spsa.transport=file", "train.steps=4"};
  expect_done(trainer(joined(words, {"run.dir=run"})));
  const std::string said = fault(joined(words, {"run.dir=run", "optimizer.lr=0.0005"}));
  EXPECT_THAT(said, HasSubstr("job=replay replay.branch=FOLDER, then train with run.dir=FOLDER spsa.transport=mpi"));
  expect_done(trainer({"spsa.toml", "run.dir=run", "job=replay", "replay.round=3", "replay.branch=branch"}));
  const Words branch = joined(words, {"run.dir=branch", "spsa.transport=mpi", "optimizer.lr=0.0005"});
  EXPECT_THAT(expect_done(trainer(branch)).out, HasSubstr("going on from step 3"));
}

TEST_F(AsTyped, RanksThatWaitForABusyFolderLeaveTogether) {
  TESSERA_NEEDS_MPI();
  test::Process first(trainer({"lora.toml", "run.dir=run", "train.steps=1000000"}));
  wait_for_lines("run", 1);
  test::Process second(ranks(2, {"lora.toml", "run.dir=run"}));
  std::this_thread::sleep_for(std::chrono::seconds(2));
  second.send(SIGUSR1);
  const test::Ended ended = second.wait(60);
  EXPECT_FALSE(ended.timed_out) << ended.err;
  EXPECT_EQ(ended.exit_code, 130) << ended.err;
  first.send(SIGTERM);
  EXPECT_EQ(first.wait(60).exit_code, 130);
}

}  // namespace
}  // namespace tessera
