#pragma once
// Stopping the program at chosen moments, and what it leaves.

#include <gtest/gtest.h>

#include <csignal>
#include <functional>

#include "support/workbench.h"

namespace tessera::test {

class Stops : public Workbench {
 protected:
  /// The lines of a file, so many times.
  void repeat(const std::string& file, int times) const {
    const std::string text = read_file(*this / file);
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    write_file(*this / file, all);
  }
  bool holds(const std::string& file, const std::string& text) const {
    return std::filesystem::exists(*this / file) && occurrences(read_file(*this / file), text) > 0;
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
  static bool hold(Process& process, const std::function<bool()>& moment) {
    while (process.running()) {
      if (!moment()) continue;
      process.send(SIGSTOP);
      return true;
    }
    return false;
  }
  /// Waits until `moment` holds, sends the signal, and expects a clean stop within the seconds.
  Ended stop(const Command& command, int signal, const std::function<bool()>& moment, double seconds = 20) {
    Process process(command);
    EXPECT_TRUE(wait_until(moment, 60));
    process.send(signal);
    const Ended ended = process.wait(seconds);
    EXPECT_FALSE(ended.timed_out) << ended.out << ended.err;
    EXPECT_EQ(ended.exit_code, 130) << ended.out << ended.err;
    return ended;
  }
};

}  // namespace tessera::test
