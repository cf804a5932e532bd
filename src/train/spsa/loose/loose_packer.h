#pragma once
// The record of a round, by whoever is first: no election, and no harm in two.

#include "train/spsa/loose/loose_node.h"

namespace tessera {

class LoosePacker {
 public:
  /// Both outlive it.
  LoosePacker(LooseNode& node, const Context& ctx, const SpsaConfig& config)
      : node_(node), ctx_(ctx), config_(config) {}

  /// Offers the record of the replica's next round, once a round, when votes and time allow it.
  /// @throws UserError when machines tell digests and no half of them agrees
  void pack();

  bool digest_due(uint32_t round) const;
  /// Of the schedule in the run's header, which every packer has.
  Vote::Offer offer(uint32_t round) const;

 private:
  bool settle_digest(uint32_t round);
  void tell_no_packer(uint32_t round);
  void tell_waiting(uint32_t round, int64_t present, int64_t lanes);

  LooseNode& node_;
  const Context& ctx_;
  const SpsaConfig& config_;
  std::optional<uint32_t> told_, doubted_;  // rounds: that waiting, and other digests, were told of
};

}  // namespace tessera
