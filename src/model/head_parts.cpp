#include "model/head_parts.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "model/norm.h"

namespace tessera {
namespace {

/// Rows of a head weight [vocab, dim] that are made at once: 4 MB.
int64_t tile_rows(const Shape& weight) {
  return std::clamp<int64_t>((int64_t{4} << 20) / (weight[1] * 4) / 64 * 64, std::min<int64_t>(64, weight[0]),
                             weight[0]);
}

}  // namespace

NormedRows norm_rows(const Context& ctx, const HeadPart& part, const PoolRead& values, ConstView hidden,
                     IndexArray<int32_t> rows) {
  const auto count = static_cast<int64_t>(rows.size());
  const DType dtype = part.weights.activations();
  const Shape wide{count, hidden.cols()};
  NormedRows n{ctx.scratch.allocate(wide, dtype), ctx.scratch.allocate(wide, dtype),
               ctx.scratch.allocate({count}, dtype)};
  embedding(ctx, hidden, rows, n.picked);  // a row gather
  rms_norm(ctx, n.picked, part.weights.read(ctx, values, part.parts.final_norm), part.eps, n.normed, n.inv_rms);
  return n;
}

HeadWeight head_weight(const Context& ctx, const HeadPart& part, const PoolRead& values, Tiles tiles) {
  const int head = part.parts.head;
  const Shape& shape = part.weights.shape(head);
  HeadWeight weight{.stored = part.weights.view(head)->direct(values)};
  if (!weight.stored.empty()) return weight;
  if (tiles == Tiles::none) {
    weight.stored = part.weights.read(ctx, values, head);
    return weight;
  }
  weight.vocab = shape[0];
  weight.tile = tile_rows(shape);
  weight.made = [&ctx, &weights = part.weights, head, values](int64_t begin, int64_t end) -> ConstView {
    const TensorView tile = ctx.scratch.allocate({end - begin, weights.shape(head)[1]}, values.pool->dtype());
    weights.view(head)->gather(ctx, values, {begin, end}, tile);
    return tile;
  };
  return weight;
}

void backward_of_rows(const Pass& pass, const HeadPart& part, const NormedRows& n, IndexArray<int32_t> rows,
                      TensorView dhidden, const std::function<void(TensorView dnormed, TensorView dweight)>& form) {
  const Context& ctx = pass.ctx;
  const DType dtype = part.weights.activations();
  const TensorView dnormed = ctx.scratch.allocate(n.normed.shape, dtype);
  const WeightView& view = *part.weights.view(part.parts.head);
  const auto grad = view.is_trainable() ? view.direct_grad(*pass.pool) : std::nullopt;
  TensorView dweight;
  if (grad)
    dweight = *grad;
  else if (view.is_trainable()) {
    dweight = ctx.scratch.allocate(view.shape(), pass.pool->dtype());
    fill(ctx, 0, dweight);
  }
  form(dnormed, dweight);
  if (!dweight.empty() && !grad) view.scatter_add(ctx, dweight, *pass.pool);
  const TensorView dpicked = ctx.scratch.allocate(n.picked.shape, dtype);
  fill(ctx, 0, dpicked);
  norm_backward(pass, part.weights, part.parts.final_norm, n.picked, n.inv_rms, dnormed, dpicked);
  embedding_backward(ctx, rows, dpicked, dhidden);  // a row scatter
}

void for_rows_alike(const Pass& pass, const HeadPart& part, IndexArray<int32_t> scored,
                    const std::function<void(const PoolRead&, int64_t first, int64_t count)>& f) {
  const int norm = part.parts.final_norm;
  const int leading = part.weights.is_trainable(norm) ? norm : part.parts.head;
  part.weights.for_each_reading(pass, leading, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto rows = scored.host();
    const auto first = std::lower_bound(rows.begin(), rows.end(), begin) - rows.begin();
    const auto count = std::lower_bound(rows.begin(), rows.end(), end) - rows.begin() - first;
    if (count > 0) f(values, first, count);
  });
}

HeadArgs slice_rows(const HeadArgs& head, int64_t first, int64_t count) {
  HeadArgs part = head;
  part.rows = head.rows.subspan(first, count);
  part.labels = head.labels.subspan(first, count);
  part.nll = head.nll.slice_rows(first, first + count);
  if (!head.best.empty()) part.best = head.best.slice_rows(first, first + count);
  return part;
}

}  // namespace tessera
