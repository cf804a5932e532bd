// Bound by memory. Cosines are shared out by rows, which wait in scratch and are added in order; sums of columns are
// shared out by columns, so that each is added in the rows' order without scratch.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/calibration.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

using Doubles = hn::ScalableTag<double>;
constexpr Doubles kDoubles;
// As many floats as there are doubles in a vector: half a vector of floats.
constexpr hn::Rebind<float, Doubles> kHalf;

/// sums = <x, y>, <x, x>, <y, y>
void dots_of_row(const float* x, const float* y, int64_t dim, double* sums) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kDoubles));
  // One vector of partial sums each: what a lane holds depends on the vector width, not on the threads.
  auto xy = hn::Zero(kDoubles), xx = hn::Zero(kDoubles), yy = hn::Zero(kDoubles);
  int64_t i = 0;
  for (; i + lanes <= dim; i += lanes) {
    const auto a = hn::PromoteTo(kDoubles, hn::LoadU(kHalf, x + i));
    const auto b = hn::PromoteTo(kDoubles, hn::LoadU(kHalf, y + i));
    xy = fused(a, b, xy);
    xx = fused(a, a, xx);
    yy = fused(b, b, yy);
  }
  sums[0] = hn::GetLane(hn::SumOfLanes(kDoubles, xy));
  sums[1] = hn::GetLane(hn::SumOfLanes(kDoubles, xx));
  sums[2] = hn::GetLane(hn::SumOfLanes(kDoubles, yy));
  for (; i < dim; ++i) {
    const double a = x[i], b = y[i];
    sums[0] += a * b;
    sums[1] += a * a;
    sums[2] += b * b;
  }
}

/// sums += x². A square of f32 numbers is exact in f64: fused or not, the bits are the same.
void add_squares_row(const float* x, int64_t count, double* sums) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kDoubles));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::PromoteTo(kDoubles, hn::LoadU(kHalf, x + i));
    hn::StoreU(fused(v, v, hn::LoadU(kDoubles, sums + i)), kDoubles, sums + i);
  }
  for (; i < count; ++i) {
    const double v = x[i];
    sums[i] += v * v;
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/ordered_sum.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(dots_of_row);
HWY_EXPORT(add_squares_row);

constexpr int64_t kStripe = 16;  // columns that one thread adds: a cache line of x

double cosine(const float* x, const float* y, int64_t dim) {
  double dots[3];
  HWY_DYNAMIC_DISPATCH(dots_of_row)(x, y, dim, dots);
  // A row of zeros has no direction; its cosine counts as 0 and not as NaN.
  return dots[1] == 0 || dots[2] == 0 ? 0 : dots[0] / (std::sqrt(dots[1]) * std::sqrt(dots[2]));
}

}  // namespace

void add_cosines(const Context& ctx, ConstView x, ConstView y, IndexArray<int32_t> rows, TensorView sum) {
  sum.as<double>()[0] += ordered_sum(ctx, static_cast<int64_t>(rows.size()), 2 * x.cols(), [&](int64_t i) {
    return cosine(x.row<float>(rows[i]), y.row<float>(rows[i]), x.cols());
  });
}

void add_column_squares(const Context& ctx, ConstView x, IndexArray<int32_t> rows, TensorView sums) {
  const int64_t dim = x.cols(), stripes = (dim + kStripe - 1) / kStripe;
  double* to = sums.row<double>(0);
  // A thread owns columns, so that every sum is added in the order of `rows`, without atomics and without scratch.
  parallel_for(ctx, stripes, kStripe * static_cast<int64_t>(rows.size()), [&](int64_t first, int64_t last) {
    const int64_t begin = first * kStripe, count = std::min(last * kStripe, dim) - begin;
    for (const int32_t r : rows) HWY_DYNAMIC_DISPATCH(add_squares_row)(x.row<float>(r) + begin, count, to + begin);
  });
}

}  // namespace tessera::cpu
#endif
