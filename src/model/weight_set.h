#pragma once
// A network's weights at work: number -> specification and views. A weight's number is its place
// in weight_specs: it keys dropout and orders fingerprints, so it never changes.

#include <utility>
#include <vector>

#include "model/pass.h"
#include "model/weight_lease.h"

namespace tessera {

class WeightSet {
 public:
  /// @param weights  one for each spec, of its shape; only linears have gains
  WeightSet(std::vector<WeightSpec> specs, std::vector<Weight> weights, DType activations);

  const std::vector<WeightSpec>& specs() const { return specs_; }
  const ViewPtr& view(int weight) const { return weights_[static_cast<size_t>(weight)].base; }
  const ViewPtr& gain(int weight) const { return weights_[static_cast<size_t>(weight)].gain; }  // null: none
  const Shape& shape(int weight) const { return specs_[static_cast<size_t>(weight)].shape; }
  bool is_trainable(int weight) const { return view(weight)->is_trainable(); }
  /// Of hidden states, of their gradients and of what ops hand on. Weights and their gradients have the pool's dtype.
  DType activations() const { return activations_; }

  /// For a pass that reads the weights of these layers: their views, gains and the deltas of the batch's adapters. A
  /// counting pass reads nothing and gets an empty lease.
  WeightLease lease(const Pass&, LayerRange) const;
  /// The same of single weights.
  WeightLease lease(const Pass&, std::span<const int> weights) const;

  /// A view's numbers in place, or gathered into scratch in the pool's dtype.
  ConstView read(const Context&, const PoolRead&, const WeightView&) const;
  ConstView read(const Context& ctx, const PoolRead& values, int weight) const {
    return read(ctx, values, *view(weight));
  }
  ConstView read(const Pass& pass, int weight) const { return read(pass.ctx, pass.read, weight); }
  /// Calls f(read, begin, end) for runs of rows that read a view alike: all rows at once when it is frozen.
  template <class F> void for_each_reading(const Pass&, const WeightView&, F&& f) const;
  template <class F> void for_each_reading(const Pass& pass, int weight, F&& f) const {
    for_each_reading(pass, *view(weight), std::forward<F>(f));
  }

 private:
  std::vector<WeightSpec> specs_;
  std::vector<Weight> weights_;
  std::vector<std::vector<int>> of_layer_;  // numbers of the weights in each block
  DType activations_;
};

template <class F> void WeightSet::for_each_reading(const Pass& pass, const WeightView& view, F&& f) const {
  const auto& groups = pass.batch.groups;
  if (!view.is_trainable() || groups.empty()) return f(pass.read, int64_t{0}, pass.batch.tokens());
  for (size_t g = 0; g < groups.size();) {
    size_t next = g + 1;
    while (next < groups.size() && groups[next].values == groups[g].values) ++next;
    f(groups[g].values ? *groups[g].values : pass.read, groups[g].begin, groups[next - 1].end);
    g = next;
  }
}

}  // namespace tessera
