#include "model/norm.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/rms_norm.h"
#include "model/linear.h"

namespace tessera {
namespace {

/// Rows [T, n · width] as [T · n, width].
template <class View> View pieces(const View& rows, int64_t width) {
  return rows.cols() == width ? rows : rows.reshape({rows.shape.count() / width, width});
}

}  // namespace

void norm(const Pass& pass, const WeightSet& weights, int weight, double eps, ConstView x, TensorView y,
          TensorView inv_rms) {
  const int64_t width = weights.shape(weight)[0], each = x.cols() / width;
  weights.for_each_reading(pass, weight, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto scope = pass.ctx.scratch.scope();
    rms_norm(pass.ctx, pieces(x.slice_rows(begin, end), width), weights.read(pass.ctx, values, weight), eps,
             pieces(y.slice_rows(begin, end), width), inv_rms.slice_rows(begin * each, end * each));
  });
}

TensorView normed_rows(const Pass& pass, const WeightSet& weights, int weight, double eps, ConstView x,
                       TensorView inv_rms) {
  const TensorView y = pass.rows(x.cols(), x.dtype);
  norm(pass, weights, weight, eps, x, y, inv_rms);
  return y;
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
  const int64_t width = weights.shape(weight)[0];
  const ConstView rows = pieces(x, width);
  rms_norm_backward(pass.ctx, rows, weights.read(pass, weight), inv_rms.slice_rows(0, rows.rows()), pieces(dy, width),
                    pieces(dx, width), dweight);
}

NormSaved allocate_saved(const Pass& pass, const WeightSet& weights, const std::vector<BlockWeights>& blocks,
                         int BlockWeights::*linear, int BlockWeights::*norm) {
  int64_t each = 0;
  for (const BlockWeights& block : blocks)
    if (block.*norm != kAbsent) each = std::max(each, weights.shape(block.*linear)[0] / weights.shape(block.*norm)[0]);
  if (each == 0) return {};
  return {allocate_output(pass, weights, blocks, linear),
          pass.ctx.scratch.allocate({pass.batch.tokens() * each}, weights.activations())};
}

}  // namespace tessera
