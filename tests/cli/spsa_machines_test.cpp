// Processes of one host that share a folder: who may join, what each is told, and that all end with the same log.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "core/error.h"
#include "steplog/step_log.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Machines : public test::Workbench {
 protected:
  test::Command machine(int k, int machines, const Words& more = {}) const {
    Words words = {
        "spsa.toml",          "run.dir=run" + std::to_string(k),   "spsa.transport=file",
        "spsa.shared=engine", "spsa.machine=" + std::to_string(k), "spsa.machines=" + std::to_string(machines)};
    words.insert(words.end(), more.begin(), more.end());
    return trainer(words);
  }
  /// The folder that machine k of run.dir=run<k> works in.
  fs::path folder(int k) const {
    const fs::path run = *this / ("run" + std::to_string(k));
    return k == 0 ? run : run / fmt::format("machine-{:05}", k);
  }
  void wait_for_lines(const fs::path& run, int64_t count) const {
    const fs::path lines = run / "metrics.jsonl";
    ASSERT_TRUE(test::wait_until(
        [&] { return fs::exists(lines) && test::occurrences(test::read_file(lines), "\n") >= count; }, 60));
  }
  void wait_for(const fs::path& file) const {
    ASSERT_TRUE(test::wait_until([&] { return fs::exists(file); }, 60)) << file;
  }
};

TEST_F(Machines, AllEndWithTheSameLogToTheLastRecord) {
  std::vector<std::unique_ptr<test::Process>> processes;
  for (int k = 0; k < 3; ++k)
    processes.push_back(std::make_unique<test::Process>(machine(k, 3, {"train.steps=20", "checkpoint.every=7"})));
  for (auto& process : processes) {
    const test::Ended ended = process->wait(120);
    EXPECT_EQ(ended.exit_code, 0) << ended.out << ended.err;
  }
  const std::string log = test::read_file(folder(0) / "log/00000000.tsb");
  for (const fs::path& other : {folder(1) / "log", folder(2) / "log", *this / "engine"})
    EXPECT_EQ(test::read_file(other / "00000000.tsb"), log) << other;
  const Json told = Json::parse(expect_done(trainer({"log", (folder(2) / "log").string(), "--json"})).out, "log");
  EXPECT_TRUE(told.at("ended").as_bool());
  ASSERT_EQ(told.at("snapshots").items().size(), 3u);  // after 7, 14 and 20 rounds
  EXPECT_EQ(told.at("snapshots").items()[2].at("round").as_integer(), 20);
}

TEST_F(Machines, WhoStaysWritesTheEndWhenTheFirstIsGone) {
  test::Process first(machine(0, 2, {"train.steps=20"}));
  auto second = std::make_unique<test::Process>(machine(1, 2, {"train.steps=20"}));
  wait_for_lines(folder(0), 5);
  second->send(SIGKILL);
  second->wait();
  EXPECT_TRUE(test::wait_until(
      [&] { return test::read_file(folder(0) / "log.txt").find("machine 1, which does not run") != std::string::npos; },
      30));
  test::Process again(machine(1, 2, {"train.steps=20"}));
  EXPECT_EQ(first.wait(120).exit_code, 0);
  EXPECT_EQ(again.wait(120).exit_code, 0);
  EXPECT_EQ(test::read_file(folder(1) / "log/00000000.tsb"), test::read_file(folder(0) / "log/00000000.tsb"));
}

TEST_F(Machines, OfAnotherRecipeOrOtherDataAreRefusedWithWhatDiffers) {
  test::Process first(machine(0, 2));
  wait_for(*this / "engine/run.json");
  EXPECT_THAT(expect_exit(2, machine(1, 2, {"optimizer.lr=1"})).err,
              AllOf(HasSubstr("engine/run.json: "), HasSubstr("optimizer.lr was"), HasSubstr("now 1")));
  EXPECT_THAT(expect_exit(2, machine(1, 2, {"train.steps=7"})).err, HasSubstr("train.steps was 40, now 7"));
  fs::copy_file(*this / "eval.jsonl", *this / "other.jsonl");
  EXPECT_THAT(expect_exit(2, machine(1, 2, {"data.train=other.jsonl"})).err, HasSubstr("engine/run.json: "));
  // Where the run is kept and how often it is saved is each one's own.
  EXPECT_EQ(test::Process(machine(1, 2, {"checkpoint.every=3"})).wait(120).exit_code, 0);
  EXPECT_EQ(first.wait(120).exit_code, 0);
}

