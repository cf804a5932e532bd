// What happens to runs with shared weights and by one-byte SPSA (never_worse_off_test.cpp: with an adapter), in random order: killed, stopped, moved, their newest checkpoint damaged, gone on with other ranks. After each
// event the run is never worse off than its newest readable checkpoint, and at its end it is the run that nothing happened to.
// 10 sequences; with TESSERA_LONG=1 200. TESSERA_SEED repeats one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <random>
#include <set>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

struct Kind {
  std::string recipe, steps, every;
  bool has_log;  // one-byte SPSA: the log of rounds counts, whatever happens to snapshots
};
const Kind kKinds[] = {{"rps.toml", "90", "7", false}, {"spsa.toml", "60", "6", true}};

class Events : public test::Workbench {
 protected:
  int64_t below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  fs::path run() const { return *this / run_name_; }

  Words words() const {
    return {kind_->recipe,
            "train.steps=" + kind_->steps,
            "train.batch=6",
            "checkpoint.every=" + kind_->every,
            "checkpoint.keep=" + std::to_string(keep_),
            "run.dir=" + run_name_,
            "data.train=" + data_};
  }
  test::Command command(int count) const { return count == 1 ? trainer(words()) : ranks(count, words()); }

  /// Checkpoints of the program's own, oldest first.
  std::vector<std::string> numbered() const {
    auto names = checkpoints(run_name_);
    names.erase(std::remove(names.begin(), names.end(), "step-best.h5"), names.end());
    return names;
  }
  /// The step of the newest checkpoint that this test has not damaged; 0 without one.
  int64_t newest_readable() const {
    int64_t newest = 0;
    for (const std::string& name : numbered())
      if (!damaged_.count(name)) newest = std::max<int64_t>(newest, std::stol(name.substr(5)));
    return newest;
  }
  int64_t readable() const {
    int64_t count = 0;
    for (const std::string& name : numbered()) count += !damaged_.count(name);
    return count;
  }
  bool is_done() const {
    return fs::exists(run() / "metrics.jsonl") &&
           test::read_file(run() / "metrics.jsonl").find("\"event\":\"done\"") != std::string::npos;
  }

  /// The step that the program says it goes on from; 0 for a start.
  static int64_t start_of(const std::string& out) {
    const std::string mark = "going on from step ";
    const size_t at = out.find(mark);
    return at == std::string::npos ? 0 : std::stol(out.substr(at + mark.size()));
  }

  /// Runs it, and cuts it off somewhere on its way, or not.
  void start(int count, int signal) {
    const int64_t owed = newest_readable();
    test::Process process(command(count));
    const int64_t lines = below(120);
    const fs::path file = run() / "metrics.jsonl";
    if (signal != 0) {
      const auto waited = [&] {
        return !process.running() || (fs::exists(file) && test::occurrences(test::read_file(file), "\n") >= lines);
      };
      test::wait_until(waited, 20);
      // mpirun passes signals on once its ranks run.
      if (signal != SIGKILL)
        test::wait_until([&] { return !process.running() || process.out().find("data:") != std::string::npos; }, 20);
      process.send(signal);
    }
    const test::Ended ended = process.wait(60);
    history_ += " -> " + std::to_string(ended.exit_code) + "\n";
    ASSERT_FALSE(ended.timed_out) << history_ << ended.out << ended.err;
    if (signal == SIGKILL) {
      if (count > 1) test::sleep_seconds(0.6);  // ranks outlive a killed mpirun for a moment
    } else {
      ASSERT_THAT(ended.exit_code, testing::AnyOf(0, 130)) << history_ << ended.out << ended.err;
    }
    if (ended.out.find("data:") != std::string::npos && !is_done()) {
      EXPECT_GE(start_of(ended.out), signal == SIGKILL ? 0 : owed) << history_ << ended.out;
    }
    forget_gone();
  }

  void forget_gone() {  // a damaged file that was written anew, or removed
    const auto there = numbered();
    for (auto it = damaged_.begin(); it != damaged_.end();) {
      const bool same = std::count(there.begin(), there.end(), it->first) &&
                        test::read_file(run() / "checkpoints" / it->first) == it->second;
      it = same ? std::next(it) : damaged_.erase(it);
    }
  }

