#pragma once
// Votes on their way into a record: what arrives is judged by the rosters of the last rounds, and kept for the round
// that it may still count in. What others send is not trusted, and nothing that they send ends a run.

#include <array>
#include <functional>
#include <string_view>
#include <unordered_set>

#include "train/spsa/packer.h"

namespace tessera {

class VoteBox {
 public:
  /// Why a vote was dropped:
  ///   form    no vote, or not of as many bytes as the run has probes
  ///   run     of another run
  ///   round   of a round to come, beyond the next one
  ///   stale   of a round too long ago, or looked at weights too old: round − (seed round − lag) > stale_max
  ///   twice   its machine has voted in that round already, here or in a record
  ///   sender  of a machine that had no lane in that round, or from a node that is not its own
  ///   digest  of a machine whose weights are not those of most
  enum class Reason { form, run, round, stale, twice, sender, digest };
  static constexpr std::array<std::string_view, 7> kReasons = {"form",  "run",    "round", "stale",
                                                               "twice", "sender", "digest"};
  using Dropped = std::array<int64_t, kReasons.size()>;

  explicit VoteBox(const RunId& run) : run_(run.prefix()) {}

  /// Whether the node that a vote came from may vote as that machine.
  using SpeaksFor = std::function<bool(uint32_t machine)>;
  /// Takes a message in, or drops it. Of votes of one machine for one round the first counts.
  void take(const Replica&, std::span<const std::byte> message, const SpeaksFor& = {});

  /// What the record of the replica's next round may hold, with votes that came early for it. A vote of a machine that
  /// joins only with a later record is not among them.
  RoundVotes votes_of(const Replica&) const;
  /// How many machines of the roster have voted in the replica's next round.
  int64_t present(const Replica&, const Roster&) const;

  /// A record was applied: what is in it, or too old from now on, goes.
  void forget(const Replica&);
  /// A machine's vote for that round is not counted, for the weights that it looked at.
  void drop_for_digest(uint32_t seed_round, uint32_t machine);

  const Dropped& dropped() const { return dropped_; }
  int64_t dropped_in_all() const;

 private:
  void drop(Reason reason) { ++dropped_[static_cast<size_t>(reason)]; }
  std::optional<Reason> refuses(const Replica&, const Vote&, const SpeaksFor&) const;

  uint32_t run_;
  std::map<uint32_t, RoundVotes::ByMachine> votes_;  // by seed round
  std::unordered_set<uint64_t> here_;                // seed rounds and machines of these: thousands are asked for often
  Dropped dropped_{};
};

}  // namespace tessera
