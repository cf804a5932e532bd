// A record is judged twice: by itself when it is decoded (record.cpp: form and CRC), and here by the records before it.
// What is refused follows from those records alone, so that all replicas refuse the same one and none goes on without
// it. `refuses` looks and changes nothing; `accept` moves on.

#include <algorithm>
#include <cmath>

#include "core/crc32c.h"
#include "core/error.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

using Roster = std::vector<std::optional<uint32_t>>;

constexpr uint32_t kFirstReservedMachine = 0xFFFFFF00;  // ids of other uses of the random stream
constexpr uint32_t kStateMagic = 0x43425354;            // "TSBC"
constexpr uint32_t kStateVersion = 1;

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

bool holds(const Roster& roster, uint32_t machine) {
  return std::find(roster.begin(), roster.end(), machine) != roster.end();
}

void remove_machine(Roster& roster, const RosterChange& change) {
  if (change.lane >= roster.size() || roster[change.lane] != change.machine)
    refuse("machine", fmt::format("machine {} leaves lane {}, which is not its own", change.machine, change.lane));
  roster[change.lane].reset();
}

void add_machine(Roster& roster, const RosterChange& change, const std::set<uint32_t>& former) {
  if (change.machine >= kFirstReservedMachine)
    refuse("machine", fmt::format("machine id {:08x} is reserved", change.machine));
  if (holds(roster, change.machine))
    refuse("machine", fmt::format("machine {} is in the roster already", change.machine));
  if (former.count(change.machine))
    refuse("machine", fmt::format("machine {} has left; ids are never used again", change.machine));
  // A record's lane has 16 bits (record.cpp): no number that it names can make the roster large.
  if (change.lane >= roster.size()) roster.resize(change.lane + 1);
  if (roster[change.lane])
    refuse("lane", fmt::format("lane {} belongs to machine {} already", change.lane, *roster[change.lane]));
  roster[change.lane] = change.machine;
}

void check_present(const std::vector<bool>& present, const Roster& roster) {
  for (size_t lane = 0; lane < present.size(); ++lane)
    if (present[lane] && !roster[lane]) refuse("machine", fmt::format("a vote of lane {}, which is free", lane));
}

}  // namespace

void ChainRules::apply_roster(const Record& record, Roster& roster, std::set<uint32_t>& former) {
  for (const RosterChange& change : record.roster) {
    if (change.add) {
      add_machine(roster, change, former);
    } else {
      remove_machine(roster, change);
      former.insert(change.machine);
    }
  }
}

void ChainRules::check_round(const Record& record) const {
  if (record.round != next_round_)
    refuse("round", fmt::format("round {}, expected round {}", record.round, next_round_));
  check_seed_round(record.seed_round, record.round, limits_.stale_max);
  check_alpha(record.alpha, limits_.alpha_max);
  // Asked this way round, so that a NaN is refused.
  if (!(record.mul >= limits_.mul_min && record.mul <= limits_.mul_max))
    refuse("mul", fmt::format("mul is {}, expected {} to {}", record.mul, limits_.mul_min, limits_.mul_max));
  if (record.m > limits_.m_max) refuse("m", fmt::format("m is {}, {} at most", record.m, limits_.m_max));

  // Changes of the roster are tried on copies: a rule further down may still refuse the record.
  Roster changed;
  std::set<uint32_t> former;
  if (!record.roster.empty()) {
    changed = roster_;
    former = former_;
    apply_roster(record, changed, former);
  }
  const Roster& roster = record.roster.empty() ? roster_ : changed;
  // A record's bitmap is read by its own `lanes`: had these another number than the roster, bits would have no machine.
  if (record.lanes != roster.size())
    refuse("lanes", fmt::format("{} lanes, the roster has {}", record.lanes, roster.size()));
  check_present(record.present, roster);

  // Votes of one seed round are one group: in two, a machine's vote could count twice.
  std::set<uint32_t> seeds{record.seed_round};
  for (const ExtraGroup& group : record.extra) {
    check_seed_round(group.seed_round, record.round, limits_.stale_max);
    check_alpha(group.alpha, limits_.alpha_max);
    check_present(group.present, roster);
    if (!seeds.insert(group.seed_round).second)
      refuse("seed round", fmt::format("two groups of seed round {}", group.seed_round));
  }
}

