#pragma once
// A weight that is read from a pool by RandomFold: how Stable-RPS's matrices meet the model.

#include <memory>

#include "kernels/fold.h"
#include "model/weights.h"

namespace tessera {

/// A matrix whose weights are read from the cells of one slot: w = factor · sign · cell, as FoldedMatrix says. Where
/// each weight has a cell of its own, the sign is + and the factor 1 (an uncompressed pool), it is read in place.
class FoldView final : public WeightView {
 public:
  /// @param factors  of all cells, shared by the matrices of one scale
  FoldView(const ParameterPool&, SlotId cells, FoldedMatrix, std::shared_ptr<const std::vector<FoldFactor>> factors);
  Shape shape() const override { return {matrix_.layout.rows, matrix_.layout.cols}; }
  bool is_trainable() const override { return trainable_; }
  using WeightView::gather;
  void gather(const Context&, const PoolRead&, RowRange, TensorView w) const override;
  void scatter_add(const Context&, ConstView dw, ParameterPool&) const override;
  bool multiply(const Context&, const PoolRead&, ConstView x, double beta, TensorView y) const override;
  ConstView direct(const PoolRead&) const override;
  std::optional<TensorView> direct_grad(ParameterPool&) const override;
  uint64_t fingerprint() const override;

 private:
  SlotId cells_;
  FoldedMatrix matrix_;
  std::shared_ptr<const std::vector<FoldFactor>> factors_;
  bool trainable_, in_place_;
};

}  // namespace tessera
