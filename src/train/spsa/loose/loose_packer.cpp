#include "train/spsa/loose/loose_packer.h"

#include <algorithm>

#include "core/error.h"
#include "train/spsa/loose/digest_jury.h"
#include "train/spsa/loose/stop_point.h"

namespace tessera {

using Seconds = RoundClock::Seconds;

namespace {

/// Who keeps a lane in the next record. Nobody waits for votes of those that lose theirs: without them a quorum would
/// never come where most have left.
Roster staying(Roster roster, const std::vector<RosterChange>& changes) {
  for (const RosterChange& change : changes)
    if (!change.add) roster[change.lane].reset();
  return roster;
}

/// Whoever has no lane has no say.
RoundVotes::ByMachine with_lanes(RoundVotes::ByMachine votes, const Roster& roster) {
  const LaneIndex lanes(roster);
  std::erase_if(votes, [&](const auto& vote) { return !lanes.contains(vote.first); });
  return votes;
}

}  // namespace

void LoosePacker::pack() {
  const Replica& replica = node_.replica();
  const uint32_t round = replica.round();
  if (!node_.may_pack()) return tell_no_packer(round);
  if (node_.has_packed(round) || !node_.is_level()) return;
  const auto changes = node_.roster_changes();
  const Roster awaited = staying(replica.roster(), changes);
  const int64_t lanes = lanes_taken(awaited), present = node_.box().present(replica, awaited);
  const bool is_empty = present == 0 && changes.empty();  // there is nothing that a record could say
  if (is_empty || !node_.clock().may_pack(node_.now(), present, lanes, node_.place()))
    return tell_waiting(round, present, lanes);
  if (!settle_digest(round)) return;
  const Record record = pack_round(replica, node_.run(), node_.own().tip(), node_.box().votes_of(replica), changes,
                                   offer(round), config_.log_loss ? Losses::kept : Losses::left_out);
  if (!node_.publish(record)) return;
  stop_point("append", round);
  node_.note_packed(round);
}

bool LoosePacker::digest_due(uint32_t round) const {
  return round > 0 && round % static_cast<uint32_t>(node_.replica().header().digest_every) == 0;
}

Vote::Offer LoosePacker::offer(uint32_t round) const {
  const RunHeader& header = node_.replica().header();
  const auto [rate, mul] = header.terms->rate_of(round, header.rules);
  return {rate, mul};
}

/// What more than half of the votes name is what the log says of the round's state, in a record just before that of the
/// round. @return whether this machine packs the round now
bool LoosePacker::settle_digest(uint32_t round) {
  if (!digest_due(round) || node_.own().has_digest_of(round)) return true;
  const DigestJury jury = jury_of(with_lanes(node_.box().votes_of(node_.replica()).now, node_.replica().roster()));
  if (jury.told == 0) return true;
  const StateDigest mine = node_.replica().digest(ctx_);
  if (!jury.most)
    throw UserError(fmt::format("round {}", round),
                    fmt::format("machines hold different weights after the same rounds, and no half of {} agrees; this "
                                "one's digest is {}",
                                jury.told, mine.text()),
                    "one of them has bad memory or other base weights: rebuild each with job=replay and compare");
  if (!(*jury.most == mine)) {  // another packs, and its DIGEST tells this machine
    if (doubted_ != std::optional(round))
      node_.say(
          fmt::format("step {}: most machines tell another digest of their weights than this one's, {}; it waits "
                      "for their record",
                      int64_t{round} + 1, mine.text()));
    doubted_ = round;
    return false;
  }
  for (const uint32_t machine : jury.others) node_.box().drop_for_digest(round, machine);
  Record check = node_.head(RecordType::digest);
  check.machine = node_.desk().machine();
  check.digest = {mine.sum, mine.check};
  if (fault_point("digest", round)) check.digest[0] ^= 1;
  node_.publish(check);
  return false;  // once it is read, the round's record follows it
}

/// Of a machine that only votes: those that may write records are away, or wait for votes themselves.
void LoosePacker::tell_no_packer(uint32_t round) {
  const Seconds patience = std::max(Seconds(5), 4 * node_.clock().deadline());
  if (!node_.is_open() || told_ == std::optional(round) || node_.clock().waited(node_.now()) < patience) return;
  told_ = round;
  node_.say(fmt::format("step {}: waiting for its record, which another machine has to write", int64_t{round} + 1));
}

void LoosePacker::tell_waiting(uint32_t round, int64_t present, int64_t lanes) {
  const Seconds patience = std::clamp(2 * node_.clock().deadline(), Seconds(5), Seconds(15));
  const Seconds waited = node_.clock().waited(node_.now());
  if (told_ == std::optional(round) || waited < patience) return;
  told_ = round;
  if (node_.lane() && node_.desk().may_vote(round)) return;  // its own vote is still to come
  // The reason that nothing goes on; a quorum that is there waits for the deadline alone.
  node_.say(
      fmt::format("step {}: {} of {} machines have voted, a record needs a share of {}, or {:.0f} s more of silence",
                  int64_t{round} + 1, present, lanes, config_.loose.quorum,
                  std::max(0.0, (node_.clock().longest() - waited).count())));
}

}  // namespace tessera
