#pragma once
// What gates lower beside the constraint on their cost: the cross-entropy of the rows, or how far the gated model's
// distribution is from that of the model without gates.

#include <span>
#include <vector>

#include "compress/fold_config.h"
#include "train/backprop.h"

namespace tessera {

enum class GateLoss { cross_entropy, divergence };
GateLoss gate_loss_of(const FoldConfig&);

/// Sums over the scored tokens of one or more batches, row after row.
struct GateLossSums {
  double loss = 0, scored = 0;
};

/// One pass over a batch, forward and backward, that adds the gates' gradients of the summed loss.
///   cross_entropy  Σ nll
///   divergence     Σ KL(p || p_g) of the next token's distributions: p without gates, p_g with them, both at
///                  temperature 1. The model runs a second time, forward alone and first; nothing is differentiated
///                  with respect to p. With all gates at 1 the sum and its gradients are 0 exactly.
/// @param options  with gates, and gate_grads, which are added to; no dropout
/// @param sums  of the batches in front of this one; those that are returned go on from there
/// @return `sums` of a counting pass
GateLossSums backprop_gates(const Context&, Model&, const PackedBatch&, GateLoss, const BackpropOptions& options,
                            GateLossSums sums = {});

/// The same at each of several values of the gates, by forward passes alone.
/// @param sums  one a point
void score_gates(const Context&, Model&, const PackedBatch&, GateLoss, std::span<const BlockGates> points,
                 std::span<GateLossSums> sums);

/// FLOP a token and parameter outside the embedding: of backprop_gates, and of score_gates at two points.
double backprop_flop(GateLoss, bool checkpoint_activations);
double probe_flop(GateLoss);

}  // namespace tessera
