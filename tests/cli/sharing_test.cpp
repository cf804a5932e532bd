// Weights in a fixed budget, end to end: plans, runs and what they leave, ranks, kills, faults.

#include <gmock/gmock.h>

#include <algorithm>

#include "cli/sharing_runs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TEST_F(Sharing, ThePlanComparesWithTheDenseModel) {
  const Json json = plan(rps());
  EXPECT_EQ(json.at("parameters").at("trained").as_integer(), kTrained);
  EXPECT_EQ(json.at("parameters").at("virtual").as_integer(), kWeights);
  EXPECT_EQ(json.at("weights").at("physical").as_integer(), kTrained);
  EXPECT_EQ(json.at("weights").at("virtual").as_integer(), kWeights);
  EXPECT_EQ(json.at("wire_bytes_per_step").as_integer(), 4 * kTrained);
  // A number, its gradient and AdamW's two moments.
  EXPECT_EQ(json.at("bytes").at("held_bytes").as_integer(), 16 * kTrained);
  EXPECT_EQ(json.at("bytes").at("dense_bytes").as_integer(), 16 * kWeights);
  const std::string text = expect_done(trainer(rps({"--check"}))).out;
  EXPECT_THAT(text, AllOf(HasSubstr("trained 7123, frozen 0, virtual 26784\n"),
                          HasSubstr("against dense    114.0 kB of weights, gradients and moments; each weight for "
                                    "itself: 428.5 kB (26.6 %)\n"),
                          HasSubstr("rps: 24,576 weights of 11 tensors in a pool of 4,915 cells"),
                          HasSubstr("readers of a cell: 5 to 6")));
}

