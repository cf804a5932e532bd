#pragma once
// Whether the engine's log and this machine's are one: compared on every connection, and filled again by the machines
// when the engine has lost what it had. An engine is an ordered broadcast and never the only copy of a record.
//
//   one is the beginning of the other, the engine's the longer    fine: what is new is read
//   a record of one number differs                                 a fork: an error, or the engine's chain is taken
//   the engine's is the shorter                                    reseeding: who has the longest log publishes the
//                                                                  rest, and a RESEED behind it

#include <functional>
#include <map>
#include <set>
#include <string>

#include "steplog/control_message.h"
#include "steplog/log_engine.h"
#include "steplog/step_log.h"
#include "train/spsa/loose/round_clock.h"

namespace tessera {

class StreamKeeper {
 public:
  using Time = RoundClock::Clock::time_point;
  struct Inputs {
    LogEngine& engine;
    StepLog& log;
    std::string node;  // this machine's name at the engine
    std::function<int64_t(const std::string& node)>
        rank;                       // of a node among those with equally long logs, the lowest first
    std::function<Bytes()> reseed;  // the RESEED record that follows my log
    std::function<void(const std::string&)> say;
  };
  explicit StreamKeeper(Inputs in) : in_(std::move(in)) {}

  /// Looks at how the engine's log stands, and does what is due. Call it whenever wait() has returned.
  /// @param quiet  how long nobody packs behind a connection at which the engine's log was found too short; at least
  ///   3 s, for the others have to find the engine again, and the longest log may be theirs
  /// @return whether this machine may vote and pack now
  /// @throws UserError for a fork, naming the record and both hashes
  bool attend(Time now, RoundClock::Seconds quiet);

  /// A HAVE of another node. One that tells of other records than mine is told and passed over: whose chain counts
  /// shows in what the engine takes.
  void take(const HaveRecords&, const std::string& node);

  int64_t reseeds() const { return reseeds_; }  // that this machine has written

 private:
  /// Nothing, or why the engine's log is not the beginning of mine or the other way round.
  void require_one_chain(uint64_t there) const;
  uint64_t hash_behind(uint64_t records) const;  // `prev` of record number `records` in my log
  bool holds(uint64_t index) const { return index >= in_.log.first_index(); }  // it was not dropped from the front
  void tell_have(Time now);
  bool has_the_word(Time now, RoundClock::Seconds quiet);
  void fill();
  void end_reseeding(uint64_t records);

  Inputs in_;
  int64_t connections_ = 0, losses_ = 0, reseeds_ = 0;
  bool compared_ = false;
  std::optional<Time> short_since_, filled_since_, told_have_;
  struct Heard {
    HaveRecords have;
    Time at;
  };
  Time now_{};                           // of the last look
  std::map<std::string, Heard> others_;  // by node, since the engine was found too short
  std::set<std::string> doubted_;        // nodes that told of other records
};

}  // namespace tessera
