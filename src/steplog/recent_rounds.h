#pragma once
// What late votes and new units hang on: for each of the last rounds the roster behind its record, the unit in force,
// and whose votes stand in a record already. A pure function of the records of rounds, kept by the rules of the chain
// and by each replica.

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

namespace tessera {

class ByteReader;
class ByteWriter;
struct Record;

/// Machine of each lane; nothing for a free lane. A lane stays when its machine leaves and may be given to another.
using Roster = std::vector<std::optional<uint32_t>>;

/// Nothing for a machine that has none.
std::optional<uint32_t> lane_of(const Roster&, uint32_t machine);
int64_t lanes_taken(const Roster&);

/// Lanes by machine, for those who ask for many of them.
class LaneIndex {
 public:
  explicit LaneIndex(const Roster&);
  /// As lane_of().
  std::optional<uint32_t> find(uint32_t machine) const;
  bool contains(uint32_t machine) const { return lanes_.contains(machine); }

 private:
  std::unordered_map<uint32_t, uint32_t> lanes_;
};

/// The last stale_max rounds, those that the next record may still hold late votes of.
///
///   votes of round r    belong to the machines of the roster as it was behind record r, whoever has their lanes now
///   a unit announced    by record t holds for votes of rounds t + stale_max + 1 on: votes under way keep theirs
class RecentRounds {
 public:
  RecentRounds() = default;
  /// Before the first round. @param unit  of the run header: in force from round 0 on
  RecentRounds(int stale_max, int unit) : stale_max_(stale_max), announced_(unit) {}

  int stale_max() const { return stale_max_; }
  uint32_t next_round() const { return next_round_; }
  /// Behind the last record.
  const Roster& roster() const { return roster_; }
  /// Machines that left, whose ids are never used again.
  const std::set<uint32_t>& former() const { return former_; }
  /// The roster behind a record that comes next, with its own changes: of its main group.
  Roster roster_behind(const Record&) const;
  /// The roster behind the record of `seed_round`; null when that is not among the last stale_max rounds.
  const Roster* roster_of(uint32_t seed_round) const;

  /// U of votes of `seed_round`, which are multiples of 2^-U: of one of the last stale_max rounds, of the next one, or
  /// of one up to stale_max later, which no record to come can change any more.
  int unit_of(uint32_t seed_round) const;
  /// Of the next round's votes.
  int unit() const { return unit_of(next_round_); }
  /// The unit that the newest record told, which the next one repeats or changes.
  int announced() const { return announced_; }
  /// The first seed round that the announced unit holds for.
  uint32_t announced_from() const { return announced_from_; }
  /// An announced unit is not in force yet; no other may be announced.
  bool is_waiting() const { return announced_from_ > next_round_; }

  /// A vote of that lane, as the lanes were in that round, stands in a record. Of the last stale_max rounds.
  bool is_counted(uint32_t seed_round, uint32_t lane) const;

  /// A ROUND, the next one, that the rules let pass.
  void accept(const Record&);

  /// As in docs/step_log.md, start.tsc: from the number of lanes on to the round that the announced unit holds from.
  void save(ByteWriter&) const;
  /// Of that, up to the machines that left: all that version 1 has.
  void save_roster(ByteWriter&) const;
  /// What save() wrote, and no other bytes. @throws Refused: "length", "bitmap", or what does not fit: "stale_max",
  /// "lanes", "round", "unit", "machine"
  static RecentRounds restore(ByteReader&, int stale_max, uint32_t next_round);
  /// What save_roster() wrote. Of the rounds before, no vote may come late: nobody had a lane, as far as is known.
  static RecentRounds restore_roster(ByteReader&, int stale_max, int unit, uint32_t next_round);

  friend bool operator==(const RecentRounds&, const RecentRounds&) = default;

 private:
  struct Round {
    uint32_t round = 0;
    int unit = 0;
    Roster roster;              // behind its record
    std::vector<bool> counted;  // [lanes of that roster]
    friend bool operator==(const Round&, const Round&) = default;
  };
  const Round* find(uint32_t seed_round) const;
  void count(uint32_t seed_round, const std::vector<bool>& present);
  static Round restore_round(ByteReader&, uint32_t round);
  void check_units() const;

  int stale_max_ = 0;
  uint32_t next_round_ = 0;
  Roster roster_;
  std::set<uint32_t> former_;
  std::deque<Round> recent_;  // oldest first; stale_max of them, or as many as there have been
  int announced_ = 9;
  uint32_t announced_from_ = 0;
};

}  // namespace tessera
