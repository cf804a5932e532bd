#pragma once
// What a log of rounds holds, round by round and machine by machine.

#include <filesystem>
#include <memory>
#include <string>

#include "train/spsa/attendance.h"
#include "train/spsa/loose/node_names.h"

namespace tessera {

/// Votes of an earlier round that a record holds.
struct LateGroup {
  uint32_t seed_round = 0;
  std::vector<uint32_t> machines;
  int64_t votes = 0;
};

struct RoundLine {
  uint32_t round = 0;                                                            // the record's number, from 0 on
  int64_t machines = 0, lanes = 0, votes = 0, valid = 0, late = 0, clipped = 0;  // late: among the votes
  std::vector<LateGroup> late_groups;
  std::vector<RosterChange> roster;
  std::vector<uint32_t> absent;  // machines with a lane and no vote
  bool had_conflict = false;     // its packer had lost a place in the log to another
  double alpha = 0, mul = 1;
  int unit = 0;
  std::optional<double> loss, median;  // median: of |g|
  /// What everything but the record calls it: the first is 1, and after it a round is done.
  int64_t step() const { return int64_t{round} + 1; }
};

/// A record that says what the state is after a round.
struct Mark {
  uint32_t round = 0, machine = 0;
  std::string digest, sha256;  // sha256, bytes: of a snapshot's file
  int64_t bytes = 0;
};

struct LogSummary {
  RunHeader header;
  std::string run, folder;
  std::vector<std::string> notices;
  std::vector<std::optional<uint32_t>> roster;
  NamesOfMachines names;  // as far as this machine's folder knows them
  std::vector<RoundLine> rounds;
  std::vector<MachineLine> machines;
  std::vector<Mark> digests, snapshots;
  int64_t reseeds = 0, conflicts = 0;
  int64_t first_round = 0, total_rounds = 0, records = 0, bytes = 0, votes = 0, valid = 0;
  bool ended = false;
};

/// A log that is read, and read on while another process writes it.
class LogReading {
 public:
  /// @throws UserError when there is no log, or it is damaged
  explicit LogReading(const std::filesystem::path& run_or_log);
  ~LogReading();
  const LogSummary& summary() const;
  /// Takes what was written since; rounds that were dropped since may be gone from the summary, which is another then.
  /// @throws UserError when it is damaged
  void read_on();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera
