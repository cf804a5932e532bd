// What a run tells of itself: of what was written, before and after of the same rows,
// and no figure where there is none.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <functional>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class Figures : public test::Workbench {
 protected:
  Json done(const std::string& run) const { return metrics(run).back(); }
  Json last_eval(const std::string& run) const {
    Json found;
    for (const Json& line : metrics(run))
      if (const Json* split = line.find("split"); split && split->as_string() == "eval") found = line;
    return found;
  }
  Json printed(const Words& words) const {
    const std::string out = expect_done(trainer(words)).out;
    return Json::parse(out.substr(out.rfind('{')), "printed");
  }
  /// Takes the run back to a checkpoint, as if it had been killed behind it.
  void go_back(const std::string& run, int64_t step) const {
    for (const std::string& name : checkpoints(run))
      if (std::stoll(name.substr(5)) > step) fs::remove(*this / run / "checkpoints" / name);
    forget_end(run);
  }
  /// Records of a prompt of so many words and a completion.
  static std::string records(int count, int words) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      std::string prompt = "copy";
      for (int w = 0; w < words; ++w) prompt += std::string(" ") + "bdfghkmn"[(i + w) % 8] + "aeiu"[(i * w) % 4];
      text += Json::object().set("prompt", prompt + " =").set("completion", "ba du").dump() + "\n";
    }
    return text;
  }
};

TEST_F(Figures, AreThoseOfTheModelThatWasWrittenWhenItWasRounded) {
  const auto ended = expect_done(trainer({"full.toml", "run.dir=run", "model.dtype=bf16", "optimizer.lr=1e-4"}));
  const Json rounded = done("run");
  const double told = rounded.at("eval_loss").as_number(), trained = rounded.at("eval_loss_trained").as_number();
  EXPECT_EQ(printed({"full.toml", "run.dir=run", "model.dtype=bf16", "job=evaluate"}).at("loss").as_number(), told);
  EXPECT_NE(told, trained);
  EXPECT_EQ(trained, losses("run", "eval").back());
  EXPECT_EQ(rounded.at("written").at("model").at("eval_loss").as_number(), told);
  EXPECT_THAT(ended.out, HasSubstr("\nrun/model: held-out "));
  EXPECT_THAT(ended.out, HasSubstr("before they were rounded to bf16: "));
  const std::string checkpoint = "run/checkpoints/step-00000050.h5";
  EXPECT_THAT(ended.out, HasSubstr("; job=export model.dtype=f32 run.resume=" + checkpoint +
                                   " run.dir=FOLDER writes them in f32\n"));
  EXPECT_THAT(test::read_file(*this / "run/report.html"), HasSubstr("trained, before rounding"));
  // What the hint says.
  expect_done(trainer({"full.toml", "job=export", "model.dtype=f32", "run.resume=" + checkpoint, "run.dir=exported"}));
  EXPECT_EQ(printed({"full.toml", "run.dir=exported", "job=evaluate"}).at("loss").as_number(), trained);
  // And a run that rounds nothing.
  expect_done(trainer({"full.toml", "run.dir=whole", "model.dtype=f32", "optimizer.lr=1e-4"}));
  const Json whole = done("whole");
  EXPECT_EQ(whole.at("eval_loss").as_number(), trained);
  EXPECT_EQ(whole.find("eval_loss_trained"), nullptr);
  EXPECT_EQ(printed({"full.toml", "run.dir=whole", "job=evaluate"}).at("loss").as_number(), trained);
}

