#include "kernels/calibration.h"

#include "kernels/checks.h"

namespace tessera {

void add_cosines(const Context& ctx, ConstView x, ConstView y, IndexArray<int32_t> rows, TensorView sum) {
  const Arguments check(ctx, "add_cosines", x.dtype);
  const int64_t tokens = x.shape[0], dim = x.shape[1];
  check.matrix("x", x, tokens, dim);
  check.matrix("y", y, tokens, dim);
  check.indices("rows", rows, tokens);
  check.sums("sum", sum, 1);
  ctx.kernels.add_cosines(ctx, x, y, rows, sum);
}

void add_column_squares(const Context& ctx, ConstView x, IndexArray<int32_t> rows, TensorView sums) {
  const Arguments check(ctx, "add_column_squares", x.dtype);
  const int64_t tokens = x.shape[0], dim = x.shape[1];
  check.matrix("x", x, tokens, dim);
  check.indices("rows", rows, tokens);
  check.sums("sums", sums, dim);
  ctx.kernels.add_column_squares(ctx, x, rows, sums);
}

}  // namespace tessera
