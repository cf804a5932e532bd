#include "kernels/fold.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

void check_folded(const Arguments& check, const FoldedMatrix& m, const ConstView& pool) {
  const FoldLayout& layout = m.layout;
  TS_CHECK(m.hash.cells >= 1 && m.begin >= 0, "fold: {} cells, first weight {}", m.hash.cells, m.begin);
  TS_CHECK(layout.rows >= 0 && layout.cols >= 0 && layout.tile_rows >= 1 && layout.tile_cols >= 0,
           "fold: a matrix [{}, {}] in tiles [{}, {}]", layout.rows, layout.cols, layout.tile_rows, layout.tile_cols);
  int64_t end = 0;
  for (const FoldFactor& piece : m.factors) {
    TS_CHECK(piece.end > end, "fold: a factor's cells end at {}, those before it at {}", piece.end, end);
    end = piece.end;
  }
  TS_CHECK(end == m.hash.cells, "fold: factors for {} cells, expected {}", end, m.hash.cells);
  check.vector("the pool", pool, m.hash.cells);
}

void check_weights(const Arguments& check, const char* name, const ConstView& w, int64_t rows, int64_t cols) {
  check.matrix(name, w, rows, cols);
  TS_CHECK(w.is_contiguous(), "fold: the rows of {} are strided", name);
}

}  // namespace

double FoldedMatrix::factor(int64_t cell) const {
  const auto piece = std::partition_point(factors.begin(), factors.end(),
                                          [cell](const FoldFactor& piece) { return piece.end <= cell; });
  TS_CHECK(0 <= cell && piece != factors.end(), "fold: no factor for cell {}", cell);
  return piece->factor;
}

void fold_expand(const Context& ctx, const FoldedMatrix& matrix, ConstView pool, int64_t row_begin, TensorView w) {
  const Arguments check(ctx, "fold_expand", pool.dtype);
  check_folded(check, matrix, pool);
  TS_CHECK(w.shape.rank == 2 && 0 <= row_begin && row_begin + w.shape[0] <= matrix.layout.rows,
           "fold_expand: w is {}, from row {} of {}", w.shape.text(), row_begin, matrix.layout.rows);
  check_weights(check, "w", w, w.shape[0], matrix.layout.cols);
  check.no_alias("w", w, "the pool", pool);
  if (w.shape.count() > 0) ctx.kernels.fold_expand(ctx, matrix, pool, row_begin, w);
}

void fold_contract(const Context& ctx, const FoldedMatrix& matrix, ConstView dw, TensorView dpool) {
  const Arguments check(ctx, "fold_contract", dpool.dtype);
  check_folded(check, matrix, dpool);
  check_weights(check, "dw", dw, matrix.layout.rows, matrix.layout.cols);
  check.no_alias("the pool's gradient", dpool, "dw", dw);
  if (dw.shape.count() > 0) ctx.kernels.fold_contract(ctx, matrix, dw, dpool);
}

void fold_gemm(const Context& ctx, const FoldedMatrix& matrix, ConstView pool, ConstView x, double beta, TensorView y) {
  const Arguments check(ctx, "fold_gemm", pool.dtype);
  check_folded(check, matrix, pool);
  TS_CHECK(x.shape.rank == 2, "fold_gemm: x is {}, expected a matrix", x.shape.text());
  check.matrix("x", x, x.shape[0], matrix.layout.cols);
  check.matrix("y", y, x.shape[0], matrix.layout.rows);
  check.no_alias("y", y, "x", x);
  check.no_alias("y", y, "the pool", pool);
  if (y.shape.count() > 0) ctx.kernels.fold_gemm(ctx, matrix, pool, x, beta, y);
}

}  // namespace tessera
