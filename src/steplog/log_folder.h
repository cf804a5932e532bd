#pragma once
// The files of a log in its folder. StepLog says who may call what, and when.

#include <map>

#include "steplog/following.h"
#include "steplog/step_log.h"

namespace tessera {

/// Segments in the order of their records, and the chain that leads to the last of them. What a kill or a power cut
/// can leave beside the segments (following.h says what inside), and what load() makes of it:
///
///   an archive and its segment           the archive counts: it was renamed whole; the segment is removed
///   files before the start of the log    removed: dropping them was decided when start.tsc was written
class LogFolder {
 public:
  /// Reads the header. @throws UserError when there is none
  LogFolder(std::filesystem::path folder, const StepLog::Options&);

  const std::filesystem::path& path() const { return folder_; }
  const std::string& header() const { return header_; }
  const RunId& run() const { return options_.limits.run; }
  const ChainRules& chain() const { return chain_; }
  const std::vector<std::string>& notices() const { return notices_; }
  const std::optional<UserError>& damage() const { return damage_; }
  void add_notice(std::string text) { notices_.push_back(std::move(text)); }
  uint64_t first_index() const { return first_index_; }
  uint64_t size() const { return chain_.next_index(); }
  int64_t bytes() const;

  /// Reads all files anew.
  void load(Repair);
  /// Reads what others have appended meanwhile.
  void refresh(Repair);
  void for_each(uint64_t index, const std::function<bool(const Record&, std::span<const std::byte>)>& use) const;

  // What follows changes files.

  void append(std::span<const std::byte> encoded, StepLog::Sync);
  void sync();
  void new_segment();
  /// From the back, so that a kill leaves a shorter log and not one with a hole.
  void truncate(uint64_t size);
  /// Costs what the segments that it changes hold, however long the log is.
  void compact(uint64_t index, StepLog::Compaction);

  /// The rules where the log begins.
  ChainRules start() const;
  std::variant<ChainRules, Refusal> restored(std::span<const std::byte> state) const;
  void begin_at(std::span<const std::byte> state);

 private:
  uint32_t run_prefix() const { return run().prefix(); }
  std::vector<Segment> list_segments(Repair) const;
  void start_segment();
  void know_start(const Segment&);
  ChainRules rules_at(uint64_t index) const;
  bool has_room(size_t entry_bytes) const;
  void write_entry(const Segment&, const Bytes& entry, bool is_synced) const;
  void archive(Segment&);
  void drop_segments(size_t count);

  std::filesystem::path folder_;
  StepLog::Options options_;
  std::string header_;
  ChainRules chain_;
  uint64_t first_index_ = 0;
  std::vector<Segment> segments_;
  bool is_synced_ = true;                  // all that was appended
  std::map<uint64_t, ChainRules> starts_;  // a writer's: the rules where each segment of records begins
  std::vector<std::string> notices_;
  std::optional<UserError> damage_;  // where the log ends before its files do
};

}  // namespace tessera
