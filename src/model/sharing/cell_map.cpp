#include "model/sharing/cell_map.h"

#include <cmath>

#include "core/device/memory.h"
#include "core/error.h"
#include "kernels/host_work.h"

namespace tessera {
namespace {

constexpr uint64_t kPrime = 45007;  // of the released kernel

}  // namespace

CellMap::CellMap(const RpsPlan& plan, CellMapper mapper, uint64_t seed, bool isometric, Memory memory)
    : plan_(plan),
      mapper_(mapper),
      cell_key_(hash_key({seed, 0x43454C4C})),
      isometric_(isometric),
      cells_(memory == Memory::counted ? 0 : static_cast<size_t>(plan.cells())) {
  if (memory == Memory::counted) return;
  // Who reads a cell has no closed form here, as it has with RandomFold: all weights are asked, once.
  for (size_t j = 0; j < cells_.size(); ++j) cells_[j] = {static_cast<int64_t>(j) + 1, 0, 0, 0};
  for (const FoldedTensor& t : plan_.tensors)
    for (int64_t row = 0; row < t.layout.rows; ++row)
      for (int64_t col = 0; col < t.layout.cols; ++col) {
        CellRun& run = cells_[static_cast<size_t>(cell(t, row, col))];
        ++run.readers;
        run.d += t.lambda * t.lambda;
        run.magnitude += std::abs(t.lambda);
      }
}

int64_t CellMap::cell(const FoldedTensor& t, int64_t row, int64_t col) const {
  const auto cells = static_cast<uint64_t>(plan_.cells());
  const FoldLayout& l = t.layout;
  if (mapper_ == CellMapper::hashed)
    return static_cast<int64_t>(draw_below(cell_key_, static_cast<uint64_t>(t.begin + l.position(row, col)), cells));
  const auto tile = static_cast<uint64_t>(l.tile_rows * l.tile_cols), number = static_cast<uint64_t>(t.begin);
  const auto draw = [&](uint64_t which) { return draw_below(hash_key({cell_key_, number}), which, kPrime); };
  const auto tile_row = static_cast<uint64_t>(row / l.tile_rows), tile_col = static_cast<uint64_t>(col / l.tile_cols);
  // One hash a tile, whose weights lie side by side from there. It stays below kPrime however many cells there are.
  const uint64_t start = (draw(0) * tile_row + draw(1) * tile_col + draw(2)) % kPrime % (cells - tile);
  return static_cast<int64_t>(start) + row % l.tile_rows * l.tile_cols + col % l.tile_cols;
}

double CellMap::factor(const FoldedTensor& t, int64_t row, int64_t col, int64_t cell) const {
  const uint64_t i = static_cast<uint64_t>(t.begin + t.layout.position(row, col));
  const double d = isometric_ ? cells_[static_cast<size_t>(cell)].d : 1;
  return (mix64(plan_.hash.sign_key + i * kGamma64) >> 63 != 0 ? -t.lambda : t.lambda) / std::sqrt(d);
}

uint64_t CellMap::fingerprint() const {
  return hash_key({plan_.fingerprint(), cell_key_, static_cast<uint64_t>(mapper_), isometric_});
}

namespace {

template <class T, class Cell, class Factor>
void gather_typed(const Context& ctx, const FoldLayout& l, RowRange rows, const ConstView& pool, const TensorView& w,
                  Cell&& cell, Factor&& factor) {
  const T* from = pool.as<T>().data();
  T* to = w.as<T>().data();
#pragma omp parallel for schedule(static) num_threads(ctx.threads) if (w.shape.count() > 1 << 12)
  for (int64_t row = rows.begin; row < rows.end; ++row)
    for (int64_t col = 0; col < l.cols; ++col) {
      const int64_t j = cell(row, col);
      to[(row - rows.begin) * l.cols + col] = static_cast<T>(factor(row, col, j)) * from[j];
    }
}

template <class T, class Cell, class Factor>
void scatter_typed(const FoldLayout& l, const ConstView& dw, const TensorView& dpool, Cell&& cell, Factor&& factor) {
  const T* from = dw.as<T>().data();
  T* to = dpool.as<T>().data();
  for (int64_t row = 0; row < l.rows; ++row)  // one thread: the order of a cell's readers is that of the elements
    for (int64_t col = 0; col < l.cols; ++col) {
      const int64_t j = cell(row, col);
      to[j] += static_cast<T>(factor(row, col, j)) * from[row * l.cols + col];
    }
}

}  // namespace

void CellMap::expand(const Context& ctx, const FoldedTensor& t, RowRange rows, ConstView pool, TensorView w) const {
  const auto cell_of = [&](int64_t row, int64_t col) { return cell(t, row, col); };
  const auto factor_of = [&](int64_t row, int64_t col, int64_t j) { return factor(t, row, col, j); };
  const OnHost from(pool);
  const WrittenOnHost to(w);
  if (pool.dtype == DType::f64)
    return gather_typed<double>(ctx, t.layout, rows, from.view(), to.view(), cell_of, factor_of);
  gather_typed<float>(ctx, t.layout, rows, from.view(), to.view(), cell_of, factor_of);
}

void CellMap::contract(const FoldedTensor& t, ConstView dw, TensorView dpool) const {
  const auto cell_of = [&](int64_t row, int64_t col) { return cell(t, row, col); };
  const auto factor_of = [&](int64_t row, int64_t col, int64_t j) { return factor(t, row, col, j); };
  const OnHost from(dw);
  const EditedOnHost to(dpool);
  if (dpool.dtype == DType::f64) return scatter_typed<double>(t.layout, from.view(), to.view(), cell_of, factor_of);
  scatter_typed<float>(t.layout, from.view(), to.view(), cell_of, factor_of);
}

void MappedView::gather(const Context& ctx, const PoolRead& read, RowRange rows, TensorView w) const {
  TS_CHECK(!read.z || !trainable_, "mapped weights are read from a perturbed copy of their cells");
  host_work(ctx, [&] { map_->expand(ctx, tensor(), rows, read.values(cells_), w); });
}

void MappedView::scatter_add(const Context& ctx, ConstView dw, ParameterPool& pool) const {
  host_work(ctx, [&] { map_->contract(tensor(), dw, pool.grads(cells_)); });
}

}  // namespace tessera
