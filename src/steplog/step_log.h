#pragma once
// The log on this machine's disk: segments of records, synced before they count.

#include <filesystem>
#include <functional>
#include <optional>

#include "core/error.h"
#include "steplog/chain_rules.h"

namespace tessera {

/// A folder of segments `NNNNNNNN.tsb` (NNNNNNNN: index of the first record, decimal): a 32-byte header (magic,
/// version, run_hash prefix, first round, first index, prev) and records, each with its u32 length in front.
/// Beside them `header.json`, the run header, whose SHA-256 is the run's id.
///   append   writes the record and syncs it before it returns
///   open     cuts off a torn last record (its length or CRC is wrong and nothing follows) and says so; a wrong CRC
///            before the tail is a UserError that names file and offset
/// One writer at a time (flock on `.lock`); readers may follow.
class StepLog {
 public:
  /// write: the only one, from opening to the end. shared: several processes append with append_if.
  /// read: follows with refresh.
  enum class Access { read, write, shared };
  struct Options {
    Access access = Access::write;
    int64_t segment_bytes = int64_t{64} << 20;
    bool sync_appends = true;     // false: records of another log, which count from sync() on
    ChainRules::Limits limits{};  // `run` is filled in from header.json; in format 2 that says all of them
    bool up_to_damage = false;    // read: a log that is damaged in its middle ends before that, and damage() tells
  };
  /// Makes the folder with this header, or opens it. @throws UserError when the folder belongs to another header
  /// (naming the first key that differs), is damaged before its tail, or is being written by another process
  static StepLog create(const std::filesystem::path& folder, const std::string& header_json, const Options&);
  static StepLog open(const std::filesystem::path& folder, const Options&);
  StepLog(StepLog&&) noexcept;
  ~StepLog();

  const std::string& header() const;  // the JSON text
  const RunId& run() const;
  const ChainRules& chain() const;
  /// What opening found and mended: "cut 17 bytes of a torn record off 00000000.tsb". For the user to read.
  const std::vector<std::string>& notices() const;
  /// Why the log ends before its files do (Options::up_to_damage): the error that opening it otherwise throws.
  const std::optional<UserError>& damage() const;
  /// Records dropped from the front by compaction: the first index that is here.
  uint64_t first_index() const;
  uint64_t size() const;  // next index
  int64_t bytes_on_disk() const;

  /// later: it counts from sync() on. For many records that are read one behind the other.
  enum class Sync { now, later };
  /// Appends the encoded record, synced (see Options::sync_appends).
  /// @throws UserError naming the rule it breaks: nothing is written then
  void append(std::span<const std::byte> record, Sync sync = Sync::now);
  /// Everything that was appended is on the disk after this.
  void sync();
  /// The next record opens a new segment: compaction goes by whole segments.
  void new_segment();
  /// With Access::shared: appends if the log, with what others appended meanwhile, has `expected` records. Mends the
  /// torn tail of a process that was killed.
  /// @return false, with nothing written, when it has more or fewer
  bool append_if(uint64_t expected, std::span<const std::byte> record);
  /// Sees what other processes have appended since.
  void refresh();
  /// What is known of the chain where this log begins; empty for a log that begins with record 0.
  std::vector<std::byte> start_state() const;
  ChainRules start() const;  // the same as rules
  /// Begins anew where another log of the run begins, given its start_state(). For a log that ends before.
  void begin_at(std::span<const std::byte> state);
  /// Calls use(record, encoded) for each record from `index` on, until it returns false.
  /// Records are checked as they are read.
  void for_each(uint64_t index, const std::function<bool(const Record&, std::span<const std::byte>)>& use) const;
  /// Drops the records after `size` (a fork lost, or a round to go back to): whole segments and the tail of one.
  void truncate(uint64_t size);
  /// Turns whole segments that end before record `index` into archives `NNNNNNNN.tsa` (256 rounds under one page head,
  /// varint fields, about 1.1 bytes a vote), from which the same records are read back bit for bit;
  /// `drop` removes them instead.
  enum class Compaction { archive, drop };
  void compact(uint64_t index, Compaction);

 private:
  struct Impl;
  explicit StepLog(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
