#pragma once
// Recipes of one-byte SPSA for every kind of pool, and what their runs leave.

#include <csignal>

#include "support/workbench.h"

namespace tessera::test {

class Spsa : public test::Workbench {
 protected:
  Spsa() {
    const std::string base = test::read_file(*this / "mos.toml");
    for (const char* method : {"full", "lora", "mos"}) {
      std::string text = test::read_file(*this / (std::string(method) + ".toml"));
      replace(text, "dropout = 0.1\n", "");
      replace(text, "batch = 24", "batch = 2\nestimator = \"spsa\"");
      replace(text, "lr = 0.00" + std::string(std::string(method) == "full" ? "3" : "5"),
              "name = \"sgd\"\nmomentum = 0\nschedule = \"constant\"\nlr = 1e-3");
      text += "[spsa]\nprobes = 2\neps = 1e-2\ndigest_every = 5\n[checkpoint]\nevery = 10\n";
      test::write_file(*this / ("spsa_" + std::string(method) + ".toml"), text);
    }
  }
  static void replace(std::string& text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    ASSERT_TRUE(at != std::string::npos || from.substr(0, 7) == "dropout") << from << " in\n" << text;
    if (at != std::string::npos) text.replace(at, from.size(), to);
  }
  std::string digest(const std::string& run) const {
    const std::string log = test::read_file(*this / run / "log.txt");
    const size_t at = log.rfind("digest ");
    return at == std::string::npos ? "none" : log.substr(at + 7, 32);
  }
  /// Asks the run "run" to stop when its metrics have so many lines.
  void stop_after(int64_t count, const test::Command& command) const {
    test::Process process(command);
    wait_for_lines("run", count);
    process.send(SIGUSR1);
    EXPECT_EQ(process.wait().exit_code, 130);
  }
  std::string log_bytes(const std::string& run, const std::string& log = "log") const {
    return test::read_file(*this / run / log / "00000000.tsb");
  }
};

}  // namespace tessera::test
