#include "model/head.h"

#include <algorithm>

#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "model/linear.h"
#include "model/norm.h"

namespace tessera {
namespace {

/// Rows of a head weight [vocab, dim] that are made at once: 4 MB.
int64_t tile_rows(const Shape& weight) {
  return std::clamp<int64_t>((int64_t{4} << 20) / (weight[1] * 4) / 64 * 64, std::min<int64_t>(64, weight[0]),
                             weight[0]);
}

/// The scored rows, gathered and normed.
struct Normed {
  TensorView picked, normed, inv_rms;
};

Normed norm_of_rows(const Pass& pass, const HeadPart& part, const PoolRead& values, ConstView hidden,
                    IndexArray<int32_t> scored) {
  const Context& ctx = pass.ctx;
  const auto rows = static_cast<int64_t>(scored.size());
  const DType dtype = part.weights.activations();
  const Shape wide{rows, hidden.cols()};
  Normed n{ctx.scratch.allocate(wide, dtype), ctx.scratch.allocate(wide, dtype), ctx.scratch.allocate({rows}, dtype)};
  embedding(ctx, hidden, scored, n.picked);  // a row gather
  rms_norm(ctx, n.picked, part.weights.read(ctx, values, part.parts.final_norm), part.eps, n.normed, n.inv_rms);
  return n;
}

/// The head's weight: where it lies, or made tile by tile, or, when gradients are wanted, made whole.
void give_weight(const Context& ctx, const HeadPart& part, const PoolRead& values, bool backward,
                 CrossEntropyArgs& args) {
  const int head = part.parts.head;
  const Shape& shape = part.weights.shape(head);
  args.weight = part.weights.view(head)->direct(values);
  if (!args.weight.empty()) return;
  if (backward) {
    args.weight = part.weights.read(ctx, values, head);
    return;
  }
  args.vocab = shape[0];
  args.chunk = std::min(cross_entropy_chunk(args.hidden.rows(), args.vocab), tile_rows(shape));
  args.weight_rows = [&ctx, &part, values](int64_t begin, int64_t end) -> ConstView {
    const int weight = part.parts.head;
    const TensorView tile = ctx.scratch.allocate({end - begin, part.weights.shape(weight)[1]}, values.pool->dtype());
    part.weights.view(weight)->gather(ctx, values, {begin, end}, tile);
    return tile;
  };
}

/// Cross-entropy with gradients: of the head's weight, the final norm, and dhidden.
void score_backward(const Pass& pass, const HeadPart& part, const Normed& n, const HeadArgs& head,
                    CrossEntropyArgs& args) {
  const Context& ctx = pass.ctx;
  const DType dtype = part.weights.activations();
  args.dhidden = ctx.scratch.allocate(n.normed.shape, dtype);
  const WeightView& view = *part.weights.view(part.parts.head);
  const auto grad = view.is_trainable() ? view.direct_grad(*pass.pool) : std::nullopt;
  if (grad)
    args.dweight = *grad;
  else if (view.is_trainable()) {
    args.dweight = ctx.scratch.allocate(view.shape(), pass.pool->dtype());
    fill(ctx, 0, args.dweight);
  }
  cross_entropy(ctx, args);
  if (!args.dweight.empty() && !grad) view.scatter_add(ctx, args.dweight, *pass.pool);
  const TensorView dpicked = ctx.scratch.allocate(n.picked.shape, dtype);
  fill(ctx, 0, dpicked);
  norm_backward(pass, part.weights, part.parts.final_norm, n.picked, n.inv_rms, args.dhidden, dpicked);
  embedding_backward(ctx, head.rows, dpicked, head.dhidden);  // a row scatter
}

/// Of rows that read the weights alike.
void score_alike(const Pass& pass, const HeadPart& part, const PoolRead& values, ConstView hidden,
                 const HeadArgs& head) {
  if (head.rows.empty()) return;
  const auto scope = pass.ctx.scratch.scope();
  const bool backward = !head.dhidden.empty();
  const Normed n = norm_of_rows(pass, part, values, hidden, head.rows);
  CrossEntropyArgs args{.hidden = n.normed,
                        .weight = {},
                        .labels = head.labels,
                        .nll = head.nll,
                        .best = head.best,
                        .dhidden = {},
                        .dweight = {}};
  give_weight(pass.ctx, part, values, backward, args);
  if (!backward) return cross_entropy(pass.ctx, args);
  score_backward(pass, part, n, head, args);
}

}  // namespace

void score_rows(const Pass& pass, const HeadPart& part, ConstView hidden, const HeadArgs& head) {
  const int norm = part.parts.final_norm;
  const int leading = part.weights.is_trainable(norm) ? norm : part.parts.head;
  part.weights.for_each_reading(pass, leading, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto rows = head.rows.host();
    const auto first = std::lower_bound(rows.begin(), rows.end(), begin) - rows.begin();
    const auto count = std::lower_bound(rows.begin(), rows.end(), end) - rows.begin() - first;
    HeadArgs alike = head;
    alike.rows = head.rows.subspan(first, count);
    alike.labels = head.labels.subspan(first, count);
    alike.nll = head.nll.slice_rows(first, first + count);
    if (!head.best.empty()) alike.best = head.best.slice_rows(first, first + count);
    score_alike(pass, part, values, hidden, alike);
  });
}

void logits_of_rows(const Pass& pass, const HeadPart& part, ConstView hidden, IndexArray<int32_t> rows,
                    TensorView logits) {
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  const TensorView picked =
      ctx.scratch.allocate({static_cast<int64_t>(rows.size()), hidden.cols()}, part.weights.activations());
  embedding(ctx, hidden, rows, picked);
  rms_norm(ctx, picked, part.weights.read(pass, part.parts.final_norm), part.eps, picked, {});
  multiply(ctx, part.weights, pass.read, part.parts.head, picked, 0, logits);
}

}  // namespace tessera
