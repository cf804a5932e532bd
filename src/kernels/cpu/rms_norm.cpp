// Four rows at a time: one pass for the sums of squares (sixteen f32 lanes a row), one for the results. A sum waits for
// each of its additions, and four rows fill the waiting. Backward shares out rows for the gradient of x. That of the
// weight is one chain for each column over the rows, which goes on from what the gradient holds, so that neither
// threads nor micro-batches show in it: the thread that has the first rows sums theirs along the way, and then columns
// are shared out for the rows behind them.

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

constexpr int kGroup = 4;

/// work(rows, row) for groups of kGroup rows in [begin, end) and then for single ones; rows is a Place.
template <class Work> HWY_INLINE void for_groups(int64_t begin, int64_t end, Work&& work) {
  int64_t r = begin;
  for (; r + kGroup <= end; r += kGroup) work(Place<kGroup>(), r);
  for (; r < end; ++r) work(Place<1>(), r);
}

template <int kRows, class W>
HWY_INLINE void forward_group(ConstView x, const W* weight, double eps, TensorView y, float* inv_rms, int64_t r) {
  const int64_t dim = x.cols(), x_stride = x.row_stride(), y_stride = y.row_stride();
  const float* from = x.row<float>(r);
  float* to = y.row<float>(r);
  FloatSums squares[kRows];
  for_float_lanes(dim, [&](int64_t i, auto vector, auto place) HWY_ATTR {
#pragma GCC unroll 4
    for (int k = 0; k < kRows; ++k) {
      const auto v = vector.load(from + k * x_stride + i);
      squares[k].add_product(place, v, v);
    }
  });
  FloatVec factors[kRows];
#pragma GCC unroll 4
  for (int k = 0; k < kRows; ++k) {
    // One division and root a row, in f64: they cost nothing beside the row, and eps is not lost beside small means.
    const double mean = static_cast<double>(squares[k].sum()) / static_cast<double>(dim);
    const float inv = static_cast<float>(1 / std::sqrt(mean + eps));
    if (inv_rms) inv_rms[r + k] = inv;
    factors[k] = hn::Set(kFloats, inv);
  }
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto w = vector.load(weight + i);
#pragma GCC unroll 4
    for (int k = 0; k < kRows; ++k)
      vector.store(hn::Mul(hn::Mul(vector.load(from + k * x_stride + i), factors[k]), w), to + k * y_stride + i);
  });
}

template <class W>
void forward_rows(ConstView x, ConstView weight, double eps, TensorView y, float* inv_rms, int64_t begin, int64_t end) {
  for_groups(begin, end, [&](auto rows, int64_t r) HWY_ATTR {
    forward_group<decltype(rows)::value>(x, weight.row<W>(0), eps, y, inv_rms, r);
  });
}

void rms_norm_rows(ConstView x, ConstView weight, double eps, TensorView y, float* inv_rms, int64_t begin,
                   int64_t end) {
  if (weight.dtype == DType::bf16) return forward_rows<BFloat16>(x, weight, eps, y, inv_rms, begin, end);
  if (weight.dtype == DType::f16) return forward_rows<Float16>(x, weight, eps, y, inv_rms, begin, end);
  forward_rows<float>(x, weight, eps, y, inv_rms, begin, end);
}

/// kWithWeight: dweight goes on with these rows.
template <int kRows, bool kWithWeight, class W>
HWY_INLINE void backward_group(ConstView x, const W* weight, const float* inv_rms, ConstView dy, TensorView dx,
                               float* dweight, int64_t r) {
  // With n = x · inv and g = dy · weight, dx += inv · (g − n · mean(g · n)): but for eps, y does not change with the
  // length of x, so that the gradient has no part along n.
  const int64_t dim = x.cols(), x_stride = x.row_stride(), dy_stride = dy.row_stride(), dx_stride = dx.row_stride();
  const float *from = x.row<float>(r), *dout = dy.row<float>(r);
  float* to = dx.row<float>(r);
  FloatSums dots[kRows];  // of g with x
  for_float_lanes(dim, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    const auto w = vector.load(weight + i);
    // g is formed twice, here and below: keeping rows of it would cost more than the multiplication.
#pragma GCC unroll 4
    for (int k = 0; k < kRows; ++k)
      dots[k].add_product(place, hn::Mul(vector.load(dout + k * dy_stride + i), w),
                          vector.load(from + k * x_stride + i));
  });
  FloatVec invs[kRows], means[kRows];