  void damage_newest() {
    const auto there = numbered();
    if (there.empty() || (!kind_->has_log && readable() < 2)) return;
    const fs::path file = run() / "checkpoints" / there.back();
    std::string bytes = test::read_file(file);
    if (bytes.empty()) return;
    history_ += "damage " + there.back() + "\n";
    if (below(2) == 0) {
      bytes[static_cast<size_t>(below(static_cast<int64_t>(bytes.size())))] ^= 4;
    } else {
      bytes.resize(static_cast<size_t>(below(static_cast<int64_t>(bytes.size()))));
    }
    test::write_file(file, bytes);
    damaged_[there.back()] = bytes;
  }

  void move_run() {
    if (!fs::exists(run())) return;
    const std::string moved = "moved-" + std::to_string(++moves_);
    history_ += "move to " + moved + "\n";
    fs::rename(run(), *this / moved);
    run_name_ = moved;
  }

  void copy_by_hand() {  // a user's own copy is no checkpoint of the program's
    if (!fs::exists(run() / "checkpoints") || readable() == 0) return;
    history_ += "copy\n";
    const fs::path copy = run() / "checkpoints" / "step-best.h5";
    if (!fs::exists(copy)) fs::copy_file(run() / "checkpoints" / numbered().front(), copy);
    copied_ = true;
  }

  void one_sequence(uint64_t seed) {
    random_.seed(seed);
    kind_ = &kKinds[below(2)];
    keep_ = 1 + below(3);
    history_ = "TESSERA_SEED=" + std::to_string(seed) + " " + kind_->recipe + " keep " + std::to_string(keep_) + "\n";
    run_name_ = "run";
    data_ = "train.jsonl";
    damaged_.clear();
    copied_ = false;
    const int fixed = kind_->has_log ? 1 + static_cast<int>(below(2)) : 0;  // votes of other ranks make another run
    for (int64_t left = 2 + below(3); left > 0 && !HasFatalFailure(); --left) {
      const int64_t event = below(8);
      if (event == 0) {
        move_run();
      } else if (event == 1) {
        damage_newest();
      } else if (event == 2 && !kind_->has_log) {
        copy_by_hand();
      } else {
        const int count = fixed ? fixed : mpi_ ? 1 + static_cast<int>(below(3)) : 1;
        const int signal = event < 6 ? SIGKILL : count == 1 ? SIGTERM : SIGUSR1;
        history_ += "start on " + std::to_string(count) + ", signal " + std::to_string(signal);
        start(count, signal);
      }
    }
    if (HasFatalFailure()) return;
    history_ += "last start";
    start(fixed ? fixed : 1, 0);
    if (HasFatalFailure()) return;
    expect_straight(fixed);
  }

  /// The run is what it would have been: each step once, the same losses, files that can be read.
  void expect_straight(int count) {
    const std::string straight = "straight-" + kind_->recipe + std::to_string(count);
    if (!fs::exists(*this / straight)) {
      const std::string name = std::exchange(run_name_, straight);
      expect_done(command(std::max(1, count)));
      run_name_ = name;
    }
    const auto all = losses(run_name_), expected = losses(straight);
    EXPECT_EQ(all.size(), expected.size()) << history_;
    EXPECT_LE(test::largest_relative_difference(expected, all), kind_->has_log ? 0 : 1e-5) << history_;
    EXPECT_TRUE(is_done()) << history_;
    EXPECT_THAT(temporaries(run_name_), testing::IsEmpty()) << history_;
    EXPECT_EQ(fs::exists(run() / "checkpoints" / "step-best.h5"), copied_) << history_;
    if (kind_->has_log) {
      EXPECT_EQ(saved_bytes(run_name_), saved_bytes(straight)) << history_;
    }
    fs::remove_all(run());
  }

  std::mt19937_64 random_;
  const Kind* kind_ = nullptr;
  std::string run_name_, data_, history_;
  std::map<std::string, std::string> damaged_;  // name -> bytes as they were left
  int64_t keep_ = 1, moves_ = 0;
  bool copied_ = false, mpi_ = test::mpi_is_there();
};

TEST_F(Events, NeverLeaveARunWorseOffThanItsNewestReadableCheckpoint) {
  const char* given = std::getenv("TESSERA_SEED");
  const uint64_t seed = given ? std::stoull(given) : std::random_device{}();
  std::cout << "TESSERA_SEED=" << seed << "\n";
  const int sequences = given ? 1 : std::getenv("TESSERA_LONG") ? 200 : 10;
  for (int i = 0; i < sequences && !HasFailure(); ++i) one_sequence(seed + static_cast<uint64_t>(i));
}

}  // namespace
}  // namespace tessera
