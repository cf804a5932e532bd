// One-byte SPSA end to end: many ranks, processes that share a folder, what is kept of the log,
// and what a user may get wrong.

#include <gmock/gmock.h>

#include "cli/spsa_runs.h"
#include "core/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::AllOf;
using testing::HasSubstr;

TEST_F(Spsa, TrainsEveryKindOfPoolAndLeavesAFolderLikeAnyRun) {
  for (const std::string method : {"full", "lora", "mos"}) {
    const test::Ended ended = expect_done(trainer({"spsa_" + method + ".toml", "run.dir=" + method}));
    EXPECT_THAT(ended.out, HasSubstr("sent by a machine in a round: 31 bytes; no gradients, no saved activations"));
    EXPECT_THAT(ended.out, HasSubstr("digest "));
    for (const Json& line : metrics(method)) {
      if (!line.find("split") || line.at("split").as_string() != "train") continue;
      EXPECT_EQ(line.at("votes").as_integer(), 2);
      EXPECT_EQ(line.at("votes_valid").as_number(), 1);
      EXPECT_GT(line.at("vote_rms").as_number(), 0);
      EXPECT_EQ(line.at("unit").as_integer(), 9);
    }
    EXPECT_EQ(losses(method).size(), 50u);
    EXPECT_TRUE(fs::exists(*this / method / (method == "full" ? "model/model.safetensors" : "adapter/adapter.json")));
    EXPECT_TRUE(fs::exists(*this / method / "checkpoints/round-00000050.safetensors"));
    EXPECT_FALSE(saved_bytes(method).empty());
  }
}

TEST_F(Spsa, ThePlanTellsOfNoGradientsAndOfAVote) {
  const Json spsa = Json::parse(expect_done(trainer({"spsa_full.toml", "--check", "--json"})).out, "plan");
  const Json backprop = Json::parse(
      expect_done(trainer({"spsa_full.toml", "--check", "--json", "train.estimator=backprop", "train.batch=2"})).out,
      "plan");
  EXPECT_EQ(spsa.at("wire_bytes_per_step").as_integer(), 31);
  const auto weights = [](const Json& plan) { return plan.at("bytes").at("weights_and_gradients").as_integer(); };
  EXPECT_EQ(2 * weights(spsa), weights(backprop));
  EXPECT_EQ(spsa.at("bytes").at("optimizer").as_integer(), 0);
}

TEST_F(Spsa, RepeatsItselfToTheBitForAnyNumberOfThreads) {
  expect_done(trainer({"spsa_lora.toml", "run.dir=a"}));
  expect_done(trainer({"spsa_lora.toml", "run.dir=b", "run.threads=3"}));
  EXPECT_EQ(saved_bytes("a"), saved_bytes("b"));
  EXPECT_EQ(timeless_metrics("a"), timeless_metrics("b"));
  EXPECT_EQ(log_bytes("a"), log_bytes("b"));
}

TEST_F(Spsa, AllRanksEndWithOneDigestAndOneVoteEach) {
  TESSERA_NEEDS_MPI();
  for (const int count : {1, 2, 4, 8}) {
    const std::string run = "ranks" + std::to_string(count);
    const test::Ended ended =
        expect_done(ranks(count, {"spsa_mos.toml", "run.dir=" + run, "spsa.logs=every", "train.steps=20"}));
    if (count > 1) {
      EXPECT_THAT(ended.out, HasSubstr(" on all " + std::to_string(count) + " ranks"));
    }
    for (int rank = 1; rank < count; ++rank)
      EXPECT_EQ(log_bytes(run, "log-rank-0000" + std::to_string(rank)), log_bytes(run)) << "rank " << rank;
    for (const Json& line : metrics(run)) {
      if (!line.find("split") || line.at("split").as_string() != "train") continue;
      EXPECT_EQ(line.at("votes").as_integer(), 2 * count);
      // A length, 19 bytes around a vote, its probes, the loss, now and then a digest; rank 0 adds its terms.
      // No JSON, no floats.
      const int64_t step = line.at("step").as_integer(), digest = step > 1 && step % 5 == 1 ? 16 : 0;
      EXPECT_EQ(line.at("bytes_up").as_integer(), 8 + 19 + 2 + 2 + 8 + digest);
      EXPECT_EQ(line.at("bytes_down").as_integer(), (count - 1) * (8 + 19 + 2 + 2 + digest));
    }
  }
}

