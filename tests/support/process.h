#pragma once
// Running programs: what they print, how they end, and ending them early.

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/paths.h"

namespace tessera::test {

struct Command {
  std::vector<std::string> arguments;                // the program first, looked up on PATH
  std::map<std::string, std::string> environment{};  // beside this process's own; an empty value removes the variable
  std::filesystem::path folder{};                    // working directory; empty: this process's
  int flock_error{};  // what flock fails with, as on a file system without locks; 0: it works
};

/// How a program ended. `exit_code` is 128 + signal for one that a signal ended, as shells tell it.
struct Ended {
  int exit_code = 0;
  bool timed_out = false;  // it was killed for taking too long
  std::string out, err;
};

/// A program that runs beside the test, in a process group of its own. Its output goes to files, so that neither a full
/// pipe nor a left-over child can hold anything up.
class Process {
 public:
  explicit Process(const Command&);
  ~Process();  // kills it and its children if it still runs
  Process(const Process&) = delete;

  pid_t pid() const { return pid_; }
  /// Its children: under mpirun, the ranks in order.
  std::vector<pid_t> children() const;
  void send(int signal) const;
  bool running();
  /// What it has printed so far.
  std::string out() const { return read_file(folder_ / "out"); }
  /// Waits for the end, at most so long; then kills it and its children.
  Ended wait(double seconds = 30);

 private:
  void kill_all();
  TemporaryFolder folder_;
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

Ended run(const Command&, double seconds = 240);

/// Polls until `condition` holds; false after `seconds`.
template <class Condition> bool wait_until(Condition condition, double seconds = 30);

void sleep_seconds(double);

template <class Condition> bool wait_until(Condition condition, double seconds) {
  for (double waited = 0; !condition(); waited += 0.002) {
    if (waited > seconds) return false;
    sleep_seconds(0.002);
  }
  return true;
}

}  // namespace tessera::test
