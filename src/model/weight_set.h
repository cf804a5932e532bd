#pragma once
// A network's weights at work: number -> specification and view. A weight's number is its place in weight_specs: it
// keys dropout and orders fingerprints, so it never changes.

#include <utility>
#include <vector>

#include "model/pass.h"

namespace tessera {

class WeightSet {
 public:
  /// @param views  one for each spec, of its shape
  WeightSet(std::vector<WeightSpec> specs, std::vector<ViewPtr> views, DType compute);

  const std::vector<WeightSpec>& specs() const { return specs_; }
  const ViewPtr& view(int weight) const { return views_[static_cast<size_t>(weight)]; }
  const Shape& shape(int weight) const { return specs_[static_cast<size_t>(weight)].shape; }
  bool is_trainable(int weight) const { return view(weight)->is_trainable(); }
  DType compute() const { return compute_; }

  /// A weight in place, or gathered into scratch.
  ConstView read(const Context&, const PoolRead&, int weight) const;
  ConstView read(const Pass& pass, int weight) const { return read(pass.ctx, pass.read, weight); }
  /// Calls f(read, begin, end) for runs of rows that read a weight alike: all rows at once when it is frozen.
  template <class F> void for_each_reading(const Pass&, int weight, F&& f) const;

 private:
  std::vector<WeightSpec> specs_;
  std::vector<ViewPtr> views_;
  DType compute_;
};

template <class F> void WeightSet::for_each_reading(const Pass& pass, int weight, F&& f) const {
  const auto& groups = pass.batch.groups;
  if (!is_trainable(weight) || groups.empty()) return f(pass.read, int64_t{0}, pass.batch.tokens());
  for (size_t g = 0; g < groups.size();) {
    size_t next = g + 1;
    while (next < groups.size() && groups[next].values == groups[g].values) ++next;
    f(groups[g].values ? *groups[g].values : pass.read, groups[g].begin, groups[next - 1].end);
    g = next;
  }
}

/// Sets a gradient's buffer to zero; nothing in a counting pass.
void clear(const Context&, TensorView);

}  // namespace tessera
