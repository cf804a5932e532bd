#pragma once
// Views of numbers that lie in another pool than the model's.

#include "core/error.h"
#include "model/weights.h"

namespace tessera {

/// The same weight as another view's, read from one pool whatever it is read through. It is frozen.
class OwnPoolView final : public WeightView {
 public:
  /// @param pool  outlives the view
  OwnPoolView(ViewPtr view, const ParameterPool& pool) : view_(std::move(view)), pool_(pool) {}
  Shape shape() const override { return view_->shape(); }
  bool is_trainable() const override { return false; }
  using WeightView::gather;
  void gather(const Context& ctx, const PoolRead&, RowRange rows, TensorView w) const override {
    view_->gather(ctx, {&pool_}, rows, w);
  }
  void scatter_add(const Context&, ConstView, ParameterPool&) const override {
    TS_CHECK(false, "a gradient of numbers that are not trained");
  }
  ConstView direct(const PoolRead&) const override { return view_->direct({&pool_}); }
  uint64_t fingerprint() const override { return view_->fingerprint(); }
  void acquire() const override { view_->acquire(); }
  void release() const override { view_->release(); }

 private:
  ViewPtr view_;
  const ParameterPool& pool_;
};

}  // namespace tessera