TEST_F(Spsa, ThreeProcessesThatShareAFolderEndWithOneDigestThoughOneIsKilled) {
  const auto machine = [&](int k) {
    return trainer({"spsa_lora.toml", "run.dir=shared", "spsa.transport=file", "spsa.machines=3",
                    "spsa.machine=" + std::to_string(k), "train.steps=30"});
  };
  test::Process first(machine(0)), second(machine(1));
  auto third = std::make_unique<test::Process>(machine(2));
  wait_for_lines("shared", 10);
  third->send(SIGKILL);
  third->wait();
  third = std::make_unique<test::Process>(machine(2));
  for (test::Process* process : {&first, &second, third.get()}) {
    const test::Ended ended = process->wait(120);
    EXPECT_EQ(ended.exit_code, 0) << ended.out << ended.err;
  }
  EXPECT_EQ(digest("shared").size(), 32u);
  EXPECT_EQ(digest("shared"), digest("shared/machine-00001"));
  EXPECT_EQ(digest("shared"), digest("shared/machine-00002"));
  EXPECT_EQ(saved_bytes("shared"), saved_bytes("shared/machine-00002"));
  EXPECT_EQ(losses("shared").size(), 30u);
}

TEST_F(Spsa, OldRoundsAreArchivedOrDroppedBehindASnapshot) {
  int64_t bytes[3];
  const char* ways[] = {"keep", "archive", "drop"};
  for (int i = 0; i < 3; ++i) {
    const std::string way = ways[i];
    expect_done(trainer({"spsa_lora.toml", "run.dir=" + way, "spsa.compact=" + way, "checkpoint.keep=1",
                         "train.steps=45", "checkpoint.every=20", "train.batch=1"}));
    bytes[i] = 0;
    for (const auto& entry : fs::directory_iterator(*this / way / "log"))
      if (entry.path().extension() != ".json") bytes[i] += static_cast<int64_t>(fs::file_size(entry));
    EXPECT_EQ(digest(way), digest("keep"));
  }
  EXPECT_LT(bytes[1], bytes[0]);
  EXPECT_LT(bytes[2], bytes[1]);
}

TEST_F(Spsa, EveryRanksLogIsCompactedAndDroppedOnlyWhereSnapshotsAre) {
  TESSERA_NEEDS_MPI();
  for (const std::string way : {"archive", "drop"}) {
    expect_done(ranks(2, {"spsa_lora.toml", "run.dir=" + way, "spsa.compact=" + way, "spsa.logs=every",
                          "checkpoint.keep=1", "checkpoint.every=6", "train.steps=14"}));
    EXPECT_TRUE(fs::exists(*this / way / "log-rank-00001/00000000.tsa"));
    EXPECT_EQ(fs::exists(*this / way / "log/00000000.tsa"), way == "archive");
    const Json own = Json::parse(expect_done(trainer({"log", way + "/log-rank-00001", "--json"})).out, "log");
    EXPECT_EQ(own.at("first_round").as_integer(), 0);
    EXPECT_EQ(own.at("round").as_integer(), 14);
  }
}

TEST_F(Spsa, LossesStayOutOfTheLogAndInTheMetrics) {
  expect_done(trainer({"spsa_lora.toml", "run.dir=with", "train.steps=12"}));
  expect_done(trainer({"spsa_lora.toml", "run.dir=without", "train.steps=12", "spsa.log_loss=false"}));
  EXPECT_EQ(digest("without"), digest("with"));
  EXPECT_EQ(losses("without"), losses("with"));
  EXPECT_EQ(log_bytes("with").size() - log_bytes("without").size(), 12 * 2u);
  const Json log = Json::parse(expect_done(trainer({"log", "without", "--json"})).out, "log");
  EXPECT_EQ(log.at("rounds").items()[0].find("loss"), nullptr);
  const Json line = Json::parse(
      expect_done(trainer({"spsa_lora.toml", "job=replay", "replay.log=without", "run.dir=again"})).out, "replay");
  EXPECT_EQ(line.at("digest").as_string(), digest("with"));
}

TEST_F(Spsa, LearnsTheCopyTask) {
  expect_done(trainer(
      {"spsa_lora.toml", "run.dir=run", "train.steps=150", "spsa.probes=8", "optimizer.lr=1e-2", "run.threads=2"}));
  const auto held_out = losses("run", "eval");
  EXPECT_LT(held_out.back(), held_out.front() - 0.2);
}

