#pragma once
// How large the inputs of each linear are over the calibration rows: the weights of distances between blocks
// (parents.h), and of the starts of children (starts.h).

#include <span>
#include <vector>

#include "compress/absorb.h"
#include "compress/parents.h"
#include "compress/stages.h"
#include "model/fold/plan_shapes.h"

namespace tessera {

/// Gates of the halves of a plan's blocks, attention's in front: 1 of what is left, 0 of what was removed.  [2 L]
std::vector<double> open_halves(const FoldPlan&);

/// Sums of squares over the tokens of one batch's documents, by channel, of every block's inputs of q, of o, of gate
/// and of down, one block behind the other. A half that is shut has zeros. Nothing of a counting pass.
/// @param open  gates of the model's halves, attention's in front
std::vector<double> input_squares(const Context&, Model&, const PackedBatch&, std::span<const double> open);

struct CalibrationMoments {
  std::vector<InputMoments> blocks;  // by original index, floored
  int64_t tokens = 0;
};
/// Of the model without what the plan removed, on the calibration rows. A pass takes one row, and rows are summed in
/// their order, so that the moments have the same bits for any number of ranks.
/// @param cut  that model, where it is not the original with kept_gates (replaced.h, absorb.h); null: it is
/// @throws Stopped on every rank when a stop was asked for between two rows
CalibrationMoments calibration_moments(const StageInputs&, const FoldPlan&, Model* cut = nullptr);
/// Bytes of the arena that a pass of it takes.
int64_t plan_moments_bytes(const StageSizes&);

/// The blocks of the original, or of a folded model of it, as planning compares them, by original index; what the plan
/// removed has no linears. The weights
/// are the model's own slots, where they lie.
/// @param moments   [L], floored
/// @param absorbed  weights that stand for the original's; null: none. They outlive the blocks
std::vector<FoldBlock> fold_blocks(Model&, const FoldPlan&, std::vector<InputMoments> moments,
                                   const AbsorbedWeights* absorbed = nullptr);

}  // namespace tessera
