#pragma once
// How many floating-point operations a training needs for a row of its data: what its speed is compared with the
// machine's by.

#include "data/packed_dataset.h"
#include "model/model.h"

namespace tessera {

/// FLOP of the products that a pass needs for a row, on average over the data; padding needs none. Of n tokens, s of
/// them scored, that see k keys each (their own among them):
///
///   forward    n · Σ_linears (2 in·out + Σ_deltas 2 r (in + out)) + n · Σ_layers 4 k · heads · head_dim + s · 2 V·D
///   backward   the same again for gradients of activations (attention: 2.5 times the forward's, whose scores are
///              formed again), and once more for each matrix that is trained; nothing in front of the first that is
///
/// What a way of computing does beyond that does not count: blocks that are run again, weights that are formed from
/// fewer numbers, norms and activations. Nor does the optimizer's step.
struct RowWork {
  double forward = 0, backward = 0;
};
RowWork row_work(Model&, const PackedDataset&);

}  // namespace tessera
