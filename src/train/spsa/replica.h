#pragma once
// A replica: the trained values as a pure function of base and log. The whole determinism contract lives here.

#include <array>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/json.h"
#include "kernels/votes.h"
#include "steplog/record.h"
#include "train/optimizers/optimizer.h"
#include "train/spsa/run_header.h"
#include "train/spsa/seed_pool.h"
#include "train/spsa/vote_groups.h"

namespace tessera {

/// What a round did, for metrics.
struct RoundStats {
  int64_t votes = 0, valid = 0, clipped = 0;
  double alpha = 0, loss = 0;  // loss: mean over the machines that told theirs
  double vote_rms = 0;         // of the gradients along their directions
  int unit = 0;                // of the votes
  int64_t counted = 0;         // N
  int step_unit = 0;           // of the integers that moved the weights: halves with robust aggregates
};

/// Applies records in order. Round t turns w_t into w_{t+1}:
///   group of at most 8192 votes:  limit = clip · lower median of |v|,  A = Σ clipped v · z (int32, exact)
///   linear        w = mul · w;  w = fma(alpha of the group, A, w), group after group: SGD without momentum
///   others        w = mul · w, then the optimizer's step with the gradient Σ s A over the groups, in their order:
///                 s = 2^-(unit of the group's seed round) / N,  lr = −alpha / s of the round's own unit
/// N is the number of valid votes of the whole record, late ones included; of robust aggregates (header_terms.h), that
/// of probes with a valid vote. Late votes are of the machines, lanes and units of their own seed round.
///   pool          sums in place of an optimizer's state: seed_pool.h
/// Every operation is IEEE and every sum of many terms is of integers: all replicas hold the same bits.
class Replica {
 public:
  /// @param params  w_0 on entry; the replica changes its values
  Replica(RunHeader, FlatParams& params);

  /// One record that ChainRules accepted. A digest or snapshot record of this very round is compared with the state.
  /// @throws UserError when the state differs from what the log says
  void apply(const Context&, const Record&);
  /// The same for many; rounds without state of their own go through the weights together.
  void apply(const Context&, std::span<const Record>);

  const RunHeader& header() const { return header_; }
  uint32_t round() const { return round_; }  // rounds applied
  /// Rosters, units and votes counted, of the last rounds.
  const RecentRounds& recent() const { return recent_; }
  /// In force for votes of the next round.
  int unit() const { return recent_.unit(); }
  /// What the next record should announce: the newest unit, moved when votes have left its range for 64 rounds. While
  /// one that was announced is not in force yet, it stays.
  int proposed_unit() const;
  /// Halvings of the learning rate, one for each round in which more than half of the votes were invalid; by the first
  /// rules (core/rules.h) not when all were.
  int halvings() const { return halvings_; }
  int empty_rounds() const { return empty_rounds_; }  // in a row
  const Roster& roster() const { return recent_.roster(); }
  const RoundStats& last() const { return last_; }

  StateDigest digest(const Context&) const;  // of values and optimizer state
  int64_t state_bytes() const;               // of the optimizer

  /// The whole state as a safetensors file: the same bytes on every replica.
  void save(const std::filesystem::path&);
  /// @throws UserError naming what does not fit; nothing is changed then
  void load(const std::filesystem::path&);
  /// The state as bytes, to hand it to another replica of the same job.
  std::vector<std::byte> pack();
  void unpack(std::span<const std::byte>);

 private:
  void begin_round(const Record&);
  std::vector<Group> groups_of(const Record&);
  void update(const Context&, std::span<const Group>);
  void update_with_gradients(const Context&, const Record&, std::span<const Group>);
  void update_pool(const Context&, std::span<const Group>);
  void check_digest(const Context&, const Record&);
  void note_median(const Record&);
  void end_round(const Record&);
  std::vector<std::pair<std::string, TensorView>> vectors() const;  // the optimizer's, by their names in snapshots
  Json numbers() const;                                             // what else the state is made of
  void restore_numbers(const Json&, const std::string& chain);
  std::string chain() const;  // what late votes hang on, as hexadecimal digits; empty where none may come

  RunHeader header_;
  FlatParams& params_;
  uint32_t round_ = 0;
  std::array<uint32_t, 2> verified_{};  // rounds of the last digests that held, the newest first
  int halvings_ = 0, empty_rounds_ = 0;
  std::deque<uint8_t> medians_;  // of |byte|, of the last 64 rounds
  RecentRounds recent_;
  RoundStats last_;
  std::unique_ptr<Optimizer> optimizer_;
  // Products of as many betas as there were rounds, part of the state: they are in snapshots to the bit.
  double beta1_power_ = 1, beta2_power_ = 1;
  std::optional<SeedPool> pool_;  // pool family
};

/// Digest of the trained values alone: what a run starts from.
StateDigest values_digest(const Context&, const FlatParams&, const TensorView& values, int64_t offset = 0);

}  // namespace tessera