TEST_F(Figures, OfAnAdapterAreTheTrainedOnesAndOfTheMergedModelItsOwn) {
  const auto ended = expect_done(trainer({"full.toml", "run.dir=base", "train.steps=30"}));
  const Words words = {"lora.toml", "model.path=base/model", "model.init=pretrained"};
  Words train = words;
  train.insert(train.end(), {"run.dir=run", "export.merged=true", "export.peft=true", "model.dtype=bf16"});
  const auto out = expect_done(trainer(train)).out;
  const Json line = done("run"), &written = line.at("written");
  EXPECT_EQ(line.at("eval_loss").as_number(), losses("run", "eval").back());
  EXPECT_EQ(line.find("eval_loss_trained"), nullptr);
  for (const char* exact : {"adapter", "peft"})
    EXPECT_EQ(written.at(exact).at("eval_loss").as_number(), losses("run", "eval").back()) << exact;
  const double merged = written.at("model").at("eval_loss").as_number();
  EXPECT_NE(merged, losses("run", "eval").back());
  EXPECT_EQ(printed({"full.toml", "run.dir=other", "model.path=run/model", "model.init=pretrained", "job=evaluate"})
                .at("loss")
                .as_number(),
            merged);
  EXPECT_THAT(out, HasSubstr("\nrun/adapter: held-out "));
  EXPECT_THAT(out, HasSubstr("\nrun/model: held-out "));
  EXPECT_THAT(out, HasSubstr("; job=export model.dtype=f32 run.dir=run writes it in f32\n"));
  // What the hint says.
  Words again = words;
  again.insert(again.end(), {"run.dir=run", "job=export", "model.dtype=f32"});
  expect_done(trainer(again));
  EXPECT_NEAR(printed({"full.toml", "run.dir=other", "model.path=run/model", "model.init=pretrained", "job=evaluate"})
                  .at("loss")
                  .as_number(),
              losses("run", "eval").back(), 1e-5);
}

TEST_F(Figures, AreTheSameOfAnyNumberOfRanks) {
  TESSERA_NEEDS_MPI();
  expect_done(ranks(3, {"full.toml", "run.dir=run", "model.dtype=bf16", "optimizer.lr=1e-4", "train.steps=5"}));
  const double told = done("run").at("eval_loss").as_number();
  EXPECT_NE(told, losses("run", "eval").back());
  EXPECT_NEAR(printed({"full.toml", "run.dir=run", "job=evaluate"}).at("loss").as_number() / told, 1, 1e-6);
}

TEST_F(Figures, ReplayTellsThatItRoundedAndHowItDoesNot) {
  const Words full = {"full.toml",      "train.estimator=spsa", "optimizer.name=sgd", "train.batch=2",
                      "train.steps=12", "spsa.eps=1e-2",        "optimizer.lr=1e-4",  "optimizer.momentum=0"};
  const auto with = [&](const Words& more) { return joined(full, more); };
  const auto ended = expect_done(trainer(with({"run.dir=run", "model.dtype=bf16"})));
  EXPECT_THAT(ended.out, HasSubstr("; job=replay model.dtype=f32 replay.log=run run.dir=FOLDER writes them in f32\n"));
  const auto replayed = expect_done(trainer(with({"job=replay", "replay.log=run", "run.dir=a", "model.dtype=bf16"})));
  EXPECT_THAT(replayed.out, HasSubstr("\"rounded_to\":\"bf16\""));
  EXPECT_THAT(replayed.err, HasSubstr("a/model: the weights were rounded to bf16"));
  const auto whole = expect_done(trainer(with({"job=replay", "replay.log=run", "run.dir=b", "model.dtype=f32"})));
  EXPECT_THAT(whole.out, Not(HasSubstr("rounded_to")));
  EXPECT_EQ(printed(with({"job=evaluate", "run.dir=b"})).at("loss").as_number(), losses("run", "eval").back());
}

TEST_F(Figures, BeforeAndAfterAreOfTheSameHeldOutRows) {
  const Words words = {"mos.toml", "run.dir=run", "optimizer.lr=1e-9", "checkpoint.every=10", "checkpoint.keep=9"};
  expect_done(trainer(words));
  go_back("run", 20);
  const std::string other = test::read_file(*this / "train.jsonl");
  test::write_file(*this / "eval.jsonl", other.substr(0, other.find('\n', other.size() / 8) + 1));
  const auto ended = expect_done(trainer(words));
  EXPECT_THAT(ended.out, HasSubstr("the held-out rows are others than the run's so far: the figures that are told as "
                                   "\"before\" will be those of step 20, with which the run goes on\n"));
  const Json line = done("run");
  EXPECT_NEAR(line.at("eval_loss_before").as_number() / line.at("eval_loss").as_number(), 1, 1e-5);
  EXPECT_EQ(line.at("eval_exact_match_before").as_number(), line.at("eval_exact_match").as_number());
  EXPECT_THAT(test::read_file(*this / "run/report.html"), HasSubstr("at step 20</th>"));
}

