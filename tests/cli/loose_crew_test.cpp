// Ranks of one job that are one machine of a loose run.

#include "cli/loose_nodes.h"

namespace tessera {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

class LooseCrew : public LooseNodes {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_MPI();
    LooseNodes::SetUp();
  }
  /// The number that a node has in one run, for the run of the same header that has another name.
  void give_number(const std::string& from, const std::string& to, const std::string& run_name) const {
    Json node = Json::parse(read_file(*this / from / "node.json"), from);
    node.set("run_name", run_name).set("last_seed_round", -1).set("vote", "");
    std::filesystem::create_directories(*this / to);
    write_file(*this / to / "node.json", node.dump());
  }
};

TEST_F(LooseCrew, WritesTheSameLogAsOneRankAlone) {
  steps_ = 14;
  settings_ = {"spsa.probes=5", "spsa.digest_every=4", "checkpoint.every=5", "evaluate.every=7"};
  for (const bool ahead : {true, false}) {
    const std::string alone = ahead ? "alone" : "strict";
    const std::string word = ahead ? "spsa.ahead=true" : "spsa.ahead=false";
    const Ended one = expect_done(node("a", {"run.dir=" + alone, "spsa.name=" + alone, word}));
    for (const int count : {2, 3}) {
      const std::string name = fmt::format("{}-{}", alone, count);
      give_number(alone, name, name);
      const Ended ended = expect_done(crew(count, "a", {"run.dir=" + name, "spsa.name=" + name, word}));
      EXPECT_EQ(digest_in(ended.out), digest_in(one.out)) << name;
      EXPECT_EQ(read_file(*this / name / "log/00000000.tsb"), read_file(*this / alone / "log/00000000.tsb")) << name;
      EXPECT_EQ(saved_bytes(name), saved_bytes(alone));
      EXPECT_LT(largest_relative_difference(losses(name, "eval"), losses(alone, "eval")), 1e-6);
    }
  }
}

TEST_F(LooseCrew, IsOneMachineAmongOthersAndGoesOnAfterAKill) {
  settings_ = {"spsa.quorum=1", "spsa.absent_limit=60000", "spsa.probes=3"};
  start("a");
  wait_for_rounds("a", 1);
  nodes_.at("a")->send(SIGSTOP);
  start("b", crew(2, "b"));
  wait_for_file("b/node.json");
  nodes_.at("a")->send(SIGCONT);
  wait_for_rounds("b", 10);
  kill("b");  // from here on nothing moves until it is back
  const int64_t number = machine("b");
  start("b", crew(3, "b"));
  expect_all_done_alike({"a", "b"});
  EXPECT_EQ(machine("b"), number);
  EXPECT_EQ(std::ssize(changes("a")), 2) << "two machines, however many ranks";
}

TEST_F(LooseCrew, JoinsARunThatHasBegunAndLeavesWhenItIsAsked) {
  settings_ = {"spsa.quorum=1", "spsa.probes=3"};
  start("a");
  wait_for_rounds("a", 20);
  start("b", crew(2, "b"));
  wait_until([&] { return lanes_taken("a") == 2; }, "it has a lane");
  const int64_t there = rounds("a");
  wait_for_rounds("b", there + 5);
  nodes_.at("b")->send(SIGUSR1);
  EXPECT_NE(nodes_.at("b")->wait(kLong).exit_code, 0);
  wait_until([&] { return lanes_taken("a") == 1; }, "its lane is free");
  expect_all_done_alike({"a"});
  EXPECT_LT(rounds("b"), steps_);
}

TEST_F(LooseCrew, TakesTheWeightsThatItsFirstRankHasRebuilt) {
  steps_ = 40;
  settings_ = {"spsa.quorum=1", "spsa.digest_every=4", "checkpoint.every=0", "spsa.probes=2"};
  start("a");
  wait_for_rounds("a", 1);
  nodes_.at("a")->send(SIGSTOP);
  Command damaged = crew(2, "c");
  damaged.environment["TESSERA_FAULT_AT"] = "weights:10";  // of the first rank
  start("c", damaged);
  wait_for_file("c/node.json");
  start("b");
  wait_for_file("b/node.json");
  nodes_.at("a")->send(SIGCONT);
  expect_all_done_alike({"a", "b", "c"});
  EXPECT_THAT(nodes_.at("c")->wait(1).out, HasSubstr("this machine's weights are those of the log again"));
}

TEST_F(LooseCrew, IsRefusedWhatRanksCannotDivide) {
  EXPECT_THAT(expect_exit(2, crew(2, "a", {"spsa.sides=one"})).err,
              AllOf(HasSubstr("spsa.sides"), HasSubstr("2 ranks cannot divide them"), HasSubstr("start one rank")));
  EXPECT_THAT(expect_exit(2, crew(2, "a", {"privacy.epsilon=25"})).err,
              AllOf(HasSubstr("privacy.epsilon"), HasSubstr("there are 2 ranks")));
}

}  // namespace
}  // namespace tessera
