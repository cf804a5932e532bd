#include "kernels/swiglu.h"

#include "kernels/checks.h"

namespace tessera {

void swiglu(const Context& ctx, ConstView gate, ConstView up, TensorView y) {
  const Arguments check(ctx, "swiglu", gate.dtype);
  const int64_t rows = gate.shape[0], dim = gate.shape[1];
  check.matrix("gate", gate, rows, dim);
  check.matrix("up", up, rows, dim);
  check.matrix("y", y, rows, dim);
  ctx.kernels.swiglu(ctx, gate, up, y);
}

void swiglu_backward(const Context& ctx, ConstView gate, ConstView up, ConstView dy, TensorView dgate, TensorView dup) {
  const Arguments check(ctx, "swiglu_backward", gate.dtype);
  const int64_t rows = gate.shape[0], dim = gate.shape[1];
  check.matrix("gate", gate, rows, dim);
  check.matrix("up", up, rows, dim);
  check.matrix("dy", dy, rows, dim);
  check.matrix("dgate", dgate, rows, dim);
  check.matrix("dup", dup, rows, dim);
  check.no_alias("dgate", dgate, "dup", dup);
  ctx.kernels.swiglu_backward(ctx, gate, up, dy, dgate, dup);
}

}  // namespace tessera
