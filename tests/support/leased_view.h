#pragma once
// A view whose bytes are there only while it is leased, each time at another place. Whoever reads it without a lease,
// or through a pointer of an earlier one, reads NaNs.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/error.h"
#include "model/weights.h"

namespace tessera::test {

/// What happened to the leased views of a model.
struct LeaseLog {
  int held = 0, most_held = 0;     // views
  std::vector<int> begun{};        // weights, in the order in which their first lease began
  int fails_at = -1;               // this weight's bytes cannot be read
  std::vector<Tensor> poisoned{};  // bytes of leases that have ended
};

class LeasedView final : public WeightView {
 public:
  /// The pool is read as it is: nothing perturbs it.
  LeasedView(ViewPtr inner, const ParameterPool& pool, LeaseLog& log, int weight)
      : inner_(std::move(inner)), pool_(pool), log_(log), weight_(weight) {}

  Shape shape() const override { return inner_->shape(); }
  bool is_trainable() const override { return inner_->is_trainable(); }
  using WeightView::gather;
  void gather(const Context& ctx, const PoolRead& read, RowRange rows, TensorView w) const override {
    EXPECT_GT(leases_, 0) << "weight " << weight_ << " is gathered without a lease";
    inner_->gather(ctx, read, rows, w);
  }
  void scatter_add(const Context& ctx, ConstView dw, ParameterPool& pool) const override {
    inner_->scatter_add(ctx, dw, pool);
  }
  ConstView direct(const PoolRead&) const override {
    if (leases_ > 0) return bytes_.view();
    log_.poisoned.push_back(poison(copy()));
    return log_.poisoned.back().view();
  }
  std::optional<TensorView> direct_grad(ParameterPool& pool) const override { return inner_->direct_grad(pool); }
  uint64_t fingerprint() const override { return inner_->fingerprint(); }

  void acquire() const override {
    if (weight_ == log_.fails_at) throw UserError("layer", "the bytes cannot be read");
    if (leases_++ > 0) return;
    bytes_ = copy();
    log_.begun.push_back(weight_);
    log_.most_held = std::max(log_.most_held, ++log_.held);
  }
  void release() const override {
    ASSERT_GT(leases_, 0);
    if (--leases_ > 0) return;
    --log_.held;
    log_.poisoned.push_back(poison(std::move(bytes_)));
  }

 private:
  Tensor copy() const {
    const ConstView values = inner_->direct({&pool_});
    Tensor copy(values.shape, values.dtype);
    std::memcpy(copy.view().mutable_data(), values.data, static_cast<size_t>(values.bytes()));
    return copy;
  }
  static Tensor poison(Tensor bytes) {
    std::memset(bytes.view().mutable_data(), 0xff, static_cast<size_t>(bytes.view().bytes()));
    return bytes;
  }
  ViewPtr inner_;
  const ParameterPool& pool_;
  LeaseLog& log_;
  int weight_;
  mutable int leases_ = 0;
  mutable Tensor bytes_;
};

/// Puts a leased view in the place of any (test::Wrap). The log outlives the views.
inline auto leased(LeaseLog& log) {
  return [&log](ViewPtr inner, const ParameterPool& pool, int weight) -> ViewPtr {
    return std::make_shared<LeasedView>(std::move(inner), pool, log, weight);
  };
}

}  // namespace tessera::test
