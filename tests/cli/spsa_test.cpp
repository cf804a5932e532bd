// One-byte SPSA end to end: many ranks, processes that share a folder, kills at any moment, and what a user may get wrong.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <random>

#include "core/error.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class Spsa : public test::Workbench {
 protected:
  Spsa() {
    const std::string base = test::read_file(*this / "mos.toml");
    for (const char* method : {"full", "lora", "mos"}) {
      std::string text = test::read_file(*this / (std::string(method) + ".toml"));
      replace(text, "dropout = 0.1\n", "");
      replace(text, "batch = 24", "batch = 2\nestimator = \"spsa\"");
      replace(text, "lr = 0.00" + std::string(std::string(method) == "full" ? "3" : "5"),
              "name = \"sgd\"\nmomentum = 0\nschedule = \"constant\"\nlr = 1e-3");
      text += "[spsa]\nprobes = 2\neps = 1e-2\ndigest_every = 5\n[checkpoint]\nevery = 10\n";
      test::write_file(*this / ("spsa_" + std::string(method) + ".toml"), text);
    }
  }
  static void replace(std::string& text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    ASSERT_TRUE(at != std::string::npos || from.substr(0, 7) == "dropout") << from << " in\n" << text;
    if (at != std::string::npos) text.replace(at, from.size(), to);
  }
  std::string digest(const std::string& run) const {
    const std::string log = test::read_file(*this / run / "log.txt");
    const size_t at = log.rfind("digest ");
    return at == std::string::npos ? "none" : log.substr(at + 7, 32);
  }
  /// Asks the run "run" to stop when its metrics have so many lines.
  void stop_after(int64_t count, const test::Command& command) const {
    test::Process process(command);
    wait_for_lines("run", count);
    process.send(SIGUSR1);
    EXPECT_EQ(process.wait().exit_code, 130);
  }
  std::string log_bytes(const std::string& run, const std::string& log = "log") const {
    return test::read_file(*this / run / log / "00000000.tsb");
  }
};

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
      // A length, 19 bytes around a vote, its probes, the loss, now and then a digest; rank 0 adds its terms. No JSON, no floats.
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

TEST_F(Spsa, KilledTwentyTimesAnywhereLosesNoRoundAndEndsInTheSameBits) {
  const Words more = {"train.steps=1200", "evaluate.every=170", "checkpoint.every=100", "log.progress=none"};
  const auto command = [&](const std::string& run) { return joined({"spsa_mos.toml", "run.dir=" + run}, more); };
  expect_done(trainer(command("straight")));
  std::mt19937 random(std::random_device{}());
  uint64_t rounds_before = 0;
  int kills = 0;
  while (kills < 20) {
    test::Process process(trainer(command("run")));
    test::sleep_seconds(0.02 + 0.0001 * static_cast<double>(random() % 1000));
    if (!process.running()) break;  // a fast machine may be done before the twentieth
    process.send(SIGKILL);
    process.wait();
    ++kills;
    const fs::path log = *this / "run/log/00000000.tsb";
    const uint64_t size = fs::exists(log) ? fs::file_size(log) : 0;
    EXPECT_GE(size + 400, rounds_before) << "records were lost";  // a torn tail at most
    rounds_before = size;
  }
  expect_done(trainer(command("run")));
  EXPECT_EQ(digest("run"), digest("straight")) << kills << " kills";
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
  // The same rounds; a kill behind a round may cost the digest record that would have followed it.
  EXPECT_NEAR(static_cast<double>(log_bytes("run").size()), static_cast<double>(log_bytes("straight").size()), 20 * 88);
  EXPECT_GE(kills, 10);
  EXPECT_EQ(losses("run").size(), 1200u);
  EXPECT_EQ(losses("run", "eval"), losses("straight", "eval"));
}

TEST_F(Spsa, AKilledJobOfRanksGoesOnAlsoWhenTheirLogsDiffer) {
  TESSERA_NEEDS_MPI();
  const Words words = {"spsa_lora.toml", "run.dir=run", "spsa.logs=every", "train.steps=40"};
  Words straight = words;
  straight[1] = "run.dir=straight";
  expect_done(ranks(3, straight));
  {
    test::Process process(ranks(3, words));
    wait_for_lines("run", 8);
    const auto children = process.children();
    ASSERT_EQ(children.size(), 3u);
    kill(children[1], SIGKILL);
    process.wait();
  }
  // Rank 0 is the one whose log is behind: the longest log counts.
  const std::string log = log_bytes("run");
  test::write_file(*this / "run/log/00000000.tsb", log.substr(0, log.size() * 2 / 3));
  expect_done(ranks(3, words));
  EXPECT_EQ(digest("run"), digest("straight"));
  for (const char* folder : {"log-rank-00001", "log-rank-00002"})
    EXPECT_EQ(log_bytes("run", folder), log_bytes("run")) << folder;
}

