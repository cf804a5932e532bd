#pragma once
// Reading on in the files of a log: what is behind the known end of a segment goes into the chain, and what a kill
// left there is mended.

#include "steplog/segment.h"

namespace tessera {

/// Whether the files may be changed: by a process that holds the log's lock.
enum class Repair { no, yes };

/// What a kill or a power cut can leave in a segment, and what becomes of it:
///
///   a segment shorter than its head      a new head is written
///   a record not written to its end      cut off: its append never returned
///
/// Only at the end of the last segment; anything else that is wrong is damage, and an error.
class SegmentFollower {
 public:
  /// Whether a torn end that stays is worth a notice: it is when a log is opened, and not while another process
  /// appends.
  enum class Unfinished { ignored, told };
  /// @param chain    of the records before; goes on with each that is read
  /// @param notices  what was found and mended is added
  SegmentFollower(ChainRules& chain, uint32_t run, Repair repair, Unfinished unfinished,
                  std::vector<std::string>& notices)
      : chain_(chain), run_(run), repair_(repair), unfinished_(unfinished), notices_(notices) {}

  /// @throws UserError naming file and offset of what is damaged
  void follow(Segment&, bool is_last);

 private:
  void follow_archive(Segment&);
  bool follow_head(Segment&, const FileDescriptor&, int64_t size, bool is_last);
  std::optional<Refusal> follow_records(Segment&, const FileDescriptor&, int64_t size);
  void accept(const Record&, std::span<const std::byte> encoded, const Segment&);
  void mend_tail(const Segment&, std::span<const std::byte> rest);

  ChainRules& chain_;
  uint32_t run_;
  Repair repair_;
  Unfinished unfinished_;
  std::vector<std::string>& notices_;
};

}  // namespace tessera
