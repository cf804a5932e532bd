// What happens to a run, in random order: it is killed, stopped, moved with or without its surroundings, its newest
// checkpoints are damaged, it goes on with other ranks. After each event it is never worse off than its newest readable
// checkpoint, and at its end it is the run that nothing happened to. 20 sequences, 200 with TESSERA_LONG=1;
// TESSERA_SEED repeats one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <random>

#include "core/error.h"
#include "support/random_seed.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

struct Kind {
  std::string recipe;
  int64_t steps, shortest, longest;  // between checkpoints
  bool has_log;                      // one-byte SPSA: the log of rounds counts, whatever happens to snapshots
};
const Kind kKinds[] = {{"mos", 12, 1, 3, false}, {"rps", 90, 7, 7, false}, {"spsa", 60, 6, 6, true}};

class Events : public test::Workbench {
 protected:
  int64_t below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  fs::path home() const { return *this / home_; }
  std::string run() const { return home_ + "/" + run_; }
  fs::path folder() const { return *this / run() / "checkpoints"; }

  test::Command command(int count, const std::string& run) const {
    const Words words = {kind_->recipe + ".toml",
                         "train.steps=" + std::to_string(kind_->steps),
                         "train.batch=6",
                         "checkpoint.every=" + std::to_string(every_),
                         "checkpoint.keep=" + std::to_string(keep_),
                         "run.dir=" + run};
    return count == 1 ? trainer(words) : ranks(count, words);
  }

  /// Checkpoints of the program's own, oldest first; those that this test has not damaged;
  /// the step of the newest of them, or 0.
  std::vector<std::string> numbered() const {
    auto names = checkpoints(run());
    names.erase(std::remove(names.begin(), names.end(), "step-best.h5"), names.end());
    return names;
  }
  std::vector<std::string> readable() const {
    auto names = numbered();
    names.erase(std::remove_if(names.begin(), names.end(), [&](const auto& name) { return damaged_.count(name) > 0; }),
                names.end());
    return names;
  }
  int64_t newest_readable() const { return readable().empty() ? 0 : std::stol(readable().back().substr(5)); }
  bool is_done() const {
    const fs::path file = *this / run() / "metrics.jsonl";
    return fs::exists(file) && test::read_file(file).find("\"event\":\"done\"") != std::string::npos;
  }
  /// It cannot go on, and starts anew only when the user says so.
  bool is_lost() const { return !kind_->has_log && !is_done() && readable().empty() && !numbered().empty(); }

  /// The step that the program says it goes on from; 0 for a start.
  static int64_t start_of(const std::string& out) {
    const std::string mark = "going on from step ";
    const size_t at = out.find(mark);
    return at == std::string::npos ? 0 : std::stol(out.substr(at + mark.size()));
  }

  /// Runs it, and cuts it off somewhere on its way, or not (signal 0).
  void start(int count, int signal) {
    history_ += "start on " + std::to_string(count) + ", signal " + std::to_string(signal);
    only_alone_ = only_alone_ && count == 1;
    const int64_t owed = newest_readable(), lines_then = below(kind_->steps * 5 / 4);
    const bool was_lost = is_lost();
    test::Command started = command(count, run_);
    started.folder = home();
    test::Process process(started);
    if (signal != 0) {
      test::wait_until([&] { return !process.running() || lines(run()) >= lines_then; }, 20);
      // mpirun passes signals on once its ranks run.
      if (signal != SIGKILL)
        test::wait_until([&] { return !process.running() || process.out().find("data:") != std::string::npos; }, 20);
      process.send(signal);
    }
    const test::Ended ended = process.wait(60);
    history_ += " -> " + std::to_string(ended.exit_code) + "\n";
    ASSERT_FALSE(ended.timed_out) << history_ << ended.out << ended.err;
    if (signal == SIGKILL && count > 1) test::sleep_seconds(0.6);  // ranks outlive a killed mpirun for a moment
    if (was_lost && ended.exit_code == 2) {
      EXPECT_THAT(ended.err, testing::HasSubstr("every checkpoint of this run is damaged")) << history_;
    } else if (signal != SIGKILL) {
      ASSERT_THAT(ended.exit_code, testing::AnyOf(0, 130)) << history_ << ended.out << ended.err;
    }
    if (ended.out.find("data:") != std::string::npos && !is_done()) {
      EXPECT_GE(start_of(ended.out), signal == SIGKILL ? 0 : owed) << history_ << ended.out;
    }
    forget_gone();
    if (!kind_->has_log) {
      EXPECT_GE(newest_readable(), owed) << history_ << ended.out;
    }
  }

  void forget_gone() {  // a damaged file that was written anew, or removed
    const auto there = numbered();
    for (auto it = damaged_.begin(); it != damaged_.end();) {
      const bool same =
          std::count(there.begin(), there.end(), it->first) && test::read_file(folder() / it->first) == it->second;
      it = same ? std::next(it) : damaged_.erase(it);
    }
  }

