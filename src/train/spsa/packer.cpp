// Wherever it is packed, a round's record has the same bytes: votes go in by the number of their machine, not as they
// arrived, and alpha is formed by the same f32 operations in the same order.

#include "train/spsa/packer.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "train/spsa/vote_groups.h"

namespace tessera {
namespace {

/// The machines that have no lane yet. Lanes never end: a machine that is not there any more is absent from the
/// records.
std::vector<RosterChange> newcomers(const std::vector<std::optional<uint32_t>>& roster, uint32_t machines) {
  std::vector<RosterChange> changes;
  for (auto lane = static_cast<uint32_t>(roster.size()); lane < machines; ++lane) changes.push_back({lane, true, lane});
  return changes;
}

/// Lanes never become fewer: those of machines that left stay, free.
uint16_t lanes_behind(const Roster& roster, const std::vector<RosterChange>& changes) {
  size_t lanes = roster.size();
  for (const RosterChange& change : changes) lanes = std::max<size_t>(lanes, change.lane + size_t{1});
  TS_CHECK(lanes <= 0xFFFF, "{} lanes", lanes);
  return static_cast<uint16_t>(lanes);
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
  record.unit_exp = static_cast<int8_t>(replica.recent().announced());
  return record;
}

namespace {

struct Lanes {
  std::vector<bool> present;
  std::vector<uint8_t> bytes;
  std::vector<uint16_t> losses;
  bool tell_losses = true;  // all machines that voted
};

/// Votes of one seed round in the lanes that their machines had then.
/// @param lanes  of the record; those that did not exist then are not present
Lanes lanes_of(const RoundVotes::ByMachine& votes, const Roster& roster, size_t lanes) {
  Lanes all;
  for (size_t lane = 0; lane < lanes; ++lane) {
    const auto machine = lane < roster.size() ? roster[lane] : std::nullopt;
    const auto vote = machine ? votes.find(*machine) : votes.end();
    all.present.push_back(vote != votes.end());
    if (vote == votes.end()) continue;
    const std::vector<uint8_t>& bytes = vote->second.bytes;
    all.bytes.insert(all.bytes.end(), bytes.begin(), bytes.end());
    all.tell_losses = all.tell_losses && vote->second.loss;
    if (vote->second.loss) all.losses.push_back(*vote->second.loss);
  }
  return all;
}

void add_late_groups(const Replica& replica, const RoundVotes& votes, Record& record) {
  for (const auto& [seed_round, by_machine] : votes.late) {
    const Roster* roster = replica.recent().roster_of(seed_round);
    TS_CHECK(roster, "votes of round {} for the record of round {}", seed_round, record.round);
    Lanes late = lanes_of(by_machine, *roster, record.lanes);
    if (late.bytes.empty()) continue;
    record.extra.push_back(
        {.seed_round = seed_round, .alpha = 0, .present = std::move(late.present), .bytes = std::move(late.bytes)});
  }
}

}  // namespace

Record pack_round(const Replica& replica, const RunId& run, const ChainTip& tip, const RoundVotes& votes,
                  std::vector<RosterChange> roster, const Vote::Offer& offer, Losses kept) {
  const RunHeader& header = replica.header();
  Record record = record_head(replica, run, tip, RecordType::round);
  // A lane has the bytes of all of its machine's probes.
  record.m = static_cast<uint8_t>(header.m * header.bytes_per_probe());
  record.lanes = lanes_behind(replica.roster(), roster);
  record.roster = std::move(roster);
  Lanes now = lanes_of(votes.now, replica.recent().roster_behind(record), record.lanes);
  // Losses are in the record for all machines that voted, or for none: their number follows from the bitmap.
  if (kept == Losses::kept && now.tell_losses) record.losses = std::move(now.losses);
  if (!record.losses.empty()) record.flags |= 1;
  record.present = std::move(now.present);
  record.bytes = std::move(now.bytes);
  add_late_groups(replica, votes, record);
  int64_t counted = counted_votes(header, record.bytes, record.m);
  for (const ExtraGroup& group : record.extra) counted += counted_votes(header, group.bytes, record.m);
  // Halving a rate and scaling by the unit are shifts of exponents: exact, so that only the quotient is rounded.
  const float rate = std::ldexp(offer.rate, -replica.halvings());
  const auto alpha_of = [&](uint32_t seed_round) {
    const float unit = std::ldexp(1.0f, -header.step_unit_of(replica.recent().unit_of(seed_round)));
    return counted == 0 ? 0.0f : -(rate * unit) / static_cast<float>(counted);
  };
  record.alpha = alpha_of(record.round);
  for (ExtraGroup& group : record.extra) group.alpha = alpha_of(group.seed_round);
  // A round without a valid vote leaves the weights, decay included.
  record.mul = counted == 0 ? 1.0f : offer.mul;
  // Announced here, and in force later: votes that are under way keep the unit that they were counted in.
  record.unit_exp = static_cast<int8_t>(replica.proposed_unit());
  if (record.unit_exp != replica.recent().announced()) record.flags |= 2;
  return record;
}

Record pack_round(const Replica& replica, const RunId& run, const ChainTip& tip, const std::map<uint32_t, Vote>& votes,
                  uint32_t machines, const Vote::Offer& offer, Losses losses) {
  return pack_round(replica, run, tip, RoundVotes{.now = votes, .late = {}}, newcomers(replica.roster(), machines),
                    offer, losses);
}

}  // namespace tessera
