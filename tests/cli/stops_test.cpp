// Stops of every kind, at any moment, in whatever the program is doing: nothing that was done is lost.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <random>
#include <set>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class Stops : public test::Workbench {
 protected:
  /// The lines of a file, so many times.
  void repeat(const std::string& file, int times) const {
    const std::string text = test::read_file(*this / file);
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    test::write_file(*this / file, all);
  }
  bool holds(const std::string& file, const std::string& text) const {
    return fs::exists(*this / file) && test::occurrences(test::read_file(*this / file), text) > 0;
  }
  int64_t last_step(const std::string& run) const {
    int64_t step = 0;
    for (const Json& line : metrics(run))
      if (const Json* split = line.find("split"); split && split->as_string() == "train")
        step = line.at("step").as_integer();
    return step;
  }
  int64_t newest_checkpoint(const std::string& run) const {
    return checkpoints(run).empty() ? 0 : std::stol(checkpoints(run).back().substr(5));
  }
  /// A base model of another size.
  void widen(int hidden, int intermediate) const {
    replace("base/config.json", "\"hidden_size\": 32", "\"hidden_size\": " + std::to_string(hidden));
    replace("base/config.json", "\"intermediate_size\": 64", "\"intermediate_size\": " + std::to_string(intermediate));
  }
  /// Holds the process where it stands once `moment` holds; false when it ended before.
  static bool hold(test::Process& process, const std::function<bool()>& moment) {
    while (process.running()) {
      if (!moment()) continue;
      process.send(SIGSTOP);
      return true;
    }
    return false;
  }
  /// Waits until `moment` holds, sends the signal, and expects a clean stop within the seconds.
  test::Ended stop(const test::Command& command, int signal, const std::function<bool()>& moment, double seconds = 20) {
    test::Process process(command);
    EXPECT_TRUE(test::wait_until(moment, 60));
    process.send(signal);
    const test::Ended ended = process.wait(seconds);
    EXPECT_FALSE(ended.timed_out) << ended.out << ended.err;
    EXPECT_EQ(ended.exit_code, 130) << ended.out << ended.err;
    return ended;
  }
};

constexpr std::array kPolite = {SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU};

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

TEST_F(Stops, TheJobsThatPrepareEvaluateAndGenerateLeaveToo) {
  expect_done(trainer({"mos.toml", "train.steps=2", "run.dir=run"}));
  repeat("train.jsonl", 1000);
  repeat("eval.jsonl", 3000);
  const auto expect_left = [&](const Words& words, const std::function<bool()>& moment) {
    const test::Ended ended = stop(trainer(words), SIGTERM, moment, 5);
    EXPECT_THAT(ended.err, EndsWith("; the same command starts again\n")) << words.back();
    EXPECT_EQ(ended.out, "") << words.back();
  };
  const auto after = [](double seconds) {
    test::sleep_seconds(seconds);
    return true;
  };
  const auto files_in = [&](const std::string& folder) {
    return fs::exists(*this / folder) ? std::distance(fs::directory_iterator(*this / folder), {}) : 0;
  };
  expect_left({"mos.toml", "run.dir=next", "data.cache=cache", "job=prepare"}, [&] { return after(0.3); });
  expect_left({"mos.toml", "run.dir=next", "data.cache=cache", "--show-batch"}, [&] { return after(0.3); });
  EXPECT_EQ(files_in("cache"), 0);
  const Words evaluate = {"mos.toml", "run.dir=run", "data.cache=cache", "job=evaluate", "train.micro_batch=1"};
  expect_left(evaluate, [&] { return files_in("cache") == 1 && after(0.3); });
  const fs::path samples = *this / "run/samples.jsonl";
  expect_left({"mos.toml", "run.dir=run", "job=generate", "generate.max_new_tokens=400"}, [&] { return after(0.5); });
  EXPECT_FALSE(fs::exists(samples));
  EXPECT_THAT(temporaries("run"), IsEmpty());
}

TEST_F(Stops, TrainingLeavesThePreparationOfData) {
  repeat("train.jsonl", 1000);
  const auto command = trainer({"mos.toml", "train.steps=2", "run.dir=run", "data.cache=cache"});
  const test::Ended ended = stop(command, SIGTERM, [&] {
    const bool has_begun = fs::exists(*this / "run/.lock");
    if (has_begun) test::sleep_seconds(0.2);
    return has_begun;
  });
  EXPECT_EQ(ended.err, "stopped while preparing data; the same command starts again\n");
  expect_done(command);
}

