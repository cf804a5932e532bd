// A record is judged twice: by itself when it is decoded (record.cpp: form and CRC), and here by the records before it.
// What is refused follows from those records alone, so that all replicas refuse the same one and none goes on without
// it. `refuses` looks and changes nothing; `accept` moves on.

#include "steplog/chain_rules.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/crc32.h"
#include "core/direction.h"
#include "core/error.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

constexpr uint32_t kStateMagic = 0x43425354;  // "TSBC"
constexpr int kSmallestUnit = -20, kLargestUnit = 30;

/// Written so that NaN and infinity are refused as well.
void check_alpha(float alpha, double largest) {
  if (!std::isfinite(alpha) || std::abs(alpha) > largest)
    refuse("alpha", fmt::format("alpha is {}, its magnitude may be {} at most", alpha, largest));
}

void check_seed_round(uint32_t seed_round, uint32_t round, int stale_max) {
  if (seed_round > round)
    refuse("seed round", fmt::format("seed round {} in round {}: in the future", seed_round, round));
  if (int64_t{round} - seed_round > stale_max)
    refuse("stale", fmt::format("seed round {} in round {}: at most {} rounds late", seed_round, round, stale_max));
}

void remove_machine(Roster& roster, const RosterChange& change) {
  if (change.lane >= roster.size() || roster[change.lane] != change.machine)
    refuse("machine", fmt::format("machine {} leaves lane {}, which is not its own", change.machine, change.lane));
  roster[change.lane].reset();
}

/// @param members  machines of the roster
void add_machine(Roster& roster, const RosterChange& change, std::unordered_set<uint32_t>& members,
                 const std::set<uint32_t>& former) {
  if (change.machine >= kReservedMachines)
    refuse("machine", fmt::format("machine id {:08x} is reserved", change.machine));
  if (members.contains(change.machine))
    refuse("machine", fmt::format("machine {} is in the roster already", change.machine));
  if (former.count(change.machine))
    refuse("machine", fmt::format("machine {} has left; ids are never used again", change.machine));
  // A record's lane has 16 bits (record.cpp): no number that it names can make the roster large.
  if (change.lane >= roster.size()) roster.resize(change.lane + 1);
  if (roster[change.lane])
    refuse("lane", fmt::format("lane {} belongs to machine {} already", change.lane, *roster[change.lane]));
  roster[change.lane] = change.machine;
  members.insert(change.machine);
}

void check_present(const std::vector<bool>& present, const Roster& roster) {
  for (size_t lane = 0; lane < present.size(); ++lane)
    if (present[lane] && !roster[lane]) refuse("machine", fmt::format("a vote of lane {}, which is free", lane));
}

/// The roster behind the record. Tried on copies: a rule further down may still refuse it.
Roster checked_roster(const Record& record, const RecentRounds& rounds) {
  Roster roster = rounds.roster();
  std::set<uint32_t> former = rounds.former();
  std::unordered_set<uint32_t> members;  // thousands may come with one record
  for (const auto& machine : roster)
    if (machine) members.insert(*machine);
  for (const RosterChange& change : record.roster) {
    if (change.add) {
      add_machine(roster, change, members, former);
    } else {
      remove_machine(roster, change);
      members.erase(change.machine);
      former.insert(change.machine);
    }
  }
  return roster;
}

}  // namespace

void ChainRules::check_signature(const Record& record) const {
  const bool expected = !limits_.signers.empty();
  if (record.signature.has_value() != expected)
    refuse("signature", expected ? "it is not signed, and the header names signers"
                                 : "it is signed, and the header names no signers");
  if (!expected) return;
  const size_t key = record.signature->key;
  if (key >= limits_.signers.size())
    refuse("signature", fmt::format("of signer {}, the header names {}", key, limits_.signers.size()));
  if (!is_signed_by(limits_.signers[key], limits_.run, record))
    refuse("signature", fmt::format("it is not that of signer {}", key));
}

