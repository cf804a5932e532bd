// The two vocabulary-chunk steps of distill. Rows are independent; a row of both models' logits (24 KB) stays in
// the first cache through its passes: maxima, then exponentials, sums and what joins the models.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/distillation.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_max-inl.h"
#include "kernels/cpu/tempered_row.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

/// teacher <- e_t, student_exp <- e_s, and the chunk's sums.
void tempered_exponentials(TemperedRow& row) {
  FloatSums s_sum, t_sum, cross;
  const auto s_max = hn::Set(kFloats, row.student_max), t_max = hn::Set(kFloats, row.teacher_max);
  const auto inverse = hn::Set(kFloats, row.inverse_temperature);
  for_float_lanes(row.cols, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    const auto a_s = hn::Mul(hn::Sub(vector.load(row.student + i, kMinusInfinity), s_max), inverse);
    const auto a_t = hn::Mul(hn::Sub(vector.load(row.teacher + i, kMinusInfinity), t_max), inverse);
    const auto e_s = Exp(kFloats, a_s), e_t = Exp(kFloats, a_t);
    s_sum.add(place, e_s);
    t_sum.add(place, e_t);
    // 0 · infinity would be NaN: what has no probability adds nothing.
    cross.add_product(place, e_t, hn::IfThenZeroElse(hn::Eq(e_t, hn::Zero(kFloats)), hn::Sub(a_t, a_s)));
    if (row.student_exp) vector.store(e_s, row.student_exp + i);
    vector.store(e_t, row.teacher + i);
  });
  row.student_sum = s_sum.sum();
  row.teacher_sum = t_sum.sum();
  row.cross = cross.sum();
}

/// teacher <- student_sum · e_s + teacher_sum · e_t, with the sums as factors. Products are rounded before they meet:
/// of equal logits they cancel exactly.
void tempered_gradient(const TemperedRow& row) {
  const auto s_max = hn::Set(kFloats, row.student_max), t_max = hn::Set(kFloats, row.teacher_max);
  const auto s_factor = hn::Set(kFloats, row.student_sum), t_factor = hn::Set(kFloats, row.teacher_sum);
  const auto inverse = hn::Set(kFloats, row.inverse_temperature);
  for_vectors(row.cols, [&](int64_t i, auto vector) HWY_ATTR {
    const auto e_s = Exp(kFloats, hn::Mul(hn::Sub(vector.load(row.student + i), s_max), inverse));
    const auto e_t = Exp(kFloats, hn::Mul(hn::Sub(vector.load(row.teacher + i), t_max), inverse));
    vector.store(hn::Add(hn::Mul(s_factor, e_s), hn::Mul(t_factor, e_t)), row.teacher + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "core/functions/functions.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(max_of_row);
HWY_EXPORT(tempered_exponentials);
HWY_EXPORT(tempered_gradient);

// What distill_begin has set the maxima to.
constexpr float kNothingYet = -std::numeric_limits<float>::infinity();

/// The maximum that a row's exponents are formed from, and what its move did to what was there.
struct Maximum {
  float value;    // 0 while it is −inf
  float rescale;  // 0 when nothing was there
  float moved;    // in units of the temperature
};

/// The online softmax's step for one row of one model: takes the chunk's maximum into account and says how much smaller
/// the exponentials of earlier chunks have become.
Maximum advance(const TemperedRows& rows, int64_t n, const float* logits, int64_t cols, float inverse_temperature) {
  float& max = rows.max.row<float>(0)[n];
  const float old_max = max;
  max = std::max(max, HWY_DYNAMIC_DISPATCH(max_of_row)(logits, cols));
  Maximum now{.value = max == kNothingYet ? 0.0f : max, .rescale = 0, .moved = 0};
  if (old_max != kNothingYet) {
    now.moved = (max - old_max) * inverse_temperature;
    now.rescale = functions::exp(-now.moved);
  }
  rows.rescale.row<float>(0)[n] = now.rescale;
  return now;
}

void chunk_row(const DistillChunkArgs& args, int64_t n) {
  TemperedRow row{};
  row.student = args.student.row<float>(n);
  row.teacher = args.teacher.row<float>(n);
  row.student_exp = args.student_exp.empty() ? nullptr : args.student_exp.row<float>(n);
  row.cols = args.student.cols();
  row.inverse_temperature = static_cast<float>(1 / args.temperature);
  const Maximum s = advance(args.rows.student, n, row.student, row.cols, row.inverse_temperature),
                t = advance(args.rows.teacher, n, row.teacher, row.cols, row.inverse_temperature);
  row.student_max = s.value;
  row.teacher_max = t.value;
  HWY_DYNAMIC_DISPATCH(tempered_exponentials)(row);
  float &s_sum = args.rows.student.sum.row<float>(0)[n], &t_sum = args.rows.teacher.sum.row<float>(0)[n],
        &cross = args.rows.cross.row<float>(0)[n];
  // cross = Σ e_t (a_t − a_s). When the maxima rise by m_t and m_s (in units of the temperature), every earlier e_t
  // shrinks by the factor e^−m_t, and every earlier a_t − a_s by m_t − m_s.
  // Terms of earlier chunks held e_t and the distances from the old maxima.
  cross = (t.rescale == 0 ? 0 : t.rescale * (cross - t_sum * (t.moved - s.moved))) + row.cross;
  s_sum = s_sum * s.rescale + row.student_sum;
  t_sum = t_sum * t.rescale + row.teacher_sum;
}

void gradient_row(const DistillGradientArgs& args, int64_t n) {
  const auto at = [n](const TensorView& vector) { return vector.row<float>(0)[n]; };
  const TemperedRows &s = args.rows.student, &t = args.rows.teacher;
  TemperedRow row{};
  row.student = args.student.row<float>(n);
  row.teacher = args.teacher.row<float>(n);
  row.cols = args.student.cols();
  row.student_max = at(s.max);
  row.teacher_max = at(t.max);
  row.inverse_temperature = static_cast<float>(1 / args.temperature);
  row.student_sum = at(s.sum);
  row.teacher_sum = at(t.sum);
  HWY_DYNAMIC_DISPATCH(tempered_gradient)(row);
}

}  // namespace

void distill_chunk(const Context& ctx, const DistillChunkArgs& args) {
  parallel_for(ctx, args.student.rows(), args.student.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) chunk_row(args, n);
  });
}

void distill_gradient_chunk(const Context& ctx, const DistillGradientArgs& args) {
  parallel_for(ctx, args.student.rows(), args.student.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) gradient_row(args, n);
  });
}

}  // namespace tessera::cpu
#endif
