// Replay: from the newest snapshot that may be believed, the records behind it in runs, each applied as one. How long a
// run of records is, is a matter of speed alone (Replica::apply).

#include "train/spsa/rounds.h"

#include "core/error.h"
#include "core/stop.h"
#include "train/spsa/snapshots.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr size_t kTogether = 256;           // records handed to the replica at once,
constexpr size_t kTogetherBytes = 1 << 10;  // or about so many votes: one update of a replica without state

/// The log does not reach back to where the replica is.
[[noreturn]] void throw_dropped(const StepLog& log, uint32_t first, const fs::path& snapshots) {
  const uint32_t held = rounds_in(log);
  const std::string what = fmt::format("the log holds rounds {} to {}: those before were dropped", first + 1, held);
  const auto known = snapshots_in(log);
  std::optional<uint32_t> oldest;
  for (const uint32_t round : snapshot_rounds(snapshots))
    if (known.count(round)) oldest = round;
  throw UserError(
      "", what,
      snapshots.empty() ? fmt::format("replay.from_base=false starts from a snapshot beside the log and reaches "
                                      "replay.round={} to {}; a log that another machine kept may go further back",
                                      first, held)
      : oldest ? fmt::format("from the snapshots beside it replay.round={} to {} can be reached; a log that another "
                             "machine kept may go further back",
                             *oldest, held)
               : "no snapshot beside it is whole: put one back, or take the log of another machine of the run");
}

}  // namespace

RunPlaces find_log(const fs::path& run_or_log) {
  // A folder's name alone, without a slash at its end, has a parent that can be named.
  const fs::path folder = fs::absolute(run_or_log / "").parent_path().lexically_normal();
  const auto as_given = [&](const fs::path& place) {
    return run_or_log.is_absolute() ? place : place.lexically_proximate(fs::current_path());
  };
  // A run's folder holds its log in "log"; a log's folder is known by its header.
  if (fs::exists(folder / "log" / "header.json")) return {as_given(folder), as_given(folder / "log")};
  if (fs::exists(folder / "header.json")) return {as_given(folder.parent_path()), as_given(folder)};
  throw UserError(run_or_log.string(), "there is no log of rounds",
                  "name the folder of a run with train.estimator = \"spsa\", or its folder log");
}

int64_t votes_in(const Record& record, int64_t bytes_per_probe) {
  size_t bytes = record.bytes.size();
  for (const ExtraGroup& group : record.extra) bytes += group.bytes.size();
  return static_cast<int64_t>(bytes) / bytes_per_probe;
}

uint32_t rounds_in(const StepLog& log) { return log.chain().next_round(); }

void throw_poisoned(uint64_t index, const Refusal& refusal) {
  throw UserError(fmt::format("record {}", index), fmt::format("broken rule \"{}\": {}", refusal.rule, refusal.detail),
                  "the log is poisoned, the run stops here; the rounds before are whole: job=replay with replay.branch "
                  "goes on from any of them");
}

ReplayCount replay(const Context& ctx, Replica& replica, const StepLog& log, const fs::path& snapshots,
                   uint32_t last_round) {
  load_snapshot(replica, log, snapshots, last_round);
  ReplayCount count;
  std::vector<Record> records;
  size_t bytes = 0;  // of their votes
  uint32_t next = replica.round();
  const auto flush = [&] {
    // Between two applications: the state is that of a whole number of rounds.
    leave_if_asked("replaying");
    replica.apply(ctx, records);
    records.clear();
    bytes = 0;
  };
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    // What lies before the snapshot is skipped. `round` of other types: the state after so many rounds is meant.
    if (record.type == RecordType::round) {
      if (record.round < next) return true;
      if (next >= last_round) return false;
      // A gap: the state is older than the oldest record.
      if (record.round > next) throw_dropped(log, record.round, snapshots);
      ++next;
      ++count.rounds;
      count.votes += votes_in(record, replica.header().bytes_per_probe());
    } else {
      if (record.round < next) return true;
      count.digests += record.type == RecordType::digest;
      count.snapshots += record.type == RecordType::snapshot;
    }
    records.push_back(record);
    bytes += record.bytes.size();
    if (records.size() == kTogether || bytes >= kTogetherBytes) flush();
    return true;
  });
  flush();
  if (replica.round() < last_round)
    throw UserError("", fmt::format("the log holds {} rounds, round {} is asked for", replica.round(), last_round),
                    "name a round that the log holds");
  return count;
}

}  // namespace tessera