void ChainRules::check_unit(const Record& record) const {
  if (record.unit_exp < kSmallestUnit || record.unit_exp > kLargestUnit)
    refuse("unit", fmt::format("unit {} is outside {} .. {}", record.unit_exp, kSmallestUnit, kLargestUnit));
  if (rounds_.is_waiting() && record.unit_exp != rounds_.announced())
    refuse("unit", fmt::format("unit {} is announced while unit {} waits for round {}", record.unit_exp,
                               rounds_.announced(), rounds_.announced_from()));
}

/// Votes of a round before belong to whoever had the lanes then, and count once.
void ChainRules::check_late_votes(const ExtraGroup& group) const {
  const Roster* then = rounds_.roster_of(group.seed_round);
  TS_CHECK(then, "the roster of round {} is not kept", group.seed_round);
  for (uint32_t lane = 0; lane < group.present.size(); ++lane) {
    if (!group.present[lane]) continue;
    if (lane >= then->size() || !(*then)[lane])
      refuse("machine", fmt::format("a vote of lane {}, which was free in round {}", lane, group.seed_round));
    if (rounds_.is_counted(group.seed_round, lane))
      refuse("twice", fmt::format("a vote of machine {} in round {}, which is counted already", *(*then)[lane],
                                  group.seed_round));
  }
}

void ChainRules::check_extra_groups(const Record& record, const Roster& behind) const {
  // Votes of one seed round are one group: in two, a machine's vote could count twice.
  std::set<uint32_t> seeds{record.seed_round};
  uint32_t last = 0;
  for (const ExtraGroup& group : record.extra) {
    check_seed_round(group.seed_round, record.round, limits_.stale_max);
    check_alpha(group.alpha, limits_.alpha_max);
    if (!is_format_2()) check_present(group.present, behind);
    if (!seeds.insert(group.seed_round).second)
      refuse("seed round", fmt::format("two groups of seed round {}", group.seed_round));
    if (!is_format_2()) continue;
    if (group.seed_round < last)
      refuse("order", fmt::format("a group of seed round {} behind one of {}", group.seed_round, last));
    last = group.seed_round;
    check_late_votes(group);
  }
}

void ChainRules::check_round(const Record& record) const {
  if (record.round != next_round())
    refuse("round", fmt::format("round {}, expected round {}", record.round, next_round()));
  check_seed_round(record.seed_round, record.round, limits_.stale_max);
  if (is_format_2() && record.seed_round != record.round)
    refuse("seed round",
           fmt::format("the main group of round {} is of seed round {}", record.round, record.seed_round));
  check_alpha(record.alpha, limits_.alpha_max);
  // Asked this way round, so that a NaN is refused.
  if (!(record.mul >= limits_.mul_min && record.mul <= limits_.mul_max))
    refuse("mul", fmt::format("mul is {}, expected {} to {}", record.mul, limits_.mul_min, limits_.mul_max));
  if (record.m > limits_.m_max) refuse("m", fmt::format("m is {}, {} at most", record.m, limits_.m_max));
  if (is_format_2()) check_unit(record);

  const Roster changed = record.roster.empty() ? Roster{} : checked_roster(record, rounds_);
  const Roster& roster = record.roster.empty() ? rounds_.roster() : changed;
  // A record's bitmap is read by its own `lanes`: had these another number than the roster, bits would have no machine.
  if (record.lanes != roster.size())
    refuse("lanes", fmt::format("{} lanes, the roster has {}", record.lanes, roster.size()));
  check_present(record.present, roster);
  check_extra_groups(record, roster);
}

