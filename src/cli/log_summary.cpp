#include "cli/log_summary.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/minifloat.h"
#include "io/files.h"
#include "io/sha256.h"
#include "steplog/wire.h"
#include "train/spsa/rounds.h"
#include "train/spsa/vote_codec.h"
#include "train/spsa/vote_groups.h"

namespace tessera {
namespace {

/// Where the log begins. An old log does not tell the unit of its first round, where rounds before were dropped.
RecentRounds start_of(const StepLog& log, const RunHeader& header) {
  if (log.first_index() == 0) return RecentRounds(header.late_rounds(), header.unit);
  RecentRounds kept = log.start().rounds();
  if (header.format() > 1) return kept;
  ByteWriter writer;
  kept.save_roster(writer);
  ByteReader reader(writer.bytes());
  return RecentRounds::restore_roster(reader, 0, header.unit, kept.next_round());
}

class Reading {
 public:
  /// @param start  before the log's first record
  Reading(const RunHeader& header, const RecentRounds& start) : header_(header), recent_(start) {}

  RoundLine line_of(const Record& record) {
    RoundLine line;
    line.round = record.round;
    line.alpha = static_cast<double>(record.alpha);
    line.mul = static_cast<double>(record.mul);
    line.unit = header_.unit_of(recent_.unit());
    line.machines = std::ranges::count(record.present, true);
    line.roster = record.roster;
    line.had_conflict = record.flags & kHadConflict;
    const Roster behind = recent_.roster_behind(record);
    line.lanes = lanes_taken(behind);
    for (size_t lane = 0; lane < behind.size(); ++lane)
      if (behind[lane] && !record.present[lane]) line.absent.push_back(*behind[lane]);
    count(record, behind, line);
    line.median = median_of(record.bytes, line.unit);
    if (!record.losses.empty()) {
      double sum = 0;
      for (const uint16_t bits : record.losses) sum += static_cast<double>(to_float(Float16{bits}));
      line.loss = sum / static_cast<double>(record.losses.size());
    }
    machines_.add(record, recent_);
    recent_.accept(record);
    return line;
  }
  const LogMachines& machines() const { return machines_; }

 private:
  void count(const Record& record, const Roster& behind, RoundLine& line) const {
    VoteCounts counts;
    const auto add = [&](uint32_t seed_round, const auto& group, const Roster& roster, int unit) {
      (void)groups_of(header_,
                      {.seed_round = seed_round,
                       .alpha = 0,
                       .present = group.present,
                       .bytes = group.bytes,
                       .roster = roster,
                       .unit = unit},
                      counts);
    };
    add(record.seed_round, record, behind, recent_.unit());
    line.late = -counts.votes;
    for (const ExtraGroup& late : record.extra) {
      const Roster* roster = recent_.roster_of(late.seed_round);
      add(late.seed_round, late, roster ? *roster : behind, roster ? recent_.unit_of(late.seed_round) : recent_.unit());
    }
    line.late += counts.votes;
    line.votes = counts.votes;
    line.valid = counts.valid;
    line.clipped = counts.clipped;
  }

  std::optional<double> median_of(std::span<const uint8_t> bytes, int unit) const {
    std::vector<int64_t> magnitudes;
    const auto width = static_cast<size_t>(header_.bytes_per_probe());
    for (; bytes.size() >= width; bytes = bytes.subspan(width))
      if (const auto value = read_vote(header_, bytes.first(width))) magnitudes.push_back(std::abs(int64_t{*value}));
    if (magnitudes.empty()) return std::nullopt;
    return std::ldexp(static_cast<double>(lower_median(std::move(magnitudes))), -unit);
  }

  const RunHeader& header_;
  RecentRounds recent_;
  LogMachines machines_;
};

Mark mark_of(const Record& record) {
  Mark mark;
  mark.round = record.round;
  mark.machine = record.machine;
  mark.digest = StateDigest{record.digest[0], record.digest[1]}.text();
  if (record.type == RecordType::snapshot) {
    mark.sha256 = hex_text(record.sha256);
    mark.bytes = static_cast<int64_t>(record.file_bytes);
  }
  return mark;
}

}  // namespace

LogSummary summary_of(const std::filesystem::path& run) {
  const RunPlaces places = find_log(run);
  const StepLog log = StepLog::open(places.log, {.access = StepLog::Access::read});
  LogSummary s;
  s.folder = places.log.string();
  s.header = RunHeader::parse(log.header(), (places.log / "header.json").string());
  s.run = sha256_hex(log.header());
  s.notices = log.notices();
  s.roster = log.chain().roster();
  s.ended = log.chain().ended();
  s.bytes = log.bytes_on_disk();
  s.total_rounds = rounds_in(log);
  Reading reading(s.header, start_of(log, s.header));
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    ++s.records;
    if (record.type == RecordType::round) s.rounds.push_back(reading.line_of(record));
    if (record.type == RecordType::digest) s.digests.push_back(mark_of(record));
    if (record.type == RecordType::snapshot) s.snapshots.push_back(mark_of(record));
    s.reseeds += record.type == RecordType::reseed;
    s.conflicts += (record.flags & kHadConflict) != 0;
    return true;
  });
  s.machines = reading.machines().lines();
  for (const RoundLine& line : s.rounds) {
    s.votes += line.votes;
    s.valid += line.valid;
  }
  s.first_round = s.rounds.empty() ? s.total_rounds : s.rounds.front().round;
  return s;
}

}  // namespace tessera