  void damage_newest() {
    const auto there = numbered();
    const int64_t count = std::min<int64_t>(1 + below(2), static_cast<int64_t>(there.size()));
    for (auto name = there.rbegin(); name != there.rbegin() + count; ++name) {
      std::string bytes = test::read_file(folder() / *name);
      if (bytes.empty()) continue;
      history_ += "damage " + *name + "\n";
      const auto at = static_cast<size_t>(below(static_cast<int64_t>(bytes.size())));
      if (below(2) == 0)
        bytes[at] ^= 4;
      else
        bytes.resize(at);
      test::write_file(folder() / *name, bytes);
      damaged_[*name] = bytes;
    }
  }

  void move() {
    std::string& moved = below(2) == 0 ? home_ : run_;
    const fs::path from = &moved == &home_ ? home() : *this / run();
    if (!fs::exists(from)) return;
    moved = "moved-" + std::to_string(++moves_);
    history_ += "move " + from.filename().string() + " to " + moved + "\n";
    fs::rename(from, &moved == &home_ ? home() : *this / run());
  }

  void copy_by_hand() {  // a user's own copy is no checkpoint of the program's
    if (readable().empty()) return;
    history_ += "copy\n";
    fs::copy_file(folder() / readable().back(), folder() / "step-best.h5", fs::copy_options::overwrite_existing);
    copied_ = true;
  }

  void one_sequence(uint32_t seed) {
    random_.seed(seed);
    kind_ = &kKinds[below(3)];
    keep_ = 1 + below(3);
    every_ = kind_->shortest + below(kind_->longest - kind_->shortest + 1);
    history_ = fmt::format("TESSERA_SEED={} {} every {} keep {}\n", seed, kind_->recipe, every_, keep_);
    home_ = "home-" + std::to_string(seed);
    run_ = "run";
    fs::create_directory(home());
    for (const std::string& part :
         {std::string("base"), kind_->recipe + ".toml", std::string("train.jsonl"), std::string("eval.jsonl")})
      fs::copy(*this / part, home() / part, fs::copy_options::recursive);
    damaged_.clear();
    copied_ = false;
    only_alone_ = true;
    const int fixed = kind_->has_log ? 1 + static_cast<int>(below(mpi_ ? 2 : 1)) : 0;  // votes of others: another run
    for (int64_t left = 3 + below(4); left > 0 && !HasFailure() && !is_lost(); --left) {
      const int64_t event = below(8);
      if (event == 0) {
        move();
      } else if (event == 1) {
        damage_newest();
      } else if (event == 2 && !kind_->has_log) {
        copy_by_hand();
      } else {
        const int count = fixed ? fixed : mpi_ && below(3) == 0 ? 2 + static_cast<int>(below(2)) : 1;
        start(count, event < 6 ? SIGKILL : count == 1 ? SIGTERM : SIGUSR1);
      }
    }
    const bool was_lost = is_lost();
    if (!HasFailure()) start(fixed ? fixed : 1, 0);
    if (!HasFailure() && !was_lost) expect_straight(fixed ? fixed : 1);
    fs::remove_all(home());
  }

  /// The run is what it would have been: each step once, the same losses, files that can be read.
  void expect_straight(int count) {
    const std::string straight = "straight-" + kind_->recipe + std::to_string(count);
    if (!fs::exists(*this / straight)) expect_done(command(count, straight));
    EXPECT_TRUE(is_done()) << history_;
    EXPECT_EQ(losses(run()).size(), static_cast<size_t>(kind_->steps)) << history_;
    EXPECT_LE(test::largest_relative_difference(losses(straight), losses(run())),
              only_alone_ || kind_->has_log ? 0 : 1e-5)
        << history_;
    if (only_alone_ || kind_->has_log) {
      EXPECT_EQ(saved_bytes(run()), saved_bytes(straight)) << history_;
    }
    EXPECT_THAT(temporaries(run()), testing::IsEmpty()) << history_;
    EXPECT_EQ(fs::exists(folder() / "step-best.h5"), copied_) << history_;
  }

  std::mt19937_64 random_;
  const Kind* kind_ = nullptr;
  std::string home_, run_, history_;
  std::map<std::string, std::string> damaged_;  // name -> bytes as they were left
  int64_t keep_ = 1, every_ = 1, moves_ = 0;
  bool copied_ = false, only_alone_ = true, mpi_ = test::mpi_is_there();
};

TEST_F(Events, NeverLeaveARunWorseOffThanItsNewestReadableCheckpoint) {
  const uint32_t seed = test::random_seed();
  const uint32_t sequences = test::repeats_a_seed() ? 1 : test::tests_are_long() ? 200 : 20;
  for (uint32_t i = 0; i < sequences && !HasFailure(); ++i) one_sequence(seed + i);
}

}  // namespace
}  // namespace tessera
