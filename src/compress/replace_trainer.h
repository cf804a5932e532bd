#pragma once
// Trains one block in place of a run of blocks. A phase has one objective and `fold.replace_steps` steps; "both" has
// two phases. Each phase is measured on the calibration rows at its beginning, ten times on its way and at its end, and
// the block with the lowest loss of these is what the phase ends with.

#include <memory>

#include "compress/replace_passes.h"
#include "compress/replace_state.h"
#include "train/optimizers/optimizer.h"

namespace tessera {

/// mse: the mean over tokens and channels of (B(x_s) - x_{s+m})². end: the cross-entropy of the model with the block.
enum class ReplaceObjective { mse, end };
std::string_view name_of(ReplaceObjective);
/// The phases of fold.replace.
std::vector<ReplaceObjective> replace_phases(const FoldConfig&);
/// Steps between two measurements of a phase.
int64_t replace_interval(const FoldConfig&);

class BlockTrainer {
 public:
  /// @param student  replaced_model, trained; it is changed
  BlockTrainer(const StageInputs&, const ReplacedRun&, Model& student, PairSource pairs);

  /// Measures, takes a step, or begins the next phase: whatever comes next.
  /// @return whether a rank was asked to stop, on every rank; asked only in a step
  /// @throws UserError, on every rank, when the loss or a gradient is not finite; the step is not taken
  /// @throws Stopped on every rank when a stop was asked for while it measured
  bool advance();
  /// Behind the last phase: the student then holds the block that is kept.
  bool is_done() const;
  /// Whether the last thing done was a step.
  bool has_stepped() const { return has_stepped_; }

  const ReplaceState& state() const { return state_; }
  /// The last measurement in words.
  std::string progress() const;

  /// All that changes while it trains, beside the state: B's values, the best ones, the optimizer's.
  NamedTensors tensors();
  /// Goes on from there, once `tensors` are filled behind this call.
  void go_on(ReplaceState state);
  /// Of the phase.
  ReplaceObjective objective() const { return phases_[static_cast<size_t>(state_.phase)]; }

 private:
  int64_t steps() const { return in_.fold.replace_steps; }
  bool owes_measurement() const;
  void measure();
  double validation_loss();
  void begin_phase(int64_t phase);
  void renew_optimizer();
  bool take_step();
  [[noreturn]] void refuse(const std::string& what) const;

  const StageInputs& in_;
  ReplacedRun run_;
  Model& student_;
  PairSource pairs_;
  std::vector<ReplaceObjective> phases_;
  FlatParams& params_;
  OptimizerConfig config_;
  std::unique_ptr<Optimizer> optimizer_;
  Tensor best_;  // [count] as the flat values
  ReplaceState state_;
  bool has_stepped_ = false;
};

/// Errors of the block as it is on the calibration rows, the same bits for any number of ranks.
/// @throws Stopped on every rank when a stop was asked for between two rows
BlockError calibration_error(const StageInputs&, const ReplacedRun&, Model& student, const PairSource&);

}  // namespace tessera
