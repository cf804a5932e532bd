#include "train/spsa/attendance.h"

#include <algorithm>
#include <span>

#include "steplog/wire.h"

namespace tessera {

/// Machines of rounds that were dropped are known from the first record on that is there.
MachineLine& Attendance::line_of(uint32_t machine, uint32_t lane, uint32_t round) {
  const auto [place, is_new] = places_.emplace(machine, lines_.size());
  if (is_new) {
    MachineLine& line = lines_.emplace_back();
    line.machine = machine;
    line.lane = lane;
    line.joined = round;
  }
  return lines_[place->second];
}

VoteCounts Attendance::add(const Record& record, const RecentRounds& before) {
  conflicts_ += (record.flags & kHadConflict) != 0;
  reseeds_ += record.type == RecordType::reseed;
  if (record.type == RecordType::digest) digest_ = record.round;
  if (record.type != RecordType::round) return {};
  const Roster behind = before.roster_behind(record);
  add_round(record, before, behind);
  return count(record, before, behind);
}

void Attendance::add_late(const Record& record, const RecentRounds& before, std::set<uint32_t>& late) {
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
}

void Attendance::add_round(const Record& record, const RecentRounds& before, const Roster& behind) {
  std::set<uint32_t> late;
  add_late(record, before, late);
  for (const RosterChange& change : record.roster) {
    MachineLine& line = line_of(change.machine, change.lane, record.round);
    if (!change.add) line.left = record.round;
  }
  for (uint32_t lane = 0; lane < behind.size(); ++lane) {
    if (!behind[lane]) continue;
    MachineLine& line = line_of(*behind[lane], lane, record.round);
    const bool is_present = lane < record.present.size() && record.present[lane];
    const bool joins = line.joined == record.round && !is_present;  // it could not vote in this round
    line.voted += is_present;
    line.absent += !is_present && !joins;
    line.silent = is_present || joins || late.contains(line.machine) ? 0 : line.silent + 1;
    if (line.silent == 1) line.is_since_digest = digest_ == std::optional(record.round);
  }
}

VoteCounts Attendance::count(const Record& record, const RecentRounds& before, const Roster& behind) {
  VoteCounts all;
  for (const Ballots& ballots : ballots_of(record, before, behind)) {
    const size_t cut_before = all.clipped_lanes.size();
    (void)groups_of(header_, ballots, all);
    for (const uint32_t lane : std::span(all.clipped_lanes).subspan(cut_before))
      ++line_of(*ballots.roster[lane], lane, record.round).clipped;
  }
  return all;
}

RecentRounds rounds_before(const StepLog& log, const RunHeader& header) {
  if (log.first_index() == 0) return RecentRounds(header.late_rounds(), header.unit);
  RecentRounds kept = log.start().rounds();
  if (header.format() > 1) return kept;
  ByteWriter writer;
  kept.save_roster(writer);
  ByteReader reader(writer.bytes());
  return RecentRounds::restore_roster(reader, 0, header.unit, kept.next_round());
}

}  // namespace tessera
