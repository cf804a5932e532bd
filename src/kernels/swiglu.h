#pragma once
// The gated activation of the MLP and its gradient.

#include "kernels/context.h"

namespace tessera {

/// y = silu(gate) · up, silu(x) = x / (1 + exp(−x)). All [rows, dim] compute dtype, rows may be strided; y may alias
/// gate or up. Shazeer 2020, arXiv:2002.05202.
void swiglu(const Context&, ConstView gate, ConstView up, TensorView y);

/// dgate = dy · up · σ(gate)(1 + gate(1 − σ(gate))),  dup = dy · silu(gate). Assigned.
/// dgate may alias gate, dup may alias up or dy.
void swiglu_backward(const Context&, ConstView gate, ConstView up, ConstView dy, TensorView dgate, TensorView dup);

}  // namespace tessera
