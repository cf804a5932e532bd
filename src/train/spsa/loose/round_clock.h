#pragma once
// When a machine packs: by its own monotonic clock alone. No two clocks are compared, and none has to be right; a wrong
// one makes rounds slower or votes late, never wrong.

#include <chrono>
#include <cstdint>
#include <deque>

namespace tessera {

class RoundClock {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  /// @param quorum    share of the lanes that have to have voted, above 0 to 1
  /// @param deadline  of a round, in medians of the last 16 rounds
  /// @param first     of the first round that this clock sees
  /// @param absent_limit  deadlines without a quorum, after which a record is made of what is there
  RoundClock(double quorum, double deadline, Seconds first, int64_t absent_limit)
      : quorum_(quorum), medians_(deadline), first_(first), absent_limit_(absent_limit) {}

  /// A round begins: its record is the next. Beginning it again, after a record that was no round's, changes nothing.
  void begin(uint32_t round, Clock::time_point now);
  /// Until now nobody could vote or pack, for want of an engine: of the round this does not count.
  void begin_anew(Clock::time_point now);
  /// `medians` times the lower median of the last 16 rounds, at least 0.1 s; of the first round `first`. A round that
  /// waited for somebody in vain tells nothing of machines: it lasted its deadline, which would make the next one three
  /// times as long. It counts as a median, or, when the quorum itself came behind the deadline, up to that.
  Seconds deadline() const;
  /// How much longer the machine in that place among those present waits: place tenths of the deadline, at most 1 s.
  Seconds patience(int64_t place) const;
  /// All lanes have voted, or the quorum has and the deadline is over; and those before this machine were waited for.
  /// Where no quorum has come for `absent_limit` deadlines, most machines are gone for good: a record is made all the
  /// same, or their lanes would never be freed.
  /// @param lanes  that are taken; none: the first machine of a run makes the record that it joins by
  bool may_pack(Clock::time_point now, int64_t present, int64_t lanes, int64_t place);
  Seconds waited(Clock::time_point now) const { return now - begun_; }
  /// From the round's beginning until a record is made though no quorum has come.
  Seconds longest() const { return static_cast<double>(absent_limit_) * deadline(); }

 private:
  double lasted(Clock::time_point now) const;  // seconds that the round counts as

  double quorum_, medians_;
  Seconds first_;
  int64_t absent_limit_;
  uint32_t round_ = 0;
  bool has_begun_ = false;
  Clock::time_point begun_, voted_;  // voted_: when `present_` was reached
  int64_t present_ = 0;              // of the round, as far as may_pack() was told
  bool is_full_ = false;
  std::deque<double> lasted_;  // seconds of the last rounds
};

}  // namespace tessera
