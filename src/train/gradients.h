#pragma once
// The gradients of a pool between the backward pass and the optimizer: their sum over the ranks and their norm.

#include "comm/communicator.h"
#include "kernels/context.h"
#include "model/parameter_pool.h"

namespace tessera {

/// Gradients of all slots <- their sum over the ranks, in rank order. The gaps between slots are not sent: the slots
/// move together for it, and back, so that no copy is needed. The sum of one rank is its own.
void all_reduce_grads(Communicator&, FlatParams&);

/// Σ grad², summed part by part (FlatParams::parts) in order, in f64.
double squared_norm(const Context&, const FlatParams&);

}  // namespace tessera
