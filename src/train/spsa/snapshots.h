#pragma once
// Snapshots: a replica's state at a round, as files beside the log, which holds their hashes.

#include <map>

#include "io/sha256.h"
#include "steplog/step_log.h"
#include "train/spsa/replica.h"

namespace tessera {

/// checkpoints/round-00001000.safetensors
std::filesystem::path snapshot_file(const std::filesystem::path& folder, uint32_t round);
/// Whether a file is called as a snapshot is.
bool is_snapshot_name(const std::filesystem::path&);
/// Rounds of the snapshots in a folder, newest first.
std::vector<uint32_t> snapshot_rounds(const std::filesystem::path& folder);

/// A snapshot that the log vouches for: the number of its record, and the hash of its file.
struct KnownSnapshot {
  uint64_t index;
  std::string sha256;
};
std::map<uint32_t, KnownSnapshot> snapshots_in(const StepLog&);  // by round

/// Loads the newest snapshot of a folder that is whole, that the log vouches for and that is not past `last_round`.
/// None may be there.
void load_snapshot(Replica&, const StepLog&, const std::filesystem::path& folder, uint32_t last_round);

/// Snapshots vouch for rounds that were done: where they are, a log without any is not that of a new run.
/// @param snapshots  their folder; empty: this process has none
/// @param round      rounds that the log holds
/// @return what is to be told of a log that ends before the newest snapshot; mostly empty
/// @throws UserError when it has no rounds
std::string require_log(const std::filesystem::path& snapshots, const std::filesystem::path& log, uint32_t round);

/// The snapshots that a run writes, and what becomes of them and of the log before them.
class Snapshots {
 public:
  /// @param folder   "checkpoints" of the run; empty: this rank writes none
  /// @param keep     snapshots that stay
  /// @param compact  spsa.compact: what becomes of records before the oldest of them
  Snapshots(std::filesystem::path folder, int64_t keep, std::string compact)
      : folder_(std::move(folder)), keep_(keep), compact_(std::move(compact)) {}

  const std::filesystem::path& folder() const { return folder_; }
  /// The log vouches for these. Told once of all that is there, then of each new record: the log is not read again.
  void know(const StepLog& log) { known_ = snapshots_in(log); }
  void know(const Record&);
  bool knows(uint32_t round) const { return known_.count(round) > 0; }

  /// Writes the replica's state. @return the file's hash and size, for the log
  HashedFile save(Replica&, bool is_best) const;
  /// Removes all but the newest `keep` and the one of round `written`.
  /// @return the number of the oldest one's record, when there are so many;
  ///   else 0: what lies before it may be compacted
  uint64_t remove_old(uint32_t written) const;
  /// What the log holds from before record `index`: archived, or dropped where snapshots lie beside it.
  void compact(StepLog&, uint64_t index) const;

 private:
  std::filesystem::path folder_;
  int64_t keep_;
  std::string compact_;
  std::map<uint32_t, KnownSnapshot> known_;  // by round
};

}  // namespace tessera
