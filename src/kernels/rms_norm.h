#pragma once
// Root-mean-square normalisation and its gradient.

#include "kernels/context.h"

namespace tessera {

/// Root-mean-square normalisation of each row:  y = x / sqrt(mean(x²) + eps) · weight.
/// @param x        [rows, dim] compute dtype
/// @param weight   [dim] compute dtype, f32, bf16 or f16
/// @param y        [rows, dim] compute dtype; may alias x
/// @param inv_rms  [rows] compute dtype, kept for the backward pass; empty to skip
/// Zhang & Sennrich 2019, arXiv:1910.07467.
void rms_norm(const Context&, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms);

/// With n = x · inv_rms and g = dy · weight:   dx += inv_rms · (g − n · mean(g · n)),   dweight += Σ_rows dy · n.
/// dx accumulates because x is the residual stream, whose gradient is already there.
/// @param dweight  [dim] compute dtype; empty when the weight is frozen. Rows are summed as by add_column_sums, each
///                 n rounded before it is multiplied.
/// dx may not alias dy.
void rms_norm_backward(const Context&, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy, TensorView dx,
                       TensorView dweight);

}  // namespace tessera