TEST_F(Machines, OneNumberTwiceAndOneTooManyAreRefused) {
  test::Process first(machine(0, 2));
  wait_for(*this / "engine/run.json");
  EXPECT_THAT(expect_exit(2, machine(0, 2, {"run.dir=twice"})).err,
              AllOf(HasSubstr("machine 0 runs already in "), HasSubstr("spsa.machine=0 to 1")));
  EXPECT_THAT(expect_exit(2, machine(2, 3)).err,
              AllOf(HasSubstr("machine 0 in "), HasSubstr("counts 2 machines, this process 3")));
  // What the hints say.
  EXPECT_EQ(test::Process(machine(1, 2)).wait(120).exit_code, 0);
  EXPECT_EQ(first.wait(120).exit_code, 0);
}

TEST_F(Machines, OfAnotherNumberGoOnWhenAllHaveStopped) {
  {
    test::Process first(machine(0, 2, {"train.steps=60"})), second(machine(1, 2, {"train.steps=60"}));
    wait_for_lines(folder(0), 8);
    for (test::Process* process : {&first, &second}) {
      process->send(SIGKILL);
      process->wait();
    }
  }
  std::vector<std::unique_ptr<test::Process>> processes;
  for (int k = 0; k < 3; ++k) processes.push_back(std::make_unique<test::Process>(machine(k, 3, {"train.steps=60"})));
  for (auto& process : processes) EXPECT_EQ(process->wait(120).exit_code, 0);
  EXPECT_EQ(test::read_file(folder(2) / "log/00000000.tsb"), test::read_file(folder(0) / "log/00000000.tsb"));
}

TEST_F(Machines, ThatWaitLeaveAtOnceWhenAsked) {
  test::Process first(machine(0, 2));
  wait_for(*this / "engine/votes/00000000.votes");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto begin = std::chrono::steady_clock::now();
  first.send(SIGTERM);
  EXPECT_EQ(first.wait(60).exit_code, 130);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(Machines, ANewRunTakesANewSharedFolder) {
  for (const bool is_named : {true, false}) {
    Words words = {"spsa.toml", "spsa.transport=file", "train.steps=2"};
    if (is_named) words.emplace_back("spsa.shared=engine");
    const auto with = [&](const Words& more) {
      Words all = words;
      all.insert(all.end(), more.begin(), more.end());
      return trainer(all);
    };
    const std::string run = is_named ? "run.dir=named" : "run.dir=plain";
    expect_done(with({run}));
    const std::string other = is_named ? "another run.dir and spsa.shared" : "another run.dir";
    EXPECT_THAT(expect_exit(2, with({run, "train.seed=5"})).err,
                AllOf(HasSubstr("undo the change, or start anew with " + other + "\n"), Not(HasSubstr("never"))));
    EXPECT_THAT(expect_exit(2, with({run, "train.seed=5", "run.resume=never"})).err,
                AllOf(HasSubstr(std::string("or name other folders with ") + (is_named ? "spsa.shared and " : "") +
                                "run.dir: run.resume=never leaves the shared folder as it is\n")));
    Words followed = {run + "-other", "train.seed=5"};
    if (is_named) followed.emplace_back("spsa.shared=engine-other");
    expect_done(with(followed));
  }
}

TEST_F(Machines, WhoseVoteIsNotWaitedForSaysSo) {
  expect_done(machine(0, 1, {"spsa.shared=shared", "run.dir=alone", "train.steps=3"}));
  test::Process second(machine(1, 2));
  wait_for(*this / "engine/votes/00000000.votes");
  {
    const StepLog from = StepLog::open(*this / "alone/log", {.access = StepLog::Access::read});
    StepLog to = StepLog::open(*this / "engine", {.access = StepLog::Access::shared});
    from.for_each(0, [&](const Record& record, std::span<const std::byte> encoded) {
      return record.round < 3 && record.type == RecordType::round && to.append_if(record.index, encoded);
    });
  }
  EXPECT_TRUE(test::wait_until(
      [&] {
        return test::read_file(folder(1) / "log.txt").find("the others went on without this machine's vote") !=
               std::string::npos;
      },
      30))
      << test::read_file(folder(1) / "log.txt");
  second.send(SIGKILL);
}

}  // namespace
}  // namespace tessera
