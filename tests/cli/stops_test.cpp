// Stops of a training run, of every kind and at any moment: nothing that was done is lost.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/stops.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Stops;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST_F(Stops, EverySignalThatAsksLeavesACheckpointOfTheStepDone) {
  const Words words = {"mos.toml", "train.steps=100000", "checkpoint.every=0", "data.eval_fraction=0", "run.dir=run"};
  int64_t before = 0;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    const int64_t wanted = lines("run") + 5;
    const test::Ended ended = stop(trainer(words), signal, [&] { return lines("run") >= wanted; });
    EXPECT_THAT(ended.out, EndsWith("; the same command goes on\n")) << signal;
    EXPECT_EQ(newest_checkpoint("run"), last_step("run")) << signal;
    EXPECT_GT(last_step("run"), before) << signal;
    before = last_step("run");
  }
}

TEST_F(Stops, AHangUpThatIsIgnoredAtTheStartStaysIgnored) {
  expect_done(trainer({"mos.toml", "train.steps=2", "run.dir=straight"}));
  test::Command command = trainer({"mos.toml", "train.steps=300", "run.dir=run"});
  command.arguments.insert(command.arguments.begin(), "nohup");
  test::Process process(command);
  ASSERT_TRUE(test::wait_until([&] { return lines("run") > 5; }));
  process.send(SIGHUP);
  EXPECT_EQ(process.wait(60).exit_code, 0);
  EXPECT_EQ(last_step("run"), 300);
}

TEST_F(Stops, WhatIsLimitedInTimeStopsBeforeItIsKilled) {
  // The kernel sends XCPU each second from the soft limit on.
  test::Command command = trainer({"mos.toml", "train.steps=1000000", "checkpoint.every=0", "run.dir=run"});
  command.arguments.insert(command.arguments.begin(),
                           {"bash", "-c", "ulimit -S -t 1; ulimit -H -t 60; exec \"$@\"", "bash"});
  const test::Ended ended = expect_exit(130, command);
  EXPECT_GT(last_step("run"), 0);
  EXPECT_EQ(newest_checkpoint("run"), last_step("run"));
}

TEST_F(Stops, AnEvaluationIsLeftAndMadeWhenTheRunGoesOn) {
  repeat("eval.jsonl", 200);
  for (const std::string recipe : {"mos", "spsa"}) {
    const auto command = [&](const std::string& run) {
      return trainer({recipe + ".toml", "train.steps=10", "evaluate.every=5", "checkpoint.every=0",
                      "train.micro_batch=1", "run.dir=" + run});
    };
    for (const char* left : {"run", "straight"}) fs::remove_all(*this / left);
    expect_done(command("straight"));
    for (const int64_t done : {0, 5, 10}) {  // in the evaluations before step 1, behind step 5 and behind the last
      const int64_t told = done == 0 ? 0 : done == 5 ? 6 : 12;
      const test::Ended ended = stop(command("run"), SIGTERM, [&] {
        return done > 0 ? lines("run") >= told : holds("run/log.txt", "memory a rank");
      });
      const std::string when = done == 0 ? "before step 1" : "after step " + std::to_string(done);
      const bool has_nothing = done == 0 && recipe == "mos";  // a log begins with its header
      EXPECT_THAT(ended.out,
                  EndsWith("stopped " + when + "; the same command " + (has_nothing ? "starts again\n" : "goes on\n")));
      EXPECT_EQ(lines("run"), told) << "the evaluation was made";
    }
    EXPECT_THAT(expect_done(command("run")).out, HasSubstr("going on from step 10"));
    EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
    EXPECT_EQ(losses("run", "eval"), losses("straight", "eval"));
    if (recipe == "mos") {
      EXPECT_EQ(timeless_metrics("run"), timeless_metrics("straight"));
    }
  }
}

TEST_F(Stops, TheBestCheckpointMayBeThatOfAnOwedEvaluation) {
  repeat("eval.jsonl", 200);
  const auto command = trainer(
      {"mos.toml", "train.steps=6", "evaluate.every=3", "checkpoint.best=true", "train.micro_batch=1", "run.dir=run"});
  stop(command, SIGTERM, [&] { return lines("run") >= 4; });  // its first evaluation is told, that of step 3 is not
  EXPECT_FALSE(fs::exists(*this / "run/checkpoints/best.h5"));
  stop(command, SIGTERM, [&] { return lines("run") >= 8; });
  EXPECT_TRUE(fs::exists(*this / "run/checkpoints/best.h5"));
}

