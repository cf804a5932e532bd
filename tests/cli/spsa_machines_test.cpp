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
    return trainer(joined({"spsa.toml", "run.dir=run" + std::to_string(k), "spsa.transport=file", "spsa.shared=engine",
                           "spsa.machine=" + std::to_string(k), "spsa.machines=" + std::to_string(machines)},
                          more));
  }
  /// The folder that machine k of run.dir=run<k> works in.
  fs::path folder(int k) const {
    const fs::path run = *this / ("run" + std::to_string(k));
    return k == 0 ? run : run / fmt::format("machine-{:05}", k);
  }
  void expect_all_done(int machines, const Words& more) const {
    std::vector<std::unique_ptr<test::Process>> processes;
    for (int k = 0; k < machines; ++k) processes.push_back(std::make_unique<test::Process>(machine(k, machines, more)));
    for (auto& process : processes) {
      const test::Ended ended = process->wait(120);
      EXPECT_EQ(ended.exit_code, 0) << ended.out << ended.err;
    }
  }
  /// Two machines, killed when the first has told so many lines.
  void start_and_kill(int64_t lines, const Words& first_more, const Words& second_more) const {
    test::Process first(machine(0, 2, first_more)), second(machine(1, 2, second_more));
    wait_for_lines("run0", lines);
    for (test::Process* process : {&first, &second}) {
      process->send(SIGKILL);
      process->wait();
    }
  }
  void wait_for(const fs::path& file) const {
    ASSERT_TRUE(test::wait_until([&] { return fs::exists(file); }, 60)) << file;
  }
};

TEST_F(Machines, AllEndWithTheSameLogToTheLastRecord) {
  expect_all_done(3, {"train.steps=20", "checkpoint.every=7"});
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
  wait_for_lines("run0", 5);
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
  const Words words = {"train.steps=60"};
  start_and_kill(8, words, words);
  expect_all_done(3, words);
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

TEST_F(Machines, MendADamagedLogWithTheFileOfAnotherMachine) {
  const Words words = {"train.steps=200"};
  start_and_kill(8, words, words);
  const fs::path file = *this / "run0/log/00000000.tsb";
  std::string bytes = test::read_file(file);
  bytes[bytes.size() / 2] ^= 1;
  test::write_file(file, bytes);
  EXPECT_THAT(expect_exit(2, machine(0, 2, words)).err, HasSubstr("take the file from another one"));
  fs::copy_file(folder(1) / "log/00000000.tsb", file, fs::copy_options::overwrite_existing);
  expect_all_done(2, words);
}

TEST_F(Machines, GetASharedLogThatIsGoneFromTheOneWhoseLogIsWhole) {
  const Words words = {"train.steps=200", "checkpoint.every=2", "checkpoint.keep=1"},
              drops = joined(words, {"spsa.compact=drop"}), keeps = joined(words, {"spsa.compact=keep"});
  start_and_kill(12, drops, keeps);
  fs::remove_all(*this / "engine");
  EXPECT_THAT(expect_exit(2, machine(0, 2, drops)).err,
              AllOf(HasSubstr("the shared log lacks the records before number"),
                    HasSubstr("start the machine whose log is whole first")));
  test::Process second(machine(1, 2, keeps));
  const fs::path shared = *this / "engine/00000000.tsb", whole = folder(1) / "log/00000000.tsb";
  ASSERT_TRUE(
      test::wait_until([&] { return fs::exists(shared) && fs::file_size(shared) >= fs::file_size(whole); }, 60));
  EXPECT_EQ(test::Process(machine(0, 2, drops)).wait(120).exit_code, 0);
  EXPECT_EQ(second.wait(120).exit_code, 0);
}

TEST_F(Machines, WhoseVotesAreNotWaitedForSaySoAndTellTheRatesOfTheUpdatesThatTheyFollow) {
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
  const std::string run = folder(1).lexically_relative(path()).string();
  const auto rates = [&](const std::string& of) {
    std::vector<double> all;
    for (const Json& line : metrics(of))
      if (line.find("lr")) all.push_back(line.at("lr").as_number());
    return all;
  };
  wait_for_lines(run, 1 + 3);  // its evaluation before, then the three rounds
  EXPECT_THAT(test::read_file(folder(1) / "log.txt"),
              HasSubstr("the others went on without this machine's vote; it follows them"));
  const std::vector<double> followed = rates(run), packed = rates("alone");
  EXPECT_LT(test::largest_relative_difference(packed, followed), 1e-6);  // of 3 steps; its own schedule has 40
  EXPECT_LT(followed[2], 0.5 * followed[0]);
  second.send(SIGKILL);
}

}  // namespace
}  // namespace tessera
