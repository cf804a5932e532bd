#pragma once
// One replica for all nodes whose logs are equally long: weights of the last rounds, and who had which lane when.

#include <deque>
#include <unordered_map>

#include "train/spsa/replica.h"
#include "train/spsa/simulate/event_queue.h"

namespace tessera {

/// Trained values of a node's own, laid out as others are and with their values to begin with.
struct OwnWeights {
  explicit OwnWeights(const FlatParams& start);
  Tensor memory;
  FlatParams params;
};

class SharedReplica {
 public:
  SharedReplica(const Context&, const RunHeader&, const FlatParams& start);

  /// The next record of the log.
  void apply(const Context&, const Record&);

  /// Behind so many rounds.
  struct State {
    uint32_t round = 0;
    Tensor values{};
    int unit = 0, next_unit = 0;          // of votes for that round, and for the one behind it
    std::optional<StateDigest> digest{};  // of rounds that votes tell it of
  };
  /// Null when those weights are not kept any more: those of the last stale_max + 2 rounds are.
  const State* behind(uint32_t round) const;
  /// Rounds behind so many records.
  uint32_t rounds_behind(uint64_t records) const { return rounds_[records]; }
  const Replica& replica() const { return replica_; }

  struct Stay {
    uint32_t lane, joined, left;  // rounds of the records that say so; left: the largest number while it stays
  };
  /// Null for a machine that has no lane yet.
  const Stay* stay_of(uint32_t machine) const;
  /// The lane of a machine behind so many rounds.
  std::optional<uint32_t> lane_of(uint32_t machine, uint32_t rounds) const;

  /// How long a node takes to apply rounds, by the cost model: P · votes / 5e9 seconds, of Hadamard lanes P / 2.6e9 for
  /// each group.
  SimTime time_to_apply(uint32_t from, uint32_t to) const { return sim_time(seconds_[to] - seconds_[from]); }

 private:
  void keep_state(const Context&);
  double seconds_of_round(const Record&) const;

  OwnWeights own_;
  Replica replica_;
  std::deque<State> states_;                  // oldest first
  std::vector<uint32_t> rounds_{0};           // [records + 1]
  std::vector<double> seconds_{0};            // [rounds + 1], since the beginning
  std::unordered_map<uint32_t, Stay> stays_;  // by machine
};

}  // namespace tessera
