// Shared-seed runs rebuilt from base and log: replay, branches, and what `trainer log` tells.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "steplog/step_log.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ContainsRegex;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class Replay : public test::Workbench {
 protected:
  /// Trains spsa.toml; what it printed.
  std::string train(const std::string& run, const Words& more = {}) {
    return expect_done(trainer(joined({"spsa.toml", "run.dir=" + run}, more))).out;
  }
  test::Command replay(const std::string& run, const Words& more = {}) {
    return trainer(joined({"spsa.toml", "job=replay", "run.dir=" + run}, more));
  }
  /// The one line that a replay prints.
  Json replayed(const std::string& run, const Words& more = {}) {
    const test::Ended ended = expect_done(replay(run, more));
    EXPECT_EQ(test::occurrences(ended.out, "\n"), 1) << ended.out;
    return Json::parse(ended.out, "the replay's line");
  }
  std::string fault(const test::Command& command) {
    const test::Ended ended = expect_exit(2, command);
    EXPECT_EQ(ended.out, "");
    return ended.err;
  }
  Json log_of(const std::string& run, const Words& more = {}) {
    return Json::parse(expect_done(trainer(joined({"log", run, "--json"}, more))).out, "trainer log");
  }
  /// The digest that a training printed at its end.
  static std::string digest_in(const std::string& text) {
    const size_t at = text.find("\ndigest ");
    return at == std::string::npos ? "none" : text.substr(at + 8, 32);
  }
  /// The digest that the log holds of the state after so many rounds.
  static std::string digest_at(const Json& log, int64_t round) {
    for (const char* kind : {"snapshots", "digests"})
      for (const Json& mark : log.at(kind).items())
        if (mark.at("round").as_integer() == round) return mark.at("digest").as_string();
    return "none";
  }
  fs::path segment(const std::string& run) { return *this / run / "log/00000000.tsb"; }
};

TEST_F(Replay, RebuildsTheSameBytesFromBaseAndLogAlone) {
  for (const Words& settings :
       std::vector<Words>{{},
                          {"optimizer.name=adamw", "spsa.directions=hadamard"},
                          {"optimizer.momentum=0.9", "spsa.votes=sign", "optimizer.weight_decay=0.1"},
                          {"adapter.method=mos", "adapter.shards=2", "spsa.directions=pool", "spsa.pool_size=16"},
                          {"adapter.method=none", "optimizer.lr=1e-4"}}) {
    SCOPED_TRACE(settings.empty() ? "as it is" : settings[0]);
    for (const char* left : {"run", "elsewhere", "again"}) fs::remove_all(*this / left);
    const std::string digest = digest_in(train("run", settings));
    fs::create_directories(*this / "elsewhere");
    fs::copy(*this / "run/log", *this / "elsewhere", fs::copy_options::recursive);
    Words words = settings;
    words.insert(words.end(), {"replay.log=elsewhere", "data.train=absent.jsonl", "data.eval=absent.jsonl"});
    const Json line = replayed("again", words);
    EXPECT_EQ(saved_bytes("again"), saved_bytes("run"));
    EXPECT_EQ(line.at("digest").as_string(), digest);
    EXPECT_EQ(line.at("rounds").as_integer(), 40);
    EXPECT_EQ(line.at("votes").as_integer(), 40 * 3);
    EXPECT_EQ(line.at("digests_verified").as_integer(), 5 + 4);  // every 8 rounds, and a snapshot every 10
  }
}

TEST_F(Replay, RebuildsWhatSeveralRanksTrained) {
  TESSERA_NEEDS_MPI();
  const std::string text = expect_done(ranks(2, {"spsa.toml", "run.dir=run"})).out;
  const Json line = replayed("run");
  EXPECT_EQ(line.at("digest").as_string(), digest_in(text));
  EXPECT_EQ(line.at("votes").as_integer(), 40 * 2 * 3);
  EXPECT_EQ(saved_bytes("run-replay"), saved_bytes("run"));
  EXPECT_EQ(log_of("run").at("roster").dump(), "[0,1]");
}