TEST_F(Spsa, GoesOnUnderAnotherNumberOfRanks) {
  TESSERA_NEEDS_MPI();
  test::Process process(ranks(2, {"spsa_mos.toml", "run.dir=run", "train.steps=200"}));
  wait_for_lines("run", 8);
  process.send(SIGUSR1);
  EXPECT_EQ(process.wait().exit_code, 130);
  expect_done(ranks(3, {"spsa_mos.toml", "run.dir=run", "train.steps=200"}));
  EXPECT_EQ(losses("run").size(), 200u);
  EXPECT_EQ(metrics("run").at(metrics("run").size() - 3).at("votes").as_integer(), 6);
}

TEST_F(Spsa, EpochsGoOnUnderAnotherNumberOfRanksWithWhatIsLeftOfThem) {
  TESSERA_NEEDS_MPI();
  std::string text = test::read_file(*this / "spsa_mos.toml");
  replace(text, "steps = 50", "epochs = 30.0");
  test::write_file(*this / "epochs.toml", text);
  const Words words = {"epochs.toml", "run.dir=run", "log.progress=none"};
  stop_after(9, ranks(2, words));
  const auto done = static_cast<int64_t>(losses("run").size());
  expect_done(trainer(words));
  const std::string said = test::read_file(*this / "run/log.txt");
  const int64_t rows = std::stoll(said.substr(said.find("data: ") + 6)), read = done * 2 * 2 * 2,
                left = (30 * rows - read + 3) / 4;
  EXPECT_THAT(said,
              HasSubstr(fmt::format("{} rows are read so far; what is left of the epochs takes {} steps", read, left)));
  EXPECT_EQ(static_cast<int64_t>(losses("run").size()), done + left);
  // Killed behind its last record, it is done for any number of ranks.
  const std::string lines = test::read_file(*this / "run/metrics.jsonl");
  for (const int count : {1, 2}) {
    test::write_file(*this / "run/metrics.jsonl", lines.substr(0, lines.find("{\"event\"")));
    expect_done(ranks(count, words));
    EXPECT_EQ(metrics("run").back().at("step").as_integer(), done + left);
  }
}

TEST_F(Spsa, OtherFamiliesVotesSidesAndOptimizersTrainAndGoOn) {
  const std::vector<Words> variants = {{"spsa.directions=shared"},
                                       {"spsa.directions=hadamard"},
                                       {"spsa.directions=pool", "spsa.pool_size=64"},
                                       {"spsa.votes=sign"},
                                       {"spsa.votes=float32"},
                                       {"spsa.sides=one", "spsa.probes=5", "spsa.side_by_side=3"},
                                       {"spsa.sides=one", "spsa.probes=4", "spsa.normalise=true"},
                                       {"optimizer.momentum=0.9"},
                                       {"optimizer.name=adamw", "optimizer.weight_decay=0.1"},
                                       {"spsa.compact=archive", "checkpoint.keep=1"},
                                       {"spsa.compact=drop", "checkpoint.keep=1"}};
  for (size_t i = 0; i < variants.size(); ++i) {
    const std::string straight = std::string("s").append(std::to_string(i)),
                      run = std::string("r").append(std::to_string(i));
    const auto command = [&](const std::string& name) {
      Words words = {"spsa_lora.toml", "run.dir=" + name, "train.steps=24", "checkpoint.every=10"};
      words.insert(words.end(), variants[i].begin(), variants[i].end());
      return trainer(words);
    };
    expect_done(command(straight));
    {
      test::Process process(command(run));
      wait_for_lines(run, 14);
      process.send(SIGKILL);
      process.wait();
    }
    expect_done(command(run));
    EXPECT_EQ(digest(run), digest(straight)) << testing::PrintToString(variants[i]);
    EXPECT_EQ(digest(run).size(), 32u);
  }
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

TEST_F(Spsa, RefusesToGoOnWithOtherSettingsDataOrBase) {
  expect_done(trainer({"spsa_lora.toml", "run.dir=run", "train.steps=10"}));
  fs::path metrics_file = *this / "run/metrics.jsonl";
  std::string text = test::read_file(metrics_file);
  test::write_file(metrics_file, text.substr(0, text.find("{\"event\"")));
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=20", "spsa.eps=2e-2"})).err,
              HasSubstr("spsa.eps was 0.01, now 0.02"));
  fs::remove(*this / "run/run.json");
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=20", "spsa.eps=2e-2"})).err,
              HasSubstr("\"eps\""));
}

