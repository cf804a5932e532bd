#pragma once
// train/: losses, gradients, optimizers, the loop.

#include "data/packed_dataset.h"
#include "model/model.h"

namespace tessera {

/// Sums over the scored tokens and documents of one or more batches; never means of means.
struct LossSums {
  double nll = 0;
  int64_t scored = 0, correct = 0;  // tokens; correct: the arg max is the label
  int64_t documents = 0,
          exact = 0;  // documents with scored tokens; exact: every scored token is the arg max, which is what
                      // greedy decoding of the completion would produce
  LossSums& operator+=(const LossSums& o) {
    nll += o.nll;
    scored += o.scored;
    correct += o.correct;
    documents += o.documents;
    exact += o.exact;
    return *this;
  }
  double mean_nll() const { return scored ? nll / static_cast<double>(scored) : 0; }
};

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

}  // namespace tessera
