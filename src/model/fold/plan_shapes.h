#pragma once
// Sizes: which blocks may share, and how many numbers a fold plan stores and computes with.

#include <string>
#include <vector>

#include "model/fold/plan.h"
#include "model/weights.h"

namespace tessera {

/// The half that a part of a block belongs to; norms belong to what they stand in front of.
BlockHalf half_of(Part);

/// What a fold plan needs to know of the model that it folds.
struct ModelShapes {
  struct Tensor {
    std::string type;  // path inside the block
    Part part;
    Role role;
    Shape shape;
  };
  std::vector<std::vector<Tensor>> blocks;  // by original index, in the order of the specs
  int64_t outside = 0;                      // numbers outside blocks: embedding, final norm, head

  int64_t layers() const { return static_cast<int64_t>(blocks.size()); }
};
/// @param specs  of a whole model: weight_specs(config)
ModelShapes shapes_of(std::span<const WeightSpec> specs);

/// Numbers of a half of a block, with its norm and its biases.
int64_t half_parameters(const ModelShapes&, int64_t block, BlockHalf);
/// The two of each block, attention first: the costs of removing halves.  [2 layers]
std::vector<int64_t> half_parameters(const ModelShapes&);
/// Numbers of the model before it is folded.
int64_t model_parameters(const ModelShapes&);

/// Why two blocks cannot read one set of weights: "mlp width (5632 vs 8192)". Empty when they can.
std::string difference(const ModelShapes&, int64_t block, int64_t other);
/// @param where  names the plan or the recipe's section in the error
/// @throws UserError "fold: blocks 11 and 12 differ in mlp width (5632 vs 8192) and cannot share"
void require_equal_shapes(const FoldPlan&, const ModelShapes&, const std::string& where);

/// Numbers that a folded model stores:
///   outside blocks + linears of each group, once + norms and biases of each virtual layer + what each child adds,
/// where a tied child (level "tie") has no norms or biases: those of a group stand once. A child adds
///   scale  an output gain a linear:          sum of d_out
///   lora   the gains and a rank-q delta:     sum of d_out + q (d_in + d_out), q at most min(d_in, d_out)
///   mos    the gains and e ranks in a pool:  sum of d_out + e (d_in + d_out)
/// over its linears. Removed halves are not stored.
int64_t stored_parameters(const FoldPlan&, const ModelShapes&);

/// Numbers that a token's pass reads: as stored, but shared ones as often as they are read.
int64_t computed_parameters(const FoldPlan&, const ModelShapes&);

}  // namespace tessera
