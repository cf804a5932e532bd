#include "kernels/rms_norm.h"

#include "kernels/checks.h"

namespace tessera {

void rms_norm(const Context& ctx, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms) {
  const Arguments check(ctx, "rms_norm", x.dtype);
  const int64_t rows = x.shape[0], dim = x.shape[1];
  check.matrix("x", x, rows, dim);
  check.weight("weight", weight, {dim});
  check.matrix("y", y, rows, dim);
  if (!inv_rms.empty()) check.vector("inv_rms", inv_rms, rows);
  ctx.kernels.rms_norm(ctx, x, weight, eps, y, inv_rms);
}

void rms_norm_backward(const Context& ctx, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy,
                       TensorView dx, TensorView dweight) {
  const Arguments check(ctx, "rms_norm_backward", x.dtype);
  const int64_t rows = x.shape[0], dim = x.shape[1];
  check.matrix("x", x, rows, dim);
  check.weight("weight", weight, {dim});
  check.vector("inv_rms", inv_rms, rows);
  check.matrix("dy", dy, rows, dim);
  check.matrix("dx", dx, rows, dim);
  check.no_alias("dx", dx, "dy", dy);
  if (!dweight.empty()) check.vector("dweight", dweight, dim);
  ctx.kernels.rms_norm_backward(ctx, x, weight, inv_rms, dy, dx, dweight);
}

}  // namespace tessera
