#pragma once
// What a record must satisfy beyond its own form, as of the records before it.

#include "steplog/recent_rounds.h"
#include "steplog/record.h"
#include "steplog/signature.h"

namespace tessera {

/// Every honest replica decides alike: what is refused follows from the run header and the records before alone.
class ChainRules {
 public:
  struct Limits {
    RunId run{};
    double alpha_max = 1e30, mul_min = 0.5, mul_max = 1;
    int stale_max = 2;
    uint8_t m_max = 255;
    // Of the run header. In format 1 a late vote is one of the lane's machine of today, whoever had the lane in its
    // round; units, signatures and flags of format 2 are not looked at.
    int format = 1;
    int unit = 9;                      // in force for round 0
    std::vector<PublicKey> signers{};  // who may sign records; nobody: records are not signed
  };
  explicit ChainRules(Limits limits)
      : limits_(std::move(limits)), rounds_(limits_.format >= 2 ? limits_.stale_max : 0, limits_.unit) {}
  /// The broken rule, or nothing: "flags" (of format 2 in a log of format 1), "end" (anything after END), "run",
  /// "index", "prev", "type", "round" (a gap; of the other types: more rounds than there are), "seed round" (in the
  /// future, or twice in the record), "stale", "alpha" (not finite or too large), "mul", "m", "lanes" (not as many as
  /// the roster has), "lane" (taken already), "machine" (a vote of a lane that is free or, of a late group, was free in
  /// its seed round; a machine unknown, twice in the roster, with a reserved id, or back after it left).
  /// In format 2 also "signature" (missing, not expected, of no signer, or wrong), "seed round" (of a main group: not
  /// the record's round), "unit" (outside -20 .. 30, or announced while another waits), "order" (extra groups do not
  /// ascend), "twice" (a machine's vote of a seed round stands in a record already).
  /// What form alone decides ("bitmap", "crc", "length", ...) decode_record has refused before.
  std::optional<Refusal> refuses(const Record&) const;
  /// The record was accepted. @param encoded  its bytes
  void accept(const Record&, std::span<const std::byte> encoded);

  /// The state as bytes, for a log whose first records are dropped.
  Bytes save() const;
  static std::variant<ChainRules, Refusal> restore(Limits, std::span<const std::byte> saved);

  uint64_t next_index() const { return next_index_; }
  uint32_t next_round() const { return rounds_.next_round(); }
  uint64_t prev() const { return prev_; }
  bool ended() const { return ended_; }
  /// Machine of each lane behind the last record; a record's `lanes` is the size after its own changes.
  const Roster& roster() const { return rounds_.roster(); }
  /// What late votes and new units hang on. In format 1 it keeps no round but the next.
  const RecentRounds& rounds() const { return rounds_; }

 private:
  uint32_t state_version() const { return limits_.format >= 2 ? 2 : 1; }
  bool is_format_2() const { return limits_.format >= 2; }
  void check_signature(const Record&) const;
  void check_round(const Record&) const;
  void check_unit(const Record&) const;
  void check_extra_groups(const Record&, const Roster& behind) const;
  void check_late_votes(const ExtraGroup&) const;

  Limits limits_;
  uint64_t next_index_ = 0, prev_ = 0;
  bool ended_ = false;
  RecentRounds rounds_;
};

}  // namespace tessera