TEST_F(Figures, AnotherNumberOfRowsBeginsBeforeAndBestAnew) {
  const Words words = {"mos.toml",          "run.dir=run",         "optimizer.lr=1e-9", "checkpoint.every=10",
                       "checkpoint.keep=9", "checkpoint.best=true"};
  expect_done(trainer(words));
  go_back("run", 20);
  const auto best = test::read_file(*this / "run/checkpoints/best.h5");
  Words fewer = words;
  fewer.push_back("evaluate.rows=1");
  expect_done(trainer(fewer));
  const Json line = done("run");
  EXPECT_NEAR(line.at("eval_loss_before").as_number() / line.at("eval_loss").as_number(), 1, 1e-5);
  EXPECT_NE(test::read_file(*this / "run/checkpoints/best.h5"), best);
  // And nothing of the kind when the rows are the same.
  go_back("run", 40);
  EXPECT_THAT(expect_done(trainer(fewer)).out, Not(HasSubstr("measured anew")));
  EXPECT_EQ(done("run").at("eval_loss_before").as_number(), line.at("eval_loss_before").as_number());
}

TEST_F(Figures, ThatDoNotExistAreAbsent) {
  expect_done(trainer({"lora.toml", "run.dir=none", "train.steps=0"}));
  EXPECT_EQ(done("none").find("loss"), nullptr);
  EXPECT_NE(done("none").find("eval_loss"), nullptr);
  test::write_file(*this / "texts.jsonl", "{\"text\": \"copy ba da = ba da\"}\n{\"text\": \"copy du fu = du fu\"}\n");
  const Json plain =
      printed({"full.toml", "run.dir=plain", "data.eval=texts.jsonl", "job=evaluate", "adapter.method=none"});
  EXPECT_EQ(plain.find("exact_match"), nullptr);
  EXPECT_EQ(plain.find("completions"), nullptr);
  EXPECT_GT(plain.at("loss").as_number(), 0);
}

TEST_F(Figures, RowsWithNothingToScoreAreLeftOutAndCounted) {
  test::write_file(*this / "train.jsonl", records(9, 40));  // the completion stands in the third row of 16 tokens
  const auto ended =
      expect_done(trainer({"lora.toml", "run.dir=run", "train.sequence_length=16", "train.batch=1", "train.steps=12"}));
  EXPECT_THAT(ended.out, HasSubstr("of data.train have no scored token and are left out"));
  for (const double loss : losses("run")) EXPECT_GT(loss, 0);
  test::write_file(*this / "long.jsonl", records(3, 40));
  EXPECT_THAT(expect_done(trainer({"full.toml", "run.dir=other", "data.eval=long.jsonl", "job=evaluate",
                                   "train.sequence_length=16"}))
                  .err,
              HasSubstr("rows of the held-out data have no scored token and are left out"));
}

TEST_F(Figures, CompletionsAreWholeDocumentsOnAnyNumberOfRanks) {
  TESSERA_NEEDS_MPI();
  for (const char* length : {"10", "11", "16", "64"}) {
    const std::string run = std::string("run") + length;
    const Words words = {"lora.toml", "run.dir=" + run, std::string("train.sequence_length=") + length,
                         "train.steps=1"};
    expect_done(ranks(3, words));
    EXPECT_EQ(last_eval(run).at("completions").as_integer(), 16) << length;
  }
}

TEST_F(Figures, EvaluationRowsAreTheSameForEverySeed) {
  expect_done(trainer({"full.toml", "run.dir=base", "train.steps=3"}));
  const auto loss_with = [&](const std::string& seed) {
    return printed({"full.toml", "job=evaluate", "run.dir=base", "evaluate.rows=1", "train.seed=" + seed})
        .at("loss")
        .as_number();
  };
  EXPECT_EQ(loss_with("1"), loss_with("2"));
}

TEST_F(Figures, EpochsOverFewerRowsThanABatchAreTold) {
  test::write_file(*this / "train.jsonl", records(3, 4));
  std::string recipe = test::read_file(*this / "lora.toml");
  recipe.replace(recipe.find("steps = 50"), 10, "epochs = 2");
  test::write_file(*this / "epochs.toml", recipe);
  const auto ended = expect_done(trainer({"epochs.toml", "run.dir=run"}));
  EXPECT_THAT(ended.out, HasSubstr("a pass over the data has 1 row and a step takes 24: a step reads rows more than "
                                   "once"));
}

