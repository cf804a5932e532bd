#include "model/sharing/fold_view.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace tessera {
namespace {

bool is_whole_and_plain(const FoldedMatrix& m, const std::vector<FoldFactor>& factors) {
  return m.layout.by_rows() && m.begin + m.layout.count() <= m.hash.cells &&
         std::all_of(factors.begin(), factors.end(), [](const FoldFactor& f) { return f.factor == 1; });
}

}  // namespace

FoldView::FoldView(const ParameterPool& pool, SlotId cells, FoldedMatrix matrix,
                   std::shared_ptr<const std::vector<FoldFactor>> factors)
    : cells_(cells),
      matrix_(matrix),
      factors_(std::move(factors)),
      trainable_(pool.is_trainable(cells)),
      in_place_(is_whole_and_plain(matrix, *factors_)) {
  matrix_.factors = *factors_;
}

void FoldView::gather(const Context& ctx, const PoolRead& read, RowRange rows, TensorView w) const {
  TS_CHECK(!read.z || !trainable_, "folded weights are read from a perturbed copy of their cells");
  fold_expand(ctx, matrix_, read.values(cells_), rows.begin, w);
}

void FoldView::scatter_add(const Context& ctx, ConstView dw, ParameterPool& pool) const {
  fold_contract(ctx, matrix_, dw, pool.grads(cells_));
}

// Never slower than expanding W first: 0.92 of the time with one row of x, 0.95 with 64,
// 0.97 with 512 (docs/benchmarks.md).
bool FoldView::multiply(const Context& ctx, const PoolRead& read, ConstView x, double beta, TensorView y) const {
  if (in_place_) return false;
  fold_gemm(ctx, matrix_, read.values(cells_), x, beta, y);
  return true;
}

ConstView FoldView::direct(const PoolRead& read) const {
  if (!in_place_ || (read.z && trainable_)) return {};
  const int64_t begin = matrix_.begin;
  return read.values(cells_).slice_rows(begin, begin + matrix_.layout.count()).reshape(shape());
}

std::optional<TensorView> FoldView::direct_grad(ParameterPool& pool) const {
  if (!in_place_) return std::nullopt;
  const int64_t begin = matrix_.begin;
  return pool.grads(cells_).slice_rows(begin, begin + matrix_.layout.count()).reshape(shape());
}

uint64_t FoldView::fingerprint() const {
  const FoldLayout& l = matrix_.layout;
  uint64_t h = hash_key({static_cast<uint64_t>(cells_), static_cast<uint64_t>(matrix_.begin),
                         static_cast<uint64_t>(matrix_.hash.cells), matrix_.hash.rotation_key, matrix_.hash.sign_key,
                         static_cast<uint64_t>(l.rows), static_cast<uint64_t>(l.cols),
                         static_cast<uint64_t>(l.tile_rows), static_cast<uint64_t>(l.tile_cols)});
  for (const FoldFactor& f : *factors_) {
    h = fnv1a(&f.end, sizeof(f.end), h);
    h = fnv1a(&f.factor, sizeof(f.factor), h);
  }
  return h;
}

}  // namespace tessera