TEST_F(Stops, AnExportIsLeftWithoutAFolderAndMadeByTheSameCommand) {
  widen(256, 2048);  // 14 MB
  const auto command = [&](const std::string& job) {
    return trainer({"mos.toml", "job=" + job, "train.steps=1", "train.batch=1", "data.eval=", "export.merged=true",
                    "run.dir=run"});
  };
  const auto is_writing = [&] {
    const auto names = [](const fs::path& folder) {
      std::vector<std::string> all;
      std::error_code gone;
      for (const auto& entry : fs::directory_iterator(folder, gone)) all.push_back(entry.path().filename().string());
      return all;
    };
    for (const std::string& name : names(*this / "run"))
      if (name.rfind(".model.tmp-", 0) == 0)
        for (const std::string& file : names(*this / "run" / name))
          if (file.find("model.safetensors") != std::string::npos) return true;
    return false;
  };
  std::set<std::string> adapters, models;
  for (const std::string job : {"train", "export"}) {
    test::Process process(command(job));
    ASSERT_TRUE(hold(process, is_writing)) << process.wait().err;
    process.send(SIGTERM);
    process.send(SIGCONT);
    const test::Ended ended = process.wait();
    EXPECT_EQ(ended.exit_code, 130) << ended.out << ended.err;
    EXPECT_EQ(ended.err, std::string("stopped while exporting; the same command ") +
                             (job == "train" ? "goes on\n" : "starts again\n"));
    EXPECT_FALSE(fs::exists(*this / "run/model"));
    EXPECT_THAT(temporaries("run"), IsEmpty());
    EXPECT_EQ(newest_checkpoint("run"), 1);
    adapters.insert(test::read_file(*this / "run/adapter/mos.safetensors"));
    expect_done(command(job));
    adapters.insert(test::read_file(*this / "run/adapter/mos.safetensors"));
    models.insert(test::read_file(*this / "run/model/model.safetensors"));
    fs::remove_all(*this / "run/model");
  }
  EXPECT_EQ(adapters.size(), 1u) << "it is as it was trained, before and after";
  EXPECT_EQ(models.size(), 1u) << "both jobs export the same";
}

TEST_F(Stops, DataThatAreCutShortWhileTheyAreReadAreToldAndNothingIsKept) {
  repeat("train.jsonl", 300);
  const Words words = {"mos.toml", "job=prepare", "data.cache=cache", "run.dir=run"};
  test::Process process(trainer(words));
  ASSERT_TRUE(hold(process, [&] {
    return holds("/proc/" + std::to_string(process.pid()) + "/maps", (*this / "train.jsonl").string());
  }));
  fs::resize_file(*this / "train.jsonl", 100);
  process.send(SIGCONT);
  const test::Ended ended = process.wait();
  EXPECT_EQ(ended.exit_code, 2);
  EXPECT_THAT(ended.err, HasSubstr("a file that was mapped into memory was cut short"));
  EXPECT_FALSE(fs::exists(*this / "cache"));
}

