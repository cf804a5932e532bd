#pragma once
// A number a column: biases and gains of a linear layer's outputs, and their gradients.

#include "kernels/context.h"

namespace tessera {

/// y[r, c] = x[r, c] · factors[c], or y[r, c] += that.
/// @param x, y     [rows, dim] compute dtype, rows may be strided; y may alias x when assigned
/// @param factors  [dim] compute dtype, f32, bf16 or f16
void scale_columns(const Context&, ConstView x, ConstView factors, TensorView y, Write);

/// y[r, c] += bias[c].  bias [dim] compute dtype, f32, bf16 or f16; y [rows, dim] compute dtype, rows may be strided.
void add_bias(const Context&, ConstView bias, TensorView y);

/// sums[c] += Σ_r x[r, c] · y[r, c]; y empty: Σ_r x[r, c]. With x the gradient of an output that is the gradient of its
/// bias, and with y what a gain multiplied that of the gain.
/// @param x, y  [rows, dim] compute dtype, rows may be strided
/// @param sums  [dim] compute dtype. One chain over the rows, in their order and in one rounding a row (f64 on the
///              reference backend, rounded once), that goes on from what is there: rows in two calls give the same bits
void add_column_sums(const Context&, ConstView x, ConstView y, TensorView sums);

}  // namespace tessera
