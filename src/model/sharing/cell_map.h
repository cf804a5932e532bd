#pragma once
// Other ways to find a weight's cell, for comparison with RandomFold only: plain loops,
// and one number a cell in memory.

#include <memory>
#include <vector>

#include "model/sharing/rps_plan.h"
#include "model/weights.h"

namespace tessera {

/// hashed: a hash a weight (Chen et al. 2015, HashedNets): e^(-N/m) of the cells are read by nobody.
/// roast_tile: a hash a tile (Desai et al. 2023, ROAST), which starts at ((a·row + b·col + c) mod 45007) mod
/// (m − tile): cells beyond 45,006 + tile are read by nobody, and tiles overlap.
enum class CellMapper { hashed, roast_tile };

class CellMap {
 public:
  /// `plan` has the tensors' places and scales, the number of cells and the signs' key; its runs do not hold here.
  /// @param isometric  weights have a factor 1/sqrt(D) of their cell beside sign and scale
  /// @param memory     counted: the cells are not looked at, and nothing can be read through the map
  CellMap(const RpsPlan& plan, CellMapper, uint64_t seed, bool isometric, Memory memory = Memory::held);

  int64_t cell(const FoldedTensor&, int64_t row, int64_t col) const;
  /// w = rows of the tensor, read from the pool; dpool += the adjoint of the whole, one reader after the other.
  void expand(const Context&, const FoldedTensor&, RowRange rows, ConstView pool, TensorView w) const;
  void contract(const FoldedTensor&, ConstView dw, TensorView dpool) const;
  const RpsPlan& plan() const { return plan_; }
  /// Readers, D and Σ|λ| of every cell; `end` is the cell's number plus one. Empty when only counted.
  const std::vector<CellRun>& cells() const { return cells_; }
  int64_t bytes() const { return plan_.cells() * static_cast<int64_t>(sizeof(CellRun)); }
  uint64_t fingerprint() const;

 private:
  RpsPlan plan_;
  CellMapper mapper_;
  double factor(const FoldedTensor&, int64_t row, int64_t col, int64_t cell) const;

  uint64_t cell_key_;
  bool isometric_;
  std::vector<CellRun> cells_;
};

/// A matrix read through a CellMap.
class MappedView final : public WeightView {
 public:
  MappedView(const ParameterPool& pool, SlotId cells, std::shared_ptr<const CellMap> map, size_t tensor)
      : cells_(cells), map_(std::move(map)), tensor_(tensor), trainable_(pool.is_trainable(cells)) {}
  Shape shape() const override { return {tensor().layout.rows, tensor().layout.cols}; }
  bool is_trainable() const override { return trainable_; }
  using WeightView::gather;
  void gather(const Context&, const PoolRead&, RowRange, TensorView w) const override;
  void scatter_add(const Context&, ConstView dw, ParameterPool&) const override;
  uint64_t fingerprint() const override { return hash_key({map_->fingerprint(), tensor_}); }

 private:
  const FoldedTensor& tensor() const { return map_->plan().tensors[tensor_]; }
  SlotId cells_;
  std::shared_ptr<const CellMap> map_;
  size_t tensor_;
  bool trainable_;
};

}  // namespace tessera
