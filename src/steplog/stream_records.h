#pragma once
// Records as a stream of numbered messages holds them. A record's index says its place in the chain, a message's
// sequence its place in the stream; the two are kept as a pair and neither is computed from the other: other messages
// have sequences, too, and an engine that lost messages gets them back behind those that it kept.
//
//   sequence  1       2    3    6    7    8    9
//   message   header  r0   r1   r4   r5   r2   r3       4 and 5 were lost; their records were published again

#include <deque>
#include <map>

#include "steplog/record.h"

namespace tessera {

class StreamRecords {
 public:
  /// Messages in the order of their sequences. One that was seen already, by its sequence, changes nothing.
  /// A record with the next index follows; a known one must be the same; one beyond waits for those between.
  /// @throws UserError when the message is no record: it is one that every replica refuses, and halts the run
  void take(uint64_t sequence, std::span<const std::byte> message);
  /// A message that is no concern of the log has this sequence.
  void skip(uint64_t sequence);

  /// Records from `from` on, as far as they follow one another; those before are dropped. Empty also when some of them
  /// were dropped before: see first_kept().
  std::vector<Bytes> read(uint64_t from);
  uint64_t first_kept() const { return next_ - kept_.size(); }

  uint64_t next_index() const { return next_; }
  uint64_t last_sequence() const { return last_sequence_; }
  bool gap() const { return !ahead_.empty(); }
  std::optional<uint64_t> fork() const { return fork_; }
  /// Whether record `index` is there, with these bytes; nothing when it is not there.
  std::optional<bool> holds(uint64_t index, std::span<const std::byte> record) const;
  /// The message that was taken last, to know it again: its sequence and hash. Nothing before the first record.
  struct Taken {
    uint64_t sequence, hash;
  };
  const std::optional<Taken>& last_taken() const { return last_taken_; }

 private:
  void follow(Bytes record);

  uint64_t next_ = 0, last_sequence_ = 0;
  std::vector<uint64_t> hashes_;     // [next_] chain_hash of each
  std::deque<Bytes> kept_;           // the last ones of them
  std::map<uint64_t, Bytes> ahead_;  // by index, beyond a gap
  std::optional<uint64_t> fork_;
  std::optional<Taken> last_taken_;
};

}  // namespace tessera
