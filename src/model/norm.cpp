#include "model/norm.h"

#include "core/error.h"
#include "kernels/rms_norm.h"

namespace tessera {

void norm(const Pass& pass, const WeightSet& weights, int weight, double eps, ConstView x, TensorView y,
          TensorView inv_rms) {
  weights.for_each_reading(pass, weight, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto scope = pass.ctx.scratch.scope();
    rms_norm(pass.ctx, x.slice_rows(begin, end), weights.read(pass.ctx, values, weight), eps, y.slice_rows(begin, end),
             inv_rms.slice_rows(begin, end));
  });
}

void norm_backward(const Pass& pass, const WeightSet& weights, int weight, ConstView x, ConstView inv_rms, ConstView dy,
                   TensorView dx) {
  const auto scope = pass.ctx.scratch.scope();
  TensorView dweight;
  if (weights.is_trainable(weight)) {
    const auto grad = weights.view(weight)->direct_grad(*pass.pool);
    TS_CHECK(grad, "norm weights are stored as they are");
    dweight = *grad;
  }
  rms_norm_backward(pass.ctx, x, weights.read(pass, weight), inv_rms, dy, dx, dweight);
}

}  // namespace tessera
