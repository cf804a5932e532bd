#pragma once
// train/: losses, gradients, optimizers, the loop.

#include "model/model.h"
#include "train/batch_loss.h"

namespace tessera {

struct PassOptions {
  bool backward = false;
  bool dropout = false;
  bool checkpoint_activations = false;  // keep block inputs only and run each block again before its backward pass
  uint64_t seed = 0, step = 0;          // key the dropout masks
};

/// One forward (and backward) pass over a packed batch. Gradients of the summed NLL are added to the pool (through the bound
/// adapter, which the caller finishes); divide by the global token count later.
LossSums run_batch(const Context&, Model&, const PackedBatch&, const PassOptions&);

/// Bytes of the activation arena that run_batch needs for batches of this size: a dry run with a counting arena.
/// @param backend  the table whose scratch is counted
int64_t plan_activation_bytes(Model&, int64_t rows, int64_t sequence_length, int threads, const PassOptions&);

/// A batch with every token scored, in documents of that length: what plans of memory are made with.
PackedBatch widest_batch(int64_t rows, int64_t sequence_length, int64_t document);

}  // namespace tessera
