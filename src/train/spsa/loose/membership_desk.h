#pragma once
// This machine's own number: proposed, answered by a roster change, kept over a kill, given up.

#include <functional>
#include <optional>

#include "steplog/control_message.h"
#include "steplog/log_engine.h"
#include "steplog/recent_rounds.h"
#include "train/spsa/loose/node_file.h"
#include "train/spsa/loose/round_clock.h"

namespace tessera {

class MembershipDesk {
 public:
  using Time = RoundClock::Clock::time_point;
  /// Goes on with the number of node.json, when that is of this run and node.
  /// @param run_name  of the run at the engine
  /// @throws UserError when node.json is damaged, or of this run under another name: its log would begin anew there
  /// @param draw  a random 32-bit number; several calls until one may be a machine's
  MembershipDesk(std::filesystem::path file, std::string node, const std::string& run_name, const RunId&,
                 std::function<uint32_t()> draw);

  /// The lane that this machine has behind the last record; nothing while it has none.
  std::optional<uint32_t> lane(const RecentRounds&) const;
  uint32_t machine() const { return node_.machine; }

  /// Who proposed a number first, as far as the engine's messages tell.
  enum class Owner { nobody, this_node, another };
  /// Asks for a lane while there is none: at once, and again after `patience`. A number that has left, or that is
  /// another's, is replaced by a new one. A machine with a lane asks, too, where the engine has lost who proposed its
  /// number: nobody would take its votes.
  /// @throws UserError when node.json cannot be written
  void ask(LogEngine&, const RecentRounds&, Time now, RoundClock::Seconds patience,
           const std::function<Owner(uint32_t)>& owner_of);
  void leave(LogEngine&) const;

  /// Whether this machine may vote in that round: it has not yet, also not before it was killed.
  bool may_vote(uint32_t round) const { return int64_t{round} > node_.last_seed_round; }
  /// It will have, whatever happens from here on. Synced when this returns.
  void note_vote(uint32_t round, Bytes message);
  /// The vote of that round, if it was made, as it was or should have been sent: it may have been lost on its way.
  const Bytes* vote_of(uint32_t round) const;

 private:
  void draw_number(const RecentRounds&);

  std::filesystem::path file_;
  NodeFile node_;
  uint32_t run_;
  std::function<uint32_t()> draw_;
  bool has_number_ = false;
  std::optional<Time> asked_;
};

}  // namespace tessera
