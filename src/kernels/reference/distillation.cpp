// Two online softmaxes abreast, of a student's and a teacher's logits at one temperature, and the sum that joins them:
//   KL = Σ P_t (log P_t − log P_s) = cross / sum_t + log(sum_s / sum_t),   cross = Σ e_t (a_t − a_s)
//   with a = (z − max) / T and e = exp(a) of each model.

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/functions/functions.h"
#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// The maximum that a row's exponents are formed from, and what its move did to what was there.
struct Maximum {
  double value;    // 0 while it is −inf
  double rescale;  // 0 when nothing was there
  double moved;    // in units of the temperature
};

template <class T>
Maximum advance(const TemperedRows& rows, int64_t n, const T* logits, int64_t cols, double temperature) {
  T& max = rows.max.as<T>()[n];
  const double old_max = max;
  for (int64_t c = 0; c < cols; ++c) max = std::max(max, logits[c]);  // a NaN is passed over: it shows in the sum
  // While all logits are −inf, a difference from the maximum would be NaN: it counts as 0, and exponentials are 0.
  Maximum now{.value = max == kMinusInfinity ? 0.0 : static_cast<double>(max), .rescale = 0, .moved = 0};
  if (old_max != kMinusInfinity) {
    now.moved = (max - old_max) / temperature;
    now.rescale = std::exp(-now.moved);
  }
  rows.rescale.as<T>()[n] = static_cast<T>(now.rescale);
  return now;
}

template <class T> void chunk_row(const DistillChunkArgs& args, int64_t n) {
  const T* student = args.student.row<T>(n);
  T *teacher = args.teacher.row<T>(n), *student_exp = args.student_exp.empty() ? nullptr : args.student_exp.row<T>(n);
  const int64_t cols = args.student.cols();
  const TemperedRows &s_rows = args.rows.student, &t_rows = args.rows.teacher;
  const Maximum s = advance(s_rows, n, student, cols, args.temperature),
                t = advance(t_rows, n, teacher, cols, args.temperature);
  T &s_sum = s_rows.sum.as<T>()[n], &t_sum = t_rows.sum.as<T>()[n], &cross = args.rows.cross.as<T>()[n];
  // Terms of earlier chunks held e_t and the distances from the old maxima.
  double new_cross = t.rescale == 0 ? 0 : t.rescale * (cross - t_sum * (t.moved - s.moved));
  // The sums of earlier chunks as they would be, had they been formed with the maxima as they are now.
  double new_s_sum = s_sum * s.rescale, new_t_sum = t_sum * t.rescale;
  for (int64_t c = 0; c < cols; ++c) {
    const double a_s = (student[c] - s.value) / args.temperature, a_t = (teacher[c] - t.value) / args.temperature;
    const double e_s = std::exp(a_s), e_t = std::exp(a_t);
    new_s_sum += e_s;
    new_t_sum += e_t;
    // 0 · infinity would be NaN: a column without probability adds nothing.
    if (e_t != 0) new_cross += e_t * (a_t - a_s);
    if (student_exp) student_exp[c] = static_cast<T>(e_s);
    teacher[c] = static_cast<T>(e_t);
  }
  s_sum = static_cast<T>(new_s_sum);
  t_sum = static_cast<T>(new_t_sum);
  cross = static_cast<T>(new_cross);
}

template <class T> void begin_rows(const DistillRows& rows) {
  for (const TemperedRows* model : {&rows.student, &rows.teacher}) {
    std::ranges::fill(model->max.as<T>(), -std::numeric_limits<T>::infinity());
    std::ranges::fill(model->sum.as<T>(), T{0});
  }
  std::ranges::fill(rows.cross.as<T>(), T{0});
}

template <class T> void finish_rows(const DistillFinishArgs& args) {
  const auto s_sum = args.rows.student.sum.as<T>(), t_sum = args.rows.teacher.sum.as<T>();
  const auto cross = args.rows.cross.as<T>(), kl = args.kl.as<T>();
  // kl = Σ P_t (log P_t − log P_s), with log P = a − log Σ e for each model: the a's are in `cross`, the logarithms of
  // the sums remain. The sums are then free and take the gradient's factors.
  for (size_t n = 0; n < kl.size(); ++n) {
    const double s = s_sum[n], t = t_sum[n];
    kl[n] = static_cast<T>(cross[n] / t + functions::log(s / t));  // the cpu backend finishes here, too
    if (!args.grad_scale) continue;
    s_sum[n] = static_cast<T>(*args.grad_scale * args.temperature / s);
    t_sum[n] = static_cast<T>(-*args.grad_scale * args.temperature / t);
  }
}

template <class T> void gradient_row(const DistillGradientArgs& args, int64_t n) {
  const T* student = args.student.row<T>(n);
  T* teacher = args.teacher.row<T>(n);
  const auto at = [n](const TensorView& vector) { return static_cast<double>(vector.as<T>()[n]); };
  const TemperedRows &s = args.rows.student, &t = args.rows.teacher;
  for (int64_t c = 0; c < args.student.cols(); ++c)
    teacher[c] = static_cast<T>(at(s.sum) * std::exp((student[c] - at(s.max)) / args.temperature) +
                                at(t.sum) * std::exp((teacher[c] - at(t.max)) / args.temperature));
}

}  // namespace

void distill_begin(const Context&, const DistillRows& rows) {
  with_compute_type(rows.cross.dtype, [&](auto t) { begin_rows<decltype(t)>(rows); });
}

void distill_chunk(const Context&, const DistillChunkArgs& args) {
  with_compute_type(args.student.dtype, [&](auto t) {
    for (int64_t n = 0; n < args.student.rows(); ++n) chunk_row<decltype(t)>(args, n);
  });
}

void distill_finish(const Context&, const DistillFinishArgs& args) {
  with_compute_type(args.kl.dtype, [&](auto t) { finish_rows<decltype(t)>(args); });
}

void distill_gradient_chunk(const Context&, const DistillGradientArgs& args) {
  with_compute_type(args.student.dtype, [&](auto t) {
    for (int64_t n = 0; n < args.student.rows(); ++n) gradient_row<decltype(t)>(args, n);
  });
}

}  // namespace tessera::reference
