// A branch is a run folder of its own: log/ with the parent's records up to a round, encoded anew under its header; the
// snapshot of that round; figures and metrics up to there. It is made under a temporary name and renamed when it is
// whole.

#include "train/spsa/branch.h"

#include "core/error.h"
#include "io/files.h"
#include "io/sha256.h"
#include "train/run_folder.h"
#include "train/spsa/figures.h"
#include "train/spsa/snapshots.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// A log that takes records of another one. Each is encoded anew: run, index and prev are the branch's, what moves the
/// weights is as it was. Synced once at the end, since a branch that was not finished is not there.
class Grafted {
 public:
  Grafted(const fs::path& folder, const std::string& header)
      : log_(StepLog::create(folder, header, {.sync_appends = false})) {}

  void append(Record record) {
    record.run = log_.run().prefix();
    // Numbered and chained anew: the new run's id stands in the first record, and so every hash behind it differs.
    record.index = tip_.index;
    record.prev = tip_.prev;
    const Bytes encoded = encode(record);
    log_.append(encoded);
    tip_.advance(encoded);
  }
  void sync() { log_.sync(); }

 private:
  StepLog log_;
  ChainTip tip_;
};

/// The end of the parent's run is not the branch's.
bool is_of_a_replica(RecordType type) {
  return type == RecordType::round || type == RecordType::digest || type == RecordType::snapshot;
}

/// @return whether a snapshot of that very round was among the records
bool copy_records(const StepLog& from, uint32_t rounds, Grafted& to) {
  bool has_snapshot = false;
  from.for_each(0, [&](const Record& record, std::span<const std::byte>) {
    // Records that tell of the state after `rounds` rounds stand before the next round's, and still belong to the
    // branch.
    if (record.type == RecordType::round && record.round >= rounds) return false;
    if (!is_of_a_replica(record.type)) return true;
    has_snapshot = has_snapshot || (record.type == RecordType::snapshot && record.round == rounds);
    to.append(record);
    return true;
  });
  return has_snapshot;
}

Record snapshot_record(const Context& ctx, const Replica& replica, const fs::path& file) {
  Record record = record_head(replica, {}, {}, RecordType::snapshot);
  const StateDigest digest = replica.digest(ctx);
  record.digest = {digest.sum, digest.check};
  const HashedFile hashed = hash_file(file);
  record.sha256 = hashed.sha256;
  record.file_bytes = hashed.bytes;
  return record;
}

void fill(const fs::path& folder, const Context& ctx, const StepLog& from, const fs::path& run, Replica& at) {
  RunHeader header = at.header();
  header.parent = fmt::format("{} round {}", sha256_hex(from.header()), at.round());
  create_folder(folder / "checkpoints");
  Grafted log(folder / "log", header.text());
  const bool has_snapshot = copy_records(from, at.round(), log);
  const fs::path snapshot = snapshot_file(folder / "checkpoints", at.round());
  at.save(snapshot);
  write_text_file(folder / "checkpoints" / "latest", snapshot.filename().string() + "\n");
  // A run that goes on believes only snapshots that its log knows.
  if (!has_snapshot) log.append(snapshot_record(ctx, at, snapshot));
  log.sync();
  if (const auto figures = read_figures(run, at.round())) keep_figures(folder, *figures);
  if (!fs::exists(run / "metrics.jsonl")) return;
  fs::copy_file(run / "metrics.jsonl", folder / "metrics.jsonl");
  MetricsFile(folder / "metrics.jsonl").rewind(at.round());
}

}  // namespace

void require_free_for_branch(const fs::path& folder, const StepLog& from) {
  if (fs::exists(folder))
    throw UserError(folder.string(), "is there already, and a branch is a new run",
                    "name another folder, or remove this one");
  // A branch's records are chained from the first on: without those it could have no chain of its own.
  if (from.first_index() > 0)
    throw UserError(folder.string(), "the log's first rounds were dropped, and a branch keeps all of its own",
                    "take the log of another machine; spsa.compact = \"archive\" keeps them in fewer bytes");
}

void write_branch(const Context& ctx, const fs::path& folder, const StepLog& from, const fs::path& run, Replica& at) {
  require_free_for_branch(folder, from);
  const fs::path target = fs::absolute(folder).lexically_normal();
  // A path that ends in a slash has no last part to put a temporary name beside.
  const fs::path whole = target.has_filename() ? target : target.parent_path();
  create_folder(whole.parent_path());
  // Under a temporary name until all of it is on the disk: then one rename makes the branch.
  const fs::path making = temporary_beside(whole);
  try {
    fill(making, ctx, from, run, at);
  } catch (...) {
    fs::remove_all(making);
    throw;
  }
  fs::rename(making, whole);
  sync_folder(whole.parent_path());
}

std::string branch_command(const SpsaConfig& config) {
  const std::string command = "job=replay replay.branch=FOLDER, then train with run.dir=FOLDER";
  return transport_named(config.transport).processes != Transport::Processes::ranks_of_a_job
             ? command + " spsa.transport=mpi, as one process or as the ranks of one job"
             : command;
}

}  // namespace tessera
