// Wherever it is packed, a round's record has the same bytes: votes go in by the number of their machine, not as they
// arrived, and alpha is formed by the same f32 operations in the same order.

#include "train/spsa/packer.h"

#include <algorithm>
#include <cmath>

#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

/// The machines that have no lane yet. Lanes never end: a machine that is not there any more is absent from the
/// records.
std::vector<RosterChange> newcomers(const std::vector<std::optional<uint32_t>>& roster, uint32_t machines) {
  std::vector<RosterChange> changes;
  for (auto lane = static_cast<uint32_t>(roster.size()); lane < machines; ++lane) changes.push_back({lane, true, lane});
  return changes;
}

}  // namespace

Record record_head(const Replica& replica, const RunId& run, const ChainTip& tip, RecordType type) {
  Record record;
  record.type = type;
  record.run = run.prefix();
  record.round = replica.round();
  record.seed_round = replica.round();
  record.index = tip.index;
  record.prev = tip.prev;
  record.unit_exp = static_cast<int8_t>(replica.unit());
  return record;
}

Record pack_round(const Replica& replica, const RunId& run, const ChainTip& tip, const std::map<uint32_t, Vote>& votes,
                  uint32_t machines, const Vote::Offer& offer, Losses kept) {
  const RunHeader& header = replica.header();
  Record record = record_head(replica, run, tip, RecordType::round);
  // A lane has the bytes of all of its machine's probes.
  record.m = static_cast<uint8_t>(header.m * header.bytes_per_probe());
  record.roster = newcomers(replica.roster(), machines);
  // Lanes stay when machines leave, and are marked absent.
  record.lanes = static_cast<uint16_t>(std::max<size_t>(replica.roster().size(), machines));
  int64_t valid = 0;
  // Losses are in the record for all machines that voted, or for none: their number follows from the bitmap.
  bool losses = kept == Losses::kept;
  for (uint32_t machine = 0; machine < record.lanes; ++machine) {
    const auto vote = votes.find(machine);
    record.present.push_back(vote != votes.end());
    if (vote == votes.end()) continue;
    const std::span<const uint8_t> bytes = vote->second.bytes;
    valid += valid_votes(header, bytes);
    record.bytes.insert(record.bytes.end(), bytes.begin(), bytes.end());
    losses = losses && vote->second.loss;
    if (vote->second.loss) record.losses.push_back(*vote->second.loss);
  }
  if (!losses) record.losses.clear();
  if (!record.losses.empty()) record.flags |= 1;
  // Halving a rate and scaling by the unit are shifts of exponents: exact, so that only the quotient below is rounded.
  const float rate = std::ldexp(offer.rate, -replica.halvings());
  const float unit = std::ldexp(1.0f, -header.unit_of(replica.unit()));
  record.alpha = valid == 0 ? 0.0f : -(rate * unit) / static_cast<float>(valid);
  // A round without a valid vote leaves the weights, decay included.
  record.mul = valid == 0 ? 1.0f : offer.mul;
  // Announced here, and in force from the next round on: these votes are still in the old unit.
  record.unit_exp = static_cast<int8_t>(replica.proposed_unit());
  if (record.unit_exp != replica.unit()) record.flags |= 2;
  return record;
}

}  // namespace tessera
