#include "train/spsa/snapshots.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "io/numbered_name.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "round-", kSuffix = ".safetensors";

}  // namespace

std::map<uint32_t, KnownSnapshot> snapshots_in(const StepLog& log) {
  std::map<uint32_t, KnownSnapshot> known;
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    if (record.type == RecordType::snapshot) known[record.round] = {record.index, hex_text(record.sha256)};
    return true;
  });
  return known;
}

bool is_snapshot_name(const fs::path& file) {
  return number_in_name(file.filename().string(), kPrefix, kSuffix).has_value();
}

fs::path snapshot_file(const fs::path& folder, uint32_t round) {
  return folder / numbered_name(kPrefix, round, kSuffix);
}

std::vector<uint32_t> snapshot_rounds(const fs::path& folder) {
  std::vector<uint32_t> rounds;
  if (!fs::is_directory(folder)) return rounds;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto round = number_in_name(entry.path().filename().string(), kPrefix, kSuffix);
    if (round && *round <= std::numeric_limits<uint32_t>::max()) rounds.push_back(static_cast<uint32_t>(*round));
  }
  std::sort(rounds.rbegin(), rounds.rend());
  return rounds;
}

// A snapshot saves time and is never believed: the log holds the hash of each that was written, and where the file has
// another, rounds are replayed from an older one.
void load_snapshot(Replica& replica, const StepLog& log, const fs::path& folder, uint32_t last_round) {
  if (folder.empty()) return;
  // Reads the whole log: once at a start, never between rounds.
  const auto known = snapshots_in(log);
  for (const uint32_t round : snapshot_rounds(folder)) {
    const auto found = known.find(round);
    if (round > last_round || found == known.end()) continue;
    // Damaged, altered, or of another run under the same name.
    if (sha256_of_file(snapshot_file(folder, round)) != found->second.sha256)
      continue;  // an older one, or the base, will do
    return replica.load(snapshot_file(folder, round));
  }
}

std::string require_log(const fs::path& snapshots, const fs::path& log, uint32_t round) {
  const auto rounds = snapshot_rounds(snapshots);
  // A log that reaches as far as every snapshot has lost nothing that is known of.
  if (rounds.empty() || rounds.front() <= round) return "";
  if (round > 0)
    return fmt::format(
        "{}: the log ends with round {}, and there is a snapshot of round {}: what lies between is made again",
        log.string(), round, rounds.front());
  throw UserError(
      log.string(),
      fmt::format("this log has no rounds, and snapshots up to round {} are in {}", rounds.front(), snapshots.string()),
      "put back a copy of the log, or train anew with run.resume=never or another run.dir");
}

void Snapshots::know(const Record& record) {
  if (record.type == RecordType::snapshot) known_[record.round] = {record.index, hex_text(record.sha256)};
}

HashedFile Snapshots::save(Replica& replica, bool is_best) const {
  create_folder(folder_);
  const fs::path file = snapshot_file(folder_, replica.round());
  replica.save(file);
  write_text_file(folder_ / "latest", file.filename().string() + "\n");
  // A copy, since the snapshot itself may be removed when others come.
  if (is_best) fs::copy_file(file, folder_ / "best.safetensors", fs::copy_options::overwrite_existing);
  return hash_file(file);
}

// Those that the log vouches for and others are counted apart: files that nobody can go on from must not push out the
// ones that a killed run needs.
uint64_t Snapshots::remove_old(uint32_t written) const {
  int64_t good = 0, others = 0;  // others: the log does not vouch for them
  uint64_t index = 0;
  for (const uint32_t round : snapshot_rounds(folder_)) {
    if (round > written) continue;  // of rounds that the log has lost: they do not count
    const auto found = known_.find(round);
    const bool is_good = found != known_.end();
    if ((good == keep_ || (!is_good && others == keep_)) && round != written) {
      fs::remove(snapshot_file(folder_, round));
    } else if (is_good) {
      index = found->second.index;
      ++good;
    } else {
      ++others;
    }
  }
  return good < keep_ ? 0 : index;
}

void Snapshots::compact(StepLog& log, uint64_t index) const {
  if (compact_ == "keep" || index == 0) return;
  const bool drop = compact_ == "drop" && !folder_.empty();  // without a snapshot the rounds since are worth nothing
  log.compact(index, drop ? StepLog::Compaction::drop : StepLog::Compaction::archive);
}

}  // namespace tessera
