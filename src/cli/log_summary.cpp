#include "cli/log_summary.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "core/error.h"
#include "core/minifloat.h"
#include "io/files.h"
#include "io/sha256.h"
#include "train/spsa/rounds.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

/// Turns records into lines, one behind the other.
class Lines {
 public:
  /// @param start  before the log's first record
  Lines(const RunHeader& header, RecentRounds start)
      : header_(header), recent_(std::move(start)), attendance_(header) {}

  /// Of a record of another type only what it says of the whole run is kept.
  std::optional<RoundLine> take(const Record& record) {
    const VoteCounts counts = attendance_.add(record, recent_);
    if (record.type != RecordType::round) return std::nullopt;
    RoundLine line = line_of(record);
    line.votes = counts.votes;
    line.valid = counts.valid;
    line.clipped = counts.clipped();
    recent_.accept(record);
    return line;
  }
  const Attendance& attendance() const { return attendance_; }

 private:
  RoundLine line_of(const Record& record) const {
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
    for (const ExtraGroup& group : record.extra) {
      line.late_groups.push_back(late_group(group, behind));
      line.late += line.late_groups.back().votes;
    }
    line.median = median_of(record.bytes, line.unit);
    if (!record.losses.empty()) {
      double sum = 0;
      for (const uint16_t bits : record.losses) sum += static_cast<double>(to_float(Float16{bits}));
      line.loss = sum / static_cast<double>(record.losses.size());
    }
    return line;
  }

  LateGroup late_group(const ExtraGroup& group, const Roster& behind) const {
    const Roster* then = recent_.roster_of(group.seed_round);
    const Roster& roster = then ? *then : behind;
    LateGroup late{
        .seed_round = group.seed_round, .machines = {}, .votes = std::ssize(group.bytes) / header_.bytes_per_probe()};
    for (size_t lane = 0; lane < std::min(group.present.size(), roster.size()); ++lane)
      if (group.present[lane] && roster[lane]) late.machines.push_back(*roster[lane]);
    return late;
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
  Attendance attendance_;
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

struct LogReading::State {
  explicit State(const RunPlaces& found)
      : places(found), log(StepLog::open(places.log, {.access = StepLog::Access::read})), next(log.first_index()) {
    s.folder = places.log.string();
    s.header = RunHeader::parse(log.header(), (places.log / "header.json").string());
    s.run = sha256_hex(log.header());
    lines.emplace(s.header, rounds_before(log, s.header));
    read();
  }

  void read() {
    log.for_each(next, [&](const Record& record, std::span<const std::byte>) {
      next = record.index + 1;
      ++s.records;
      if (auto line = lines->take(record)) {
        s.votes += line->votes;
        s.valid += line->valid;
        s.rounds.push_back(std::move(*line));
      }
      if (record.type == RecordType::digest) s.digests.push_back(mark_of(record));
      if (record.type == RecordType::snapshot) s.snapshots.push_back(mark_of(record));
      return true;
    });
    s.notices = log.notices();
    s.roster = log.chain().roster();
    s.ended = log.chain().ended();
    s.bytes = log.bytes_on_disk();
    s.total_rounds = rounds_in(log);
    s.machines = lines->attendance().lines();
    s.reseeds = lines->attendance().reseeds();
    s.conflicts = lines->attendance().conflicts();
    s.first_round = s.rounds.empty() ? s.total_rounds : s.rounds.front().round;
    s.names = read_node_names(places.run / "nodes.json", s.run);
  }

  RunPlaces places;
  StepLog log;
  uint64_t next;  // the first record that was not read
  LogSummary s;
  std::optional<Lines> lines;
};

namespace {

/// The writer may archive or drop files between the listing of them and their reading: what fails is tried again, which
/// reads the log anew. @throws UserError what the last try throws
template <class Try> void with_patience(Try&& attempt) {
  constexpr int kTries = 5;
  for (int number = 1;; ++number) try {
      return attempt(number == 1);
    } catch (const UserError&) {
      if (number == kTries) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
}

}  // namespace

LogReading::LogReading(const std::filesystem::path& run) {
  const RunPlaces places = find_log(run);
  with_patience([&](bool) { state_ = std::make_unique<State>(places); });
}
LogReading::~LogReading() = default;

const LogSummary& LogReading::summary() const { return state_->s; }

void LogReading::read_on() {
  with_patience([&](bool is_first) {
    if (!is_first) {
      state_ = std::make_unique<State>(state_->places);
      return;
    }
    state_->log.refresh();
    state_->read();
  });
}

}  // namespace tessera