TEST_F(Sharing, ThePlanOfAnUntiedHeadAddsUp) {
  replace("base/config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
  constexpr int64_t kHead = 256 * 32;
  EXPECT_EQ(plan(rps()).at("parameters").at("trained").as_integer(), kTrained + kHead);  // the head is not named
  const Json json = plan(rps({"sharing.shared=linears,embedding,head"}));
  const int64_t trained = (kShared + kHead) / 5 + kWeights - kShared;
  EXPECT_EQ(json.at("parameters").at("trained").as_integer(), trained);
  EXPECT_EQ(json.at("parameters").at("virtual").as_integer(), kWeights + kHead);
  EXPECT_EQ(json.at("bytes").at("held_bytes").as_integer(), 16 * trained);
  EXPECT_EQ(json.at("bytes").at("dense_bytes").as_integer(), 16 * (kWeights + kHead));
}

TEST_F(Sharing, ThePlanSaysNothingOfDenseWhereNothingIsSaved) {
  for (const Words& words : {Words{"full.toml"}, Words{"lora.toml"}, rps({"sharing.compression=1"})}) {
    EXPECT_THAT(expect_done(trainer(joined(words, {"--check"}))).out, Not(HasSubstr("against dense")));
    const Json bytes = plan(words).at("bytes");
    EXPECT_EQ(bytes.at("held_bytes").as_integer(), bytes.at("dense_bytes").as_integer());
  }
}

TEST_F(Sharing, ThePlanKnowsOptimizersEstimatorsAndAdapters) {
  EXPECT_EQ(plan(rps({"optimizer.name=sgd"})).at("bytes").at("held_bytes").as_integer(), 12 * kTrained);
  EXPECT_EQ(plan(spsa()).at("bytes").at("held_bytes").as_integer(), 4 * kTrained);  // no gradients, no moments
  const Json adapter = plan(mos_on(""));
  EXPECT_EQ(adapter.at("parameters").at("frozen").as_integer(), kTrained);
  EXPECT_EQ(adapter.at("bytes").at("held_bytes").as_integer(), 16 * 2048 + 4 * kTrained);
  EXPECT_EQ(adapter.at("bytes").at("dense_bytes").as_integer(), 16 * 3072 + 4 * kWeights);
}

TEST_F(Sharing, ARunServesTheOtherJobsOfTheSameRecipe) {
  const std::string said = expect_done(trainer(rps({"run.dir=run"}))).out;
  EXPECT_THAT(said, AllOf(HasSubstr("2 layers of width 32, 26784 parameters; trained: 7123 (rps)"),
                          HasSubstr("shared weights: run/sharing"), Not(HasSubstr("dense"))));
  EXPECT_FALSE(fs::exists(*this / "run/model"));
  const double trained = metrics("run").back().at("eval_loss").as_number();
  EXPECT_LT(trained, 0.95 * losses("run", "eval").front());

  const test::Ended evaluated = expect_done(trainer(rps({"job=evaluate", "run.dir=run"})));
  EXPECT_EQ(evaluated.err, "the shared weights that the run trained: run/sharing\n");
  EXPECT_EQ(loss_in(evaluated.out), trained);
  EXPECT_EQ(evaluate(rps({"sharing.load=run/sharing", "run.dir=other"})), trained);

  const Words generate = rps({"job=generate", "generate.limit=3", "generate.max_new_tokens=8"});
  expect_done(trainer(joined(generate, {"run.dir=run"})));
  expect_done(trainer(joined(generate, {"run.dir=named", "sharing.load=run/sharing"})));
  expect_done(trainer({"full.toml", "job=generate", "generate.limit=3", "generate.max_new_tokens=8", "run.dir=drawn"}));
  EXPECT_EQ(test::read_file(*this / "run/samples.jsonl"), test::read_file(*this / "named/samples.jsonl"));
  EXPECT_NE(test::read_file(*this / "run/samples.jsonl"), test::read_file(*this / "drawn/samples.jsonl"));

  EXPECT_EQ(expect_done(trainer(rps({"job=export", "run.dir=run", "--quiet"}))).out,
            "dense model (3.76x as many numbers as the shared one): run/model\n");
  EXPECT_NEAR(dense_loss("run") / trained, 1, 1e-5);
}

TEST_F(Sharing, ADenseModelIsWrittenAtTheEndWhenAsked) {
  EXPECT_THAT(expect_done(trainer(rps({"run.dir=run", "train.steps=5", "export.merged=true"}))).out,
              HasSubstr("dense model (3.76x as many numbers as the shared one): run/model"));
  const std::string written = test::read_file(*this / "run/model/model.safetensors");
  EXPECT_NEAR(dense_loss("run") / losses("run", "eval").back(), 1, 1e-5);
  fs::remove_all(*this / "run/model");
  expect_done(trainer(rps({"job=export", "run.dir=run"})));
  EXPECT_EQ(test::read_file(*this / "run/model/model.safetensors"), written);
}

TEST_F(Sharing, EvaluatesTheSameUnderRanksWhichMustSeeTheSameRun) {
  TESSERA_NEEDS_MPI();
  expect_done(trainer(rps({"run.dir=run", "train.steps=5"})));
  EXPECT_NEAR(loss_in(expect_done(ranks(3, rps({"job=evaluate", "run.dir=run"}))).out) / losses("run", "eval").back(),
              1, 1e-9);
  const test::Command differing =
      ranks_with({rps({"job=evaluate", "run.dir=run"}), rps({"job=evaluate", "run.dir=absent"})});
  EXPECT_THAT(expect_exit(2, differing).err, HasSubstr("there are no trained weights: sharing.load is not set and"));
}

TEST_F(Sharing, IsNotThereBeforeTheTrainingHasEnded) {
  expect_done(trainer(rps({"run.dir=run", "train.steps=4", "checkpoint.every=2"})));
  fs::remove_all(*this / "run/sharing");
  forget_end("run");
  for (const char* job : {"job=evaluate", "job=generate", "job=export"})
    EXPECT_THAT(fault(rps({job, "run.dir=run"})), HasSubstr("run\" has not ended: it holds no model yet"));
  EXPECT_FALSE(fs::exists(*this / "run/model"));
}

TEST_F(Sharing, ARunIsNotTakenForOneOfAnotherKind) {
  expect_done(trainer(rps({"run.dir=run", "train.steps=2"})));
  expect_done(trainer({"full.toml", "run.dir=dense", "train.steps=2"}));
  const std::string weights = test::read_file(*this / "dense/model/model.safetensors");
  for (const char* job : {"job=evaluate", "job=generate", "job=export"}) {
    EXPECT_EQ(fault({"full.toml", job, "run.dir=run"}),
              "command line: run.dir: \"run\" holds shared weights, and this recipe has sharing.method = \"none\"\n"
              "  set [sharing] as the run has it in its recipe.toml, or name another folder with run.dir\n");
    EXPECT_THAT(fault(rps({job, "run.dir=dense"})), HasSubstr("\"dense\" holds a dense model and no shared weights"));
  }
  EXPECT_FALSE(fs::exists(*this / "run/model"));
  EXPECT_EQ(test::read_file(*this / "dense/model/model.safetensors"), weights);
  // Once exported, the dense model is the run's own, and no base model is written over it.
  expect_done(trainer(rps({"job=export", "run.dir=run"})));
  const std::string exported = test::read_file(*this / "run/model/model.safetensors");
  EXPECT_NEAR(evaluate({"full.toml", "run.dir=run"}) / losses("run", "eval").back(), 1, 1e-5);
  EXPECT_THAT(fault({"full.toml", "job=export", "run.dir=run"}), HasSubstr("holds shared weights"));
  EXPECT_EQ(test::read_file(*this / "run/model/model.safetensors"), exported);
}

TEST_F(Sharing, GoesOnFromASavedPool) {
  expect_done(trainer(rps({"run.dir=run"})));
  expect_done(trainer(rps({"run.dir=next", "sharing.load=run/sharing", "train.steps=5"})));
  EXPECT_EQ(losses("next", "eval").front(), losses("run", "eval").back());
  EXPECT_EQ(evaluate(rps({"run.dir=next", "sharing.load=run/sharing"})), losses("next", "eval").back());
  expect_done(trainer(rps({"run.dir=short", "sharing.load=run", "train.steps=1"})));  // the run's folder will do
  EXPECT_EQ(losses("short", "eval").front(), losses("run", "eval").back());
}

TEST_F(Sharing, IsNotEvaluatedBeforeItWasTrained) {
  EXPECT_EQ(fault(rps({"job=evaluate", "run.dir=none"})),
            place("[sharing]") + "2: there are no trained weights: sharing.load is not set and \"" +
                std::string("none") +
                "\" holds none\n"
                "  set sharing.load to a folder that a training wrote, or run.dir to the run's folder\n");
}

TEST_F(Sharing, RefusesASavedPoolThatItReadsDifferently) {
  expect_done(trainer(rps({"run.dir=run", "train.steps=2"})));
  const auto refused = [&](const Words& more) {
    const std::string text = fault(joined(rps({"--check", "sharing.load=run/sharing"}), more));
    EXPECT_THAT(text, StartsWith("command line: "));
    return text;
  };
  EXPECT_THAT(refused({"sharing.compression=6"}),
              AllOf(HasSubstr("run/sharing\" was saved with cells 4915, this run has 4096\n"),
                    HasSubstr("  set sharing.pool to the saved number, or sharing.compression to what it was\n")));
  EXPECT_THAT(refused({"sharing.seed=5"}), HasSubstr("was saved with seed 123321, this run has 5\n  set sharing.seed"));
  EXPECT_THAT(refused({"sharing.layout=tile"}), HasSubstr("was saved with layout \"row\", this run has \"tile\""));
  EXPECT_THAT(refused({"sharing.precond=none"}), HasSubstr("was saved with precond \"D\", this run has \"none\""));
  EXPECT_THAT(refused({"sharing.mapper=hashed"}), HasSubstr("mapper \"randomfold\", this run has \"hashed\""));
  EXPECT_THAT(refused({"sharing.min_numel=0"}),
              AllOf(HasSubstr("was saved with weights 24576, this run has 26624\n"),
                    HasSubstr("compare model.path, sharing.shared and sharing.min_numel")));
  EXPECT_THAT(refused({"sharing.sigma_0=1"}), AllOf(HasSubstr("\"lambda\":2.0}"), HasSubstr("\"lambda\":0.08}")));
  replace("base/config.json", "\"intermediate_size\": 64", "\"intermediate_size\": 96");
  EXPECT_THAT(refused({}), HasSubstr("was saved with weights 24576, this run has 30720"));
}

TEST_F(Sharing, RefusesASavedPoolThatIsNotWhole) {
  expect_done(trainer(rps({"run.dir=run", "train.steps=2"})));
  EXPECT_THAT(fault(rps({"sharing.load=absent"})),
              AllOf(HasSubstr("sharing.load \""), HasSubstr("absent\" does not exist")));
  EXPECT_THAT(fault(rps({"sharing.load=base"})),
              HasSubstr("base\" holds no sharing.json\n  name the folder that a run saved its shared weights to"));
  const fs::path description = *this / "run/sharing/sharing.json", numbers = *this / "run/sharing/rps.safetensors";
  const std::string text = test::read_file(description), bytes = test::read_file(numbers);
  std::string altered = text;
  altered.replace(altered.find("\"begin\": 8192"), 13, "\"begin\": 8193");
  test::write_file(description, altered);
  EXPECT_THAT(fault(rps({"sharing.load=run/sharing"})),
              AllOf(HasSubstr("\"begin\":8193"), HasSubstr("this run has {"), HasSubstr("\"begin\":8192")));
  test::write_file(description, text);
  altered = bytes;
  altered[altered.size() / 2] ^= 4;
  test::write_file(numbers, altered);
  for (const Words& words : {rps({"sharing.load=run/sharing"}), rps({"job=evaluate", "run.dir=run"})})
    EXPECT_THAT(fault(words), HasSubstr("the file was altered, or the save was cut short: take another copy"));
}

TEST_F(Sharing, SurvivesKillsToTheSameBits) {
  const Words words = rps({"train.steps=100", "checkpoint.every=3", "optimizer.weight_decay=0.05"});
  expect_done(trainer(joined(words, {"run.dir=straight"})));
  const auto command = trainer(joined(words, {"run.dir=run"}));
  for (const int64_t lines : {5, 20, 40}) interrupt(command, "run", SIGKILL, lines);
  expect_done(command);
  expect_same_run("run");
}

TEST_F(Sharing, SurvivesTheKillOfARankToTheSameBits) {
  TESSERA_NEEDS_MPI();
  const Words words = rps({"train.steps=100", "checkpoint.every=3"});
  expect_done(ranks(2, joined(words, {"run.dir=straight"})));
  const auto command = ranks(2, joined(words, {"run.dir=run"}));
  for (const int victim : {1, 0}) interrupt(command, "run", SIGKILL, 20 + 20 * (1 - victim), victim);
  expect_done(command);
  expect_same_run("run");
}

TEST_F(Sharing, RefusesToGoOnWithAnotherPool) {
  interrupt(trainer(rps({"run.dir=run", "train.steps=100000"})), "run", SIGTERM);
  const auto refused = [&](const Words& more) {
    return fault(joined(rps({"run.dir=run", "train.steps=100000"}), more));
  };
  for (const auto& [key, was, now] : std::vector<std::array<std::string, 3>>{{"compression", "5.0", "6.0"},
                                                                             {"seed", "123321", "5"},
                                                                             {"layout", "\"row\"", "\"tile\""},
                                                                             {"kappa", "\"unit\"", "\"iso\""},
                                                                             {"precond", "\"D\"", "\"none\""},
                                                                             {"method", "\"rps\"", "\"none\""}}) {
    std::string value = now;
    value.erase(std::remove(value.begin(), value.end(), '"'), value.end());
    EXPECT_THAT(
        refused({"sharing." + key + "=" + value}),
        AllOf(HasSubstr("this run cannot go on with another recipe\n"),
              HasSubstr("  sharing." + key + " was " + was + ", now " + now + "\n"), HasSubstr("undo the change")));
  }
  replace("base/config.json", "\"intermediate_size\": 64", "\"intermediate_size\": 96");
  EXPECT_THAT(refused({}),
              AllOf(HasSubstr("this run cannot go on with another base model\n"),
                    HasSubstr("model.path has another config.json now"), HasSubstr("Put it back, or start anew with")));
}

TEST_F(Sharing, FaultsOfTheSectionAreToldWithTheirPlace) {
  const auto at = [](const std::string& key) { return "command line: sharing." + key + ": rps: "; };
  const auto checked = [&](const std::string& override) { return fault(rps({"--check", override})); };
  EXPECT_EQ(checked("sharing.compression=0.5"),
            at("compression") +
                "pool 49,152 is larger than the 24,576 shared weights: nothing to share (use 1x)\n"
                "  set sharing.compression to 1 or more, or sharing.pool to no more than the weights\n");
  EXPECT_EQ(checked("sharing.pool=24577"),
            at("pool") +
                "pool 24,577 is larger than the 24,576 shared weights: nothing to share (use 1x)\n"
                "  set sharing.compression to 1 or more, or sharing.pool to no more than the weights\n");
  EXPECT_EQ(checked("sharing.compression=24577"), at("compression") +
                                                      "24,576 shared weights at 24577x leave no cell\n"
                                                      "  sharing.compression may be 1 .. 24,576\n");
  EXPECT_EQ(checked("sharing.pool=0"),
            "command line: sharing.pool is 0, expected a whole number\n  allowed: at least 1\n");
  EXPECT_THAT(checked("sharing.shared=[\"(\"]"),
              StartsWith("command line: sharing.shared: \"(\" is no regular expression: "));
  EXPECT_THAT(
      checked("sharing.shared=[\"colour\"]"),
      StartsWith("command line: rps: sharing.shared \"colour\" names no matrix of this model\n  name \"linears\""));
  EXPECT_EQ(
      checked("sharing.min_numel=10000000"),
      at("min_numel") + "no tensor is shared\n  lower sharing.min_numel (10000000), or name more in sharing.shared\n");
  EXPECT_THAT(checked("sharing.shared=[]"), HasSubstr("sharing.shared names no weights\n"));
  EXPECT_THAT(fault({"full.toml", "sharing.load=base"}),
              HasSubstr("sharing.load is given, but sharing.method is \"none\"\n"));
  EXPECT_THAT(fault(spsa({"spsa.perturb=layers"})),
              HasSubstr("spsa.perturb = \"layers\" is for weights that are each trained for themselves\n"));
  EXPECT_THAT(checked("export.peft=true"), HasSubstr("there is no dense base that PEFT could put the adapter on\n"));
  for (const char* extreme : {"1e-300", "1e300"})  // its square leaves f64
    EXPECT_THAT(checked(std::string("sharing.sigma_0=") + extreme), HasSubstr("allowed: 1e-12 to 1000000000000"));
  EXPECT_THAT(checked("sharing.methode=rps"), HasSubstr("did you mean \"method\"?"));
}

TEST_F(Sharing, APoolOfOneCellTrainsWithAWarning) {
  EXPECT_THAT(expect_done(trainer(rps({"sharing.pool=1", "run.dir=run", "train.steps=3"}))).out,
              HasSubstr("warning: rps: a pool of 1 cells is shorter than a row of 64: rows repeat themselves"));
  expect_done(trainer(rps({"sharing.compression=1", "run.dir=all", "train.steps=3"})));
}

TEST_F(Sharing, AtOneTimesItIsTheDenseRunBitForBit) {
  const Words more = {"train.clip=0.2", "optimizer.weight_decay=0.1", "export.merged=true"};
  expect_done(trainer(joined(rps({"sharing.compression=1", "run.dir=shared"}), more)));
  expect_done(trainer(joined({"full.toml", "run.dir=dense"}, more)));
  EXPECT_EQ(losses("shared"), losses("dense"));
  EXPECT_EQ(losses("shared", "eval"), losses("dense", "eval"));
  EXPECT_EQ(test::read_file(*this / "shared/model/model.safetensors"),
            test::read_file(*this / "dense/model/model.safetensors"));
}

TEST_F(Sharing, PruningOfStoredWeightsEndsWithADenseModelBecauseItsMaskIsNotSaved) {
  expect_done(trainer({"full.toml", "run.dir=base-run", "train.steps=3"}));
  Words words = rps({"sharing.method=magnitude", "model.path=base-run/model", "train.steps=3", "run.dir=run"});
  const std::string said = expect_done(trainer(joined(words, {"model.init=pretrained"}))).out;
  EXPECT_THAT(said, ContainsRegex("dense model [(]3[.]7[0-9]*x as many numbers as the shared one[)]: "));
  EXPECT_THAT(fault(joined(words, {"model.init=pretrained", "job=evaluate"})),
              HasSubstr("use the dense model that the run wrote beside it, with sharing.method = \"none\""));
  EXPECT_EQ(dense_loss("run"), losses("run", "eval").back());
}

TEST_F(Sharing, ACellThatBreaksIsNamedWithItsReaders) {
  // The first step moves a norm by the rate, and a cell by about sqrt(5) times as much: only cells leave f32.
  const std::string text = fault(rps({"run.dir=run", "optimizer.lr=3e38"}));
  EXPECT_THAT(text, ContainsRegex("^step [0-9]+: the loss or the gradient is not finite: value -?inf of cell [0-9]+ of "
                                  "rps[.]pool, read by [56] weights: model[.].+[[][0-9]+, [0-9]+[]], "));
}

TEST_F(Sharing, TakesTheMemoryThatThePlanSays) {
  replace("base/config.json", "\"hidden_size\": 32", "\"hidden_size\": 512");
  replace("base/config.json", "\"intermediate_size\": 64", "\"intermediate_size\": 4096");
  replace("base/config.json", "\"head_dim\": 8", "\"head_dim\": 128");
  replace("base/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
  const auto peak = [&](const std::string& run, const Words& more) {
    expect_done(trainer(joined(rps({"run.dir=" + run, "train.steps=2", "train.batch=1", "train.sequence_length=32",
                                    "evaluate.rows=1", "sharing.compression=10"}),
                               more)));
    double bytes = 0;
    for (const Json& line : metrics(run))
      if (const Json* found = line.find("peak_rss_bytes")) bytes = std::max(bytes, found->as_number());
    return bytes;
  };
  const Json bytes = plan(rps({"train.batch=1", "train.sequence_length=32", "sharing.compression=10"})).at("bytes");
  const double dense = bytes.at("dense_bytes").as_number(), held = bytes.at("held_bytes").as_number();
  EXPECT_GT(dense, 300e6);
  EXPECT_LT(held, 0.12 * dense);
  const double shared = peak("shared", {});
  replace("base/config.json", "\"hidden_size\": 512", "\"hidden_size\": 16");
  replace("base/config.json", "\"intermediate_size\": 4096", "\"intermediate_size\": 16");
  const double program = peak("nothing", {"sharing.min_numel=0"});
  // Beside the plan: the program itself, and 8 MB for what grows with neither.
  // An index a weight would be 80 MB and more.
  EXPECT_LT(shared - program, held + bytes.at("activations").as_number() + 8e6);
  EXPECT_LT(shared - program, 0.12 * dense + bytes.at("activations").as_number());
}

}  // namespace
}  // namespace tessera
