#pragma once
// Who took part in an SPSA run, as its log tells.

#include <map>
#include <optional>
#include <vector>

#include "steplog/recent_rounds.h"
#include "steplog/record.h"

namespace tessera {

/// One machine's life in a run. Rounds count as records do, from 0 on.
struct MachineLine {
  uint32_t machine = 0, lane = 0, joined = 0;
  std::optional<uint32_t> left;             // the round whose record takes its lane
  int64_t voted = 0, late = 0, absent = 0;  // rounds; late: that it voted in late
  int64_t silent = 0;                       // rounds in a row, up to now
  /// Nothing while it is there; "silent" when it had not voted for two rounds or more, else "left".
  const char* why() const { return !left ? "" : silent >= 2 ? "silent" : "left"; }
};

class LogMachines {
 public:
  /// A ROUND, with the rounds before it.
  void add(const Record&, const RecentRounds& before);
  /// In the order in which they joined.
  const std::vector<MachineLine>& lines() const { return lines_; }

 private:
  MachineLine& line_of(uint32_t machine, uint32_t lane, uint32_t round);

  std::vector<MachineLine> lines_;
  std::map<uint32_t, size_t> places_;  // by machine
};

}  // namespace tessera
