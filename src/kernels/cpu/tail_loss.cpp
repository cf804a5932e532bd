// A row a time, in three passes over a row that the first cache holds: both roots, the distance, the gradient. The
// losses of rows wait in scratch and are added in order.

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
  auto squares = hn::Zero(kFloats);
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto v = vector.load(x + i);
    squares = fused(v, v, squares);
  });
  return static_cast<float>(1 / std::sqrt(static_cast<double>(sum_of_lanes(squares)) / static_cast<double>(dim) + eps));
}

/// ‖e‖² / dim; the gradient is added where it is wanted.
double tail_loss_of_row(const TailLossArgs& args, int64_t r) {
  const int64_t dim = args.student.cols();
  const float *student = args.student.row<float>(r), *teacher = args.teacher.row<float>(r);
  const float s_inverse = inverse_rms(student, dim, args.eps), t_inverse = inverse_rms(teacher, dim, args.eps);
  const auto s = hn::Set(kFloats, s_inverse), t = hn::Set(kFloats, t_inverse);
  // The gradient passes through the norm: with n the normalised student, what e has along n falls out (rms_norm.cpp).
  auto squares = hn::Zero(kFloats), along = hn::Zero(kFloats);  // Σ e², Σ e · n
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto n = hn::Mul(vector.load(student + i), s), e = hn::Sub(n, hn::Mul(vector.load(teacher + i), t));
    squares = fused(e, e, squares);
    along = fused(e, n, along);
  });
  const double count = static_cast<double>(dim);
  if (!args.dstudent.empty()) {
    float* gradient = args.dstudent.row<float>(r);
    const auto scale = hn::Set(kFloats, static_cast<float>(args.grad_scale * 2 / count * s_inverse));
    const auto mean = hn::Set(kFloats, static_cast<float>(sum_of_lanes(along) / count));
    // e is formed again: a row of it would have to be stored otherwise, and the row is in the cache.
    for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
      const auto n = hn::Mul(vector.load(student + i), s), e = hn::Sub(n, hn::Mul(vector.load(teacher + i), t));
      vector.store(fused(scale, fused_minus(n, mean, e), vector.load(gradient + i)), gradient + i);
    });
  }
  return static_cast<double>(sum_of_lanes(squares)) / count;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/ordered_sum.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(tail_loss_of_row);

}  // namespace

void tail_loss(const Context& ctx, const TailLossArgs& args) {
  args.sum.as<double>()[0] +=
      ordered_sum(ctx, static_cast<int64_t>(args.rows.size()), 4 * args.student.cols(),
                  [&](int64_t i) { return HWY_DYNAMIC_DISPATCH(tail_loss_of_row)(args, args.rows[i]); });
}

}  // namespace tessera::cpu
#endif
