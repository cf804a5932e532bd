#pragma once
// The MLP of a block: a norm, two linears that meet in an activation, and a third, which the block runs itself because
// it adds to the residual. Which activation is known to mlp.cpp alone.

#include "model/linear.h"
#include "model/norm.h"

namespace tessera {

/// What the MLP keeps for its backward pass. Shapes: T tokens, D hidden, I intermediate.
struct MlpSaved {
  TensorView normed, inv_rms;      // [T, D], [T]
  TensorView gate, up, activated;  // [T, I]
  LinearSaved gate_linear, up_linear, down_linear;
};

/// From the scratch of the pass. @param blocks  all that use what is allocated
MlpSaved allocate_mlp(const Pass&, const WeightSet&, const std::vector<BlockWeights>& blocks);

/// From a residual to what the MLP's last linear reads, `activated`.
/// @param eps  of the norm
void mlp_begin(const Pass&, const WeightSet&, const BlockWeights&, double eps, ConstView residual, MlpSaved&);

/// dhidden: gradient of residual + MLP(residual) on entry, of the residual on exit.
void mlp_backward(const Pass&, const WeightSet&, const BlockWeights&, ConstView residual, MlpSaved&,
                  TensorView dhidden);

}  // namespace tessera
