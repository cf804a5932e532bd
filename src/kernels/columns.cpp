#include "kernels/columns.h"

#include "kernels/checks.h"

namespace tessera {

void scale_columns(const Context& ctx, ConstView x, ConstView factors, TensorView y, Write write) {
  const Arguments check(ctx, "scale_columns", x.dtype);
  const int64_t rows = x.shape[0], dim = x.shape[1];
  check.matrix("x", x, rows, dim);
  check.weight("factors", factors, {dim});
  check.matrix("y", y, rows, dim);
  ctx.kernels.scale_columns(ctx, x, factors, y, write);
}

void add_bias(const Context& ctx, ConstView bias, TensorView y) {
  const Arguments check(ctx, "add_bias", y.dtype);
  check.matrix("y", y, y.shape[0], y.shape[1]);
  check.weight("bias", bias, {y.shape[1]});
  ctx.kernels.add_bias(ctx, bias, y);
}

void add_column_sums(const Context& ctx, ConstView x, ConstView y, TensorView sums) {
  const Arguments check(ctx, "add_column_sums", x.dtype);
  const int64_t rows = x.shape[0], dim = x.shape[1];
  check.matrix("x", x, rows, dim);
  if (!y.empty()) check.matrix("y", y, rows, dim);
  check.vector("sums", sums, dim);
  ctx.kernels.add_column_sums(ctx, x, y, sums);
}

}  // namespace tessera
