#pragma once
// The MLP of a block: a norm, two linears that meet in an activation, and a third, which the block runs itself because
// it adds to the residual. Which activation is known to mlp.cpp alone.

#include "model/linear.h"
#include "model/norm.h"

namespace tessera {

/// What the MLP keeps for its backward pass: what took products to make. Norm and activation are made again from it.
/// Shapes: T tokens, D hidden, I intermediate.
struct MlpSaved {
  TensorView inv_rms;   // [T]
  TensorView gate, up;  // [T, I]
  LinearSaved gate_linear, up_linear, down_linear;
};

/// From the scratch of the pass. @param blocks  all that use what is allocated
MlpSaved allocate_mlp(const Pass&, const WeightSet&, const std::vector<BlockWeights>& blocks);

/// From a residual to what the MLP's last linear reads. @return that, [T, I], from the scratch of the pass
/// @param eps  of the norm
TensorView mlp_begin(const Pass&, const WeightSet&, const BlockWeights&, double eps, ConstView residual, MlpSaved&);

/// What mlp_begin returned, once more: from what is kept.
TensorView mlp_activated(const Pass&, const MlpSaved&);

/// dhidden: gradient of residual + MLP(residual) on entry, of the residual on exit. What is kept is spent.
void mlp_backward(const Pass&, const WeightSet&, const BlockWeights&, double eps, ConstView residual, MlpSaved&,
                  TensorView dhidden);

}  // namespace tessera