#pragma GCC unroll 4
  for (int k = 0; k < kRows; ++k) {
    invs[k] = hn::Set(kFloats, inv_rms[r + k]);
    // <g, n> = <g, x> · inv: the row was dotted with x as it lies, the factor is applied once.
    means[k] = hn::Set(kFloats, dots[k].sum() * inv_rms[r + k] / static_cast<float>(dim));
  }
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto w = vector.load(weight + i);
    auto sum = hn::Zero(kFloats);
    if constexpr (kWithWeight) sum = vector.load(dweight + i);
#pragma GCC unroll 4
    for (int k = 0; k < kRows; ++k) {
      const auto d = vector.load(dout + k * dy_stride + i), n = hn::Mul(vector.load(from + k * x_stride + i), invs[k]);
      float* at = to + k * dx_stride + i;
      vector.store(fused(invs[k], fused_minus(n, means[k], hn::Mul(d, w)), vector.load(at)), at);
      if constexpr (kWithWeight) sum = fused(d, n, sum);
    }
    if constexpr (kWithWeight) vector.store(sum, dweight + i);
  });
}

template <class W>
void backward_rows(ConstView x, ConstView weight, const float* inv_rms, ConstView dy, TensorView dx, float* dweight,
                   int64_t begin, int64_t end) {
  for_groups(begin, end, [&](auto rows, int64_t r) HWY_ATTR {
    constexpr int kRows = decltype(rows)::value;
    if (dweight)
      backward_group<kRows, true>(x, weight.row<W>(0), inv_rms, dy, dx, dweight, r);
    else
      backward_group<kRows, false>(x, weight.row<W>(0), inv_rms, dy, dx, dweight, r);
  });
}

void rms_norm_backward_rows(ConstView x, ConstView weight, const float* inv_rms, ConstView dy, TensorView dx,
                            float* dweight, int64_t begin, int64_t end) {
  if (weight.dtype == DType::bf16) return backward_rows<BFloat16>(x, weight, inv_rms, dy, dx, dweight, begin, end);
  if (weight.dtype == DType::f16) return backward_rows<Float16>(x, weight, inv_rms, dy, dx, dweight, begin, end);
  backward_rows<float>(x, weight, inv_rms, dy, dx, dweight, begin, end);
}

/// dweight += dy · n for columns [begin, end), row after row from `first` on.
void weight_gradient_columns(ConstView x, const float* inv_rms, ConstView dy, float* dweight, int64_t first,
                             int64_t begin, int64_t end) {
  const int64_t x_stride = x.row_stride(), dy_stride = dy.row_stride();
  for_groups(first, x.rows(), [&](auto rows, int64_t r) HWY_ATTR {
    constexpr int kRows = decltype(rows)::value;
    const float *from = x.row<float>(r) + begin, *dout = dy.row<float>(r) + begin;
    FloatVec invs[kRows];
#pragma GCC unroll 4
    for (int k = 0; k < kRows; ++k) invs[k] = hn::Set(kFloats, inv_rms[r + k]);
    for_vectors(end - begin, [&](int64_t i, auto vector) HWY_ATTR {
      auto sum = vector.load(dweight + begin + i);
#pragma GCC unroll 4
      for (int k = 0; k < kRows; ++k)
        sum = fused(vector.load(dout + k * dy_stride + i), hn::Mul(vector.load(from + k * x_stride + i), invs[k]), sum);
      vector.store(sum, dweight + begin + i);
    });
  });
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
  float* const sums = dweight.empty() ? nullptr : dweight.row<float>(0);
  int64_t summed = 0;  // rows whose part of dweight is summed with dx: those of the thread that has the first
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_backward_rows)(x, weight, inv, dy, dx, begin == 0 ? sums : nullptr, begin, end);
    if (begin == 0) summed = end;
  });
  if (!sums || summed == x.rows()) return;
  for_columns(ctx, x.cols(), x.rows() - summed, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(weight_gradient_columns)(x, inv, dy, sums, summed, begin, end);
  });
}

}  // namespace tessera::cpu
#endif
