#include "train/spsa/loose/roster_office.h"

#include <algorithm>

#include "core/direction.h"
#include "steplog/control_message.h"

namespace tessera {
namespace {

constexpr size_t kMostLanes = 0xFFFF;
constexpr size_t kMostChanges = 4096;  // of a record, whose roster has 16 bits of bytes: the rest waits for the next

/// Machines that a record has a vote of, late ones among them.
std::set<uint32_t> heard_in(const Record& record, const RecentRounds& before) {
  std::set<uint32_t> heard;
  const auto add = [&](const std::vector<bool>& present, const Roster& roster) {
    for (size_t lane = 0; lane < std::min(present.size(), roster.size()); ++lane)
      if (present[lane] && roster[lane]) heard.insert(*roster[lane]);
  };
  add(record.present, before.roster_behind(record));
  for (const ExtraGroup& group : record.extra)
    if (const Roster* roster = before.roster_of(group.seed_round)) add(group.present, *roster);
  return heard;
}

}  // namespace

void RosterOffice::take(const LogEngine::Sent& sent) {
  const auto decoded = decode_control_message(sent.bytes);
  const auto* message = std::get_if<ControlMessage>(&decoded);
  const auto* request = message ? std::get_if<RosterRequest>(message) : nullptr;
  if (!request || request->run != run_ || request->machine >= kReservedMachines) return;
  const auto [owner, is_new] = owners_.emplace(request->machine, sent.node);
  if (owner->second != sent.node) return;
  if (request->kind == RosterRequest::Kind::leave) {
    leaving_.insert(request->machine);
    return;
  }
  if (is_new) asked_.push_back(request->machine);
  if (!sent.node.empty()) propose(sent.node, request->machine);
}

void RosterOffice::propose(const std::string& node, uint32_t machine) {
  const auto [newest, is_first] = newest_.emplace(node, machine);
  if (is_first || newest->second == machine) return;
  replaced_.insert(newest->second);
  replaced_.erase(machine);
  newest->second = machine;
}

RosterOffice::Silences RosterOffice::silences_behind(const Record& record, const RecentRounds& before) const {
  const std::set<uint32_t> heard = heard_in(record, before);
  std::unordered_set<uint32_t> joined;  // with this record: they could not vote in it
  for (const RosterChange& change : record.roster)
    if (change.add) joined.insert(change.machine);
  Silences silent;
  for (const auto& machine : before.roster_behind(record))
    if (machine) silent[*machine] = joined.contains(*machine) || heard.contains(*machine) ? 0 : silence(*machine) + 1;
  return silent;
}

void RosterOffice::note(Silences silences) {
  silent_ = std::move(silences);
  std::erase_if(asked_, [&](uint32_t machine) { return silent_.contains(machine); });
}

std::vector<RosterChange> RosterOffice::changes(const RecentRounds& recent) const {
  std::vector<RosterChange> changes;
  Roster roster = recent.roster();
  for (uint32_t lane = 0; lane < roster.size(); ++lane) {
    if (!roster[lane] || changes.size() >= kMostChanges) continue;
    const uint32_t machine = *roster[lane];
    if (!is_giving_up(machine) && silence(machine) < absent_limit_) continue;
    changes.push_back({lane, false, *roster[lane]});
    roster[lane].reset();
  }
  if (asked_.empty()) return changes;
  const LaneIndex lanes(recent.roster());
  uint32_t lane = 0;  // none before it is free
  for (const uint32_t machine : asked_) {
    if (changes.size() >= kMostChanges) break;
    // Numbers are never used again, in the roster or out of it.
    if (lanes.contains(machine) || recent.former().contains(machine) || is_giving_up(machine)) continue;
    while (lane < roster.size() && roster[lane]) ++lane;
    if (lane == kMostLanes) break;  // it waits until one is free
    if (lane == roster.size()) roster.emplace_back();
    roster[lane] = machine;
    changes.push_back({lane, true, machine});
  }
  return changes;
}

bool RosterOffice::speaks_for(const std::string& node, uint32_t machine) const {
  return node.empty() || is_owner(node, machine);
}

int64_t RosterOffice::silence(uint32_t machine) const {
  const auto found = silent_.find(machine);
  return found == silent_.end() ? 0 : found->second;
}

}  // namespace tessera
