#include "model/head.h"

#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "model/head_parts.h"
#include "model/linear.h"

namespace tessera {
namespace {

/// Of rows that read the weights alike.
void score_alike(const Pass& pass, const HeadPart& part, const PoolRead& values, ConstView hidden,
                 const HeadArgs& head) {
  const auto scope = pass.ctx.scratch.scope();
  const bool backward = !head.dhidden.empty();
  const NormedRows n = norm_rows(pass.ctx, part, values, hidden, head.rows);
  const HeadWeight weight = head_weight(pass.ctx, part, values, backward ? Tiles::none : Tiles::allowed);
  CrossEntropyArgs args{.hidden = n.normed,
                        .weight = weight.stored,
                        .labels = head.labels,
                        .nll = head.nll,
                        .best = head.best,
                        .dhidden = {},
                        .dweight = {},
                        .weight_rows = weight.made,
                        .vocab = weight.vocab,
                        .tile = weight.tile};
  if (!backward) return cross_entropy(pass.ctx, args);
  backward_of_rows(pass, part, n, head.rows, head.dhidden, [&](TensorView dnormed, TensorView dweight) {
    args.dhidden = dnormed;
    args.dweight = dweight;
    cross_entropy(pass.ctx, args);
  });
}

}  // namespace

void score_rows(const Pass& pass, const HeadPart& part, ConstView hidden, const HeadArgs& head) {
  for_rows_alike(pass, part, head.rows, [&](const PoolRead& values, int64_t first, int64_t count) {
    score_alike(pass, part, values, hidden, slice_rows(head, first, count));
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
