#pragma once
// Ops on elements and rows: sums, scaling, conversion, the norm of gradients.

#include "kernels/context.h"

namespace tessera {

/// y += x. Equal shapes [rows, dim] (or flat), compute dtype, rows may be strided.
void add(const Context&, ConstView x, TensorView y);

/// x[i, :] *= factors[i]. factors [rows], x [rows, dim], compute dtype.
void scale_rows(const Context&, ConstView factors, TensorView x);

/// to = from, converted between floating dtypes (round to nearest even). Equal shapes, contiguous.
void convert(const Context&, ConstView from, TensorView to);

/// sum = Σ x² over fixed blocks of elements, in block order. x of any shape, contiguous, f32 (reference: also f64);
/// sum [1] f64.
void sum_of_squares(const Context&, ConstView x, TensorView sum);

}  // namespace tessera
