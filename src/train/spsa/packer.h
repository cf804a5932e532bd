#pragma once
// From votes to the record of a round: a pure function, so that every replica that packs forms the same bytes.

#include <map>

#include "steplog/record.h"
#include "train/spsa/replica.h"

namespace tessera {

/// Where the chain stands: what the next record must say of the one before.
struct ChainTip {
  uint64_t index = 0, prev = 0;
  void advance(std::span<const std::byte> encoded) {
    prev = chain_hash(encoded);
    ++index;
  }
};

/// The head that every record shares.
Record record_head(const Replica&, const RunId&, const ChainTip&, RecordType);

/// What machines said that a round's record may hold.
struct RoundVotes {
  using ByMachine = std::map<uint32_t, Vote>;
  ByMachine now;                       // of the round itself
  std::map<uint32_t, ByMachine> late;  // by seed round: those of rounds before, not in any record yet
};

enum class Losses { kept, left_out };  // left_out: the record has none, though votes tell theirs

/// The record of the replica's next round.
///   alpha of a group = −(rate · 2^−halvings · 2^−unit) / N      N: VoteCounts::counted, over all groups; 0: alpha is 0
/// with the unit in force for the group's seed round, that of robust aggregates one higher. The head has the round's
/// own alpha, though its group is empty.
/// @param roster  changes: who joins or leaves with this record
/// @param offer   learning rate and decay factor of the machine that packs
Record pack_round(const Replica&, const RunId&, const ChainTip&, const RoundVotes&, std::vector<RosterChange> roster,
                  const Vote::Offer& offer, Losses losses = Losses::kept);

/// The same where lane k is machine k, and no vote is late.
/// @param votes     by machine; machines without one are absent
/// @param machines  how many take part; lanes of machines of earlier jobs stay, absent
Record pack_round(const Replica&, const RunId&, const ChainTip&, const std::map<uint32_t, Vote>& votes,
                  uint32_t machines, const Vote::Offer& offer, Losses losses = Losses::kept);

}  // namespace tessera