TEST_F(Replay, ToAnEarlierRoundEqualsTheSnapshotOfThen) {
  train("run");
  const Json log = log_of("run");
  for (const int64_t round : {int64_t{8}, int64_t{10}, int64_t{30}}) {
    const Json line = replayed("run", {"replay.round=" + std::to_string(round)});
    EXPECT_EQ(line.at("digest").as_string(), digest_at(log, round));
    EXPECT_EQ(line.at("rounds").as_integer(), round);
  }
  EXPECT_EQ(replayed("run", {"replay.round=0"}).at("digest").as_string(), log.at("header").at("start").as_string());
  const Json from_snapshot = replayed("run", {"replay.round=33", "replay.from_base=false"});
  EXPECT_EQ(from_snapshot.at("rounds").as_integer(), 3);
  EXPECT_EQ(from_snapshot.at("digest").as_string(), replayed("run", {"replay.round=33"}).at("digest").as_string());
  EXPECT_THAT(fault(replay("run", {"replay.round=41"})), HasSubstr("the log holds 40 rounds, round 41 is asked for"));
}

TEST_F(Replay, RefusesAFlippedByteWithItsPlace) {
  train("run");
  std::string bytes = test::read_file(segment("run"));
  const size_t at = bytes.size() / 2;
  bytes[at] ^= 4;
  test::write_file(segment("run"), bytes);
  for (const test::Command& command : {replay("run"), trainer({"log", "run"})}) {
    const std::string text = fault(command);
    const std::string file = "run/log/" + segment("run").filename().string();
    EXPECT_THAT(text, AllOf(StartsWith(file + ": byte "), HasSubstr("is damaged (crc")));
    const size_t named = std::stoul(text.substr(file.size() + 7));
    EXPECT_LE(named, at);
    EXPECT_GT(named + 120, at);  // the record that begins there holds the byte
  }
}

TEST_F(Replay, NamesWhatIsNotTheRunsModel) {
  train("run");
  EXPECT_THAT(fault(replay("run", {"adapter.rank=4"})),
              AllOf(HasSubstr("the log belongs to other tensors"), HasSubstr("down_proj.a [3, 64] from 0")));
  EXPECT_THAT(fault(replay("run", {"adapter.alpha=7"})),
              HasSubstr("another adapter: alpha was 16.0, the recipe's is 7.0"));
  std::string config = test::read_file(*this / "base/config.json");
  config.replace(config.find("0.08"), 4, "0.07");
  test::write_file(*this / "base/config.json", config);
  EXPECT_THAT(fault(replay("run")),
              AllOf(HasSubstr("run/log/header.json: the log belongs to another base model\n"),
                    ContainsRegex("hash [0-9a-f]{64}, those of model.path \"[^\"]*base\" [0-9a-f]{64}\n$")));
  train("full", {"adapter.method=none"});
  EXPECT_THAT(fault(replay("full", {"adapter.method=none", "train.seed=2"})),
              AllOf(HasSubstr("the log begins with other values"), HasSubstr("set train.seed")));
}

TEST_F(Replay, DoesNotWriteIntoTheRunThatItReads) {
  train("run");
  EXPECT_THAT(fault(replay("run", {"replay.log=run/log"})), HasSubstr("run.dir is the run that is replayed"));
  EXPECT_EQ(replayed("run/").at("results").as_string(), "run-replay");
  EXPECT_THAT(fault(replay("elsewhere")), HasSubstr("elsewhere: there is no log of rounds\n"));
}

TEST_F(Replay, ABranchGoesOnFromItsRoundAndIsARunOfItsOwn) {
  train("run");
  const Json cut = replayed("run", {"replay.round=20", "replay.branch=branch"});
  EXPECT_EQ(cut.at("branch").as_string(), "branch");
  EXPECT_FALSE(fs::exists(*this / "run-replay"));
  EXPECT_EQ(test::read_file(*this / "branch/checkpoints/round-00000020.safetensors"),
            test::read_file(*this / "run/checkpoints/round-00000020.safetensors"));

  const std::string other = fault(trainer({"spsa.toml", "run.dir=branch", "train.estimator=backprop"}));
  EXPECT_THAT(other, HasSubstr("branch/log: belongs to a run with train.estimator = \"spsa\""));
  const std::string text = train("branch", {"optimizer.lr=4e-3", "train.steps=50"});
  EXPECT_THAT(text, HasSubstr("going on from step 20, rebuilt from the log: " + cut.at("digest").as_string()));
  const Json log = log_of("branch"), parent = log_of("run");
  EXPECT_EQ(log.at("round").as_integer(), 50);
  EXPECT_EQ(log.at("header").at("parent").as_string(), parent.at("run").as_string() + " round 20");
  EXPECT_NE(log.at("run").as_string(), parent.at("run").as_string());
  for (const size_t round : {size_t{0}, size_t{19}})
    EXPECT_EQ(log.at("rounds").items()[round].dump(), parent.at("rounds").items()[round].dump());
  EXPECT_NE(log.at("rounds").items()[20].dump(), parent.at("rounds").items()[20].dump());
  EXPECT_EQ(losses("branch").size(), 50u);

  const Json line = replayed("branch");
  EXPECT_EQ(line.at("digest").as_string(), digest_in(text));
  EXPECT_EQ(saved_bytes("branch-replay"), saved_bytes("branch"));
  EXPECT_THAT(fault(replay("run", {"replay.branch=branch"})), HasSubstr("branch: is there already"));
}

