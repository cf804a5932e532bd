#include "cli/log_machines.h"

#include <algorithm>

namespace tessera {

/// Machines of rounds that were dropped are known from the first record on that is there.
MachineLine& LogMachines::line_of(uint32_t machine, uint32_t lane, uint32_t round) {
  const auto [place, is_new] = places_.emplace(machine, lines_.size());
  if (is_new) {
    MachineLine& line = lines_.emplace_back();
    line.machine = machine;
    line.lane = lane;
    line.joined = round;
  }
  return lines_[place->second];
}

void LogMachines::add(const Record& record, const RecentRounds& before) {
  std::set<uint32_t> late;
  for (const ExtraGroup& group : record.extra) {
    const Roster* roster = before.roster_of(group.seed_round);
    for (uint32_t lane = 0; roster && lane < std::min(group.present.size(), roster->size()); ++lane)
      if (group.present[lane] && (*roster)[lane]) {
        MachineLine& line = line_of(*(*roster)[lane], lane, record.round);
        ++line.late;
        --line.absent;  // it was told as absent in that round's record
        late.insert(line.machine);
      }
  }
  for (const RosterChange& change : record.roster) {
    MachineLine& line = line_of(change.machine, change.lane, record.round);
    if (!change.add) line.left = record.round;
  }
  const Roster behind = before.roster_behind(record);
  for (uint32_t lane = 0; lane < behind.size(); ++lane) {
    if (!behind[lane]) continue;
    MachineLine& line = line_of(*behind[lane], lane, record.round);
    const bool is_present = lane < record.present.size() && record.present[lane];
    const bool joins = line.joined == record.round && !is_present;  // it could not vote in this round
    line.voted += is_present;
    line.absent += !is_present && !joins;
    line.silent = is_present || joins || late.contains(line.machine) ? 0 : line.silent + 1;
  }
}

}  // namespace tessera
