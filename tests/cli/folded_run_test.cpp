// What a run of job = "compress" is for the other jobs: with its folder, with the commands that its report prints, and
// with its recipe.

#include <gmock/gmock.h>

#include "cli/compress_runs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Cure;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

class FoldedRun : public Cure {
 protected:
  /// The job as one reads it: [adapter] is that of the cure.
  Words again(const Words& more) const { return joined(joined(job("run"), {"fold.until="}), more); }
  static double loss(const test::Ended& ended) {
    return Json::parse(ended.out.substr(ended.out.find('{')), "evaluate").at("loss").as_number();
  }
  const Words printed_ = {"run/recipe.toml", "adapter.method=none", "sharing.method=fold", "sharing.load=run"};
  const Words prompt_ = {"job=generate", "generate.prompts=[\"copy ba =\"]", "generate.max_new_tokens=2"};
};

TEST_F(FoldedRun, PrintedCommandsWorkAsOftenAsTheyAreTyped) {
  expect_done(trainer(job("run", {"fold.until="})));
  const Json commands = json("run", "compress/report.json").at("commands");
  EXPECT_THAT(commands.items().at(1).as_string(), HasSubstr("trainer run/recipe.toml adapter.method=none"));
  const std::string model = file("run", "sharing/fold.safetensors");
  for (int time = 0; time < 2; ++time) {
    expect_done(trainer(joined(printed_, prompt_)));
    expect_done(trainer(joined(printed_, {"job=evaluate"})));
    expect_done(trainer(joined(printed_, {"job=export"})));
  }
  EXPECT_EQ(file("run", "sharing/fold.safetensors"), model);
  EXPECT_THAT(file("run", "samples.jsonl"), HasSubstr("copy ba ="));
}

TEST_F(FoldedRun, TheSameRecipeWithAnotherJobTakesTheFoldedModel) {
  expect_done(trainer(job("run")));
  const double folded = loss(expect_done(trainer(joined(printed_, {"job=evaluate", "run.dir=used"}))));
  const double original = loss(expect_done(trainer({"lora.toml", "adapter.method=none", "job=evaluate", "run.dir=o"})));
  ASSERT_NE(folded, original);
  const std::string told = "the folded model of the run (cured): run/sharing\n";
  for (const Words& more :
       std::vector<Words>{{}, {"adapter.method=none"}, {"sharing.method=fold", "sharing.load=run"}}) {
    const test::Ended ended = expect_done(trainer(again(joined({"job=evaluate"}, more))));
    EXPECT_EQ(loss(ended), folded);
    EXPECT_THAT(ended.err, HasSubstr(told));
  }
  EXPECT_EQ(loss(expect_done(trainer({"run/recipe.toml", "job=evaluate"}))), folded);
  EXPECT_THAT(expect_done(trainer(again(prompt_))).err, HasSubstr(told));
  EXPECT_THAT(expect_done(trainer(again({"job=evaluate", "--check"}))).out, HasSubstr("of 6 layers are left"));
  expect_done(trainer(again({"job=export", "model.dtype=f32"})));
  const Words dense = {"full.toml", "model.path=run/model", "model.init=pretrained", "job=evaluate", "run.dir=dense"};
  EXPECT_NEAR(loss(expect_done(trainer(dense))), folded, 1e-5);
}

TEST_F(FoldedRun, ItsModelByNameIsTakenWithoutTheAdapterOfItsCure) {
  expect_done(trainer(job("run")));
  const double folded = loss(expect_done(trainer(joined(printed_, {"job=evaluate", "run.dir=used"}))));
  const Words named = {"sharing.method=fold", "sharing.load=run", "job=evaluate"};
  const test::Ended ended = expect_done(trainer(joined(joined(job("other"), {"fold.until="}), named)));
  EXPECT_EQ(loss(ended), folded);
  EXPECT_THAT(ended.err,
              HasSubstr("since the recipe's [adapter] is that of its cure: " + (path() / "run").string() + "\n"));
  // An adapter of another kind is one that was trained above it, and is missed.
  EXPECT_THAT(fault(joined(joined(job("other"), {"adapter.rank=2"}), named)), HasSubstr("there is no trained adapter"));
  EXPECT_THAT(fault(job("not-yet", {"job=evaluate"})), HasSubstr("[fold] is made by job=compress"));
}

TEST_F(FoldedRun, BeforeThereIsAFoldedModelTheOriginalIsNotTakenForIt) {
  expect_done(trainer(job("run", {"fold.until=probe"})));
  for (const char* adapter : {"adapter.method=lora", "adapter.method=none"})
    for (const char* other : {"job=evaluate", "job=export"})
      EXPECT_THAT(
          fault(again({adapter, other})),
          HasSubstr("the compression in \"run\" has not come to a folded model yet\n  the command that began it"))
          << adapter << " " << other;
}

