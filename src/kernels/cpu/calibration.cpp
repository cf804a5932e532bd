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

/// sums = <x, y>, <x, x>, <y, y>
void dots_of_row(const float* x, const float* y, int64_t dim, double* sums) {
  DoubleSums xy, xx, yy;
  for_double_lanes(dim, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    const auto a = wide(vector.load(x + i)), b = wide(vector.load(y + i));
    xy.add_product(place, a, b);
    xx.add_product(place, a, a);
    yy.add_product(place, b, b);
  });
  sums[0] = xy.sum();
  sums[1] = xx.sum();
  sums[2] = yy.sum();
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
#include <cmath>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/ordered_sum.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(dots_of_row);
HWY_EXPORT(add_squares_row);

double cosine(const float* x, const float* y, int64_t dim) {
  double dots[3];
  HWY_DYNAMIC_DISPATCH(dots_of_row)(x, y, dim, dots);
  // A row of zeros has no direction; its cosine counts as 0 and not as NaN.
  return dots[1] == 0 || dots[2] == 0 ? 0 : dots[0] / (std::sqrt(dots[1]) * std::sqrt(dots[2]));
}

}  // namespace

void add_cosines(const Context& ctx, ConstView x, ConstView y, IndexArray<int32_t> rows, TensorView sum) {
  double& total = sum.as<double>()[0];
  total = ordered_sum(ctx, total, static_cast<int64_t>(rows.size()), 2 * x.cols(),
                      [&](int64_t i) { return cosine(x.row<float>(rows[i]), y.row<float>(rows[i]), x.cols()); });
}

void add_column_squares(const Context& ctx, ConstView x, IndexArray<int32_t> rows, TensorView sums) {
  double* to = sums.row<double>(0);
  for_columns(ctx, x.cols(), static_cast<int64_t>(rows.size()), [&](int64_t begin, int64_t end) {
    for (const int32_t r : rows)
      HWY_DYNAMIC_DISPATCH(add_squares_row)(x.row<float>(r) + begin, end - begin, to + begin);
  });
}

}  // namespace tessera::cpu
#endif