TEST_F(Figures, OfSpsaComeFromItsStateAndNotFromWhatWasDisplayed) {
  const Words words = {"spsa.toml", "run.dir=run", "evaluate.every=10"};
  expect_done(trainer(words));
  const Json straight = done("run");
  const auto set_back = [&](const std::function<std::string(const std::string&)>& change) {
    const std::string text = test::read_file(*this / "run/metrics.jsonl");
    test::write_file(*this / "run/metrics.jsonl", change(text.substr(0, text.find("{\"event\""))));
    return expect_done(trainer(words)).out;
  };
  // A perplexity that was not finite, and lines that were lost.
  const auto without_perplexity = [](std::string text) {
    for (size_t at; (at = text.find("\"perplexity\"")) != std::string::npos;)
      text.erase(at, text.find(',', at) + 1 - at);
    return text;
  };
  for (const auto& change : {std::function<std::string(const std::string&)>(without_perplexity),
                             std::function<std::string(const std::string&)>([](const std::string&) { return ""; })}) {
    const std::string out = set_back(change);
    EXPECT_THAT(out, Not(HasSubstr("warning")));
    for (const char* key : {"loss", "eval_loss_before", "eval_loss", "tokens"})
      EXPECT_EQ(done("run").at(key).as_number(), straight.at(key).as_number()) << key;
  }
  // A run of an older version has its metrics alone.
  fs::remove(*this / "run/figures.json");
  EXPECT_THAT(set_back(without_perplexity), Not(HasSubstr("-inf")));
}

TEST_F(Figures, OfABranchAreItsParentsAndWithoutThoseThereIsNoFalseWarning) {
  const Words words = {"spsa.toml", "evaluate.every=10"};
  const auto with = [&](const Words& more) { return joined(words, more); };
  expect_done(trainer(with({"run.dir=run"})));
  const double before = done("run").at("eval_loss_before").as_number();
  fs::remove(*this / "run/metrics.jsonl");
  for (const bool kept : {true, false}) {
    const std::string branch = kept ? "kept" : "lost";
    if (!kept) fs::remove(*this / "run/figures.json");
    expect_done(trainer(with({"job=replay", "run.dir=run", "replay.round=20", "replay.branch=" + branch})));
    const std::string out = expect_done(trainer(with({"run.dir=" + branch}))).out;
    EXPECT_THAT(out, Not(HasSubstr("0.0000 before")));
    EXPECT_THAT(out, Not(HasSubstr("warning")));
    if (kept) {
      EXPECT_EQ(done(branch).at("eval_loss_before").as_number(), before);
    } else {
      EXPECT_THAT(
          out,
          HasSubstr("no earlier evaluation is known, since the run had no held-out data or figures.json, which keeps "
                    "them, is gone: the figures that are told as \"before\" will be those of step 20"));
    }
  }
}

TEST_F(Figures, TokensOfAnSpsaRunAreThoseThatWereReadWhateverTheRanks) {
  TESSERA_NEEDS_MPI();
  // 3 probes of 2 rows of 64 tokens: 384 tokens a round and rank.
  const Words words = {"spsa.toml", "run.dir=run", "train.steps=4"};
  expect_done(ranks(2, words));
  EXPECT_EQ(done("run").at("tokens").as_integer(), 4 * 2 * 384);
  forget_end("run");
  for (const bool kept : {true, false}) {
    if (!kept) fs::remove(*this / "run/figures.json");
    expect_done(trainer(words));  // it has nothing left to do but to tell
    EXPECT_EQ(done("run").at("tokens").as_integer(), 4 * 2 * 384);
    forget_end("run");
  }
}

TEST_F(Figures, OfAnSpsaRunThatGoesOnUnderOtherRanksGoOnAndAllAgreeOnWhatIsBest) {
  TESSERA_NEEDS_MPI();
  const Words words = {"spsa.toml", "run.dir=run", "train.steps=60", "evaluate.every=2", "checkpoint.best=true"};
  test::Process process(ranks(2, words));
  wait_for_lines("run", 20);
  process.send(SIGUSR1);
  EXPECT_EQ(process.wait().exit_code, 130);
  expect_done(ranks(3, words));
  int64_t tokens = 0, rounds = 0;
  for (const Json& line : metrics("run")) {
    const Json* split = line.find("split");
    if (!split || split->as_string() != "train") continue;
    tokens += line.at("votes").as_integer() * 2 * 64;
    EXPECT_EQ(line.at("tokens").as_integer(), tokens) << "step " << line.at("step").as_integer();
    ++rounds;
  }
  EXPECT_EQ(rounds, 60);
}

}  // namespace
}  // namespace tessera
