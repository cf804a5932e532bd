#pragma once
// train/: losses, gradients, optimizers, the loop.

#include "data/packed_dataset.h"
#include "model/model.h"

namespace tessera {

/// Sums over the scored tokens and completions of one or more batches; never means of means. A completion is a document that begins
/// with tokens that are not scored (a prompt) and has scored ones; it is exact when each of these is the arg max: greedy decoding
/// from the prompt would produce it.
struct LossSums {
  double nll = 0;
  int64_t scored = 0, correct = 0;  // tokens; correct: the arg max is the label
  int64_t completions = 0, exact = 0;
  LossSums& operator+=(const LossSums& o) {
    nll += o.nll;
    scored += o.scored;
    correct += o.correct;
    completions += o.completions;
    exact += o.exact;
    return *this;
  }
  double mean_nll() const { return share(nll, scored); }
  double token_accuracy() const { return share(static_cast<double>(correct), scored); }
  double exact_match() const { return share(static_cast<double>(exact), completions); }

 private:
  static double share(double part, int64_t whole) { return whole ? part / static_cast<double>(whole) : 0; }
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
