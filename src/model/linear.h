#pragma once
// A linear layer: the base weight and, for each group of rows, the deltas of its adapter.

#include "model/weight_set.h"

namespace tessera {

/// y = x wᵀ + beta · y, of the weight alone.
void multiply(const Context&, const WeightSet&, const PoolRead&, int weight, ConstView x, double beta, TensorView y);

/// y = x wᵀ + beta · y, then for each group of rows with an adapter  y += scale · (dropout(x) Aᵀ) Bt.
/// @param low_rank  [T, rank] out: dropout(x) Aᵀ, which the backward pass reads; empty: not kept
void linear(const Pass&, const WeightSet&, int weight, ConstView x, double beta, TensorView y, TensorView low_rank);

/// dx = beta · dx + dy w + dropoutᵀ(dU A),  dw += dyᵀ x,
/// dU = scale dy Btᵀ,  dA += dUᵀ dropout(x),  dBt += scale Uᵀ dy.
/// @param low_rank  U, as `linear` kept it
/// @param dx        empty: nobody wants it
void linear_backward(const Pass&, const WeightSet&, int weight, ConstView x, ConstView low_rank, ConstView dy,
                     double beta, TensorView dx);

}  // namespace tessera
