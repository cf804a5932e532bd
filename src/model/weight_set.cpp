#include "model/weight_set.h"

#include "core/error.h"

namespace tessera {

WeightSet::WeightSet(std::vector<WeightSpec> specs, std::vector<Weight> weights, DType activations)
    : specs_(std::move(specs)), weights_(std::move(weights)), activations_(activations) {
  TS_CHECK(weights_.size() == specs_.size(), "{} weights for {} specs", weights_.size(), specs_.size());
  for (size_t i = 0; i < specs_.size(); ++i) {
    const auto& [base, gain] = weights_[i];
    TS_CHECK(base->shape() == specs_[i].shape, "{} is {}, expected {}", specs_[i].name, base->shape().text(),
             specs_[i].shape.text());
    if (!gain) continue;
    TS_CHECK(specs_[i].role == Role::linear, "{} is no linear and has a gain", specs_[i].name);
    TS_CHECK(gain->shape() == Shape{specs_[i].shape[0]}, "the gain of {} is {}, expected [{}]", specs_[i].name,
             gain->shape().text(), specs_[i].shape[0]);
  }
}

ConstView WeightSet::read(const Context& ctx, const PoolRead& values, const WeightView& view) const {
  if (const ConstView direct = view.direct(values); !direct.empty()) return direct;
  const TensorView copy = ctx.scratch.allocate(view.shape(), values.pool->dtype());
  view.gather(ctx, values, copy);
  return copy;
}

}  // namespace tessera
