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
  test::Command command(const Words& more) const {
    Words words = {"spsa.toml"};
    words.insert(words.end(), more.begin(), more.end());
    return trainer(words);
  }
  /// The round that a hint names: "replay.round=17".
  static std::string round_in(const std::string& hint) {
    std::smatch found;
    return std::regex_search(hint, found, std::regex("replay.round=([0-9]+)")) ? found[1].str() : "none";
  }
  Json log_of(const std::string& run) const {
    return Json::parse(expect_done(trainer({"log", run, "--json"})).out, "log");
  }
};

TEST_F(SpsaHints, ADivergedRunGoesOnWithALowerRateFromWhereItWasWell) {
  const Words often = {"checkpoint.every=1000", "train.steps=60"};
  expect_done(command({"run.dir=begun", "train.steps=10", "checkpoint.every=1000"}));
  expect_done(command({"job=replay", "run.dir=begun", "replay.branch=wild"}));
  Words words = {"run.dir=wild", "optimizer.lr=1e19"};
  words.insert(words.end(), often.begin(), often.end());
  const std::string text = expect_exit(2, command(words)).err;
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
  const auto with = [&](Words words) {
    words.insert(words.end(), pool.begin(), pool.end());
    return command(words);
  };
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
  EXPECT_THAT(text, HasSubstr("start it again"));
  EXPECT_EQ(expect_exit(2, command({"job=replay", "run.dir=run"})).err, text) << "the difference stays";
  EXPECT_EQ(round_in(text), "32");  // of round 40, the log says two things
  expect_done(command({"job=replay", "run.dir=run", "replay.round=32", "replay.branch=branch"}));
  expect_done(command({"run.dir=branch"}));
  EXPECT_EQ(saved_bytes("branch"), saved_bytes("run"));
}

TEST_F(SpsaHints, ABranchIsOfferedForWhatItMayHaveOtherwise) {
  expect_done(command({"run.dir=run", "train.steps=10"}));
  const Words rate = {"optimizer.lr=1e-3", "train.batch=3", "train.steps=12"};
  const auto with = [&](Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return command(words);
  };
  EXPECT_THAT(expect_exit(2, with({"run.dir=run"}, rate)).err, HasSubstr("job=replay replay.branch=FOLDER"));
  expect_done(with({"run.dir=run", "job=replay", "replay.branch=branch"}, rate));
  expect_done(with({"run.dir=branch"}, rate));
  const std::string text = expect_exit(2, command({"run.dir=run", "spsa.eps=2e-2"})).err;
  EXPECT_THAT(text, AllOf(HasSubstr("run.resume=never"), testing::Not(HasSubstr("replay.branch"))));
  expect_done(command({"run.dir=run", "spsa.eps=2e-2", "run.resume=never", "train.steps=3"}));
  EXPECT_TRUE(fs::exists(*this / "run-2/metrics.jsonl"));
}

TEST_F(SpsaHints, ADamagedLogIsMendedWithTheFileOfAnotherMachine) {
  const auto machine = [&](int k) {
    return command({"run.dir=run" + std::to_string(k), "spsa.transport=file", "spsa.shared=engine", "spsa.machines=2",
                    "train.steps=200", "spsa.machine=" + std::to_string(k)});
  };
  {
    test::Process first(machine(0)), second(machine(1));
    const fs::path lines = *this / "run0/metrics.jsonl";
    ASSERT_TRUE(test::wait_until(
        [&] { return fs::exists(lines) && test::occurrences(test::read_file(lines), "\n") >= 8; }, 60));
    for (test::Process* process : {&first, &second}) {
      process->send(SIGKILL);
      process->wait();
    }
  }
  const fs::path file = *this / "run0/log/00000000.tsb";
  std::string bytes = test::read_file(file);
  bytes[bytes.size() / 2] ^= 1;
  test::write_file(file, bytes);
  EXPECT_THAT(expect_exit(2, machine(0)).err, HasSubstr("take the file from another one"));
  fs::copy_file(*this / "run1/machine-00001/log/00000000.tsb", file, fs::copy_options::overwrite_existing);
  test::Process first(machine(0)), second(machine(1));
  EXPECT_EQ(first.wait(120).exit_code, 0);
  EXPECT_EQ(second.wait(120).exit_code, 0);
}

TEST_F(SpsaHints, ASharedLogThatIsGoneComesBackFromTheMachineWhoseLogIsWhole) {
  const auto machine = [&](int k) {
    return command({"run.dir=run" + std::to_string(k), "spsa.transport=file", "spsa.shared=engine", "spsa.machines=2",
                    "train.steps=200", "checkpoint.every=2", "checkpoint.keep=1",
                    std::string("spsa.compact=") + (k == 0 ? "drop" : "keep"), "spsa.machine=" + std::to_string(k)});
  };
  {
    test::Process first(machine(0)), second(machine(1));
    const fs::path lines = *this / "run0/metrics.jsonl";
    ASSERT_TRUE(test::wait_until(
        [&] { return fs::exists(lines) && test::occurrences(test::read_file(lines), "\n") >= 12; }, 60));
    for (test::Process* process : {&first, &second}) {
      process->send(SIGKILL);
      process->wait();
    }
  }
  fs::remove_all(*this / "engine");
  EXPECT_THAT(expect_exit(2, machine(0)).err, AllOf(HasSubstr("the shared log lacks the records before number"),
                                                    HasSubstr("start the machine whose log is whole first")));
  test::Process second(machine(1));
  const fs::path shared = *this / "engine/00000000.tsb", whole = *this / "run1/machine-00001/log/00000000.tsb";
  ASSERT_TRUE(
      test::wait_until([&] { return fs::exists(shared) && fs::file_size(shared) >= fs::file_size(whole); }, 60));
  EXPECT_EQ(test::Process(machine(0)).wait(120).exit_code, 0);
  EXPECT_EQ(second.wait(120).exit_code, 0);
}

}  // namespace
}  // namespace tessera