TEST_F(Spsa, ABaseWithABrokenWeightIsNamedAndNothingIsTrained) {
  expect_done(trainer({"full.toml", "run.dir=made", "train.steps=1", "train.estimator=backprop"}));
  const fs::path file = *this / "made/model/model.safetensors";
  std::string bytes = test::read_file(file);
  for (int i = 1; i <= 4; ++i) bytes[bytes.size() - i * 64] = bytes[bytes.size() - i * 64 + 1] = '\xff';
  for (int i = 1; i <= 40; ++i) bytes[bytes.size() - i] = '\xff';
  test::write_file(file, bytes);
  fs::remove(*this / "made/model/tessera.json");  // the seal would name the change first
  const test::Ended ended =
      expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "model.path=made/model", "model.init=pretrained"}));
  EXPECT_THAT(ended.err, HasSubstr("the base model is damaged"));
}

TEST_F(Spsa, TheFolderThatMachinesShareIsNotOneOfTheirOwn) {
  for (const std::string shared : {"run", "run/log"}) {
    fs::create_directories(*this / shared);
    EXPECT_THAT(
        expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "spsa.transport=file", "spsa.shared=" + shared})).err,
        HasSubstr("is what this machine writes alone"));
  }
}

TEST_F(Spsa, RanksOfOneJobAreNotProcessesThatShareAFolder) {
  TESSERA_NEEDS_MPI();
  const test::Ended ended =
      expect_exit(2, ranks(2, {"spsa_lora.toml", "run.dir=run", "spsa.transport=file", "spsa.machines=2"}));
  EXPECT_THAT(ended.err, HasSubstr("spsa.transport = \"file\" under 2 ranks of one job"));
}

TEST_F(Spsa, SaysThatARunDivergedAndNeedsNoWordOfMomentum) {
  std::string text = test::read_file(*this / "spsa_lora.toml");
  replace(text, "momentum = 0\n", "");
  test::write_file(*this / "plain.toml", text);
  expect_done(trainer({"plain.toml", "run.dir=plain"}));
  expect_done(trainer({"spsa_lora.toml", "run.dir=spelled"}));
  EXPECT_EQ(digest("plain"), digest("spelled"));
  EXPECT_THAT(test::read_file(*this / "plain/recipe.toml"), HasSubstr("momentum = 0"));
  EXPECT_THAT(expect_done(trainer({"spsa_full.toml", "run.dir=wild", "optimizer.lr=0.1", "train.steps=20"})).out,
              HasSubstr("warning: the held-out loss rose"));
}

TEST_F(Spsa, SettingsThatDoNotGoTogetherAreFaultsOfTheRecipe) {
  const auto fault = [&](const Words& more) {
    return expect_exit(2, trainer(joined({"spsa_lora.toml", "run.dir=run"}, more))).err;
  };
  EXPECT_THAT(fault({"adapter.dropout=0.1"}), HasSubstr("SPSA compares losses of the same rows"));
  EXPECT_THAT(fault({"spsa.normalise=true"}), HasSubstr("set spsa.sides = \"one\""));
  EXPECT_THAT(fault({"spsa.votes=float32", "spsa.probes=64"}), HasSubstr("at most 255 bytes"));
  EXPECT_THAT(fault({"spsa.directions=pool", "optimizer.momentum=0.9"}), HasSubstr("optimizer.momentum = 0"));
  EXPECT_THAT(fault({"spsa.transport=file", "spsa.machine=3", "spsa.machines=3"}), HasSubstr("numbered 0 .. 2"));
  EXPECT_THAT(fault({"train.clip=0.5"}), HasSubstr("train.clip bounds gradients, and SPSA has none"));
  EXPECT_THAT(fault({"train.checkpoint_activations=true"}), HasSubstr("SPSA keeps no activations"));
  EXPECT_THAT(fault({"spsa.eps=0"}), HasSubstr("spsa.eps"));
  EXPECT_THAT(fault({"spsa.eps=1e-46"}), HasSubstr("beyond the range of f32"));
  EXPECT_THAT(fault({"spsa.eps=1e39"}), HasSubstr("beyond the range of f32"));
  EXPECT_THAT(fault({"optimizer.lr=1e30"}), HasSubstr("at most 1e20"));
  EXPECT_THAT(fault({"optimizer.weight_decay=600"}), HasSubstr("less than a half"));
  EXPECT_THAT(fault({"spsa.probes=256"}), HasSubstr("255"));
}

}  // namespace
}  // namespace tessera
