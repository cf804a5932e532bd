#include "train/spsa/vote_box.h"

#include <algorithm>
#include <numeric>

namespace tessera {
namespace {

/// How many rounds older than the one to be packed the weights are that a vote has looked at.
int64_t age(const Vote& vote, uint32_t round) { return int64_t{round} - (int64_t{vote.seed_round} - vote.lag); }

uint64_t place_of(uint32_t seed_round, uint32_t machine) { return uint64_t{seed_round} << 32 | machine; }

}  // namespace

std::optional<VoteBox::Reason> VoteBox::refuses(const Replica& replica, const Vote& vote,
                                                const SpeaksFor& speaks_for) const {
  const RunHeader& header = replica.header();
  const uint32_t round = replica.round();
  if (vote.run != run_) return Reason::run;
  if (vote.bytes.size() != static_cast<size_t>(header.m * header.bytes_per_probe())) return Reason::form;
  if (speaks_for && !speaks_for(vote.machine)) return Reason::sender;
  if (int64_t{vote.seed_round} > int64_t{round} + 1) return Reason::round;
  // Of the next round: its roster is not known before this round's record is.
  if (vote.seed_round > round) return std::nullopt;
  if (age(vote, round) > header.stale_max) return Reason::stale;
  if (vote.seed_round == round) return std::nullopt;  // who joins with this record may vote in it
  const Roster* roster = replica.recent().roster_of(vote.seed_round);
  const auto lane = roster ? lane_of(*roster, vote.machine) : std::nullopt;
  if (!roster) return Reason::stale;
  if (!lane) return Reason::sender;
  if (replica.recent().is_counted(vote.seed_round, *lane)) return Reason::twice;
  return std::nullopt;
}

void VoteBox::take(const Replica& replica, std::span<const std::byte> message, const SpeaksFor& speaks_for) {
  auto decoded = decode_vote_message(message);
  auto* vote = std::get_if<Vote>(&decoded);
  if (!vote) return drop(Reason::form);
  if (const auto reason = refuses(replica, *vote, speaks_for)) return drop(*reason);
  const uint32_t seed_round = vote->seed_round, machine = vote->machine;
  if (!here_.insert(place_of(seed_round, machine)).second) return drop(Reason::twice);
  votes_[seed_round].emplace(machine, std::move(*vote));
}

RoundVotes VoteBox::votes_of(const Replica& replica) const {
  RoundVotes votes;
  for (const auto& [seed_round, by_machine] : votes_) {
    if (seed_round > replica.round()) continue;
    auto& kept = seed_round == replica.round() ? votes.now : votes.late[seed_round];
    for (const auto& [machine, vote] : by_machine)
      if (age(vote, replica.round()) <= replica.header().stale_max) kept.emplace(machine, vote);
  }
  return votes;
}

int64_t VoteBox::present(const Replica& replica, const Roster& roster) const {
  return std::ranges::count_if(
      roster, [&](const auto& machine) { return machine && here_.contains(place_of(replica.round(), *machine)); });
}

void VoteBox::forget(const Replica& replica) {
  for (auto it = votes_.begin(); it != votes_.end();) {
    const uint32_t seed_round = it->first;
    if (seed_round >= replica.round()) {
      ++it;
      continue;
    }
    const Roster* roster = replica.recent().roster_of(seed_round);
    const LaneIndex lanes(roster ? *roster : Roster{});
    std::erase_if(it->second, [&](const auto& entry) {
      const auto lane = lanes.find(entry.first);
      const bool goes = !lane || replica.recent().is_counted(seed_round, *lane);
      if (goes) here_.erase(place_of(seed_round, entry.first));
      return goes;
    });
    it = it->second.empty() ? votes_.erase(it) : std::next(it);
  }
}

void VoteBox::drop_for_digest(uint32_t seed_round, uint32_t machine) {
  const auto found = votes_.find(seed_round);
  if (found == votes_.end() || found->second.erase(machine) == 0) return;
  here_.erase(place_of(seed_round, machine));
  drop(Reason::digest);
}

int64_t VoteBox::dropped_in_all() const { return std::accumulate(dropped_.begin(), dropped_.end(), int64_t{0}); }

}  // namespace tessera
