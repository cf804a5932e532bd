#include "model/bound_adapter.h"

#include "kernels/elementwise.h"

namespace tessera {
namespace {

/// A buffer of our own; empty where the view shows its matrix in place.
TensorView bind_values(const WeightView& view, const PoolRead& read, Storage& storage) {
  return view.direct(read).empty() ? storage.allocate(view.shape(), read.pool->dtype()) : TensorView();
}

ConstView values_of(const WeightView& view, const PoolRead& read, const TensorView& buffer) {
  return buffer.empty() ? view.direct(read) : ConstView(buffer);
}

void gather_side(const Context& ctx, const WeightView& view, const PoolRead& read, const TensorView& buffer) {
  if (buffer.empty()) return;
  const ViewLease lease(view);
  view.gather(ctx, read, buffer);
}

TensorView bind_gradient(const WeightView& view, ParameterPool& pool, bool in_place, Storage& storage,
                         TensorView& grads) {
  if (!view.is_trainable()) return {};
  if (in_place) return *view.direct_grad(pool);  // what is shown in place gets its gradient in place
  return grads = storage.allocate(view.shape(), pool.dtype());
}

void scatter_side(const Context& ctx, const WeightView& view, ParameterPool& pool, const TensorView& grads) {
  if (grads.empty()) return;
  view.scatter_add(ctx, grads, pool);
  fill(ctx, 0, grads);  // backward adds up: the next step begins at 0
}

}  // namespace

template <class F> void BoundAdapter::for_each(F&& f) const {
  for (size_t i = 0; i < by_weight_.size(); ++i)
    for (size_t k = 0; k < by_weight_[i].size(); ++k) f(weights_.by_weight[i][k], buffers_[i][k]);
}

BoundAdapter::BoundAdapter(AdapterWeights weights, ParameterPool& pool)
    : weights_(std::move(weights)),
      pool_(pool),
      read_{&pool},
      storage_(pool.memory(), pool.device()),
      by_weight_(weights_.by_weight.size()),
      buffers_(weights_.by_weight.size()) {
  bind(!pool.trainable().grads.empty());
}

BoundAdapter::BoundAdapter(AdapterWeights weights, ParameterPool& pool, const PoolRead& read)
    : weights_(std::move(weights)),
      pool_(pool),
      read_(read),
      storage_(pool.memory(), pool.device()),
      by_weight_(weights_.by_weight.size()),
      buffers_(weights_.by_weight.size()) {
  bind(false);
}

void BoundAdapter::bind(bool gradients) {
  for (size_t i = 0; i < by_weight_.size(); ++i) {
    for (const LowRank& delta : weights_.by_weight[i]) {
      Matrices m{.a = {}, .bt = {}, .da = {}, .dbt = {}, .scale = delta.scale, .dropout = delta.dropout};
      Buffers b;
      b.a = bind_values(*delta.a, read_, storage_);
      b.bt = bind_values(*delta.bt, read_, storage_);
      if (gradients) {
        m.da = bind_gradient(*delta.a, pool_, b.a.empty(), storage_, b.da);
        m.dbt = bind_gradient(*delta.bt, pool_, b.bt.empty(), storage_, b.dbt);
      }
      by_weight_[i].push_back(m);
      buffers_[i].push_back(b);
    }
  }
}

std::span<const BoundAdapter::Matrices> BoundAdapter::deltas(int weight) {
  const auto i = static_cast<size_t>(weight);
  for (size_t k = 0; k < by_weight_[i].size(); ++k) {
    const LowRank& delta = weights_.by_weight[i][k];
    by_weight_[i][k].a = values_of(*delta.a, read_, buffers_[i][k].a);
    by_weight_[i][k].bt = values_of(*delta.bt, read_, buffers_[i][k].bt);
  }
  return by_weight_[i];
}

void BoundAdapter::lease(int weight, WeightLease& lease) const {
  const auto i = static_cast<size_t>(weight);
  for (size_t k = 0; k < by_weight_[i].size(); ++k) {
    if (buffers_[i][k].a.empty()) lease.emplace_back(*weights_.by_weight[i][k].a);
    if (buffers_[i][k].bt.empty()) lease.emplace_back(*weights_.by_weight[i][k].bt);
  }
}

int64_t BoundAdapter::rank(int weight) const {
  int64_t rank = 0;
  for (const LowRank& delta : weights_.by_weight[static_cast<size_t>(weight)]) rank += delta.rank();
  return rank;
}

void BoundAdapter::assemble(const Context& ctx) {
  for_each([&](const LowRank& delta, const Buffers& b) {
    gather_side(ctx, *delta.a, read_, b.a);
    gather_side(ctx, *delta.bt, read_, b.bt);
  });
}

void BoundAdapter::finish_backward(const Context& ctx) {
  for_each([&](const LowRank& delta, const Buffers& b) {
    scatter_side(ctx, *delta.a, pool_, b.da);
    scatter_side(ctx, *delta.bt, pool_, b.dbt);
  });
}

}  // namespace tessera
