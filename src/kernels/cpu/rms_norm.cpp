// A row a time: one pass for the sum of squares (sixteen f32 lanes), one for the result. Backward shares out rows for
// the gradient of x and then columns for that of the weight: each is one chain over the rows that goes on from what the
// gradient holds, so that neither threads nor micro-batches show in it.

#include <cmath>

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

template <class W> float forward_row(const float* x, const W* weight, int64_t dim, double eps, float* y) {
  // One division and root a row, in f64: they cost nothing beside the row, and eps is not lost beside small means.
  const double squares = sum_of_squares_of_row(x, dim);
  const float inv = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(dim) + eps));
  const auto factor = hn::Set(kFloats, inv);
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    vector.store(hn::Mul(hn::Mul(vector.load(x + i), factor), vector.load(weight + i)), y + i);
  });
  return inv;
}

template <class W>
void forward_rows(ConstView x, ConstView weight, double eps, TensorView y, float* inv_rms, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float inv = forward_row(x.row<float>(r), weight.row<W>(0), x.cols(), eps, y.row<float>(r));
    if (inv_rms) inv_rms[r] = inv;
  }
}

void rms_norm_rows(ConstView x, ConstView weight, double eps, TensorView y, float* inv_rms, int64_t begin,
                   int64_t end) {
  if (weight.dtype == DType::bf16) return forward_rows<BFloat16>(x, weight, eps, y, inv_rms, begin, end);
  if (weight.dtype == DType::f16) return forward_rows<Float16>(x, weight, eps, y, inv_rms, begin, end);
  forward_rows<float>(x, weight, eps, y, inv_rms, begin, end);
}

template <class W>
void backward_row(const float* x, const W* weight, float inv_rms, const float* dy, int64_t dim, float* dx) {
  // With n = x · inv and g = dy · weight, dx += inv · (g − n · mean(g · n)): but for eps, y does not change with the
  // length of x, so that the gradient has no part along n.
  FloatSums dot;  // of g = dy · weight with x
  for_float_lanes(dim, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    // g is formed twice, here and below: keeping a row of it would cost more than the multiplication.
    dot.add_product(place, hn::Mul(vector.load(dy + i), vector.load(weight + i)), vector.load(x + i));
  });
  const auto inv = hn::Set(kFloats, inv_rms);
  // <g, n> = <g, x> · inv: the row was dotted with x as it lies, the factor is applied once.
  const auto mean = hn::Set(kFloats, dot.sum() * inv_rms / static_cast<float>(dim));
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto n = hn::Mul(vector.load(x + i), inv), g = hn::Mul(vector.load(dy + i), vector.load(weight + i));
    vector.store(fused(inv, fused_minus(n, mean, g), vector.load(dx + i)), dx + i);
  });
}

template <class W>
void backward_rows(ConstView x, ConstView weight, const float* inv_rms, ConstView dy, TensorView dx, int64_t begin,
                   int64_t end) {
  for (int64_t r = begin; r < end; ++r)
    backward_row(x.row<float>(r), weight.row<W>(0), inv_rms[r], dy.row<float>(r), x.cols(), dx.row<float>(r));
}

void rms_norm_backward_rows(ConstView x, ConstView weight, const float* inv_rms, ConstView dy, TensorView dx,
                            int64_t begin, int64_t end) {
  if (weight.dtype == DType::bf16) return backward_rows<BFloat16>(x, weight, inv_rms, dy, dx, begin, end);
  if (weight.dtype == DType::f16) return backward_rows<Float16>(x, weight, inv_rms, dy, dx, begin, end);
  backward_rows<float>(x, weight, inv_rms, dy, dx, begin, end);
}

/// dweight += dy · n for columns [begin, end), row after row.
void weight_gradient_columns(ConstView x, const float* inv_rms, ConstView dy, float* dweight, int64_t begin,
                             int64_t end) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float *row = x.row<float>(r) + begin, *dout = dy.row<float>(r) + begin;
    const auto inv = hn::Set(kFloats, inv_rms[r]);
    for_vectors(end - begin, [&](int64_t i, auto vector) HWY_ATTR {
      float* sum = dweight + begin + i;
      vector.store(fused(vector.load(dout + i), hn::Mul(vector.load(row + i), inv), vector.load(sum)), sum);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(rms_norm_backward_rows);
HWY_EXPORT(weight_gradient_columns);

}  // namespace

void rms_norm(const Context& ctx, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms) {
  float* inv = inv_rms.empty() ? nullptr : inv_rms.row<float>(0);
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_rows)(x, weight, eps, y, inv, begin, end);
  });
}

void rms_norm_backward(const Context& ctx, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy,
                       TensorView dx, TensorView dweight) {
  const float* inv = inv_rms.row<float>(0);
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_backward_rows)(x, weight, inv, dy, dx, begin, end);
  });
  if (dweight.empty()) return;
  for_columns(ctx, x.cols(), x.rows(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(weight_gradient_columns)(x, inv, dy, dweight.row<float>(0), begin, end);
  });
}

}  // namespace tessera::cpu
#endif
