// A run that is killed, moved, gone on with by other ranks and whose newest checkpoints are damaged is never worse off than its newest
// readable checkpoint. Sequences of such events are drawn: 200 with TESSERA_LONG=1, else 20.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <random>

#include "support/workbench.h"
#include "train/checkpoint.h"
#include "train/run_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class NeverWorseOff : public test::Workbench {
 protected:
  static constexpr int kSteps = 12;

  int draw(int below) { return static_cast<int>(random_() % static_cast<uint32_t>(below)); }

  /// A folder of its own with recipe, data and model, which can be moved.
  void begin() {
    home_ = *this / ("home-" + std::to_string(++homes_));
    fs::create_directory(home_);
    for (const char* part : {"base", "mos.toml", "train.jsonl", "eval.jsonl"})
      fs::copy(*this / part, home_ / part, fs::copy_options::recursive);
    every_ = 1 + draw(3);
    keep_ = 1 + draw(2);
    only_alone_ = true;
  }
  test::Command command(int count) {
    const Words words = {"mos.toml", "run.dir=run", "train.steps=" + std::to_string(kSteps),
                         "checkpoint.every=" + std::to_string(every_), "checkpoint.keep=" + std::to_string(keep_)};
    test::Command made = count == 1 ? trainer(words) : ranks(count, words);
    made.folder = home_;
    return made;
  }
  int some_ranks() {
    const int count = test::mpi_is_there() && draw(6) == 0 ? 2 + draw(2) : 1;
    only_alone_ = only_alone_ && count == 1;
    return count;
  }
  fs::path folder() const { return home_ / "run/checkpoints"; }

  /// The newest step whose file can be read; 0 without one.
  int64_t newest_readable() const {
    for (const int64_t step : checkpoint_steps(folder())) {
      try {
        read_checkpoint_meta(checkpoint_file(folder(), step));
        return step;
      } catch (const UserError&) {
      }
    }
    return 0;
  }

  void start_and_interrupt() {
    test::Process process(command(some_ranks()));
    test::wait_until([&] { return !process.running() || fs::exists(home_ / "run/metrics.jsonl"); }, 20);
    test::sleep_seconds(0.001 * draw(120));
    process.send(draw(3) == 0 ? SIGTERM : SIGKILL);
    const test::Ended ended = process.wait();
    EXPECT_FALSE(ended.timed_out);
    if (ended.exit_code == 2) {
      EXPECT_THAT(ended.err, HasSubstr("every checkpoint of this run is damaged"));
    }
  }
  void damage_newest() {
    const auto steps = checkpoint_steps(folder());
    for (size_t i = 0; i < steps.size() && i < 1 + static_cast<size_t>(draw(2)); ++i) {
      const fs::path file = checkpoint_file(folder(), steps[i]);
      if (draw(2) == 0) {
        fs::resize_file(file, fs::file_size(file) * static_cast<uintmax_t>(draw(100)) / 100);
        continue;
      }
      std::string bytes = test::read_file(file);
      if (!bytes.empty()) bytes[random_() % bytes.size()] ^= 1;
      test::write_file(file, bytes);
    }
  }
  void copy_newest_for_the_user() {
    const auto steps = checkpoint_steps(folder());
    if (!steps.empty())
      fs::copy_file(checkpoint_file(folder(), steps[0]), folder() / "step-best.h5",
                    fs::copy_options::overwrite_existing);
  }
  void move() {
    const fs::path there = *this / ("home-" + std::to_string(++homes_));
    fs::rename(home_, there);
    home_ = there;
  }

  void play() {
    begin();
    for (int event = 0; event < 4; ++event) {
      start_and_interrupt();
      if (draw(3) == 0) copy_newest_for_the_user();
      if (draw(2) == 0) damage_newest();
      if (draw(3) == 0) move();
      const bool had_a_copy = fs::exists(folder() / "step-best.h5");
      const int64_t before = newest_readable();
      start_and_interrupt();
      ASSERT_GE(newest_readable(), before);
      ASSERT_EQ(fs::exists(folder() / "step-best.h5"), had_a_copy);
    }
    if (newest_readable() == 0 && !checkpoint_steps(folder()).empty()) return;  // for the user to decide
    const int64_t before = newest_readable();
    const bool is_finished = MetricsFile(home_ / "run/metrics.jsonl").done().has_value();
    const test::Ended ended = expect_done(command(1));
    if (before > 0 && before < kSteps && !is_finished) {
      EXPECT_THAT(ended.out, HasSubstr("going on from step " + std::to_string(before)));
    }
    const std::string run = home_.filename().string() + "/run";
    EXPECT_EQ(losses(run).size(), static_cast<size_t>(kSteps));
    if (only_alone_) {
      EXPECT_EQ(saved_bytes(run), saved_bytes("straight"));
      EXPECT_EQ(timeless_metrics(run), timeless_metrics("straight"));
    } else {
      EXPECT_LE(test::largest_relative_difference(losses("straight"), losses(run)), 1e-6);
    }
    fs::remove_all(home_);
  }

  std::mt19937 random_;
  fs::path home_;
  int homes_ = 0, every_ = 1, keep_ = 1;
  bool only_alone_ = true;
};

TEST_F(NeverWorseOff, WhateverHappens) {
  const char* given = std::getenv("TESSERA_SEED");
  const uint32_t seed = given ? static_cast<uint32_t>(std::stoul(given)) : std::random_device{}();
  std::printf("TESSERA_SEED=%u\n", seed);
  const char* is_long = std::getenv("TESSERA_LONG");
  expect_done(trainer({"mos.toml", "run.dir=straight", "train.steps=" + std::to_string(kSteps)}));
  for (int sequence = 0; sequence < (is_long && is_long == std::string("1") ? 200 : 20); ++sequence) {
    random_.seed(seed + static_cast<uint32_t>(sequence));
    SCOPED_TRACE("seed " + std::to_string(seed) + ", sequence " + std::to_string(sequence));
    play();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace tessera
