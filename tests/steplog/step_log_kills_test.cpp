// Processes that are killed while they write a step log.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "steplog/step_log_samples.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;

/// A child process that works on a log until it is killed, and says the number of records after each piece of work.
struct Worker {
  Worker(const fs::path& folder, void (*work)(StepLog&)) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    process = fork();
    if (process == 0) {
      close(ends[0]);
      try {
        StepLog log = StepLog::create(folder, kHeader, {.segment_bytes = 2000});
        for (uint64_t size = log.size();;) {
          work(log);
          size = log.size();
          if (write(ends[1], &size, sizeof size) != sizeof size) break;
        }
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
    close(ends[1]);
    said = ends[0];
  }
  /// Kills it; the number of records after the last piece of work that was done.
  uint64_t kill_and_count() {
    kill(process, SIGKILL);
    int status = 0;
    waitpid(process, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
    uint64_t size = 0, last = 0;
    while (read(said, &size, sizeof size) == sizeof size) last = size;
    close(said);
    return last;
  }
  pid_t process;
  int said;
};

TEST(StepLog, AKillAtAnyMomentLosesNoRecordWhoseAppendReturned) {
  const TemporaryFolder folder;
  Dice dice(20);
  uint64_t known = 0;
  for (int round = 0; round < 20; ++round) {
    Worker worker(folder / "log", append_one);
    std::this_thread::sleep_for(std::chrono::microseconds(dice.below(round < 8 ? 2500 : 60000)));
    known = std::max(known, worker.kill_and_count());
    if (!fs::exists(folder / "log/header.json")) continue;
    const StepLog log = StepLog::open(folder / "log", {});
    ASSERT_GE(log.size(), known);
    ASSERT_LE(log.size(), known + 1);
    known = log.size();
    ASSERT_EQ(records_of(log).size(), known);
  }
  EXPECT_GT(known, 20u);
}

TEST(StepLog, AKillAmidCompactionOrTruncationLeavesALogThatGoesOn) {
  const TemporaryFolder folder;
  Dice dice(21);
  const auto shuffle_files = [](StepLog& log) {
    for (int i = 0; i < 40; ++i) append_one(log);
    log.compact(log.size() - 10, StepLog::Compaction::archive);
    log.truncate(log.size() - 35);
    if (log.size() > log.first_index() + 60) log.compact(log.first_index() + 30, StepLog::Compaction::drop);
  };
  uint64_t most = 0;
  for (int round = 0; round < 20; ++round) {
    Worker worker(folder / "log", shuffle_files);
    std::this_thread::sleep_for(std::chrono::microseconds(dice.below(100'000)));
    worker.kill_and_count();
    if (!fs::exists(folder / "log/header.json")) continue;
    StepLog log = StepLog::open(folder / "log", {});
    ASSERT_EQ(records_of(log, log.first_index()).size(), log.size() - log.first_index());
    append_one(log);
    most = std::max(most, log.size());
  }
  EXPECT_GT(most, 50u);
}

}  // namespace
}  // namespace tessera::test
