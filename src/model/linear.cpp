#include "model/linear.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/columns.h"
#include "kernels/dropout.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace tessera {
namespace {

/// A group of rows and a delta that they see. `column` is where its x Aᵀ begins among those of the weight's deltas.
struct Delta {
  int64_t begin, rows, column;
  const BoundAdapter::Matrices& matrices;
  bool drops;
  DropoutKey key;

  int64_t rank() const { return matrices.rank(); }
  ConstView of(ConstView view) const { return view.slice_rows(begin, begin + rows); }
  TensorView of(TensorView view) const { return view.slice_rows(begin, begin + rows); }
  template <class View> View kept(View low_rank) const { return of(low_rank).slice_cols(column, column + rank()); }
};

/// Calls f(delta) for each group of rows and each delta of its adapter that changes this weight.
template <class F> void for_each_delta(const Pass& pass, int weight, F&& f) {
  for (const RowGroup& group : pass.batch.groups) {
    const int64_t rows = group.end - group.begin;
    if (!group.adapter || rows == 0) continue;
    int64_t column = 0;
    for (const auto& matrices : group.adapter->deltas(weight)) {
      const auto scope = pass.ctx.scratch.scope();
      const bool drops = pass.training && matrices.dropout > 0;
      DropoutKey key{};
      if (drops)
        key = {pass.dropout_seed, pass.step, static_cast<uint32_t>(weight), matrices.dropout,
               pass.batch.draw_index.subspan(group.begin, rows)};
      f(Delta{group.begin, rows, column, matrices, drops, key});
      column += matrices.rank();
    }
  }
}

/// The delta's rows of x, dropped where dropout is on.
ConstView delta_input(const Context& ctx, const Delta& delta, ConstView x) {
  if (!delta.drops) return delta.of(x);
  const TensorView dropped = ctx.scratch.allocate({delta.rows, x.cols()}, x.dtype);
  dropout(ctx, delta.of(x), delta.key, dropped, Write::assign);
  return dropped;
}

void add_weight_gradient(const Pass& pass, const WeightSet& weights, int weight, ConstView x, ConstView dy) {
  const Context& ctx = pass.ctx;
  if (!weights.is_trainable(weight)) return;
  if (const auto grad = weights.view(weight)->direct_grad(*pass.pool))
    return gemm(ctx, {.a = dy, .a_transpose = Transpose::yes, .b = x, .c = *grad, .beta = 1, .sum = Sum::chain});
  const TensorView dw = ctx.scratch.allocate(weights.shape(weight), pass.pool->dtype());
  gemm(ctx, {.a = dy, .a_transpose = Transpose::yes, .b = x, .c = dw, .sum = Sum::chain});
  weights.view(weight)->scatter_add(ctx, dw, *pass.pool);
}

/// The gradient of a gain or, with an empty product, of a bias.
void add_vector_gradient(const Pass& pass, const WeightView& view, ConstView dy, ConstView product) {
  if (!view.is_trainable()) return;
  const Context& ctx = pass.ctx;
  if (const auto grad = view.direct_grad(*pass.pool)) return add_column_sums(ctx, dy, product, *grad);
  const auto scope = ctx.scratch.scope();
  const TensorView grad = ctx.scratch.allocate(view.shape(), pass.pool->dtype());
  fill(ctx, 0, grad);
  add_column_sums(ctx, dy, product, grad);
  view.scatter_add(ctx, grad, *pass.pool);
}

/// The product's gradient: dy, or gain · dy in scratch. The gain's own gradient is added.
ConstView gain_backward(const Pass& pass, const WeightSet& weights, int weight, ConstView product, ConstView dy) {
  const ViewPtr& gain = weights.gain(weight);
  if (!gain) return dy;
  add_vector_gradient(pass, *gain, dy, product);
  const TensorView dproduct = pass.ctx.scratch.allocate(dy.shape, dy.dtype);
  scale_columns(pass.ctx, dy, weights.read(pass.ctx, pass.read, *gain), dproduct, Write::assign);
  return dproduct;
}

void add_delta_gradients(const Context& ctx, const Delta& delta, ConstView x, ConstView low_rank, ConstView dy,
                         TensorView dx) {
  const BoundAdapter::Matrices& m = delta.matrices;
  if (m.da.empty() && m.dbt.empty() && dx.empty()) return;
  const ConstView rows_dy = delta.of(dy), rows_x = delta_input(ctx, delta, x);
  const TensorView du = ctx.scratch.allocate({delta.rows, delta.rank()}, dy.dtype);
  if (!m.dbt.empty()) {
    scale(ctx, m.scale, delta.kept(low_rank), du, Write::assign);
    gemm(ctx, {.a = du, .a_transpose = Transpose::yes, .b = rows_dy, .c = m.dbt, .beta = 1, .sum = Sum::chain});
  }
  gemm(ctx, {.a = rows_dy, .b = m.bt, .b_transpose = Transpose::yes, .c = du, .alpha = m.scale});
  if (!m.da.empty())
    gemm(ctx, {.a = du, .a_transpose = Transpose::yes, .b = rows_x, .c = m.da, .beta = 1, .sum = Sum::chain});
  if (dx.empty()) return;
  if (!delta.drops) return gemm(ctx, {.a = du, .b = m.a, .c = delta.of(dx), .beta = 1});
  const TensorView dropped(rows_x);  // no longer needed: its buffer takes dU A
  gemm(ctx, {.a = du, .b = m.a, .c = dropped});
  dropout(ctx, dropped, delta.key, delta.of(dx), Write::accumulate);
}

/// The widest delta of any group of rows.
int64_t delta_rank(const TokenBatch& batch, int weight) {
  int64_t rank = 0;
  for (const RowGroup& group : batch.groups)
    if (group.adapter) rank = std::max(rank, group.adapter->rank(weight));
  return rank;
}

/// y = x wᵀ + beta · y, each group's rows by their own reading.
void multiply_rows(const Pass& pass, const WeightSet& weights, int weight, ConstView x, double beta, TensorView y) {
  weights.for_each_reading(pass, weight, [&](const PoolRead& values, int64_t begin, int64_t end) {
    multiply(pass.ctx, weights, values, weight, x.slice_rows(begin, end), beta, y.slice_rows(begin, end));
  });
}

/// y = gain · (x wᵀ) + beta · y. @param kept  [T, out] for the product; empty: in scratch
void multiply_with_gain(const Pass& pass, const WeightSet& weights, int weight, ConstView x, double beta, TensorView y,
                        TensorView kept) {
  TS_CHECK(beta == 0 || beta == 1, "a product with a gain is assigned or added, not scaled by {}", beta);
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  const TensorView product = kept.empty() ? pass.rows(y.cols(), weights.activations()) : kept;
  multiply_rows(pass, weights, weight, x, 0, product);
  const WeightView& gain = *weights.gain(weight);
  weights.for_each_reading(pass, gain, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto reading = ctx.scratch.scope();
    scale_columns(ctx, product.slice_rows(begin, end), weights.read(ctx, values, gain), y.slice_rows(begin, end),
                  beta == 0 ? Write::assign : Write::accumulate);
  });
}

}  // namespace

