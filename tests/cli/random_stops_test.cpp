// Stops at random moments, many at once: nothing that was done is lost.

#include <gtest/gtest.h>

#include <array>
#include <random>

#include "cli/stops.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::Stops;

constexpr std::array kPolite = {SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU};

/// Rounds of: start, a few signals at once at a random moment, and look at what is left.
/// A tenth of them unless TESSERA_LONG=1.
class RandomStops : public Stops {
 protected:
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

  using RunOf = std::function<test::Command(const std::string& run)>;
  /// Starts the command of the run "run" again and again, and asks it to stop: all that was done is there.
  /// @param ask  sends signals at random moments; says whether all of them asked politely
  void stop_in_rounds(const RunOf& command, const std::function<bool(test::Process&)>& ask) {
    expect_done(command("straight"));
    int stopped = 0;
    for (int round = 0; round < (test::tests_are_long() ? 200 : 20); ++round) {
      SCOPED_TRACE("seed " + std::to_string(seed_) + ", round " + std::to_string(round));
      const int64_t begin = lines("run");
      test::Process process(command("run"));
      const bool politely = ask(process);
      const test::Ended ended = process.wait(60);
      if (expect_whole(ended, begin, politely)) fs::remove_all(*this / "run");
      stopped += ended.exit_code == 130;
      if (HasFailure()) return;
    }
    EXPECT_GT(stopped, 0);
    expect_done_like(command("run"), "straight");
  }

 private:
  uint32_t seed_ = test::random_seed();
  std::mt19937 random_{seed_};
};

TEST_F(RandomStops, AloneLoseNothing) {
  repeat("eval.jsonl", 20);
  const auto command = [&](const std::string& run) {
    return trainer({"mos.toml", "train.steps=150", "checkpoint.every=0", "evaluate.every=30", "export.merged=true",
                    "export.peft=true", "run.dir=" + run});
  };
  stop_in_rounds(command, [&](test::Process& process) {
    test::sleep_seconds(seconds(1));
    for (size_t more = 1 + below(4); more > 0; --more)
      process.send(std::array{SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}[below(6)]);
    if (below(2)) {  // and again: who only asks may ask as often as they like
      test::sleep_seconds(seconds(0.2));
      process.send(kPolite[below(kPolite.size())]);
    }
    return true;
  });
}

TEST_F(RandomStops, UnderMpirunLoseNothing) {
  TESSERA_NEEDS_MPI();
  repeat("eval.jsonl", 20);
  const auto command = [&](const std::string& run) {
    return ranks(2, {"mos.toml", "train.steps=150", "checkpoint.every=20", "evaluate.every=30", "run.dir=" + run});
  };
  stop_in_rounds(command, [&](test::Process& process) {
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
    return politely;
  });
}

}  // namespace
}  // namespace tessera
