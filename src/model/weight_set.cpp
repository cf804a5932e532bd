#include "model/weight_set.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "kernels/host_work.h"

namespace tessera {

WeightSet::WeightSet(std::vector<WeightSpec> specs, std::vector<Weight> weights, DType activations)
    : specs_(std::move(specs)), weights_(std::move(weights)), activations_(activations) {
  TS_CHECK(weights_.size() == specs_.size(), "{} weights for {} specs", weights_.size(), specs_.size());
  for (size_t i = 0; i < specs_.size(); ++i) {
    const auto& [base, gain] = weights_[i];
    const auto layer = static_cast<size_t>(std::max(specs_[i].layer, 0));
    if (layer >= of_layer_.size()) of_layer_.resize(layer + 1);
    if (specs_[i].layer >= 0) of_layer_[layer].push_back(static_cast<int>(i));
    TS_CHECK(base->shape() == specs_[i].shape, "{} is {}, expected {}", specs_[i].name, base->shape().text(),
             specs_[i].shape.text());
    if (!gain) continue;
    TS_CHECK(specs_[i].role == Role::linear, "{} is no linear and has a gain", specs_[i].name);
    TS_CHECK(gain->shape() == Shape{specs_[i].shape[0]}, "the gain of {} is {}, expected [{}]", specs_[i].name,
             gain->shape().text(), specs_[i].shape[0]);
  }
}

WeightLease WeightSet::lease(const Pass& pass, LayerRange layers) const {
  WeightLease lease;
  for (int layer = layers.begin; layer < layers.end; ++layer) {
    WeightLease of_layer = this->lease(pass, of_layer_[static_cast<size_t>(layer)]);
    std::ranges::move(of_layer, std::back_inserter(lease));
  }
  return lease;
}

WeightLease WeightSet::lease(const Pass& pass, std::span<const int> weights) const {
  WeightLease lease;
  host_work(pass.ctx, [&] {
    for (const int weight : weights) {
      lease.emplace_back(*view(weight));
      if (gain(weight)) lease.emplace_back(*gain(weight));
      for (const RowGroup& group : pass.batch.groups)
        if (group.adapter) group.adapter->lease(weight, lease);
    }
  });
  return lease;
}

ConstView WeightSet::read(const Context& ctx, const PoolRead& values, const WeightView& view) const {
  if (const ConstView direct = view.direct(values); !direct.empty()) return direct;
  const TensorView copy = ctx.scratch.allocate(view.shape(), values.pool->dtype());
  view.gather(ctx, values, copy);
  return copy;
}

}  // namespace tessera
