#pragma once
// RMSNorm with a weight of the network: of whole rows, or of the pieces of each row.

#include "model/parts.h"
#include "model/weight_set.h"

namespace tessera {

/// y = x · inv_rms · w for each piece of x's rows, which fall into pieces as wide as w [D]: a residual [T, D] is normed
/// row by row; of q [T, heads · head_dim] a weight [head_dim] norms each head, a weight of q's width all heads
/// together.
/// @param inv_rms  [T · pieces a row] out; may be longer
void norm(const Pass&, const WeightSet&, int weight, double eps, ConstView x, TensorView y, TensorView inv_rms);

/// norm of rows as wide as the residual. @return y, from the pass's scratch
TensorView normed_rows(const Pass&, const WeightSet&, int weight, double eps, ConstView x, TensorView inv_rms);

/// dx += the gradient of x; the weight's gradient is added where it is trained.
void norm_backward(const Pass&, const WeightSet&, int weight, ConstView x, ConstView inv_rms, ConstView dy,
                   TensorView dx);

/// What the backward pass of a norm behind a linear reads; empty where no block has one.
struct NormSaved {
  TensorView input;    // [T, out] what the linear made
  TensorView inv_rms;  // [T · pieces a row]
};
/// From the pass's scratch. @param norm  that norms what `linear` makes
NormSaved allocate_saved(const Pass&, const WeightSet&, const std::vector<BlockWeights>&, int BlockWeights::*linear,
                         int BlockWeights::*norm);

}  // namespace tessera