std::optional<Refusal> ChainRules::refuses(const Record& record) const {
  // Rules throw, and the first that is broken is the verdict: all replicas ask them in this order.
  const auto verdict = decode_or_refusal([&] {
    if (ended_) refuse("end", "the run has ended; nothing follows");
    if (record.run != limits_.run.prefix())
      refuse("run", fmt::format("of run {:08x}, this is run {:08x}", record.run, limits_.run.prefix()));
    if (record.index != next_index_)
      refuse("index", fmt::format("number {}, expected number {}", record.index, next_index_));
    if (record.prev != prev_)
      refuse("prev", fmt::format("follows a record with hash {:016x}, the last one's is {:016x}", record.prev, prev_));
    if (record.type < RecordType::round || record.type > RecordType::reseed)
      refuse("type", fmt::format("records of type {} are unknown", static_cast<int>(record.type)));
    // Records of other types may come late, when the log has gone on, and never from the future.
    if (record.type == RecordType::round)
      check_round(record);
    else if (record.round > next_round_)
      refuse("round", fmt::format("of {} rounds applied, there are {}", record.round, next_round_));
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
  if (record.type != RecordType::round) return;  // the others tell of rounds and are none
  ++next_round_;
  apply_roster(record, roster_, former_);
}

/// All that the rules know of the records so far. A log whose first records were dropped begins with it, and is then
/// judged as strictly as a whole one.
Bytes ChainRules::save() const {
  // u32 magic | u32 version | u32 run | u32 next round | u64 next index | u64 prev | u32 ended | u32 lanes | bitmap of
  // lanes that are taken | u32 machine of each of them | u32 count and u32 ids of machines that left | u32 CRC-32C.
  ByteWriter writer;
  writer.put(kStateMagic);
  writer.put(kStateVersion);
  writer.put(limits_.run.prefix());
  writer.put(next_round_);
  writer.put(next_index_);
  writer.put(prev_);
  writer.put(static_cast<uint32_t>(ended_));
  writer.put(static_cast<uint32_t>(roster_.size()));
  std::vector<bool> taken;
  for (const auto& machine : roster_) taken.push_back(machine.has_value());
  writer.put_bits(taken);
  for (const auto& machine : roster_)
    if (machine) writer.put(*machine);
  writer.put(static_cast<uint32_t>(former_.size()));
  for (uint32_t machine : former_) writer.put(machine);
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
    if (const uint32_t version = reader.get<uint32_t>(); version != kStateVersion)
      refuse("version", fmt::format("version {}, this program reads version {}", version, kStateVersion));
    if (const uint32_t run = reader.get<uint32_t>(); run != limits.run.prefix())
      refuse("run", fmt::format("of run {:08x}, this is run {:08x}", run, limits.run.prefix()));
    ChainRules rules(limits);
    rules.next_round_ = reader.get<uint32_t>();
    rules.next_index_ = reader.get<uint64_t>();
    rules.prev_ = reader.get<uint64_t>();
    rules.ended_ = reader.get<uint32_t>() != 0;
    const uint32_t lanes = reader.get<uint32_t>();  // as many as records can count, before memory is taken for them
    if (lanes > 0x10000) refuse("lanes", fmt::format("{} lanes", lanes));
    for (const bool taken : reader.get_bits(lanes)) {
      rules.roster_.emplace_back();
      if (taken) rules.roster_.back() = reader.get<uint32_t>();
    }
    for (uint32_t left = reader.get<uint32_t>(); left > 0; --left) rules.former_.insert(reader.get<uint32_t>());
    if (!reader.rest().empty()) refuse("length", fmt::format("{} bytes too many", reader.rest().size()));
    return rules;
  });
}

}  // namespace tessera
