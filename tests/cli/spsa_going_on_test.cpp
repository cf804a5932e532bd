// Runs of one-byte SPSA that are killed, stopped or gone on with in another way.

#include <gmock/gmock.h>

#include <random>

#include "cli/spsa_runs.h"
#include "core/error.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::AllOf;
using testing::HasSubstr;

class SpsaGoingOn : public Spsa {};

TEST_F(SpsaGoingOn, KilledTwentyTimesAnywhereLosesNoRoundAndEndsInTheSameBits) {
  const Words more = {"train.steps=1200", "evaluate.every=170", "checkpoint.every=100", "log.progress=none"};
  const auto command = [&](const std::string& run) { return joined({"spsa_mos.toml", "run.dir=" + run}, more); };
  expect_done(trainer(command("straight")));
  std::mt19937 random(test::random_seed());
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

TEST_F(SpsaGoingOn, AKilledJobOfRanksGoesOnAlsoWhenTheirLogsDiffer) {
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

TEST_F(SpsaGoingOn, GoesOnUnderAnotherNumberOfRanks) {
  TESSERA_NEEDS_MPI();
  test::Process process(ranks(2, {"spsa_mos.toml", "run.dir=run", "train.steps=200"}));
  wait_for_lines("run", 8);
  process.send(SIGUSR1);
  EXPECT_EQ(process.wait().exit_code, 130);
  expect_done(ranks(3, {"spsa_mos.toml", "run.dir=run", "train.steps=200"}));
  EXPECT_EQ(losses("run").size(), 200u);
  EXPECT_EQ(metrics("run").at(metrics("run").size() - 3).at("votes").as_integer(), 6);
}

TEST_F(SpsaGoingOn, EpochsGoOnUnderAnotherNumberOfRanksWithWhatIsLeftOfThem) {
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

TEST_F(SpsaGoingOn, OtherFamiliesVotesSidesAndOptimizersTrainAndGoOn) {
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

TEST_F(SpsaGoingOn, RefusesToGoOnWithOtherSettingsDataOrBase) {
  expect_done(trainer({"spsa_lora.toml", "run.dir=run", "train.steps=10"}));
  fs::path metrics_file = *this / "run/metrics.jsonl";
  std::string text = test::read_file(metrics_file);
  test::write_file(metrics_file, text.substr(0, text.find("{\"event\"")));
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=20", "spsa.eps=2e-2"})).err,
              HasSubstr("spsa.eps was 0.01, now 0.02"));
  fs::remove(*this / "run/run.json");
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=20", "spsa.eps=2e-2"})).err,
              AllOf(HasSubstr("header.json: this run cannot go on with another recipe\n"),
                    HasSubstr("spsa.eps was 0.01, now 0.02\n"), HasSubstr("run.resume=never")));
}

TEST_F(SpsaGoingOn, ARefusedAttemptLeavesTheRunAsItWas) {
  stop_after(12, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=300"}));
  fs::remove(*this / "run/run.json");
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "spsa.eps=2e-2"})).err,
              HasSubstr("spsa.eps was 0.01, now 0.02"));
  EXPECT_FALSE(fs::exists(*this / "run/run.json"));
  expect_done(trainer({"spsa_lora.toml", "run.dir=run", "train.steps=300"}));
  EXPECT_THAT(expect_exit(2, trainer({"lora.toml", "run.dir=run", "train.steps=300"})).err,
              HasSubstr("train.estimator was \"spsa\", now \"backprop\""));
  test::write_file(*this / "run/run.json", "{\"recipe\": 5}");
  fs::remove(*this / "run/metrics.jsonl");
  EXPECT_THAT(expect_exit(2, trainer({"spsa_lora.toml", "run.dir=run", "train.steps=300"})).err,
              HasSubstr("run.json: "));
}

TEST_F(SpsaGoingOn, ARunThatHasEndedIsMadeLongerByABranchOnly) {
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

TEST_F(SpsaGoingOn, RanksWithoutALogTakeOneWhoseFirstRoundsWereDropped) {
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

TEST_F(SpsaGoingOn, EveryMachineCanRebuildFromWhatItKeeps) {
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

TEST_F(SpsaGoingOn, AFinishedRunDoesNotPassForOneOfOtherSettings) {
  const Words words = {"spsa_lora.toml", "run.dir=run", "train.steps=5"};
  expect_done(trainer(words));
  EXPECT_THAT(expect_done(trainer(words)).out, HasSubstr("\"event\":\"done\""));
  Words other = words;
  other.push_back("optimizer.lr=1e-5");
  EXPECT_THAT(expect_exit(2, trainer(other)).err, HasSubstr("job=replay replay.branch=FOLDER"));
  EXPECT_THAT(expect_done(trainer(words)).out, HasSubstr("\"event\":\"done\""));
}

}  // namespace
}  // namespace tessera
