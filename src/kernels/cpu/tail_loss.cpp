// A row a time, in three passes over a row that the first cache holds: both roots, the distance, the gradient.

#include <cmath>

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/tail_loss.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/tail_loss.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

float inverse_rms(const float* x, int64_t dim, double eps) {
  const double squares = sum_of_squares_of_row(x, dim);
  return static_cast<float>(1 / std::sqrt(squares / static_cast<double>(dim) + eps));
}

/// ‖e‖² / dim; the gradient is added where it is wanted.
double tail_loss_of_row(const TailLossArgs& args, int64_t r) {
  const int64_t dim = args.student.cols();
  const float *student = args.student.row<float>(r), *teacher = args.teacher.row<float>(r);
  const float s_inverse = inverse_rms(student, dim, args.eps), t_inverse = inverse_rms(teacher, dim, args.eps);
  const auto s = hn::Set(kFloats, s_inverse), t = hn::Set(kFloats, t_inverse);
  // The gradient passes through the norm: with n the normalised student, what e has along n falls out (rms_norm.cpp).
  FloatSums squares, along;  // Σ e², Σ e · n
  for_float_lanes(dim, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    const auto n = hn::Mul(vector.load(student + i), s), e = hn::Sub(n, hn::Mul(vector.load(teacher + i), t));
    squares.add_product(place, e, e);
    along.add_product(place, e, n);
  });
  const double count = static_cast<double>(dim);
  if (!args.dstudent.empty()) {
    float* gradient = args.dstudent.row<float>(r);
    const auto scale = hn::Set(kFloats, static_cast<float>(args.grad_scale * 2 / count * s_inverse));
    const auto mean = hn::Set(kFloats, static_cast<float>(along.sum() / count));
    // e is formed again: a row of it would have to be stored otherwise, and the row is in the cache.
    for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
      const auto n = hn::Mul(vector.load(student + i), s), e = hn::Sub(n, hn::Mul(vector.load(teacher + i), t));
      vector.store(fused(scale, fused_minus(n, mean, e), vector.load(gradient + i)), gradient + i);
    });
  }
  return static_cast<double>(squares.sum()) / count;
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

HWY_EXPORT(tail_loss_of_row);

}  // namespace

void tail_loss(const Context& ctx, const TailLossArgs& args) {
  const auto loss = args.loss.as<double>();
  parallel_for(ctx, args.loss.shape.count(), 4 * args.student.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) loss[i] += HWY_DYNAMIC_DISPATCH(tail_loss_of_row)(args, args.rows[i]);
  });
}

}  // namespace tessera::cpu
#endif