TEST_F(Replay, ABranchFromTheLastRoundOfAFinishedRunMakesItLonger) {
  train("run");
  replayed("run", {"replay.branch=longer"});
  EXPECT_EQ(log_of("longer").at("ended").as_bool(), false);
  train("longer", {"train.steps=45"});
  EXPECT_EQ(log_of("longer").at("round").as_integer(), 45);
  EXPECT_EQ(log_of("longer").at("ended").as_bool(), true);
}

TEST_F(Replay, WithoutTheFirstRoundsBeginsWithASnapshot) {
  train("run");
  fs::create_directories(*this / "short");
  {
    const StepLog whole = StepLog::open(*this / "run/log", {});
    StepLog pieces = StepLog::create(*this / "short/log", whole.header(), {.segment_bytes = 1});
    uint64_t snapshot = 0;
    whole.for_each(0, [&](const Record& record, std::span<const std::byte> encoded) {
      pieces.append(encoded);
      if (record.type == RecordType::snapshot && record.round == 30) snapshot = record.index;
      return true;
    });
    pieces.compact(snapshot, StepLog::Compaction::drop);
  }
  EXPECT_THAT(fault(replay("short")), HasSubstr("the log holds rounds 31 to 40"));
  fs::create_directories(*this / "short/checkpoints");
  const fs::path snapshot = "checkpoints/round-00000030.safetensors";
  fs::copy_file(*this / "run" / snapshot, *this / "short" / snapshot);
  EXPECT_EQ(replayed("short", {"replay.from_base=false"}).at("rounds").as_integer(), 10);
  EXPECT_EQ(saved_bytes("short-replay"), saved_bytes("run"));
  EXPECT_THAT(fault(replay("short", {"replay.from_base=false", "replay.branch=branch"})),
              HasSubstr("the log's first rounds were dropped"));
  EXPECT_EQ(log_of("short").at("first_round").as_integer(), 30);
}

TEST_F(Replay, OfARoundThatWasDroppedSaysWhatTheLogHoldsAndHowToReachIt) {
  train("run", {"spsa.compact=drop", "checkpoint.keep=2"});
  const int64_t first = log_of("run").at("first_round").as_integer();
  EXPECT_EQ(first, 30);
  EXPECT_THAT(
      fault(replay("run", {"replay.round=5"})),
      AllOf(
          HasSubstr("the log holds rounds 31 to 40: those before were dropped"),
          HasSubstr("replay.from_base=false starts from a snapshot beside the log and reaches replay.round=30 to 40")));
  EXPECT_THAT(fault(replay("run", {"replay.round=5", "replay.from_base=false"})),
              AllOf(HasSubstr("the log holds rounds 31 to 40"), HasSubstr("replay.round=30 to 40 can be reached")));
  for (const char* round : {"30", "33", "40"})
    EXPECT_EQ(
        replayed("run", {"replay.from_base=false", std::string("replay.round=") + round}).at("round").as_integer(),
        std::stoi(round));
}

TEST_F(Replay, DoesNotWriteOverAnotherRunsResults) {
  train("run");
  train("run-replay", {"train.steps=5"});
  const std::string saved = saved_bytes("run-replay");
  const std::string text = fault(replay("run"));
  EXPECT_THAT(text, AllOf(HasSubstr("run-replay\" holds a run of its own (recipe.toml)"), HasSubstr("replay.log=")));
  EXPECT_EQ(saved_bytes("run-replay"), saved);
  for (int times = 0; times < 2; ++times)  // a replay may be repeated
    replayed("elsewhere", {"replay.log=run"});
  EXPECT_EQ(saved_bytes("elsewhere"), saved_bytes("run"));
}