TEST_F(Spsa, ARefusedAttemptLeavesTheRunAsItWas) {
  stop_after(12, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=300"}));
  fs::remove(*this / "run/run.json");
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "spsa.eps=2e-2"})).err, HasSubstr("\"eps\""));
  EXPECT_FALSE(fs::exists(*this / "run/run.json"));
  expect_done(trainer({"spsa_lora.toml", "run.dir=run", "train.steps=300"}));
  EXPECT_THAT(expect_exit(2, trainer({"lora.toml", "run.dir=run", "train.steps=300"})).err,
              HasSubstr("train.estimator was \"spsa\", now \"backprop\""));
  test::write_file(*this / "run/run.json", "{\"recipe\": 5}");
  fs::remove(*this / "run/metrics.jsonl");
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=300"})).err,
              HasSubstr("run.json: "));
}

TEST_F(Spsa, ARunThatHasEndedIsMadeLongerByABranchOnly) {
  expect_done(trainer({"spsa_lora.toml", "run.dir=run", "train.steps=10"}));
  fs::remove(*this / "run/run.json");
  fs::remove(*this / "run/metrics.jsonl");
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=20"})).err,
              AllOf(HasSubstr("the run has ended with round 10, and 20 steps are asked for"),
                    HasSubstr("job=replay replay.branch=FOLDER, then train with run.dir=FOLDER")));
  expect_done(trainer({"spsa_lora.toml", "run.dir=run", "train.steps=20", "job=replay", "replay.branch=longer"}));
  expect_done(trainer({"spsa_lora.toml", "run.dir=longer", "train.steps=20"}));
  EXPECT_EQ(losses("longer").size(), 20u);
}

TEST_F(Spsa, RanksWithoutALogTakeOneWhoseFirstRoundsWereDropped) {
  TESSERA_NEEDS_MPI();
  const Words words = {"spsa_mos.toml",     "run.dir=run",       "train.steps=200",
                       "spsa.compact=drop", "checkpoint.keep=1", "checkpoint.every=5"};
  stop_after(14, trainer(words));
  ASSERT_FALSE(fs::exists(*this / "run/log/00000000.tsb"));
  Words more = words;
  more.push_back("spsa.logs=every");
  EXPECT_THAT(expect_done(ranks(2, more)).out, HasSubstr(" on all 2 ranks"));
  const Json own = Json::parse(expect_done(trainer({"log", "run/log-rank-00001", "--json"})).out, "log");
  const Json first = Json::parse(expect_done(trainer({"log", "run", "--json"})).out, "log");
  EXPECT_EQ(own.at("round").as_integer(), 200);
  EXPECT_GT(own.at("first_round").as_integer(), 0);
  EXPECT_EQ(own.at("snapshots").items().back().dump(), first.at("snapshots").items().back().dump());
}

TEST_F(Spsa, EveryMachineCanRebuildFromWhatItKeeps) {
  const auto machine = [&](int k) {
    return trainer({"spsa_lora.toml", "run.dir=shared", "spsa.transport=file", "spsa.machines=2", "train.steps=23",
                    "spsa.compact=drop", "checkpoint.keep=1", "checkpoint.every=4",
                    "spsa.machine=" + std::to_string(k)});
  };
  test::Process first(machine(0)), second(machine(1));
  for (test::Process* process : {&first, &second}) EXPECT_EQ(process->wait(120).exit_code, 0);
  // Whoever is first tells of a snapshot; each keeps the newest, and the rounds since.
  for (const std::string folder : {"shared", "shared/machine-00001"}) {
    EXPECT_FALSE(fs::exists(*this / folder / "log/00000000.tsb"));
    const test::Ended ended = expect_done(trainer({"spsa_lora.toml", "job=replay", "replay.from_base=false",
                                                   "replay.log=" + folder, "run.dir=" + folder + "-r"}));
    EXPECT_THAT(ended.out, HasSubstr("\"digest\":\"" + digest("shared")));
  }
  // Without the shared log there is nobody who has the first rounds: said, not waited for.
  fs::remove_all(*this / "shared/engine");
  fs::remove(*this / "shared/metrics.jsonl");
  EXPECT_THAT(expect_exit(2, machine(0)).err, HasSubstr("the shared log lacks the records before number"));
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

TEST_F(Spsa, AFinishedRunDoesNotPassForOneOfOtherSettings) {
  const Words words = {"spsa_lora.toml", "run.dir=run", "train.steps=5"};
  expect_done(trainer(words));
  EXPECT_THAT(expect_done(trainer(words)).out, HasSubstr("\"event\":\"done\""));
  Words other = words;
  other.push_back("optimizer.lr=1e-5");
  EXPECT_THAT(expect_exit(2, trainer(other)).err, HasSubstr("job=replay replay.branch=FOLDER"));
  EXPECT_THAT(expect_done(trainer(words)).out, HasSubstr("\"event\":\"done\""));
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
