// Only one unit waits at a time. So two units are known at most, the announced one and the one in force before it, and
// the latter is that of the newest round.

#include "steplog/recent_rounds.h"

#include <algorithm>

#include "core/error.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

constexpr uint32_t kMostLanes = 0x10000;  // a record's lane has 16 bits

void apply_changes(const Record& record, Roster& roster) {
  for (const RosterChange& change : record.roster) {
    if (roster.size() <= change.lane) roster.resize(change.lane + 1);
    roster[change.lane] = change.add ? std::optional(change.machine) : std::nullopt;
  }
  // Lanes are as many as the record says, free ones at the end included.
  roster.resize(record.lanes);
}

void put_roster(ByteWriter& writer, const Roster& roster) {
  std::vector<bool> taken;
  for (const auto& machine : roster) taken.push_back(machine.has_value());
  writer.put(static_cast<uint32_t>(roster.size()));
  writer.put_bits(taken);
  for (const auto& machine : roster)
    if (machine) writer.put(*machine);
}

Roster get_roster(ByteReader& reader) {
  const uint32_t lanes = reader.get<uint32_t>();  // as many as records can count, before memory is taken for them
  if (lanes > kMostLanes) refuse("lanes", fmt::format("{} lanes", lanes));
  Roster roster;
  for (const bool taken : reader.get_bits(lanes)) {
    roster.emplace_back();
    if (taken) roster.back() = reader.get<uint32_t>();
  }
  return roster;
}

/// How many of the last rounds are kept, oldest first: fewer at the beginning of a run.
uint32_t rounds_kept(int stale_max, uint32_t next_round) {
  return std::min(static_cast<uint32_t>(stale_max), next_round);
}

}  // namespace

std::optional<uint32_t> lane_of(const Roster& roster, uint32_t machine) {
  const auto found = std::find(roster.begin(), roster.end(), machine);
  if (found == roster.end()) return std::nullopt;
  return static_cast<uint32_t>(found - roster.begin());
}

int64_t lanes_taken(const Roster& roster) {
  return std::count_if(roster.begin(), roster.end(), [](const auto& machine) { return machine.has_value(); });
}

LaneIndex::LaneIndex(const Roster& roster) {
  for (uint32_t lane = 0; lane < roster.size(); ++lane)
    if (roster[lane]) lanes_.emplace(*roster[lane], lane);
}

std::optional<uint32_t> LaneIndex::find(uint32_t machine) const {
  const auto found = lanes_.find(machine);
  return found == lanes_.end() ? std::nullopt : std::optional(found->second);
}

const RecentRounds::Round* RecentRounds::find(uint32_t seed_round) const {
  for (const Round& round : recent_)
    if (round.round == seed_round) return &round;
  return nullptr;
}

Roster RecentRounds::roster_behind(const Record& record) const {
  Roster roster = roster_;
  apply_changes(record, roster);
  return roster;
}

const Roster* RecentRounds::roster_of(uint32_t seed_round) const {
  const Round* round = find(seed_round);
  return round ? &round->roster : nullptr;
}

int RecentRounds::unit_of(uint32_t seed_round) const {
  if (seed_round >= announced_from_) return announced_;
  if (const Round* round = find(seed_round)) return round->unit;
  // From the next round on, as long as the announced unit waits, the one before it is in force: the newest round's.
  TS_CHECK(seed_round >= next_round_ && !recent_.empty(), "the unit of round {} is not known before round {}",
           seed_round, next_round_);
  return recent_.back().unit;
}

bool RecentRounds::is_counted(uint32_t seed_round, uint32_t lane) const {
  const Round* round = find(seed_round);
  return round && lane < round->counted.size() && round->counted[lane];
}

void RecentRounds::count(uint32_t seed_round, const std::vector<bool>& present) {
  for (Round& round : recent_) {
    if (round.round != seed_round) continue;
    for (size_t lane = 0; lane < std::min(present.size(), round.counted.size()); ++lane)
      if (present[lane]) round.counted[lane] = true;
  }
}

