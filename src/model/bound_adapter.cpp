#include "model/bound_adapter.h"

#include <cstring>

namespace tessera {
namespace {

/// In place where the view allows it, otherwise in a buffer of our own.
ConstView bind_values(const WeightView& view, const PoolRead& read, Tensor& values) {
  if (const ConstView direct = view.direct(read); !direct.empty()) return direct;
  values = Tensor(view.shape(), read.pool->compute());
  return values.view();
}

TensorView bind_gradient(const WeightView& view, ParameterPool& pool, bool in_place, Tensor& grads) {
  if (in_place) return view.is_trainable() ? *view.direct_grad(pool) : TensorView();
  grads = Tensor(view.shape(), pool.compute());
  return grads.view();
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
      read_{&pool},
      by_weight_(weights_.by_weight.size()),
      buffers_(weights_.by_weight.size()) {
  bind(!pool.trainable().grads.empty());
}

BoundAdapter::BoundAdapter(AdapterWeights weights, ParameterPool& pool, const PoolRead& read)
    : weights_(std::move(weights)),
      pool_(pool),
      read_(read),
      by_weight_(weights_.by_weight.size()),
      buffers_(weights_.by_weight.size()) {
  bind(false);
}

void BoundAdapter::bind(bool gradients) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    const auto& delta = weights_.by_weight[i];
    if (!delta) continue;
    Matrices& m = by_weight_[i];
    Buffers& b = buffers_[i];
    m.a = bind_values(*delta->a, read_, b.a);
    m.bt = bind_values(*delta->bt, read_, b.bt);
    if (gradients) {
      m.da = bind_gradient(*delta->a, pool_, b.a.shape().rank == 0, b.da);
      m.dbt = bind_gradient(*delta->bt, pool_, b.bt.shape().rank == 0, b.dbt);
    }
    m.scale = delta->scale;
    m.dropout = delta->dropout;
  }
}

void BoundAdapter::assemble(const Context& ctx) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    if (buffers_[i].a.shape().rank) weights_.by_weight[i]->a->gather(ctx, read_, buffers_[i].a);
    if (buffers_[i].bt.shape().rank) weights_.by_weight[i]->bt->gather(ctx, read_, buffers_[i].bt);
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