TEST_F(Stops, UnderMpirunTheRanksLeaveAnEvaluationTogether) {
  TESSERA_NEEDS_MPI();
  repeat("eval.jsonl", 400);
  const auto command = [&](const std::string& run) {
    return ranks(2, {"mos.toml", "train.steps=6", "evaluate.every=3", "checkpoint.every=0", "train.micro_batch=1",
                     "run.dir=" + run});
  };
  expect_done(command("straight"));
  for (const int signal : {SIGUSR1, SIGUSR2}) {
    const int64_t told = signal == SIGUSR1 ? 4 : 8;
    stop(command("run"), signal, [&] { return lines("run") >= told; });  // mpirun passes them on
    EXPECT_EQ(lines("run"), told);
  }
  expect_done(command("run"));
  expect_same_run("run");

  fs::remove_all(*this / "run");
  test::Process process(command("run"));
  ASSERT_TRUE(test::wait_until([&] { return lines("run") >= 4; }));
  kill(process.children().at(1), SIGHUP);  // one rank alone is asked: all leave
  EXPECT_EQ(process.wait().exit_code, 130);
  EXPECT_EQ(newest_checkpoint("run"), 3);
  expect_done(command("run"));
  expect_same_run("run");
}

TEST_F(Stops, ARunThatTheCommandDoesNotGoOnWithSaysHow) {
  const Words run = {"mos.toml", "train.steps=200", "checkpoint.every=0", "run.dir=a run"};
  const auto with = [&](const Words& more) { return joined(run, more); };
  Words straight = run;
  straight.back() = "run.dir=straight";
  expect_done(trainer(straight));
  fs::create_directories(*this / "a run");
  const auto follow = [&](const test::Ended& ended, const std::string& folder) {
    const std::string hint = "; the same command with run.resume=auto 'run.dir=" + folder + "' goes on\n";
    EXPECT_THAT(ended.out, EndsWith(hint));
    const int64_t step = newest_checkpoint(folder);
    EXPECT_THAT(expect_done(trainer(with({"run.resume=auto", "run.dir=" + folder}))).out,
                HasSubstr("going on from step " + std::to_string(step) + " "));
    EXPECT_EQ(saved_bytes(folder), saved_bytes("straight"));
  };
  follow(stop(trainer(with({"run.resume=never"})), SIGTERM, [&] { return lines("a run-2") > 5; }), "a run-2");

  stop(trainer(run), SIGTERM, [&] { return lines("a run") > 5; });
  const std::string from = "run.resume=a run/checkpoints/" + checkpoints("a run").back();
  const int64_t first = newest_checkpoint("a run");
  follow(stop(trainer(with({from})), SIGTERM, [&] { return lines("a run-3") > 5; }), "a run-3");
  EXPECT_GT(first, 0);
}

TEST_F(Stops, ASecondDemandTearsNothing) {
  widen(256, 1024);
  const auto command = trainer({"full.toml", "train.batch=1", "train.steps=100000", "checkpoint.every=1", "run.dir=run",
                                "data.eval_fraction=0"});
  for (int time = 0; time < 3; ++time) {
    test::Process process(command);
    const int64_t begin = lines("run");
    ASSERT_TRUE(test::wait_until([&] { return lines("run") > begin + 2; }, 60));
    process.send(SIGTERM);
    // Held in the middle of a checkpoint, it is told again; it then leaves where it stands.
    if (hold(process, [&] { return !temporaries("run/checkpoints").empty(); })) {
      test::sleep_seconds(0.6);
      process.send(SIGTERM);
      process.send(SIGCONT);
    }
    const test::Ended ended = process.wait();
    EXPECT_FALSE(ended.timed_out);
    EXPECT_EQ(ended.exit_code, 130) << ended.err;
    EXPECT_GE(newest_checkpoint("run"), last_step("run") - 1);
  }
  const int64_t begin = lines("run");
  const test::Ended ended = stop(command, SIGTERM, [&] { return lines("run") > begin + 2; });
  EXPECT_THAT(ended.out, HasSubstr("going on from step "));
  EXPECT_THAT(ended.out, Not(HasSubstr("skipped")));
  EXPECT_THAT(temporaries("run"), IsEmpty());
}

}  // namespace
}  // namespace tessera