std::optional<Refusal> ChainRules::refuses(const Record& record) const {
  // Rules throw, and the first that is broken is the verdict: all replicas ask them in this order.
  const auto verdict = decode_or_refusal([&] {
    // By programs that know format 1 alone, as a fault of form: before anything else.
    if (!is_format_2() && record.flags & (kIsSigned | kHadConflict))
      refuse("flags", fmt::format("flags {:04x} are unknown in format {}", record.flags, limits_.format));
    if (ended_) refuse("end", "the run has ended; nothing follows");
    if (record.run != limits_.run.prefix())
      refuse("run", fmt::format("of run {:08x}, this is run {:08x}", record.run, limits_.run.prefix()));
    if (record.index != next_index_)
      refuse("index", fmt::format("number {}, expected number {}", record.index, next_index_));
    if (record.prev != prev_)
      refuse("prev", fmt::format("follows a record with hash {:016x}, the last one's is {:016x}", record.prev, prev_));
    if (record.type < RecordType::round || record.type > RecordType::reseed)
      refuse("type", fmt::format("records of type {} are unknown", static_cast<int>(record.type)));
    if (is_format_2()) check_signature(record);
    // Records of other types may come late, when the log has gone on, and never from the future.
    if (record.type == RecordType::round)
      check_round(record);
    else if (record.round > next_round())
      refuse("round", fmt::format("of {} rounds applied, there are {}", record.round, next_round()));
    return true;
  });
  if (const auto* refusal = std::get_if<Refusal>(&verdict)) return *refusal;
  return std::nullopt;
}

void ChainRules::accept(const Record& record, std::span<const std::byte> encoded) {
  TS_CHECK(record.index == next_index_, "record {} accepted in the place of {}", record.index, next_index_);
  // From here on a record counts only when it names this one as the one before.
  prev_ = chain_hash(encoded);
  ++next_index_;
  if (record.type == RecordType::end) ended_ = true;
  if (record.type == RecordType::round) rounds_.accept(record);  // the others tell of rounds and are none
}

/// All that the rules know of the records so far. A log whose first records were dropped begins with it, and is then
/// judged as strictly as a whole one.
Bytes ChainRules::save() const {
  // u32 magic | u32 version | u32 run | u32 next round | u64 next index | u64 prev | u32 ended | lanes, machines and
  // machines that left, in version 2 also the recent rounds (recent_rounds.cpp) | u32 CRC-32C.
  ByteWriter writer;
  writer.put(kStateMagic);
  writer.put(state_version());
  writer.put(limits_.run.prefix());
  writer.put(next_round());
  writer.put(next_index_);
  writer.put(prev_);
  writer.put(static_cast<uint32_t>(ended_));
  if (is_format_2())
    rounds_.save(writer);
  else
    rounds_.save_roster(writer);
  writer.put(crc32c(writer.bytes()));
  return writer.take();
}

std::variant<ChainRules, Refusal> ChainRules::restore(Limits limits, std::span<const std::byte> saved) {
  return decode_or_refusal([&] {
    if (saved.size() < 4) refuse("length", fmt::format("{} bytes", saved.size()));
    ByteReader reader(saved.first(saved.size() - 4));
    if (reader.get<uint32_t>() != kStateMagic) refuse("magic", "not the state of a chain");
    if (ByteReader(saved.last(4)).get<uint32_t>() != crc32c(saved.first(saved.size() - 4)))
      refuse("crc", "the checksum does not match");
    ChainRules rules(limits);
    const uint32_t version = reader.get<uint32_t>();
    if (version < 1 || version > rules.state_version())
      refuse("version", fmt::format("version {}, this program reads version {} of a log of format {}", version,
                                    rules.state_version(), limits.format));
    if (const uint32_t run = reader.get<uint32_t>(); run != limits.run.prefix())
      refuse("run", fmt::format("of run {:08x}, this is run {:08x}", run, limits.run.prefix()));
    const uint32_t next_round = reader.get<uint32_t>();
    rules.next_index_ = reader.get<uint64_t>();
    rules.prev_ = reader.get<uint64_t>();
    rules.ended_ = reader.get<uint32_t>() != 0;
    const int stale_max = rules.rounds_.stale_max();
    rules.rounds_ = version == 1 ? RecentRounds::restore_roster(reader, stale_max, limits.unit, next_round)
                                 : RecentRounds::restore(reader, stale_max, next_round);
    if (!reader.rest().empty()) refuse("length", fmt::format("{} bytes too many", reader.rest().size()));
    return rules;
  });
}

}  // namespace tessera
