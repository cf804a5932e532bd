#pragma once
// Gates that stay between 0 and 1 (fold.absorb): of halves of blocks, whose gate multiplies what the half adds to the
// residual stream, and so the output projection that makes it.

#include <map>
#include <memory>
#include <utility>

#include "compress/child_starts.h"
#include "compress/stages.h"
#include "model/fold/plan.h"

namespace tessera {

/// Gates of the halves of a plan's blocks, attention's in front: 0 of what was removed; of the others as they were
/// trained with fold.absorb, else 1. The same on every rank.  [2 L]
std::vector<double> kept_gates(const StageInputs&, const FoldPlan&);

/// Output projections and their biases with their gate, by original index: g · W in f32, rounded once to the type of W.
/// Halves whose gate is 1 or that were removed are not there.
class AbsorbedWeights {
 public:
  AbsorbedWeights() = default;
  /// @param gates  as kept_gates
  AbsorbedWeights(Model& original, const FoldPlan&, std::span<const double> gates);

  /// What stands for a block's weight; null: the original's.
  std::shared_ptr<const Tensor> of(int64_t block, Part) const;
  /// First values for groups that read the weights of such a block.
  void add_starts(const FoldPlan&, SlotStarts&) const;

 private:
  std::map<std::pair<int64_t, Part>, std::shared_ptr<const Tensor>> weights_;
  std::map<Part, std::string> types_;
};

}  // namespace tessera
