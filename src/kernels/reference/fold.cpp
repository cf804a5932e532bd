#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

/// s(i) · f(h(i)): what weight i of all folded weights has beside its cell.
template <class T> T coefficient(const FoldedMatrix& matrix, int64_t i) {
  const T factor = static_cast<T>(matrix.factor(matrix.hash.cell(i)));
  return matrix.hash.negative(i) ? -factor : factor;
}

}  // namespace

void fold_expand(const Context&, const FoldedMatrix& matrix, ConstView pool, int64_t row_begin, TensorView w) {
  with_compute_type(pool.dtype, [&](auto t) {
    // The definition, a weight at a time: hash its number, read its cell. The fast kernel goes by runs of cells.
    using T = decltype(t);
    for (int64_t r = 0; r < w.rows(); ++r) {
      for (int64_t c = 0; c < w.cols(); ++c) {
        const int64_t i = matrix.begin + matrix.layout.position(row_begin + r, c);
        w.row<T>(r)[c] = coefficient<T>(matrix, i) * pool.as<T>()[matrix.hash.cell(i)];
      }
    }
  });
}

void fold_contract(const Context&, const FoldedMatrix& matrix, ConstView dw, TensorView dpool) {
  with_compute_type(dpool.dtype, [&](auto t) {
    using T = decltype(t);
    // Weights in ascending number, so that a cell's readers are added in ascending order: the bits that fast kernels
    // must have.
    for (int64_t p = 0; p < matrix.layout.count(); ++p) {
      const int64_t i = matrix.begin + p;
      dpool.as<T>()[matrix.hash.cell(i)] += coefficient<T>(matrix, i) * dw.as<T>()[matrix.layout.element(p)];
    }
  });
}

void fold_gemm(const Context& ctx, const FoldedMatrix& matrix, ConstView pool, ConstView x, double beta, TensorView y) {
  const auto scope = ctx.scratch.scope();
  // The whole matrix in scratch, for want of cleverness.
  const TensorView w = ctx.scratch.allocate({matrix.layout.rows, matrix.layout.cols}, pool.dtype);
  reference::fold_expand(ctx, matrix, pool, 0, w);
  reference::gemm(ctx, {.a = x, .b = w, .b_transpose = Transpose::yes, .c = y, .beta = beta});
}

}  // namespace tessera::reference
