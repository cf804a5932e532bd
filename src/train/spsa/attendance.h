#pragma once
// Who took part in an SPSA run, as its log tells: who came and went, who voted, was late, was silent.

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "steplog/step_log.h"
#include "train/spsa/vote_groups.h"

namespace tessera {

/// One machine's life in a run. Rounds count as records do, from 0 on.
struct MachineLine {
  uint32_t machine = 0, lane = 0, joined = 0;
  std::optional<uint32_t> left;             // the round whose record takes its lane
  int64_t voted = 0, late = 0, absent = 0;  // rounds; late: that it voted in late
  int64_t clipped = 0;                      // votes
  int64_t silent = 0;                       // rounds in a row, up to now
  bool is_since_digest = false;             // silent from a round on that a DIGEST stands before
  /// Nothing while it is there; "digest" or "silent" when it had not voted for two rounds or more, else "left". A
  /// machine whose weights differ falls silent at a DIGEST: no record says so, and one that was killed in that very
  /// round looks the same.
  const char* why() const { return !left ? "" : silent < 2 ? "left" : is_since_digest ? "digest" : "silent"; }
};

class Attendance {
 public:
  /// @param header  outlives it
  explicit Attendance(const RunHeader& header) : header_(header) {}

  /// The next record. @param before  rounds behind the record before
  /// @return what a ROUND's votes count
  VoteCounts add(const Record&, const RecentRounds& before);
  /// In the order in which they joined.
  const std::vector<MachineLine>& lines() const { return lines_; }
  int64_t reseeds() const { return reseeds_; }
  int64_t conflicts() const { return conflicts_; }  // records of a packer that had lost a place in the log

 private:
  void add_late(const Record&, const RecentRounds& before, std::set<uint32_t>& late);
  void add_round(const Record&, const RecentRounds& before, const Roster& behind);
  VoteCounts count(const Record&, const RecentRounds& before, const Roster& behind);
  MachineLine& line_of(uint32_t machine, uint32_t lane, uint32_t round);

  const RunHeader& header_;
  std::vector<MachineLine> lines_;
  std::map<uint32_t, size_t> places_;  // by machine
  std::optional<uint32_t> digest_;     // round of the last DIGEST
  int64_t reseeds_ = 0, conflicts_ = 0;
};

/// The rounds before the log's first record. An old log does not tell the unit of its first round, where rounds before
/// were dropped.
RecentRounds rounds_before(const StepLog&, const RunHeader&);

}  // namespace tessera
