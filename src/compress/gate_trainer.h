#pragma once
// Trains the gates of a frozen model: all together on the final loss, which is how the coupling of blocks is felt.
// A step is a forward and a backward pass through activations alone; no gradient of a weight is formed, and the
// optimizer's state is two numbers a gate.

#include <functional>

#include "compress/gate_state.h"
#include "compress/gate_units.h"
#include "compress/gate_values.h"
#include "compress/stages.h"

namespace tessera {

class GateTrainer {
 public:
  /// @param state  to go on from
  GateTrainer(const StageInputs&, const GateUnits&, GateState state);

  /// One step on fold.gate_batch rows over all ranks: Adam on theta, every tenth step dual ascent on mu.
  /// @return whether a rank was asked to stop, on every rank
  /// @throws UserError, on every rank, naming step and block when the loss or a gradient is not finite;
  ///         the step is not taken
  bool take_step();

  const GateState& state() const { return state_; }
  bool is_done() const { return state_.step >= in_.fold.gate_steps; }
  const CostConstraint& constraint() const { return constraint_; }
  /// Gates as the next step reads them, or as they are at the end. Of protected blocks: 1.
  std::vector<double> gates() const;
  /// The last step in words, behind the first one of this trainer.
  std::string progress() const;

 private:
  struct Sums {
    double nll = 0, scored = 0;
    bool stop = false;
    std::vector<double> grads;  // of the summed loss, one a gate
  };
  Sums sums_of_step(std::span<const double> gates);
  [[noreturn]] void refuse(const Sums&, std::span<const double> gates);
  void for_each_batch(const std::function<void(const PackedBatch&)>&) const;
  void move(size_t gate, double gradient);
  void note_falls(std::span<const double> before);

  const StageInputs& in_;
  const GateUnits& units_;
  CostConstraint constraint_;
  GateState state_;
  double loss_ = 0, kept_ = 1;
};

/// Bytes of the arena that a pass of a step takes.
int64_t plan_gate_bytes(const StageSizes&);

}  // namespace tessera
