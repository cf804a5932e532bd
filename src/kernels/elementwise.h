#pragma once
// Ops on elements and rows: one value for all, sums, scaling, conversion, the norm of gradients.

#include "kernels/context.h"

namespace tessera {

/// y = value, for every element.
/// @param value  rounded to the dtype of y; a whole number that the dtype holds, where y holds integers
/// @param y      of any shape and contiguous, or [rows, dim] with strided rows; f32, f64, i32 or i64 on every backend
void fill(const Context&, double value, TensorView y);

/// y += x. Equal shapes [rows, dim] (or flat), compute dtype, rows may be strided.
void add(const Context&, ConstView x, TensorView y);

/// x[i, :] *= factors[i]. factors [rows], x [rows, dim], compute dtype.
void scale_rows(const Context&, ConstView factors, TensorView x);

/// y = factor · x, or y += factor · x. Equal shapes [rows, dim], compute dtype, rows may be strided; y may alias x when
/// assigned.
void scale(const Context&, double factor, ConstView x, TensorView y, Write);

/// to = from, converted between floating dtypes (round to nearest even). Equal shapes, contiguous.
void convert(const Context&, ConstView from, TensorView to);

/// sum = Σ x² over blocks of 16,384 elements, in block order. x of any shape, contiguous, f32 (reference: also f64);
/// sum [1] f64.
void sum_of_squares(const Context&, ConstView x, TensorView sum);

/// sum += Σ x · (a − b), b empty: Σ x · a. Over blocks of 16,384 elements, in block order, in f64; each difference is
/// rounded first.
/// x, a, b of equal shapes, contiguous, compute dtype; sum [1] compute dtype.
void add_dot(const Context&, ConstView x, ConstView a, ConstView b, TensorView sum);

}  // namespace tessera
