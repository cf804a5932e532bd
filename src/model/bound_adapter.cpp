#include "model/bound_adapter.h"

#include <cstring>

namespace tessera {
namespace {

/// In place where the view allows it, otherwise in a buffer of our own.
ConstView bind_values(const WeightView& view, const PoolRead& read, Storage& storage, TensorView& values) {
  if (const ConstView direct = view.direct(read); !direct.empty()) return direct;
  return values = storage.allocate(view.shape(), read.pool->compute());
}

TensorView bind_gradient(const WeightView& view, ParameterPool& pool, bool in_place, Storage& storage,
                         TensorView& grads) {
  if (in_place) return view.is_trainable() ? *view.direct_grad(pool) : TensorView();
  return grads = storage.allocate(view.shape(), pool.compute());
}

void scatter_side(const Context& ctx, const WeightView& view, ParameterPool& pool, const TensorView& grads) {
  if (grads.empty()) return;
  view.scatter_add(ctx, grads, pool);
  std::memset(grads.mutable_data(), 0, static_cast<size_t>(grads.bytes()));
}

}  // namespace

BoundAdapter::BoundAdapter(AdapterWeights weights, ParameterPool& pool)
    : weights_(std::move(weights)),
      pool_(pool),
      read_{&pool},
      storage_(pool.memory()),
      by_weight_(weights_.by_weight.size()),
      buffers_(weights_.by_weight.size()) {
  bind(!pool.trainable().grads.empty());
}

BoundAdapter::BoundAdapter(AdapterWeights weights, ParameterPool& pool, const PoolRead& read)
    : weights_(std::move(weights)),
      pool_(pool),
      read_(read),
      storage_(pool.memory()),
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
    m.a = bind_values(*delta->a, read_, storage_, b.a);
    m.bt = bind_values(*delta->bt, read_, storage_, b.bt);
    if (gradients) {
      m.da = bind_gradient(*delta->a, pool_, b.a.empty(), storage_, b.da);
      m.dbt = bind_gradient(*delta->bt, pool_, b.bt.empty(), storage_, b.dbt);
    }
    m.scale = delta->scale;
    m.dropout = delta->dropout;
  }
}

void BoundAdapter::assemble(const Context& ctx) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    if (!buffers_[i].a.empty()) weights_.by_weight[i]->a->gather(ctx, read_, buffers_[i].a);
    if (!buffers_[i].bt.empty()) weights_.by_weight[i]->bt->gather(ctx, read_, buffers_[i].bt);
  }
}

void BoundAdapter::finish_backward(const Context& ctx) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    if (!weights_.by_weight[i]) continue;
    scatter_side(ctx, *weights_.by_weight[i]->a, pool_, buffers_[i].da);
    scatter_side(ctx, *weights_.by_weight[i]->bt, pool_, buffers_[i].dbt);
  }
}

}  // namespace tessera
