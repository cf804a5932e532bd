// What an SPSA run says when it cannot go on, and that following it works.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <regex>

#include "core/error.h"
#include "steplog/step_log.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class SpsaHints : public test::Workbench {
 protected:
  test::Command command(const Words& more) const { return trainer(joined({"spsa.toml"}, more)); }
  /// The round that a hint names: "replay.round=17".
  static std::string round_in(const std::string& hint) {
    std::smatch found;
    return std::regex_search(hint, found, std::regex("replay.round=([0-9]+)")) ? found[1].str() : "none";
  }
};

TEST_F(SpsaHints, ADivergedRunGoesOnWithALowerRateFromWhereItWasWell) {
  const Words often = {"checkpoint.every=1000", "train.steps=60"};
  expect_done(command({"run.dir=begun", "train.steps=10", "checkpoint.every=1000"}));
  expect_done(command({"job=replay", "run.dir=begun", "replay.branch=wild"}));
  const std::string text = expect_exit(2, command(joined({"run.dir=wild", "optimizer.lr=1e19"}, often))).err;
  EXPECT_THAT(text, AllOf(HasSubstr("no vote of the last 16 rounds was valid"),
                          HasSubstr("lower optimizer.lr or spsa.eps in a new run"), HasSubstr("replay.branch=FOLDER")));
  const std::string round = round_in(text);
  EXPECT_GE(std::stoi(round), 5);
  EXPECT_LE(std::stoi(round), 10);
  // In a branch, with another rate alone.
  expect_done(command({"job=replay", "run.dir=wild", "replay.round=" + round, "replay.branch=tame"}));
  expect_done(command({"run.dir=tame", "optimizer.lr=1e-3", "train.steps=60"}));
  EXPECT_EQ(losses("tame").size(), 60u);
  // Anew.
  expect_done(command({"run.dir=anew", "optimizer.lr=1e-3", "spsa.eps=5e-3", "train.steps=20"}));
}

TEST_F(SpsaHints, ASumThatLeavesItsBitsGoesOnFromAnEarlierRound) {
  const Words pool = {"spsa.directions=pool", "spsa.pool_size=16"};
  const auto with = [&](const Words& words) { return command(joined(words, pool)); };
  expect_done(with({"run.dir=begun", "train.steps=10"}));
  expect_done(with({"job=replay", "run.dir=begun", "replay.branch=wild"}));
  const std::string text = expect_exit(2, with({"run.dir=wild", "optimizer.lr=1e12", "train.steps=60"})).err;
  EXPECT_THAT(text, AllOf(HasSubstr("round 10: a sum of the seed pool has left its 64 bits"),
                          HasSubstr("lower optimizer.lr or raise spsa.unit in a new run")));
  EXPECT_EQ(round_in(text), "5");
  expect_done(with({"job=replay", "run.dir=wild", "replay.round=5", "replay.branch=tame"}));
  expect_done(with({"run.dir=tame", "optimizer.lr=1e-3", "train.steps=20"}));
  expect_done(with({"run.dir=anew", "spsa.unit=10", "train.steps=5"}));
}

TEST_F(SpsaHints, ADigestThatDoesNotHoldIsLeftBehindInABranch) {
  expect_done(command({"run.dir=run"}));
  {
    StepLog log = StepLog::open(*this / "run/log", {});
    log.truncate(log.size() - 1);  // the end
    Record record;
    record.type = RecordType::digest;
    record.run = log.run().prefix();
    record.round = 40;
    record.index = log.size();
    record.prev = log.chain().prev();
    record.digest = {1, 2};
    log.append(encode(record));
  }
  const std::string text = expect_exit(2, command({"job=replay", "run.dir=run"})).err;
  EXPECT_THAT(text, AllOf(testing::StartsWith("round 40: this replica's weights differ from what the log says"),
                          HasSubstr("start it again")));
  EXPECT_EQ(expect_exit(2, command({"job=replay", "run.dir=run"})).err, text) << "the difference stays";
  EXPECT_EQ(round_in(text), "32");  // of round 40, the log says two things
  expect_done(command({"job=replay", "run.dir=run", "replay.round=32", "replay.branch=branch"}));
  expect_done(command({"run.dir=branch"}));
  EXPECT_EQ(saved_bytes("branch"), saved_bytes("run"));
}

TEST_F(SpsaHints, ABranchIsOfferedForWhatItMayHaveOtherwise) {
  expect_done(command({"run.dir=run", "train.steps=10"}));
  const Words rate = {"optimizer.lr=1e-3", "train.batch=3", "train.steps=12"};
  const auto with = [&](const Words& words, const Words& more) { return command(joined(words, more)); };
  EXPECT_THAT(expect_exit(2, with({"run.dir=run"}, rate)).err, HasSubstr("job=replay replay.branch=FOLDER"));
  expect_done(with({"run.dir=run", "job=replay", "replay.branch=branch"}, rate));
  expect_done(with({"run.dir=branch"}, rate));
  for (const char* held : {"spsa.eps=2e-2", "train.seed=5", "optimizer.momentum=0.5"}) {
    const std::string text = expect_exit(2, command({"run.dir=run", held})).err;
    EXPECT_THAT(text, AllOf(HasSubstr("run.resume=never"), testing::Not(HasSubstr("replay.branch")))) << held;
  }
  expect_done(command({"run.dir=run", "spsa.eps=2e-2", "run.resume=never", "train.steps=3"}));
  EXPECT_TRUE(fs::exists(*this / "run-2/metrics.jsonl"));
}

