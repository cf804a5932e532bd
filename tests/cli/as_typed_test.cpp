// What users type: stored recipes, folders with a slash, keys outside their section, paths of the wrong kind.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  for (const char* folder : {"run", "run/checkpoints"}) {
    const std::string text = said(folder);
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
  EXPECT_THAT(fault({"run/recipe.toml", "job=export"}),
              HasSubstr("there is nothing to export: export.merged is false"));
  expect_done(trainer({"run/recipe.toml", "job=export", "export.merged=true"}));
  EXPECT_TRUE(fs::exists(*this / "run/model/model.safetensors"));
}

TEST_F(AsTyped, NamesAreFoundWhereTheyBelong) {
  EXPECT_THAT(fault({"lora.toml", "rank=4"}), HasSubstr("did you mean adapter.rank?"));
  EXPECT_THAT(fault({"absent.toml"}), HasSubstr("absent.toml: this recipe does not exist"));
  train({"run.dir=run"});
  EXPECT_THAT(fault({"run"}), HasSubstr("run: this recipe is a folder\n  of the run in this folder: run/recipe.toml"));
  EXPECT_THAT(fault({"lora.toml", "data.cache=train.jsonl", "--check"}), HasSubstr("is a file\n  name a folder"));
}

}  // namespace
}  // namespace tessera
