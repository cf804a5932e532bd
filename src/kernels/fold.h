#pragma once
// Matrices whose weights are read from a smaller pool of cells, placed by arithmetic (fold_address.h), not by a table.

#include <span>

#include "kernels/context.h"
#include "kernels/fold_address.h"

namespace tessera {

/// The factor of cells up to `end`, from the end of the entry before.
struct FoldFactor {
  int64_t end;
  double factor;
};

/// A matrix [rows, cols] whose weights are read from m shared cells:
///   W[r, c] = f(h(i)) · s(i) · pool[h(i)],   i = begin + layout.position(r, c)
/// Nothing is stored a weight: h and s are computed (fold_address.h), f is constant over runs of cells.
struct FoldedMatrix {
  FoldHash hash;
  int64_t begin = 0;                      // the number of its first weight in the flat range of all folded weights
  FoldLayout layout;                      // with its shape
  std::span<const FoldFactor> factors{};  // ends ascend; the last is m

  /// f of a cell, by bisection.
  double factor(int64_t cell) const;
};

/// w = rows [row_begin, row_begin + w.rows()) of W.
/// @param pool  [m] compute dtype (f32; reference also f64), contiguous
/// @param w     [rows, cols] of the same dtype, contiguous; does not alias the pool
/// A weight is rounded once: (s · f) · pool. Same bits on every backend and for any number of threads.
void fold_expand(const Context&, const FoldedMatrix&, ConstView pool, int64_t row_begin, TensorView w);

/// The adjoint: for every cell j, in ascending order of its readers i in this matrix,
///   dpool[j] += (s(i) · f(j)) · dw[i]
/// with two roundings a reader. A gather by the closed-form inverse of h: no atomics, same bits on every backend and
/// for any number of threads.
/// @param dw     [rows, cols], the whole matrix, contiguous
/// @param dpool  [m] of the same dtype, contiguous
void fold_contract(const Context&, const FoldedMatrix&, ConstView dw, TensorView dpool);

/// y = x Wᵀ + beta · y with tiles of W expanded from the pool into cache as they are needed: no copy of W exists.
/// @param x  [T, cols] f32 (reference: also f64), rows may be strided
/// @param y  [T, rows]; beta = 0 ignores what it held
/// An element's sum is that of gemm over fold_expand's W: the same bits as those two calls.
void fold_gemm(const Context&, const FoldedMatrix&, ConstView pool, ConstView x, double beta, TensorView y);

}  // namespace tessera
