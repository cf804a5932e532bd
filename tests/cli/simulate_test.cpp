// trainer simulate: a run of many nodes in one process, whose log is one like any other.

#include <gmock/gmock.h>

#include "core/json.h"
#include "io/files.h"
#include "support/workbench.h"

namespace tessera {
namespace {

using testing::HasSubstr;

class Simulate : public test::Workbench {
 protected:
  /// On the workbench's model: LoRA, 3 probes of 2 rows.
  test::Command simulate(const std::string& nodes, const Words& more = {}) const {
    return trainer(joined({"simulate", "spsa.toml", "--nodes", nodes, "run.dir=run", "run.threads=1"}, more));
  }
  /// Of 300 nodes: the quadratic.
  test::Command many(const std::string& run, const Words& more = {}) const {
    return simulate("300",
                    joined({"spsa.probes=4", "optimizer.lr=0.1", "optimizer.schedule=constant", "spsa.digest_every=10",
                            "spsa.absent_limit=3", "simulate.rounds=40", "run.dir=" + run},
                           more));
  }
  Json report(const std::string& run = "run") const {
    return Json::parse(test::read_file(*this / run / "simulate.json"), "simulate.json");
  }
  std::string timeless(const std::string& run) const {
    const Json found = report(run);
    std::string text;
    for (const auto& [key, value] : found.members())
      if (key != "wall_seconds") text += key + " = " + value.dump() + "\n";
    return text;
  }
  int64_t count(const std::string& key, const std::string& run = "run") const {
    return report(run).at(key).as_integer();
  }
};

TEST_F(Simulate, ASimulationOfTheRecipesModelIsReplayedToTheSameWeights) {
  expect_done(simulate("5", {"simulate.rounds=12"}));
  EXPECT_EQ(report().at("losses").as_string(), "model");
  EXPECT_EQ(count("rounds"), 12);
  EXPECT_EQ(count("divergence"), 0);
  EXPECT_EQ(count("digests_compared"), 2 * 5) << "behind round 8 and at the end";
  const auto replayed =
      expect_done(trainer({"spsa.toml", "job=replay", "replay.log=run", "run.dir=weights", "run.threads=1"}));
  EXPECT_EQ(Json::parse(replayed.out, "replay").at("digest").as_string(), report().at("digest").as_string());
  expect_done(trainer({"spsa.toml", "job=evaluate", "run.dir=weights"}));
  EXPECT_THAT(expect_done(trainer({"log", "run"})).out, HasSubstr("rounds      12, ended"));
}

TEST_F(Simulate, LateVotesAreAmongThoseThatAReplayCounts) {
  expect_done(simulate("5", {"simulate.rounds=15", "simulate.jitter_ms=400", "spsa.deadline=1"}));
  EXPECT_GT(count("stale_groups"), 0);
  const auto replayed =
      expect_done(trainer({"spsa.toml", "job=replay", "replay.log=run", "run.dir=weights", "run.threads=1"}));
  EXPECT_EQ(Json::parse(replayed.out, "replay").at("votes").as_integer(), count("votes"));
}

TEST_F(Simulate, WhatIsNoSimulationIsLeftAlone) {
  create_folder(*this / "run/nodes");
  test::write_file(*this / "run/nodes/mine", "precious");
  EXPECT_THAT(expect_exit(2, simulate("2", {"simulate.rounds=2"})).err, HasSubstr("something that is no simulation"));
  EXPECT_EQ(test::read_file(*this / "run/nodes/mine"), "precious");
}

TEST_F(Simulate, OneOfSeveralRanksSimulates) {
  TESSERA_NEEDS_MPI();
  const Words words = {"simulate", "spsa.toml", "--nodes", "3", "run.dir=run", "simulate.rounds=3"};
  EXPECT_THAT(expect_done(ranks(2, words)).out, HasSubstr("3 nodes, 3 rounds"));
  EXPECT_EQ(count("rounds"), 3);
}

TEST_F(Simulate, HundredsOfNodesComeGoAreKilledAndHoldEqualWeights) {
  const Words faults = {"simulate.churn=0.01", "simulate.loss=0.02"};
  expect_done(many("run", faults));
  const Json found = report();
  EXPECT_EQ(found.at("losses").as_string(), "quadratic");
  EXPECT_EQ(count("divergence"), 0);
  for (const char* key : {"joins", "leaves", "kills", "stale_groups", "lanes_given_anew"})
    EXPECT_GT(count(key), 0) << key;
  EXPECT_EQ(count("reseeds"), 0);
  EXPECT_LT(found.at("loss_last").as_number(), 0.8 * found.at("loss_first").as_number());
  EXPECT_GT(found.at("catch_up_seconds").at("median").as_number(), 0);
  EXPECT_GT(found.at("rounds_per_second").as_number(), 0);
  // A vote has 25 bytes and 86 around, of 4 probes. Those that are lost come on top, and records of 2 kB for 1150
  // votes, of which up to eight packers may send one.
  const double up = found.at("bytes_up").at("node_and_vote").as_number();
  EXPECT_GT(up, (25 + 86) / 4.0);
  EXPECT_LT(up, (25 + 86) / 4.0 / 0.9 + 8 * 2000 / 1150.0);

  expect_done(many("again", joined(faults, {"run.threads=2"})));
  EXPECT_EQ(timeless("run"), timeless("again"));
  EXPECT_EQ(test::read_file(*this / "run/log/00000000.tsb"), test::read_file(*this / "again/log/00000000.tsb"));
}

TEST_F(Simulate, TheSameFolderIsSimulatedAnewAndARunIsLeftAlone) {
  expect_done(simulate("3", {"simulate.rounds=2"}));
  expect_done(simulate("3", {"simulate.rounds=3"}));
  EXPECT_EQ(count("rounds"), 3);
  expect_done(trainer({"spsa.toml", "run.dir=trained", "train.steps=2", "run.threads=1"}));
  EXPECT_THAT(expect_exit(2, simulate("3", {"run.dir=trained"})).err,
              HasSubstr("holds something that is no simulation"));
}

TEST_F(Simulate, WhatIsWrongIsSaid) {
  EXPECT_THAT(fault({"simulate", "spsa.toml"}), HasSubstr("simulate.nodes is not set"));
  EXPECT_THAT(fault({"simulate", "spsa.toml", "--nodes", "65536"}), HasSubstr("allowed: 1 to 65535"));
  EXPECT_THAT(fault({"simulate", "spsa.toml", "--nodes", "5", "simulate.loss=1"}), HasSubstr("allowed: 0 to 0.9"));
  EXPECT_THAT(fault({"simulate", "spsa.toml", "--nodes", "5", "simulate.hostile=1.5"}), HasSubstr("allowed: 0 to 1"));
  EXPECT_THAT(fault({"simulate", "spsa.toml", "--nodes", "5", "spsa.aggregate=median"}),
              HasSubstr("votes along different directions cannot be compared"));
  EXPECT_THAT(fault({"simulate", "lora.toml", "--nodes", "5"}), HasSubstr("nodes vote by SPSA"));
  EXPECT_THAT(fault({"simulate", "--nodes", "5"}), HasSubstr("trainer simulate RECIPE"));
}

TEST_F(Simulate, CheckPlansWithoutWriting) {
  expect_done(simulate("5", {"--check"}));
  expect_done(simulate("500", {"--check"}));
  EXPECT_FALSE(std::filesystem::exists(*this / "run"));
}

}  // namespace
}  // namespace tessera