TEST_F(SpsaHints, ABranchTellsWhatItsHeaderHoldsInTheRecipesWords) {
  expect_done(command({"run.dir=run", "train.steps=10"}));
  expect_done(command({"run.dir=run", "job=replay", "replay.branch=branch"}));
  const Words other = {"run.dir=branch", "spsa.eps=2e-2", "train.seed=5", "spsa.votes=sign", "train.steps=20"};
  const std::string text = expect_exit(2, command(other)).err;
  EXPECT_THAT(text,
              AllOf(HasSubstr("spsa.eps was 0.01, now 0.02\n"), HasSubstr("train.seed was 1, now 5\n"),
                    HasSubstr("spsa.votes was byte, now sign\n"), HasSubstr("undo the change, or start anew with"),
                    testing::Not(HasSubstr("digest")), testing::Not(HasSubstr("adapt_unit"))));
  EXPECT_THAT(expect_exit(2, command({"run.dir=branch", "adapter.rank=4", "train.steps=20"})).err,
              HasSubstr("[adapter]"));
  EXPECT_THAT(expect_exit(2, command({"run.dir=branch", "optimizer.momentum=0.5"})).err,
              HasSubstr("optimizer.momentum was 0, now 0.5\n"));
  expect_done(command({"run.dir=branch", "train.steps=20"}));
}

TEST_F(SpsaHints, OtherDataAreOfferedABranch) {
  expect_done(command({"run.dir=run", "train.steps=10"}));
  EXPECT_THAT(
      expect_exit(2, command({"run.dir=run", "train.steps=10", "data.train=eval.jsonl"})).err,
      AllOf(HasSubstr("this run cannot go on with other training data"), HasSubstr("job=replay replay.branch=")));
  expect_done(command({"run.dir=run", "job=replay", "replay.branch=branch"}));
  expect_done(command({"run.dir=branch", "train.steps=12", "data.train=eval.jsonl"}));
}

TEST_F(SpsaHints, TheCheckSeesWhatIsDamagedInTheRunsFolder) {
  expect_done(command({"run.dir=run", "train.steps=10"}));
  forget_end("run");
  const Words longer = {"run.dir=run", "train.steps=10", "--check"};
  expect_done(command(longer));
  const auto refused = [&](const std::string& file, const std::string& damaged) {
    const std::string whole = test::read_file(*this / file);
    test::write_file(*this / file, damaged);
    const std::string text = expect_exit(2, command(longer)).err;
    EXPECT_EQ(expect_exit(2, command({"run.dir=run", "train.steps=10"})).err, text) << "as training says it";
    test::write_file(*this / file, whole);
    return text;
  };
  std::string bytes = test::read_file(*this / "run/log/00000000.tsb");
  bytes[200] ^= 4;
  EXPECT_THAT(refused("run/log/00000000.tsb", bytes), HasSubstr("job=replay tells up to which round"));
  EXPECT_THAT(refused("run/log/header.json", "{"), HasSubstr("run/log/header.json: "));
  EXPECT_THAT(refused("run/run.json", "{\"recipe\": 5}"),
              AllOf(HasSubstr("run/run.json: "), HasSubstr("put back a copy")));
  fs::remove(*this / "run/figures.json");
  fs::create_directories(*this / "run/figures.json");
  EXPECT_THAT(expect_exit(2, command(longer)).err, HasSubstr("figures.json: is a folder, and a file belongs there"));
}

TEST_F(SpsaHints, ALogThatIsDamagedInItsMiddleIsRebuiltUpToThere) {
  expect_done(command({"run.dir=run"}));
  const auto digest_of = [](const test::Ended& ended) { return Json::parse(ended.out, "").at("digest").as_string(); };
  const std::string fifteenth = digest_of(expect_done(command({"job=replay", "run.dir=run", "replay.round=15"})));
  std::string bytes = test::read_file(*this / "run/log/00000000.tsb");
  bytes[bytes.size() / 2] ^= 4;
  test::write_file(*this / "run/log/00000000.tsb", bytes);
  const std::string text = expect_exit(2, command({"job=replay", "run.dir=run"})).err;
  EXPECT_THAT(text, AllOf(HasSubstr("is damaged ("), HasSubstr("rounds before are whole: replay.round=")));
  const std::string last = round_in(text);
  EXPECT_GE(std::stoi(last), 15);
  EXPECT_LT(std::stoi(last), 40);
  expect_exit(2, command({"job=replay", "run.dir=run", "replay.round=" + std::to_string(std::stoi(last) + 1)}));
  const test::Ended ended = expect_done(command({"job=replay", "run.dir=run", "replay.round=15"}));
  EXPECT_EQ(digest_of(ended), fifteenth);
  EXPECT_THAT(ended.err, HasSubstr("note: the log is read up to its damage: "));
  expect_done(command({"job=replay", "run.dir=run", "replay.round=" + last, "replay.branch=branch"}));
  expect_done(command({"run.dir=branch"}));
  EXPECT_EQ(losses("branch").size(), 40u);
}

}  // namespace
}  // namespace tessera