void RecentRounds::accept(const Record& record) {
  TS_CHECK(record.type == RecordType::round && record.round == next_round_, "round {} accepted in the place of {}",
           record.round, next_round_);
  const int unit_now = unit();
  for (const RosterChange& change : record.roster)
    if (!change.add) former_.insert(change.machine);
  apply_changes(record, roster_);
  ++next_round_;
  if (record.unit_exp != announced_) {
    announced_ = record.unit_exp;
    announced_from_ = next_round_ + static_cast<uint32_t>(stale_max_);
  }
  if (stale_max_ == 0) return;  // no vote may come late
  recent_.push_back({record.round, unit_now, roster_, std::vector<bool>(roster_.size())});
  count(record.seed_round, record.present);
  for (const ExtraGroup& group : record.extra) count(group.seed_round, group.present);
  while (recent_.size() > static_cast<size_t>(stale_max_)) recent_.pop_front();
}

void RecentRounds::save_roster(ByteWriter& writer) const {
  // u32 lanes | bitmap of lanes that are taken | u32 machine of each of them | u32 count and u32 ids of machines that
  // left.
  put_roster(writer, roster_);
  writer.put(static_cast<uint32_t>(former_.size()));
  for (uint32_t machine : former_) writer.put(machine);
}

void RecentRounds::save(ByteWriter& writer) const {
  // What save_roster() writes | u32 stale_max | for each of the last rounds: u32 round | i8 unit | its roster, as above
  // | bitmap of lanes counted | then i8 announced unit | u32 round that it holds from.
  save_roster(writer);
  writer.put(static_cast<uint32_t>(stale_max_));
  for (const Round& round : recent_) {
    writer.put(round.round);
    writer.put(static_cast<uint8_t>(round.unit));
    put_roster(writer, round.roster);
    writer.put_bits(round.counted);
  }
  writer.put(static_cast<uint8_t>(announced_));
  writer.put(announced_from_);
}

RecentRounds RecentRounds::restore_roster(ByteReader& reader, int stale_max, int unit, uint32_t next_round) {
  RecentRounds rounds(stale_max, unit);
  rounds.next_round_ = next_round;
  rounds.roster_ = get_roster(reader);
  for (uint32_t left = reader.get<uint32_t>(); left > 0; --left) {
    const uint32_t machine = reader.get<uint32_t>();
    // Each once and ascending, so that equal states are equal bytes.
    if (!rounds.former_.empty() && machine <= *rounds.former_.rbegin())
      refuse("machine", fmt::format("machine {} stands behind machine {} among those that left", machine,
                                    *rounds.former_.rbegin()));
    rounds.former_.insert(machine);
  }
  for (uint32_t round = next_round - rounds_kept(stale_max, next_round); round < next_round; ++round)
    rounds.recent_.push_back({round, unit, {}, {}});
  return rounds;
}

RecentRounds::Round RecentRounds::restore_round(ByteReader& reader, uint32_t expected) {
  Round round;
  round.round = reader.get<uint32_t>();
  if (round.round != expected) refuse("round", fmt::format("round {}, expected round {}", round.round, expected));
  round.unit = static_cast<int8_t>(reader.get<uint8_t>());
  round.roster = get_roster(reader);
  round.counted = reader.get_bits(round.roster.size());
  for (size_t lane = 0; lane < round.roster.size(); ++lane)
    if (round.counted[lane] && !round.roster[lane])
      refuse("machine", fmt::format("round {}: a vote of lane {} is counted, which was free", round.round, lane));
  return round;
}

/// The units of rounds agree with what is announced, or two machines could hold the same bytes and other units.
void RecentRounds::check_units() const {
  if (announced_from_ > next_round_ + static_cast<uint32_t>(stale_max_) || (is_waiting() && recent_.empty()))
    refuse("unit", fmt::format("a unit announced for round {} on, before round {}", announced_from_, next_round_));
  for (const Round& round : recent_)
    if (round.round >= announced_from_ && round.unit != announced_)
      refuse("unit", fmt::format("round {} has unit {}, announced is {} from round {} on", round.round, round.unit,
                                 announced_, announced_from_));
}

RecentRounds RecentRounds::restore(ByteReader& reader, int stale_max, uint32_t next_round) {
  RecentRounds rounds = restore_roster(reader, stale_max, 0, next_round);
  if (const uint32_t found = reader.get<uint32_t>(); found != static_cast<uint32_t>(stale_max))
    refuse("stale_max", fmt::format("of stale_max {}, this run has {}", found, stale_max));
  for (Round& round : rounds.recent_) round = restore_round(reader, round.round);
  rounds.announced_ = static_cast<int8_t>(reader.get<uint8_t>());
  rounds.announced_from_ = reader.get<uint32_t>();
  rounds.check_units();
  return rounds;
}

}  // namespace tessera
