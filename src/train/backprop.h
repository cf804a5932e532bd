#pragma once
// train/: estimators of gradients, optimizers, the loop, and what a run keeps on disk.
// Here: the loss and the gradients of one batch by backpropagation.

#include "score/forward.h"

namespace tessera {

struct BackpropOptions {
  bool checkpoint_activations = false;  // keep block inputs only and run each block again before its backward pass
  Dropout dropout{};
  BlockGates gates{};       // of all rows
  TensorView gate_grads{};  // += , as Pass::gate_grads
};

/// One forward and backward pass over a packed batch. Gradients of the summed NLL are added to the pool (through the
/// bound adapter, which the caller finishes); divide by the global token count later.
/// @param sums  of the batches in front of this one; those that are returned go on from there
LossSums backprop_batch(const Context&, Model&, const PackedBatch&, const BackpropOptions& = {}, LossSums sums = {});

/// Bytes of the activation arena that backprop_batch needs for batches of this size.
int64_t plan_backprop_bytes(Model&, int64_t rows, int64_t sequence_length, int threads, const BackpropOptions& = {});

}  // namespace tessera
