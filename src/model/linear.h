#pragma once
// A linear layer: the base weight with its gain, a bias and, for each group of rows, the deltas of its adapter.

#include "model/parts.h"
#include "model/weight_set.h"

namespace tessera {

/// y = x wᵀ + beta · y, of the weight alone.
void multiply(const Context&, const WeightSet&, const PoolRead&, int weight, ConstView x, double beta, TensorView y);

/// The numbers of a linear's weights.
struct LinearWeights {
  int weight, bias = kAbsent;
};

/// What the backward pass of a linear reads, beside its input.
struct LinearSaved {
  TensorView low_rank;  // [T, rank] dropout(x) Aᵀ of its deltas
  TensorView product;   // [T, out] x wᵀ, which a trained gain's gradient needs
};

/// [T, out] from the pass's scratch for what a linear of these blocks makes; empty when no block has it.
TensorView allocate_output(const Pass&, const WeightSet&, const std::vector<BlockWeights>&, int BlockWeights::*linear);
/// Room for what that linear keeps in the block that keeps the most.
LinearSaved allocate_saved(const Pass&, const WeightSet&, const std::vector<BlockWeights>&, int BlockWeights::*linear);

/// y = gain · (x wᵀ) + bias + beta · y, then for each group of rows with an adapter  y += scale · (dropout(x) Aᵀ) Bt.
/// Without a gain the product is formed on y itself; with one, beta is 0 or 1.
/// @param saved  out; what is empty is not kept
void linear(const Pass&, const WeightSet&, LinearWeights, ConstView x, double beta, TensorView y, const LinearSaved&);

/// With dP = gain · dy:  dx = beta · dx + dP w + dropoutᵀ(dU A),  dw += dPᵀ x,  dgain += Σ_rows dy · (x wᵀ),
/// dbias += Σ_rows dy,  dBt += scale Uᵀ dy,  dU = scale dy Btᵀ,  dA += dUᵀ dropout(x).
/// @param saved  as `linear` kept it
/// @param dx     empty: nobody wants it
void linear_backward(const Pass&, const WeightSet&, LinearWeights, ConstView x, const LinearSaved&, ConstView dy,
                     double beta, TensorView dx);

}  // namespace tessera