TEST_F(Replay, TellsWhenResultsOfAnotherRoundAreReplaced) {
  train("run", {"train.steps=10"});
  EXPECT_EQ(expect_done(replay("run")).err, "");
  EXPECT_EQ(expect_done(replay("run")).err, "");
  EXPECT_EQ(Json::parse(test::read_file(*this / "run-replay/replay.json"), "").at("round").as_integer(), 10);
  EXPECT_THAT(expect_done(replay("run", {"replay.round=4"})).err,
              HasSubstr("run-replay\" holds the weights of round 10: those of round 4 take their place\n"));
  train("other", {"train.steps=10", "train.seed=3"});
  EXPECT_THAT(expect_done(replay("run", {"replay.log=other", "run.dir=run-replay", "train.seed=3"})).err,
              HasSubstr("holds the weights of round 4 of another run: those of round 10 take"));
  fs::remove(*this / "run-replay/replay.json");
  EXPECT_THAT(expect_done(replay("run")).err, HasSubstr("holds results that do not say of which round they are"));
}

TEST_F(Replay, FollowsARunThatIsStillTraining) {
  test::Process training(trainer({"spsa.toml", "run.dir=run", "train.steps=1000000", "checkpoint.keep=1"}));
  const fs::path metrics = *this / "run/metrics.jsonl";
  ASSERT_TRUE(test::wait_until(
      [&] { return fs::exists(metrics) && test::occurrences(test::read_file(metrics), "\"train\"") > 25; }));
  const Json line = replayed("run", {"replay.round=20"});
  EXPECT_EQ(line.at("digest").as_string(), digest_at(log_of("run"), 20));
  EXPECT_GE(replayed("run").at("round").as_integer(), 25);
  EXPECT_GE(replayed("run", {"replay.from_base=false"}).at("round").as_integer(), 25);
  EXPECT_TRUE(training.running());
  EXPECT_FALSE(log_of("run").at("ended").as_bool());
  training.send(SIGTERM);
  EXPECT_EQ(training.wait().exit_code, 130);
}

TEST_F(Replay, AKillAfterTheLastRecordLosesNothing) {
  train("run");
  const std::string saved = saved_bytes("run");
  fs::remove_all(*this / "run/adapter");
  forget_end("run");
  const int64_t records = log_of("run").at("records").as_integer();
  train("run");
  EXPECT_EQ(saved_bytes("run"), saved);
  EXPECT_EQ(log_of("run").at("records").as_integer(), records);
}

class LogCommand : public Replay {};

TEST_F(LogCommand, CountsWhatTheLogHolds) {
  train("run");
  const Json log = log_of("run");
  const Json& header = log.at("header");
  EXPECT_EQ(header.at("probes").as_integer(), 3);
  EXPECT_EQ(header.at("votes").as_string(), "byte");
  EXPECT_EQ(header.at("trained").as_string(), "lora");
  EXPECT_EQ(header.at("trained_tensors").as_integer(), 2 * 7 * 2);
  EXPECT_EQ(header.at("trained_numbers").as_integer(), 3072);
  EXPECT_EQ(header.find("parent"), nullptr);
  EXPECT_EQ(log.at("round").as_integer(), 40);
  EXPECT_EQ(log.at("records").as_integer(), 40 + 5 + 4 + 1);
  EXPECT_TRUE(log.at("ended").as_bool());
  EXPECT_EQ(log.at("roster").dump(), "[0]");
  EXPECT_EQ(log.at("votes").as_integer(), 120);
  EXPECT_EQ(log.at("votes_valid").as_number(), 1.0);
  EXPECT_EQ(log.at("bytes").as_integer(), static_cast<int64_t>(fs::file_size(segment("run"))));
  EXPECT_EQ(log.at("digests").items().size(), 5u);
  ASSERT_EQ(log.at("snapshots").items().size(), 4u);
  EXPECT_EQ(log.at("snapshots").items()[3].at("bytes").as_integer(),
            static_cast<int64_t>(fs::file_size(*this / "run/checkpoints/round-00000040.safetensors")));
  ASSERT_EQ(log.at("rounds").items().size(), 40u);
  const std::vector<double> seen = losses("run");
  for (size_t i = 0; i < 40; ++i) {
    const Json& round = log.at("rounds").items()[i];
    EXPECT_EQ(round.at("round").as_integer(), static_cast<int64_t>(i));
    EXPECT_EQ(round.at("step").as_integer(), static_cast<int64_t>(i) + 1);
    EXPECT_EQ(round.at("votes").as_integer(), 3);
    EXPECT_EQ(round.at("loss").as_number(), seen[i]);
  }
  EXPECT_EQ(log_of("run/log", {"--last", "3"}).at("rounds").items().size(), 3u);
}