void multiply(const Context& ctx, const WeightSet& weights, const PoolRead& read, int weight, ConstView x, double beta,
              TensorView y) {
  const auto scope = ctx.scratch.scope();
  if (weights.view(weight)->multiply(ctx, read, x, beta, y)) return;
  gemm(ctx, {.a = x, .b = weights.read(ctx, read, weight), .b_transpose = Transpose::yes, .c = y, .beta = beta});
}

TensorView allocate_output(const Pass& pass, const WeightSet& weights, const std::vector<BlockWeights>& blocks,
                           int BlockWeights::*linear) {
  for (const BlockWeights& block : blocks)
    if (block.*linear != kAbsent) return pass.rows(weights.shape(block.*linear)[0], weights.activations());
  return {};
}

LinearSaved allocate_saved(const Pass& pass, const WeightSet& weights, const std::vector<BlockWeights>& blocks,
                           int BlockWeights::*linear) {
  int64_t rank = 0;
  bool trains_gain = false;
  for (const BlockWeights& block : blocks) {
    if (block.*linear == kAbsent) continue;
    rank = std::max(rank, delta_rank(pass.batch, block.*linear));
    const ViewPtr& gain = weights.gain(block.*linear);
    trains_gain = trains_gain || (pass.pool && gain && gain->is_trainable());
  }
  LinearSaved kept;
  if (rank > 0) kept.low_rank = pass.rows(rank, weights.activations());
  if (trains_gain) kept.product = allocate_output(pass, weights, blocks, linear);
  return kept;
}

void linear(const Pass& pass, const WeightSet& weights, LinearWeights w, ConstView x, double beta, TensorView y,
            const LinearSaved& saved) {
  const Context& ctx = pass.ctx;
  if (weights.gain(w.weight))
    multiply_with_gain(pass, weights, w.weight, x, beta, y, saved.product);
  else
    multiply_rows(pass, weights, w.weight, x, beta, y);
  if (w.bias != kAbsent)
    weights.for_each_reading(pass, w.bias, [&](const PoolRead& values, int64_t begin, int64_t end) {
      const auto scope = ctx.scratch.scope();
      add_bias(ctx, weights.read(ctx, values, w.bias), y.slice_rows(begin, end));
    });
  for_each_delta(pass, w.weight, [&](const Delta& delta) {
    const BoundAdapter::Matrices& m = delta.matrices;
    const ConstView rows_x = delta_input(ctx, delta, x);
    const TensorView u = saved.low_rank.empty()
                             ? ctx.scratch.allocate({delta.rows, delta.rank()}, weights.activations())
                             : delta.kept(saved.low_rank);
    gemm(ctx, {.a = rows_x, .b = m.a, .b_transpose = Transpose::yes, .c = u});
    gemm(ctx, {.a = u, .b = m.bt, .c = delta.of(y), .alpha = m.scale, .beta = 1});
  });
}

void linear_backward(const Pass& pass, const WeightSet& weights, LinearWeights w, ConstView x, const LinearSaved& saved,
                     ConstView dy, double beta, TensorView dx) {
  const Context& ctx = pass.ctx;
  {
    const auto scope = ctx.scratch.scope();
    const ConstView dproduct = gain_backward(pass, weights, w.weight, saved.product, dy);
    if (!dx.empty()) gemm(ctx, {.a = dproduct, .b = weights.read(pass, w.weight), .c = dx, .beta = beta});
    add_weight_gradient(pass, weights, w.weight, x, dproduct);
    if (w.bias != kAbsent) add_vector_gradient(pass, *weights.view(w.bias), dy, {});
  }
  for_each_delta(pass, w.weight,
                 [&](const Delta& delta) { add_delta_gradients(ctx, delta, x, saved.low_rank, dy, dx); });
}

}  // namespace tessera