TEST_F(Stops, AReplayIsLeft) {
  expect_done(trainer({"spsa.toml", "train.steps=1500", "spsa.probes=64", "train.batch=1", "log.every=500",
                       "train.sequence_length=16", "checkpoint.every=0", "spsa.digest_every=100000", "run.dir=run"}));
  const Words words = {"spsa.toml", "train.steps=1500", "spsa.probes=64", "job=replay", "run.dir=run", "run.threads=1"};
  test::Process process(trainer(words));
  test::sleep_seconds(0.15);
  process.send(SIGTERM);
  const test::Ended ended = process.wait();
  EXPECT_EQ(ended.exit_code, 130) << ended.err;
  EXPECT_EQ(ended.err, "stopped while replaying; the same command starts again\n");
  EXPECT_EQ(ended.out, "");
  expect_done(trainer(words));
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

/// Rounds of: start, a few signals at once at a random moment, and look at what is left. A tenth of them unless TESSERA_LONG=1.
class RandomStops : public Stops {
 protected:
  RandomStops() : seed_(std::random_device{}()), random_(seed_) {
    const char* named = std::getenv("TESSERA_SEED");
    if (named) random_.seed(seed_ = static_cast<uint32_t>(std::stoul(named)));
    std::printf("seed %u\n", seed_);
    const char* is_long = std::getenv("TESSERA_LONG");
    rounds_ = is_long && std::string(is_long) == "1" ? 200 : 20;
  }
  size_t below(size_t n) { return random_() % n; }
  double seconds(double most) { return std::uniform_real_distribution<double>(0, most)(random_); }

  /// What a round must leave. @param begin  lines of metrics when it began
  /// @return whether the run was done
  bool expect_whole(const test::Ended& ended, int64_t begin, bool asked_politely) {
    EXPECT_FALSE(ended.timed_out) << ended.out << ended.err;
    if (ended.exit_code == 0) {
      expect_same_run("run");
      return true;
    }
    const bool has_begun = lines("run") > begin;
    if (asked_politely && has_begun) {
      EXPECT_EQ(ended.exit_code, 130) << ended.out << ended.err;
    }
    if (asked_politely && ended.exit_code == 130 && lines("run") > 0) {  // none while data are being prepared
      EXPECT_EQ(newest_checkpoint("run"), last_step("run")) << ended.out << ended.err;
    }
    EXPECT_FALSE(asked_politely && ended.exit_code == 1) << ended.out << ended.err;
    EXPECT_NE(ended.exit_code, 2) << ended.out << ended.err;
    return false;
  }

  uint32_t seed_;
  std::mt19937 random_;
  int rounds_ = 0;
};

TEST_F(RandomStops, AloneLoseNothing) {
  repeat("eval.jsonl", 20);
  const auto command = [&](const std::string& run) {
    return trainer({"mos.toml", "train.steps=150", "checkpoint.every=0", "evaluate.every=30", "export.merged=true",
                    "export.peft=true", "run.dir=" + run});
  };
  expect_done(command("straight"));
  int stopped = 0;
  for (int round = 0; round < rounds_; ++round) {
    SCOPED_TRACE("seed " + std::to_string(seed_) + ", round " + std::to_string(round));
    const int64_t begin = lines("run");
    test::Process process(command("run"));
    test::sleep_seconds(seconds(1));
    for (size_t more = 1 + below(4); more > 0; --more)
      process.send(std::array{SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}[below(6)]);
    if (below(2)) {  // and again: who only asks may ask as often as they like
      test::sleep_seconds(seconds(0.2));
      process.send(kPolite[below(kPolite.size())]);
    }
    const test::Ended ended = process.wait(60);
    if (expect_whole(ended, begin, true)) fs::remove_all(*this / "run");
    stopped += ended.exit_code == 130;
    if (HasFailure()) return;
  }
  EXPECT_GT(stopped, 0);
  expect_done(command("run"));
  expect_same_run("run");
  EXPECT_THAT(temporaries("run"), IsEmpty());
}

TEST_F(RandomStops, UnderMpirunLoseNothing) {
  TESSERA_NEEDS_MPI();
  repeat("eval.jsonl", 20);
  const auto command = [&](const std::string& run) {
    return ranks(2, {"mos.toml", "train.steps=150", "checkpoint.every=20", "evaluate.every=30", "run.dir=" + run});
  };
  expect_done(command("straight"));
  int stopped = 0;
  for (int round = 0; round < rounds_; ++round) {
    SCOPED_TRACE("seed " + std::to_string(seed_) + ", round " + std::to_string(round));
    const int64_t begin = lines("run");
    test::Process process(command("run"));
    test::sleep_seconds(seconds(2));
    const bool politely = below(4) > 0;
    for (size_t more = 1 + below(4); more > 0; --more) {
      const auto pids = process.children();
      const size_t whom = below(3);  // a rank alone, or mpirun, which passes on what it is sent
      if (whom < pids.size())
        kill(pids[whom], kPolite[below(kPolite.size())]);
      else if (politely)
        process.send(below(2) ? SIGUSR1 : SIGUSR2);
      else
        process.send(std::array{SIGINT, SIGTERM, SIGHUP}[below(3)]);
    }
    const test::Ended ended = process.wait(60);
    if (expect_whole(ended, begin, politely)) fs::remove_all(*this / "run");
    stopped += ended.exit_code == 130;
    if (HasFailure()) return;
  }
  EXPECT_GT(stopped, 0);
  expect_done(command("run"));
  expect_same_run("run");
  EXPECT_THAT(temporaries("run"), IsEmpty());
}

}  // namespace
}  // namespace tessera
