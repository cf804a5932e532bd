#pragma once
// Sums over calibration tokens: how alike hidden states of two depths are, and how large each input of a linear layer
// is.

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// sum += Σ over the listed rows of cos(x[r], y[r]) = <x, y> / (‖x‖ · ‖y‖), in f64, one row after the other.
/// A row of zeros has no direction: its cosine counts as 0. Divided by the number of rows, one less the mean cosine of
/// a block's input and output is its Block Influence (Men et al. 2024, arXiv:2403.03853).
/// @param x, y  [tokens, dim] compute dtype, rows may be strided; may be one
/// @param rows  each in [0, tokens)
/// @param sum   [1] f64
void add_cosines(const Context&, ConstView x, ConstView y, IndexArray<int32_t> rows, TensorView sum);

/// sums[c] += Σ over the listed rows of x[r, c]², in f64, in the rows' order: unlike add_column_sums of x with itself,
/// which rounds to the compute dtype and takes all rows.
/// @param x     [tokens, dim] compute dtype, rows may be strided
/// @param rows  each in [0, tokens)
/// @param sums  [dim] f64
void add_column_squares(const Context&, ConstView x, IndexArray<int32_t> rows, TensorView sums);

}  // namespace tessera
