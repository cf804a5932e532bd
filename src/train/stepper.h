#pragma once
// The seam between the loop and how a step is taken: from data to changed weights. One implementation an estimator.

#include <memory>
#include <optional>

#include "core/json.h"
#include "train/checkpoint.h"

namespace tessera {

/// What a step did, the same on every rank.
struct StepReport {
  double loss = 0;  // mean
  float lr = 0;
  int64_t rows = 0, scored = 0;  // consumed by all; scored tokens or examples
  bool stop = false;             // a stop was asked for somewhere
  Json extra = Json::object();   // more numbers of the metrics line
  std::string note;              // more text of the progress line
};

/// A run that goes on.
struct Restored {
  CheckpointMeta meta;            // what is known of the run so far
  std::vector<Json> lines{};      // metrics of steps that were done and not yet told
  bool owes_evaluation = false;   // of the last step
  int64_t steps = 0;              // of the whole run, where that depends on its past; 0: as the recipe says
  std::string why_unevaluated{};  // why no evaluation of it is known, where that is no loss
  std::string figures_file{};     // that keeps its evaluations, where what it goes on from does not
};

class Stepper {
 public:
  virtual ~Stepper() = default;
  /// Puts the model where the run left it. @return nothing for a run that starts
  virtual std::optional<Restored> restore() = 0;
  /// Takes step 1, 2, ... @return nothing when a stop was asked for before the step was done
  virtual std::optional<StepReport> take(int64_t step) = 0;
  /// After each evaluation: keeps what checkpoints of this kind do not hold.
  virtual void keep_figures(const CheckpointMeta&) {}
  /// Leaves what a killed run goes on from.
  virtual void checkpoint(const CheckpointMeta&, bool is_best) = 0;
  /// What to do about losses that are no longer finite, as a hint: overrides that train on, or where to begin again.
  virtual std::string way_out_of_divergence() const = 0;
  /// After the last step.
  virtual void finish() {}
};

}  // namespace tessera
