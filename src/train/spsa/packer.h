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

/// The record of the replica's next round. Lane k is machine k.
///   alpha = −(rate · 2^−halvings · 2^−unit) / n     n: valid votes; 0 when there is none
/// @param votes     by machine; machines without one are absent
/// @param machines  how many take part; lanes of machines of earlier jobs stay, absent
/// @param offer     learning rate and decay factor of the machine that packs
/// @param losses    left_out: the record has none, though votes tell theirs
enum class Losses { kept, left_out };
Record pack_round(const Replica&, const RunId&, const ChainTip&, const std::map<uint32_t, Vote>& votes,
                  uint32_t machines, const Vote::Offer& offer, Losses losses = Losses::kept);

}  // namespace tessera
