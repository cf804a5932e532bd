#include "model/bound_adapter.h"

#include <cstring>

namespace tessera {
namespace {

/// In place where the view allows it, otherwise in a buffer of our own.
void bind_side(const WeightView& view, ParameterPool& pool, Tensor& values, Tensor& grads, ConstView& shown,
               TensorView& gradient) {
  if (const ConstView direct = view.direct({&pool}); !direct.empty()) {
    shown = direct;
    if (view.is_trainable()) gradient = *view.direct_grad(pool);
    return;
  }
  values = Tensor(view.shape(), pool.compute());
  grads = Tensor(view.shape(), pool.compute());
  shown = values.view();
  gradient = grads.view();
}

void scatter_side(const Context& ctx, const WeightView& view, ParameterPool& pool, Tensor& grads) {
  if (grads.shape().rank == 0) return;
  view.scatter_add(ctx, grads.view(), pool);
  std::memset(grads.view().mutable_data(), 0, static_cast<size_t>(grads.view().bytes()));
}

}  // namespace

BoundAdapter::BoundAdapter(AdapterWeights weights, ParameterPool& pool)
    : weights_(std::move(weights)),
      pool_(pool),
      by_weight_(weights_.by_weight.size()),
      buffers_(weights_.by_weight.size()) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    const auto& delta = weights_.by_weight[i];
    if (!delta) continue;
    Matrices& m = by_weight_[i];
    bind_side(*delta->a, pool, buffers_[i].a, buffers_[i].da, m.a, m.da);
    bind_side(*delta->bt, pool, buffers_[i].bt, buffers_[i].dbt, m.bt, m.dbt);
    m.scale = delta->scale;
    m.dropout = delta->dropout;
  }
}

void BoundAdapter::assemble(const Context& ctx, const PoolRead& read) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    if (buffers_[i].a.shape().rank) weights_.by_weight[i]->a->gather(ctx, read, buffers_[i].a);
    if (buffers_[i].bt.shape().rank) weights_.by_weight[i]->bt->gather(ctx, read, buffers_[i].bt);
  }
}

void BoundAdapter::finish_backward(const Context& ctx) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    if (!weights_.by_weight[i]) continue;
    scatter_side(ctx, *weights_.by_weight[i]->a, pool_, buffers_[i].da);
    scatter_side(ctx, *weights_.by_weight[i]->bt, pool_, buffers_[i].dbt);
  }
}

int64_t BoundAdapter::assembled_bytes() const {
  int64_t bytes = 0;
  for (const Buffers& b : buffers_)
    for (const Tensor* t : {&b.a, &b.bt, &b.da, &b.dbt})
      if (t->shape().rank) bytes += t->view().bytes();
  return bytes;
}

}  // namespace tessera