TEST_F(FoldedRun, ATrainingTakesAnotherFolderAndIsToldHow) {
  expect_done(trainer(job("run")));
  const std::string recipe = file("run", "recipe.toml"), metrics = file("run", "metrics.jsonl");
  const std::string told = "run/compress: this folder holds a run of job = \"compress\"";
  for (const char* check : {"", "--check"}) {
    Words words = again({"job=train"}),
          folded = {"full.toml", "sharing.method=fold", "sharing.load=run", "run.dir=run"};
    if (*check) words.emplace_back(check), folded.emplace_back(check);
    EXPECT_THAT(fault(words), AllOf(HasSubstr(told), HasSubstr("job=train adapter.method=none sharing.method=fold "
                                                               "sharing.load=run run.dir=run-trained\n")));
    EXPECT_THAT(fault(folded), AllOf(HasSubstr(told), HasSubstr("run.dir=run-trained\n")));
  }
  EXPECT_EQ(file("run", "recipe.toml"), recipe);
  EXPECT_EQ(file("run", "metrics.jsonl"), metrics);
  expect_done(trainer(again({"job=train", "adapter.method=none", "sharing.method=fold", "sharing.load=run",
                             "run.dir=run-trained", "train.steps=3"})));
  EXPECT_NE(file("run-trained", "sharing/fold.safetensors"), file("run", "sharing/fold.safetensors"));
}

TEST_F(FoldedRun, AnExportOfItsNativeFolderGoesWhereItIsAsked) {
  expect_done(trainer(job("run")));
  EXPECT_THAT(fault(joined(printed_, {"job=export", "export.native=true"})),
              HasSubstr("run/sharing: this job would write over what it reads: sharing.load"));
  EXPECT_THAT(fault(joined(printed_, {"job=export", "export.merged=false"})),
              HasSubstr("or export.native=true where there is an adapter or"));
  EXPECT_THAT(expect_done(trainer(joined(printed_, {"job=export", "export.merged=false", "--check"}))).out,
              HasSubstr("note: as things stand the job would end with: "))
      << "since there is nothing to export";
  expect_done(trainer(joined(printed_, {"job=export", "export.native=true", "run.dir=out"})));
  EXPECT_EQ(file("out", "sharing/fold.safetensors"), file("run", "sharing/fold.safetensors"));
  EXPECT_FALSE(fs::exists(*this / "out/model"));
  Words moved = {"lora.toml",        "adapter.method=none", "sharing.method=fold",
                 "sharing.load=out", "job=evaluate",        "run.dir=used"};
  expect_done(trainer(moved));
}

TEST_F(FoldedRun, AnAdapterAboveItIsNotForPeftAndTheHintWorks) {
  expect_done(trainer(job("run", {"fold.until=share"})));
  const Words above = {"lora.toml",       "sharing.method=fold", "sharing.load=run",
                       "run.dir=adapted", "train.steps=2",       "export.peft=true"};
  EXPECT_THAT(fault(above), HasSubstr("\n  set export.peft = false; export.merged = true then writes"));
  EXPECT_THAT(fault(joined(above, {"export.merged=true"})), HasSubstr("\n  set export.peft = false: the dense model"));
  expect_done(trainer(joined(above, {"export.peft=false", "export.merged=true"})));
  EXPECT_TRUE(fs::exists(*this / "adapted/model/model.safetensors"));
  expect_done(trainer(joined(above, {"job=evaluate"})));  // which writes no adapter
}

TEST_F(FoldedRun, WhatIsMissingIsToldWithTheCommandOfTheRecipesHead) {
  test::write_file(*this / "head.toml",
                   "# Get it first:\n#   scripts/wikitext_articles FILE .cache/text.jsonl\n#   "
                   "scripts/get_smollm2 models/small --dtype bf16\n" +
                       test::read_file(*this / "lora.toml"));
  EXPECT_THAT(fault({"head.toml", "data.train=.cache/text.jsonl", "model.path=models/small"}),
              AllOf(HasSubstr("text.jsonl\" does not exist\n  the recipe's head tells how to make it:\n    "
                              "scripts/wikitext_articles FILE .cache/text.jsonl\n"),
                    HasSubstr("\n    scripts/get_smollm2 models/small --dtype bf16\n")));
  EXPECT_THAT(fault({"head.toml", "data.train=other.jsonl"}), Not(HasSubstr("scripts/")));
}

TEST_F(FoldedRun, TextsWithoutAPromptAreNoAnswers) {
  test::write_file(*this / "texts.jsonl", "{\"text\": \"copy ba = ba\"}\n{\"text\": \"copy da = da\"}\n");
  const Words words = {"full.toml", "job=generate", "run.dir=texts", "generate.max_new_tokens=2"};
  EXPECT_THAT(expect_done(trainer(joined(words, {"data.eval=texts.jsonl"}))).out, Not(HasSubstr("completions right")));
  EXPECT_THAT(expect_done(trainer(words)).out, HasSubstr("completions right"));
}

}  // namespace
}  // namespace tessera
