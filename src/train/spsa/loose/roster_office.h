#pragma once
// Who gets a lane and who loses it: roster changes for the next record, from what nodes have asked for and from how
// long machines have been silent. A function of the engine's messages and the records, so that all who may pack come to
// much the same; what counts is what the record says.

#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "steplog/log_engine.h"
#include "steplog/recent_rounds.h"
#include "steplog/record.h"

namespace tessera {

class RosterOffice {
 public:
  /// @param absent_limit  rounds in a row without a vote, after which a machine is taken off the roster
  RosterOffice(const RunId& run, int64_t absent_limit) : run_(run.prefix()), absent_limit_(absent_limit) {}

  /// A kept control message, in the engine's order; one that is here already changes nothing. The node that proposes a
  /// number first is its owner: nobody else may vote with it, or leave with it. Others' numbers are passed over.
  void take(const LogEngine::Sent&);
  /// Of each machine that has a lane: rounds in a row in which no record had a vote of it.
  using Silences = std::unordered_map<uint32_t, int64_t>;
  /// Those behind a ROUND that is the next record. @param before  behind the record before
  Silences silences_behind(const Record&, const RecentRounds& before) const;
  /// That record is in the log now.
  void note(Silences);

  /// For the next record: machines that left or were silent too long lose their lanes; those that asked get the lowest
  /// free one, in the order in which they asked. A node has one lane: of its numbers the one that it proposed last gets
  /// it, and those before lose theirs.
  std::vector<RosterChange> changes(const RecentRounds&) const;
  /// Whether the node may vote as that machine. @param node  empty: the engine knows no nodes
  bool speaks_for(const std::string& node, uint32_t machine) const;
  /// Whether the node has proposed the number first.
  bool is_owner(const std::string& node, uint32_t machine) const {
    const auto owner = owners_.find(machine);
    return owner != owners_.end() && owner->second == node;
  }
  /// The node that has proposed it first; null when none has, as far as the engine's messages tell.
  const std::string* owner_of(uint32_t machine) const {
    const auto owner = owners_.find(machine);
    return owner == owners_.end() ? nullptr : &owner->second;
  }
  /// Whether any node has proposed it.
  bool is_owned(uint32_t machine) const { return owners_.contains(machine); }
  /// Whether the machine has asked to leave.
  bool is_leaving(uint32_t machine) const { return leaving_.contains(machine); }
  /// Rounds in a row in which the machine had no vote in any record.
  int64_t silence(uint32_t machine) const;

 private:
  void propose(const std::string& node, uint32_t machine);
  /// Whether a machine has no claim to a lane: it leaves, or its node has proposed another number since.
  bool is_giving_up(uint32_t machine) const { return leaving_.contains(machine) || replaced_.contains(machine); }

  uint32_t run_;
  int64_t absent_limit_;
  std::map<uint32_t, std::string> owners_;  // by machine
  std::vector<uint32_t> asked_;  // machines, in the order of their messages; not those that were seen to come
  std::map<std::string, uint32_t> newest_;  // the number that a node proposed last
  std::unordered_set<uint32_t> leaving_, replaced_;
  Silences silent_;
};

}  // namespace tessera