TEST_F(LogCommand, IsReadable) {
  train("run");
  const std::string text = expect_done(trainer({"log", "run", "--last", "2"})).out;
  EXPECT_THAT(text,
              AllOf(ContainsRegex("trained +lora: 28 tensors, 3072 numbers"), ContainsRegex("rounds +40, ended"),
                    ContainsRegex("votes +120, 100.00 % valid"), ContainsRegex("snapshots +2 before, round 30 ")));
  EXPECT_THAT(text, ContainsRegex("\n +39 +1/1 +3 +3 [^\n]*2\\^-9[^\n]*\n +40 +1/1 [^\n]*\n$"));
}

TEST_F(LogCommand, FollowsALogThatIsArchivedMeanwhile) {
  test::Process training(trainer({"spsa.toml", "run.dir=run", "train.steps=600", "checkpoint.every=5",
                                  "checkpoint.keep=1", "spsa.compact=archive"}));
  ASSERT_TRUE(test::wait_until([&] { return fs::exists(segment("run")); }));
  const std::string text = expect_done(trainer({"log", "run", "--last", "0", "--follow"})).out;
  EXPECT_THAT(text, AllOf(ContainsRegex("\n +599 +1/1 [^\n]*\n +600 +1/1 [^\n]*\nthe log has its END\n$")));
  EXPECT_EQ(test::occurrences(text, "\n     599 "), 1) << "each round once";
  EXPECT_EQ(training.wait().exit_code, 0);
}

TEST_F(LogCommand, ReportsATornTailAndLeavesItAlone) {
  train("run");
  fs::resize_file(segment("run"), fs::file_size(segment("run")) - 7);
  const std::string bytes = test::read_file(segment("run"));
  EXPECT_THAT(expect_done(trainer({"log", "run"})).out,
              ContainsRegex("notice +left [0-9]+ bytes of an unfinished record at the end of 00000000.tsb"));
  const Json log = log_of("run");
  EXPECT_EQ(log.at("notices").items().size(), 1u);
  EXPECT_FALSE(log.at("ended").as_bool());
  const test::Ended ended = expect_done(replay("run"));
  EXPECT_THAT(ended.err, HasSubstr("unfinished record"));
  EXPECT_EQ(test::read_file(segment("run")), bytes);
}

TEST_F(LogCommand, TellsADamagedLastRecordFromATornOne) {
  train("run");
  std::string bytes = test::read_file(segment("run"));
  bytes[bytes.size() - 30] ^= 8;
  test::write_file(segment("run"), bytes);
  EXPECT_THAT(expect_done(trainer({"log", "run"})).out,
              ContainsRegex("notice +left 64 bytes of a damaged record at the end of 00000000.tsb"));
  EXPECT_EQ(test::read_file(segment("run")), bytes);
}

TEST_F(LogCommand, SaysWhatIsMissing) {
  EXPECT_THAT(fault(trainer({"log", "absent"})), StartsWith("absent: there is no log of rounds\n"));
  EXPECT_THAT(fault(trainer({"log"})), EndsWith("trainer log RUN [--json] [--last N] [--follow]\n"));
  EXPECT_THAT(fault(trainer({"log", "base", "--last", "-1"})), StartsWith("command line: "));
  EXPECT_THAT(expect_done(trainer({"--help"})).out, HasSubstr("trainer log RUN [--json] [--last N]"));
}

TEST_F(LogCommand, LeavesTheNameToARecipe) {
  fs::copy_file(*this / "spsa.toml", *this / "log");
  EXPECT_THAT(expect_done(trainer({"./log", "--check"})).out, EndsWith("the recipe is in order\n"));
}

}  // namespace
}  // namespace tessera
