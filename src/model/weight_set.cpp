#include "model/weight_set.h"

#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {

WeightSet::WeightSet(std::vector<WeightSpec> specs, std::vector<ViewPtr> views, DType compute)
    : specs_(std::move(specs)), views_(std::move(views)), compute_(compute) {
  TS_CHECK(views_.size() == specs_.size(), "{} weights for {} specs", views_.size(), specs_.size());
  for (size_t i = 0; i < specs_.size(); ++i)
    TS_CHECK(views_[i]->shape() == specs_[i].shape, "{} is {}, expected {}", specs_[i].name, views_[i]->shape().text(),
             specs_[i].shape.text());
}

ConstView WeightSet::read(const Context& ctx, const PoolRead& read, int weight) const {
  if (const ConstView direct = view(weight)->direct(read); !direct.empty()) return direct;
  const TensorView copy = ctx.scratch.allocate(shape(weight), compute_);
  view(weight)->gather(ctx, read, copy);
  return copy;
}

void clear(const Context& ctx, TensorView view) {
  if (!ctx.scratch.is_counting()) zero(view);
}

}  // namespace tessera
