#pragma once
// Trains the gates of a frozen model: all together on the final loss, which is how the coupling of blocks is felt.
// Here: what every way of finding the slope shares. gate_backprop.h and gate_spsa.h are the two ways.

#include <functional>
#include <memory>
#include <optional>

#include "compress/gate_state.h"
#include "compress/gate_units.h"
#include "compress/gate_values.h"
#include "compress/stages.h"

namespace tessera {

class GateTrainer {
 public:
  virtual ~GateTrainer() = default;

  /// One step: moves theta down the slope of loss and constraint; every tenth step is one of dual ascent on mu.
  /// @return whether a rank was asked to stop, on every rank
  /// @throws UserError, on every rank, naming step and block when the loss or a gradient is not finite;
  ///         the step is not taken
  virtual bool take_step() = 0;
  /// Whether each step is on disk when it has been taken: there is no state to be saved then.
  virtual bool keeps_steps() const { return false; }

  const GateState& state() const { return state_; }
  bool is_done() const { return state_.step >= in_.fold.gate_steps; }
  const CostConstraint& constraint() const { return constraint_; }
  /// Gates as the next step reads them, or as they are at the end. Of protected blocks: 1.
  std::vector<double> gates() const { return gates_at(state_.theta); }
  /// The last step in words, behind the first one of this trainer.
  std::string progress() const;

 protected:
  /// @param state  to go on from
  GateTrainer(const StageInputs&, const GateUnits&, GateState state);

  std::vector<double> gates_at(std::span<const double> theta) const;
  double eps() const;   // of the next step
  double bend() const;  // the same
  /// Behind the move of theta. @param loss  of the step, a scored token  @param before  gates that it was of
  void end_step(double loss, std::span<const double> before);

  using Passes = std::function<void(const std::function<void(const PackedBatch&)>&)>;
  /// A collective: the first block, of all passes of all ranks, that gives a number that is not finite; L: none.
  int64_t broken_block(const Passes&, std::span<const double> gates) const;
  [[noreturn]] void refuse_step(std::string what) const;
  std::string name_broken(int64_t block) const;

  const StageInputs& in_;
  const GateUnits& units_;
  CostConstraint constraint_;
  GateState state_;

 private:
  void note_falls(std::span<const double> before);

  double loss_ = 0, kept_ = 1;
};

/// Whether steps are made of probes (gate_spsa.h).
inline bool is_by_probes(const FoldConfig& fold) { return fold.gate_estimator == "spsa"; }
/// The way that the recipe names. @param state  that an earlier run left; none: all gates at 1
std::unique_ptr<GateTrainer> make_gate_trainer(const StageInputs&, const GateUnits&, std::optional<GateState> state);

}  // namespace tessera
