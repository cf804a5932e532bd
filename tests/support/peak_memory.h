#pragma once
// How much memory a program holds at its peak.

#include <algorithm>
#include <fstream>
#include <string>

#include "support/process.h"

namespace tessera::test {

/// Bytes of a process that lie in no file, now; 0 when it has ended.
inline int64_t anonymous_bytes(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");  // a rank may end between the look for it and this
  for (std::string word; status >> word;)
    if (word == "RssAnon:") {
      int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
}

struct Peak {
  Ended ended;
  int64_t bytes = 0;  // that lay in no file, looked at every millisecond; under mpirun of the rank that had most
};

inline Peak peak_of(const Command& command, double seconds = 280) {
  Peak peak;
  Process process(command);
  for (double waited = 0; process.running() && waited < seconds; waited += 0.001) {
    const auto ranks = process.children();
    if (ranks.empty()) peak.bytes = std::max(peak.bytes, anonymous_bytes(process.pid()));
    for (const pid_t rank : ranks) peak.bytes = std::max(peak.bytes, anonymous_bytes(rank));
    sleep_seconds(0.001);
  }
  peak.ended = process.wait(0.1);
  return peak;
}

}  // namespace tessera::test
