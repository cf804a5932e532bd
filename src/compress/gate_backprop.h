#pragma once
// Gates by backpropagation. A step is a forward and a backward pass through activations alone; no gradient of a weight
// is formed, and the optimizer's state is two numbers a gate.

#include "compress/gate_loss.h"
#include "compress/gate_trainer.h"

namespace tessera {

class BackpropGates final : public GateTrainer {
 public:
  BackpropGates(const StageInputs& in, const GateUnits& units, GateState state)
      : GateTrainer(in, units, std::move(state)) {}

  /// On fold.gate_batch rows over all ranks, by Adam.
  bool take_step() override;

 private:
  struct Sums {
    double loss = 0, scored = 0;
    bool stop = false;
    std::vector<double> grads;  // of the summed loss, one a gate
  };
  Sums sums_of_step(std::span<const double> gates);
  [[noreturn]] void refuse(const Sums&, std::span<const double> gates);
  void for_each_batch(const std::function<void(const PackedBatch&)>&) const;
  void move(size_t gate, double gradient);
};

/// Bytes of the arena that a pass of a step takes.
int64_t plan_backprop_gates(const StageSizes&);

}  // namespace tessera
