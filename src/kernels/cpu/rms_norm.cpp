// A row a time: one pass for the sum of squares (f32 lanes), one for the result. Backward takes fixed blocks of rows;
// each block sums its own row of weight gradients in scratch, and the blocks are added in order.

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
  auto squares = hn::Zero(kFloats);
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto v = vector.load(x + i);
    squares = fused(v, v, squares);
  });
  // One division and root a row, in f64: they cost nothing beside the row, and eps is not lost beside small means.
  const float inv =
      static_cast<float>(1 / std::sqrt(static_cast<double>(sum_of_lanes(squares)) / static_cast<double>(dim) + eps));
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

/// dweight may be null.
template <class W>
void backward_row(const float* x, const W* weight, float inv_rms, const float* dy, int64_t dim, float* dx,
                  float* dweight) {
  // With n = x · inv and g = dy · weight, dx += inv · (g − n · mean(g · n)): but for eps, y does not change with the
  // length of x, so that the gradient has no part along n.
  auto dot = hn::Zero(kFloats);  // of g = dy · weight with x
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    // g is formed twice, here and below: keeping a row of it would cost more than the multiplication.
    dot = fused(hn::Mul(vector.load(dy + i), vector.load(weight + i)), vector.load(x + i), dot);
  });
  const auto inv = hn::Set(kFloats, inv_rms);
  // <g, n> = <g, x> · inv: the row was dotted with x as it lies, the factor is applied once.
  const auto mean = hn::Set(kFloats, sum_of_lanes(dot) * inv_rms / static_cast<float>(dim));
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto n = hn::Mul(vector.load(x + i), inv), d = vector.load(dy + i);
    const auto g = hn::Mul(d, vector.load(weight + i));
    vector.store(fused(inv, fused_minus(n, mean, g), vector.load(dx + i)), dx + i);
    if (dweight) vector.store(fused(d, n, vector.load(dweight + i)), dweight + i);
  });
}

template <class W>
void backward_rows(ConstView x, ConstView weight, const float* inv_rms, ConstView dy, TensorView dx, float* dweight,
                   int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r)
    backward_row(x.row<float>(r), weight.row<W>(0), inv_rms[r], dy.row<float>(r), x.cols(), dx.row<float>(r), dweight);
}

void rms_norm_backward_rows(ConstView x, ConstView weight, const float* inv_rms, ConstView dy, TensorView dx,
                            float* dweight, int64_t begin, int64_t end) {
  if (weight.dtype == DType::bf16) return backward_rows<BFloat16>(x, weight, inv_rms, dy, dx, dweight, begin, end);
  if (weight.dtype == DType::f16) return backward_rows<Float16>(x, weight, inv_rms, dy, dx, dweight, begin, end);
  backward_rows<float>(x, weight, inv_rms, dy, dx, dweight, begin, end);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_blocks.h"
#include "kernels/cpu/scratch.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(rms_norm_backward_rows);

}  // namespace

void rms_norm(const Context& ctx, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms) {
  float* inv = inv_rms.empty() ? nullptr : inv_rms.row<float>(0);
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_rows)(x, weight, eps, y, inv, begin, end);
  });
}

int64_t rms_norm_backward_scratch_bytes(ConstView x, TensorView dweight) {
  return dweight.empty() ? 0 : row_blocks_bytes(x);
}

void rms_norm_backward(const Context& ctx, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy,
                       TensorView dx, TensorView dweight) {
  // Without a weight gradient there is nothing to join; rows are cut into blocks all the same.
  const int64_t dim = x.cols(), blocks = row_blocks(x.rows());
  const auto scope = ctx.scratch.scope();
  float* partial = nullptr;  // [blocks, dim]
  if (!dweight.empty()) partial = ctx.scratch.allocate({blocks, dim}, DType::f32).row<float>(0);
  parallel_for(ctx, blocks, kRowBlock * dim, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      // Partial sums begin at zero for every call: the weight's gradient is added to when the blocks are joined.
      if (partial) std::fill_n(partial + b * dim, dim, 0.0f);
      HWY_DYNAMIC_DISPATCH(rms_norm_backward_rows)
      (x, weight, inv_rms.row<float>(0), dy, dx, partial ? partial + b * dim : nullptr, b * kRowBlock,
       std::min((b + 1) * kRowBlock, x.rows()));
    }
  });
  if (partial) join_row_blocks(partial, blocks, dim, dweight.row<float>(0));
}

}  // namespace tessera::cpu
#endif
